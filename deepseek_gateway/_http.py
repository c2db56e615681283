"""The seam: the two HTTP clients that a stock OpenAI client is given, and all the I/O there is.

Each overrides the one public method through which every HTTP request of the SDK goes, `send()`; its WebSockets do not.
What is decided there is decided by the pure functions of `_request` and `_response`, the same for both flavours.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import openai
from anyio import move_on_after

from ._calls import logger, watch
from ._codes import deepseek_remedy
from ._connections import connecting, keep_alive
from ._events import as_events
from ._request import (
    Destination,
    Outgoing,
    Recalled,
    RefusedRequestError,
    ambient_headers,
    asks_to_stream,
    redact,
    sent_with,
    to_elsewhere,
    to_gateway,
)
from ._response import (
    Fault,
    explain,
    final,
    hidden_fault,
    may_hold_a_fault,
    not_a_stream,
    redirect_refused,
    request_id,
)
from ._stream import StreamCheck

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping

    import httpx2 as httpx

    from ._calls import Watch
    from ._codes import RequestFacts
    from ._config import GatewayConfig

    _AsyncClient = httpx.AsyncClient
else:
    from ._connections import httpx

    _AsyncClient = object

# How long, and for how much, to wait for the end of a body whose last event has come: it is on its way already.
_DRAIN_SECONDS, _DRAIN_BYTES = 0.1, 16_384
# Credentials are in the headers; httpx 0.23 would look for others in ~/.netrc, and hide a stored key by them.
_HEADERS_ALONE = httpx.Auth()
_EVENT_STREAM = "text/event-stream"
_STREAMED_PATHS = ("/completions", "/responses")
# What describes the bytes of a body and not the answer; a body of ours has its own.
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"})


class _Seam:
    """What both flavours keep, and the rules around a call that need no I/O."""

    _transport_class: Any = None

    def __init__(self, config: GatewayConfig, explicit_headers: Mapping[str, Any], **http_options: Any) -> None:
        # The SDK follows redirects by default and would take cf-aig-authorization along to any host.
        http_options.setdefault("follow_redirects", False)
        options = connecting(http_options, self._transport_class)
        super().__init__(**options)
        client: Any = self
        given = httpx.Headers(http_options.get("headers"))
        # The SDK sends its own of the first two, and to replace these takes 7 us a call; HTTP/1.1 keeps alive unasked.
        for name in ("accept", "user-agent", "connection"):
            if name not in given:
                del client.headers[name]
        self._auth_unasked = {} if http_options.get("auth") else {"auth": _HEADERS_ALONE}
        self._proxied = bool(options.get("mounts"))
        self._destination = Destination.of(config, httpx.URL(config.base_url))
        self._explicit = dict(explicit_headers)
        self._ambient = ambient_headers(os.environ, self._explicit)
        self._recalled: Recalled | None = None

    def _outgoing(self, request: httpx.Request, *, covered: bool) -> tuple[httpx.Request, Outgoing] | httpx.Response:
        """Give the request to send, or the answer to one that must not be sent; blank out the SDK's own headers.

        What is sent is the SDK's own request with other headers for that time, or one with another body as well.
        """
        told, known = request.headers, self._recalled
        headers = known.headers_for(request) if covered and known else None
        try:
            if headers is not None and known:
                sent = to_gateway(request, self._destination, self._ambient, headers)
                redact(told, known.credentials)
            else:
                # with_options() makes the SDK read the environment anew, so what is there now counts as well.
                ambient = self._ambient | ambient_headers(os.environ, self._explicit)
                if covered:
                    sent = to_gateway(request, self._destination, ambient)
                    self._recalled = Recalled.of(request, sent.headers)
                else:
                    sent = to_elsewhere(request, self._destination, ambient)
                redact(told)
        except RefusedRequestError as error:
            # Old SDKs retry whatever is raised in here; an answer that says "do not" they obey.
            redact(told)
            fault = Fault(400, str(error), "invalid_request_error", error.code, error.param, retry=False)
            return _answer(fault, httpx.Response(400, request=request, content=b""))
        if sent.body is None:
            request.headers = sent.headers
            return request, sent
        rewritten = type(request)(
            request.method,
            request.url,
            headers=sent.headers,
            extensions=request.extensions,
            stream=httpx.ByteStream(sent.body),  # with `content` the headers would be worked out once more
        )
        rewritten.read()
        return rewritten, sent

    def _incoming(
        self,
        sent: httpx.Request,
        outgoing: Outgoing,
        response: httpx.Response,
        exchange: Watch | None,
        *,
        streamed: bool,
    ) -> httpx.Response:
        """Give the SDK the answer that it can make sense of; its body has been read, but for a stream of events."""
        told, success = response.headers, response.status_code < 300  # noqa: PLR2004  # the class of 2xx
        if not (success and "x-request-id" in told) and (known := request_id(told)):
            told["x-request-id"] = known
        if self._proxied:
            keep_alive(response)
        if success and not streamed and not may_hold_a_fault(response.content):
            if exchange:
                exchange.ended()
            return response
        context = partial(sent_with, sent, outgoing, self._destination)
        if success and not response.is_closed:
            return self._stream(sent, context, response, exchange)
        if success:
            fault, answer = self._success(sent, context, response, streamed=streamed)
        else:
            fault, answer = self._failure(context(), response)
        if exchange:
            exchange.ended()
        if fault:
            logger.warning("%s%s", fault.logged, _named(response))
            return _answer(fault, response)
        return answer

    def _failure(self, sent: RequestFacts, response: httpx.Response) -> tuple[Fault | None, httpx.Response]:
        """Explain an error; DeepSeek's own pass as they are, and what to do about them goes to the log."""
        status = response.status_code
        if response.has_redirect_location:
            return redirect_refused(status, response.headers["location"]), response
        if fault := explain(status, response.headers, response.text, sent):
            return fault, response
        if remedy := deepseek_remedy(status, response.text, sent):
            logger.warning("%s from DeepSeek: %s%s", status, remedy, _named(response))
        if final(status, sent):
            response.headers["x-should-retry"] = "false"
        return None, response

    def _success(
        self, sent: httpx.Request, context: Callable[[], RequestFacts], response: httpx.Response, *, streamed: bool
    ) -> tuple[Fault | None, httpx.Response]:
        """Look for an error in an answer that says it is none, and make a stream of one that should have been one."""
        body = response.content
        if may_hold_a_fault(body) and (fault := hidden_fault(response.text, context())):
            return fault, response
        if not streamed:
            return None, response
        if not asks_to_stream(sent):  # the caller reads it himself, and finds it as if nobody had
            return None, _replaced(response, 200, stream=httpx.ByteStream(body))
        try:
            events = as_events(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return not_a_stream(response.headers.get("content-type", ""), response.text, context()), response
        return None, _replaced(response, 200, content=events, headers=[(b"content-type", _EVENT_STREAM.encode())])

    def _stream(
        self, sent: httpx.Request, context: Callable[[], RequestFacts], response: httpx.Response, exchange: Watch | None
    ) -> httpx.Response:
        """Have a body looked at as it passes: a stream of events for its end, any for when it ends."""
        check = None
        if sent.url.path.endswith(_STREAMED_PATHS) and (
            _kind(response).startswith(_EVENT_STREAM) or asks_to_stream(sent)
        ):
            check = StreamCheck(
                context,
                lambda fault: logger.warning("%s%s", fault.logged, _named(response)),
                expects_response=sent.url.path.endswith("/responses"),
            )
        if check is None and exchange is None:
            return response
        events: Any = _AsyncEvents if isinstance(self, httpx.AsyncClient) else _Events
        if check and "content-encoding" in response.headers:  # the end of a stream is found in plain text only
            return _replaced(response, response.status_code, stream=events(response, check, exchange, decoded=True))
        response.stream = events(response, check, exchange)
        return response


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).lower()


def _named(response: httpx.Response) -> str:
    """Give the id to ask about, for the end of a log line."""
    known = request_id(response.headers)
    return f" (request id {known})" if known else ""


def _needs_reading(sent: httpx.Request, response: httpx.Response) -> bool:
    """Whether the body of an answer must be known before the SDK is given it: errors, and what should be a stream."""
    if response.status_code >= 300:  # noqa: PLR2004  # no success
        return True
    if response.is_closed or sent.method != "POST":
        return False
    return _kind(response).startswith(("application/json", "text/html"))


class GatewayHttpClient(_Seam, openai.DefaultHttpxClient):
    """The HTTP client behind a synchronous client."""

    _transport_class = httpx.HTTPTransport

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        covered = self._destination.covers(request.url)
        told = request.headers
        prepared = self._outgoing(request, covered=covered)
        if isinstance(prepared, httpx.Response):
            return prepared
        sent, outgoing = prepared
        exchange = None
        if covered:
            exchange = watch(request, len(self._destination.path))  # which names account and gateway
            options = {**self._auth_unasked, **options, "follow_redirects": False}  # whoever asks for it
        try:
            response = super().send(sent, stream=True, **options)
            request.headers, response.request = told, request
            if exchange:
                exchange.answered(response)
            if not stream or (covered and _needs_reading(request, response)):
                try:
                    response.read()
                finally:
                    response.close()
        except BaseException as error:
            request.headers = told
            _blame(error, request, exchange)
            raise
        return self._incoming(sent, outgoing, response, exchange, streamed=stream) if covered else response

    def __del__(self) -> None:
        """Free the sockets of a client that was dropped without `close()`, as the SDK's own does."""
        with suppress(Exception):
            self.close()


class _AsyncSeam(_Seam, _AsyncClient):
    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        covered = self._destination.covers(request.url)
        told = request.headers
        prepared = self._outgoing(request, covered=covered)
        if isinstance(prepared, httpx.Response):
            return prepared
        sent, outgoing = prepared
        exchange = None
        if covered:
            exchange = watch(request, len(self._destination.path))  # which names account and gateway
            options = {**self._auth_unasked, **options, "follow_redirects": False}  # whoever asks for it
        try:
            response = await super().send(sent, stream=True, **options)
            request.headers, response.request = told, request
            if exchange:
                exchange.answered(response)
            if not stream or (covered and _needs_reading(request, response)):
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        except BaseException as error:
            request.headers = told
            _blame(error, request, exchange)
            raise
        return self._incoming(sent, outgoing, response, exchange, streamed=stream) if covered else response

    def __del__(self) -> None:
        """Free the sockets of a client that was dropped without `close()`, as the SDK's own does."""
        with suppress(Exception):
            if not self.is_closed:
                asyncio.get_running_loop().create_task(self.aclose())  # nobody is left to await it


class GatewayAsyncHttpClient(_AsyncSeam, openai.DefaultAsyncHttpxClient):
    """The HTTP client behind an asynchronous client."""

    _transport_class = httpx.AsyncHTTPTransport


@cache
def aiohttp_client_class() -> type[httpx.AsyncClient]:
    """Give the asynchronous HTTP client that sends through aiohttp, as openai itself offers it.

    It takes no socket options, so that there TCP keep-alive is the system's default, which is none.

    Raises:
        RuntimeError: This openai does not offer it.
    """
    base = getattr(openai, "DefaultAioHttpClient", None)
    if base is None:
        raise RuntimeError(
            f"transport='aiohttp' needs a newer openai than {openai.__version__}: "
            "pip install 'deepseek-gateway[aiohttp]'"
        )
    return type("GatewayAioHttpClient", (_AsyncSeam, base), {"__doc__": GatewayAsyncHttpClient.__doc__})


class _EventsSeen:
    """A body on its way to the SDK: what both flavours do at its chunks and at its end."""

    def __init__(
        self, response: httpx.Response, check: StreamCheck | None, exchange: Watch | None, *, decoded: bool = False
    ) -> None:
        self._response = response
        self._inner: Any = response.stream
        self._check = check
        self._exchange = exchange
        self._decoded = decoded
        self._chunks: Any = None
        self._ended = False

    @property
    def elapsed(self) -> Any:
        """How long it took, where the HTTP library keeps that with the stream."""
        return getattr(self._inner, "elapsed", None)

    def _worth_draining(self) -> bool:
        """Whether only the end of the body is missing, which once read gives the connection back to the pool.

        The SDK stops at `[DONE]`; HTTP/2 needs no more than that, HTTP/1.1 throws the connection away.
        """
        complete = self._check is not None and self._check.complete
        return complete and not self._ended and self._response.http_version == "HTTP/1.1"

    @contextmanager
    def _to_the_end(self) -> Generator[None]:
        """Raise if the body ends, cleanly or not, before its own end mark."""
        check, request = self._check, self._response.request
        try:
            yield
        except httpx.TimeoutException as error:
            if check is None:
                raise
            timeout = openai.APITimeoutError(request=request)
            timeout.message = check.cut("stalled")
            timeout.args = (timeout.message,)
            raise timeout from error
        except httpx.RequestError as error:
            if check is None:
                raise
            raise openai.APIConnectionError(message=check.cut("broke off"), request=request) from error
        else:
            if check and not check.complete:
                raise openai.APIConnectionError(message=check.cut("ended"), request=request)


class _Events(_EventsSeen, httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        if self._chunks is None:
            yield from self._events()
        yield from self._rest()

    def _events(self) -> Iterator[bytes]:
        check = self._check
        # Kept, because to drop what iterates a body closes its connection.
        self._chunks = self._response.iter_bytes() if self._decoded else iter(self._inner)
        try:
            with self._to_the_end():
                for chunk in self._chunks:
                    passed = check.feed(chunk) if check else chunk
                    if passed:
                        yield passed
                        if check and check.seen and check.complete:
                            return
                self._ended = True
                if check and (rest := check.rest()):
                    yield rest
        except Exception:
            self._ended = True
            self.close()  # old HTTP libraries leave that to the garbage collector
            raise

    def _rest(self) -> Iterator[bytes]:
        """Give what follows the last event, but wait for it no longer than a moment."""
        if self._ended:
            return
        self._ended = True
        # The HTTP library looks at this anew when a body is iterated anew.
        self._response.request.extensions.get("timeout", {})["read"] = _DRAIN_SECONDS
        room, deadline = _DRAIN_BYTES, monotonic() + _DRAIN_SECONDS
        with suppress(httpx.RequestError, httpx.StreamError):
            for chunk in self._inner:
                room -= len(chunk)
                if room < 0 or monotonic() > deadline:
                    break
                if not self._decoded:
                    yield chunk

    def close(self) -> None:
        if self._worth_draining():
            for _ in self._rest():
                pass
        self._inner.close()
        if self._exchange:
            self._exchange.ended()


class _AsyncEvents(_EventsSeen, httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._chunks is None:
            async for chunk in self._events():
                yield chunk
        async for chunk in self._rest():
            yield chunk

    async def _events(self) -> AsyncIterator[bytes]:
        check = self._check
        self._chunks = self._response.aiter_bytes() if self._decoded else aiter(self._inner)  # see above
        try:
            with self._to_the_end():
                async for chunk in self._chunks:
                    passed = check.feed(chunk) if check else chunk
                    if passed:
                        yield passed
                        if check and check.seen and check.complete:
                            return
                self._ended = True
                if check and (rest := check.rest()):
                    yield rest
        except Exception:
            self._ended = True
            await self.aclose()  # see above
            raise

    async def _rest(self) -> AsyncIterator[bytes]:
        """Give what follows the last event, but wait for it no longer than a moment."""
        if self._ended:
            return
        self._ended = True
        room, deadline = _DRAIN_BYTES, monotonic() + _DRAIN_SECONDS
        with suppress(httpx.RequestError, httpx.StreamError):
            chunks = aiter(self._inner)
            while room >= 0:
                chunk = None
                with move_on_after(deadline - monotonic()):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                room -= len(chunk)
                if not self._decoded:
                    yield chunk

    async def aclose(self) -> None:
        try:
            if self._worth_draining():
                async for _ in self._rest():
                    pass
        finally:
            await self._inner.aclose()
            if self._exchange:
                self._exchange.ended()


def _blame(error: BaseException, request: httpx.Request, exchange: Watch | None) -> None:
    """Put the SDK's blanked-out request on an error in place of the one that was sent, and tell those who watch."""
    if isinstance(error, httpx.HTTPError):  # one with an answer comes of a caller's own hook
        error.request = request
        if answer := getattr(error, "response", None):
            answer.request = request
    if exchange:
        exchange.failed(error)


def _answer(fault: Fault, response: httpx.Response) -> httpx.Response:
    """Put an error that the SDK can read in the place of an answer."""
    retry = [] if fault.retry is None else [(b"x-should-retry", str(fault.retry).lower().encode())]
    headers = [(b"content-type", b"application/json"), *retry]
    return _replaced(response, fault.status, content=json.dumps(fault.body).encode(), headers=headers)


def _replaced(
    response: httpx.Response, status: int, *, headers: Iterable[tuple[bytes, bytes]] = (), **body: Any
) -> httpx.Response:
    """Make an answer like another one with a body of ours."""
    told = {b"content-encoding"} if "stream" in body else _OF_THE_BODY | {name for name, _ in headers}
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in told]
    made = httpx.Response(
        status, headers=[*kept, *headers], request=response.request, extensions=response.extensions, **body
    )
    if "content" in body:
        try:
            made.elapsed = response.elapsed
        except RuntimeError:  # it was never sent
            made.elapsed = timedelta(0)
    return made
