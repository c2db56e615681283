"""The public types. mypy and pyright check this file, and nothing runs it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, assert_type

import httpx2
import openai
from openai.types.chat import ChatCompletion
from pydantic import SecretStr

from deepseek_gateway import (
    ConfigError,
    GatewayCall,
    GatewayConfig,
    Route,
    Usage,
    create_async_client,
    create_async_http_client,
    create_client,
    create_http_client,
    gateway_headers,
    long_history,
    record_calls,
)

config = GatewayConfig(account_id="acct", gateway_id="gw", api_key="key", gateway_token="token", route="rest")
assert_type(config, GatewayConfig)
assert_type(GatewayConfig.from_env(), GatewayConfig)
assert_type(GatewayConfig.from_env({"CF_AIG_TOKEN": "x"}, env_file=None, account_id=None), GatewayConfig)
assert_type(config.account_id, str | None)
assert_type(config.gateway_id, str)
assert_type(config.api_key, str | None)
assert_type(config.gateway_token, str | None)
assert_type(config.route, Route)
assert_type(config.endpoint, str | None)
assert_type(config.base_url, str)
assert_type(config.headers, dict[str, str])
assert_type(config.bearer, str | None)
assert_type(config.client_key, str)
assert_type(config.model, str | None)
assert_type(config.thinking, bool | None)
assert_type(config.adapt, bool)
assert_type(config.fallback, Literal["direct"] | None)
assert_type(config.direct_endpoint, str)
GatewayConfig(api_key=SecretStr("key"), gateway_token=SecretStr("token"))
GatewayConfig(api_key=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

headers: Mapping[str, str] = {"X-Mine": "1"}
assert_type(create_client(), openai.OpenAI)
assert_type(create_client(config, route="compat", http_options={"proxy": None}, timeout=3.0), openai.OpenAI)
assert_type(create_client(timeout=openai.Timeout(5), max_retries=0, default_headers=headers), openai.OpenAI)
assert_type(create_async_client(config, transport="aiohttp", default_query={"q": 1}), openai.AsyncOpenAI)
assert_type(create_async_client(transport="aiohttp", merge_chunks=True, fallback="direct"), openai.AsyncOpenAI)
assert_type(create_async_client(transport="aiohttp", merge_chunks=0.1), openai.AsyncOpenAI)
create_client(fallback="compat")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
create_client(route="universal")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(create_client(api_key="key", thinking=False, adapt=None, model="deepseek-flash"), openai.OpenAI)
create_client(thinking="off")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
create_client(organization="x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
assert_type(create_http_client(config, account_id="acct"), httpx2.Client)
assert_type(create_async_http_client(transport="aiohttp", http_options={}), httpx2.AsyncClient)
create_http_client(timeout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
create_async_client(transport="curl")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def handled(error: openai.OpenAIError) -> tuple[str, ...]:
    return error.missing if isinstance(error, ConfigError) else ()


assert_type(ConfigError("message", missing=("A",)).missing, tuple[str, ...])

assert_type(
    gateway_headers(cache_ttl=60, retry_delay=timedelta(seconds=1), metadata={"a": 1, "b": "x"}), dict[str, str]
)
gateway_headers(backoff="random")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
gateway_headers(cache_tll=60)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

with record_calls() as calls:
    assert_type(calls, list[GatewayCall])
assert_type(calls[0].status, int | None)
assert_type(calls[0].step, int | None)
assert_type(calls[0].cache_status, str | None)
assert_type(calls[0].elapsed, float | None)
assert_type(calls[0].usage, Usage | None)
assert_type(calls[0].adapted, tuple[str, ...])
assert_type(calls[0].route, Route | None)
assert_type(GatewayCall.from_response(object()), GatewayCall)

history = long_history([{"role": "user", "content": "Hi"}], thinking={"type": "disabled"})
assert_type(history["extra_body"], dict[str, Any])
assert_type(create_client().chat.completions.create(model="deepseek-flash", **history), ChatCompletion)
