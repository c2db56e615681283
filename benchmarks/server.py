"""The service that is called: loopback ports in a process of its own, which answer at once and count connections.

Run as `python -m benchmarks.server '["CERTIFICATE", CORE]'`; it prints its ports as JSON and ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
from collections import Counter
from typing import Any

ROUND_TRIP = 0.05
"""Seconds by which what is sent to the distant port is late."""

CHUNKS = 200
"""Events of a streamed answer before its last one."""

_COMMON = {"id": "930c60df-bf64-41c9-a88e-3ec75f81e00e", "created": 1790000000, "model": "deepseek-flash"}
_USAGE = {"prompt_tokens": 12, "completion_tokens": CHUNKS, "total_tokens": CHUNKS + 12}
_TEXT = "A content delivery network, and rather more than that. " * 7


def _completion() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": _TEXT}, "logprobs": None, "finish_reason": "stop"}
    return json.dumps({**_COMMON, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()


def _events() -> bytes:
    """Give a streamed answer in HTTP chunks of one event each, but for the mark that ends the body."""
    common = {**_COMMON, "system_fingerprint": "fp_a1b2c3d4e5_prod", "object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": f" word{number}"} for number in range(1, CHUNKS))]
    choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas]
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    events = [*({**common, "choices": [choice]} for choice in choices), {**common, "choices": [last], "usage": _USAGE}]
    told = [b"data: %s\n\n" % text.encode() for text in (*map(json.dumps, events), "[DONE]")]
    return b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in told)


_HEAD = b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\ncf-aig-log-id: 01HV7XLOG\r\ncf-aig-step: 0\r\n"
_JSON_HEAD = _HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
_COMPLETION = _JSON_HEAD % len(_completion()) + _completion()
_STREAM = _HEAD + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + _events()
_END = b"0\r\n\r\n"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED = re.compile(rb'"stream": ?true')


class Answering(asyncio.Protocol):
    """One connection of one caller, who is known by the first segment of the path; over TLS, shaken hands on."""

    def __init__(self, connections: Counter[str]) -> None:
        """Take the count that all connections share."""
        self._connections = connections
        self._counted = False
        self._received = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request as soon as it is there whole."""
        self._received += data
        while end := self._end_of_request():
            request = bytes(self._received[:end])
            del self._received[:end]
            self._answer(request)

    def _end_of_request(self) -> int:
        """Give the length of the first request, 0 while it is not there whole."""
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
            told = b"%d" % self._connections[rest[0]]
            self._transport.write(_JSON_HEAD % len(told) + told)
            return
        self._connections[caller] += not self._counted
        self._counted = True
        self._transport.write(_STREAM if _STREAMED.search(request) else _COMPLETION)
        if _STREAMED.search(request):  # its end comes a moment after the last event, as it does from afar
            asyncio.get_running_loop().call_later(0.001, self._transport.write, _END)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(1 << 16):
            loop.call_later(delay, writer.write, data)
    except ConnectionError:
        pass  # the other side is gone
    loop.call_later(delay, writer.close)


async def _serve(certificate: str) -> None:
    loop, connections = asyncio.get_running_loop(), Counter[str]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    plain = await loop.create_server(lambda: Answering(connections), "127.0.0.1", 0)
    tls = await loop.create_server(lambda: Answering(connections), "127.0.0.1", 0, ssl=context)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes to the TLS port and back, those of the caller a round trip late."""
        back, onward = await asyncio.open_connection(*tls.sockets[0].getsockname())
        await asyncio.gather(_pass_on(reader, onward, ROUND_TRIP), _pass_on(back, writer, 0))

    servers = {"plain": plain, "tls": tls, "distant": await asyncio.start_server(relay, "127.0.0.1", 0)}
    print(json.dumps({name: server.sockets[0].getsockname()[1] for name, server in servers.items()}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    CERTIFICATE, CORE = json.loads(sys.argv[1])
    if CORE is not None:
        os.sched_setaffinity(0, {CORE})
    asyncio.run(_serve(CERTIFICATE))
