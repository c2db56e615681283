"""The short examples, each as its first line says how to run it."""

from __future__ import annotations

import http.client
import json
import queue
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deepseek_gateway.emulator import Emulator
    from deepseek_gateway.emulator._page import Row

    Run, Started = Callable[..., str], Callable[..., Any]

FOLDER = Path(__file__).parents[2] / "examples"
ended: queue.Queue[Row] = queue.Queue()


class TestChat:
    def test_thinking_and_answer_are_printed_and_the_conversation_is_sent_again(
        self, run: Run, gateway_emulator: Emulator
    ) -> None:
        gateway_emulator.answer_next("A network.", reasoning="Think.")
        gateway_emulator.answer_next("Yes.", reasoning="Again.")
        assert run("chat.py", given="What is Cloudflare?\nReally?\n\n") == "> Think.\nA network.\n> Again.\nYes.\n> "
        assert gateway_emulator.requests[1].json["messages"] == [
            {"role": "user", "content": "What is Cloudflare?"},
            {"role": "assistant", "content": "A network."},
            {"role": "user", "content": "Really?"},
        ]

    def test_cut_answer_is_reported_and_left_out_of_the_conversation(
        self, run: Run, gateway_emulator: Emulator
    ) -> None:
        gateway_emulator.fail_next(cut_after=600, clean=True)
        gateway_emulator.answer_next("A network.")
        gateway_emulator.answer_next("Yes.")
        assert "Yes." in run("chat.py", given="What is Cloudflare?\nReally?\n")
        assert [len(request.json["messages"]) for request in gateway_emulator.requests] == [1, 1]


class TestTools:
    def test_functions_are_called_and_their_results_sent_back(self, run: Run, gateway_emulator: Emulator) -> None:
        calls = [{"name": "get_temperature", "arguments": {"city": city}} for city in ("Paris", "Rome")]
        gateway_emulator.answer_next(tool_calls=calls)
        gateway_emulator.answer_next("Paris is warmer.")
        assert run("tools.py", "Is it warmer in Paris or in Rome?") == "Paris is warmer.\n"
        *_, assistant, paris, rome = gateway_emulator.requests[1].json["messages"]
        assert assistant["reasoning_content"]
        assert [json.loads(each["content"])["celsius"] for each in (paris, rome)] == [15, 14]
        assert [each["tool_call_id"] for each in (paris, rome)] == [call["id"] for call in assistant["tool_calls"]]

    @pytest.mark.parametrize(
        "call",
        [{"name": "get_rain", "arguments": {}}, {"name": "get_temperature", "arguments": "{"}],
        ids=["unknown function", "broken arguments"],
    )
    def test_wrong_call_is_reported_to_the_model(
        self, run: Run, gateway_emulator: Emulator, call: dict[str, Any]
    ) -> None:
        gateway_emulator.answer_next(tool_calls=[call])
        gateway_emulator.answer_next("I do not know.")
        assert run("tools.py", "Is it warm?") == "I do not know.\n"
        assert gateway_emulator.requests[1].json["messages"][-1]["content"].startswith("Error: ")


@pytest.mark.skipif(openai.__version__.startswith("1."), reason="openai 1 has parse() under client.beta only")
def test_broken_structure_is_asked_for_again(run: Run, gateway_emulator: Emulator) -> None:
    event = {"name": "lunch", "day": "Friday", "people": ["Wendy", "Sam"]}
    gateway_emulator.answer_next(json={"name": "lunch"})
    gateway_emulator.answer_next(json=event)
    assert json.loads(run("structured.py", "Wendy and Sam meet for lunch on Friday.")) == event
    assert "people" in gateway_emulator.requests[1].json["messages"][-1]["content"]


def test_notebook_streams_and_is_answered_from_the_cache(run: Run, tmp_path: Path) -> None:
    cells = json.loads((FOLDER / "notebook.ipynb").read_text("utf-8"))["cells"]
    *code, last = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    before, _, shown = last.rpartition("\n")  # a notebook shows the value of the last line of a cell
    (tmp_path / "cells.py").write_text("\n".join([*code, before, f"print({shown})"]), "utf-8")
    printed = run(tmp_path / "cells.py")
    assert "You asked: What is Cloudflare?[('MISS', Usage(" in printed
    assert "('HIT', Usage(" in printed


def test_span_and_gateway_know_each_other(started: Started, gateway_emulator: Emulator) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="needs the group examples")
    with started("tracing.py", "What is Cloudflare?") as process:
        printed, exported = process.communicate(timeout=60)
    assert printed.endswith("You asked: What is Cloudflare?\n")
    span = json.loads(exported)
    (request,) = gateway_emulator.requests
    assert span["context"]["trace_id"] == f"0x{request.headers['cf-aig-otel-trace-id']}"
    assert span["context"]["span_id"] == f"0x{request.headers['cf-aig-otel-parent-span-id']}"
    assert span["attributes"]["cloudflare.ai_gateway.log_id"]


class TestFastapi:
    @pytest.fixture(autouse=True)
    def needs_fastapi(self) -> None:
        pytest.importorskip("fastapi", reason="needs the group examples")
        pytest.importorskip("aiohttp")

    @contextmanager
    def asked(self, started: Started, question: str = "What is Cloudflare?") -> Iterator[http.client.HTTPConnection]:
        with started("-m", "uvicorn", "fastapi_relay:app", "--port", "0") as process:
            while "running on http://" not in (printed := process.stderr.readline()):
                assert printed, process.wait(10)
            address = printed.split("http://")[1].split()[0]
            with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
                connection.request("GET", f"/ask?question={quote(question)}")
                yield connection

    def test_answer_is_relayed(self, started: Started, gateway_emulator: Emulator) -> None:
        gateway_emulator.answer_next("Cloudflare runs a network.")
        with self.asked(started) as connection:
            assert connection.getresponse().read() == b"Cloudflare runs a network."

    @pytest.mark.parametrize("gateway_emulator", [{"pace": 0.05, "on_exchange": ended.put}], indirect=True)
    def test_upstream_call_ends_when_the_browser_hangs_up(self, started: Started, gateway_emulator: Emulator) -> None:
        gateway_emulator.answer_next("word " * 2000)  # 100 seconds
        with self.asked(started) as connection:
            assert connection.getresponse().read(5) == b"word "
            connection.close()
            row = ended.get(timeout=30)
        assert (row.status, row.complete) == (200, False)

    def test_refusal_is_relayed_as_bad_gateway(self, started: Started, gateway_emulator: Emulator) -> None:
        gateway_emulator.fail_next(2045)
        with self.asked(started) as connection:
            response = connection.getresponse()
            assert response.status == 502
            assert b"a spend limit of this gateway is reached" in response.read()


@pytest.mark.skipif(sys.platform == "win32", reason="Celery forks its workers")
def test_celery_worker_answers_from_its_forked_processes(
    run: Run, started: Started, gateway_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("celery", reason="needs the group examples")
    pytest.importorskip("sqlalchemy", reason="needs the group examples")
    monkeypatch.setenv("CELERY_BROKER_URL", "sqla+sqlite:///queue.db")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "db+sqlite:///results.db")
    gateway_emulator.fail_next(status=503, times=3)  # more than the retries of the client, so that Celery retries
    ask = "from celery_worker import summarise; print(summarise.delay('Cloudflare runs a network.').get(timeout=120))"
    with started("-m", "celery", "-A", "celery_worker", "worker", "--concurrency", "2") as worker:
        assert "Cloudflare runs a network." in run("-c", ask)
        worker.terminate()
        worker.communicate(timeout=60)
    assert len(gateway_emulator.requests) == 4
