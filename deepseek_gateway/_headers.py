"""Typed options to `cf-aig-*` headers. Whatever Cloudflare would drop or misread in silence is a `ValueError`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal

_MINUTE, _MONTH = 60, 30 * 24 * 3600
_LARGEST = sys.float_info.max
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

    Durations are seconds or a `timedelta`, whatever unit the header has. An option that is None is left to the
    gateway's own settings. A header that this function does not know can be added to the result by hand.

    Args:
        cache_ttl: How long an answer is kept, 60 s to 30 days, whole seconds. It does not switch caching on: the
            gateway's settings or `cache_key` do (Cloudflare docs: features/caching).
        cache_key: Cache the answer under this key. Then the prompt is not part of the key: two prompts under one key
            get the same answer.
        skip_cache: Whether to bypass the cache. False is sent as well.
        metadata: Up to five entries of text, number or boolean for the log. Cloudflare keeps five of more, drops all of
            them if one value is null or nested, and drops keys that begin with `cf.` (observability/custom-metadata).
        collect_log: Whether this call is logged at all.
        collect_log_payload: Whether prompt and answer go into the log, besides the metadata.
        event_id: An id of your own. The gateway returns it in `cf-aig-event-id`.
        request_timeout: How long the gateway waits for the first part of an answer. The last attempt has no such bound
            (configuration/request-handling).
        max_attempts: How often the gateway asks the provider, 1 to 5. Above 1, the SDK does not repeat what the gateway
            has tried already.
        retry_delay: How long the gateway waits between attempts, at most 60 s.
        backoff: How that delay grows.
        custom_cost: USD for one token: `per_token_in`, `per_token_out`, `per_cache_read_token`,
            `per_cache_write_token`; or `total_cost` (configuration/custom-costs).
        byok_alias: Which of the keys stored at Cloudflare to use (configuration/bring-your-own-keys).
        no_wholesale: True forbids Cloudflare to pay for the call and bill you. False cannot lift the gateway's own
            setting.
        otel_trace_id: The trace that the call belongs to, 32 hexadecimal digits (observability/otel-integration).
        otel_parent_span_id: The span above it, 16 hexadecimal digits.

    Returns:
        Header names and values. Empty when no option is given.

    Raises:
        ValueError: A value breaks one of the rules above. The message names the option and the rule.
    """
    options: dict[str, tuple[Callable[[str, Any], str], str, object]] = {
        "cf-aig-cache-ttl": (_cache_ttl, "cache_ttl", cache_ttl),
        "cf-aig-cache-key": (_text, "cache_key", cache_key),
        "cf-aig-skip-cache": (_switch, "skip_cache", skip_cache),
        "cf-aig-metadata": (_metadata, "metadata", metadata),
        "cf-aig-collect-log": (_switch, "collect_log", collect_log),
        "cf-aig-collect-log-payload": (_switch, "collect_log_payload", collect_log_payload),
        "cf-aig-event-id": (_text, "event_id", event_id),
        "cf-aig-request-timeout": (partial(_milliseconds, _LARGEST), "request_timeout", request_timeout),
        "cf-aig-max-attempts": (_max_attempts, "max_attempts", max_attempts),
        "cf-aig-retry-delay": (partial(_milliseconds, _MINUTE), "retry_delay", retry_delay),
        "cf-aig-backoff": (_backoff, "backoff", backoff),
        "cf-aig-custom-cost": (_custom_cost, "custom_cost", custom_cost),
        "cf-aig-byok-alias": (_text, "byok_alias", byok_alias),
        "cf-aig-no-wholesale": (_switch, "no_wholesale", no_wholesale),
        "cf-aig-otel-trace-id": (partial(_hexadecimal, 32), "otel_trace_id", otel_trace_id),
        "cf-aig-otel-parent-span-id": (partial(_hexadecimal, 16), "otel_parent_span_id", otel_parent_span_id),
    }
    return {header: write(name, value) for header, (write, name, value) in options.items() if value is not None}


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, timedelta)):
        raise ValueError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not 0 <= seconds <= _LARGEST:
        raise ValueError(f"{name} must be a finite duration of 0 s or more, not {value}")
    return seconds


def _cache_ttl(name: str, value: Any) -> str:
    seconds = _seconds(name, value)
    if seconds != int(seconds) or not _MINUTE <= seconds <= _MONTH:
        raise ValueError(
            f"{name} must be whole seconds from {_MINUTE} to {_MONTH} (30 days), not {value}; see skip_cache"
        )
    return str(int(seconds))


def _milliseconds(most: float, name: str, value: Any) -> str:
    seconds = _seconds(name, value)
    if seconds > most:
        raise ValueError(f"{name} must be at most {most} s, not {value}")
    milliseconds = round(seconds * 1000)
    if milliseconds == 0 and seconds:
        raise ValueError(f"{name} must be 0 or at least a millisecond, not {value} s")
    return str(milliseconds)


def _matching(pattern: str, rule: str, name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ValueError(f"{name} must be {rule}, not {value!r}")
    return value


def _hexadecimal(digits: int, name: str, value: Any) -> str:
    return _matching(
        rf"(?!0+$)[0-9a-fA-F]{{{digits}}}", f"{digits} hexadecimal digits, not all zero", name, value
    ).lower()


_text = partial(
    _matching,
    r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?",
    "text in printable ASCII, not blank and without outer white space",
)
_backoff = partial(_matching, "constant|linear|exponential", "constant, linear or exponential")


def _switch(name: str, value: Any) -> str:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {type(value).__name__}")
    return str(value).lower()


def _metadata(name: str, value: Mapping[Any, Any]) -> str:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping of names to values, not {type(value).__name__}")
    if len(value) > 5:  # noqa: PLR2004  # Cloudflare's limit
        raise ValueError(f"{name} must have at most five entries, not {len(value)}: Cloudflare keeps five")
    for key, entry in value.items():
        if not isinstance(key, str) or not key or key.startswith("cf."):
            raise ValueError(f"{name} cannot have the key {key!r}: keys are text and do not begin with 'cf.'")
        if not isinstance(entry, (str, int, float)):
            raise ValueError(
                f"{name}[{key!r}] must be text, a number or a boolean: "
                "null or nested values make Cloudflare drop all metadata"
            )
        if isinstance(entry, float) and not abs(entry) <= _LARGEST:
            raise ValueError(f"{name}[{key!r}] must be a finite number")
    return json.dumps(dict(value), separators=(",", ":"))


def _max_attempts(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 5:  # noqa: PLR2004  # Cloudflare's limit
        raise ValueError(f"{name} must be a whole number from 1 to 5, not {value}")
    return str(value)


def _custom_cost(name: str, value: Mapping[Any, Any]) -> str:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping of names to USD, not {type(value).__name__}")
    if unknown := set(value) - set(_COSTS):
        raise ValueError(f"{name} knows {', '.join(_COSTS)}, not {', '.join(sorted(map(str, unknown)))}")
    for item, cost in value.items():
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost <= _LARGEST:
            raise ValueError(f"{name}[{item!r}] must be USD, a finite number of 0 or more, not {cost!r}")
    return json.dumps(dict(value), separators=(",", ":"))
