"""What happened: the last exchanges, as they went over the wire, for whoever watches."""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING

from deepseek_gateway.emulator._exchange import ReceivedRequest

if TYPE_CHECKING:
    from asyncio import Event

    from starlette.types import Message, Send

MOST_EXCHANGES = 500
_MOST_BYTES = 64_000_000


@dataclass(eq=False, kw_only=True, slots=True)
class Exchange:
    """A request and what was sent in return, as far as it has come.

    Attributes:
        number: Counts the requests, from 1.
        began: When it was received, in seconds since 1970; `clock` is the same moment on a clock that nobody sets.
        status: The status that was sent; `None` before, and if the connection was reset instead.
        headers: The headers that were sent.
        sent: The pieces of the body that were sent.
        complete: Whether the body came to its proper end.
        seconds: How long it took; `None` while it goes on.
        size: Bytes of all bodies; 0 while it goes on.
        changed: The number of its last change, among all changes of all exchanges.
    """

    number: int
    request: ReceivedRequest
    began: float = field(default_factory=time)
    clock: float = field(default_factory=monotonic)
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    sent: list[bytes] = field(default_factory=list[bytes])
    complete: bool = False
    seconds: float | None = None
    size: int = 0
    changed: int = 0


class Record:
    """The last exchanges: as many as memory should hold, however long the emulator runs.

    All of it happens in the emulator's thread. Each of `watchers` is set when something changes.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.watchers: set[Event] = set()
        self._kept: deque[Exchange] = deque()
        self._count = self._changes = self._bytes = 0

    def begin(self, request: ReceivedRequest) -> Exchange:
        """Keep a request that was received."""
        if len(self._kept) == MOST_EXCHANGES:
            self._let_go()
        self._count += 1
        exchange = Exchange(number=self._count, request=request)
        self._kept.append(exchange)
        self._change(exchange)
        return exchange

    def noting(self, exchange: Exchange, send: "Send") -> "Send":
        """Return `send` (of ASGI), which from now on notes what it sends."""

        async def noted(message: "Message") -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.headers = [(name.decode(), value.decode("latin-1")) for name, value in message["headers"]]
                self._change(exchange)
            else:
                exchange.sent.append(message["body"])
                exchange.complete = not message["more_body"]
            await send(message)

        return noted

    def end(self, exchange: Exchange) -> None:
        """Note that nothing more will be sent; old exchanges go when all together are too large."""
        forwarded = exchange.request.upstream
        bodies = exchange.request.body, forwarded.body if forwarded else b"", *exchange.sent
        exchange.seconds = monotonic() - exchange.clock
        if exchange.number >= self._kept[0].number:
            exchange.size = sum(map(len, bodies))
            self._bytes += exchange.size
        while len(self._kept) > 1 and self._bytes > _MOST_BYTES:
            self._let_go()
        self._change(exchange)

    def since(self, change: int) -> list[tuple[int, Exchange]]:
        """Return what changed after a change, in order, each with the number of its last one."""
        changed = [(exchange.changed, exchange) for exchange in self._kept if exchange.changed > change]
        return sorted(changed, key=lambda pair: pair[0])

    def find(self, number: int) -> Exchange | None:
        """Return an exchange by its number, if it is still kept."""
        return next((exchange for exchange in self._kept if exchange.number == number), None)

    def _let_go(self) -> None:
        self._bytes -= self._kept.popleft().size

    def _change(self, exchange: Exchange) -> None:
        self._changes += 1
        exchange.changed = self._changes
        for watcher in self.watchers:
            watcher.set()
