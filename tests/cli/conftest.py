"""Fixtures for the commands. The settings in the environment point at an emulator or at a loopback server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from calling import KEY, TOKEN
from commands import examine, set_up
from forwarded import forwarder

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forwarded import Running
    from loopback import Loopback

    from deepseek_gateway import GatewayConfig
    from deepseek_gateway.cli.computer import Judgement


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator() as running:
        set_up(monkeypatch, running.config())
        yield running


@pytest.fixture
def server(gateway: Loopback, config_at: Callable[..., GatewayConfig], monkeypatch: pytest.MonkeyPatch) -> Loopback:
    set_up(monkeypatch, config_at(gateway))
    return gateway


@pytest.fixture
def forward(gateway: Loopback, config_at: Callable[..., GatewayConfig]) -> Iterator[Running]:
    """A forwarder to the loopback server."""
    with forwarder(config_at(gateway)) as running:
        yield running


@pytest.fixture
def examine_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Judgement]]:
    """Run every check of `doctor` against an endpoint."""

    def examine_endpoint(endpoint: str) -> dict[str, Any]:
        monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
        monkeypatch.setenv("CF_AIG_TOKEN", TOKEN)
        return examine(settings={"endpoint": endpoint})

    return examine_endpoint
