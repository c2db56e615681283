"""What a connection is made of: TLS context, pool, socket and proxy, for whichever HTTP library openai itself uses.

All of it through the public options of that library; what the caller gives in `http_options` takes its place.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import openai

if TYPE_CHECKING:
    import ssl

    import httpx2 as httpx
else:
    # openai 1 and 2 use httpx, openai 3 httpx2: whichever its own client is made from.
    httpx = import_module(openai.DefaultHttpxClient.__base__.__module__)

# Seconds that an idle connection is kept; the HTTP library's own 5 cost a handshake after every pause, and Cloudflare
# keeps its side for 400. With httpx and its httpcore 1 each request asks every idle connection about all others: beside
# 8 of them a call takes as much CPU time as beside one, beside 64 2.2 times as much, beside 100 3.7 times; so what a
# burst leaves behind slows the calls after it down for 15 seconds in place of 5, not for 120. A smaller pool would be
# worse, as httpcore 1 counts busy connections among the idle ones. With httpx2 it is 1.2 times beside 64.
KEPT_IDLE = 15.0 if httpx.__name__ == "httpx" else 120.0

# A peer that vanished behind a NAT is noticed within two minutes: seconds before the first probe, between probes, how
# many; and milliseconds that data may stay unacknowledged, which Linux alone has. TCP_KEEPALIVE is macOS's KEEPIDLE.
_TCP_OPTIONS = (
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPALIVE", 60),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 6),
    ("TCP_USER_TIMEOUT", 120_000),
)

# These options make a client send by other means than one transport of its own.
_OTHER_WAYS = {"transport", "proxy", "proxies", "mounts"}
_PROXY_SCHEMES = {"http", "https", "all"}
_OF_A_TRANSPORT = {"verify", "cert", "trust_env", "http1", "http2", "limits"}
_TAKES_SOCKET_OPTIONS = "socket_options" in signature(httpx.HTTPTransport).parameters  # since httpx 0.25


def connection_options(http_options: dict[str, Any], transport: Any = None) -> dict[str, Any]:
    """Complete the options of an HTTP client: trust, pool and sockets, where the caller has not chosen them.

    Args:
        http_options: The caller's options.
        transport: The class of transport to make, `httpx.HTTPTransport` or its asynchronous twin. Without one the
            client makes its own transport, which takes no socket options.

    Returns:
        The options for the client. They hold a transport unless a proxy is configured: then everything is left to the
        HTTP library, and `set_keep_alive()` sets the options of a socket later.
    """
    if {"transport", "proxies"} & http_options.keys():
        return http_options
    default = openai.DEFAULT_CONNECTION_LIMITS
    limits = httpx.Limits(
        max_connections=default.max_connections,
        max_keepalive_connections=default.max_keepalive_connections,
        keepalive_expiry=KEPT_IDLE,
    )
    options: dict[str, Any] = {"limits": limits} | _with_shared_tls(http_options)
    proxied = _OTHER_WAYS & options.keys() or (options.get("trust_env", True) and _PROXY_SCHEMES & getproxies().keys())
    if transport is None or proxied or not _TAKES_SOCKET_OPTIONS:
        return options
    made_of = {name: options[name] for name in _OF_A_TRANSPORT & options.keys()}
    return options | {"transport": transport(**made_of, socket_options=_socket_options())}


def set_keep_alive(response: httpx.Response) -> None:
    """Turn TCP keep-alive on when the first headers have come over a connection that the HTTP library made."""
    stream = response.extensions.get("network_stream")
    connection = stream and stream.get_extra_info("socket")
    with suppress(OSError):  # the server has closed the connection
        if connection and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            for option in _socket_options():
                connection.setsockopt(*option)


@lru_cache(maxsize=1)
def _socket_options() -> tuple[tuple[int, int, int], ...]:
    """List the options of `_TCP_OPTIONS` that this system takes; one that it refuses would fail every connection."""
    wanted = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    wanted += [(socket.IPPROTO_TCP, getattr(socket, name), n) for name, n in _TCP_OPTIONS if hasattr(socket, name)]
    taken: list[tuple[int, int, int]] = []
    with socket.socket() as probe:
        for option in wanted:
            with suppress(OSError):
                probe.setsockopt(*option)
                taken.append(option)
    return tuple(taken)


@lru_cache(maxsize=8)
def _tls_context(trust_env: bool, _http2: bool, *_trust: Any) -> ssl.SSLContext:  # noqa: FBT001  # a cache key
    """Build the context that openai's own HTTP library would, once for all clients with the same trust settings."""
    return httpx.create_ssl_context(trust_env=trust_env)


def _with_shared_tls(http_options: dict[str, Any]) -> dict[str, Any]:
    """Spare a client the 20 ms and 0.8 MB of a TLS context of its own, unless it has other TLS options.

    Shared is the context alone, never a connection or client. What decides whom to trust is part of the key, files with
    their times; so is the HTTP version, for which the HTTP library sets a mark on the context.
    """
    if http_options.get("verify", True) is not True or "cert" in http_options:
        return http_options
    trust_env, http2 = bool(http_options.get("trust_env", True)), bool(http_options.get("http2"))
    trust = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")]
    times: list[float] = []
    for path in filter(None, trust[:2]):
        with suppress(OSError):  # the HTTP library will say it better
            times.append(os.stat(path).st_mtime)  # noqa: PTH116  # a path is made for nothing
    return http_options | {"verify": _tls_context(trust_env, http2, *trust, *times)}
