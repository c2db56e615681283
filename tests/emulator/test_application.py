"""Delivery of responses: cut, stalled, delayed, with filler, reset. Also crashes of the emulator itself."""

import asyncio
import http.client
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from emulated import (
    BOTH,
    OFF,
    PROVIDER,
    STREAM,
    ask,
    client_of,
    read,
    send,
)

from deepseek_gateway.emulator import Emulator


@pytest.mark.parametrize("size", [0, 1, 200, 700])
@pytest.mark.parametrize("asked", [ask(), STREAM, ask(input="x", stream=True)], ids=["plain", "stream", "thinking"])
def test_cut_response_ends_after_the_given_bytes_cleanly_or_not(emulator: Emulator, size: int, asked: Any) -> None:
    whole = send(emulator, PROVIDER, BOTH, asked).body
    emulator.fail_next(cut_after=size, times=2)
    emulator.fail_next(cut_after=size, clean=True)
    cut = (whole[:size], http.client.IncompleteRead)
    assert [read(emulator, asked) for _ in range(3)] == [cut, cut, (whole[:size], None)]
    assert read(emulator, asked) == (whole, None)


@pytest.mark.parametrize(
    ("fault", "size"), [({"stall_after": 0}, 0), ({"stall_after": 300}, 300), ({"latency": math.inf}, 0)]
)
def test_stalled_response_keeps_the_client_waiting_while_the_request_is_listed(
    emulator: Emulator, fault: Any, size: int
) -> None:
    emulator.requests.clear()
    whole = send(emulator, PROVIDER, BOTH, STREAM).body
    emulator.fail_next(**fault)
    assert read(emulator, STREAM, timeout=0.1) == (whole[:size], TimeoutError)
    assert [len(request.attempts) for request in emulator.requests] == [1, 1]


@pytest.mark.parametrize("fault", [{"stall_after": 5}, {"latency": math.inf}, {"code": 2003, "latency": math.inf}])
def test_stalled_response_ends_when_the_emulator_stops(fault: Any) -> None:
    threads = threading.active_count()
    with Emulator() as emulator:
        emulator.fail_next(**fault)
        ended: list[Any] = []
        client = threading.Thread(target=lambda: ended.append(read(emulator, STREAM)))
        client.start()
        while not emulator.requests:
            time.sleep(0.001)
        time.sleep(0.02)
        begun = time.perf_counter()
    client.join()
    assert time.perf_counter() - begun < 0.5
    assert ended[0][1] in {http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionResetError}
    assert threading.active_count() == threads


def test_stalled_response_is_cancelled_when_the_client_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, ended = threading.Event(), threading.Event()
    sleep = asyncio.sleep

    async def watched(delay: float) -> None:
        try:
            if delay == math.inf:
                waiting.set()
            await sleep(delay)
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr(asyncio, "sleep", watched)
    with Emulator() as emulator:
        for fault in ({"stall_after": 5}, {"latency": math.inf}, {"stall_after": 0, "status": 503}):
            emulator.fail_next(**fault)  # type: ignore[arg-type]
            assert read(emulator, STREAM, timeout=0.05)[1] is TimeoutError
            assert waiting.is_set()
            assert ended.wait(5)
            waiting.clear()
            ended.clear()


def test_reset_ends_the_connection_without_a_response() -> None:
    with Emulator() as emulator:
        emulator.fail_next(reset=True)
        assert read(emulator) == (b"", ConnectionResetError)
        assert [request.attempts for request in emulator.requests] == [[]]
        assert read(emulator)[1] is None
        address = emulator.url.removeprefix("http://")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address).connect()


def test_filler_precedes_plain_json_and_separates_the_events_of_a_stream(emulator: Emulator) -> None:
    whole, streamed = (send(emulator, PROVIDER, BOTH, asked).body for asked in (ask(), STREAM))
    emulator.fail_next(keep_alive=2, times=2)
    assert send(emulator, PROVIDER, BOTH, ask()).body == b"\n\n" + whole
    first, *rest = streamed.split(b"\n\n")[:-1]
    filled = b"".join(b": keep-alive\n\n" + event + b"\n\n" for event in rest)
    comment = b": keep-alive\n\n"
    assert send(emulator, PROVIDER, BOTH, STREAM).body == comment * 2 + first + b"\n\n" + filled
    emulator.fail_next(keep_alive=2, times=2)
    with client_of(emulator) as client:
        asked: Any = {**ask(), "extra_body": OFF}
        assert client.chat.completions.create(**asked).choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(**asked, stream=True))
    assert len(chunks) == len(rest)


@pytest.mark.parametrize("filler", [0, 2])
def test_latency_delays_the_headers_unless_filler_is_sent(emulator: Emulator, filler: int) -> None:
    emulator.fail_next(latency=0.2, keep_alive=filler)
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)
    begun = time.perf_counter()
    connection.request("POST", PROVIDER, json.dumps(STREAM), BOTH)
    response = connection.getresponse()
    headers = time.perf_counter() - begun
    assert response.read().endswith(b"[DONE]\n\n")
    connection.close()
    assert time.perf_counter() - begun >= 0.2
    assert (headers < 0.2) == bool(filler)


def test_broken_responses_are_not_logged(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    for fault in ({"cut_after": 5}, {"reset": True}, {"stall_after": 5}):
        emulator.fail_next(**fault)  # type: ignore[arg-type]
        read(emulator, STREAM, timeout=0.05)
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


def test_request_body_shorter_than_its_length_never_reaches_the_gateway(emulator: Emulator) -> None:
    emulator.requests.clear()
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) as half:
        half.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert len(emulator.requests) == 1


def test_crash_in_the_emulator_is_answered_with_500_and_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("a mistake in here")

    monkeypatch.setattr("deepseek_gateway.emulator._deepseek.DeepSeek.answer", fail)
    emulator = Emulator()
    with (
        pytest.raises(RuntimeError, match=r"fault of the emulator.* 2 time.* LookupError..a mistake") as caught,
        emulator,
    ):
        answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(2)]
    assert isinstance(caught.value.__cause__, LookupError)
    assert [(answer.status, answer.headers["x-emulator-fault"]) for answer in answers] == [(500, "1")] * 2
    assert answers[0].headers["content-type"].startswith("text/plain")
    assert b"The emulator itself failed to answer" in answers[0].body
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []

    with pytest.raises(KeyError, match="absent") as other, emulator:
        _ = send(emulator, PROVIDER, BOTH, ask()).headers["absent"]
    assert "fault of the emulator" in other.value.__notes__[0]

    async def main() -> None:
        async with emulator:
            await asyncio.to_thread(send, emulator, PROVIDER, BOTH, ask())

    with pytest.raises(RuntimeError, match="fault of the emulator"):
        asyncio.run(main())
    with emulator:
        assert send(emulator, "/").status == 400


def test_crash_during_a_response_ends_the_connection_and_is_raised_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[Any]:
        yield b"{", 0.0
        raise LookupError("a mistake in here")

    monkeypatch.setattr("deepseek_gateway.emulator._application._pieces", fail)
    with (
        pytest.raises(RuntimeError, match="LookupError"),
        Emulator() as emulator,
        pytest.raises(http.client.IncompleteRead),
    ):
        send(emulator, PROVIDER, BOTH, ask())


def test_emulator_logs_nothing(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    send(emulator, PROVIDER, BOTH, ask())
    with Emulator() as other:
        send(other, "/")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
