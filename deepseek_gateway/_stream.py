"""A stream is whole or raises: the check for its end, and the body that applies it."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

import openai
from anyio import move_on_after

from ._response import may_hold_a_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    import httpx2 as httpx
else:
    from ._connections import httpx

# After the last event, wait at most this long, and for at most this many bytes, so that the connection can be reused.
_DRAIN_SECONDS, _DRAIN_BYTES = 0.1, 16_384
_LONGEST_ERROR = 65_536
_KEPT = 128

_DONE = re.compile(rb"\ndata: ?\[DONE\]")
_TERMINAL = re.compile(rb'"type": ?"response\.(?:completed|failed|incomplete)"|\nevent: ?error\s')
_FILLER = re.compile(rb"\A(?:\s|:[^\n]*\n)*")
_FIRST_EVENT = re.compile(rb"(?:\s|:[^\n]*\n)*(?:(?:event|id|retry):[^\n]*\n)*data: ?(\{[^\n]*\})\r?\n\r?\n")


class StreamCheck:
    """Finds out whether an event stream reached its end, without parsing its events.

    A chat stream ends with `data: [DONE]`. A stream of `/responses` ends with a terminal event, which holds the whole
    response and may span many network chunks. A gateway error in place of the first event is explained like any other.
    """

    __slots__ = ("_explain", "_held", "_hint", "_marks", "_seen", "_started", "_tail", "arrived", "end")

    def __init__(self, explain: Callable[[bytes], bytes | None], *, expects_response: bool) -> None:
        """Begin before the first byte.

        `explain` gets the data of a first event that may hold an error, and gives the data to pass on in its place, if
        there is any. `expects_response` tells a stream of `/responses` from a chat stream.
        """
        self.arrived = 0
        self.end = "its last event" if expects_response else "[DONE]"
        self._explain = explain
        self._marks = _TERMINAL if expects_response else _DONE
        self._hint = b"" if expects_response else b"[DONE]"  # searched first: a regular expression takes far longer
        self._started = False
        self._seen = False
        self._held = b""
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> bytes:
        """Look at a network chunk and give what to pass on: the chunk itself, except for an error at the start."""
        self.arrived += len(chunk)
        window = self._tail + chunk
        if not self._seen and self._hint in window:
            self._seen = bool(self._marks.search(window))
        self._tail = window[-_KEPT:]
        return chunk if self._started else self._begin(chunk)

    def rest(self) -> bytes:
        """Give what is still held back when the body has ended."""
        return self._release(b"\n\n") if self._held.strip() else self._held

    @property
    def complete(self) -> bool:
        """Whether the end has been seen. A terminal event must have arrived whole."""
        return self._seen and (self._marks is _DONE or self._tail.replace(b"\r", b"").endswith(b"\n\n"))

    def cut(self, how: str) -> str:
        """Say that the stream is not whole."""
        return f"The stream {how} before {self.end}, after {self.arrived:,} bytes; what came until then was delivered."

    def _begin(self, chunk: bytes) -> bytes:
        """Hold back what may be an error until the whole of it is there. Anything else passes at once."""
        self._held += chunk
        begun = _FILLER.sub(b"", self._held, count=1)
        whole = b"\n\n" in begun or b"\r\n\r\n" in begun
        if not whole and len(begun) < _LONGEST_ERROR and (len(begun) < _KEPT or may_hold_a_fault(begun)):
            return b""
        self._started = True
        return self._release()

    def _release(self, ending: bytes = b"") -> bytes:
        """Give what was held back, with an error in the first event explained."""
        held, self._held = self._held + ending, b""
        event = _FIRST_EVENT.match(held)
        explained = self._explain(event.group(1)) if event and may_hold_a_fault(event.group(1)) else None
        return b"data: " + explained + b"\n\n" + held[event.end() :] if event and explained else held


class CheckedBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response on its way to the SDK. It is whole, or reading it raises."""

    def __init__(
        self,
        response: httpx.Response,
        check: StreamCheck | None,
        timeouts: dict[str, Any],
        on_close: Callable[[], object],
        *,
        decoded: bool,
    ) -> None:
        """Take the place of the body of a response, which has not been read.

        Without a `check` the body is only passed on. `timeouts` are those of the request that was sent, `on_close` is
        called when the body is closed, and `decoded` removes the content encoding.
        """
        self._response = response
        self._inner: Any = response.stream
        self._check = check
        self._timeouts = timeouts
        self._on_close = on_close
        self._decoded = decoded
        self._chunks: Any = None
        self._ended = False

    @property
    def elapsed(self) -> Any:
        """The time that the call took, where the HTTP library keeps it with the stream."""
        return getattr(self._inner, "elapsed", None)

    def __iter__(self) -> Iterator[bytes]:
        """Pass the chunks on, up to the end of the stream."""
        if self._chunks is not None:
            return
        check = self._check
        # Kept until close(), because dropping the iterator of a body closes its connection.
        self._chunks = self._response.iter_bytes() if self._decoded else iter(self._inner)
        try:
            with self._whole_or_raises():
                for chunk in self._chunks:
                    if passed := check.feed(chunk) if check else chunk:
                        yield passed
                        if self._complete:
                            return
                self._ended = True
                if check and (rest := check.rest()):
                    yield rest
        except Exception:
            self._ended = True
            self.close()  # old HTTP libraries leave that to the garbage collector
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pass the chunks on, up to the end of the stream."""
        if self._chunks is not None:
            return
        check = self._check
        self._chunks = self._response.aiter_bytes() if self._decoded else aiter(self._inner)  # kept, as above
        try:
            with self._whole_or_raises():
                async for chunk in self._chunks:
                    if passed := check.feed(chunk) if check else chunk:
                        yield passed
                        if self._complete:
                            return
                self._ended = True
                if check and (rest := check.rest()):
                    yield rest
        except Exception:
            self._ended = True
            await self.aclose()  # as above
            raise

    def close(self) -> None:
        """Read what follows the last event, so that the connection can be reused, and close the body."""
        if self._to_drain:
            self._ended = True
            self._timeouts["read"] = _DRAIN_SECONDS  # the HTTP library reads it when a body is iterated anew
            room, deadline = _DRAIN_BYTES, monotonic() + _DRAIN_SECONDS
            with suppress(httpx.RequestError, httpx.StreamError):
                for chunk in self._inner:
                    room -= len(chunk)
                    if room < 0 or monotonic() > deadline:
                        break
        self._inner.close()
        self._on_close()

    async def aclose(self) -> None:
        """Read what follows the last event, so that the connection can be reused, and close the body."""
        try:
            if self._to_drain:
                self._ended = True
                room = _DRAIN_BYTES
                with suppress(httpx.RequestError, httpx.StreamError), move_on_after(_DRAIN_SECONDS):
                    async for chunk in self._inner:
                        room -= len(chunk)
                        if room < 0:
                            break
        finally:
            await self._inner.aclose()
            self._on_close()

    @property
    def _complete(self) -> bool:
        return self._check is not None and self._check.complete

    @property
    def _to_drain(self) -> bool:
        """Whether only the end of the body is missing. HTTP/2 can reuse its connection without it."""
        return self._complete and not self._ended and self._response.http_version == "HTTP/1.1"

    @contextmanager
    def _whole_or_raises(self) -> Generator[None]:
        """Raise the SDK's exception if the body ends, cleanly or not, before the end of its stream."""
        check, request = self._check, self._response.request
        try:
            yield
        except httpx.RequestError as error:
            if check is None:
                raise
            if not isinstance(error, httpx.TimeoutException):
                raise openai.APIConnectionError(message=check.cut("broke off"), request=request) from error
            timeout = openai.APITimeoutError(request=request)
            timeout.message = check.cut("stalled")
            timeout.args = (timeout.message,)
            raise timeout from error
        if check and not check.complete:
            raise openai.APIConnectionError(message=check.cut("ended"), request=request)
