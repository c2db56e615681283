"""A server on loopback, in a thread of its own, and the only place that knows uvicorn.

The emulator and the commands `serve` and `run` share it. It knows nothing of Cloudflare or DeepSeek.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_BACKLOG = 2048
_MAX_STOP = 5.0


class Connection(H11Protocol):
    """One connection, which requests carry in their state, so that a response can end it.

    No public option of uvicorn cuts or resets a connection. `uvicorn.Server` takes tenths of a second to start and to
    stop, and logs to loggers that belong to the program around it.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {"connection": self})
        self.access_log = False
        # uvicorn lists a connection only once it is made; the server may stop before that.
        self.connections.add(self)

    def end(self, *, reset: bool = False) -> None:
        """Close the connection when everything is sent, or reset it at once."""
        if reset:
            # Closing a socket that must not linger resets its connection.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


class Server:
    """An ASGI application that is served at `url` from now on, until `stop()`.

    `on_stop` is awaited in the server's event loop, after every connection is closed.
    """

    def __init__(
        self,
        application: Callable[..., Any],
        port: int,
        *,
        name: str,
        on_stop: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._on_stop = on_stop
        options: dict[str, Any] = {"lifespan": "off", "ws": "none", "log_config": None, "proxy_headers": False}
        self._config = uvicorn.Config(application, interface="asgi3", timeout_keep_alive=600, **options)
        self._config.load()
        # Connections are accepted from here on, and served as soon as the thread runs.
        self._listening = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        # asyncio sets it only for sockets that name their protocol; without it each response waits for a delayed ACK.
        self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._loop, self._stopped = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Stop at once, and tell whether that succeeded; connections that are still open are cut."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(_MAX_STOP)
        return not self._thread.is_alive()

    def _run(self) -> None:
        with self._listening, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        loop, state, listening = self._loop, ServerState(), self._listening
        server = await loop.create_server(lambda: Connection(self._config, state), sock=listening, backlog=_BACKLOG)
        await self._stopped.wait()
        # A connection that has just been accepted is listed after one turn of the loop, and has its transport some
        # turns later, unless the server is closed first. A connection left over would warn wherever it is collected.
        with suppress(NotImplementedError):  # on Windows
            loop.remove_reader(listening)
        await asyncio.sleep(0)
        while state.connections:
            for connection in list(state.connections):
                if connection.transport:
                    connection.transport.abort()
            await asyncio.sleep(0)
        server.close()
        if self._on_stop:
            await self._on_stop()
