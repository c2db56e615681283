"""The seam: the two HTTP clients that a stock OpenAI client is given, and all the I/O there is.

Each overrides the one public method through which every request of the SDK goes, `send()`. What is decided there is
decided by the pure functions of `_request` and `_response`, the same for both flavours.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai

from ._request import Destination, WrongRouteError, ambient_headers, redact, to_gateway
from ._response import error_body, is_redirect, refused_redirect

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx2 as httpx

    from ._config import GatewayConfig

    _AsyncClient = httpx.AsyncClient
else:
    # openai 1 and 2 use httpx, openai 3 httpx2: whichever its own client is made from.
    httpx = import_module(openai.DefaultHttpxClient.__base__.__module__)
    _AsyncClient = object


class _Seam:
    """What both flavours keep, and the rules around a call that need no I/O."""

    def __init__(self, config: GatewayConfig, explicit_headers: Iterable[str], **http_options: Any) -> None:
        # The SDK follows redirects by default and would take cf-aig-authorization along to any host.
        http_options.setdefault("follow_redirects", False)
        super().__init__(**http_options)
        self._destination = Destination.of(config, httpx.URL(config.base_url))
        self._explicit = tuple(explicit_headers)
        self._ambient = ambient_headers(os.environ, self._explicit)

    def _outgoing(self, request: httpx.Request) -> httpx.Request | httpx.Response:
        """Give the request to send, or the answer to one that must not be sent; blank out the SDK's own."""
        # with_options() makes the SDK read the environment anew, so what is there now counts as well.
        ambient = self._ambient | ambient_headers(os.environ, self._explicit)
        try:
            sent = to_gateway(request, self._destination, ambient)
        except WrongRouteError as error:
            # Old SDKs retry whatever is raised in here; an answer that says "do not" they obey.
            redact(request)
            body = error_body(str(error), type="invalid_request_error", code="wrong_route", param="model")
            return _synthetic(400, body, request)
        redact(request)
        return sent

    def _stays(self, request: httpx.Request, options: dict[str, Any]) -> dict[str, Any]:
        """Keep a request that carries our credentials from following a redirect, whoever asks for it."""
        return options | {"follow_redirects": False} if self._destination.covers(request.url) else options


class GatewayHttpClient(_Seam, openai.DefaultHttpxClient):
    """The HTTP client behind a synchronous client."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        sent = self._outgoing(request)
        if isinstance(sent, httpx.Response):
            return sent
        try:
            response = super().send(sent, **self._stays(sent, options))
        except httpx.RequestError as error:
            error.request = request
            raise
        response.request = request
        if is_redirect(response):
            response.close()
            return _refusal(response)
        return response

    def __del__(self) -> None:
        """Free the sockets of a client that was dropped without `close()`, as the SDK's own does."""
        with suppress(Exception):
            self.close()


class _AsyncSeam(_Seam, _AsyncClient):
    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request of the SDK to the gateway and give back what the SDK can make sense of."""
        sent = self._outgoing(request)
        if isinstance(sent, httpx.Response):
            return sent
        try:
            response = await super().send(sent, **self._stays(sent, options))
        except httpx.RequestError as error:
            error.request = request
            raise
        response.request = request
        if is_redirect(response):
            await response.aclose()
            return _refusal(response)
        return response

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


def _refusal(response: httpx.Response) -> httpx.Response:
    """Put an error in the place of a redirect."""
    return _synthetic(response.status_code, refused_redirect(response), response.request)


def _synthetic(status: int, body: dict[str, Any], request: httpx.Request) -> httpx.Response:
    """Make an answer that nobody sent and nobody should ask for again."""
    response = httpx.Response(status, headers={"x-should-retry": "false"}, json=body, request=request)
    response.elapsed = timedelta(0)
    return response
