"""The pytest plugin: fixtures for tests of programs that use this package (extra `testing`).

pytest loads this module by itself. A program that calls `create_client()` without arguments needs no preparation::

    def test_answer_is_printed(gateway_emulator, capsys):
        my_program.main()
        assert "Cloudflare" in capsys.readouterr().out
        assert gateway_emulator.requests[0].model == "deepseek-flash"

During such a test the environment leads to the emulator: its endpoint, account, gateway and keys stand in the variables
that the program reads. `route`, `model`, `thinking`, `adapt` and `fallback` stay those of the program. To test another
route, set `DEEPSEEK_GATEWAY_ROUTE` before the fixture, or pass `gateway_emulator.config("rest")` to the program.

For cassettes, `conftest.py` needs two lines::

    import pytest
    vcr_config = pytest.fixture(lambda gateway_vcr_config: gateway_vcr_config)

A test with `@pytest.mark.vcr` then replays its cassette without any settings. `pytest --record-mode=rewrite` records
the cassettes again from the live service, with the settings of the environment and `.env`.

This module is loaded in every pytest run of every environment that holds this package. It therefore imports the
emulator, openai and vcrpy only when a fixture needs them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deepseek_gateway._client import create_async_client, create_client
from deepseek_gateway._config import GatewayConfig, complaint, look_up
from deepseek_gateway._settings import SETTINGS

from ._leaks import leaks
from ._redaction import vcr_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import openai

    from deepseek_gateway.emulator import Emulator

_SCANNER = pytest.StashKey["_Scanner"]()
_REPLAYED: dict[str, Any] = {
    "account_id": "0" * 32,
    "gateway_id": "replayed-gateway",
    "api_key": "replayed-deepseek-key",
    "gateway_token": "replayed-gateway-token",
}
_CONNECTION = ("account_id", "gateway_id", "api_key", "gateway_token", "endpoint", "direct_endpoint")


@pytest.fixture
def gateway_emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A fresh local AI Gateway with DeepSeek behind it. `create_client()` without arguments finds it.

    Its settings are given by `@pytest.mark.parametrize("gateway_emulator", [{"rate_limit": (2, 60)}], indirect=True)`.
    """
    from urllib.request import getproxies  # noqa: PLC0415  # only a test that uses it pays for it

    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # likewise

    with Emulator(**getattr(request, "param", {})) as emulator:
        there = emulator.config("rest" if look_up().values["route"] == "rest" else "provider")
        settings: Any = {name: getattr(there, name) for name in _CONNECTION}
        _set_variables(GatewayConfig.from_env(**settings), monkeypatch)
        # httpx sends requests to 127.0.0.1 through a proxy, too, unless this variable names the host.
        monkeypatch.setenv("no_proxy", ",".join(filter(None, (getproxies().get("no"), "127.0.0.1"))))
        yield emulator


@pytest.fixture
def gateway_config(request: pytest.FixtureRequest) -> GatewayConfig:
    """The settings that the program under test finds: those of `gateway_emulator`, or in a `vcr` test the cassette's.

    A cassette is replayed with made-up credentials, and recorded with the settings of the environment and `.env`. A
    `vcr` test that uses `gateway_emulator` records from the emulator.
    """
    if request.node.get_closest_marker("vcr") is None or "gateway_emulator" in request.fixturenames:
        request.getfixturevalue("gateway_emulator")
        return GatewayConfig.from_env()
    given: Any = _REPLAYED if _is_replayed(request) else {}
    found = look_up(**given)
    if found.problems:
        reasons = complaint(found.problems, "", found.looked)
        pytest.fail(f"Recording a cassette needs the settings of the live service.\n{reasons}", pytrace=False)
    values: Any = found.values
    return GatewayConfig(**values)


@pytest.fixture
def gateway_client(gateway_config: GatewayConfig) -> Iterator[openai.OpenAI]:
    """An `openai.OpenAI` with the settings of `gateway_config`."""
    with create_client(gateway_config) as client:
        yield client


@pytest.fixture
def gateway_async_client(gateway_config: GatewayConfig) -> openai.AsyncOpenAI:
    """An `openai.AsyncOpenAI` with the settings of `gateway_config`, for any event loop. It needs no closing."""
    from openai import DEFAULT_CONNECTION_LIMITS  # noqa: PLC0415  # likewise

    # An idle connection would outlive the event loop of the test, and Python would warn about it.
    limits = type(DEFAULT_CONNECTION_LIMITS)(max_keepalive_connections=0)
    return create_async_client(gateway_config, http_options={"limits": limits})


@pytest.fixture
def gateway_vcr_config(
    request: pytest.FixtureRequest, gateway_config: GatewayConfig, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    """The options for pytest-recording's `vcr_config`. They keep secrets out of cassettes.

    `create_client()` without arguments finds `gateway_config`. A cassette in which `leaks()` finds a secret is not
    written, and its test fails.
    """
    _set_variables(gateway_config, monkeypatch)
    request.config.stash[_SCANNER] = scanner = _Scanner(gateway_config)
    yield vcr_config(gateway_config, source="emulator" if "gateway_emulator" in request.fixturenames else None)
    del request.config.stash[_SCANNER]
    if scanner.refusal:
        pytest.fail(scanner.refusal, pytrace=False)


@pytest.hookimpl(optionalhook=True)
def pytest_recording_configure(config: pytest.Config, vcr: Any) -> None:
    """Scan the cassette before it is written. pytest-recording calls this hook for each test with a cassette."""
    if (scanner := config.stash.get(_SCANNER, None)) is not None:
        scanner.load_cassette = vcr.persister.load_cassette
        scanner.save = vcr.persister.save_cassette
        vcr.register_persister(scanner)


class _Scanner:
    """A persister of vcrpy that writes no cassette with a secret, and keeps the reason.

    It raises nothing, because vcrpy goes on recording every later test after an error in `save_cassette`.
    """

    load_cassette: Any
    save: Any
    refusal: str | None = None

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config

    def save_cassette(self, cassette_path: str, cassette_dict: dict[str, Any], serializer: Any) -> None:
        if self._config.api_key == _REPLAYED["api_key"]:
            remedy = "say --record-mode on the command line or record_mode in the mark, so that real settings are used"
            self.refusal = f"{cassette_path} was not written, because settings were missing; {remedy}"
            return
        text: str = import_module("vcr.serialize").serialize(cassette_dict, serializer)
        if found := leaks(text, self._config):
            listed = "\n  - ".join(found)
            self.refusal = f"{cassette_path} was not written, because it holds secrets:\n  - {listed}"
        else:
            self.save(cassette_path, cassette_dict, serializer)


def _is_replayed(request: pytest.FixtureRequest) -> bool:
    """Whether pytest-recording is going to replay the cassette of a test, not to record it."""
    option = request.config.getoption
    if option("--disable-recording", default=False):
        return False
    marked = [marker.kwargs.get("record_mode") for marker in request.node.iter_markers("vcr")]
    mode = next(filter(None, (*marked, option("--record-mode", default=None))), "none")
    if mode != "once":
        return mode == "none"
    name = request.getfixturevalue("default_cassette_name").removesuffix(".yaml")
    return Path(request.getfixturevalue("vcr_cassette_dir"), f"{name}.yaml").exists()


def _set_variables(config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `GatewayConfig.from_env()` give this configuration for the rest of the test."""
    for setting in SETTINGS:
        for variable in setting.variables:
            monkeypatch.delenv(variable, raising=False)
        value: str | bool | None = getattr(config, setting.field)
        if value is not None:
            spelled = value if isinstance(value, str) else ("off", "on")[value]
            monkeypatch.setenv(setting.variables[0], spelled)
