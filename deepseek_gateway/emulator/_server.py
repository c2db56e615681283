"""The emulator's face: a server on loopback in a thread of its own."""

import asyncio
import math
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import uvicorn
from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from deepseek_gateway.emulator._checks import VISIBLE, check_mapping, check_text, check_whole
from deepseek_gateway.emulator._deepseek import DeepSeek
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply
from deepseek_gateway.emulator._faults import Action, Fault, Shape
from deepseek_gateway.emulator._gateway import Gateway, Settings
from deepseek_gateway.emulator._page import Page, Row, to_row
from deepseek_gateway.emulator._record import Record

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from deepseek_gateway import GatewayConfig

_BACKLOG = 2048
_LAST_PORT = 65535
_LONGEST_STOP = 5.0
_OWN_FAULT = "The emulator itself failed to answer, which is its own fault: neither DeepSeek nor Cloudflare does that."
_ROUTES: Mapping[str, str] = MappingProxyType({"support": "deepseek-v4-pro"})


class Emulator:
    """A local AI Gateway with a local DeepSeek behind it, running while its `with` block does.

    All identifiers and secrets are obvious fakes unless given; the first four arguments can be read back. Many
    emulators can run at once. A browser that opens `url` sees the exchanges as they happen.

    Attributes:
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
        cache_ttl: float | None = None,
        rate_limit: tuple[int, float] | None = None,
        spend_limit: tuple[float, float] | None = None,
        guardrails: Collection[str] | None = None,
        dlp: Mapping[str, Action] | None = None,
        latency: float = 0.0,
        port: int = 0,
        on_exchange: Callable[[Row], object] | None = None,
    ) -> None:
        """Configure the gateway; it serves from `with` on.

        Args:
            account_id: The Cloudflare account that exists; another one is answered with 2001.
            gateway_id: The gateway that exists, besides `default`, which always needs the gateway token.
            api_key: The DeepSeek key that DeepSeek accepts, besides the stored ones.
            gateway_token: The Cloudflare API token.
            authenticated: Whether the gateway demands the token. Keys are stored for authenticated gateways only.
            stored_keys: DeepSeek keys stored at Cloudflare, by alias. By default `api_key` as `default`.
            dynamic_routes: Names of dynamic routes, and the DeepSeek model that each leads to. By default `support`.
            cache_ttl: Seconds for which answers are cached, of which 0 makes 300: it was seen not to prevent hits. By
                default only requests with a `cf-aig-cache-key` are cached.
            rate_limit: How many requests in how many seconds are served; more are answered with 2003.
            spend_limit: For how many USD in how many seconds requests are served; after that the answer is 2045.
            guardrails: Texts, possibly none at all, for which a prompt (2016) or a response (2017) is blocked. With
                guardrails, streams arrive as one JSON body, except on the REST API.
            dlp: Texts that data loss prevention finds in requests (2029) or responses (2030), with `BLOCK` or `FLAG`.
            latency: Seconds that DeepSeek takes until an answer begins.
            port: The port on 127.0.0.1, or 0 for any free one.
            on_exchange: Is called with each exchange that has ended, without its secrets, in the emulator's thread.

        Raises:
            TypeError: An argument is of no use because of its type, ...
            ValueError: ... or because of its value.
        """
        self.account_id = account_id
        self.gateway_id = gateway_id
        self.api_key = api_key
        self.gateway_token = gateway_token
        self.requests: list[ReceivedRequest] = []
        check_text("api_key", api_key, VISIBLE, "visible ASCII characters")
        check_whole("port", port, most=_LAST_PORT)
        keys = {"default": api_key} if stored_keys is None else check_mapping("stored_keys", stored_keys)
        settings = Settings(
            account_id=account_id,
            gateway_id=gateway_id,
            gateway_token=gateway_token,
            authenticated=authenticated,
            stored_keys=keys,
            dynamic_routes=check_mapping("dynamic_routes", dynamic_routes),
            cache_ttl=cache_ttl,
            rate_limit=rate_limit,
            spend_limit=spend_limit,
            guardrails=guardrails,
            dlp={} if dlp is None else check_mapping("dlp", dlp),
            latency=latency,
        )
        self._gateway = Gateway(settings, DeepSeek({api_key, *keys.values()}))
        self._authenticated = authenticated
        self._record = Record()
        self._secrets = frozenset({api_key, gateway_token, *keys.values()})
        self._page = Page(self._record, self._secrets, lambda: self.environ)
        self._on_exchange = on_exchange
        self._port = port
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = int
        self._blunders: list[Exception] = []
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

    @property
    def environ(self) -> dict[str, str]:
        """The variables that lead a program here, on the provider and compat routes; for `os.environ` of a child."""
        settings = {
            "DEEPSEEK_GATEWAY_ENDPOINT": f"{self.url}/v1/{self.account_id}/{self.gateway_id}",
            "CF_AIG_TOKEN": self.gateway_token,
            "DEEPSEEK_API_KEY": self.api_key,
        }
        return {name: value for name, value in settings.items() if self._authenticated or name != "CF_AIG_TOKEN"}

    def fail_next(  # noqa: PLR0913 - keyword-only, all with defaults
        self,
        code: int | str | None = None,
        *,
        status: int | None = None,
        times: int = 1,
        message: str | None = None,
        shape: Shape | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        event: int | None = None,
        unreachable: bool = False,
        reset: bool = False,
        latency: float = 0.0,
        keep_alive: int = 0,
        cut_after: int | None = None,
        clean: bool = False,
        stall_after: int | None = None,
    ) -> None:
        """Let something go wrong `times` times; failures come in the order of the calls.

        Errors of the gateway and of Cloudflare's edge, and `reset`, strike the next request, whatever it is. All
        others strike the next try to reach DeepSeek, and the gateway repeats a failed one as
        `cf-aig-max-attempts` says; a request that does not get as far leaves them for the next. So does 524, for the
        edge gives up waiting when DeepSeek has been asked, but nobody repeats it. Without an error the answer is the
        ordinary one, delivered as the last seven arguments say. To be refused a connection, stop the emulator.

        `pending` tells how many are left.

        Args:
            code: An error of the gateway (2003 rate limited, 2021 no credits, ...) with its documented status and text;
                as text it may come from an exception's `code`.
            status: The HTTP status. Without a code, DeepSeek's documented error of this status: 400, 401, 402, 422,
                429, 500 or 503; or the edge's: 403, 502, 520 or 524. 200 puts the error, of the gateway if there is a
                code, into an answer that looks like a success.
            times: How often.
            message: A text of your own.
            shape: `short`: the gateway's envelope of older captures. `policy`: a policy's object in place of the list
                (403, 429). `text`: DeepSeek's plain text (401, 422). `edge`: Cloudflare's edge, in plain text (403)
                or HTML. `problem`: the edge, in problem JSON (502, 520, 524).
            body: What DeepSeek answers, or the one whose `shape` is given, as it is; the status is 200 unless given.
            headers: Headers to set on the answer.
            event: The error is this event of a stream, 0 being the first one, and the stream ends with it. An answer
                that is no stream becomes an HTTP 200 with the error as its body.
            unreachable: DeepSeek cannot be reached; when no try is left the gateway says 2005.
            reset: The connection is reset in place of an answer.
            latency: Seconds until the answer begins, `math.inf` for never.
            keep_alive: Lines of filler, comments in a stream and blank lines before plain JSON: so many after the
                headers, which then come at once, spread over `latency`, and one between any two events.
            cut_after: The connection is closed after so many bytes of the body, ...
            clean: ... or the body ends there in due form.
            stall_after: The answer stops after so many bytes of the body while the connection stays open.

        Raises:
            TypeError: An argument is of no use because of its type, ...
            ValueError: ... because of its value, or together with the others.
        """
        check_whole("times", times, 1)
        if isinstance(code, str):
            check_text("code", code, "[0-9]{1,9}", "a whole number, or as its digits")
            code = int(code)
        fault = Fault(
            code=code,
            status=status,
            message=message,
            shape=shape,
            body=body,
            headers=headers,
            event=event,
            unreachable=unreachable,
            reset=reset,
            latency=latency,
            keep_alive=keep_alive,
            cut_after=cut_after,
            clean=clean,
            stall_after=stall_after,
        )
        self._gateway.faults.extend([fault] * times)

    @property
    def pending(self) -> int:
        """How many failures are still to come; 0 once everything that `fail_next()` was told has struck."""
        return len(self._gateway.faults)

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
        """Stop at once; connections that are still open are cut.

        Raises:
            RuntimeError: The emulator failed to answer (its cause tells why), or does not stop. When the block ended
                with an exception, that one gets a note instead.
        """
        if self._thread is None:
            return
        thread, self._thread, self._url = self._thread, None, ""
        self._stop()
        thread.join(_LONGEST_STOP)
        blunders, self._blunders = self._blunders, []
        if thread.is_alive():
            problem = f"The emulator did not stop within {_LONGEST_STOP:g} seconds; something in its thread never ends."
        elif blunders:
            problem = f"{_OWN_FAULT} It happened {len(blunders)} time(s), first: {_brief(blunders[0])}"
        else:
            return
        if error is not None:
            error.add_note(problem)
        else:
            raise RuntimeError(problem) from next(iter(blunders), None)

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
        server = await loop.create_server(lambda: _Connection(config, state), sock=listening, backlog=_BACKLOG)
        started.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
        await stopped.wait()
        # What was accepted just now is listed after one turn of the loop and has its transport some turns later, if the
        # server is not closed before. Left over, it would be warned about wherever the garbage collector finds it.
        with suppress(NotImplementedError):  # on Windows
            loop.remove_reader(listening)
        await asyncio.sleep(0)
        while state.connections:
            for connection in list(state.connections):
                if connection.transport:
                    connection.transport.abort()
            await asyncio.sleep(0)
        server.close()

    async def _answer(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Serve one request (this is the ASGI application), as long as somebody waits for the answer."""
        # When the emulator stops, what is still being answered is cancelled, which is nobody's error.
        with suppress(ClientDisconnect, asyncio.CancelledError):
            request = Request(scope, receive)
            if page := self._page.answer(request):
                await page(scope, receive, send)
                return
            received = ReceivedRequest(
                method=request.method,
                path=scope["path"],
                query=scope["query_string"].decode("latin-1"),
                headers=request.headers,
                body=await request.body(),
            )
            self.requests.append(received)
            exchange = self._record.begin(received)
            noted = self._record.noting(exchange, send)
            answering = asyncio.ensure_future(self._serve_one(received, noted, request.state.connection))
            gone = asyncio.ensure_future(_gone(receive))
            try:
                await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
                if answering.done():
                    answering.result()
            finally:
                answering.cancel()
                gone.cancel()
                self._record.end(exchange)
                if self._on_exchange is not None:
                    self._on_exchange(to_row(exchange, self._secrets))

    async def _serve_one(self, received: ReceivedRequest, send: "Send", connection: "_Connection") -> None:
        """Answer; what goes wrong in the emulator itself is called that, or it would be taken for DeepSeek's error."""
        try:
            try:
                reply = await self._gateway.answer(received)
            except Exception as error:  # noqa: BLE001 - raised where the emulator stops
                self._blunders.append(error)
                text = f"{_OWN_FAULT} {_brief(error)}\n".encode(errors="replace")
                headers = (("content-type", "text/plain; charset=UTF-8"), ("x-emulator-fault", "1"))
                reply = Reply(status=500, headers=headers, chunks=(text,))
            await _deliver(reply, send, connection)
        except Exception as error:  # noqa: BLE001 - likewise
            self._blunders.append(error)
            connection.end()
            await asyncio.sleep(math.inf)


class _Connection(H11Protocol):
    """uvicorn's protocol without the access log, which would go to the loggers of whoever embeds the emulator.

    Requests carry it in their state, so that an answer can end the connection. It is listed among the connections from
    the beginning, not only when it is made, so that none is overlooked when the emulator stops.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config, state, {"connection": self})
        self.access_log = False
        self.connections.add(self)

    def end(self, *, reset: bool = False) -> None:
        """Close the connection when all is sent, or reset it at once."""
        if reset:
            # To close a socket that must not linger is to reset its connection.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()


async def _deliver(reply: Reply, send: "Send", connection: "_Connection") -> None:
    """Send the reply in the way that it prescribes; where it breaks off, wait to be cancelled."""
    delivery = reply.delivery
    if delivery.reset:
        connection.end(reset=True)
        await asyncio.sleep(math.inf)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
    if not reply.streamed and delivery.intact:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    left = delivery.stall_after if delivery.cut_after is None else delivery.cut_after
    for chunk, pause in _pieces(reply):
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


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _gone(receive: "Receive") -> None:
    """Wait for the client to go away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _pieces(reply: Reply) -> Iterator[tuple[bytes, float]]:
    """Yield chunk by chunk, so that a stream travels as one, each with the seconds to wait after it.

    While DeepSeek is busy, comments come in a stream, and blank lines before plain JSON (DeepSeek docs:
    quick_start/rate_limit).
    """
    filler, count = b": keep-alive\n\n" if reply.streamed else b"\n", reply.delivery.keep_alive
    for _ in range(count):
        yield filler, reply.delivery.latency / count
    for index, chunk in enumerate(reply.chunks):
        if count and index and reply.streamed:
            yield filler, 0.0
        yield chunk, 0.0
