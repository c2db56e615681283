"""The body of a stream, piece by piece and without a connection: what is held back, and what is read after the end."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DONE, event

from deepseek_gateway._merge import MergedChunks
from deepseek_gateway._stream import CheckedBody, DoneMark, Lines, TerminalEvent, Watcher, begins_like_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]
LONGEST = 16_777_216


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):  # type: ignore[misc]
    """A body that counts the pieces that were read, and knows whether it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.read += 1
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Reading:
    """What came of reading a body to its end and closing it, as the SDK does. Reading a `cut` body raises."""

    def __init__(
        self,
        how: str,
        *pieces: bytes,
        more: Iterable[bytes] = (),
        version: bytes = b"HTTP/1.1",
        encoding: str = "",
        stream: bool = True,
        cut: bool = False,
        merged: bool = False,
    ) -> None:
        self.source = Pieces([*pieces, *more] if isinstance(more, tuple) else more)
        self.timeouts = {"read": 600.0}
        self.explained: list[bytes] = []
        self.lines: list[bytes] = []
        self.closings = 0
        self.passed: list[bytes] = []
        request = httpx.Request("POST", "http://127.0.0.1/chat/completions")
        headers = {"content-encoding": encoding} if encoding else {}
        extensions = {"http_version": version}
        response = httpx.Response(200, headers=headers, stream=self.source, request=request, extensions=extensions)
        end = DoneMark() if stream else None
        watcher = Watcher(self.explain, self.lines.append, self.close)
        self.body = CheckedBody(response, end, self.timeouts, watcher, MergedChunks() if merged else None)
        with pytest.raises(openai.APIConnectionError) if cut else nullcontext():
            if how == "sync":
                self.passed.extend(self.body)
                self.body.close()
            else:
                asyncio.run(self.read_asynchronously())

    async def read_asynchronously(self) -> None:
        async for piece in self.body:
            self.passed.append(piece)
        await self.body.aclose()

    def explain(self, data: bytes) -> bytes | None:
        self.explained.append(data)
        return b"EXPLAINED" if b"2003" in data else None

    def close(self) -> None:
        self.closings += 1


@pytest.fixture(params=["sync", "async"])
def how(request: pytest.FixtureRequest) -> str:
    return request.param


class TestFirstEvent:
    """The first event is held back while it may still turn out to be an error of the gateway."""

    FAULT = b'data: {"error": [{"code": 2003}]}\n\n'

    def test_event_passes_at_once_if_it_is_whole(self, how: str) -> None:
        assert Reading(how, event("a"), event("b"), DONE).passed == [event("a"), event("b"), DONE]

    @pytest.mark.parametrize(("size", "first"), [(127, 128), (128, 128)])
    def test_unfinished_event_without_an_error_is_held_back_up_to_128_bytes(
        self, how: str, size: int, first: int
    ) -> None:
        start = b"data: " + b"x" * (size - 6)
        assert len(Reading(how, start, b"y", b"z\n\n", DONE).passed[0]) == first

    @pytest.mark.parametrize(("size", "first"), [(65_535, 65_536), (65_536, 65_536)])
    def test_unfinished_event_that_may_be_an_error_is_held_back_up_to_65536_bytes(
        self, how: str, size: int, first: int
    ) -> None:
        start = b'data: {"error": "'
        passed = Reading(how, start + b"x" * (size - len(start)), b"y", b'z"}\n\n', DONE).passed
        assert len(passed[0]) == first

    @pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
    def test_end_of_the_first_event_is_found_across_pieces(self, how: str, end: bytes) -> None:
        for cut in range(1, len(end) + 1):
            head, tail = end[:cut], end[cut:]
            pieces = [piece for piece in (b"data: 1" + head, tail, b": next\n\n") if piece]
            passed = Reading(how, *pieces, DONE).passed
            assert passed == [b"data: 1" + end, b": next\n\n", DONE]

    def test_event_that_ends_at_the_start_of_a_piece_passes_with_that_piece(self, how: str) -> None:
        passed = Reading(how, b"data: 1\n", b"\n: next", b"\n\n", DONE).passed
        assert passed == [b"data: 1\n\n: next", b"\n\n", DONE]

    @pytest.mark.parametrize("fields", [b"", b": comment\n\n", b"event: error\nid: 1\nretry: 5\n"])
    def test_error_is_explained_and_what_follows_it_is_kept(self, how: str, fields: bytes) -> None:
        reading = Reading(how, fields + self.FAULT + event("a"), DONE)
        assert reading.explained == [b'{"error": [{"code": 2003}]}']
        comment = fields if fields.startswith(b":") else b""
        assert reading.passed == [comment + b"data: EXPLAINED\n\n" + event("a"), DONE]

    @pytest.mark.parametrize(
        ("fault", "after"),
        [(FAULT.replace(b": {", b":{"), b""), (FAULT.replace(b"\n", b"\r\n"), event("a"))],
        ids=["no space", "CRLF"],
    )
    def test_error_is_explained_however_its_event_is_written(self, how: str, fault: bytes, after: bytes) -> None:
        assert Reading(how, fault + after, DONE).passed == [b"data: EXPLAINED\n\n" + after, DONE]

    def test_error_whose_blank_line_never_comes_is_explained_at_the_end(self, how: str) -> None:
        assert Reading(how, self.FAULT[:-1], cut=True).passed == [b"data: EXPLAINED\n\n"]

    def test_comments_and_blank_lines_before_the_first_event_pass_at_once(self, how: str) -> None:
        pieces = [b": keep-alive\r\n\r\n", b" \r\n", b": again\n", event("a"), DONE]
        assert Reading(how, *pieces).passed == pieces

    def test_error_that_is_not_the_gateways_passes_as_it_is(self, how: str) -> None:
        other = b'data: {"error": "x"}\n\n'
        reading = Reading(how, other, DONE)
        assert (reading.explained, reading.passed) == ([b'{"error": "x"}'], [other, DONE])

    def test_event_without_an_error_is_not_looked_at(self, how: str) -> None:
        assert Reading(how, event("a"), self.FAULT, DONE).explained == []


class TestEnd:
    """After the last event, at most 16 KiB more are read. Then the connection is closed."""

    @pytest.mark.parametrize(
        ("after", "read"),
        [
            ((b"x",), 2),
            ((b"x" * 16_384, b"y"), 3),
            ((b"x" * 16_384, b"y", b"z"), 3),
            ((b"x" * 16_385, b"y"), 2),
            ((b"x" * 8_192, b"x" * 8_192, b"y", b"z"), 4),
        ],
    )
    def test_at_most_16_kib_are_read_after_the_last_event(self, how: str, after: tuple[bytes, ...], read: int) -> None:
        reading = Reading(how, DONE, more=after)
        assert reading.passed == [DONE]
        assert reading.source.read == read
        assert (reading.source.closed, reading.closings) == (True, 1)
        if how == "sync":
            assert reading.timeouts == {"read": 0.1}

    def test_nothing_is_read_after_the_last_event_over_http2(self, how: str) -> None:
        reading = Reading(how, DONE, more=(b"x",), version=b"HTTP/2")
        assert (reading.source.read, reading.source.closed) == (1, True)
        assert reading.timeouts == {"read": 600.0}

    def test_empty_pieces_without_an_end_are_read_for_a_tenth_of_a_second_only(self) -> None:
        def endless() -> Iterator[bytes]:
            yield DONE
            while True:
                yield b""

        reading = Reading("sync", more=endless())
        assert reading.source.read > 2
        assert reading.source.closed

    def test_closing_a_second_time_reads_nothing_more(self, how: str) -> None:
        reading = Reading(how, DONE, more=(b"x" * 16_385, b"y", b"z"))
        if how == "sync":
            reading.body.close()
        else:
            asyncio.run(reading.body.aclose())
        assert reading.source.read == 2

    @pytest.mark.parametrize("error", [httpx.ReadError("broken"), httpx.StreamConsumed()], ids=["broken", "consumed"])
    def test_error_after_the_last_event_is_ignored(self, how: str, error: Exception) -> None:
        def broken() -> Iterator[bytes]:
            yield DONE
            raise error

        reading = Reading(how, more=broken())
        assert (reading.passed, reading.source.closed, reading.closings) == ([DONE], True, 1)

    def test_body_that_is_read_a_second_time_is_empty(self, how: str) -> None:
        reading = Reading(how, event("a"), DONE)
        assert len(reading.passed) == 2
        if how == "sync":
            assert list(reading.body) == []

    @pytest.mark.parametrize("merged", [False, True], ids=["as it came", "merged"])
    def test_cut_stream_passes_all_that_came_once(self, how: str, merged: bool) -> None:
        passed = Reading(how, event("a"), b"data: [DO", cut=True, merged=merged).passed
        assert passed == [event("a"), b"data: [DO"]

    @pytest.mark.parametrize("merged", [False, True], ids=["as it came", "merged"])
    def test_last_event_passes_before_its_line_end_comes(self, how: str, merged: bool) -> None:
        assert Reading(how, b"data: [DONE]", more=(b"\n\n",), merged=merged).passed == [b"data: [DONE]"]

    @pytest.mark.parametrize(
        ("stream", "encoding", "decoded", "lines"),
        [(True, "gzip", True, True), (True, "", False, True), (False, "gzip", False, False), (False, "", False, True)],
    )
    def test_body_is_decoded_if_it_is_a_compressed_stream_and_lines_are_reported_of_plain_text_only(
        self, how: str, stream: bool, encoding: str, decoded: bool, lines: bool
    ) -> None:
        plain = event("a") + DONE
        sent = gzip.compress(plain) if encoding else plain
        reading = Reading(how, sent, encoding=encoding, stream=stream)
        assert reading.body.decoded is decoded
        assert b"".join(reading.passed) == (plain if decoded else sent)
        assert b"\n".join(reading.lines) == (plain if lines else b"")

    def test_each_line_is_reported_and_the_rest_when_the_body_is_closed(self, how: str) -> None:
        assert Reading(how, b"data: 1\n\nda", DONE[2:]).lines == [b"data: 1", b"", b"data: [DONE]", b"", b""]


class TestLines:
    """Chunks become lines. A line of more than 16 MiB is given up, so that the memory stays bounded."""

    @pytest.mark.parametrize(("extra", "given_up"), [(0, False), (1, True)])
    @pytest.mark.parametrize("before", [b"", b"a line\n"])
    def test_line_of_more_than_16_mib_is_given_up(self, before: bytes, extra: int, given_up: bool) -> None:
        lines, half = Lines(), b"x" * (LONGEST // 2)
        assert lines.feed(before + half) == before.splitlines()
        assert lines.feed(half + b"x" * extra) == []
        (line, following) = lines.feed(b"\nnext\n")
        assert line == (b"data: (too long)" if given_up else half + half)
        assert following == b"next"

    def test_sizes_of_lines_are_not_added_up(self) -> None:
        lines, most = Lines(), b"x" * (LONGEST - 10)
        for _ in range(2):
            assert lines.feed(most) == []
            assert lines.feed(b"\n") == [most]

    def test_line_that_was_given_up_is_counted_anew(self) -> None:
        lines = Lines()
        lines.feed(b"x" * (LONGEST + 1))
        lines.feed(b"x" * LONGEST)
        assert len(lines.rest) == len(b"data: (too long)") + LONGEST


@pytest.mark.parametrize(
    ("pieces", "reached"),
    [
        ((b"data: [DONE]",), True),
        ((b"data:[DONE]",), True),
        ((b"data: 1\n\nda", b"ta: [DO", b"NE]"), True),
        ((b"data: 1\n\ndata: [DONE", b"]"), True),
        ((b"x" * 500, b"\ndata: [DONE]"), True),
        ((b"data: [DONE]\n", b'x [DONE]"', b"y"), True),
        ((b"x data: [DONE]",), False),
        ((b"data:  [DONE]",), False),
    ],
)
def test_done_mark_is_a_line_of_its_own(pieces: tuple[bytes, ...], reached: bool) -> None:
    end = DoneMark()
    for piece in pieces:
        end.feed(piece)
    assert (end.reached, end.optional) == (reached, False)


COMPLETED = b'data: {"type": "response.completed"}\n'


@pytest.mark.parametrize(
    ("body", "reached", "optional"),
    [
        pytest.param(b"event: response.completed\n\n", True, False, id="named"),
        pytest.param(b"event:response.failed\r\n\r\n", True, False, id="named, CRLF"),
        pytest.param(COMPLETED + b"\n", True, False, id="type"),
        pytest.param(COMPLETED.replace(b": {", b":{") + b"\n", True, False, id="type without a space"),
        pytest.param(COMPLETED + b"\nevent: x\n\n", True, False, id="another event follows"),
        pytest.param(b"event: x\n\n" + COMPLETED + b"\n", True, False, id="another event comes first"),
        pytest.param(b'data: {"type": ["response.x"]}\n' + COMPLETED + b"\n", True, False, id="type on a second line"),
        pytest.param(COMPLETED, False, False, id="not whole"),
        pytest.param(COMPLETED + b" \nX\n", False, False, id="no blank line"),
        pytest.param(b"event: x\n" + COMPLETED + b"\n", False, False, id="the name counts before the type"),
        pytest.param(COMPLETED + b'data: {"type": "response.x"}\n\n', True, False, id="the first type counts"),
        pytest.param(b'data: {"type": "response.completed"\n\n', False, False, id="no JSON"),
        pytest.param(b'data: {"type": ["response.completed"]}\n\n', False, False, id="type is no text"),
        pytest.param(b'data: {"x": "response.completed"}\n\n', False, False, id="no type"),
        pytest.param(b"x" + COMPLETED + b"\n", False, False, id="another field"),
        pytest.param(b"\r" + COMPLETED + b"\n", False, False, id="CR alone ends no line"),
        pytest.param(b"event: \xff\n\n", False, False, id="no UTF-8"),
        pytest.param(b"event: error\n\n", False, True, id="error"),
        pytest.param(b"event: error\n\nevent: x\n\n", False, True, id="another event follows an error"),
    ],
)
def test_stream_of_responses_ends_with_a_whole_terminal_event(body: bytes, reached: bool, optional: bool) -> None:
    for pieces in ([body], [body[at : at + 1] for at in range(len(body))]):
        end = TerminalEvent()
        for piece in pieces:
            end.feed(piece)
        assert (end.reached, end.optional) == (reached, optional)


@pytest.mark.parametrize(
    ("body", "like_events"),
    [
        (b"data: 1", True),
        (b": comment\n\nevent: x", True),
        (b" \r\nid:", True),
        (b"retry: 5", True),
        (b"", False),
        (json.dumps({"data": 1}).encode(), False),
        (b"text data: 1", False),
    ],
)
def test_body_that_begins_with_a_field_begins_like_events(body: bytes, like_events: bool) -> None:
    assert begins_like_events(body) is like_events
