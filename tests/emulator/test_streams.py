"""Streams as Cloudflare changes them, and their pace."""

import asyncio
import json
import re
import time
from typing import Any

import pytest
from emulated import AI, BOTH, COMPAT, DIRECT, KEY, PROVIDER, RESPONSES, REST, STREAM, ask, client_of, send

from deepseek_gateway.emulator import Emulator

GATEWAY: dict[str, tuple[str, dict[str, str], Any]] = {
    "provider": (PROVIDER, BOTH, STREAM),
    "compat": (COMPAT, BOTH, ask("deepseek/deepseek-flash", stream=True)),
    "rest": (f"{AI}/chat/completions", REST, ask("deepseek/deepseek-flash", stream=True)),
    "responses": (RESPONSES, BOTH, {"model": "deepseek-flash", "input": "Hi", "stream": True}),
}
SWITCHES = {"padding": True, "crlf": True}


def unpadded(data: bytes) -> tuple[str, bytes]:
    """Return the padding of an event's object, and the object without it."""
    found = re.fullmatch(rb'\{"p": "([0-9a-f]+)", (.*?) *\}', data)
    assert found, data
    return found[1].decode(), b"{" + found[2] + b"}"


@pytest.mark.parametrize(("path", "headers", "body"), GATEWAY.values(), ids=GATEWAY)
def test_padding_is_a_first_member_and_blanks_in_every_event(path: str, headers: dict[str, str], body: Any) -> None:
    with Emulator() as plain, Emulator(padding=True) as padded:
        expected, answer = (send(emulator, path, headers, body).body for emulator in (plain, padded))
    pads, lines = [], []
    for line in answer.split(b"\n"):
        if line.startswith(b"data: {"):
            pad, data = unpadded(line.removeprefix(b"data: "))
            pads.append(pad)
            lines.append(b"data: " + data)
        else:
            lines.append(line)
    assert b"\n".join(lines) == expected
    assert re.search(rb" +\}\n", answer)
    assert len({len(pad) for pad in pads}) > 3
    assert [json.loads(data)["p"] for data in re.findall(rb"(?m)^data: (\{.*)$", answer)] == pads


@pytest.mark.parametrize(("path", "headers", "body"), GATEWAY.values(), ids=GATEWAY)
def test_crlf_ends_every_line_of_a_stream(path: str, headers: dict[str, str], body: Any) -> None:
    with Emulator() as plain, Emulator(crlf=True) as other:
        expected, answer = (send(emulator, path, headers, body).body for emulator in (plain, other))
    assert answer == expected.replace(b"\n", b"\r\n")


def test_sdk_reads_a_padded_stream_with_crlf() -> None:
    with Emulator(**SWITCHES) as emulator, client_of(emulator) as client:
        emulator.answer_next("Paris, or {Rome}")
        asked: Any = ask(stream=True)
        chunks = client.chat.completions.create(**asked)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Paris, or {Rome}"


def test_error_event_is_padded_too() -> None:
    with Emulator(**SWITCHES) as emulator:
        emulator.fail_next(status=503, event=0)
        body = send(emulator, PROVIDER, BOTH, STREAM).body
    assert (
        "too busy"
        in json.loads(unpadded(body.removeprefix(b"data: ").removesuffix(b"\r\n\r\n"))[1])["error"]["message"]
    )


def test_json_and_direct_streams_are_never_changed(emulator: Emulator) -> None:
    calls: list[tuple[str, dict[str, str], Any]] = [
        (PROVIDER, BOTH, ask()),
        (f"{DIRECT}/chat/completions", KEY, STREAM),
    ]
    with Emulator(**SWITCHES) as switched:
        for path, headers, body in calls:
            assert send(switched, path, headers, body).body == send(emulator, path, headers, body).body
        switched.fail_next(body='data: {"a":1}\n')
        assert send(switched, PROVIDER, BOTH, ask()).text == 'data: {"a":1}\n'


@pytest.mark.parametrize("direct", [False, True])
def test_stream_with_a_pace_arrives_chunk_by_chunk(direct: bool) -> None:
    with Emulator(pace=0.05) as emulator, client_of(emulator, direct=direct) as client:
        emulator.answer_next("one two three", reasoning="")
        asked: Any = ask(stream=True)
        times = [time.perf_counter() for _ in client.chat.completions.create(**asked)]
    assert len(times) == 5
    assert times[-1] - times[0] >= 3 * 0.05


def test_pace_waits_between_the_chunks_of_a_stream_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, slept = asyncio.sleep, list[float]()

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    with Emulator(pace=77) as emulator:
        events = send(emulator, PROVIDER, BOTH, STREAM).events
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert slept.count(77) == len(events)  # one more chunk is [DONE]
