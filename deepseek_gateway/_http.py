"""The seam: `send()`, through which every HTTP request of the SDK goes, and all the I/O there is.

An `Exchange` decides everything, and is the same for both flavours. WebSockets do not go through `send()`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import openai

from ._connections import connection_options, set_keep_alive
from ._exchange import Exchange
from ._request import Destination

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig
else:
    from ._connections import httpx


class _Seam:
    """What both flavours share: the destination, and the options of each call."""

    _transport_class: Any = None

    def __init__(self, config: GatewayConfig, explicit_headers: Mapping[str, Any], **http_options: Any) -> None:
        options = connection_options(http_options, self._transport_class)
        # The SDK follows redirects by default and would take cf-aig-authorization along to any host.
        super().__init__(**{"follow_redirects": False} | options)
        client: Any = self
        # The SDK sends its own of the first two with each call, and replacing a default takes 3 us.
        for name in {"accept", "user-agent", "connection"} - httpx.Headers(http_options.get("headers")).keys():
            del client.headers[name]
        self._destination = Destination(config, httpx.URL(config.base_url), explicit_headers)
        self._keep_alive_later = "transport" not in options
        # Without an auth of its own, httpx 0.23 would read ~/.netrc, and a login there would hide a stored key.
        self._options = {} if http_options.get("auth") else {"auth": httpx.Auth()}

    def _options_for(self, exchange: Exchange, options: dict[str, Any]) -> dict[str, Any]:
        """Refuse redirects under the base URL, even if the caller asked for them."""
        return {**self._options, **options, "follow_redirects": False} if exchange.covered else options


class GatewayHttpClient(_Seam, openai.DefaultHttpxClient):
    """The HTTP client behind a synchronous client."""

    _transport_class = httpx.HTTPTransport

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        exchange = Exchange(request, self._destination, streamed=stream)
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

    def __del__(self) -> None:  # of a client that was dropped without close(), as the SDK's own client does
        with suppress(Exception):
            self.close()


class _AsyncSeam(_Seam):
    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        exchange = Exchange(request, self._destination, streamed=stream)
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
            raise

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
