"""A server on a real loopback socket. It keeps every request, and a test decides what it answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

COMPLETION: dict[str, Any] = {
    "id": "930c60df-bf64-41c9-a88e-3ec75f81e00e",
    "object": "chat.completion",
    "created": 1790000000,
    "model": "deepseek-flash",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
_CHUNK = {**COMPLETION, "object": "chat.completion.chunk"}
EVENTS = [
    {**_CHUNK, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in ("Hel", "lo.")
]


@dataclass(frozen=True)
class Received:
    """One request as it arrived. Header names are in lower case. Order and repetitions are kept."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass
class Answer:
    """One response. Bytes are sent as they are, a list as an event stream, and any other body as JSON.

    A tuple or generator of bytes is sent piece by piece, as an event stream unless the headers say otherwise.
    `ending` decides how such a response ends: "clean", "broken" (the connection is closed in the middle) or "stall"
    (nothing more comes).
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ending: str = "clean"


def completion(request: Received) -> Answer:
    """Answer a chat request as DeepSeek does, with a stream if the request asks for one."""
    return Answer(EVENTS if request.body and request.json.get("stream") else COMPLETION)


class Loopback:
    """The running server: its address, and the requests and connections so far."""

    def __init__(self, answer: Callable[[Received], Answer]) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self.open_connections = 0
        self.ended = threading.Event()
        self.url = ""

    @property
    def last(self) -> Received:
        return self.received[-1]

    def until(self, condition: Callable[[], bool], seconds: float = 2) -> bool:
        """Wait until the threads of the server have made a condition true."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.005)
        return condition()


@contextmanager
def serve(  # noqa: C901  # http.server takes classes, and they close over the arguments
    answer: Callable[[Received], Answer] = completion, *, context: ssl.SSLContext | None = None
) -> Iterator[Loopback]:
    """Serve on a free port of 127.0.0.1 until the block ends, over TLS if there is a context."""
    loopback = Loopback(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True  # otherwise a body waits 40 ms for the ACK of its headers

        def setup(self) -> None:
            loopback.connections += 1
            loopback.open_connections += 1
            super().setup()

        def finish(self) -> None:
            super().finish()
            loopback.open_connections -= 1

        def handle_any(self) -> None:
            body = self._body()
            headers = [(name.lower(), value) for name, value in self.headers.items()]
            loopback.received.append(received := Received(self.command, self.path, headers, body))
            answer = loopback.answer(received)
            kind = "application/json"
            payload = b""
            pieces = isinstance(answer.body, (tuple, Generator))
            if pieces:
                kind = "text/event-stream"
            elif isinstance(answer.body, list):
                kind = "text/event-stream"
                payload = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in answer.body)
                payload += b"data: [DONE]\n\n"
            elif isinstance(answer.body, bytes):
                payload = answer.body
            else:
                payload = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in ({"content-type": kind} | answer.headers).items():
                if value:
                    self.send_header(name, value)
            self.send_header(*("transfer-encoding", "chunked") if pieces else ("content-length", str(len(payload))))
            self.end_headers()
            if pieces:
                self._send_pieces(answer)
            else:
                self.wfile.write(payload)

        def _send_pieces(self, answer: Answer) -> None:
            for piece in answer.body:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                time.sleep(0.001)  # without the pause, two pieces may arrive as one
            if answer.ending == "clean":
                self.wfile.write(b"0\r\n\r\n")
            elif answer.ending == "stall":
                loopback.ended.wait(30)
            self.close_connection = answer.ending != "clean"

        do_GET = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815  # the names that http.server calls

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *args: object) -> None:
            """Write no access log."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            """Ignore clients that closed their connection early."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        loopback.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.001,), daemon=True)
        thread.start()
        try:
            yield loopback
        finally:
            loopback.ended.set()
            server.shutdown()
            thread.join()
