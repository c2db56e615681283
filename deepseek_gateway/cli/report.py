"""How `doctor` reports what it found, to a person or to a machine."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deepseek_gateway._settings import SETTINGS, Setting

from .computer import Judgement, masked
from .doctor import GROUP_OF
from .options import print_beside, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deepseek_gateway._config import Findings

_SYMBOLS = {"pass": "\N{CHECK MARK}+", "warn": "!!", "fail": "\N{BALLOT X}x"}  # the second is plain ASCII
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


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
    """Count the verdicts in a sentence."""
    counts = Counter(result.verdict for result in results.values())
    passed, warned, failed, skipped = (counts[verdict] for verdict in ("pass", "warn", "fail", "skip"))
    return f"{passed} passed, {warned} with a warning, {failed} failed, {skipped} skipped."


def as_json(findings: Findings, results: dict[str, Judgement]) -> str:
    """Write one JSON object with every setting and every check, skipped ones included."""
    report = {
        "settings": [asdict(setting) for setting in shown_settings(findings)],
        "checks": [{"name": name, "group": GROUP_OF[name], **result._asdict()} for name, result in results.items()],
        "summary": summary(results),
        "exit_status": exit_status(results),
    }
    return json.dumps(report, indent=2)


def print_report(findings: Findings, results: dict[str, Judgement]) -> None:
    """Print the report for a person: failures first, each with its remedy, and what passed in groups."""

    def section(title: str, names: Iterable[str], verdict: str) -> None:
        chosen = {name: results[name] for name in names if results[name].verdict == verdict}
        symbol = _SYMBOLS[verdict][not (sys.stdout.encoding or "").lower().startswith("utf")]
        if chosen:
            print_beside(title, "", bold=True)
        for name, result in chosen.items():
            print_beside(f"  {symbol} ", f"{name}: {result.found}", fg=_COLOURS[verdict])
            print_beside("    ", result.remedy) if result.remedy else None
        if chosen:
            typer.echo()

    section("Failed", results, "fail")
    section("Warnings", results, "warn")
    shown = shown_settings(findings)
    print_beside("Settings", "", bold=True)
    for setting in shown:
        if setting.length is not None:
            print_beside(f"  {setting.name:<17}", str(setting))
    print_beside(f"  {'not set':<17}", ", ".join(each.name for each in shown if each.length is None))
    typer.echo()
    for group in dict.fromkeys(GROUP_OF.values()):
        section(f"Passed: {group}", [name for name in results if GROUP_OF[name] == group], "pass")
    skipped = {name: result.found for name, result in results.items() if result.verdict == "skip"}
    for reason in dict.fromkeys(skipped.values()):
        names = ", ".join(name for name in skipped if skipped[name] == reason)
        print_beside("", f"Not tried, because {reason}: {names}")
    print_beside("", summary(results))
