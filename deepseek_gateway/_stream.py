"""A stream is whole or raises."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
from anyio import move_on_after, sleep

from ._response import json_object, may_hold_a_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    import httpx2 as httpx

    from ._merge import MergedChunks
else:
    from ._connections import httpx

# After the last event, wait at most this long, and for at most this many bytes, so that the connection can be reused.
_DRAIN_SECONDS, _DRAIN_BYTES = 0.1, 16_384
_LONGEST_ERROR = 65_536
_LONGEST_LINE = 16_777_216
_KEPT = 128
_LINE_ENDS = 3  # of the four bytes of two line ends, these may have come before a chunk

_DONE = re.compile(rb"\ndata: ?\[DONE\]")
_TERMINAL = {"response.completed", "response.failed", "response.incomplete"}
_FILLER = re.compile(rb"\A(?:\s|:[^\n]*\n)*")
_FIELD = re.compile(rb"(?:\s|:[^\n]*\n)*(?:data|event|id|retry):")
_FIRST_EVENT = re.compile(rb"(?:(?:event|id|retry):[^\n]*\n)*data: ?(\{[^\n]*\})(?:\r?\n\r?\n|\s*\Z)")


def begins_like_events(body: bytes) -> bool:
    """Whether a body begins like an event stream."""
    return _FIELD.match(body) is not None


class Lines:
    """Puts the chunks of a body together to lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Give the lines that end in a chunk, without their line ends."""
        *ended, rest = chunk.split(b"\n")
        lines: list[bytes] = []
        for part in ended:
            lines.append(self.rest + part)
            self._parts, self._size = [], 0
        self._parts.append(rest)
        self._size += len(rest)
        if self._size > _LONGEST_LINE:
            self._parts, self._size = [b"data: (too long)"], 0
        return lines

    @property
    def rest(self) -> bytes:
        """The line that has not ended yet."""
        return b"".join(self._parts)


class DoneMark:
    """The end of a chat stream: `data: [DONE]`."""

    name = "[DONE]"

    def __init__(self) -> None:
        self.reached = self.optional = False
        self._tail = b"\n"

    def feed(self, chunk: bytes) -> None:
        window = self._tail + chunk
        if b"[DONE]" in window:  # a regular expression alone takes far longer
            self.reached = self.reached or _DONE.search(window) is not None
        self._tail = window[-_KEPT:]


class TerminalEvent:
    """The end of a stream of `/responses`: a terminal event, whole.

    The event is known by its `event:` line, where there is one, else by `type` in its own object. The same words inside
    an event are data. After an error event the stream may end, and it may go on as well.
    """

    name = "its last event"

    def __init__(self) -> None:
        self.reached = self.optional = False
        self._lines = Lines()
        self._kind = ""

    def feed(self, chunk: bytes) -> None:
        for line in self._lines.feed(chunk):
            text = line.rstrip(b"\r")
            if text.startswith(b"event:"):
                self._kind = text[6:].strip().decode("utf-8", "replace")
            elif not self._kind and text.startswith(b"data:") and b'"response.' in text:
                kind: object = (json_object(text[5:]) or {}).get("type")
                self._kind = kind if isinstance(kind, str) else ""
            elif not text:
                self.reached = self.reached or self._kind in _TERMINAL
                self.optional = self.optional or self._kind == "error"
                self._kind = ""


class Watcher(NamedTuple):
    """Who is told of a body as it passes."""

    explain: Callable[[bytes], bytes | None]
    """Gets the data of a first event that may hold an error, and may give other data to pass on."""
    on_line: Callable[[bytes], object] | None
    """Gets each line, if the body is plain text."""
    on_close: Callable[[], object]


class CheckedBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response on its way to the SDK. It is whole, or reading it raises.

    A chat stream ends with `data: [DONE]`, a stream of `/responses` with a terminal event, which may span many chunks.
    Events are not parsed, but a gateway error in place of the first event is explained.
    """

    def __init__(
        self,
        response: httpx.Response,
        end: DoneMark | TerminalEvent | None,
        timeouts: dict[str, Any],
        watcher: Watcher,
        merged: MergedChunks | None = None,
    ) -> None:
        """Take the place of the body of a response, which has not been read.

        `end` is None for a body that is only passed on. `timeouts` are those of the request that was sent.
        """
        self._merged = merged
        self._response = response
        self._inner: Any = response.stream
        self._end = end
        self._timeouts = timeouts
        self._watcher = watcher
        encoded = "content-encoding" in response.headers
        # The end of a stream is found in plain text only.
        self.decoded = end is not None and encoded
        self._on_line = watcher.on_line if self.decoded or not encoded else None
        self._lines = Lines()
        self._chunks: Any = None
        self._ended = False
        self._arrived = 0
        self._started = False
        self._held = b""

    @property
    def elapsed(self) -> Any:
        """The time that the call took, where the HTTP library keeps it with the stream."""
        return getattr(self._inner, "elapsed", None)

    def __iter__(self) -> Iterator[bytes]:
        if self._chunks is not None:
            return
        # Kept until close(), because dropping the iterator of a body closes its connection.
        self._chunks = self._response.iter_bytes() if self.decoded else iter(self._inner)
        try:
            with self._whole_or_raises():
                for chunk in self._chunks:
                    if passed := self._feed(chunk):
                        yield passed
                        if self._end and self._end.reached:
                            return
                if rest := self._passed(self._rest(), last=True):
                    yield rest
        except Exception:
            self.close()  # old HTTP libraries leave that to the garbage collector
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._chunks is not None:
            return
        self._chunks = self._response.aiter_bytes() if self.decoded else aiter(self._inner)  # kept, as above
        try:
            with self._whole_or_raises():
                async for chunk in self._chunks:
                    if passed := self._feed(chunk):
                        yield passed
                        if self._end and self._end.reached:
                            return
                    if self._merged and self._merged.pause:
                        await sleep(self._merged.pause)
                if rest := self._passed(self._rest(), last=True):
                    yield rest
        except Exception:
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
        self._closed()

    async def aclose(self) -> None:
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
            self._closed()

    def _closed(self) -> None:
        if self._on_line:
            self._on_line(self._lines.rest)  # a body that is no stream may end without a line end
        self._watcher.on_close()

    def _feed(self, chunk: bytes) -> bytes:
        """Look at a network chunk and give what to pass on: the chunk itself, except for an error at the start."""
        if self._on_line:
            for line in self._lines.feed(chunk):
                self._on_line(line)
        if self._end is None:
            return chunk
        self._arrived += len(chunk)
        self._end.feed(chunk)
        return self._passed(chunk if self._started else self._begin(chunk), last=self._end.reached)

    def _passed(self, data: bytes, *, last: bool) -> bytes:
        return self._merged.feed(data, last=last) if self._merged else data

    def _begin(self, chunk: bytes) -> bytes:
        """Hold the first event until it is whole, for an error in it. The comments before it pass at once."""
        held = self._held + chunk
        self._held = _FILLER.sub(b"", held)
        passed = held[: len(held) - len(self._held)]
        new = self._held[-len(chunk) - _LINE_ENDS :]  # the rest has been searched
        whole = b"\n\n" in new or b"\r\n\r\n" in new or (self._end is not None and self._end.reached)
        size = len(self._held)
        if not whole and size < _LONGEST_ERROR and (size < _KEPT or may_hold_a_fault(self._held)):
            return passed
        self._started = True
        return passed + self._rest()

    def _rest(self) -> bytes:
        """Give what was held back, with an error in the first event explained."""
        held, self._held = self._held, b""
        event = _FIRST_EVENT.match(held)
        explained = self._watcher.explain(event.group(1)) if event and may_hold_a_fault(event.group(1)) else None
        return b"data: " + explained + b"\n\n" + held[event.end() :] if event and explained else held

    @property
    def _to_drain(self) -> bool:
        """Whether only the end of the body is missing. HTTP/2 can reuse its connection without it."""
        reached = self._end is not None and self._end.reached
        return reached and not self._ended and self._response.http_version == "HTTP/1.1"

    @contextmanager
    def _whole_or_raises(self) -> Generator[None]:
        """Raise the SDK's exception if the body ends, cleanly or not, before the end of its stream."""
        request = self._response.request
        try:
            yield
        except httpx.RequestError as error:
            if self._end is None:
                raise
            if not isinstance(error, httpx.TimeoutException):
                raise openai.APIConnectionError(message=self._cut("broke off"), request=request) from error
            timeout = openai.APITimeoutError(request=request)
            timeout.message = self._cut("stalled")
            timeout.args = (timeout.message,)
            raise timeout from error
        if self._end and not (self._end.reached or self._end.optional):
            raise openai.APIConnectionError(message=self._cut("ended"), request=request)

    def _cut(self, how: str) -> str:
        arrived = f"after {self._arrived:,} bytes; what came until then was delivered"
        return f"The stream {how} before {self._end.name if self._end else 'its end'}, {arrived}."
