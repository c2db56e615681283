"""Streams through the forwarder: passed on as they come, cut where they are cut, closed when the program hangs up."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from calling import MESSAGES, streamed
from commands import pieces
from forwarded import forwarder
from loopback import Answer

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forwarded import Running
    from loopback import Loopback

    from deepseek_gateway import GatewayConfig

BODY = json.dumps({"model": "deepseek-flash", "messages": MESSAGES, "stream": True})
COMMENT = b": keep-alive\n\n"


@contextmanager
def asked(forward: Running) -> Iterator[http.client.HTTPResponse]:
    """Ask for a stream and give its response, of which nothing has been read."""
    connection = http.client.HTTPConnection(forward.host, timeout=10)
    headers = {"authorization": f"Bearer {forward.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", BODY, headers)
    try:
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def test_events_and_comments_are_passed_on_byte_for_byte(forward: Running, gateway: Loopback) -> None:
    first, *others = pieces("Hel", "lo.")
    sent = (COMMENT, first, COMMENT, *others)
    gateway.answer = lambda _: Answer(sent)
    with asked(forward) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.read() == b"".join(sent)


def test_each_event_and_comment_is_passed_on_before_the_next_one_comes(forward: Running, gateway: Loopback) -> None:
    first, *_ = pieces("Hello.")
    gateway.answer = lambda _: Answer((first, COMMENT), ending="stall")
    with asked(forward) as response:
        assert response.read(len(first)) == first
        assert response.read(len(COMMENT)) == COMMENT


def test_comment_before_the_first_event_is_passed_on_at_once(forward: Running, gateway: Loopback) -> None:
    gateway.answer = lambda _: Answer((COMMENT,), ending="stall")
    with asked(forward) as response:
        assert response.read(len(COMMENT)) == COMMENT


def test_done_event_without_its_blank_line_gets_one(forward: Running, gateway: Loopback) -> None:
    *events, _ = pieces("Hello.")
    gateway.answer = lambda _: Answer((*events, b"data: [DONE]"))
    with asked(forward) as response:
        assert response.read().endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("ending", ["clean", "broken"])
def test_stream_that_ends_early_is_cut_for_the_program_too(ending: str, forward: Running, gateway: Loopback) -> None:
    sent = pieces("Hel", end=False)
    gateway.answer = lambda _: Answer(sent, ending=ending)
    with asked(forward) as response, pytest.raises(http.client.IncompleteRead) as caught:
        response.read()
    assert caught.value.partial == b"".join(sent)
    line = forward.last_line()
    assert (line.status, line.ending) == (200, "cut off")


def test_program_that_hangs_up_closes_the_upstream_connection(forward: Running, gateway: Loopback) -> None:
    first, *_ = pieces("Hello.")
    gateway.answer = lambda _: Answer((first,), ending="stall")
    with asked(forward) as response:
        assert response.read(len(first)) == first
    line = forward.last_line()
    assert (line.status, line.ending) == (200, "hung up")


def test_program_that_hangs_up_before_an_answer_closes_the_upstream_connection() -> None:
    with Emulator(latency=60) as emulator, forwarder(emulator.config()) as running:
        client = http.client.HTTPConnection(running.host, timeout=10)
        client.request("POST", "/v1/chat/completions", BODY, {"authorization": f"Bearer {running.key}"})
        while not emulator.requests:
            time.sleep(0.01)
        client.close()
        line = running.last_line()
        assert (line.status, line.ending) == (None, "hung up")


def test_program_that_hangs_up_while_it_sends_a_body_starts_no_call(forward: Running, gateway: Loopback) -> None:
    client = http.client.HTTPConnection(forward.host, timeout=10)
    client.putrequest("POST", "/v1/chat/completions")
    client.putheader("authorization", f"Bearer {forward.key}")
    client.putheader("content-length", "100")
    client.endheaders(b"{")
    client.close()
    assert forward.last_line().ending == "hung up"
    assert gateway.received == []


def test_stream_has_its_tokens_in_the_log() -> None:
    with Emulator() as emulator, forwarder(emulator.config()) as running, running.client() as client:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed(client))
        line = running.last_line()
    assert (line.status, line.ending) == (200, "")
    assert line.call
    assert line.call.usage
    assert line.call.usage.completion_tokens > 0


def test_forwarder_stops_at_once_with_a_stream_open(gateway: Loopback, config_at: Callable[..., GatewayConfig]) -> None:
    first, *_ = pieces("Hello.")
    gateway.answer = lambda _: Answer((first,), ending="stall")
    with forwarder(config_at(gateway)) as running, asked(running) as response:
        assert response.read(len(first)) == first
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 1
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
