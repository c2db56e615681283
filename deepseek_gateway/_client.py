"""The factories: stock clients of the SDK, made for the gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from ._config import GatewayConfig
from ._request import PLACEHOLDER
from ._settings import VARIABLE, Route

if TYPE_CHECKING:
    from collections.abc import Mapping

    import openai


class OpenAIOptions(TypedDict, total=False):
    """The options of `openai.OpenAI` that make sense here. Their meaning and defaults are the SDK's."""

    timeout: float | openai.Timeout | None
    max_retries: int
    default_headers: Mapping[str, str]
    default_query: Mapping[str, object]


def create_client(
    config: GatewayConfig | None = None,
    *,
    route: Route | None = None,
    http_options: Mapping[str, Any] | None = None,
    **openai_options: Unpack[OpenAIOptions],
) -> openai.OpenAI:
    """Make a stock `openai.OpenAI` that talks to DeepSeek through Cloudflare AI Gateway.

    Args:
        config: The settings. Without them `GatewayConfig.from_env()` reads the environment and the nearest `.env`.
        route: `provider`, `compat` or `rest`, in place of the route in the settings.
        http_options: Options of `openai.DefaultHttpxClient`: `proxy`, `verify`, `limits`, `mounts`, `event_hooks` ...
            By default an idle connection is kept for 120 seconds (15 with openai 1 and 2), TCP keep-alive is on, and
            proxies come from the environment.
        **openai_options: `timeout` (seconds, default 600), `max_retries` (default 2), `default_headers` and
            `default_query`, as for `openai.OpenAI`.

    Returns:
        A client whose `type()` is exactly `openai.OpenAI`. No `OPENAI_*` variable changes what it sends, and it
        follows no redirect. That holds for `with_options()` and `copy()` as well.

    Raises:
        ConfigError: Settings are missing or malformed.
        TypeError: An option is not one of the above.
    """
    config = _checked(config, route, openai_options)
    from openai import OpenAI  # noqa: PLC0415  # it takes 400 ms, and a wrong setting is reported without it

    from ._http import GatewayHttpClient  # noqa: PLC0415  # likewise

    return OpenAI(**_arguments(config, GatewayHttpClient, http_options, openai_options))


def create_async_client(
    config: GatewayConfig | None = None,
    *,
    route: Route | None = None,
    http_options: Mapping[str, Any] | None = None,
    transport: Literal["httpx", "aiohttp"] = "httpx",
    **openai_options: Unpack[OpenAIOptions],
) -> openai.AsyncOpenAI:
    """Make a stock `openai.AsyncOpenAI` that talks to DeepSeek through Cloudflare AI Gateway.

    Args:
        config: As for `create_client()`.
        route: As for `create_client()`.
        http_options: As for `create_client()`.
        transport: `aiohttp` sends through openai's own aiohttp client (extra `aiohttp`), which handles more calls at a
            time. It takes no socket options, so only the timeout notices a peer that vanished.
        **openai_options: As for `create_client()`.

    Returns:
        A client whose `type()` is exactly `openai.AsyncOpenAI`. It belongs to the event loop in which it is first used.

    Raises:
        ConfigError: Settings are missing or malformed.
        RuntimeError: aiohttp was asked for and is not installed.
        TypeError: An option is not one of the above.
        ValueError: The transport is neither httpx nor aiohttp.
    """
    config = _checked(config, route, openai_options)
    if transport not in {"httpx", "aiohttp"}:
        raise ValueError(f"transport must be httpx or aiohttp, not {transport!r}")
    from openai import AsyncOpenAI  # noqa: PLC0415  # as above

    from ._http import GatewayAsyncHttpClient, aiohttp_client_class  # noqa: PLC0415  # likewise

    client_class: Any = aiohttp_client_class() if transport == "aiohttp" else GatewayAsyncHttpClient
    return AsyncOpenAI(**_arguments(config, client_class, http_options, openai_options))


_ELSEWHERE = {
    "api_key": f"give it to GatewayConfig(api_key=...) or set {VARIABLE['api_key']}",
    "base_url": "it follows from the settings; another host goes into GatewayConfig(endpoint=...)",
    "http_client": "the factory makes it; give its options as http_options={...}",
}


def _checked(config: GatewayConfig | None, route: Route | None, openai_options: OpenAIOptions) -> GatewayConfig:
    for name in openai_options:
        if name not in OpenAIOptions.__annotations__:
            remedy = _ELSEWHERE.get(name, f"the options are {', '.join(OpenAIOptions.__annotations__)}")
            raise TypeError(f"a client for the gateway takes no {name}: {remedy}")
    if config is None:
        return GatewayConfig.from_env(route=route)
    if not isinstance(config, GatewayConfig):
        raise TypeError(f"config must be a GatewayConfig, not {type(config).__name__}")
    return config if route is None else replace(config, route=route)


def _arguments(
    config: GatewayConfig, client_class: Any, http_options: Mapping[str, Any] | None, openai_options: OpenAIOptions
) -> dict[str, Any]:
    http_client = client_class(config, openai_options.get("default_headers") or {}, **(http_options or {}))
    own = {"api_key": config.bearer or PLACEHOLDER, "base_url": config.base_url, "http_client": http_client}
    return own | dict(openai_options)
