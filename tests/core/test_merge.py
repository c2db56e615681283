"""Chunks that arrive together become one: the text, the tool calls and the usage stay the same."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import DONE
from calling import FLAVOURS, chat, run, streamed
from loopback import Answer, Loopback
from recordings import exchanges, required

from deepseek_gateway import create_async_client
from deepseek_gateway._merge import MergedChunks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calling import ConfigAt

CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-flash"}
MEMBERS = b'"usage": null, "system_fingerprint": "fp", "created"'


def chunk(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
    return b"data: %s\n\n" % json.dumps(CHUNK | {"choices": [choice | more]}, ensure_ascii=False).encode()


def tool(arguments: str, index: int = 0, **more: Any) -> bytes:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments} | more}]})


def merged(*reads: bytes) -> bytes:
    merge = MergedChunks()
    return b"".join(merge.feed(data, last=number == len(reads)) for number, data in enumerate(reads, 1))


def written(event: bytes) -> bytes:
    """Write an event as a joined one is written: with all characters but ASCII escaped."""
    return b"data: %s\n\n" % json.dumps(json.loads(event[6:])).encode()


class TestRules:
    """Only chunks that differ in their text alone become one."""

    ONE: dict[str, tuple[list[bytes], bytes]] = {
        "content": ([chunk({"content": each}) for each in ("Hel", "lo, 你", "好")], chunk({"content": "Hello, 你好"})),
        "thinking": (
            [chunk({"content": None, "reasoning_content": each}) for each in ("Hm", ", ", "so")],
            chunk({"content": None, "reasoning_content": "Hm, so"}),
        ),
        "arguments": ([tool('{"city"'), tool(': "Paris"}')], tool('{"city": "Paris"}')),
        "every known member": (
            [chunk({"content": each}).replace(b'"created"', MEMBERS) for each in "ab"],
            chunk({"content": "ab"}).replace(b'"created"', MEMBERS),
        ),
    }

    @pytest.mark.parametrize(("events", "expected"), ONE.values(), ids=ONE)
    def test_chunks_of_the_same_kind_become_one(self, events: list[bytes], expected: bytes) -> None:
        assert merged(b"".join(events)) == written(expected)

    def test_text_before_another_kind_of_chunk_is_kept(self) -> None:
        events = [chunk({"content": each}) for each in "ab"] + [chunk({"reasoning_content": "c"})]
        assert merged(b"".join(events)) == written(chunk({"content": "ab"})) + events[-1]

    TWO: dict[str, tuple[bytes, bytes]] = {
        "content and thinking": (chunk({"content": "a"}), chunk({"reasoning_content": "b"})),
        "role": (chunk({"role": "assistant", "content": "a"}), chunk({"content": "b"})),
        "role twice": (chunk({"role": "assistant", "content": "a"}), chunk({"role": "assistant", "content": "b"})),
        "no text": (chunk({"content": ""}), chunk({"content": ""})),
        "finish reason": (chunk({"content": "a"}), chunk({"content": "b"}, finish_reason="stop")),
        "finish reason twice": (
            chunk({"content": "a"}, finish_reason="stop"),
            chunk({"content": "b"}, finish_reason="stop"),
        ),
        "logprobs": (chunk({"content": "a"}, logprobs={"x": 1}), chunk({"content": "b"}, logprobs={"x": 1})),
        "unknown member": (chunk({"content": "a"}, x=1), chunk({"content": "b"}, x=1)),
        "two tools": (tool("a", 0), tool("b", 1)),
        "name of a tool": (tool("a", name="f"), tool("b", name="f")),
        "usage": (
            chunk({"content": "a"}).replace(b'"created"', b'"usage": {}, "created"'),
            chunk({"content": "b"}).replace(b'"created"', b'"usage": {}, "created"'),
        ),
        "padding of the gateway": (
            chunk({"content": "a"}).replace(b'"created"', b'"p": "x", "created"'),
            chunk({"content": "b"}).replace(b'"created"', b'"p": "x", "created"'),
        ),
        "another model": (chunk({"content": "a"}), chunk({"content": "b"}).replace(b"flash", b"pro")),
        "halves of a character": (
            chunk({"content": "!"}).replace(b"!", b"\\ud83d"),
            chunk({"content": "!"}).replace(b"!", b"\\ude00"),
        ),
        "comment between": (chunk({"content": "a"}) + b": keep-alive\n\n", chunk({"content": "b"})),
        "no JSON": (b"data: {a\n\n", b"data: {b\n\n"),
        "named events": (b"event: x\n" + chunk({"content": "a"}), b"event: x\n" + chunk({"content": "b"})),
    }

    @pytest.mark.parametrize("events", TWO.values(), ids=TWO)
    def test_other_events_pass_as_the_same_bytes(self, events: tuple[bytes, bytes]) -> None:
        assert merged(b"".join(events)) == b"".join(events)

    def test_chunks_of_two_reads_stay_two(self) -> None:
        events = chunk({"content": "a"}), chunk({"content": "b"})
        assert merged(*events) == b"".join(events)

    def test_event_is_passed_on_as_soon_as_it_is_whole(self) -> None:
        merge, event = MergedChunks(), chunk({"content": "a"})
        assert merge.feed(event[:-1], last=False) == b""
        assert merge.feed(event[-1:], last=False) == event

    def test_end_of_the_stream_passes_without_a_blank_line(self) -> None:
        assert merged(chunk({"content": "a"}), b"data: [DONE]") == chunk({"content": "a"}) + b"data: [DONE]"

    def test_stream_with_crlf_passes_as_it_comes(self) -> None:
        stream = b"".join(chunk({"content": each}).replace(b"\n", b"\r\n") for each in "ab")
        for place in range(len(stream)):
            merge = MergedChunks()
            passed = [merge.feed(part, last=False) for part in (stream[:place], stream[place:])]
            assert b"".join(passed) == stream


def state(chunks: list[Any]) -> Any:
    """Give the final result of a stream, as `stream()` collects it."""
    texts: dict[tuple[Any, ...], str] = {}
    rest: list[Any] = []
    for each in chunks:
        dumped = each.model_dump(exclude_unset=True)
        for choice in dumped["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                if delta.get(name):
                    key = (choice["index"], name)
                    texts[key] = texts.get(key, "") + delta[name]
            for call in delta.get("tool_calls") or []:
                key = (choice["index"], "arguments", call["index"])
                texts[key] = texts.get(key, "") + (call["function"].get("arguments") or "")
                if call.get("id"):
                    rest.append((call["id"], call["function"]["name"]))
            rest += [choice[name] for name in ("finish_reason", "logprobs") if choice.get(name)]
        rest += [dumped["usage"]] if dumped.get("usage") else []
    return texts, rest


def test_synchronous_client_merges_nothing(gateway: Loopback, config_at: ConfigAt) -> None:
    gateway.answer = lambda _: Answer((b"".join(chunk({"content": each}) for each in "Hello") + DONE,))
    assert len(run("sync", config_at(gateway), streamed)) == 5


@pytest.mark.skipif("aiohttp" not in FLAVOURS, reason="this openai has no aiohttp client")
class TestStreams:
    """Over aiohttp, whose reads bring all that has arrived."""

    def read(self, config: Any, *, merge_chunks: bool | float, transport: str = "aiohttp") -> list[Any]:
        async def main() -> list[Any]:
            kind: Any = transport
            async with create_async_client(config, transport=kind, merge_chunks=merge_chunks) as client:
                return [each async for each in await chat(client, stream=True)]

        return asyncio.run(main())

    @required
    def test_every_recorded_stream_has_the_same_result_cut_at_random_places(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        chance, fewer = random.Random(14), 0
        streams = [each for each in exchanges() if each.stream and b'"chat.completion.chunk"' in each.body]
        assert len(streams) > 50
        for each in streams:
            places = sorted(chance.sample(range(len(each.body)), min(6, len(each.body))))
            pieces = tuple(each.body[a:b] for a, b in zip([0, *places], [*places, None], strict=True) if each.body[a:b])
            gateway.answer = lambda _, pieces=pieces: Answer(pieces)
            bare, fused = (self.read(config_at(gateway), merge_chunks=merge) for merge in (False, True))
            assert state(fused) == state(bare), each.name
            fewer += len(fused) < len(bare)
        assert fewer > len(streams) / 2

    def test_events_of_one_read_become_one_chunk_only_if_asked_for(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer((b"".join(chunk({"content": each}) for each in "Hello") + DONE,))
        config = config_at(gateway)
        assert len(self.read(config, merge_chunks=True)) == 1
        assert len(self.read(config, merge_chunks=False)) == 5

    def test_stream_of_deepseek_itself_is_merged_as_well(self, gateway: Loopback, config_at: ConfigAt) -> None:
        """During an outage of the gateway, whose edge answers 522."""
        pieces = (b"".join(chunk({"content": each}) for each in "Hello") + DONE,)
        gateway.answer = lambda request: (
            Answer(pieces) if request.path.startswith("/itself") else Answer(b"<html>", 522)
        )
        config = config_at(gateway, fallback="direct", direct_endpoint=f"{gateway.url}/itself")
        assert len(self.read(config, merge_chunks=True)) == 1

    def test_cut_stream_delivers_what_came_and_raises(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer((b"".join(chunk({"content": each}) for each in "Hello"),))
        got: list[Any] = []

        async def main() -> None:
            async with create_async_client(config_at(gateway), transport="aiohttp", merge_chunks=True) as client:
                stream = await chat(client, stream=True)
                async for each in stream:
                    got.append(each.choices[0].delta.content)  # noqa: PERF401  # an error ends it

        with pytest.raises(openai.APIConnectionError, match=r"before \[DONE\]"):
            asyncio.run(main())
        assert got == ["Hello"]

    def test_seconds_let_more_arrive_before_the_next_read(self, gateway: Loopback, config_at: ConfigAt) -> None:
        begun = threading.Event()

        def pieces() -> Iterator[bytes]:
            yield chunk({"content": "H"})
            begun.wait(10)
            for each in "ello":
                yield chunk({"content": each})
                time.sleep(0.02)
            yield DONE

        async def texts(*, merge_chunks: bool | float) -> list[str]:
            begun.clear()
            got: list[str] = []
            client = create_async_client(config_at(gateway), transport="aiohttp", merge_chunks=merge_chunks)
            async with client:
                async for each in await chat(client, stream=True):
                    got.append(each.choices[0].delta.content)
                    begun.set()
            return got

        gateway.answer = lambda _: Answer(pieces())
        assert asyncio.run(texts(merge_chunks=0.5)) == ["H", "ello"]
        assert asyncio.run(texts(merge_chunks=True)) == list("Hello")

    def test_seconds_over_httpx_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"merge_chunks=0.1 needs transport='aiohttp': httpx hands over one chunk"):
            create_async_client(api_key="key", account_id="0" * 32, merge_chunks=0.1)
        create_async_client(api_key="key", account_id="0" * 32, merge_chunks=0)

    def test_httpx_hands_over_one_chunk_at_a_time(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer((*(chunk({"content": each}) for each in "Hello"), DONE))
        assert len(self.read(config_at(gateway), merge_chunks=True, transport="httpx")) == 5
