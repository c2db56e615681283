"""Fixtures: a running emulator, and the clock of its limits and its cache."""

from collections.abc import Iterator

import pytest

from deepseek_gateway.emulator import Emulator


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """One emulator for all tests of a module that leave it unchanged."""
    with Emulator() as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that limits and the cache read; tests move it."""
    now = [1000.0]
    monkeypatch.setattr("deepseek_gateway.emulator._features.monotonic", lambda: now[0])
    return now
