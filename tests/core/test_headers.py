"""`gateway_headers()`: options become headers, and a value that Cloudflare would drop or misread is refused."""

from __future__ import annotations

import inspect
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from calling import chat

from deepseek_gateway import gateway_headers

if TYPE_CHECKING:
    from calling import Call, ConfigAt
    from loopback import Loopback

GOOD = [
    ({"cache_ttl": 60}, "cf-aig-cache-ttl", "60"),
    ({"cache_ttl": 3600.0}, "cf-aig-cache-ttl", "3600"),
    ({"cache_ttl": timedelta(days=30)}, "cf-aig-cache-ttl", "2592000"),
    ({"cache_key": "what is it?"}, "cf-aig-cache-key", "what is it?"),
    ({"skip_cache": True}, "cf-aig-skip-cache", "true"),
    ({"skip_cache": False}, "cf-aig-skip-cache", "false"),
    (
        {"metadata": {"team": "a", "n": 1, "x": 1.5, "on": True}},
        "cf-aig-metadata",
        '{"team":"a","n":1,"x":1.5,"on":true}',
    ),
    ({"metadata": {"名": "é\n"}}, "cf-aig-metadata", '{"\\u540d":"\\u00e9\\n"}'),
    ({"metadata": {}}, "cf-aig-metadata", "{}"),
    ({"metadata": dict.fromkeys("abcde", 1)}, "cf-aig-metadata", '{"a":1,"b":1,"c":1,"d":1,"e":1}'),
    ({"metadata": {"gen_ai.x": "only OTEL drops it"}}, "cf-aig-metadata", '{"gen_ai.x":"only OTEL drops it"}'),
    ({"metadata": {"long": "x" * 600}}, "cf-aig-metadata", '{"long":"%s"}' % ("x" * 600)),
    ({"collect_log": False}, "cf-aig-collect-log", "false"),
    ({"collect_log_payload": True}, "cf-aig-collect-log-payload", "true"),
    ({"event_id": "e-1"}, "cf-aig-event-id", "e-1"),
    ({"request_timeout": 2.5}, "cf-aig-request-timeout", "2500"),
    ({"request_timeout": timedelta(milliseconds=1)}, "cf-aig-request-timeout", "1"),
    ({"max_attempts": 1}, "cf-aig-max-attempts", "1"),
    ({"max_attempts": 5}, "cf-aig-max-attempts", "5"),
    ({"retry_delay": 60}, "cf-aig-retry-delay", "60000"),
    ({"retry_delay": 0}, "cf-aig-retry-delay", "0"),
    ({"backoff": "exponential"}, "cf-aig-backoff", "exponential"),
    (
        {"custom_cost": {"per_token_in": 1.5e-7, "per_cache_read_token": 0}},
        "cf-aig-custom-cost",
        '{"per_token_in":1.5e-07,"per_cache_read_token":0}',
    ),
    ({"custom_cost": {"total_cost": 0.01}}, "cf-aig-custom-cost", '{"total_cost":0.01}'),
    ({"byok_alias": "second"}, "cf-aig-byok-alias", "second"),
    ({"no_wholesale": True}, "cf-aig-no-wholesale", "true"),
    ({"otel_trace_id": "4BF92F3577b34da6a3ce929d0e0e4736"}, "cf-aig-otel-trace-id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ({"otel_parent_span_id": "00f067aa0ba902b7"}, "cf-aig-otel-parent-span-id", "00f067aa0ba902b7"),
]
BAD = [
    ({"cache_ttl": 59}, "cache_ttl must be whole seconds from 60 to 2592000"),
    ({"cache_ttl": 0}, "see skip_cache"),
    ({"cache_ttl": 60.5}, "whole seconds"),
    ({"cache_ttl": timedelta(days=30, seconds=1)}, "30 days"),
    ({"cache_ttl": "60"}, "must be seconds or a timedelta, not str"),
    ({"cache_ttl": True}, "must be seconds or a timedelta, not bool"),
    ({"request_timeout": -1}, "finite duration of 0 s or more"),
    ({"request_timeout": float("nan")}, "finite"),
    ({"request_timeout": float("inf")}, "finite"),
    ({"request_timeout": timedelta(seconds=-1)}, "0 s or more"),
    ({"request_timeout": 0.0001}, "at least a millisecond"),
    ({"retry_delay": 60.001}, "at most 60 s"),
    ({"max_attempts": 0}, "from 1 to 5"),
    ({"max_attempts": 6}, "from 1 to 5"),
    ({"max_attempts": 2.0}, "whole number"),
    ({"max_attempts": True}, "whole number"),
    ({"backoff": "random"}, "constant, linear or exponential"),
    ({"metadata": dict.fromkeys("abcdef", 1)}, "at most five entries, not 6"),
    ({"metadata": {"a": None}}, "null or nested"),
    ({"metadata": {"a": {"b": 1}}}, "null or nested"),
    ({"metadata": {"a": [1]}}, "null or nested"),
    ({"metadata": {"cf.user": "x"}}, "do not begin with 'cf.'"),
    ({"metadata": {1: "x"}}, "keys are text"),
    ({"metadata": {"": "x"}}, "keys are text"),
    ({"metadata": {"a": float("inf")}}, "finite number"),
    ({"metadata": {"a": float("nan")}}, "finite number"),
    ({"cache_key": "a\r\nX-Evil: 1"}, "printable ASCII"),
    ({"cache_key": "ключ"}, "printable ASCII"),
    ({"cache_key": " x"}, "outer white space"),
    ({"cache_key": ""}, "not blank"),
    ({"event_id": "  "}, "not blank"),
    ({"event_id": 5}, "must be text"),
    ({"byok_alias": "a\x00b"}, "printable ASCII"),
    ({"skip_cache": "true"}, "True or False, not str"),
    ({"collect_log": 1}, "True or False, not int"),
    ({"custom_cost": {"per_token": 1, "b": 1}}, "not b, per_token"),
    ({"custom_cost": {"total_cost": True}}, "finite number"),
    ({"custom_cost": {"per_token_in": -1}}, "0 or more"),
    ({"custom_cost": {"per_token_in": "1"}}, "finite number"),
    ({"custom_cost": {"per_token_in": float("nan")}}, "finite number"),
    ({"custom_cost": {"per_token_in": 10**400}}, "finite number"),
    ({"custom_cost": 5}, "must be a mapping"),
    ({"metadata": "abc"}, "must be a mapping"),
    ({"backoff": []}, "constant, linear or exponential"),
    ({"request_timeout": 10**400}, "finite duration"),
    ({"otel_trace_id": "1" * 31}, "32 hexadecimal digits"),
    ({"otel_trace_id": "1" * 33}, "32 hexadecimal digits"),
    ({"otel_trace_id": "0" * 32}, "not all zero"),
    ({"otel_parent_span_id": "0" * 15 + "g"}, "16 hexadecimal digits"),
]


def name_of(options: dict[str, Any]) -> str:
    """Return the id of a test, such as `cache_ttl=60`, without backslashes, which pytest would escape."""
    ((option, value),) = options.items()
    return f"{option}={ascii(value)[:40]}".replace("\\", "/")


@pytest.mark.parametrize(("options", "name", "value"), GOOD, ids=[name_of(row[0]) for row in GOOD])
def test_option_becomes_its_header_in_the_unit_of_the_header(options: dict[str, Any], name: str, value: str) -> None:
    assert gateway_headers(**options) == {name: value}
    assert value.isascii()


@pytest.mark.parametrize(("options", "rule"), BAD, ids=[name_of(row[0]) for row in BAD])
def test_bad_value_is_refused_with_the_option_and_the_rule(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}") as caught:
        gateway_headers(**options)
    assert rule in str(caught.value)


def test_every_option_is_tested_and_documented_and_omitted_if_none() -> None:
    parameters = list(inspect.signature(gateway_headers).parameters)
    assert {next(iter(options)) for options, *_ in GOOD} == set(parameters)
    documented = inspect.getdoc(gateway_headers) or ""
    assert [name for name in parameters if f"\n    {name}: " not in documented] == []
    assert gateway_headers(**dict.fromkeys(parameters)) == {}


def test_gateway_headers_arrive_from_a_call_a_copy_and_a_client(
    call: Call, gateway: Loopback, config_at: ConfigAt
) -> None:
    headers = gateway_headers(cache_key="k", metadata={"名": 1}, max_attempts=2)

    def arrived() -> dict[str, str]:
        return {name: value for name, value in gateway.last.headers if name in headers}

    config = config_at(gateway, route="compat")
    call(config, lambda client: chat(client, extra_headers=headers))
    assert arrived() == headers
    assert json.loads(arrived()["cf-aig-metadata"]) == {"名": 1}
    call(config, lambda client: chat(client.with_options(default_headers=headers)))
    assert arrived() == headers
    call(config, chat, default_headers=headers)
    assert arrived() == headers
