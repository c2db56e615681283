"""Lifetime of connections, sockets, proxies and TLS. Connections are counted on real sockets."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
import trustme
from calling import KEY, ROUTE_PATH, chat
from loopback import COMPLETION, EVENTS, Answer, Loopback, completion, serve
from proxy import running_proxy

from deepseek_gateway import GatewayConfig, create_async_client, create_client, create_http_client
from deepseek_gateway._connections import KEPT_IDLE, set_keep_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Call = Callable[..., Any]
    ConfigAt = Callable[..., GatewayConfig]

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]

ONE = b"data: " + json.dumps(EVENTS[0]).encode() + b"\n\n"
DONE = b"data: [DONE]\n\n"


def several(count: int, *, stream: bool = False, between: Callable[[], object] = lambda: None) -> Callable[[Any], Any]:
    """Make `count` calls one after the other, and read each stream to its end."""

    def use(client: Any) -> Any:
        if isinstance(client, openai.AsyncOpenAI):
            return use_async(client)
        for _ in range(count):
            answer = chat(client, stream=stream)
            assert not stream or list(answer)
            between()
        return None

    async def use_async(client: Any) -> None:
        for _ in range(count):
            answer = await chat(client, stream=stream)
            assert not stream or [event async for event in answer]
            between()

    return use


class TestKept:
    """A connection goes back to the pool after each answer and each stream, and survives a pause there."""

    # The body ends in the same packet as [DONE], or in a later packet.
    BODIES = {
        "JSON": completion,
        "a stream": completion,
        "a stream in pieces": lambda _: Answer((ONE, ONE, DONE)),
        "a late end": lambda _: Answer((ONE, DONE, b": and then\n\n", b"\n")),
        "a compressed stream": lambda _: Answer((gzip.compress(ONE + DONE),), headers={"content-encoding": "gzip"}),
    }

    @pytest.mark.parametrize("body", BODIES)
    def test_ten_calls_take_one_connection(self, call: Call, gateway: Loopback, config_at: ConfigAt, body: str) -> None:
        gateway.answer = self.BODIES[body]
        call(config_at(gateway), several(10, stream=body != "JSON"))
        assert (len(gateway.received), gateway.connections) == (10, 1)

    def test_connection_survives_a_pause(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, monotonic = [0.0], time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + now[0])

        def pause() -> None:
            now[0] += KEPT_IDLE - 1

        call(config_at(gateway), several(4, between=pause))
        assert gateway.connections == 1
        assert KEPT_IDLE > 6

    def test_limits_of_the_caller_are_used(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        call(config_at(gateway), several(3), http_options={"limits": httpx.Limits(keepalive_expiry=0)})
        assert gateway.connections == 3

    def test_connection_closed_by_the_server_raises_no_error(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda request: Answer(completion(request).body, headers={"connection": "close"})
        call(config_at(gateway), several(3, between=lambda: gateway.until(lambda: not gateway.open_connections)))
        assert (len(gateway.received), gateway.connections) == (3, 3)


class TestDraining:
    """A few bytes after the last event are read to keep the connection. A stream that goes on or stalls is closed."""

    @pytest.mark.parametrize(
        ("rest", "ending"),
        [((), "stall"), ((b": " + b"x" * 70_000 + b"\n\n",) * 3, "clean"), ((), "broken")],
        ids=["stalls", "goes on", "breaks off"],
    )
    def test_stream_that_does_not_end_after_done_costs_only_its_connection(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, rest: tuple[bytes, ...], ending: str
    ) -> None:
        gateway.answer = lambda _: Answer((ONE, DONE, *rest), ending=ending)
        began = time.monotonic()
        call(config_at(gateway), several(2, stream=True), max_retries=0, timeout=20)
        assert gateway.connections == 2
        assert time.monotonic() - began < 10, "the client waited for the whole read timeout"

    def test_abandoned_stream_is_closed_at_once(self, flavour: str, config_at: ConfigAt) -> None:
        with closing_server() as (server, closed):
            if flavour == "sync":
                with create_client(config_at(server)) as client:
                    stream = chat(client, stream=True)
                    next(stream)
                    stream.close()
                    assert closed.wait(5)
                return

            async def abandon() -> None:
                async with create_async_client(config_at(server), transport=flavour) as client:  # type: ignore[arg-type]
                    stream = await chat(client, stream=True)
                    await anext(stream)
                    await stream.close()
                    await asyncio.sleep(0.05)  # aiohttp closes in its event loop
                    assert await asyncio.to_thread(closed.wait, 5)

            asyncio.run(abandon())


@contextmanager
def closing_server() -> Iterator[tuple[Loopback, threading.Event]]:
    """Send the beginning of a stream, and set an event when the client closes the connection."""
    closed = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve_one() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65536)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            client.sendall(head + b"%x\r\n%s\r\n" % (len(ONE), ONE))
            while True:
                try:
                    if not client.recv(65536):
                        break
                except OSError:
                    break
            closed.set()

    threading.Thread(target=serve_one, daemon=True).start()
    loopback = Loopback(completion)
    loopback.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        yield loopback, closed


class TestSockets:
    """TCP keep-alive detects a peer that vanished, with and without a proxy."""

    @pytest.mark.parametrize("proxied", [False, True])
    def test_tcp_keep_alive_is_on(
        self,
        call: Call,
        flavour: str,
        gateway: Loopback,
        config_at: ConfigAt,
        monkeypatch: pytest.MonkeyPatch,
        proxied: bool,
    ) -> None:
        if flavour == "aiohttp":
            pytest.skip("openai's aiohttp client takes no socket options")

        def look(client: Any) -> Any:
            answer = client.chat.completions.with_raw_response.create(model="m", messages=[])
            return look_later(answer) if isinstance(client, openai.AsyncOpenAI) else options(answer)

        async def look_later(answer: Any) -> Any:
            return options(await answer)

        def options(answer: Any) -> dict[str, int]:
            sock = answer.http_response.extensions["network_stream"].get_extra_info("socket")
            names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT", "TCP_NODELAY")
            there = [name for name in names if hasattr(socket, name)]
            tcp = {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in there}
            return {"SO_KEEPALIVE": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)} | tcp

        with running_proxy() as (proxy, seen):
            if proxied:
                monkeypatch.setenv("HTTP_PROXY", proxy)
            found = call(config_at(gateway), look)
            gc.collect()
        assert bool(seen) is proxied
        assert found.pop("SO_KEEPALIVE")
        assert found.pop("TCP_NODELAY")
        wanted = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6, "TCP_USER_TIMEOUT": 120_000}
        assert found == {name: value for name, value in wanted.items() if hasattr(socket, name)}

    def test_socket_has_its_options_before_it_connects(self, gateway: Loopback, config_at: ConfigAt) -> None:
        steps: dict[str, Any] = {}
        with create_http_client(config_at(gateway)) as client:
            client.send(client.build_request("GET", gateway.url, extensions={"trace": steps.__setitem__}))
        assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in steps["connection.connect_tcp.started"]["socket_options"]

    def test_socket_of_the_callers_own_transport_keeps_its_options(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        options = {"transport": httpx.HTTPTransport()}
        with create_http_client(config_at(gateway), http_options=options) as client:
            stream = client.get(gateway.url).extensions["network_stream"]
            assert not stream.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_closed_socket_gets_no_options_and_no_error() -> None:
    class Stream:
        def get_extra_info(self, _: str) -> socket.socket:
            return closed

    closed = socket.socket()
    closed.close()
    set_keep_alive(httpx.Response(200, extensions={"network_stream": Stream()}))


class TestProxies:
    """Proxies from the environment and from `http_options` work as in a bare client."""

    @pytest.mark.parametrize("how", ["environment", "http_options", "NO_PROXY"])
    def test_request_goes_through_the_configured_proxy(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
        flavour: str,
    ) -> None:
        options: dict[str, Any] = {}
        with running_proxy() as (proxy, seen):
            if how == "http_options":
                options = {"http_options": {"proxy": proxy}}
            else:
                monkeypatch.setenv("HTTP_PROXY", proxy)
            if how == "NO_PROXY":
                monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            call(config_at(gateway), chat, **options)
            gc.collect()
        assert len(gateway.received) == 1
        assert gateway.last.path.removeprefix(gateway.url) == ROUTE_PATH["provider"] + "/chat/completions"
        assert gateway.last.header("authorization") == f"Bearer {KEY}"
        assert bool(seen) == (how != "NO_PROXY"), f"{flavour}: {seen}"

    @pytest.mark.parametrize("status", [200, 402])
    @pytest.mark.parametrize("how", ["environment", "proxy", "mounts"])
    def test_response_that_closes_its_connection_arrives_once(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
        status: int,
        flavour: str,
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, status, {"connection": "close"})
        transport = httpx.HTTPTransport if flavour == "sync" else httpx.AsyncHTTPTransport
        with running_proxy() as (proxy, _):
            options = {"environment": {}, "proxy": {"proxy": proxy}, "mounts": {"mounts": {"http://": transport()}}}[
                how
            ]
            if how == "environment":
                monkeypatch.setenv("HTTP_PROXY", proxy)
            if status == 200:
                assert call(config_at(gateway), chat, http_options=options).choices[0].message.content == "Hello."
            else:
                with pytest.raises(openai.APIStatusError, match="402"):
                    call(config_at(gateway), chat, http_options=options)
            gc.collect()
        assert len(gateway.received) == 1


class TestProxiesOfTheEnvironment:
    """A client reads the proxies in the environment as a bare client does."""

    PROXIES = {"HTTP_PROXY": "http://127.0.0.1:11", "HTTPS_PROXY": "127.0.0.1:12"}

    @pytest.mark.parametrize(
        ("environment", "past"),
        [
            ({}, ()),
            (PROXIES, ()),
            ({"ALL_PROXY": "http://127.0.0.1:13"}, ()),
            ({"NO_PROXY": "*"}, ()),
            (PROXIES | {"NO_PROXY": "*"}, ("http://api.example.com", "https://api.example.com")),
            (PROXIES | {"NO_PROXY": "a.test,*"}, ("https://api.example.com",)),
            (PROXIES | {"NO_PROXY": "example.com"}, ("https://example.com", "http://api.example.com")),
            (PROXIES | {"NO_PROXY": " api.example.com , b.test"}, ("https://api.example.com",)),
            (PROXIES | {"NO_PROXY": ".example.com"}, ("https://api.example.com",)),
            (PROXIES | {"NO_PROXY": "https://api.example.com"}, ("https://api.example.com",)),
            (PROXIES | {"NO_PROXY": "localhost"}, ("http://localhost:14",)),
            (PROXIES | {"NO_PROXY": "127.0.0.1,::1"}, ("http://127.0.0.1:14", "http://[::1]:14")),
            (PROXIES | {"NO_PROXY": "10.0.0.0/8"}, ()),
        ],
    )
    def test_client_uses_the_same_proxy_for_each_url_as_a_bare_client(
        self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], past: tuple[str, ...]
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asked: list[tuple[str, int]] = []

        def refuse(address: tuple[str, int], *_: object, **__: object) -> None:
            asked.append(address)
            raise ConnectionRefusedError

        monkeypatch.setattr(socket, "create_connection", refuse)
        urls = {"http://example.com", "https://example.com", "http://api.example.com", "https://api.example.com"}
        urls |= {"http://notexample.com", "http://localhost:14", "http://127.0.0.1:14", "http://[::1]:14"}
        ways: list[dict[str, tuple[str, int]]] = []
        bare = openai.DefaultHttpxClient()
        with bare, create_client(GatewayConfig(account_id="acct", api_key=KEY)) as client:
            for http_client in (bare, client._client):  # noqa: SLF001  # the two HTTP clients are compared
                way: dict[str, tuple[str, int]] = {}
                for url in urls:
                    with pytest.raises(httpx.ConnectError):
                        http_client.get(url)
                    way[url] = asked.pop()
                ways.append(way)
        assert ways[0] == ways[1]
        assert {url for url in urls if environment and ways[1][url][1] not in {11, 12, 13}} >= set(past)

    @pytest.mark.parametrize("hosts", ["https://[bad,ok.test", "10.0.0.0/99"])
    def test_invalid_host_in_no_proxy_is_ignored(self, monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:12")
        monkeypatch.setenv("NO_PROXY", hosts)
        create_client(GatewayConfig(account_id="acct", api_key=KEY)).close()

    def test_transport_mount_or_trust_env_of_the_caller_beats_the_environment(
        self, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:11")
        with create_client(config_at(gateway), http_options={"transport": httpx.HTTPTransport()}) as client:
            chat(client)
        with create_client(config_at(gateway), http_options={"mounts": {"http://": httpx.HTTPTransport()}}) as client:
            chat(client)
        with create_client(config_at(gateway), http_options={"trust_env": False}) as client:
            chat(client)
        assert len(gateway.received) == 3


class TestTls:
    """Clients with the same trust settings share one TLS context. Clients with TLS options of their own do not."""

    @staticmethod
    @contextmanager
    def tls_server(authority: trustme.CA) -> Iterator[str]:
        """Serve completions over TLS with a certificate of a test authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with serve(context=context) as loopback:
            yield loopback.url

    def test_trust_is_decided_when_a_client_is_made(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours, other = trustme.CA(), trustme.CA()
        bundle = tmp_path / "bundle.pem"
        with self.tls_server(ours) as url:
            config = GatewayConfig(endpoint=url, api_key=KEY)

            def answers(**http_options: Any) -> bool:
                try:
                    return bool(call(config, chat, max_retries=0, http_options=http_options))
                except openai.APIConnectionError:
                    return False

            assert not answers()
            assert answers(verify=False)
            assert not answers(), "a client that does not verify has changed the shared context"
            bundle.write_bytes(ours.cert_pem.bytes())
            monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
            assert answers()
            assert not answers(trust_env=False)
            bundle.write_bytes(other.cert_pem.bytes())
            os.utime(bundle, (1, 1))
            assert not answers(), "the changed bundle was not read again"
            own = ssl.create_default_context()
            ours.configure_trust(own)
            assert answers(verify=own)

    def test_tls_context_is_built_once_for_many_clients(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[object] = []
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # a new folder, so its context is not cached yet
        load = ssl.SSLContext.load_verify_locations

        def counted(context: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
            loaded.append(context)
            load(context, *args, **kwargs)

        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", counted)
        config = GatewayConfig(account_id="acct", api_key=KEY)
        clients = [create_client(config) for _ in range(20)]
        asynchronous = [create_async_client(config) for _ in range(20)]
        assert len(loaded) == 1
        create_client(config, http_options={"verify": ssl.create_default_context()})
        assert len(clients) == len(asynchronous) == 20

    def test_ten_calls_and_ten_streams_take_one_handshake_each(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        for stream in (False, True):
            with serve(
                lambda r: Answer((ONE, DONE)) if r.json.get("stream") else completion(r), context=context
            ) as server:
                call(GatewayConfig(endpoint=server.url, api_key=KEY), several(10, stream=stream))
                assert (len(server.received), server.connections) == (10, 1)

    def test_calls_through_a_proxy_share_one_tunnel(
        self, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        authority = trustme.CA()
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(authority.cert_pem.bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        with self.tls_server(authority) as url, running_proxy() as (proxy, seen):
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            call(GatewayConfig(endpoint=url, api_key=KEY), several(3))
            assert seen == [f"CONNECT {url.removeprefix('https://')} HTTP/1.1"]
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            call(GatewayConfig(endpoint=url, api_key=KEY), several(1))
            gc.collect()
        assert len(seen) == 1

    SHARED = """
import os, sys, threading
from deepseek_gateway import GatewayConfig, create_client

config = GatewayConfig(endpoint=sys.argv[1], api_key="key")

def call():
    with create_client(config) as client:
        answer = client.chat.completions.create(model="deepseek-flash", messages=[{"role": "user", "content": "Hi"}])
        assert answer.choices[0].message.content == "Hello."
        done.append(answer)

done = []
if sys.argv[2] == "threads":
    threads = [threading.Thread(target=call) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    sys.exit(len(done) != 8)
call()
child = os.fork()
call()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""

    @pytest.mark.parametrize("how", ["threads", *(["fork"] if hasattr(os, "fork") else [])])
    def test_tls_context_is_shared_by_threads_and_survives_a_fork(self, how: str, tmp_path: Path) -> None:
        authority = trustme.CA()
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(authority.cert_pem.bytes())
        with self.tls_server(authority) as url:
            done = subprocess.run(
                [sys.executable, "-c", self.SHARED, url, how],
                env=os.environ | {"SSL_CERT_FILE": str(bundle)},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert (done.returncode, done.stderr) == (0, "")
