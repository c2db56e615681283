"""The walk through one call has at most twelve steps, and names functions that exist. Every module has a row."""

from __future__ import annotations

import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from documents import PAGES, section

import deepseek_gateway

WALK = section(PAGES["how-it-works"], "One call, step by step")
STEPS = re.findall(r"(?m)^(\d+)\. `(\w+)\.([\w.]+)`", WALK)


def test_walk_has_at_most_twelve_numbered_steps_that_begin_with_a_function() -> None:
    assert [int(number) for number, _, _ in STEPS] == list(range(1, len(re.findall(r"(?m)^\d+\. ", WALK)) + 1))
    assert 1 <= len(STEPS) <= 12


@pytest.mark.parametrize(("module", "name"), sorted(set(re.findall(r"`(_\w+)\.([A-Za-z_.]+)`", WALK))))
def test_function_of_the_walk_exists(module: str, name: str) -> None:
    assert attrgetter(name)(import_module(f"deepseek_gateway.{module}"))


def test_every_module_of_the_client_has_a_row() -> None:
    modules = {path.name for path in Path(deepseek_gateway.__file__).parent.glob("*.py")}
    rows = re.findall(r"(?m)^\| (`.+`) \|", section(PAGES["how-it-works"], "Modules"))
    described = {name for row in rows for name in re.findall(r"`(\w+\.py)`", row)}
    assert modules - described == {"__main__.py", "_server.py"}  # both belong to the command line
