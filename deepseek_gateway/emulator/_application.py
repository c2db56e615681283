"""The ASGI application of one emulator: a request is for the page, a control, or one that is recorded."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from deepseek_gateway._server import Connection
from deepseek_gateway.emulator._control import Control
from deepseek_gateway.emulator._gateway import Gateway
from deepseek_gateway.emulator._page import Page, Row
from deepseek_gateway.emulator._record import Record
from deepseek_gateway.emulator._routes import locate
from deepseek_gateway.emulator._wire import TEXT_TYPE, ReceivedRequest, Reply, body_reply

OWN_FAULT = (
    "The emulator itself failed to answer. This is a fault of the emulator, or of what answer_next() or answer_with() "
    "was given, not of DeepSeek or Cloudflare."
)


class Application:
    """The application; `crashes` are the exceptions of the emulator itself."""

    def __init__(
        self,
        gateway: Gateway,
        page: Page,
        control: Control,
        record: Record,
        on_exchange: Callable[[Row], object] | None,
    ) -> None:
        self._gateway, self._page, self._control = gateway, page, control
        self._record, self._on_exchange = record, on_exchange
        self.requests: list[ReceivedRequest] = []
        self.crashes: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, for as long as the client waits for the response."""
        # Responses under way are cancelled when the emulator stops, which is not an error.
        with suppress(ClientDisconnect, asyncio.CancelledError):
            request = Request(scope, receive)
            if response := self._page.answer(request) or await self._control.answer(request):
                await response(scope, receive, send)
                return
            received = ReceivedRequest(
                method=request.method,
                path=scope["path"],
                route=locate(scope["path"]).route,
                query=scope["query_string"].decode("latin-1"),
                headers=request.headers,
                body=await request.body(),
            )
            self.requests.append(received)
            exchange = self._record.begin(received)
            recording = self._record.recording(exchange, send)
            answering = asyncio.ensure_future(self._answer(received, recording, request.state.connection))
            leaving = asyncio.ensure_future(_disconnect(receive))
            try:
                await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    answering.result()
            finally:
                answering.cancel()
                leaving.cancel()
                self._record.end(exchange)
                if self._on_exchange is not None:
                    self._on_exchange(self._page.row(exchange))

    async def _answer(self, received: ReceivedRequest, send: Send, connection: Connection) -> None:
        """Answer, and label a failure of the emulator itself, so that nobody takes it for DeepSeek's error."""
        try:
            reply = await self._gateway.answer(received)
        except Exception as error:  # noqa: BLE001 - raised when the emulator stops
            self.crashes.append(error)
            text = f"{OWN_FAULT} {error!r}\n".encode(errors="replace")
            reply = body_reply(500, text, TEXT_TYPE).with_headers(("x-emulator-fault", "1"))
        try:
            await _deliver(reply, send, connection, self._gateway.pace)
        except Exception as error:  # noqa: BLE001 - raised when the emulator stops
            self.crashes.append(error)
            connection.end()
            await asyncio.sleep(math.inf)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _deliver(reply: Reply, send: Send, connection: Connection, pace: float) -> None:
    """Send the reply as its delivery says; where the reply breaks off, wait to be cancelled."""
    delivery = reply.delivery
    if delivery.reset:
        connection.end(reset=True)
        await asyncio.sleep(math.inf)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
    if not reply.streamed and delivery.intact:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    left = delivery.stall_after if delivery.cut_after is None else delivery.cut_after
    for chunk, pause in _pieces(reply, pace):
        piece = chunk[:left]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        if left is not None and not (left := left - len(piece)):
            break
        await asyncio.sleep(pause)
    if left is None or delivery.clean:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if delivery.cut_after is not None:
        connection.end()
    await asyncio.sleep(math.inf)


def _pieces(reply: Reply, pace: float) -> Iterator[tuple[bytes, float]]:
    """Yield chunks and filler (DeepSeek docs: quick_start/rate_limit), each with the seconds to wait after it."""
    filler, count = b": keep-alive\n\n" if reply.streamed else b"\n", reply.delivery.keep_alive
    for _ in range(count):
        yield filler, reply.delivery.latency / count
    for index, chunk in enumerate(reply.chunks):
        if count and index and reply.streamed:
            yield filler, 0.0
        yield chunk, pace if index < len(reply.chunks) - 1 else 0.0
