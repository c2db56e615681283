"""The ASGI application behind `serve` and `run`: it passes requests in OpenAI's API to the HTTP client of the seam.

It adds nothing to a request and retries nothing. The seam adds credentials, translates bodies and explains errors, and
the program's own SDK retries.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from io import BytesIO
from secrets import token_urlsafe
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

import openai

from deepseek_gateway._calls import record_calls
from deepseek_gateway._client import create_async_http_client
from deepseek_gateway._request import user_agent
from deepseek_gateway._server import Server
from deepseek_gateway._settings import DEEPSEEK_ONLY, DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping

    import httpx2 as httpx

    from deepseek_gateway._calls import GatewayCall
    from deepseek_gateway._config import GatewayConfig
else:
    from deepseek_gateway._connections import httpx

Header: TypeAlias = tuple[bytes, bytes]
Scope: TypeAlias = "Mapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Mapping[str, Any]]]"
Send: TypeAlias = "Callable[[dict[str, Any]], Awaitable[None]]"

# A foreign name that resolves to 127.0.0.1 would let a web page reach the forwarder as its own origin.
_LOOPBACK = re.compile(rb"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.IGNORECASE)
_SENT_ON = re.compile(rb"content-type|accept|cf-aig-.+")
# Connection by connection (RFC 9110), made anew by this server, or a matter between Cloudflare and a browser.
_KEPT_BACK = re.compile(
    rb"connection|keep-alive|proxy-.+|te|trailer|transfer-encoding|upgrade|content-length|content-encoding"
    rb"|set-cookie|strict-transport-security|alt-svc|location|access-control-.+"
)
# The seam reads a stream no further than its [DONE], and some programs need the blank line after it.
_OPEN_END, _LONGEST_END = re.compile(rb"\[DONE\]\r?\n?\Z"), len(b"[DONE]\r\n")
_REDIRECTS = range(300, 400)
_JSON = [(b"content-type", b"application/json")]
# The program's own timeout decides how long to wait: when it hangs up, the upstream connection is closed.
_TIMEOUT = httpx.Timeout(None, connect=30.0)
# compat documents no list of models, and rest answers 405 (observed). This one is DeepSeek's (DeepSeek docs:
# api/list-models).
_NO_MODELS = {400, 404, 405}
_MODELS = (DEFAULT_MODEL, "deepseek-v4-pro")


@dataclass(slots=True, kw_only=True)
class Line:
    """What one request came to, for the log."""

    began: float = field(default_factory=time)
    method: str
    path: str
    status: int | None = None
    ending: str = ""
    """`cut off` upstream, or `hung up` by the program. Otherwise the response is whole."""
    call: GatewayCall | None = None
    seconds: float = 0.0


class Refusal(Exception):  # noqa: N818  # it is an answer
    """A request that the forwarder answers itself, with an error in OpenAI's form."""

    def __init__(self, status: int, message: str, code: str, kind: str = "invalid_request_error") -> None:
        """Write the error."""
        super().__init__(message)
        self.status = status
        error = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
        self.body: bytes = error.encode()
        # A retry helps only where the network was at fault.
        self.headers: list[Header] = [*_JSON, *([] if kind == "connection_error" else [(b"x-should-retry", b"false")])]


def check(headers: Iterable[Header], key: bytes) -> None:
    """Let only callers pass that know the key and mean this machine, or raise a `Refusal`."""
    given = dict(headers)
    if not _LOOPBACK.fullmatch(given.get(b"host", b"")):
        raise Refusal(421, "This forwarder answers only to 127.0.0.1 and localhost.", "foreign_host")
    scheme, _, credential = given.get(b"authorization", b"").partition(b" ")
    if not (scheme.lower() == b"bearer" and compare_digest(credential.strip(), key)):
        wanted = "Send the OPENAI_API_KEY that deepseek-gateway printed or set. Each run has a new one."
        raise Refusal(401, f"The key is not that of this forwarder. {wanted}", "invalid_api_key")


def upstream_path(raw_path: bytes, path: str) -> str:
    """Give the path below the base URL. `/v1` may be missing, as in some programs' `OPENAI_API_BASE`."""
    if ".." in re.split(r"[/\\]", path):
        raise Refusal(404, "The path leads out of the API.", "not_found")
    return re.sub(r"^/v1(?=/|$)", "", raw_path.decode("ascii"))


def sent_on(headers: Iterable[Header]) -> list[Header]:
    """Give the headers of the program that go on."""
    return [(name, value) for name, value in headers if _SENT_ON.fullmatch(name)]


def given_back(headers: Iterable[Header]) -> list[Header]:
    """Give the headers of a response that go back. The body goes back decoded and in chunks."""
    lowered = ((name.lower(), value) for name, value in headers)
    return [(name, value) for name, value in lowered if not _KEPT_BACK.fullmatch(name)]


def models(model: str | None) -> bytes:
    """List the models where the gateway has no list."""
    names = dict.fromkeys(filter(None, (model, *_MODELS)))
    listed = [{"id": name, "object": "model", "created": 0, "owned_by": "deepseek"} for name in names]
    return json.dumps({"object": "list", "data": listed}).encode()


def unreachable(error: Exception, base_url: str) -> Refusal:
    """Say that no response came, and why."""
    root: BaseException = error  # the HTTP library says only that all attempts failed
    while root.__cause__:
        root = root.__cause__
    message = f"{urlsplit(base_url).netloc} could not be reached: {str(root) or type(error).__name__}"
    return Refusal(502, message, "upstream_unreachable", "connection_error")


@contextmanager
def forwarding(config: GatewayConfig, on_line: Callable[[Line], object], port: int = 0) -> Generator[dict[str, str]]:
    """Serve while the block runs. Give the variables that lead an OpenAI program here.

    Some programs check that a key begins as those of OpenAI do.
    """
    key = f"sk-local-{token_urlsafe(32)}"
    forwarder = Forwarder(config, key, on_line)
    server = Server(forwarder, port, name="deepseek-gateway-forwarder", on_stop=forwarder.close)
    try:
        url = f"{server.url}/v1"
        yield {"OPENAI_BASE_URL": url, "OPENAI_API_BASE": url, "OPENAI_API_KEY": key}
    finally:
        server.stop()


class Forwarder:
    """The application. It tells `on_line` what each request came to."""

    def __init__(self, config: GatewayConfig, key: str, on_line: Callable[[Line], object]) -> None:
        """Serve only callers that give the key."""
        self._config, self._key, self._on_line = config, key.encode(), on_line
        self._client: Any = create_async_http_client(config)
        # Cloudflare's browser check refuses requests without a user agent.
        self._own = [(b"authorization", f"Bearer {config.client_key}".encode()), (b"user-agent", user_agent())]

    async def close(self) -> None:
        """Close the connections to the gateway."""
        await self._client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, for as long as the program waits for the response."""
        line = Line(method=scope["method"], path=scope["path"])
        began = perf_counter()
        with record_calls() as calls, suppress(asyncio.CancelledError):  # cancelled when the server stops
            try:
                await self._answer(scope, receive, send, line)
            except Refusal as refusal:
                line.status = refusal.status
                await _reply(send, refusal.status, refusal.headers, refusal.body)
            finally:
                line.call = calls[-1] if calls else None
                line.seconds = perf_counter() - began
                self._on_line(line)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, line: Line) -> None:
        check(scope["headers"], self._key)
        line.path = upstream_path(scope["raw_path"], scope["path"])
        url = httpx.URL(self._config.base_url + line.path, query=scope["query_string"] or None)
        body = await _body(receive)
        if body is None:
            line.ending = "hung up"
            return
        headers = [*sent_on(scope["headers"]), *self._own]
        request = self._client.build_request(line.method, url, headers=headers, content=body, timeout=_TIMEOUT)
        del body
        forwarding = asyncio.ensure_future(self._forward(request, send, line, scope["state"]["connection"]))
        leaving = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((forwarding, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                line.ending = line.ending or "hung up"
                forwarding.cancel()
            await forwarding
            if line.ending:  # uvicorn complains of a response without an end, unless the connection is closed
                await leaving
        finally:
            forwarding.cancel()
            leaving.cancel()

    def _lacks_models(self, line: Line) -> bool:
        asked = (line.method, line.path) == ("GET", "/models") and self._config.route not in DEEPSEEK_ONLY
        return asked and line.status in _NO_MODELS

    async def _forward(self, request: Any, send: Send, line: Line, connection: Any) -> None:
        """Send a request and pass its response on. The response is closed when the program hangs up."""
        try:
            response = await self._client.send(request, stream=True)
        except (httpx.RequestError, openai.APIConnectionError) as error:
            raise unreachable(error, self._config.base_url) from None
        try:
            line.status = status = response.status_code
            if self._lacks_models(line):
                line.status = 200
                await _reply(send, 200, _JSON, models(self._config.model))
                return
            if status in _REDIRECTS:  # the seam has explained a redirect, which nobody should follow
                line.status = status = 502
            await _start(send, status, given_back(response.headers.raw))
            end = b""
            async for chunk in response.aiter_bytes():
                await _send(send, chunk)
                end = (end + chunk)[-_LONGEST_END:]
            await response.aclose()  # before the program has the end, because it may leave at once
            await _send(send, b"\n\n" if _OPEN_END.search(end) else b"", more=False)
        except (httpx.RequestError, httpx.StreamError, openai.APIConnectionError):
            line.ending = "cut off"
            connection.end()
        finally:
            await response.aclose()


async def _body(receive: Receive) -> bytes | None:
    """Read a body, or give None if the program hangs up before its end."""
    body = BytesIO()  # its getvalue() gives the buffer away, where joining chunks would copy it
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body.write(message.get("body", b""))
        if not message.get("more_body"):
            return body.getvalue()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, headers: list[Header]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _reply(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    await _start(send, status, [*headers, (b"content-length", str(len(body)).encode())])
    await _send(send, body, more=False)
