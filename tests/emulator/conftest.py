"""Fixtures: a running emulator, and the clock of its limits and its cache."""

from collections.abc import Iterator

import pytest

from deepseek_gateway.emulator import Emulator


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Run one emulator for the tests of a module. Each test leaves no failure pending."""
    with Emulator() as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the clock of the limits and the cache. A test sets the time."""
    now = [1000.0]
    monkeypatch.setattr("deepseek_gateway.emulator._features.monotonic", lambda: now[0])
    return now
