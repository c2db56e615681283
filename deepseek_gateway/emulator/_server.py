"""The emulator's face: a server on loopback in a thread of its own."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from deepseek_gateway.emulator._deepseek import DeepSeek
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply
from deepseek_gateway.emulator._gateway import Gateway, Settings

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from deepseek_gateway import GatewayConfig

_BACKLOG = 2048
_ROUTES: Mapping[str, str] = MappingProxyType({"support": "deepseek-v4-pro"})


class Emulator:
    """A local AI Gateway with a local DeepSeek behind it, running while its `with` block does.

    All identifiers and secrets are obvious fakes unless given. Many emulators can run at once.

    Attributes:
        account_id: The Cloudflare account that exists; another one is answered with 2001.
        gateway_id: The gateway that exists, besides `default`, which always needs the gateway token.
        api_key: The DeepSeek key that DeepSeek accepts, and what is stored at Cloudflare unless `stored_keys` says
            otherwise. Stored keys are accepted too.
        gateway_token: The Cloudflare API token.
        requests: What was received so far, oldest first; `requests.clear()` starts afresh.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings, all with defaults
        self,
        *,
        account_id: str = "e" * 32,
        gateway_id: str = "emulator-gateway",
        api_key: str = "emulator-deepseek-key",
        gateway_token: str = "emulator-gateway-token",  # noqa: S107 - a fake, and meant to look like one
        authenticated: bool = True,
        stored_keys: Mapping[str, str] | None = None,
        dynamic_routes: Mapping[str, str] = _ROUTES,
        port: int = 0,
    ) -> None:
        """Configure the gateway; it serves from `with` on.

        Args:
            account_id: See the class.
            gateway_id: See the class.
            api_key: See the class.
            gateway_token: See the class.
            authenticated: Whether the gateway demands the token. Keys are stored for authenticated gateways only.
            stored_keys: DeepSeek keys stored at Cloudflare, by alias. By default `api_key` as `default`.
            dynamic_routes: Names of dynamic routes, and the DeepSeek model that each leads to. By default `support`.
            port: The port on 127.0.0.1, or 0 for any free one.
        """
        self.account_id = account_id
        self.gateway_id = gateway_id
        self.api_key = api_key
        self.gateway_token = gateway_token
        self.requests: list[ReceivedRequest] = []
        keys = {"default": api_key} if stored_keys is None else dict(stored_keys)
        settings = Settings(
            account_id=account_id,
            gateway_id=gateway_id,
            gateway_token=gateway_token,
            authenticated=authenticated,
            stored_keys=keys,
            dynamic_routes=dict(dynamic_routes),
        )
        self._gateway = Gateway(settings, DeepSeek({api_key, *keys.values()}))
        self._port = port
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = int
        self._url = ""

    @property
    def url(self) -> str:
        """Where the emulator listens, such as `http://127.0.0.1:49152`, without a path."""
        if not self._url:
            raise RuntimeError("The emulator is not running; use it in a `with` block.")
        return self._url

    def config(self, route: Literal["provider", "compat", "rest"] = "provider", **overrides: Any) -> "GatewayConfig":
        """Return the settings that reach this emulator, for `create_client()`.

        `overrides` are fields of `GatewayConfig`: `api_key=None` uses the stored key, `gateway_token=None` sends no
        token, another `gateway_id` or `account_id` also changes the URL.
        """
        from deepseek_gateway import GatewayConfig  # noqa: PLC0415 - the emulator works without the client side

        named = {"account_id": self.account_id, "gateway_id": self.gateway_id} | overrides
        account, gateway = named["account_id"], named["gateway_id"]
        path = f"client/v4/accounts/{account}/ai" if route == "rest" else f"v1/{account}/{gateway}"
        credentials = {"api_key": self.api_key, "gateway_token": self.gateway_token}
        return GatewayConfig(route=route, **{"endpoint": f"{self.url}/{path}", **credentials, **named})

    def fail_next(
        self,
        code: int | None = None,
        *,
        status: int | None = None,
        message: str | None = None,
        times: int = 1,
    ) -> None:
        """Let the next `times` requests fail, in the order of the calls.

        Args:
            code: The gateway answers with this code (2003 rate limited, 2021 no credits, ...) and its documented
                status and text, whatever the request.
            status: Without a code, DeepSeek answers with its documented error of this status: 400, 401, 402, 422, 429,
                500 or 503. Requests that do not get as far leave it for the next. With a code, the status to use.
            message: A text of your own.
            times: How many requests fail so.
        """
        self._gateway.fail_next(code, status, message, times)

    def __enter__(self) -> Self:
        """Start serving; on return the port accepts connections."""
        if self._thread is not None:
            raise RuntimeError("The emulator is running already.")
        listening = socket.create_server(("127.0.0.1", self._port), backlog=_BACKLOG)
        # asyncio sets it only for sockets that name their protocol; without it each answer waits for a delayed ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listening.getsockname()[1]
        started: Future[Callable[[], object]] = Future()
        thread = threading.Thread(
            target=self._run, args=(listening, started), name="deepseek-gateway-emulator", daemon=True
        )
        thread.start()
        try:
            self._stop = started.result()
        except BaseException:
            thread.join()
            raise
        self._thread, self._url = thread, f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once; connections that are still open are cut."""
        if self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread, self._url = None, ""

    async def __aenter__(self) -> Self:
        """Start serving, as `with` does: the server has a thread and an event loop of its own."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop at once, as `with` does."""
        self.__exit__(kind, error, traceback)

    def _run(self, listening: socket.socket, started: "Future[Callable[[], object]]") -> None:
        try:
            with listening:
                asyncio.run(self._serve(listening, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, listening: socket.socket, started: "Future[Callable[[], object]]") -> None:
        """Serve until told to stop.

        `uvicorn.Server` would add ticks of a tenth of a second to starting and stopping, signal handlers, and lines on
        loggers that belong to whoever embeds the emulator; its protocol is all that is needed.
        """
        loop, stopped, state = asyncio.get_running_loop(), asyncio.Event(), ServerState()
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_keep_alive=600,
        )
        config.load()
        server = await loop.create_server(lambda: _Connection(config, state, {}), sock=listening, backlog=_BACKLOG)
        started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request (this is the ASGI application)."""
        # When the emulator stops, what is still being answered is cancelled, which is nobody's error.
        with suppress(ClientDisconnect, asyncio.CancelledError):
            request = Request(scope, receive)
            received, reply = self._gateway.answer(
                ReceivedRequest(
                    method=request.method,
                    path=scope["path"],
                    query=scope["query_string"].decode("latin-1"),
                    headers=request.headers,
                    body=await request.body(),
                )
            )
            self.requests.append(received)
            await _response(reply)(scope, receive, send)


class _Connection(H11Protocol):
    """uvicorn's protocol without the access log, which would go to the loggers of whoever embeds the emulator."""

    def __init__(self, config: uvicorn.Config, state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, state, app_state)
        self.access_log = False


def _response(reply: Reply) -> Response:
    response = StreamingResponse(_each(reply)) if reply.streamed else Response(b"".join(reply.chunks))
    response.status_code = reply.status
    own = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
    response.raw_headers = [*response.raw_headers, *own]
    return response


async def _each(reply: Reply) -> AsyncIterator[bytes]:
    """Yield chunk by chunk, so that a stream travels as one."""
    for chunk in reply.chunks:
        yield chunk
        await asyncio.sleep(0)
