"""The batch on Ray: complete although a worker is killed, and nothing is asked twice that was written."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway.emulator import Emulator
    from deepseek_gateway.emulator._wire import ReceivedRequest

    Run, Started = Callable[..., str], Callable[..., Any]

pytest.importorskip("ray", reason="needs the group ray; `nox -s ray` installs it")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the test finds Ray's workers in /proc")

INPUT, OUTPUT = Path("input.jsonl"), Path("output.jsonl")


@pytest.fixture(autouse=True)
def quiet_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


def write(count: int) -> None:
    with INPUT.open("w") as lines:
        for number in range(count):
            body = {"model": "deepseek-flash", "messages": [{"role": "user", "content": f"Question {number}?"}]}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.write(json.dumps(line) + "\n")


def written() -> list[str]:
    return [json.loads(text)["custom_id"] for text in OUTPUT.read_text().splitlines()]


def assert_complete(count: int) -> None:
    assert sorted(written()) == sorted(f"line-{number}" for number in range(count))
    for text in OUTPUT.read_text().splitlines():
        line = json.loads(text)
        answer = line["response"]["body"]["choices"][0]["message"]["content"]
        assert answer.endswith(f" Question {line['custom_id'].removeprefix('line-')}?")


def workers(emulator: Emulator) -> list[int]:
    """Return the processes of Ray's actors that ask this emulator."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended
            ours = f"DEEPSEEK_GATEWAY_ENDPOINT={emulator.url}/".encode() in (process / "environ").read_bytes()
            if ours and (process / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(process.name))
    return found


def test_two_thousand_lines_are_answered_once_each_although_a_worker_is_killed(
    run: Run, gateway_emulator: Emulator
) -> None:
    write(2000)
    killed = threading.Event()

    def kill_one(_: ReceivedRequest) -> None:
        if len(gateway_emulator.requests) >= 700 and not killed.is_set():
            os.kill(workers(gateway_emulator)[0], 9)
            killed.set()

    gateway_emulator.answer_with(kill_one)
    run("batch_ray.py", INPUT, OUTPUT, "--batch", "50")
    assert killed.is_set()
    assert_complete(2000)
    assert 2000 < len(gateway_emulator.requests) < 2000 + 400  # the batches that one worker had, and no more


def test_restart_asks_only_what_was_not_written(run: Run, started: Started, gateway_emulator: Emulator) -> None:
    write(300)
    reached = threading.Event()

    def note(_: ReceivedRequest) -> None:
        if len(gateway_emulator.requests) >= 150:
            reached.set()

    gateway_emulator.answer_with(note)
    with started("batch_ray.py", INPUT, OUTPUT, "--batch", "10") as process:
        assert reached.wait(120)
        process.kill()
        process.wait(60)
    kept = set(written())
    assert kept
    while workers(gateway_emulator):  # Ray ends them when it finds the driver dead
        threading.Event().wait(0.1)
    gateway_emulator.reset()
    run("batch_ray.py", INPUT, OUTPUT, "--batch", "10")
    assert_complete(300)
    asked = {request.json["messages"][0]["content"] for request in gateway_emulator.requests}
    assert asked.isdisjoint(f"Question {custom_id.removeprefix('line-')}?" for custom_id in kept)


@pytest.mark.parametrize("failure", [{"code": 2045}, {"status": 402}])
def test_refusal_of_the_account_stops_the_batch(run: Run, gateway_emulator: Emulator, failure: dict[str, int]) -> None:
    write(20)
    gateway_emulator.fail_next(**failure)
    assert "Stopped: " in run("batch_ray.py", INPUT, OUTPUT, "--batch", "5", code=1)
