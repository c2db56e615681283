"""How `deepseek-gateway doctor` tells what it found, to a person or to a machine."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from deepseek_gateway._codes import REDACTED
from deepseek_gateway._settings import SETTINGS, Setting

from .doctor import masked

if TYPE_CHECKING:
    from rich.console import Console

    from deepseek_gateway._config import Findings

    from .doctor import Result

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_SYMBOLS = {"pass": "\N{CHECK MARK}", "warn": "!", "fail": "\N{BALLOT X}", "skip": "-"}
_ASCII_SYMBOLS = {"pass": "+", "warn": "!", "fail": "x", "skip": "-"}


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as it may be shown: of a secret the length alone."""

    name: str
    variable: str
    secret: bool
    value: str | None
    length: int | None
    origin: str

    def __str__(self) -> str:
        """Say it in words."""
        if self.length is None:
            return "absent"
        shown = f"present, {self.length} characters" if self.secret else self.value
        return f"{shown} ({self.origin})"


def values(findings: Findings) -> list[Value]:
    """Tell of every setting what it is and where it came from."""
    shown: list[Value] = []
    secrets = [str(secret) for each in SETTINGS if each.secret and (secret := findings.values[each.field])]
    for setting in SETTINGS:
        text = None if findings.values[setting.field] is None else str(findings.values[setting.field])
        origin, variable = _origin(setting, findings)
        length = None if text is None else len(text)
        value = None if text is None or setting.secret else masked(text)
        for secret in secrets:  # put in the wrong place
            value = value and value.replace(secret, REDACTED)
        shown.append(Value(setting.field, variable, setting.secret, value, length, origin))
    return shown


def _origin(setting: Setting, findings: Findings) -> tuple[str, str]:
    """Give where a value came from, and the variable in question."""
    if setting.field not in findings.origins:
        return "default" if setting.default else "not set", setting.variables[0]
    origin, variable = findings.origins[setting.field]
    if origin == "argument":
        return f"argument --{variable.replace('_', '-')}", setting.variables[0]
    if origin == "environment":
        return f"environment {variable}", variable
    pattern = re.compile(rf"\s*(?:export\s+)?'?{re.escape(variable)}'?\s*=")
    lines = Path(origin).read_text(encoding="utf-8-sig").splitlines()
    found = [number for number, line in enumerate(lines, 1) if pattern.match(line)]
    return (
        f"{Path(origin).name} line {found[-1] if found else '?'} of {Path(origin).absolute()}",
        variable,
    )  # the last one counts


def exit_status(results: list[Result]) -> int:
    """Give 1 if a check failed, else 0."""
    return int(any(result.verdict == "fail" for result in results))


def summary(results: list[Result]) -> str:
    """Say in a sentence how it stands, and where to begin."""
    counts = Counter(result.verdict for result in results)
    told = (
        f"{counts['pass']} passed, {counts['warn']} with a warning, {counts['fail']} failed, {counts['skip']} skipped"
    )
    failed = next((result.name for result in results if result.verdict == "fail"), None)
    return f"{told}; begin with {failed}." if failed else f"{told}."


def as_json(findings: Findings, results: list[Result]) -> str:
    """Tell all of it to a machine."""
    told = {
        "settings": [asdict(value) for value in values(findings)],
        "checks": [asdict(result) for result in results],
        "summary": summary(results),
        "exit_status": exit_status(results),
    }
    return json.dumps(told, indent=2)


def show(findings: Findings, results: list[Result], console: Console) -> None:
    """Tell all of it to a person."""
    symbols = _ASCII_SYMBOLS if console.options.ascii_only else _SYMBOLS
    console.print(Text("Settings", "bold"))
    for value in values(findings):
        _line(console, Text(f"  {value.name:<15}"), Text(str(value)))
    console.print(Text("\nChecks", "bold"))
    for result in results:
        verdict = Text(f"  {symbols[result.verdict]} {result.verdict}  ", _STYLES[result.verdict])
        _line(console, verdict, Text.assemble((result.name, "bold"), f": {result.found}"))
        if result.remedy:
            _line(console, Text(" " * len(verdict)), Text(f"remedy: {result.remedy}", "italic"))
    console.print(Text("\nSummary", "bold"))
    _line(console, Text("  "), Text(summary(results)))


def _line(console: Console, margin: Text, text: Text) -> None:
    """Print a text beside its margin; a long URL or path stays in one piece, to be copied."""
    room = console.width - len(margin)
    for paragraph in text.split("\n"):
        plain, at = paragraph.plain, 0
        for line in textwrap.wrap(
            plain, room, expand_tabs=False, replace_whitespace=False, break_long_words=False, break_on_hyphens=False
        ):
            start = plain.index(line, at)
            at = start + len(line)
            console.print(Text.assemble(margin, paragraph[start:at]), soft_wrap=True)
            margin = Text(" " * len(margin))
