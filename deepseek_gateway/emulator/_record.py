"""The last exchanges, as they went over the wire, for the page."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, time

from starlette.types import Message, Send

from deepseek_gateway.emulator._wire import ReceivedRequest

MOST_EXCHANGES = 500
_MAX_BYTES = 64_000_000


@dataclass(eq=False, kw_only=True, slots=True)
class Exchange:
    """A request and its response, as far as the response has been sent.

    `began` is in seconds since 1970, `clock` is that moment on the monotonic clock. `seconds` (the duration) is None
    and `size` (of all bodies) is 0 until the exchange ends. `changed` numbers its last change, among all changes.
    `retry` is how many tries of the SDK came before, `first` the number of the first of them, and `retried` whether
    another try has followed.
    """

    number: int
    request: ReceivedRequest
    began: float = field(default_factory=time)
    clock: float = field(default_factory=monotonic)
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    chunks: list[bytes] = field(default_factory=list[bytes])
    complete: bool = False
    seconds: float | None = None
    size: int = 0
    changed: int = 0
    retry: int = 0
    first: int = 0
    retried: bool = False


class Record:
    """As many of the last exchanges as memory should hold; each of `watchers` is set when one changes."""

    def __init__(self) -> None:
        self.watchers = set[asyncio.Event]()
        self._kept: deque[Exchange] = deque()
        self._count = self._changes = self._bytes = 0

    def begin(self, request: ReceivedRequest) -> Exchange:
        if len(self._kept) == MOST_EXCHANGES:
            self._bytes -= self._kept.popleft().size
        self._count += 1
        exchange = Exchange(number=self._count, request=request, first=self._count)
        if tried := self._tried_before(request):
            exchange.retry, exchange.first, tried.retried = tried.retry + 1, tried.first, True
            self._change(tried)
        self._kept.append(exchange)
        self._change(exchange)
        return exchange

    def recording(self, exchange: Exchange, send: Send) -> Send:
        """Return an ASGI `send` that records what it sends."""

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.headers = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
                self._change(exchange)
            else:
                exchange.chunks.append(message["body"])
                exchange.complete = not message["more_body"]
            await send(message)

        return recorded

    def end(self, exchange: Exchange) -> None:
        """Record that nothing more will be sent; forget the oldest exchanges when all together are too large."""
        upstream = exchange.request.upstream
        bodies = exchange.request.body, upstream.body if upstream else b"", *exchange.chunks
        exchange.seconds = monotonic() - exchange.clock
        if exchange.number >= self._kept[0].number:
            exchange.size = sum(map(len, bodies))
            self._bytes += exchange.size
        while len(self._kept) > 1 and self._bytes > _MAX_BYTES:
            self._bytes -= self._kept.popleft().size
        self._change(exchange)

    def since(self, change: int) -> list[tuple[int, Exchange]]:
        """Return the exchanges that changed after a change, in order, each with the number of its last change."""
        changed = {exchange.changed: exchange for exchange in self._kept if exchange.changed > change}
        return sorted(changed.items())

    def find(self, number: int) -> Exchange | None:
        return next((exchange for exchange in self._kept if exchange.number == number), None)

    def _tried_before(self, request: ReceivedRequest) -> Exchange | None:
        """Return the try that a request of an SDK repeats. The SDK counts its tries, and sends the same body again."""
        count, sent = request.headers.get("x-stainless-retry-count", "0"), (request.path, request.body)
        for each in reversed(self._kept) if count != "0" else ():
            if str(each.retry + 1) == count and not each.retried and (each.request.path, each.request.body) == sent:
                return each
        return None

    def _change(self, exchange: Exchange) -> None:
        self._changes += 1
        exchange.changed = self._changes
        for watcher in self.watchers:
            watcher.set()
