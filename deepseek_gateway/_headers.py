"""Typed options to `cf-aig-*` headers, with a `ValueError` for what Cloudflare would drop or misread in silence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

_MINUTE, _MONTH = 60, 30 * 24 * 3600
_COSTS = ("per_token_in", "per_token_out", "per_cache_read_token", "per_cache_write_token", "total_cost")


def gateway_headers(  # noqa: PLR0913  # one keyword for each header
    *,
    cache_ttl: float | timedelta | None = None,
    cache_key: str | None = None,
    skip_cache: bool | None = None,
    metadata: Mapping[str, str | float | bool] | None = None,
    collect_log: bool | None = None,
    collect_log_payload: bool | None = None,
    event_id: str | None = None,
    request_timeout: float | timedelta | None = None,
    max_attempts: int | None = None,
    retry_delay: float | timedelta | None = None,
    backoff: Literal["constant", "linear", "exponential"] | None = None,
    custom_cost: Mapping[str, float] | None = None,
    byok_alias: str | None = None,
    no_wholesale: bool | None = None,
    otel_trace_id: str | None = None,
    otel_parent_span_id: str | None = None,
) -> dict[str, str]:
    """Write the gateway's options as headers, for `extra_headers=`, `default_headers=` and `with_options()`.

    Durations are seconds or a `timedelta`, whatever unit the header wants. What is None is left to the gateway's own
    settings. A header that this function does not know can be added to the result by hand.

    Args:
        cache_ttl: How long an answer is kept, 60 s to 30 days, whole seconds. By itself it does not switch caching on:
            that is done by the gateway's settings or by `cache_key` (Cloudflare docs: features/caching).
        cache_key: Cache the answer under this key. The prompt is then no part of the key: two prompts under one key
            get the same answer.
        skip_cache: Whether to go past the cache; False is sent as well.
        metadata: Up to five entries of text, number or boolean for the log. Of more, Cloudflare would keep five; one
            null or nested value would lose them all; keys that begin with `cf.` vanish (observability/custom-metadata).
        collect_log: Whether this call is logged at all.
        collect_log_payload: Whether prompt and answer go into the log, besides the metadata.
        event_id: An id of your own, which comes back in `cf-aig-event-id`.
        request_timeout: How long the gateway waits for the first part of an answer; it does not bound the last attempt
            (configuration/request-handling).
        max_attempts: How often the gateway asks the provider, 1 to 5. Above 1 the SDK does not repeat what the gateway
            has tried already.
        retry_delay: How long the gateway waits between attempts, at most 60 s (5 s in texts before autumn 2026).
        backoff: How that delay grows.
        custom_cost: USD for one token: `per_token_in`, `per_token_out`, `per_cache_read_token`,
            `per_cache_write_token`; or `total_cost` (configuration/custom-costs).
        byok_alias: Which of the keys stored at Cloudflare to use (configuration/bring-your-own-keys).
        no_wholesale: True forbids that Cloudflare pays and bills; False cannot lift the gateway's own setting.
        otel_trace_id: The trace that the call belongs to, 32 hexadecimal digits (observability/otel-integration).
        otel_parent_span_id: The span above it, 16 hexadecimal digits.

    Returns:
        Header names and values; empty when no option is given.

    Raises:
        ValueError: A value breaks one of the rules above; the message names the option and the rule.
    """
    values: dict[str, str | None] = {
        "cf-aig-cache-ttl": _cache_ttl(cache_ttl),
        "cf-aig-cache-key": _text("cache_key", cache_key),
        "cf-aig-skip-cache": _switch("skip_cache", skip_cache),
        "cf-aig-metadata": _metadata(metadata),
        "cf-aig-collect-log": _switch("collect_log", collect_log),
        "cf-aig-collect-log-payload": _switch("collect_log_payload", collect_log_payload),
        "cf-aig-event-id": _text("event_id", event_id),
        "cf-aig-request-timeout": _milliseconds("request_timeout", request_timeout),
        "cf-aig-max-attempts": _max_attempts(max_attempts),
        "cf-aig-retry-delay": _milliseconds("retry_delay", retry_delay, most=60),
        "cf-aig-backoff": _backoff(backoff),
        "cf-aig-custom-cost": _custom_cost(custom_cost),
        "cf-aig-byok-alias": _text("byok_alias", byok_alias),
        "cf-aig-no-wholesale": _switch("no_wholesale", no_wholesale),
        "cf-aig-otel-trace-id": _hexadecimal("otel_trace_id", otel_trace_id, 32),
        "cf-aig-otel-parent-span-id": _hexadecimal("otel_parent_span_id", otel_parent_span_id, 16),
    }
    return {name: value for name, value in values.items() if value is not None}


def _seconds(name: str, value: float | timedelta) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise ValueError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _finite(seconds) or seconds < 0:
        raise ValueError(f"{name} must be a finite duration of 0 s or more, not {value}")
    return seconds


def _finite(value: float) -> bool:
    """Whether a number can be written down; a whole number too large for a float counts as infinite."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _cache_ttl(value: float | timedelta | None) -> str | None:
    if value is None:
        return None
    seconds = _seconds("cache_ttl", value)
    if seconds != int(seconds) or not _MINUTE <= seconds <= _MONTH:
        raise ValueError(
            f"cache_ttl must be whole seconds from {_MINUTE} to {_MONTH} (30 days), not {value}; see skip_cache"
        )
    return str(int(seconds))


def _milliseconds(name: str, value: float | timedelta | None, *, most: float = math.inf) -> str | None:
    if value is None:
        return None
    seconds = _seconds(name, value)
    if seconds > most:
        raise ValueError(f"{name} must be at most {most} s, not {value}")
    milliseconds = round(seconds * 1000)
    if milliseconds == 0 and seconds:
        raise ValueError(f"{name} must be 0 or at least a millisecond, not {value} s")
    return str(milliseconds)


def _text(name: str, value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text and not blank")
    if not re.fullmatch(r"[\x20-\x7e]+", value) or value != value.strip():
        raise ValueError(f"{name} must be printable ASCII without outer white space, to fit into a header")
    return value


def _switch(name: str, value: bool | None) -> str | None:  # noqa: FBT001  # the option is a boolean
    if value is None:
        return None
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {type(value).__name__}")
    return str(value).lower()


def _metadata(value: Mapping[str, str | float | bool] | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"metadata must be a mapping of names to values, not {type(value).__name__}")
    if len(value) > 5:  # noqa: PLR2004  # Cloudflare's limit
        raise ValueError(f"metadata must have at most five entries, not {len(value)}: Cloudflare keeps five")
    for key, entry in value.items():
        if not isinstance(key, str) or not key or key.startswith("cf."):
            raise ValueError(f"metadata cannot have the key {key!r}: keys are text and do not begin with 'cf.'")
        if not isinstance(entry, (str, int, float)):
            raise ValueError(f"metadata[{key!r}] must be text, a number or a boolean: of null or nested, all is lost")
        if isinstance(entry, float) and not _finite(entry):
            raise ValueError(f"metadata[{key!r}] must be a finite number")
    return json.dumps(dict(value), separators=(",", ":"))


def _max_attempts(value: int | None) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 5:  # noqa: PLR2004  # Cloudflare's limit
        raise ValueError(f"max_attempts must be a whole number from 1 to 5, not {value}")
    return str(value)


def _backoff(value: str | None) -> str | None:
    if value not in (None, "constant", "linear", "exponential"):  # it may be anything, also a list
        raise ValueError(f"backoff must be constant, linear or exponential, not {value!r}")
    return value


def _custom_cost(value: Mapping[str, float] | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"custom_cost must be a mapping of names to USD, not {type(value).__name__}")
    if unknown := set(value) - set(_COSTS):
        raise ValueError(f"custom_cost knows {', '.join(_COSTS)}, not {', '.join(sorted(map(str, unknown)))}")
    for name, cost in value.items():
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not _finite(cost) or cost < 0:
            raise ValueError(f"custom_cost[{name!r}] must be USD, a finite number of 0 or more, not {cost!r}")
    return json.dumps(dict(value), separators=(",", ":"))


def _hexadecimal(name: str, value: str | None, digits: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value) or not int(value, 16):
        raise ValueError(f"{name} must be {digits} hexadecimal digits, not all zero")
    return value.lower()
