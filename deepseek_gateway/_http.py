"""The seam: `send()`, through which every HTTP request of the SDK goes, and all the I/O there is.

An `Exchange` decides everything, and is the same for both flavours. WebSockets do not go through `send()`.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import openai

from ._connections import connection_options, set_keep_alive
from ._exchange import Exchange
from ._fallback import Fallback
from ._request import Destination

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig
else:
    from ._connections import httpx


class Place(NamedTuple):
    """Where a client is used: in a process, and if it is asynchronous in an event loop. Connections belong to one."""

    process: int
    loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    @classmethod
    def here(cls) -> Self:
        """Give the place that is running now."""
        try:
            return cls(os.getpid(), weakref.ref(asyncio.get_running_loop()))
        except RuntimeError:  # trio has no loop of asyncio
            return cls(os.getpid())

    @property
    def lives(self) -> bool:
        """Whether its connections can still be used from this process."""
        loop = None if self.loop is None else self.loop()
        return self.process == os.getpid() and (self.loop is None or (loop is not None and not loop.is_closed()))


class _Seam:
    """What both flavours share: the destination, the options of each call, and the places where a client is used.

    A client keeps the place where it is used first. In another place, such as a child after `fork()` or the loop of a
    second `asyncio.run()`, a new client with the same options takes over.
    """

    _transport_class: Any = None

    def __init__(
        self,
        config: GatewayConfig,
        explicit_headers: Mapping[str, Any],
        *,
        merge_pause: float | None = None,
        **http_options: Any,
    ) -> None:
        self._anew = partial(type(self), config, explicit_headers, merge_pause=merge_pause, **http_options)
        self._home: Place | None = None
        self._elsewhere: dict[Place, Any] = {}
        options = connection_options(http_options, self._transport_class)
        # The SDK follows redirects by default and would take cf-aig-authorization along to any host.
        super().__init__(**{"follow_redirects": False} | options)
        client: Any = self
        # The SDK sends its own of the first two with each call, and replacing a default takes 3 us.
        for name in {"accept", "user-agent", "connection"} - httpx.Headers(http_options.get("headers")).keys():
            del client.headers[name]
        self._destination = Destination(config, httpx.URL(config.base_url), explicit_headers, merge_pause=merge_pause)
        self._fallback = Fallback(config, self._destination, explicit_headers) if config.fallback else None
        self._keep_alive_later = "transport" not in options
        # Without an auth of its own, httpx 0.23 would read ~/.netrc, and a login there would hide a stored key.
        self._options = {} if http_options.get("auth") else {"auth": httpx.Auth()}

    def _client_at(self, here: Place) -> Any:
        client: Any = self
        self._home = self._home or here
        if here == self._home or client.is_closed:
            return self
        if here not in self._elsewhere:
            self._elsewhere = {place: other for place, other in self._elsewhere.items() if place.lives}
        return self._elsewhere.get(here) or self._elsewhere.setdefault(here, self._anew())

    def _exchange(self, fallback: Fallback, request: httpx.Request, *, streamed: bool) -> Exchange:
        """Give the exchange with the gateway, or while the gateway is down with DeepSeek itself."""
        direct = fallback.request_for(request)
        if direct and fallback.lasts():
            return Exchange(direct, fallback.destination, streamed=streamed)
        return Exchange(request, self._destination, streamed=streamed, direct=direct)

    def _after(self, fallback: Fallback, exchange: Exchange) -> Exchange | None:
        """Give the exchange with DeepSeek itself that follows one with a gateway that is down."""
        if not (exchange.direct and fallback.note(exchange.outage)):
            return None
        return Exchange(exchange.direct, fallback.destination, streamed=exchange.streamed)

    def _options_for(self, exchange: Exchange, options: dict[str, Any]) -> dict[str, Any]:
        """Refuse redirects under the base URL, even if the caller asked for them."""
        if not exchange.covered:
            return options
        if exchange.destination is self._destination:
            return {**self._options, **options, "follow_redirects": False}
        # In a fallback, no login of the HTTP client or of the call is meant for DeepSeek.
        return {**options, "auth": httpx.Auth(), "follow_redirects": False}


class GatewayHttpClient(_Seam, openai.DefaultHttpxClient):
    """The HTTP client behind a synchronous client."""

    _transport_class = httpx.HTTPTransport

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        if self._home is None or self._home.process != os.getpid():
            elsewhere: Self = self._client_at(Place(os.getpid()))
            if elsewhere is not self:
                return elsewhere.send(request, stream=stream, **options)
        if (fallback := self._fallback) is None:
            return self._perform(Exchange(request, self._destination, streamed=stream), options)
        exchange = self._exchange(fallback, request, streamed=stream)
        try:
            response = self._perform(exchange, options)
        except httpx.TransportError:
            if (following := self._after(fallback, exchange)) is None:
                raise
        else:
            if (following := self._after(fallback, exchange)) is None:
                return response
        return self._perform(following, options)

    def _perform(self, exchange: Exchange, options: dict[str, Any]) -> httpx.Response:
        if exchange.answer is not None:
            return exchange.answer
        response = None
        try:
            response = super().send(exchange.outgoing, stream=True, **self._options_for(exchange, options))
            if self._keep_alive_later:
                set_keep_alive(response)
            if exchange.received(response):
                response.read()
            return exchange.incoming(response)
        except BaseException as error:
            if response is not None:
                response.close()
            exchange.failed(error)
            raise

    def close(self) -> None:
        for client in self._elsewhere.values():
            client.close()
        super().close()

    def __del__(self) -> None:  # of a client that was dropped without close(), as the SDK's own client does
        with suppress(Exception):
            self.close()


class _AsyncSeam(_Seam):
    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        elsewhere: Self = self._client_at(Place.here())
        if elsewhere is not self:
            return await elsewhere.send(request, stream=stream, **options)
        if (fallback := self._fallback) is None:
            return await self._perform(Exchange(request, self._destination, streamed=stream), options)
        exchange = self._exchange(fallback, request, streamed=stream)
        try:
            response = await self._perform(exchange, options)
        except httpx.TransportError:
            if (following := self._after(fallback, exchange)) is None:
                raise
        else:
            if (following := self._after(fallback, exchange)) is None:
                return response
        return await self._perform(following, options)

    async def _perform(self, exchange: Exchange, options: dict[str, Any]) -> httpx.Response:
        if exchange.answer is not None:
            return exchange.answer
        response = None
        client: Any = super()
        try:
            response = await client.send(exchange.outgoing, stream=True, **self._options_for(exchange, options))
            if self._keep_alive_later:
                set_keep_alive(response)
            if exchange.received(response):
                await response.aread()
            return exchange.incoming(response)
        except BaseException as error:
            if response is not None:
                await response.aclose()
            exchange.failed(error)
            if type(error).__module__.startswith("aiohttp"):  # openai's client does not translate malformed HTTP
                raise httpx.RemoteProtocolError(str(error), request=exchange.request) from error
            raise

    async def aclose(self) -> None:
        here, client = Place.here(), cast("Any", super())
        closing = [(self._home, client.aclose), *((place, other.aclose) for place, other in self._elsewhere.items())]
        for place, close in closing:
            if place in (None, here):  # a place whose loop is gone has no hash
                await close()
            elif place.process == here.process:  # the parent of this process may still use its connections
                with suppress(RuntimeError):  # the loop of its connections is closed
                    await close()

    def __del__(self) -> None:  # as above
        with suppress(Exception):
            client: Any = self
            if not client.is_closed:
                asyncio.get_running_loop().create_task(client.aclose())  # nobody is left to await it


class GatewayAsyncHttpClient(_AsyncSeam, openai.DefaultAsyncHttpxClient):
    """The HTTP client behind an asynchronous client."""

    _transport_class = httpx.AsyncHTTPTransport


@cache
def aiohttp_client_class() -> type[httpx.AsyncClient]:
    """Give the asynchronous HTTP client that sends through aiohttp, as openai itself offers it."""
    base = getattr(openai, "DefaultAioHttpClient", None)
    if base is None:
        remedy = "pip install 'deepseek-gateway[aiohttp]'"
        raise RuntimeError(f"transport='aiohttp' needs a newer openai than {openai.__version__}: {remedy}")
    return type("GatewayAioHttpClient", (_AsyncSeam, base), {"__doc__": GatewayAsyncHttpClient.__doc__})
