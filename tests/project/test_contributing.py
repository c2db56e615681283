"""CONTRIBUTING's walk through one call has at most twelve steps, and names functions that exist."""

from __future__ import annotations

import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest

WALK = (
    (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8").partition("## One call")[2].partition("\n## ")[0]
)
STEPS = re.findall(r"(?m)^(\d+)\. `(\w+)\.([\w.]+)`", WALK)


def test_walk_has_at_most_twelve_numbered_steps_that_begin_with_a_function() -> None:
    assert [int(number) for number, _, _ in STEPS] == list(range(1, len(re.findall(r"(?m)^\d+\. ", WALK)) + 1))
    assert 1 <= len(STEPS) <= 12


@pytest.mark.parametrize(("module", "name"), sorted(set(re.findall(r"`(_\w+)\.([A-Za-z_.]+)`", WALK))))
def test_function_of_the_walk_exists(module: str, name: str) -> None:
    assert attrgetter(name)(import_module(f"deepseek_gateway.{module}"))
