"""OpenTelemetry: trace headers out, span attributes in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ._request import whole_number

if TYPE_CHECKING:
    import httpx2 as httpx

    from ._codes import RequestFacts

_TRACE_ID, _PARENT_ID = "cf-aig-otel-trace-id", "cf-aig-otel-parent-span-id"


def recording_span() -> Any:
    """Give the current span of OpenTelemetry, or None if there is none that records.

    This package never imports OpenTelemetry. A program that has a span has imported it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    current: Any = getattr(trace, "get_current_span", None)
    if current is None:  # another thread has not finished the import
        return None
    span = current()
    return span if span.is_recording() else None


def add_trace(headers: httpx.Headers, span: Any) -> None:
    """Make a span the parent of the gateway's own, unless the caller has named a trace or a parent.

    The ids are lower-case hexadecimal (Cloudflare docs: observability/otel-integration).
    """
    if _TRACE_ID not in headers and _PARENT_ID not in headers:
        context = span.get_span_context()
        headers[_TRACE_ID], headers[_PARENT_ID] = f"{context.trace_id:032x}", f"{context.span_id:016x}"


def note_on_span(span: Any, headers: httpx.Headers, facts: RequestFacts) -> None:
    """Write what the gateway reported as attributes of a span. A retry overwrites what an earlier try wrote."""
    if not span.is_recording():  # the span has ended, and OpenTelemetry would log a warning
        return
    texts = {"log_id": headers.get("cf-aig-log-id"), "cache_status": headers.get("cf-aig-cache-status")}
    reported: dict[str, str | int] = {name: facts.hide(text) for name, text in texts.items() if text}
    if (step := whole_number(headers.get("cf-aig-step"))) is not None:
        reported["step"] = step
    span.set_attributes({f"cloudflare.ai_gateway.{name}": value for name, value in reported.items()})
