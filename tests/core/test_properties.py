"""Rules that hold for any settings, URL, header option or request body."""

from __future__ import annotations

import copy
import pickle
import posixpath
import re
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from deepseek_gateway import ConfigError, GatewayConfig, gateway_headers
from deepseek_gateway._adapt import CHAT, RESPONSES, adapt
from deepseek_gateway._connections import httpx
from deepseek_gateway._model import model_on
from deepseek_gateway._request import Destination, RefusedRequestError
from deepseek_gateway._settings import ROUTES, SETTINGS

SECRETS = [setting.field for setting in SETTINGS if setting.secret]
GOOD: dict[str, tuple[Any, ...]] = {
    "account_id": ("acct", "0123abcd"),
    "gateway_id": ("my-gateway", "default"),
    "api_key": ("deepseek-test-key",),
    "gateway_token": ("cloudflare-test-token",),
    "route": ROUTES,
    "endpoint": (None, "https://ai.example.com", "http://127.0.0.1:8787/v1/acct/gw", "http://[::1]:1"),
    "model": (None, "deepseek-flash"),
    "thinking": (None, True, False),
    "adapt": (None, True, False),
    "fallback": (None, "direct"),
    "direct_endpoint": (None, "http://127.0.0.1:8787", "https://deepseek.example.com/x"),
}
PARTS = (*":/.?#@[]\\<% -", "1", "443", "a", "%2e", "..", "v1", "compat")
URL = st.text(max_size=6) | st.lists(st.sampled_from(PARTS), max_size=5).map("".join)
TEXT = st.text(max_size=12) | URL.map("https://h".__add__)
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=4) | TEXT | st.lists(TEXT, max_size=2)
)
GOOD_SETTINGS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in GOOD.items()})
ANY_SETTINGS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) | ANYTHING for name, values in GOOD.items()}
)
VARIABLES = {variable: setting.field for setting in SETTINGS for variable in setting.variables}
ANY_ENVIRONMENT = st.fixed_dictionaries(
    {},
    optional={
        variable: st.sampled_from([str(value) for value in GOOD[name] if value is not None]) | TEXT
        for variable, name in VARIABLES.items()
    },
)


@given(settings=ANY_SETTINGS)
def test_any_settings_give_a_config_or_a_config_error(settings: dict[str, Any]) -> None:
    try:
        config = GatewayConfig(**settings)
    except ConfigError:
        return
    assert config.base_url


@given(environ=ANY_ENVIRONMENT, overrides=ANY_SETTINGS)
def test_any_variables_and_overrides_give_a_config_or_a_config_error(
    environ: dict[str, str], overrides: dict[str, Any]
) -> None:
    try:
        config = GatewayConfig.from_env(environ, **overrides)
    except ConfigError:
        return
    assert config.base_url


@given(settings=GOOD_SETTINGS, endpoint=st.none() | TEXT)
def test_base_url_is_a_plain_url_that_begins_with_the_endpoint(settings: dict[str, Any], endpoint: str | None) -> None:
    try:
        config = GatewayConfig(
            **{**settings, "endpoint": endpoint or settings["endpoint"], "direct_endpoint": endpoint}
        )
    except ConfigError:
        return
    url = urlsplit(config.base_url)
    assert (url.query, url.fragment, url.username, url.password) == ("", "", None, None)
    assert url.scheme == "https" or url.hostname in {"127.0.0.1", "::1"}
    assert url.geturl() == config.base_url
    assert httpx.URL(config.base_url).path == (unquote(url.path) or "/")
    if config.route == "direct":
        assert config.base_url == config.direct_endpoint
    elif config.endpoint is None:
        path = {
            "provider": f"/v1/{config.account_id}/{config.gateway_id}/deepseek",
            "compat": f"/v1/{config.account_id}/{config.gateway_id}/compat",
            "rest": f"/client/v4/accounts/{config.account_id}/ai/v1",
        }[config.route]
        host = "api.cloudflare.com" if config.route == "rest" else "gateway.ai.cloudflare.com"
        assert (url.netloc, url.path) == (host, path)
    else:
        assert config.base_url.startswith(f"{config.endpoint}/")


@given(settings=GOOD_SETTINGS)
def test_a_config_is_the_same_after_pickling_and_copying(settings: dict[str, Any]) -> None:
    config = GatewayConfig(**settings)
    for other in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), GatewayConfig(**settings)):
        assert other == config
        assert hash(other) == hash(config)


# A secret that occurs in no message by chance.
KEYS = st.text(st.characters(min_codepoint=33), min_size=4, max_size=20).map("zq9-".__add__)


@given(
    settings=GOOD_SETTINGS, keys=st.tuples(KEYS, KEYS), breaks=st.sampled_from(("", " x", "\n", "é")), bad=ANY_SETTINGS
)
def test_repr_and_errors_of_a_config_show_no_secret(
    settings: dict[str, Any], keys: tuple[str, str], breaks: str, bad: dict[str, Any]
) -> None:
    secrets = dict(zip(SECRETS, (key + breaks for key in keys), strict=True))
    try:
        shown = repr(GatewayConfig(**{**bad, **secrets} if breaks else {**settings, **secrets}))
    except ConfigError as error:
        shown = f"{error!s} {error!r}"
    assert "zq9-" not in shown


SEGMENTS = st.sampled_from(
    (
        "",
        ".",
        "..",
        "%2e%2E",
        ".%2e",
        "beta",
        "deepseek",
        "..;",
        "%2f..%2f",
        "..%5c",
        "\\..",
        "a%2F..",
        "chat",
        "é",
        "%",
        "x?..",
    )
)


@given(
    start=st.sampled_from(
        ("/v1/acct/gw/deepseek", "/v1/acct/gw/deepseek/", "/v1/acct/gw", "/v1/acct/gw/deepseekx", "/")
    ),
    segments=st.lists(SEGMENTS, max_size=6),
    ending=st.sampled_from(("", "?a=/../..", "#/../..")),
    host=st.sampled_from(
        (
            "https://ai.example.com",
            "http://ai.example.com",
            "https://ai.example.com:444",
            "https://ai.example.com@x.example",
            "https://AI.example.com:443",
        )
    ),
)
def test_a_covered_url_leads_a_server_below_the_base_url(
    start: str, segments: list[str], ending: str, host: str
) -> None:
    config = GatewayConfig(endpoint="https://ai.example.com/v1/acct/gw", api_key="deepseek-test-key")
    destination = Destination(config, httpx.URL(config.base_url), {}, merge_pause=None)
    try:
        url = httpx.URL(host + "/".join((start, *segments)) + ending)
    except httpx.InvalidURL:
        return
    if destination.below(url) is not None:
        assert (url.scheme, url.host, url.port) == ("https", "ai.example.com", None)
        path = url.raw_path.decode().partition("?")[0]
        for resolved in (path, unquote(path), unquote(path).replace("\\", "/")):
            assert (posixpath.normpath(resolved) + "/").startswith("/v1/acct/gw/deepseek/")


DURATIONS = st.floats() | st.integers() | st.timedeltas() | ANYTHING
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "cache_ttl": DURATIONS | st.integers(0, 3_000_000),
        "request_timeout": DURATIONS | st.floats(0, 100),
        "retry_delay": DURATIONS | st.floats(0, 61),
        "cache_key": ANYTHING,
        "event_id": ANYTHING,
        "byok_alias": ANYTHING,
        "skip_cache": ANYTHING,
        "collect_log": ANYTHING,
        "collect_log_payload": ANYTHING,
        "no_wholesale": ANYTHING,
        "max_attempts": ANYTHING | st.integers(0, 6),
        "backoff": ANYTHING | st.sampled_from(("constant", "linear", "exponential")),
        "metadata": ANYTHING
        | st.dictionaries(ANYTHING.filter(lambda key: not isinstance(key, list)) | TEXT, ANYTHING, max_size=6),
        "custom_cost": ANYTHING
        | st.dictionaries(st.sampled_from(("per_token_in", "total_cost", "cost")), st.floats() | ANYTHING),
        "otel_trace_id": ANYTHING | st.text("0123456789abcdefABCDEF", min_size=31, max_size=32),
        "otel_parent_span_id": ANYTHING | st.text("0aF", min_size=16, max_size=16),
    },
)


@given(options=OPTIONS)
def test_any_options_of_the_gateway_give_printable_headers_or_a_value_error(options: dict[str, Any]) -> None:
    try:
        headers = gateway_headers(**options)
    except ValueError:
        return
    assert len(headers) == sum(value is not None for value in options.values())
    for name, value in headers.items():
        assert re.fullmatch(r"cf-aig-[a-z-]+", name)
        assert re.fullmatch(r"[!-~]([ -~]*[!-~])?", value)


@given(seconds=st.integers(60, 2_592_000), milliseconds=st.integers(0, 60_000))
def test_durations_are_sent_in_the_unit_of_their_header(seconds: int, milliseconds: int) -> None:
    for ttl in (seconds, float(seconds), timedelta(seconds=seconds)):
        assert gateway_headers(cache_ttl=ttl) == {"cf-aig-cache-ttl": str(seconds)}
    for delay in (milliseconds / 1000, timedelta(milliseconds=milliseconds)):
        wanted = {"cf-aig-request-timeout": str(milliseconds), "cf-aig-retry-delay": str(milliseconds)}
        assert gateway_headers(request_timeout=delay, retry_delay=delay) == wanted


@given(
    route=st.sampled_from(ROUTES),
    prefix=st.sampled_from(("", "deepseek/", "dynamic/", "openai/")),
    name=st.text(max_size=8),
)
def test_the_model_of_a_route_stays_the_same_when_it_is_applied_again(route: Any, prefix: str, name: str) -> None:
    try:
        once = model_on(route, prefix + name)
    except RefusedRequestError:
        assert route in {"provider", "direct"}
        return
    assert model_on(route, once) == once


VALUES = st.recursive(
    ANYTHING, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=5
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(("developer", "system", "user", "assistant")) | VALUES},
    optional={"content": VALUES, "reasoning_content": st.none() | TEXT},
)
BODIES = st.fixed_dictionaries(
    {"model": TEXT},
    optional={
        "messages": st.lists(MESSAGES | VALUES, max_size=3),
        "max_tokens": st.none() | st.integers(),
        "max_completion_tokens": st.none() | st.integers(),
        "response_format": st.fixed_dictionaries(
            {"type": st.sampled_from(("json_schema", "json_object"))},
            optional={"json_schema": VALUES | st.fixed_dictionaries({"schema": VALUES})},
        )
        | VALUES,
        "tools": st.lists(VALUES, max_size=1),
        "tool_choice": st.sampled_from(("auto", "none", "required")) | VALUES,
        "thinking": st.none() | st.sampled_from(("enabled", "disabled")).map(lambda kind: {"type": kind}) | VALUES,
        "reasoning_effort": st.none() | st.sampled_from(("none", "high")),
        "reasoning": VALUES,
    },
)


@given(body=BODIES, thinking=st.none() | st.booleans(), rows=st.sampled_from((CHAT, RESPONSES)))
def test_a_translated_body_stays_the_same_when_it_is_translated_again(
    body: dict[str, Any], thinking: bool | None, rows: Any
) -> None:
    config = GatewayConfig(account_id="acct", api_key="deepseek-test-key", thinking=thinking)
    before = copy.deepcopy(body)
    once, names = adapt(body, config, rows)
    assert repr(body) == repr(before)
    assert (names == ()) == (once is body)
    twice, again = adapt(once, config, rows)
    assert twice is once
    assert again == ()
