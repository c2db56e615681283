"""Recorded exchanges, replayed through a sync and an async client. Every assertion must hold for the live service.

cassettes/README.md says how to record them again, from the emulator or from the live service.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import LAUNCH_ENVIRONMENT, run
from cassette_cases import CASSETTES, REPLAYED, cases

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vcr.cassette import Cassette


@pytest.fixture(scope="module")
def vcr_cassette_dir() -> str:
    return str(CASSETTES)


@pytest.fixture(scope="module")
def source(pytestconfig: pytest.Config) -> str:
    recording = pytestconfig.getoption("--record-mode") not in {None, "none"}
    return pytestconfig.getoption("--record-from") if recording else "cassette"


@pytest.fixture
def gateway_emulator(provoked: Any) -> Iterator[Any]:
    """Run an emulator that fails as the case asks."""
    rules = {name: value for name, value in (provoked or {}).items() if name == "guardrails"}
    with importlib.import_module("deepseek_gateway.emulator").Emulator(**rules) as emulator:
        if provoked and not rules:
            emulator.fail_next(**provoked)
        yield emulator


@pytest.fixture
def gateway_config(
    request: pytest.FixtureRequest, source: str, route: Any, settings: dict[str, Any], provoked: Any
) -> GatewayConfig:
    """Configure a client for the source: a cassette, the emulator, or the live service that the environment names."""
    if source == "cassette":
        return replace(REPLAYED, route=route, **settings)
    if source == "live":
        if provoked:
            pytest.skip(f"only the emulator does this on demand: {provoked}")
        return replace(GatewayConfig.from_env(LAUNCH_ENVIRONMENT), route=route, **settings)
    return request.getfixturevalue("gateway_emulator").config(route=route, **settings)


@pytest.fixture
def vcr_config(gateway_vcr_config: dict[str, Any]) -> dict[str, Any]:
    return gateway_vcr_config


@pytest.mark.vcr
@pytest.mark.parametrize("flavour", ["sync", "httpx"])
@cases
def test_recorded_exchange_gives_documented_result(
    gateway_config: GatewayConfig, use: Any, check: Callable[[Any], None], flavour: str, vcr: Cassette, source: str
) -> None:
    try:
        result = run(flavour, gateway_config, use, max_retries=0)
    except openai.APIError as error:
        result = error
    check(result)
    assert vcr.play_count == (1 if source == "cassette" else 0), "the cassette was not played whole"
    assert len(vcr) == 1
