"""What every test stands on: a clean environment, a loopback server, and one way to call both flavours."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import openai
import pytest
from loopback import Loopback, serve

from deepseek_gateway import GatewayConfig, create_async_client, create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OURS = ("CLOUDFLARE_", "CF_AIG_", "DEEPSEEK_", "OPENAI_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

LAUNCH_ENVIRONMENT = dict(os.environ)
"""What pytest was started with, for recording from the live service."""

KEY = "deepseek-test-key"
TOKEN = "cloudflare-test-token"


def pytest_report_header() -> str:
    return f"openai {openai.__version__}, flavours {', '.join(FLAVOURS)}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-from", choices=("emulator", "live"), default="emulator", help="What cassettes record.")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Keep the settings and the `.env` of the person who runs the tests out of them."""
    live = pytestconfig.getoption("--record-from") == "live"  # which may be behind a proxy
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
    """Make a configuration that reaches a loopback server as if it were the gateway of account `acct`."""

    def make(server: Loopback, **settings: Any) -> GatewayConfig:
        rest = settings.get("route") == "rest"
        endpoint = f"{server.url}/client/v4/accounts/acct/ai" if rest else f"{server.url}/v1/acct/my-gateway"
        defaults = {"gateway_id": "my-gateway", "api_key": KEY, "gateway_token": TOKEN, "endpoint": endpoint}
        return GatewayConfig(**(defaults | settings))

    return make


def run(flavour: str, config: GatewayConfig, use: Callable[[Any], Any], **options: Any) -> Any:
    """Make a client, use it once and close it; what `use` returns is awaited and a stream read to its end."""
    if flavour == "sync":
        with create_client(config, **options) as client:
            result = use(client)
            return list(result) if hasattr(result, "__next__") else result

    async def main() -> Any:
        async with create_async_client(config, transport=flavour, **options) as client:  # type: ignore[arg-type]
            result = use(client)
            if hasattr(result, "__await__"):
                result = await result
            return [item async for item in result] if hasattr(result, "__anext__") else result

    return asyncio.run(main())


FLAVOURS = ["sync", "httpx", *(["aiohttp"] if hasattr(openai, "DefaultAioHttpClient") else [])]
"""How a client can be made; old versions of openai have no aiohttp client, which the header of the run tells."""


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def call(flavour: str) -> Callable[..., Any]:
    """Call `use(client)` on a fresh client of the flavour under test: `call(config, lambda client: ...)`."""

    return partial(run, flavour)
