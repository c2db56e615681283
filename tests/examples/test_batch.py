"""A batch is asked whole, whatever interrupts it, and no line twice that was written."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway.emulator import Emulator
    from deepseek_gateway.emulator._wire import ReceivedRequest

pytest.importorskip("rich")

INPUT, OUTPUT = Path("input.jsonl"), Path("output.jsonl")


def line(number: int, **changes: Any) -> dict[str, Any]:
    body = {"model": "deepseek-flash", "messages": [{"role": "user", "content": f"Question {number}?"}]}
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body} | changes


def write(*lines: object) -> None:
    INPUT.write_text("".join(json.dumps(each) + "\n" for each in lines))


def answers() -> dict[str, Any]:
    """Return the lines of the output, none of which may answer the same line of the input as another."""
    lines = [json.loads(text) for text in OUTPUT.read_text().splitlines()]
    by_id = {each["custom_id"]: each for each in lines}
    assert len(by_id) == len(lines)
    return by_id


def asked(requests: list[ReceivedRequest]) -> list[str]:
    """Return the ids of the lines that were asked, from the numbers in their questions."""
    return [f"line-{request.json['messages'][0]['content'].split()[1].rstrip('?')}" for request in requests]


def assert_complete(count: int) -> None:
    found = answers()
    assert found.keys() == {f"line-{number}" for number in range(count)}
    for number in range(count):
        response = found[f"line-{number}"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["choices"][0]["message"]["content"].endswith(f" Question {number}?")


def called_at(emulator: Emulator, count: int) -> threading.Event:
    """Return an event that is set when the emulator gets so many questions."""
    reached = threading.Event()

    def note(_: ReceivedRequest) -> None:
        if len(emulator.requests) >= count:
            reached.set()

    emulator.answer_with(note)
    return reached


@pytest.fixture
def batch_calls(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return importlib.import_module("batch_calls")


def test_two_thousand_lines_are_answered_once_each(run: Callable[..., str], gateway_emulator: Emulator) -> None:
    write(*map(line, range(2000)))
    run("batch.py", INPUT, OUTPUT)
    assert_complete(2000)
    assert len(gateway_emulator.requests) == 2000


def test_progress_bar_shows_answers_rate_tokens_and_cache_hits(
    started: Callable[..., Any], gateway_emulator: Emulator
) -> None:
    write(*map(line, range(3)))
    with started("batch.py", INPUT, OUTPUT) as process:
        _, shown = process.communicate(timeout=60)
    tokens = sum(answer["response"]["body"]["usage"]["total_tokens"] for answer in answers().values())
    assert "3/3" in shown
    assert f"/s, {tokens} tokens, 0 cache hits" in shown


def test_restart_after_a_kill_asks_only_what_was_not_written(
    run: Callable[..., str], started: Callable[..., Any], gateway_emulator: Emulator
) -> None:
    write(*map(line, range(400)))
    reached = called_at(gateway_emulator, 150)
    with started("batch.py", INPUT, OUTPUT) as process:
        assert reached.wait(60)
        process.kill()
        process.wait(60)
    written = answers().keys()
    assert 0 < len(written) < 400
    with OUTPUT.open("a") as output:
        output.write('{"id": "batch_req_of_a_line_that_was_cut", "custom_id": "li')
    gateway_emulator.reset()
    run("batch.py", INPUT, OUTPUT)
    assert_complete(400)
    assert set(asked(gateway_emulator.requests)).isdisjoint(written)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_interruption_lets_the_calls_under_way_end_and_a_restart_asks_only_the_others(
    run: Callable[..., str], started: Callable[..., Any], gateway_emulator: Emulator
) -> None:
    write(*map(line, range(400)))
    reached = called_at(gateway_emulator, 150)
    with started("batch.py", INPUT, OUTPUT) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, "Waiting for the calls under way" in errors) == (0, True), errors
    assert sorted(answers()) == sorted(asked(gateway_emulator.requests))
    run("batch.py", INPUT, OUTPUT)
    assert_complete(400)
    assert len(gateway_emulator.requests) == 400


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_second_interruption_gives_up_the_calls_under_way(
    started: Callable[..., Any], gateway_emulator: Emulator
) -> None:
    write(line(0), line(1))
    gateway_emulator.fail_next(latency=math.inf)  # of the one line, and the other is answered
    reached = called_at(gateway_emulator, 2)
    with started("batch.py", INPUT, OUTPUT) as process:
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        while "Waiting for the calls under way" not in (text := process.stderr.readline()):
            assert text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert len(answers()) < 2


@pytest.mark.parametrize("gateway_emulator", [{"rate_limit": (60, 1)}], indirect=True)
def test_rate_limit_slows_the_batch_down_and_loses_no_line(run: Callable[..., str], gateway_emulator: Emulator) -> None:
    write(*map(line, range(200)))
    run("batch.py", INPUT, OUTPUT)
    assert_complete(200)
    assert 200 < len(gateway_emulator.requests) < 500


def test_burst_of_429_halves_the_cap_once_and_each_answer_raises_it(
    batch_calls: Any, gateway_emulator: Emulator
) -> None:
    gateway_emulator.fail_next(status=429, times=4)

    async def main() -> tuple[float, int]:
        caller = batch_calls.Caller(gateway_emulator.config(), 8)
        async with caller.client:
            count = len([answer async for answer in caller.answers([line(number) for number in range(4)])])
        return caller.cap, count

    cap, count = asyncio.run(main())
    assert count == 4
    assert 4 < cap < 5.1


@pytest.mark.parametrize("failure", [{"code": 2045}, {"status": 401}, {"status": 402}])
def test_refusal_of_the_account_stops_the_batch_and_a_restart_completes_it(
    run: Callable[..., str], gateway_emulator: Emulator, failure: dict[str, int]
) -> None:
    write(*map(line, range(20)))
    gateway_emulator.fail_next(**failure)
    assert "Stopped: " in run("batch.py", INPUT, OUTPUT, "--most", "2", code=1)
    assert len(gateway_emulator.requests) < 20
    run("batch.py", INPUT, OUTPUT)
    assert_complete(20)
    assert len(gateway_emulator.requests) == 21


def test_refused_line_becomes_a_response_with_its_status(run: Callable[..., str]) -> None:
    body = line(0)["body"]
    write(line(0, body=body | {"model": "no-such-model"}), line(1, url="/v1/embeddings"), line(2))
    run("batch.py", INPUT, OUTPUT)
    found = answers()
    statuses = {custom_id: answer["response"]["status_code"] for custom_id, answer in found.items()}
    assert statuses == {"line-0": 400, "line-1": 404, "line-2": 200}
    assert "no-such-model" in found["line-0"]["response"]["body"]["error"]["message"]
    assert {answer["error"] for answer in found.values()} == {None}


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        ({"reset": True}, "APIConnectionError"),
        ({"body": b'{"choices": [{}', "headers": {"content-type": "application/json"}}, "JSONDecodeError"),
    ],
)
def test_lost_line_becomes_an_error(
    batch_calls: Any, gateway_emulator: Emulator, failure: dict[str, Any], code: str
) -> None:
    gateway_emulator.fail_next(**failure)

    async def main() -> list[Any]:
        caller = batch_calls.Caller(gateway_emulator.config(), 1)
        async with caller.client as client:
            caller.client = client.with_options(max_retries=0)
            return [answer async for answer, _ in caller.answers([line(0)])]

    (answer,) = asyncio.run(main())
    assert (answer["custom_id"], answer["response"], answer["error"]["code"]) == ("line-0", None, code)
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    "wrong",
    ["text", 1, {}, line(0), line(1, method="GET"), line(1, url="https://api.openai.com/v1/x"), line(1, body=None)],
)
def test_file_with_a_wrong_line_is_refused_before_any_call(
    run: Callable[..., str], gateway_emulator: Emulator, wrong: object
) -> None:
    write(line(0), wrong)
    assert "Stopped: input.jsonl, line 2 " in run("batch.py", INPUT, OUTPUT, code=1)
    assert gateway_emulator.requests == []
