"""Make calls with a client of any flavour, and collect results, streams and errors."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import openai
import pytest

from deepseek_gateway import ConfigError, GatewayConfig, create_async_client, create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Call = Callable[..., Any]
    ConfigAt = Callable[..., GatewayConfig]

LAUNCH_ENVIRONMENT = dict(os.environ)
"""The environment in which pytest was started. Recording from the live service needs its settings."""

KEY = "deepseek-test-key"
TOKEN = "cloudflare-test-token"

MESSAGES = [{"role": "user", "content": "What is Cloudflare? 你好"}]
ROUTE_PATH = {
    "provider": "/v1/acct/my-gateway/deepseek",
    "compat": "/v1/acct/my-gateway/compat",
    "rest": "/client/v4/accounts/acct/ai/v1",
}

FLAVOURS = ["sync", "httpx", *(["aiohttp"] if hasattr(openai, "DefaultAioHttpClient") else [])]
"""The kinds of client. Old versions of openai have no aiohttp client. The header of the test run lists the flavours."""


def chat(client: Any, **extra: Any) -> Any:
    return client.chat.completions.create(**{"model": "deepseek-flash", "messages": MESSAGES, **extra})


def streamed(client: Any) -> Any:
    return chat(client, stream=True)


def responses_streamed(client: Any) -> Any:
    return client.responses.create(model="m", input="x", stream=True)


def run(flavour: str, config: GatewayConfig, use: Callable[[Any], Any], **options: Any) -> Any:
    """Create a client, call `use(client)` and close the client. Await the result, and read a stream to its end."""
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


def one_by_one(client: Any, uses: Sequence[Callable[[Any], Any]]) -> Any:
    """Make several calls on the same client, one after the other."""
    if not isinstance(client, openai.AsyncOpenAI):
        return [use(client) for use in uses]

    async def main() -> list[Any]:
        return [await use(client) for use in uses]

    return main()


def failing(call: Call, config: GatewayConfig, use: Callable[[Any], Any] = chat, **options: Any) -> Any:
    """Make a call that must raise an `openai.APIStatusError`, and return the error."""
    with pytest.raises(openai.APIStatusError) as caught:
        call(config, use, **({"max_retries": 1} | options))
    return caught.value


class Collected(list[Any]):
    """The items of a stream until it ended or raised `error`."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Any = None


def collect(flavour: str, config: GatewayConfig, use: Callable[[Any], Any], **options: Any) -> Collected:
    """Read a stream to its end, and keep the items that came before an error."""
    got = Collected()
    if flavour == "sync":
        with create_client(config, **options) as client:
            try:
                for item in use(client):
                    got.append(item)
            except openai.OpenAIError as error:
                got.error = error
        return got

    async def main() -> None:
        async with create_async_client(config, transport=flavour, **options) as client:  # type: ignore[arg-type]
            try:
                async for item in await use(client):
                    got.append(item)
            except openai.OpenAIError as error:
                got.error = error

    asyncio.run(main())
    return got


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the package, whether or not it also logs each call at INFO."""
    ours = (record for record in caplog.records if record.name == "deepseek_gateway" and record.levelname == "WARNING")
    return [record.getMessage() for record in ours]


def config_error(environ: dict[str, str], **options: Any) -> ConfigError:
    """Read settings that must be refused, and return the error."""
    with pytest.raises(ConfigError) as caught:
        GatewayConfig.from_env(environ, **options)
    return caught.value
