"""Starting and stopping the server."""

import asyncio
import gc
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from emulated import (
    BOTH,
    PROVIDER,
    TOKEN,
    ask,
    send,
)

from deepseek_gateway._server import Server
from deepseek_gateway.emulator import Emulator

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\n\r\n"


def test_emulator_stops_at_once_with_connections_open() -> None:
    threads = threading.active_count()
    with Emulator() as emulator:
        address = ("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        with socket.create_connection(address) as idle, socket.create_connection(address) as half:
            half.sendall(b"POST /deepseek/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            send(emulator, "/")
            begun = time.perf_counter()
            emulator.__exit__(None, None, None)
            assert time.perf_counter() - begun < 0.5
            assert (idle.recv(1), half.recv(1)) == (b"", b"")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address)
    assert threading.active_count() == threads


def test_stop_closes_connections_that_are_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    left_over: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: left_over.append(repr(said.exc_value)))
    for attempt in range(40):
        with Emulator() as emulator:
            client = socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            time.sleep(attempt % 8 * 0.0001)
        client.close()
    gc.collect()
    assert left_over == []


def test_stop_raises_when_the_thread_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = threading.Event(), threading.Event()

    async def never(*_: object) -> None:
        begun.set()
        released.wait()
        await asyncio.sleep(math.inf)

    monkeypatch.setattr("deepseek_gateway._server._MAX_STOP", 0.1)
    monkeypatch.setattr("deepseek_gateway.emulator._gateway.Gateway.answer", never)
    before = set(threading.enumerate())
    emulator = Emulator().__enter__()
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert begun.wait(5)
        with pytest.raises(RuntimeError, match="did not stop"):
            emulator.__exit__(None, None, None)
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_emulator_runs_once_at_a_time_and_can_run_again() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.url
    with emulator, pytest.raises(RuntimeError, match="already"):
        emulator.__enter__()
    with emulator:
        assert send(emulator, "/").status == 400


def test_port_in_use_raises_in_the_caller() -> None:
    with Emulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), Emulator(port=port):
            pass
    with Emulator(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_many_emulators_run_at_once_and_stay_apart() -> None:
    emulators = [Emulator(api_key=f"key-{number}") for number in range(20)]
    for emulator in emulators:
        emulator.__enter__()
    try:
        for number, emulator in enumerate(emulators):
            headers = TOKEN | {"authorization": f"Bearer key-{number}"}
            assert [send(each, PROVIDER, headers, ask()).status for each in emulators[:3]].count(200) == (number < 3)
            assert send(emulator, PROVIDER, headers, ask()).status == 200
    finally:
        for emulator in emulators:
            emulator.__exit__(None, None, None)


def test_emulator_serves_in_an_async_with_block() -> None:
    async def main() -> int:
        async with Emulator() as emulator:
            return (await asyncio.to_thread(send, emulator, PROVIDER, BOTH, ask())).status

    assert asyncio.run(main()) == 200


@contextmanager
def asked(application: Any) -> Iterator[socket.socket]:
    """Serve an application, and give a connection on which a request has been sent."""
    server = Server(application, 0, name="test")
    try:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=5) as client:
            client.sendall(REQUEST)
            yield client
    finally:
        assert server.stop()


def test_application_can_close_and_reset_the_connection_of_its_request() -> None:
    async def closes(scope: Any, *_: object) -> None:
        scope["state"]["connection"].end()

    async def resets(scope: Any, *_: object) -> None:
        scope["state"]["connection"].end(reset=True)

    with asked(closes) as client:
        assert client.recv(1) == b""
    with asked(resets) as client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_headers_of_a_proxy_do_not_change_the_address_and_the_scheme_of_a_request() -> None:
    scopes: list[Any] = []

    async def closes(scope: Any, *_: object) -> None:
        scopes.append(scope)
        scope["state"]["connection"].end()

    with asked(closes) as client:
        assert client.recv(1) == b""
        assert [(scope["client"], scope["scheme"]) for scope in scopes] == [(client.getsockname(), "http")]


def test_thread_has_the_name_of_its_server_and_does_not_keep_the_program_running() -> None:
    server = Server(Emulator(), 0, name="a name")  # type: ignore[arg-type]  # no request comes
    try:
        assert [thread.daemon for thread in threading.enumerate() if thread.name == "a name"] == [True]
    finally:
        assert server.stop()


def test_server_logs_no_request_and_leaves_logging_alone(caplog: pytest.LogCaptureFixture) -> None:
    with Emulator() as emulator, caplog.at_level(logging.INFO):
        send(emulator, "/")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
    assert logging.getLogger("uvicorn").handlers == []
