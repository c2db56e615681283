"""Fixtures for every test: a clean environment, a loopback server, and one way to call every flavour of client."""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import FLAVOURS, KEY, TOKEN, run
from hypothesis import Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir
from loopback import Loopback, serve

from deepseek_gateway import GatewayConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = ("CLOUDFLARE_", "CF_AIG_", "DEEPSEEK_", "OPENAI_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

# A deadline or a database would make a test depend on the machine, and a cache may not be in the checkout.
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")
settings.register_profile(
    "tests",
    database=None,
    deadline=None,
    derandomize="CI" in os.environ,
    max_examples=100,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    print_blob=True,
)
settings.register_profile("long", settings.get_profile("tests"), derandomize=False, max_examples=5_000)
settings.load_profile("tests")


pytest_plugins = ["pytester"]


def pytest_report_header() -> str:
    return f"openai {openai.__version__}, flavours {', '.join(FLAVOURS)}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-from",
        choices=("emulator", "live"),
        default="emulator",
        help="the service that cassettes are recorded from",
    )


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Hide the developer's own settings and `.env` from the tests."""
    live = pytestconfig.getoption("--record-from") == "live"  # the live service may be behind a proxy
    for name in os.environ:
        if name.startswith(OURS) or (name.upper() in PROXIES and not live):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway() -> Iterator[Loopback]:
    with serve() as loopback:
        yield loopback


@pytest.fixture
def config_at() -> Callable[..., GatewayConfig]:
    """Make a configuration in which a loopback server plays the gateway `my-gateway` of the account `acct`."""

    def make(server: Loopback, **settings: Any) -> GatewayConfig:
        rest = settings.get("route") == "rest"
        endpoint = f"{server.url}/client/v4/accounts/acct/ai" if rest else f"{server.url}/v1/acct/my-gateway"
        defaults = {"gateway_id": "my-gateway", "api_key": KEY, "gateway_token": TOKEN, "endpoint": endpoint}
        return GatewayConfig(**(defaults | settings))

    return make


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(flavour: str) -> Callable[..., Any]:
    """Call `use(client)` with a fresh client of the flavour under test: `call(config, lambda client: ...)`."""
    return partial(run, flavour)


@pytest.fixture(params=[logging.WARNING, logging.INFO], ids=["INFO off", "INFO on"])
def info_logging(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """Run a test with INFO logging off and on, because a call that nobody observes takes a shorter path."""
    caplog.set_level(request.param, logger="deepseek_gateway")
