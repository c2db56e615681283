"""Connections: TLS context, pool and sockets, by public options of the HTTP library that openai itself uses."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from functools import cache, lru_cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import openai

if TYPE_CHECKING:
    import ssl

    import httpx2 as httpx
else:
    # openai 1 and 2 use httpx, openai 3 uses httpx2.
    httpx = import_module(openai.DefaultHttpxClient.__base__.__module__)

# Seconds that an idle connection is kept. The HTTP library's default of 5 costs a handshake after every pause, and
# Cloudflare keeps its side for 400. The pool of httpx slows down as it grows: with 64 idle connections a call takes
# 2.2 times the CPU time (httpx2: 1.2 times). A smaller pool would be worse: it counts busy connections as idle.
KEPT_IDLE = 15.0 if httpx.__name__ == "httpx" else 120.0

# A peer that vanished is noticed within two minutes. TCP_KEEPALIVE is macOS's name for TCP_KEEPIDLE, and only Linux has
# TCP_USER_TIMEOUT, the milliseconds for which data may stay unacknowledged.
_TCP_OPTIONS = {"KEEPIDLE": 60, "KEEPALIVE": 60, "KEEPINTVL": 10, "KEEPCNT": 6, "USER_TIMEOUT": 120_000}

# These options make a client send by other means than one transport of its own.
_OTHER_WAYS = {"transport", "proxy", "proxies", "mounts"}
_PROXY_SCHEMES = {"http", "https", "all"}
_OF_A_TRANSPORT = {"verify", "cert", "trust_env", "http1", "http2", "limits"}
_TAKES_SOCKET_OPTIONS = "socket_options" in signature(httpx.HTTPTransport).parameters  # since httpx 0.25


def connection_options(http_options: dict[str, Any], transport: Any = None) -> dict[str, Any]:
    """Complete the options of an HTTP client: trust, pool and sockets, where the caller has not chosen them.

    `transport` is the class of transport that the client uses. If a proxy is configured, the options contain no
    transport: the HTTP library makes the connections, and `set_keep_alive()` sets the options of their sockets later.
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
    # getproxies() takes 100 us. Only macOS and Windows keep proxies outside of the environment as well.
    named = sys.platform in {"darwin", "win32"} or "_proxy" in " ".join(os.environ).lower()
    in_use = named and options.get("trust_env", True) and _PROXY_SCHEMES & getproxies().keys()
    proxied = in_use or _OTHER_WAYS & options.keys()
    if proxied:
        return options
    if transport is None or not _TAKES_SOCKET_OPTIONS:
        # With trust and proxies settled, the HTTP library would read the environment a second time for nothing.
        return options if "verify" in http_options or "cert" in http_options else options | {"trust_env": False}
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


@cache
def _socket_options() -> tuple[tuple[int, int, int], ...]:
    """List the options that this system takes. An option that it refuses would make every connection fail."""
    known = [(getattr(socket, f"TCP_{name}", None), value) for name, value in _TCP_OPTIONS.items()]
    wanted = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    wanted += [(socket.IPPROTO_TCP, option, value) for option, value in known if option is not None]
    taken: list[tuple[int, int, int]] = []
    with socket.socket() as probe:
        for option in wanted:
            with suppress(OSError):
                probe.setsockopt(*option)
                taken.append(option)
    return tuple(taken)


@lru_cache(maxsize=8)
def _tls_context(trust_env: bool, _http2: bool, *_trust: Any) -> ssl.SSLContext:  # noqa: FBT001  # a cache key
    """Build the context of the HTTP library once for all clients with the same trust settings."""
    return httpx.create_ssl_context(trust_env=trust_env)


def _with_shared_tls(http_options: dict[str, Any]) -> dict[str, Any]:
    """Share TLS contexts between clients, because each takes 20 ms and 0.8 MB. Connections are never shared.

    The key holds what decides whom to trust, with the times of files, and the HTTP version, which is set in a context.
    """
    if http_options.get("verify", True) is not True or "cert" in http_options:
        return http_options
    trust_env, http2 = bool(http_options.get("trust_env", True)), bool(http_options.get("http2"))
    trust = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")]
    times: list[float] = []
    for path in filter(None, trust[:2]):
        with suppress(OSError):  # the HTTP library reports it
            times.append(Path(path).stat().st_mtime)
    return http_options | {"verify": _tls_context(trust_env, http2, *trust, *times)}
