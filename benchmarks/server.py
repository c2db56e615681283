"""The server: loopback ports in a separate process. They answer at once and count connections.

Run as `python -m benchmarks.server '["CERTIFICATE", CORE]'`. It prints its ports as JSON and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import ssl
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUND_TRIP = 0.05
"""Seconds of delay for data sent to the distant port."""

CHUNKS = 200
"""Number of events in a stream before the last event."""

PACE = 60
"""Events per second of a paced stream, about the pace of DeepSeek."""

PIECES = {"paced": 1, "proxied": 6}
"""How many events of a paced stream arrive together, by the caller. A proxy may collect those of 0.1 s."""

_COMMON = {"id": "930c60df-bf64-41c9-a88e-3ec75f81e00e", "created": 1790000000, "model": "deepseek-flash"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 12}
_TEXT = "A content delivery network, and rather more than that. " * 7


def _completion() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({**_COMMON, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()


def _events() -> list[bytes]:
    """Make a stream with one event in each HTTP chunk, without the final empty chunk."""
    common = {**_COMMON, "system_fingerprint": "fp_a1b2c3d4e5_prod", "object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": f" word{number}"} for number in range(1, CHUNKS))]
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    events = [*({**common, "choices": [choice]} for choice in choices), {**common, "choices": [last], "usage": _USAGE}]
    framed = [b"data: %s\n\n" % text.encode() for text in (*map(json.dumps, events), "[DONE]")]
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in framed]


def _pieces(size: int) -> list[bytes]:
    """Say what is written at the time of each event, if so many arrive together: nothing, or all of them."""
    starts = range(0, len(_EVENTS), size)
    return [piece for start in starts for piece in [*[b""] * (size - 1), b"".join(_EVENTS[start : start + size])]]


_HEAD = b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncf-aig-log-id: 01HV7XLOG\r\ncf-aig-step: 0\r\n"
_JSON_HEAD = _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
_COMPLETION = _JSON_HEAD % len(_completion()) + _completion()
_EVENTS, _END = _events(), b"0\r\n\r\n"
_STREAM_HEAD = _HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STREAM = _STREAM_HEAD + b"".join(_EVENTS)
_PACED = {caller: _pieces(size) for caller, size in PIECES.items()}


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": ?true')


class Pacer:
    """Writes the events of all paced streams. One timer for all of them takes less CPU than the clients do."""

    PHASES = 8  # not all streams get their events at the same moment

    def __init__(self) -> None:
        """Begin without streams."""
        self._phases: list[list[tuple[Any, Iterator[bytes]]]] = [[] for _ in range(self.PHASES)]
        self._next = itertools.cycle(self._phases)

    def add(self, transport: Any, caller: str) -> None:
        """Begin a stream."""
        next(self._next).append((transport, iter(_PACED[caller])))

    async def run(self) -> None:
        """Write each event at its time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in itertools.count():
            await asyncio.sleep(began + number / (PACE * self.PHASES) - loop.time())
            streams = self._phases[number % self.PHASES]
            for stream in list(streams):
                transport, pieces = stream
                if (piece := next(pieces, None)) is None or transport.is_closing():
                    streams.remove(stream)
                    piece = _END
                transport.write(piece)


class Connection(asyncio.Protocol):
    """One connection of one caller. The first segment of the path names the caller."""

    def __init__(self, connections: Counter[str], pacer: Pacer) -> None:
        """Share the counter and the pacer among all connections."""
        self._connections, self._pacer = connections, pacer
        self._counted = False
        self._received = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for responses."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request as soon as it is complete."""
        self._received += data
        while end := self._end_of_request():
            request = bytes(self._received[:end])
            del self._received[:end]
            self._answer(request)

    def _end_of_request(self) -> int:
        """Return the length of the first request, or 0 while it is incomplete."""
        end = body = self._received.find(b"\r\n\r\n") + 4
        if body < 4:  # noqa: PLR2004  # not found
            return 0
        if length := _LENGTH.search(self._received, 0, body):
            end += int(length.group(1))
        elif b"chunked" in self._received[:body].lower():
            end = self._received.find(_END, body) + len(_END)
        return end if body <= end <= len(self._received) else 0

    def _answer(self, request: bytes) -> None:
        _, caller, *rest = request.split(b" ", 2)[1].decode().split("/")
        if caller == "connections":
            count = b"%d" % self._connections[rest[0]]
            self._transport.write(_JSON_HEAD % len(count) + count)
            return
        self._connections[caller] += not self._counted
        self._counted = True
        if caller in _PACED:
            self._transport.write(_STREAM_HEAD)
            self._pacer.add(self._transport, caller)
            return
        self._transport.write(_STREAM if _STREAMED.search(request) else _COMPLETION)
        if _STREAMED.search(request):  # the end of the body follows a moment later, as over a network
            asyncio.get_running_loop().call_later(0.001, self._transport.write, _END)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(1 << 16):
            loop.call_later(delay, writer.write, data)
    except ConnectionError:
        pass  # the peer has disconnected
    loop.call_later(delay, writer.close)


async def _serve(certificate: str) -> None:
    loop, connections, pacer = asyncio.get_running_loop(), Counter[str](), Pacer()
    pacing = asyncio.create_task(pacer.run())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain = await loop.create_server(lambda: Connection(connections, pacer), "127.0.0.1", 0)
    tls = await loop.create_server(lambda: Connection(connections, pacer), "127.0.0.1", 0, ssl=context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay bytes to the TLS port and back. Delay the caller's bytes by a round trip."""
        back, onward = await asyncio.open_connection(*tls.sockets[0].getsockname())
        await asyncio.gather(_pass_on(reader, onward, ROUND_TRIP), _pass_on(back, writer, 0))

    servers = {"plain": plain, "tls": tls, "distant": await asyncio.start_server(relay, "127.0.0.1", 0)}
    print(json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    pacing.cancel()


if __name__ == "__main__":
    CERTIFICATE, CORE = json.loads(sys.argv[1])
    if CORE is not None:
        os.sched_setaffinity(0, {CORE})
    asyncio.run(_serve(CERTIFICATE))
