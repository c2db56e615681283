"""A gateway on a raw socket that misbehaves."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import struct
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.chaos.answering import marker_in, reply_to
from tests.chaos.faults import fault_for, script

if TYPE_CHECKING:
    from pathlib import Path

_MOST_SECONDS_OF_A_STALL = 3.0


class RawServer:
    """Answers as the seed and the marker of a call say, and keeps a ledger: marker -> [fault, was it sent whole]."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.ledger: defaultdict[str, list[list[Any]]] = defaultdict(list)
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, port: int, ready: Any, until: asyncio.Event) -> None:
        """Serve on one port. Now and then, refuse connections and end those that are open."""
        chance = random.Random(self._seed)
        listener = await asyncio.start_server(self._connected, "127.0.0.1", port)
        ready.set()
        while not until.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), chance.uniform(2, 5))
            listener.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.sleep(chance.uniform(0, 0.3))
            if not until.is_set():
                listener = await asyncio.start_server(self._connected, "127.0.0.1", port)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            while request := await _read(reader):
                if await self._answer(*request, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the server ends
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request, and return whether the connection has ended."""
        marker = marker_in(body)
        attempts = self.ledger[marker]
        chance = random.Random(f"{self._seed} {marker} {len(attempts)}")
        name = fault_for(chance, marker)
        attempts.append(attempt := [name, False])
        steps, ended = script(name, chance, reply_to(path, json.loads(body))), False
        last = max((index for index, step in enumerate(steps) if isinstance(step, bytes)), default=-1)
        for index, step in enumerate(steps):
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
                attempt[1] = index == last and not reader.at_eof()  # else the client has given up
            elif isinstance(step, float):
                await asyncio.sleep(step)
            elif step == "stall":
                await asyncio.sleep(_MOST_SECONDS_OF_A_STALL)
                ended = True
            else:
                if step == "reset":
                    _reset(writer)
                ended = True
        return ended


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """Read one request: its path and body. None means that the client has closed the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    lines = [line.partition(":") for line in head.lower().split("\r\n")[1:]]
    headers = {name: value.strip() for name, _, value in lines}
    if headers.get("transfer-encoding") != "chunked":
        return head.split()[1], await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return head.split()[1], body


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _serve(server: RawServer, port: int, ready: Any) -> None:
    until = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, until.set)
    await server.serve(port, ready, until)


def main(seed: int, port: int, ledger: Path, ready: Any) -> None:
    """Serve until the process is terminated, and write the ledger."""
    server = RawServer(seed)
    asyncio.run(_serve(server, port, ready))
    ledger.write_text(json.dumps(server.ledger), "utf-8")
