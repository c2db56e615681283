"""Bodies that are no event streams: a large request in pieces, and a response that is read within bounds."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from anyio import move_on_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    import httpx2 as httpx
else:
    from ._connections import httpx

PIECE = 1_048_576
_MOST, _MOST_COMPRESSED = 1_048_576, 65_536
# These headers describe a body, and a body of ours has its own.
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"})


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A large body in pieces. Until Python 3.12, asyncio copies twice what a socket does not take at once."""

    def __init__(self, parts: Iterable[bytes | memoryview]) -> None:
        """Take the parts of a body that stays in memory, so that it can be sent again."""
        self._parts = [memoryview(part) for part in parts]

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(part[start : start + PIECE]) for part in self._parts for start in range(0, len(part), PIECE))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


class LoadedRequest(httpx.Request):
    """A request whose body is in memory. Its parts are joined only for an event hook that looks at it."""

    @property
    def content(self) -> bytes:
        return self.read()


class BoundedBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a response that is read before the SDK is given it. The read timeout holds for the whole of it.

    Of an error, what came until then is kept, at most 1 MiB (64 KiB if it is compressed). Any other body raises.
    """

    def __init__(self, response: httpx.Response, seconds: float | None, *, error: bool) -> None:
        """Take the place of the body of a response, which has not been read."""
        self._inner: Any = response.stream
        self._seconds = float("inf") if seconds is None else seconds
        self._error = error
        self._room = _MOST_COMPRESSED if "content-encoding" in response.headers else _MOST

    @property
    def elapsed(self) -> Any:
        """The time that the call took, where the HTTP library keeps it with the stream."""
        return getattr(self._inner, "elapsed", None)

    def __iter__(self) -> Iterator[bytes]:
        deadline = monotonic() + self._seconds
        for chunk in self._inner:
            yield self._kept(chunk)
            if self._ends(late=monotonic() > deadline):
                return

    async def __aiter__(self) -> AsyncIterator[bytes]:
        deadline, chunks = monotonic() + self._seconds, aiter(self._inner)
        while True:
            chunk = None
            with move_on_after(deadline - monotonic()) as scope:
                chunk = await anext(chunks, None)
            if chunk is not None:
                yield self._kept(chunk)
            elif not scope.cancelled_caught:
                return
            if self._ends(late=scope.cancelled_caught):
                return

    def _kept(self, chunk: bytes) -> bytes:
        kept = chunk[: self._room] if self._error else chunk
        self._room -= len(kept)
        return kept

    def _ends(self, *, late: bool) -> bool:
        if late and not self._error:
            raise httpx.ReadTimeout("The body took longer than the read timeout.")
        return late or (self._error and self._room <= 0)

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()


def settle_charset(response: httpx.Response) -> None:
    """Read a text as UTF-8 if its charset, such as `hex`, decodes no text. The SDK reads the text as well."""
    try:
        response.content.decode(response.encoding or "utf-8", "replace")
    except (LookupError, ValueError):
        response.encoding = "utf-8"


def with_body(
    response: httpx.Response, status: int, *, headers: Iterable[tuple[bytes, bytes]] = (), **body: Any
) -> httpx.Response:
    """Give a response another body, as `content` or `stream`, and more headers."""
    replaced = {name for name, _ in headers}
    if "content" in body or "content-encoding" in response.headers:
        replaced |= _OF_THE_BODY if "content" in body else {b"content-encoding", b"content-length"}
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in replaced]
    made = httpx.Response(
        status, headers=[*kept, *headers], request=response.request, extensions=response.extensions, **body
    )
    if "content" in body:
        try:
            made.elapsed = response.elapsed
        except RuntimeError:  # the request was not sent
            made.elapsed = timedelta(0)
    return made
