"""What happened: `GatewayCall`, `record_calls()` and the logger of the package."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._model import model_named
from ._request import whole_number

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ._settings import Route

logger = logging.getLogger("deepseek_gateway")

Recorders = tuple[list["GatewayCall"], ...]
_recorders: ContextVar[Recorders] = ContextVar("deepseek_gateway_recorders", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens of one call, as the provider counted them. After a `HIT` they are those of the first call.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer, with those of thinking.
        cached_tokens: Tokens of the prompt that came from DeepSeek's prefix cache.
        reasoning_tokens: Tokens of thinking.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class GatewayCall:
    """What one HTTP exchange with the gateway reported. A field is None if it was not reported.

    Attributes:
        status: HTTP status as it arrived. None means that no response came.
        cache_status: `HIT` or `MISS`. None means that the gateway did not say.
        log_id: Id of the row in the gateway's log. It is opaque.
        event_id: The id given as `event_id`, or one of the gateway's.
        step: Which step of a dynamic route or fallback answered, from 0.
        provider: The provider that answered, where the gateway names it (it does on dynamic routes).
        model: The model that answered where the gateway names it, else the model that was asked for.
        ray_id: Id of Cloudflare's edge (`cf-ray`).
        trace_id: DeepSeek's own id (`x-ds-trace-id`).
        gateway_trace_id: The gateway's trace (`cf-aig-trace-id`).
        request_id: The id to ask about: the provider's own request id, else `log_id`, `trace_id` or `ray_id`.
        route: The route on which the call was sent. `from_response()` does not know it.
        adapted: What was translated into DeepSeek's dialect, by the names in README's table.
            `from_response()` does not know it.
        usage: The tokens, from the response or from the end of a stream. `record_calls()` reads them while its block
            runs, and `from_response()` reads them from a whole response.
        retry: How many tries of the SDK came before this one.
        elapsed: Seconds until the response or the stream ended or was closed. None before that.
    """

    status: int | None = None
    cache_status: str | None = None
    log_id: str | None = None
    event_id: str | None = None
    step: int | None = None
    provider: str | None = None
    model: str | None = None
    ray_id: str | None = None
    trace_id: str | None = None
    gateway_trace_id: str | None = None
    request_id: str | None = None
    route: Route | None = None
    adapted: tuple[str, ...] = ()
    usage: Usage | None = None
    retry: int = 0
    elapsed: float | None = None

    @classmethod
    def from_response(cls, response: Any) -> GatewayCall:
        """Read a call off a raw response, a stream or an exception of the SDK.

        Args:
            response: The result of `with_raw_response` or `with_streaming_response`, a stream, an `openai.APIError`, or
                the HTTP response itself.

        Returns:
            The call. It has no status if it is made from an `openai.APIConnectionError`, which holds no response.

        Raises:
            TypeError: The object holds no HTTP response.
        """
        for attribute in ("http_response", "response"):
            response = getattr(response, attribute, response)
        if not hasattr(response, "request"):
            raise TypeError(f"{type(response).__name__} holds no HTTP response")
        call = call_from(response.request)
        if not hasattr(response, "status_code"):  # a connection error
            return call
        note_response(call, response.status_code, response.headers)
        with suppress(RuntimeError):  # the body has not been read to its end
            call.elapsed = response.elapsed.total_seconds()
            call.usage = usage_in(response.content)
        return call


def call_from(request: Any, route: Route | None = None) -> GatewayCall:
    """Begin a call with what the request of the SDK says."""
    retry = whole_number(request.headers.get("x-stainless-retry-count")) or 0
    return GatewayCall(retry=retry, model=model_named(request), route=route)


def note_response(call: GatewayCall, status: int, headers: Mapping[str, str]) -> None:
    """Add what the status and the headers of a response report."""
    call.status = status
    call.cache_status = headers.get("cf-aig-cache-status")
    call.log_id = headers.get("cf-aig-log-id")
    call.event_id = headers.get("cf-aig-event-id")
    call.step = whole_number(headers.get("cf-aig-step"))
    call.provider = headers.get("cf-aig-provider")
    call.model = headers.get("cf-aig-model") or call.model
    call.ray_id = headers.get("cf-ray")
    call.trace_id = headers.get("x-ds-trace-id")
    call.gateway_trace_id = headers.get("cf-aig-trace-id")
    call.request_id = headers.get("x-request-id")


def usage_in(data: bytes) -> Usage | None:
    """Read the tokens from a response or an event, of chat or of `/responses`, if it holds them."""
    try:
        body = json.loads(data)
        found = body.get("usage") or body["response"]["usage"]
        prompt, answer = ("prompt", "completion") if "prompt_tokens" in found else ("input", "output")
        of_prompt: dict[str, Any] = found.get(f"{prompt}_tokens_details") or {}
        of_answer: dict[str, Any] = found.get(f"{answer}_tokens_details") or {}
        return Usage(
            prompt_tokens=found[f"{prompt}_tokens"],
            completion_tokens=found[f"{answer}_tokens"],
            cached_tokens=of_prompt.get("cached_tokens") or 0,
            reasoning_tokens=of_answer.get("reasoning_tokens") or 0,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def log_call(call: GatewayCall, method_and_path: str, error: BaseException | None = None) -> None:
    """Write the INFO line of a call that has ended. It names no account, gateway or secret."""
    if call.status is None:
        what = f"no answer ({type(error).__name__})"
    else:
        what = f"{call.status} cache={call.cache_status or '-'} log={call.log_id or '-'}"
    if call.adapted:
        what += f" adapted={','.join(call.adapted)}"
    logger.info("%s %s %.3f s", method_and_path, what, call.elapsed)


@contextmanager
def record_calls() -> Generator[list[GatewayCall]]:
    """Keep every exchange of this library's clients with the gateway while the block runs.

    Calls are found wherever they are made: inside another library, in asyncio tasks, and in threads that run in a copy
    of the context, as those of `asyncio.to_thread()` do. Nested blocks see them too. A call appears when its headers
    arrive, or when none will come. `elapsed` is set when the call ends. Every retry of the SDK is an exchange.

    Yields:
        A list that grows with the calls, in the order of their responses.
    """
    calls: list[GatewayCall] = []
    token = _recorders.set((*_recorders.get(), calls))
    try:
        yield calls
    finally:
        with suppress(ValueError):  # the block was left in another context, where the list is not set
            _recorders.reset(token)


def watchers() -> Recorders | None:
    """Give the lists of the running `record_calls()` blocks, or None if no call needs to be followed."""
    recorders = _recorders.get()
    return recorders if recorders or logger.isEnabledFor(logging.INFO) else None
