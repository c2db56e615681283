"""A stream is complete or raises an error. Over real sockets, for every flavour of client."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DELTA, DONE, RESPONSE, RESPONSE_EVENTS, event, long_form, response_event
from calling import collect, responses_streamed, streamed
from loopback import Answer, Loopback

if TYPE_CHECKING:
    from calling import Call, ConfigAt


def contents(chunks: list[Any]) -> list[str]:
    return [chunk.choices[0].delta.content for chunk in chunks]


def byte_by_byte(body: bytes) -> tuple[bytes, ...]:
    return tuple(bytes([byte]) for byte in body)


class TestChat:
    """A chat stream ends with `[DONE]`. Nothing is lost or repeated."""

    SHORT = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    WHOLE: dict[str, tuple[bytes, ...]] = {
        "one piece": (event("a") + event("b") + DONE,),
        "a piece for each event": (event("a"), event("b"), DONE),
        "cut in [DONE]": (event("a"), event("b"), b"data: [D", b"ONE]\n\n"),
        "no line end after [DONE]": (event("a"), event("b"), b"data: [DONE]"),
        "no space before [DONE]": (event("a"), event("b"), b"data:[DONE]\n\n"),
        "comments": (
            b": keep-alive\n\n",
            b"\n\n",
            event("a"),
            b": keep-alive\n\n",
            event("b"),
            DONE,
            b": bye\n\n" * 99,
        ),
        "CRLF": tuple(piece.replace(b"\n", b"\r\n") for piece in (event("a"), event("b"), DONE)),
        "byte by byte": byte_by_byte(SHORT + SHORT.replace(b'"a"', b'"b"') + DONE),
    }

    @pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
    @pytest.mark.parametrize("ending", ["clean", "broken"])
    def test_whole_stream_passes_in_any_pieces_even_if_the_connection_breaks_after_it(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any, ending: str
    ) -> None:
        gateway.answer = lambda _: Answer(pieces, ending=ending)
        got = collect(flavour, config_at(gateway), streamed)
        assert got.error is None
        assert contents(got) == ["a", "b"]

    def test_stream_that_stalls_after_done_ends_without_an_error(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"), DONE), ending="stall")
        got = collect(flavour, config_at(gateway), streamed, timeout=0.2)
        assert (got.error, len(got)) == (None, 1)

    CUT: dict[str, tuple[bytes, ...]] = {
        "empty": (),
        "comment only": (b": keep-alive\n\n",),
        "after one event": (event("a"),),
        "[DONE] in a text only": (event("a"), event("data: [DONE]")),
        "in [DONE]": (event("a"), event("x"), b"data: [DON"),
        "in an event": (event("a"), event("x")[:-20]),
    }

    @pytest.mark.parametrize("pieces", CUT.values(), ids=CUT)
    @pytest.mark.parametrize("ending", ["clean", "broken"])
    @pytest.mark.usefixtures("info_logging")
    def test_cut_stream_raises_a_connection_error_that_says_how_much_arrived(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any, ending: str
    ) -> None:
        gateway.answer = lambda _: Answer(pieces, ending=ending)
        got = collect(flavour, config_at(gateway), streamed, max_retries=0)
        size = len(b"".join(pieces))
        assert type(got.error) is openai.APIConnectionError, got.error
        assert f"before [DONE], after {size:,} bytes; what came until then was delivered" in str(got.error)
        assert contents(got)[:1] == (["a"] if event("a") in pieces else [])
        assert got.error.request.headers["authorization"] == "[redacted]"
        assert len(gateway.received) == 1

    def test_stalled_stream_raises_a_timeout_error_after_the_events_that_came(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"),), ending="stall")
        got = collect(flavour, config_at(gateway), streamed, timeout=0.2, max_retries=0)
        assert type(got.error) is openai.APITimeoutError
        assert "The stream stalled before [DONE], after" in str(got.error)
        assert len(got) == 1

    @pytest.mark.parametrize(("body", "whole"), [(event("a") + DONE, True), (event("a"), False)], ids=["whole", "cut"])
    def test_compressed_stream_is_checked_for_its_end(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, body: bytes, whole: bool
    ) -> None:
        headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
        gateway.answer = lambda _: Answer((gzip.compress(body),), headers=headers)
        got = collect(flavour, config_at(gateway), streamed)
        assert contents(got) == ["a"]
        assert (got.error is None) == whole

    @pytest.mark.parametrize("kind", ["text/plain", "", "application/octet-stream"], ids=["text", "none", "binary"])
    @pytest.mark.parametrize(
        ("body", "expected", "whole"),
        [(b"hello", [], False), (event("a") + DONE, ["a"], True)],
        ids=["no events", "events"],
    )
    def test_stream_with_another_content_type_is_checked_for_its_end(
        self,
        flavour: str,
        gateway: Loopback,
        config_at: ConfigAt,
        kind: str,
        body: bytes,
        expected: list[str],
        whole: bool,
    ) -> None:
        gateway.answer = lambda _: Answer((body,), headers={"content-type": kind})
        got = collect(flavour, config_at(gateway), streamed)
        assert contents(got) == expected
        assert (got.error is None) == whole

    def test_closing_a_stream_early_closes_its_connection_and_raises_nothing(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"), event("b")), ending="stall")

        def use(client: Any) -> Any:
            if flavour == "sync":
                with streamed(client) as stream:
                    return next(iter(stream)).choices[0].delta.content

            async def main() -> Any:
                async with await streamed(client) as stream:
                    return (await stream.__anext__()).choices[0].delta.content

            return main()

        assert call(config_at(gateway), use) == "a"
        gateway.ended.set()
        assert gateway.until(lambda: gateway.open_connections == 0)


class TestResponses:
    """A stream of `/responses` ends with its terminal event."""

    @pytest.mark.parametrize("split", [None, 7, 1000], ids=["by event", "7 bytes", "1000 bytes"])
    @pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
    def test_whole_stream_of_responses_passes_in_any_pieces(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, split: int | None, kind: str
    ) -> None:
        whole = b"".join(RESPONSE_EVENTS).replace(b"response.completed", f"response.{kind}".encode())
        pieces = (*RESPONSE_EVENTS[:2], whole[len(b"".join(RESPONSE_EVENTS[:2])) :])
        if split:
            pieces = tuple(whole[start : start + split] for start in range(0, len(whole), split))
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert got.error is None
        assert [item.type for item in got] == ["response.created", "response.output_text.delta", f"response.{kind}"]

    def test_terminal_event_without_an_event_line_ends_the_stream(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        whole = (
            b'data: {"sequence_number":3,"type":"response.completed","response":%s}\n\n' % json.dumps(RESPONSE).encode()
        )
        gateway.answer = lambda _: Answer((whole,))
        assert collect(flavour, config_at(gateway), responses_streamed).error is None

    @pytest.mark.parametrize(
        "pieces",
        [
            RESPONSE_EVENTS[:2],
            (*RESPONSE_EVENTS[:2], RESPONSE_EVENTS[2][:40]),
            (*RESPONSE_EVENTS[:2], RESPONSE_EVENTS[2][:-2]),
            (response_event("response.output_text.delta", **(DELTA | {"delta": "\nevent: response.completed\n"})),),
        ],
        ids=["no terminal event", "cut in its first line", "cut in its data", "terminal event in a text only"],
    )
    @pytest.mark.usefixtures("info_logging")
    def test_cut_stream_of_responses_raises_a_connection_error(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert type(got.error) is openai.APIConnectionError
        assert "before its last event" in str(got.error)


class TestErrors:
    """A gateway error in the first event is explained. A later error is raised as in a bare client."""

    FIRST = b"data: " + json.dumps(long_form(429, 2003, "Rate limited")).encode()

    @pytest.mark.parametrize(
        "pieces",
        [
            (FIRST + b"\n\n",),
            (b": keep-alive\n\n" + FIRST + b"\n\n",),
            (b": keep", b"-alive\n\n" + FIRST + b"\n\n"),
            (FIRST[:20], FIRST[20:] + b"\n\n", DONE),
            (b"event: error\nid: 1\n" + FIRST + b"\r\n\r\n",),
            (FIRST,),
            byte_by_byte(FIRST + b"\n\n"),
        ],
        ids=["whole", "after a comment", "cut in a comment", "cut", "with fields", "no line end", "byte by byte"],
    )
    def test_gateway_error_in_the_first_event_is_raised_with_its_code(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), streamed)
        assert "429 ai_gateway_error (2003): the gateway's own rate limit is reached" in caplog.text
        assert (got, got.error.code, got.error.type) == ([], "2003", "ai_gateway_error")
        assert "429 from AI Gateway, not from DeepSeek: the gateway's own rate limit" in str(got.error)

    def test_error_after_an_event_is_raised_as_in_a_bare_client(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        later = b'data: {"error": {"message": "gone wrong", "code": "x"}}\n\n'
        gateway.answer = lambda _: Answer((event("a"), later))
        got = collect(flavour, config_at(gateway), streamed)
        assert contents(got) == ["a"]
        assert (type(got.error), got.error.message, got.error.code) == (openai.APIError, "gone wrong", "x")
