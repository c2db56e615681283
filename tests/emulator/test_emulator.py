"""The settings of an emulator, and how a program is pointed at it."""

import math
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from emulated import ACCOUNT, AI, COMPAT, HOST, TOKEN, ask, send

from deepseek_gateway.emulator import Emulator


@pytest.mark.parametrize(
    "wrong",
    [
        {"account_id": ""},
        {"account_id": "a/b"},
        {"gateway_id": "a/b"},
        {"api_key": "two words"},
        {"gateway_token": "ключ"},
        {"stored_keys": {"default": "a\nb"}},
        {"cache_ttl": -1},
        {"rate_limit": (5, 0)},
        {"spend_limit": (-1, 60)},
        {"guardrails": "bomb"},
        {"guardrails": [""]},
        {"dlp": {"": "BLOCK"}},
        {"dlp": {"bomb": "block"}},
        {"dlp": {"bomb": None}},
        {"latency": -0.1},
        {"latency": math.nan},
        {"pace": -0.1},
        {"pace": math.nan},
    ],
)
def test_invalid_setting_is_refused_and_its_value_is_not_shown(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z].* .*[.]$") as caught:
        Emulator(**wrong)
    assert not any(secret in str(caught.value) for secret in ("two words", "ключ", "a\nb"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"gateway_id": 1},
        {"api_key": None},
        {"stored_keys": "a-key"},
        {"stored_keys": {"default": None}},
        {"cache_ttl": "60"},
        {"rate_limit": 5},
        {"rate_limit": (5, "60")},
        {"spend_limit": "12"},
        {"dlp": "bomb"},
        {"latency": None},
    ],
)
def test_setting_of_a_wrong_type_is_refused_and_its_value_is_not_shown(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        Emulator(**wrong)
    assert "a-key" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"rate_limit": (5,)}, {"guardrails": [1]}, {"dynamic_routes": ["support"]}, {"dynamic_routes": {"support": 1}}],
)
def test_setting_that_fails_in_use_raises_at_the_end(wrong: dict[str, Any]) -> None:
    with pytest.raises((RuntimeError, ValueError, TypeError)), Emulator(**wrong) as emulator, suppress(OSError):
        send(emulator, COMPAT, TOKEN, ask("dynamic/support"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python leaves the socket open
@pytest.mark.parametrize(("port", "kind"), [(65536, OverflowError), ("80", TypeError)])
def test_impossible_port_is_refused_at_the_start(port: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind), Emulator(port=port):
        pass


def test_repr_shows_no_secret() -> None:
    shown = repr(Emulator(api_key="a-secret", gateway_token="b-secret", stored_keys={"default": "c-secret"}))
    assert "secret" not in shown


@pytest.mark.parametrize("route", ["provider", "compat", "rest"])
def test_config_has_the_base_url_and_credentials_of_the_route(emulator: Emulator, route: Any) -> None:
    config = emulator.config(route)
    ending = {"provider": f"{HOST}/deepseek", "compat": f"{HOST}/compat", "rest": AI}[route]
    assert config.base_url == emulator.url + ending
    assert (config.route, config.gateway_id, config.account_id) == (route, "emulator-gateway", ACCOUNT)
    assert (config.api_key, config.gateway_token) == ("emulator-deepseek-key", "emulator-gateway-token")


def test_config_overrides_change_the_url(emulator: Emulator) -> None:
    assert f"/v1/{'f' * 32}/other/deepseek" in emulator.config(account_id="f" * 32, gateway_id="other").base_url
    assert emulator.config(endpoint="http://localhost:1").base_url == "http://localhost:1/deepseek"
    assert emulator.config(api_key=None).api_key is None


def test_import_loads_neither_openai_nor_the_clients_of_this_library() -> None:
    code = (
        "import sys, deepseek_gateway; before = set(sys.modules); import deepseek_gateway.emulator\n"
        "new = {name for name in set(sys.modules) - before if name.split('.')[0] in {'deepseek_gateway', 'openai'}}\n"
        "ours = ('deepseek_gateway.emulator', 'deepseek_gateway._server')\n"
        "assert all(name.startswith(ours) for name in new), new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
