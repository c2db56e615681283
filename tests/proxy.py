"""An HTTP proxy on a real loopback socket. It forwards plain requests, opens tunnels and keeps each request line."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_proxy() -> Iterator[tuple[str, list[str]]]:
    """Run the proxy until the block ends. Return its URL and the list of request lines."""
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve_one(client: socket.socket) -> None:
        with client:
            head = client.recv(65536)
            line = head.split(b"\r\n", 1)[0].decode()
            seen.append(line)
            method, target, _ = line.split(" ")
            host = target if method == "CONNECT" else target.removeprefix("http://").partition("/")[0]
            name, _, port = host.partition(":")
            with socket.create_connection((name, int(port))) as upstream:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    upstream.sendall(head)
                while not stopped.is_set():
                    for ready in select.select([client, upstream], [], [], 0.02)[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (upstream if ready is client else client).sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve_one, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    finally:
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(2)
