"""How tests call: a client of each flavour, one question, and the credentials that it is asked with."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import openai

from deepseek_gateway import create_async_client, create_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway import GatewayConfig

LAUNCH_ENVIRONMENT = dict(os.environ)
"""What pytest was started with, for recording from the live service."""

KEY = "deepseek-test-key"
TOKEN = "cloudflare-test-token"

MESSAGES = [{"role": "user", "content": "What is Cloudflare? 你好"}]
ROUTE_PATH = {
    "provider": "/v1/acct/my-gateway/deepseek",
    "compat": "/v1/acct/my-gateway/compat",
    "rest": "/client/v4/accounts/acct/ai/v1",
}


def chat(client: Any, **extra: Any) -> Any:
    return client.chat.completions.create(**{"model": "deepseek-flash", "messages": MESSAGES, **extra})


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
