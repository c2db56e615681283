"""The factories: stock clients of the SDK, and the HTTP clients behind them, made for the gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from ._config import GatewayConfig, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import openai


class OpenAIOptions(TypedDict, total=False):
    """The options of `openai.OpenAI` that make sense here. Their meaning and defaults are the SDK's."""

    timeout: float | openai.Timeout | None
    max_retries: int
    default_headers: Mapping[str, str]
    default_query: Mapping[str, object]


class Options(Settings, OpenAIOptions):
    """The keyword arguments of a client: settings, and options of the SDK."""


def create_client(
    config: GatewayConfig | None = None, *, http_options: Mapping[str, Any] | None = None, **options: Unpack[Options]
) -> openai.OpenAI:
    """Make a stock `openai.OpenAI` that talks to DeepSeek through Cloudflare AI Gateway.

    Args:
        config: The settings. Without them `GatewayConfig.from_env()` reads the environment and the nearest `.env`.
        http_options: Options of `openai.DefaultHttpxClient`: `proxy`, `verify`, `limits`, `mounts`, `event_hooks` ...
            By default an idle connection is kept for 120 seconds (15 with openai 1 and 2), TCP keep-alive is on, and
            proxies come from the environment.
        **options: Any field of `GatewayConfig`, such as `api_key` or `route`. It beats `config` and the variables, and
            None leaves the field to them. Also `timeout` (seconds, default 600), `max_retries` (default 2),
            `default_headers` and `default_query`, as for `openai.OpenAI`.

    Returns:
        A client whose `type()` is exactly `openai.OpenAI`. No `OPENAI_*` variable changes what it sends, and it
        follows no redirect. That holds for `with_options()` and `copy()` as well.

    Raises:
        ConfigError: Settings are missing or malformed.
        TypeError: An option is not one of the above.
    """
    config, openai_options = _split(config, options)
    from openai import OpenAI  # noqa: PLC0415  # it takes 400 ms, and a wrong setting is reported without it

    return OpenAI(**_arguments(config, _http_client(config, http_options, openai_options), openai_options))


def create_async_client(
    config: GatewayConfig | None = None,
    *,
    http_options: Mapping[str, Any] | None = None,
    transport: Literal["httpx", "aiohttp"] = "httpx",
    merge_chunks: bool | float = False,
    **options: Unpack[Options],
) -> openai.AsyncOpenAI:
    """Make a stock `openai.AsyncOpenAI` that talks to DeepSeek through Cloudflare AI Gateway.

    Args:
        config: As for `create_client()`.
        http_options: As for `create_client()`.
        transport: `aiohttp` sends through openai's own aiohttp client (extra `aiohttp`), which handles more calls at a
            time. It takes no socket options, so only the timeout notices a peer that vanished.
        merge_chunks: Whether chunks of a chat stream that arrived together, and differ in their text alone, become one.
            Text, tool calls and usage stay the same. It helps a process that falls behind the streams that it reads. It
            changes nothing with httpx, which hands over one chunk at a time. A number also waits that many seconds
            between two reads of a stream, so that more chunks arrive together. It needs aiohttp.
        **options: As for `create_client()`.

    Returns:
        A client whose `type()` is exactly `openai.AsyncOpenAI`. It opens connections of its own in each event loop and
        after a fork.

    Raises:
        ConfigError: Settings are missing or malformed.
        RuntimeError: aiohttp was asked for and is not installed.
        TypeError: An option is not one of the above.
        ValueError: The transport is neither httpx nor aiohttp, or it is httpx and `merge_chunks` a number.
    """
    config, openai_options = _split(config, options)
    http_client = _async_http_client(config, http_options, openai_options, transport, merge_chunks=merge_chunks)
    from openai import AsyncOpenAI  # noqa: PLC0415  # as above

    return AsyncOpenAI(**_arguments(config, http_client, openai_options))


def create_http_client(
    config: GatewayConfig | None = None, *, http_options: Mapping[str, Any] | None = None, **settings: Unpack[Settings]
) -> openai.DefaultHttpxClient:
    """Make the HTTP client alone, for a library that builds an OpenAI client of its own.

    Give such a library this client, `config.base_url`, and `config.client_key` as the key. If the library also makes
    asynchronous calls, give it a client of `create_async_http_client()` as well. A library with one of them only uses
    its own client for the other kind of call, which goes past the gateway.

    Args:
        config: As for `create_client()`.
        http_options: As for `create_client()`.
        **settings: Any field of `GatewayConfig`, as for `create_client()`.

    Returns:
        A synchronous client of the HTTP library that openai uses, which is httpx, or httpx2 with openai 3.

    Raises:
        ConfigError: Settings are missing or malformed.
        TypeError: A keyword is not one of the above.
    """
    client: openai.DefaultHttpxClient = _http_client(_merged(config, settings), http_options, {})
    return client


def create_async_http_client(
    config: GatewayConfig | None = None,
    *,
    http_options: Mapping[str, Any] | None = None,
    transport: Literal["httpx", "aiohttp"] = "httpx",
    **settings: Unpack[Settings],
) -> openai.DefaultAsyncHttpxClient:
    """Make the asynchronous HTTP client alone. See `create_http_client()` for what it is for.

    Args:
        config: As for `create_client()`.
        http_options: As for `create_client()`.
        transport: As for `create_async_client()`.
        **settings: Any field of `GatewayConfig`, as for `create_client()`.

    Returns:
        An asynchronous client of the HTTP library that openai uses, which is httpx, or httpx2 with openai 3.

    Raises:
        ConfigError: Settings are missing or malformed.
        RuntimeError: aiohttp was asked for and is not installed.
        TypeError: A keyword is not one of the above.
        ValueError: The transport is neither httpx nor aiohttp.
    """
    merged = _merged(config, settings)
    client: openai.DefaultAsyncHttpxClient = _async_http_client(merged, http_options, {}, transport)
    return client


_ELSEWHERE = {
    "base_url": "it follows from the settings; give another host as endpoint",
    "http_client": "the factory makes it; give its options as http_options={...}",
}


def _split(config: GatewayConfig | None, options: Options) -> tuple[GatewayConfig, OpenAIOptions]:
    """Tell the settings from the options of the SDK."""
    given = dict(options)
    openai_options: Any = {name: given.pop(name) for name in OpenAIOptions.__annotations__ if name in given}
    settings: Any = given
    return _merged(config, settings, also=OpenAIOptions.__annotations__), openai_options


def _merged(config: GatewayConfig | None, settings: Settings, also: Iterable[str] = ()) -> GatewayConfig:
    """Put settings that were given as arguments over those of a configuration or of the environment."""
    for name in settings:
        if name not in Settings.__annotations__:
            remedy = _ELSEWHERE.get(name, f"the keywords are {', '.join((*Settings.__annotations__, *also))}")
            raise TypeError(f"a client for the gateway takes no {name}: {remedy}")
    if config is None:
        return GatewayConfig.from_env(**settings)
    if not isinstance(config, GatewayConfig):
        raise TypeError(f"config must be a GatewayConfig, not {type(config).__name__}")
    given: Any = {name: value for name, value in settings.items() if value is not None}
    return replace(config, **given) if given else config


def _http_client(config: GatewayConfig, http_options: Mapping[str, Any] | None, openai_options: OpenAIOptions) -> Any:
    from ._http import GatewayHttpClient  # noqa: PLC0415  # it imports openai

    return GatewayHttpClient(config, openai_options.get("default_headers") or {}, **(http_options or {}))


def _async_http_client(
    config: GatewayConfig,
    http_options: Mapping[str, Any] | None,
    openai_options: OpenAIOptions,
    transport: str,
    *,
    merge_chunks: bool | float = False,
) -> Any:
    if transport not in {"httpx", "aiohttp"}:
        raise ValueError(f"transport must be httpx or aiohttp, not {transport!r}")
    if transport == "httpx" and merge_chunks and merge_chunks is not True:
        reason = "httpx hands over one chunk at a time, so waiting would only delay the stream"
        raise ValueError(f"merge_chunks={merge_chunks!r} needs transport='aiohttp': {reason}")
    from ._http import GatewayAsyncHttpClient, aiohttp_client_class  # noqa: PLC0415  # it imports openai

    client_class: Any = aiohttp_client_class() if transport == "aiohttp" else GatewayAsyncHttpClient
    pause = (0 if merge_chunks is True else merge_chunks) if merge_chunks else None
    return client_class(config, openai_options.get("default_headers") or {}, merge_pause=pause, **(http_options or {}))


def _arguments(config: GatewayConfig, http_client: Any, openai_options: OpenAIOptions) -> dict[str, Any]:
    own = {"api_key": config.client_key, "base_url": config.base_url, "http_client": http_client}
    return own | dict(openai_options)
