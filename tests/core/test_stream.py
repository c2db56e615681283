"""A stream is complete or raises an error. Over real sockets, for every flavour of client."""

from __future__ import annotations

import gzip
import json
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DELTA, DONE, RESPONSE, RESPONSE_EVENTS, event, long_form, response_event
from calling import collect, responses_streamed, streamed, warnings_in
from loopback import EVENTS, Answer, Loopback, completion

from deepseek_gateway import GatewayConfig, create_client

if TYPE_CHECKING:
    from calling import Call, ConfigAt


def contents(chunks: list[Any]) -> list[str]:
    return [chunk.choices[0].delta.content for chunk in chunks]


def byte_by_byte(body: bytes) -> tuple[bytes, ...]:
    return tuple(bytes([byte]) for byte in body)


def unnamed(event: bytes) -> bytes:
    """Leave out the `event:` line of an event."""
    return event[event.index(b"data:") :]


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
        began = time.monotonic()
        got = collect(flavour, config_at(gateway), streamed, timeout=20)
        assert (got.error, len(got)) == (None, 1)
        assert time.monotonic() - began < 10

    def test_done_alone_ends_a_stream_whose_connection_breaks(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((b"data: [DONE]",), ending="broken")
        got = collect(flavour, config_at(gateway), streamed, max_retries=0)
        assert (list(got), got.error) == ([], None)

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
        how = "ended" if ending == "clean" else "broke off"
        assert str(got.error).startswith(f"The stream {how} before [DONE], after {size:,} bytes; what came until then ")
        assert contents(got)[:1] == (["a"] if event("a") in pieces else [])
        assert got.error.request.headers["authorization"] == "[redacted]"
        assert len(gateway.received) == 1

    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
    @pytest.mark.parametrize("ending", ["clean", "broken"])
    def test_cut_at_any_byte_of_the_first_event_raises_a_connection_error(
        self, gateway: Loopback, config_at: ConfigAt, line_end: bytes, ending: str
    ) -> None:
        kinds = [(streamed, self.SHORT), (responses_streamed, RESPONSE_EVENTS[0])]
        with create_client(config_at(gateway), max_retries=0) as client:
            for use, first in kinds:
                whole = first.replace(b"\n", line_end)
                for cut in range(len(whole) + 1):
                    gateway.answer = lambda _, sent=whole[:cut]: Answer((sent,) if sent else (), ending=ending)
                    with pytest.raises(openai.APIConnectionError, match=rf"after {cut} bytes"):
                        list(use(client))

    def test_stalled_stream_raises_a_timeout_error_after_the_events_that_came(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"),), ending="stall")
        got = collect(flavour, config_at(gateway), streamed, timeout=0.2, max_retries=0)
        assert type(got.error) is openai.APITimeoutError
        assert "The stream stalled before [DONE], after" in str(got.error)
        assert got.error.request.headers["authorization"] == "[redacted]"
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

    @pytest.mark.parametrize("padding", [b"", b'"p":"f002a9",'], ids=["plain", "padded"])
    def test_terminal_event_named_inside_another_event_does_not_end_the_stream(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, padding: bytes
    ) -> None:
        named = {**RESPONSE, "metadata": {"type": "response.completed"}}
        echo = response_event("response.created", response=named)
        for events in ((echo, *RESPONSE_EVENTS[1:]), tuple(unnamed(each) for each in (echo, *RESPONSE_EVENTS[1:]))):
            pieces = tuple(each.replace(b"data: {", b"data: {" + padding) for each in events)
            gateway.answer = lambda _, pieces=pieces: Answer(pieces)  # type: ignore[misc]
            got = collect(flavour, config_at(gateway), responses_streamed)
            assert got.error is None
            assert len(got) == 3
            gateway.answer = lambda _, pieces=pieces: Answer(pieces[:2])  # type: ignore[misc]
            assert type(collect(flavour, config_at(gateway), responses_streamed).error) is openai.APIConnectionError

    @pytest.mark.parametrize("after", [(), RESPONSE_EVENTS[1:]], ids=["nothing", "events"])
    def test_events_after_an_error_event_are_delivered_as_by_a_bare_client(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, after: tuple[bytes, ...]
    ) -> None:
        error = response_event("error", code="x", message="gone wrong", param=None, sequence_number=1)
        gateway.answer = lambda _: Answer((RESPONSE_EVENTS[0], error, *after))
        with openai.OpenAI(api_key="k", base_url=gateway.url, max_retries=0) as bare:
            expected = [each.type for each in responses_streamed(bare)]
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert got.error is None
        assert [each.type for each in got] == expected

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
            (FIRST.replace(b"limited", b"\xff") + b"\n\n",),
            byte_by_byte(FIRST + b"\n\n"),
        ],
        ids=[
            "whole",
            "comment first",
            "cut in a comment",
            "cut",
            "with fields",
            "no line end",
            "no UTF-8",
            "byte by byte",
        ],
    )
    def test_gateway_error_in_the_first_event_is_raised_with_its_code(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), streamed)
        assert "429 ai_gateway_error (2003): the gateway's own rate limit is reached" in caplog.text
        assert (got, got.error.code, got.error.type) == ([], "2003", "ai_gateway_error")
        assert "429 from AI Gateway, not from DeepSeek: the gateway's own rate limit" in str(got.error)

    def test_deepseek_error_in_the_first_event_is_raised_as_in_a_bare_client(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        error = {"message": "busy", "type": "server_error"}
        gateway.answer = lambda _: Answer([{"error": error}])
        got = collect(flavour, config_at(gateway), streamed)
        assert (got, type(got.error), got.error.body) == ([], openai.APIError, error)
        assert warnings_in(caplog) == []

    def test_first_event_whose_error_is_null_is_delivered(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer([EVENTS[0] | {"error": None}])
        assert contents(collect(flavour, config_at(gateway), streamed)) == ["Hel"]

    def test_error_after_an_event_is_raised_as_in_a_bare_client(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        later = b'data: {"error": {"message": "gone wrong", "code": "x"}}\n\n'
        gateway.answer = lambda _: Answer((event("a"), later))
        got = collect(flavour, config_at(gateway), streamed)
        assert contents(got) == ["a"]
        assert (type(got.error), got.error.message, got.error.code) == (openai.APIError, "gone wrong", "x")


class TestComments:
    """A comment before the first event reaches the reader at once, so that a relay can pass it on."""

    def test_comment_passes_before_the_first_event(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer((b": keep-alive\n\n", b": again\n\n"), ending="stall")
        with (
            create_client(config_at(gateway), timeout=0.5, max_retries=0) as client,
            client.chat.completions.with_streaming_response.create(model="m", messages=[], stream=True) as response,
        ):
            arrived = response.iter_bytes()
            assert next(arrived) + next(arrived) == b": keep-alive\n\n: again\n\n"
            with pytest.raises(openai.APITimeoutError):
                next(arrived)

    def test_megabytes_of_comments_cost_time_in_proportion(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        comments = b": keep-alive\n\n" * 1000
        gateway.answer = lambda _: Answer((*[comments] * 300, event("a"), DONE))
        began = time.perf_counter()
        assert contents(call(config_at(gateway), streamed)) == ["a"]
        assert time.perf_counter() - began < 10  # 4 MB; the time once grew with the square


class TestLabels:
    """What begins like events and was asked for as a stream is a stream, whatever it is labelled."""

    @pytest.mark.parametrize("label", ["application/json", "text/html; charset=utf-8", "text/plain"])
    @pytest.mark.parametrize("start", [b"", b": keep-alive\n\n", b"\n\n", b"id: 1\n"])
    def test_stream_with_a_wrong_label_is_delivered_and_checked(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, label: str, start: bytes
    ) -> None:
        whole = start + event("a") + event("b") + DONE
        gateway.answer = lambda _: Answer(whole, headers={"content-type": label})
        got = collect(flavour, config_at(gateway), streamed)
        assert (contents(got), got.error) == (["a", "b"], None)
        gateway.answer = lambda _: Answer(whole[: -len(DONE)], headers={"content-type": label})
        got = collect(flavour, config_at(gateway), streamed)
        assert contents(got) == ["a", "b"]
        assert type(got.error) is openai.APIConnectionError

    @pytest.mark.parametrize("ending", [DONE, b""], ids=["whole", "cut"])
    def test_stream_of_a_mock_transport_is_delivered_and_checked(self, ending: bytes) -> None:
        httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])  # type: ignore[union-attr]
        answer = {"headers": {"content-type": "text/event-stream"}, "content": event("a") + ending}
        transport = httpx.MockTransport(lambda _: httpx.Response(200, **answer))
        config = GatewayConfig(account_id="acct", api_key="the-key")
        with create_client(config, http_options={"transport": transport}, max_retries=0) as client:
            stream = streamed(client)
            assert next(stream).choices[0].delta.content == "a"
            if ending:
                assert list(stream) == []
            else:
                with pytest.raises(openai.APIConnectionError, match=r"ended before \[DONE\]"):
                    next(stream)

    def test_body_of_a_mock_transport_that_is_no_stream_is_an_error(self) -> None:
        httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__.partition(".")[0])  # type: ignore[union-attr]
        transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"text"))
        config = GatewayConfig(account_id="acct", api_key="the-key")
        with (
            create_client(config, http_options={"transport": transport}, max_retries=0) as client,
            pytest.raises(openai.APIStatusError, match="200 came with no content type in place of a stream: text"),
        ):
            streamed(client)

    def test_status_201_is_kept(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda request: Answer(completion(request).body, 201)
        with (
            create_client(config_at(gateway)) as client,
            client.chat.completions.with_streaming_response.create(model="m", messages=[]) as response,
        ):
            assert response.status_code == 201
