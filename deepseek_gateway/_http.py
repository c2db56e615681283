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
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai

from ._calls import logger, watch
from ._codes import deepseek_remedy
from ._request import (
    Destination,
    RefusedRequestError,
    ambient_headers,
    asks_to_stream,
    redact,
    sent_with,
    to_gateway,
)
from ._response import (
    Fault,
    StreamCheck,
    as_events,
    explain,
    final,
    hidden_fault,
    may_hold_a_fault,
    not_a_stream,
    redirect_refused,
    request_id,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping

    import httpx2 as httpx

    from ._calls import Watch
    from ._config import GatewayConfig

    _AsyncClient = httpx.AsyncClient
else:
    # openai 1 and 2 use httpx, openai 3 httpx2: whichever its own client is made from.
    httpx = import_module(openai.DefaultHttpxClient.__base__.__module__)
    _AsyncClient = object

_EVENT_STREAM = "text/event-stream"
_STREAMED_PATHS = ("/completions", "/responses")
# What describes the bytes of a body and not the answer; a body of ours has its own.
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"content-type", b"transfer-encoding"})


@lru_cache(maxsize=8)
def _tls_context(trust_env: bool, _http2: bool, *_trust: Any) -> ssl.SSLContext:  # noqa: FBT001  # a cache key
    """Build the context that openai's own HTTP library would, once for all clients with the same trust settings."""
    return httpx.create_ssl_context(trust_env=trust_env)


def _with_shared_tls(http_options: dict[str, Any]) -> dict[str, Any]:
    """Spare a client the 20 ms and 0.8 MB of a TLS context of its own, unless it has other TLS options.

    Shared is the context alone, never a connection or client. What decides whom to trust is part of the key, files with
    their times; so is the HTTP version, for which the HTTP library sets a mark on the context.
    """
    if http_options.get("verify", True) is not True or {"cert", "transport"} & http_options.keys():
        return http_options
    trust_env, http2 = bool(http_options.get("trust_env", True)), bool(http_options.get("http2"))
    trust = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")]
    times: list[float] = []
    for path in filter(None, trust[:2]):
        with suppress(OSError):  # the HTTP library will say it better
            times.append(os.stat(path).st_mtime)  # noqa: PTH116  # a path is made for nothing
    return http_options | {"verify": _tls_context(trust_env, http2, *trust, *times)}


class _Seam:
    """What both flavours keep, and the rules around a call that need no I/O."""

    def __init__(self, config: GatewayConfig, explicit_headers: Mapping[str, Any], **http_options: Any) -> None:
        # The SDK follows redirects by default and would take cf-aig-authorization along to any host.
        http_options.setdefault("follow_redirects", False)
        super().__init__(**_with_shared_tls(http_options))
        self._destination = Destination.of(config, httpx.URL(config.base_url))
        self._explicit = dict(explicit_headers)
        self._ambient = ambient_headers(os.environ, self._explicit)

    def _outgoing(self, request: httpx.Request) -> httpx.Request | httpx.Response:
        """Give the request to send, or the answer to one that must not be sent; blank out the SDK's own."""
        # with_options() makes the SDK read the environment anew, so what is there now counts as well.
        ambient = ambient_headers(os.environ, self._explicit)
        try:
            sent = to_gateway(request, self._destination, self._ambient | ambient)
        except RefusedRequestError as error:
            # Old SDKs retry whatever is raised in here; an answer that says "do not" they obey.
            redact(request)
            fault = Fault(400, str(error), "invalid_request_error", error.code, error.param, retry=False)
            return _answer(fault, httpx.Response(400, request=request, content=b""))
        redact(request)
        return sent

    def _watch(self, request: httpx.Request) -> Watch | None:
        """Begin to watch a request for `record_calls()` and the log; its path is told without account and gateway."""
        return watch(request, request.url.raw_path.partition(b"?")[0][len(self._destination.path) :])

    def _incoming(
        self, sent: httpx.Request, response: httpx.Response, exchange: Watch | None, *, streamed: bool
    ) -> httpx.Response:
        """Give the SDK the answer that it can make sense of; its body has been read, but for a stream of events."""
        headers, success = response.headers, response.status_code < 300  # noqa: PLR2004  # the class of 2xx
        if (known := request_id(headers)) and not (success and "x-request-id" in headers):
            headers["x-request-id"] = known
        if success and not response.is_closed:
            return self._stream(sent, response, exchange)
        if success:
            fault, answer = self._success(sent, response, streamed=streamed)
        else:
            fault, answer = self._failure(sent, response)
        if exchange:
            exchange.ended()
        if fault:
            logger.warning("%s%s", fault.logged, _named(response))
            return _answer(fault, response)
        return answer

    def _failure(self, sent: httpx.Request, response: httpx.Response) -> tuple[Fault | None, httpx.Response]:
        """Explain an error; DeepSeek's own pass as they are, and what to do about them goes to the log."""
        status = response.status_code
        if response.has_redirect_location:
            return redirect_refused(status, response.headers["location"]), response
        context = sent_with(sent, self._destination)
        if fault := explain(status, response.headers, response.text, context):
            return fault, response
        if remedy := deepseek_remedy(status, response.text, context):
            logger.warning("%s from DeepSeek: %s%s", status, remedy, _named(response))
        if final(status, context):
            response.headers["x-should-retry"] = "false"
        return None, response

    def _success(
        self, sent: httpx.Request, response: httpx.Response, *, streamed: bool
    ) -> tuple[Fault | None, httpx.Response]:
        """Look for an error in an answer that says it is none, and make a stream of one that should have been one."""
        body = response.content
        context = sent_with(sent, self._destination) if streamed or may_hold_a_fault(body) else None
        if context and may_hold_a_fault(body) and (fault := hidden_fault(response.text, context)):
            return fault, response
        if not streamed or not context:
            return None, response
        if not asks_to_stream(sent):  # the caller reads it himself, and finds it as if nobody had
            return None, _replaced(response, 200, stream=httpx.ByteStream(body))
        try:
            events = as_events(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return not_a_stream(response.headers.get("content-type", ""), response.text, context), response
        return None, _replaced(response, 200, content=events, headers=[(b"content-type", _EVENT_STREAM.encode())])

    def _stream(self, sent: httpx.Request, response: httpx.Response, exchange: Watch | None) -> httpx.Response:
        """Have a body looked at as it passes: a stream of events for its end, any for when it ends."""
        check = None
        if sent.url.path.endswith(_STREAMED_PATHS) and (
            _kind(response).startswith(_EVENT_STREAM) or asks_to_stream(sent)
        ):
            check = StreamCheck(
                lambda: sent_with(sent, self._destination),
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

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        sent = self._outgoing(request)
        if isinstance(sent, httpx.Response):
            return sent
        covered = self._destination.covers(sent.url)
        exchange = self._watch(request) if covered else None
        if covered:
            options["follow_redirects"] = False  # whoever asks for it
        with _blamed(request, exchange):
            response = super().send(sent, stream=True, **options)
            response.request = request
            if exchange:
                exchange.answered(response)
            if not stream or (covered and _needs_reading(sent, response)):
                try:
                    response.read()
                finally:
                    response.close()
        return self._incoming(sent, response, exchange, streamed=stream) if covered else response

    def __del__(self) -> None:
        """Free the sockets of a client that was dropped without `close()`, as the SDK's own does."""
        with suppress(Exception):
            self.close()


class _AsyncSeam(_Seam, _AsyncClient):
    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        sent = self._outgoing(request)
        if isinstance(sent, httpx.Response):
            return sent
        covered = self._destination.covers(sent.url)
        exchange = self._watch(request) if covered else None
        if covered:
            options["follow_redirects"] = False  # whoever asks for it
        with _blamed(request, exchange):
            response = await super().send(sent, stream=True, **options)
            response.request = request
            if exchange:
                exchange.answered(response)
            if not stream or (covered and _needs_reading(sent, response)):
                try:
                    await response.aread()
                finally:
                    await response.aclose()
        return self._incoming(sent, response, exchange, streamed=stream) if covered else response

    def __del__(self) -> None:
        """Free the sockets of a client that was dropped without `close()`, as the SDK's own does."""
        with suppress(Exception):
            if not self.is_closed:
                asyncio.get_running_loop().create_task(self.aclose())  # nobody is left to await it


class GatewayAsyncHttpClient(_AsyncSeam, openai.DefaultAsyncHttpxClient):
    """The HTTP client behind an asynchronous client."""


def aiohttp_client_class() -> type[httpx.AsyncClient]:
    """Give the asynchronous HTTP client that sends through aiohttp, as openai itself offers it.

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

    @property
    def elapsed(self) -> Any:
        """How long it took, where the HTTP library keeps that with the stream."""
        return getattr(self._inner, "elapsed", None)

    @contextmanager
    def _to_the_end(self) -> Generator[None]:
        """Raise if the body ends, cleanly or not, before its own end mark; once that was seen nothing matters."""
        check, request = self._check, self._response.request
        try:
            yield
        except httpx.TimeoutException as error:
            if check is None:
                raise
            if check.complete:
                return
            timeout = openai.APITimeoutError(request=request)
            timeout.message = check.cut("stalled")
            timeout.args = (timeout.message,)
            raise timeout from error
        except httpx.RequestError as error:
            if check is None:
                raise
            if check.complete:
                return
            raise openai.APIConnectionError(message=check.cut("broke off"), request=request) from error
        else:
            if check and not check.complete:
                raise openai.APIConnectionError(message=check.cut("ended"), request=request)


class _Events(_EventsSeen, httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        feed = self._check.feed if self._check else bytes
        try:
            with self._to_the_end():
                for chunk in self._response.iter_bytes() if self._decoded else self._inner:
                    if passed := feed(chunk):
                        yield passed
                if self._check and (rest := self._check.rest()):
                    yield rest
        except Exception:
            self.close()  # old HTTP libraries leave that to the garbage collector
            raise

    def close(self) -> None:
        self._inner.close()
        if self._exchange:
            self._exchange.ended()


class _AsyncEvents(_EventsSeen, httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._check.feed if self._check else bytes
        try:
            with self._to_the_end():
                async for chunk in self._response.aiter_bytes() if self._decoded else self._inner:
                    if passed := feed(chunk):
                        yield passed
                if self._check and (rest := self._check.rest()):
                    yield rest
        except Exception:
            await self.aclose()  # see above
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
        if self._exchange:
            self._exchange.ended()


@contextmanager
def _blamed(request: httpx.Request, exchange: Watch | None) -> Generator[None]:
    """Put the SDK's blanked-out request on an error in place of the one that was sent, and tell those who watch."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, httpx.HTTPError):  # one with an answer comes of a caller's own hook
            error.request = request
            if answer := getattr(error, "response", None):
                answer.request = request
        if exchange:
            exchange.failed(error)
        raise


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
