"""What happened: `GatewayCall`, `record_calls()` and the log line of each exchange with the gateway."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

logger = logging.getLogger("deepseek_gateway")
logger.addHandler(logging.NullHandler())  # or programs that configure no logging find warnings on their stderr

_recorders: ContextVar[tuple[list[GatewayCall], ...]] = ContextVar("deepseek_gateway_recorders", default=())


@dataclass(slots=True, kw_only=True)
class GatewayCall:
    """What one HTTP exchange with the gateway told about itself; what it did not tell is None.

    Attributes:
        status: HTTP status as it arrived; None when nothing answered.
        cache_status: `HIT` or `MISS`; None means that the gateway did not say.
        log_id: Id of the row in the gateway's log; opaque.
        event_id: The id given as `event_id`, or one of the gateway's.
        step: Which step of a dynamic route or fallback answered, from 0.
        provider: The provider that answered, where the gateway names it (it does on dynamic routes).
        model: The model that answered where the gateway names it, else the one that was asked for.
        ray_id: Id of Cloudflare's edge (`cf-ray`).
        trace_id: DeepSeek's own id (`x-ds-trace-id`).
        retry: How many tries of the SDK came before this one.
        elapsed: Seconds until the answer or the stream ended or was closed; None before that.
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
    retry: int = 0
    elapsed: float | None = None

    @classmethod
    def from_response(cls, response: Any) -> GatewayCall:
        """Read the same off a raw response, a stream or an exception of the SDK.

        Args:
            response: What `with_raw_response` or `with_streaming_response` gives, a stream, an `openai.APIError`, or
                the HTTP response itself.

        Returns:
            The call. One made from an `openai.APIConnectionError` has no status: that holds no answer, even if a
            stream had begun.

        Raises:
            TypeError: There is no HTTP response in it.
        """
        for attribute in ("http_response", "response"):
            response = getattr(response, attribute, response)
        if not hasattr(response, "status_code"):
            if hasattr(response, "request"):  # a connection error
                return cls(**_asked(response.request))
            raise TypeError(f"{type(response).__name__} holds no HTTP response")
        call = cls(**_asked(response.request))
        call.answered(response.status_code, response.headers)
        try:
            call.elapsed = response.elapsed.total_seconds()
        except RuntimeError:  # not at its end yet
            call.elapsed = None
        return call

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Take over what the headers of an answer tell."""
        step = headers.get("cf-aig-step", "")
        self.status = status
        self.cache_status = headers.get("cf-aig-cache-status")
        self.log_id = headers.get("cf-aig-log-id")
        self.event_id = headers.get("cf-aig-event-id")
        self.step = int(step) if step.isdecimal() else None
        self.provider = headers.get("cf-aig-provider")
        self.model = headers.get("cf-aig-model") or self.model
        self.ray_id = headers.get("cf-ray")
        self.trace_id = headers.get("x-ds-trace-id")


def _asked(request: Any) -> dict[str, Any]:
    """Read off a request what a call knows before its answer."""
    from ._request import model_of  # noqa: PLC0415  # only those pay who look

    retry = request.headers.get("x-stainless-retry-count", "")
    return {"retry": int(retry) if retry.isdecimal() else 0, "model": model_of(request)}


@contextmanager
def record_calls() -> Generator[list[GatewayCall]]:
    """Keep every exchange of this library's clients with the gateway while the block runs.

    Calls are found wherever they are made: inside another library, in asyncio tasks, and in threads that are started
    through `contextvars.copy_context()` (`asyncio.to_thread()` does). Nested blocks both see them. A call appears when
    its headers arrive, or when it is known that none will; `elapsed` is filled in when it ends. Every retry of the SDK
    is an exchange of its own. Outside of a block nothing is kept.

    Yields:
        A list that grows with the calls, in the order of their answers.
    """
    calls: list[GatewayCall] = []
    token = _recorders.set((*_recorders.get(), calls))
    try:
        yield calls
    finally:
        with suppress(ValueError):  # left in another context, which never saw the list
            _recorders.reset(token)


class Watch:
    """One exchange from its start to its end, for those who record and for the log."""

    __slots__ = ("_call", "_path", "_recorders", "_started")

    def __init__(self, request: Any, path: str, recorders: tuple[list[GatewayCall], ...]) -> None:
        """Start the clock; `path` is what follows the base URL, which names account and gateway."""
        self._call = GatewayCall(**_asked(request))
        self._path = f"{request.method} {path}"
        self._recorders = recorders
        self._started = perf_counter()

    def answered(self, response: Any) -> None:
        """Note the headers of an answer; they are there before its body."""
        self._call.answered(response.status_code, response.headers)
        for recorder in self._recorders:
            recorder.append(self._call)

    def ended(self) -> None:
        """Note that the answer is complete, or closed; of several times the first counts."""
        if self._call.elapsed is None:
            call = self._call
            call.elapsed = perf_counter() - self._started
            cache, log_id = call.cache_status or "-", call.log_id or "-"
            logger.info("%s %s cache=%s log=%s %.3f s", self._path, call.status, cache, log_id, call.elapsed)

    def failed(self, error: BaseException) -> None:
        """Note that no answer came, or not the whole of one."""
        if self._call.status is None:
            for recorder in self._recorders:
                recorder.append(self._call)
            self._call.elapsed = perf_counter() - self._started
            logger.info("%s no answer (%s) %.3f s", self._path, type(error).__name__, self._call.elapsed)
        else:
            self.ended()


def watch(request: Any, past: int) -> Watch | None:
    """Begin to watch an exchange, if anybody wants to know of it; the path is told from `past` on."""
    recorders = _recorders.get()
    if recorders or logger.isEnabledFor(logging.INFO):
        return Watch(request, request.url.raw_path.partition(b"?")[0][past:].decode("ascii", "replace"), recorders)
    return None
