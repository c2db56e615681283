"""How `doctor` reports what it found, to a person or to a machine."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from deepseek_gateway._settings import SETTINGS, Setting

from .doctor import Judgement, masked
from .options import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

    from deepseek_gateway._config import Findings

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}
_SYMBOLS = {"pass": "\N{CHECK MARK}", "warn": "!", "fail": "\N{BALLOT X}", "skip": "-"}
_ASCII_SYMBOLS = {"pass": "+", "warn": "!", "fail": "x", "skip": "-"}


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """A setting as it may be shown: a secret only by its length."""

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


def shown_settings(findings: Findings) -> list[ShownSetting]:
    """Give every setting with its origin; a secret in the wrong setting is redacted."""
    shown: list[ShownSetting] = []
    for setting in SETTINGS:
        given = findings.values[setting.field]
        text = ("on" if given else "off") if isinstance(given, bool) else None if given is None else str(given)
        origin, variable = _origin(setting, findings)
        length = None if text is None else len(text)
        value = None if text is None or setting.secret else without_secrets(masked(text), findings.values)
        shown.append(ShownSetting(setting.field, variable, setting.secret, value, length, origin))
    return shown


def _origin(setting: Setting, findings: Findings) -> tuple[str, str]:
    """Say where a value came from, and name its variable."""
    if setting.field not in findings.origins:
        return "not set" if setting.default is None else "default", setting.variables[0]
    origin, variable = findings.origins[setting.field]
    if origin == "argument":
        return f"argument --{variable.replace('_', '-')}", setting.variables[0]
    if origin == "environment":
        return f"environment {variable}", variable
    pattern = re.compile(rf"\s*(?:export\s+)?'?{re.escape(variable)}'?\s*=")
    lines = Path(origin).read_text(encoding="utf-8-sig").splitlines()
    number = max((number for number, line in enumerate(lines, 1) if pattern.match(line)), default="?")  # the last wins
    return f"{Path(origin).name} line {number} of {Path(origin).absolute()}", variable


def exit_status(results: dict[str, Judgement]) -> int:
    """Give 1 if a check failed, else 0."""
    return int(any(result.verdict == "fail" for result in results.values()))


def summary(results: dict[str, Judgement]) -> str:
    """Count the verdicts in a sentence, and say which failure to begin with."""
    counts = Counter(result.verdict for result in results.values())
    text = (
        f"{counts['pass']} passed, {counts['warn']} with a warning, {counts['fail']} failed, {counts['skip']} skipped"
    )
    failed = next((name for name, result in results.items() if result.verdict == "fail"), None)
    return f"{text}; begin with {failed}." if failed else f"{text}."


def as_json(findings: Findings, results: dict[str, Judgement]) -> str:
    """Write one JSON object with every setting and every check, skipped ones included."""
    report = {
        "settings": [asdict(setting) for setting in shown_settings(findings)],
        "checks": [{"name": name, **result._asdict()} for name, result in results.items()],
        "summary": summary(results),
        "exit_status": exit_status(results),
    }
    return json.dumps(report, indent=2)


def print_report(findings: Findings, results: dict[str, Judgement], console: Console) -> None:
    """Print the report for a person; checks that were skipped for the same reason share a line."""
    symbols = _ASCII_SYMBOLS if console.options.ascii_only else _SYMBOLS
    console.print(Text("Settings", "bold"))
    for setting in shown_settings(findings):
        _print(console, f"  {setting.name:<15}", str(setting))
    console.print(Text("\nChecks", "bold"))
    for name, result in results.items():
        if result.verdict != "skip":
            margin = f"  {symbols[result.verdict]} {result.verdict}  "
            remedy = f"\nremedy: {result.remedy}" if result.remedy else ""
            _print(console, margin, f"{name}: {result.found}{remedy}", _STYLES[result.verdict])
    reasons = Counter(result.found for result in results.values() if result.verdict == "skip")
    for reason, number in reasons.items():
        _print(
            console, f"  {symbols['skip']} skip  ", f"{number} checks were not tried, because {reason}", _STYLES["skip"]
        )
    console.print(Text("\nSummary", "bold"))
    _print(console, "  ", summary(results))


def _print(console: Console, margin: str, text: str, style: str = "") -> None:
    """Print a text beside its margin; a long URL or path stays in one piece, to be copied."""
    wrapper = textwrap.TextWrapper(console.width - len(margin), break_long_words=False, break_on_hyphens=False)
    lines = [line for paragraph in text.splitlines() for line in wrapper.wrap(paragraph)]
    console.print(Text.assemble((margin, style), f"\n{' ' * len(margin)}".join(lines)), soft_wrap=True)
