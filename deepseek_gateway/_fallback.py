"""The gateway is down: which calls go to DeepSeek itself, and for how long. No I/O."""

from __future__ import annotations

import threading
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._adapt import adapted_model
from ._calls import logger
from ._model import model_named
from ._request import Destination, loaded_body
from ._settings import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2 as httpx

    from ._config import GatewayConfig
else:
    from ._connections import httpx

_SECONDS = 30
_WHAT_NOW = f"For {_SECONDS} seconds, calls go to DeepSeek itself, past the gateway's policies and its log."
# Cloudflare's edge answers with these in place of a gateway that it did not reach. After 504 and 524 DeepSeek may be at
# work on the call.
_DOWN = {502, 520, 521, 522, 523, 525, 526, 530}
# What aiohttp raises when no connection is made. openai's aiohttp client gives lost connections the same exception.
_NOT_CONNECTED = {"ClientConnectorError", "ConnectionTimeoutError"}


def is_outage(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an error of Cloudflare's edge means that it did not reach the gateway, which would give a log id."""
    return status in _DOWN and "cf-aig-log-id" not in headers


def never_connected(error: BaseException) -> bool:
    """Whether a request failed before a connection was made, so that nobody can be at work on it."""
    cause = type(error.__cause__)
    if cause.__module__.startswith("aiohttp"):
        return not _NOT_CONNECTED.isdisjoint(each.__name__ for each in cause.__mro__)
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))


class Fallback:
    """The way past the gateway for the calls of one client, and whether the gateway is down."""

    def __init__(self, config: GatewayConfig, home: Destination, explicit_headers: Mapping[str, Any]) -> None:
        """Go to DeepSeek itself where `home` is down."""
        # A key may be given with a single call. The placeholder is never sent.
        direct = replace(config, route="direct", api_key=config.api_key or PLACEHOLDER)
        self.destination = Destination(
            direct, httpx.URL(direct.base_url), explicit_headers, merge_pause=home.merge_pause
        )
        self._home = home
        self._lock = threading.Lock()
        self._until = 0.0

    def request_for(self, request: httpx.Request) -> httpx.Request | None:
        """Give a request of the SDK as one to DeepSeek itself, or None if it must not go there.

        That needs a key of the caller's own, a model of DeepSeek's, and a body that can be sent a second time.
        """
        body, key, model = loaded_body(request), self._own_key(request), model_named(request)
        below = self._home.below(request.url)
        if body is None or not key or not model or below is None:
            return None
        config = self.destination.config
        if "/" in adapted_model(model, config).removeprefix("deepseek/"):
            return None
        url = httpx.URL(config.base_url + below)
        headers = request.headers.copy()
        headers.pop("cookie", None)  # the gateway's
        headers.update({"host": url.netloc.decode("ascii"), "authorization": f"Bearer {key}"})
        return type(request)(request.method, url, headers=headers, content=body, extensions=request.extensions)

    def _own_key(self, request: httpx.Request) -> str | None:
        config = self._home.config
        if config.route == "rest":  # its Authorization holds a Cloudflare token
            return config.api_key
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        foreign = key == PLACEHOLDER or (config.gateway_token or PLACEHOLDER) in key
        return None if foreign else key

    def lasts(self) -> bool:
        """Whether calls go past the gateway. Every 30 seconds one call tries the gateway again."""
        with self._lock:
            now = monotonic()
            waits = now < self._until
            if self._until and not waits:
                self._until = now + _SECONDS
            return waits

    def note(self, outage: str | None) -> bool:
        """Take note of why the gateway was not reached, and say whether it is down.

        A blank reason means that the gateway has answered, and None that a call ended in neither way.
        """
        if outage:
            self._until = monotonic() + _SECONDS
            logger.warning("The gateway was not reached (%s). %s", outage, _WHAT_NOW)
        elif outage is not None:
            self._until = 0.0
        return bool(outage)
