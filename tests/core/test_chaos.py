"""The run under random faults for 20 seconds, and each rule that can fail it."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.chaos.rules import MOST_GROWTH, Run, broken, counts

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = "20261129"


@pytest.mark.skipif(sys.platform != "linux", reason="the run forks, and counts sockets in /proc")
@pytest.mark.skipif(
    openai.__version__ < "3",
    reason="httpx can deadlock when it collects a dropped stream, with the bare client as well",
)
def test_calls_under_random_faults_for_twenty_seconds_break_no_rule() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--minutes", "0.33", "--seed", SEED],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, *_, last = lines = ended.stdout.splitlines()
    assert first.startswith(f"seed: {SEED}; openai ")
    assert last == "No rule was broken."
    assert {
        "raw exceptions: 0",
        "wrong or partial answers, and calls without an end: 0",
        "calls answered twice: 0",
    } <= set(lines)


CALL = {"marker": "chaos-threads-1-1", "caller": "threads", "where": "raw", "kind": "chat", "patient": True, "tries": 2}
REPORT = {"open sockets": 0, "tasks": 0, "threads": 0, "noise": [], **dict.fromkeys(MOST_GROWTH, 0)}
GOOD = Run(
    calls=[CALL | {"outcome": "result"}],
    ledger={CALL["marker"]: [["cut", True], ["none", True]]},
    callers={"threads": REPORT},
    codes={"threads": 0},
    kills=1,
)


def call_with(**fields: Any) -> Callable[[Run], None]:
    return lambda run: run.calls.append(CALL | {"marker": "chaos-threads-1-2"} | fields)


def attempts(*made: list[Any]) -> Callable[[Run], None]:
    return lambda run: run.ledger.update({CALL["marker"]: list(made)})


def failed_after(fault: str) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        call_with(outcome="APIError")(run)
        run.ledger["chaos-threads-1-2"] = [[fault, True]]

    return change


def report_with(**fields: Any) -> Callable[[Run], None]:
    return lambda run: run.callers["threads"].update({name.replace("_", " "): value for name, value in fields.items()})


class TestRules:
    def test_good_run_breaks_no_rule(self) -> None:
        assert broken(GOOD) == []

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (
                call_with(outcome="raw", detail="ReadError: x"),
                "1 calls ended with a raw exception: chat chaos-threads-1-2",
            ),
            (call_with(outcome="defect", detail="wrong text"), "1 calls ended wrongly"),
            (attempts(["none", True], ["none", True]), "1 calls were answered twice"),
            (
                attempts(["cut", True], ["cut", True], ["none", True]),
                "1 calls were sent more often than they may be tried",
            ),
            (
                failed_after("gzip"),
                "1 calls failed although a whole answer had been sent",
            ),
            (lambda run: run.calls.clear(), "The caller 'threads' got no result"),
            (lambda run: run.codes.update(threads=1), "The caller 'threads' ended with exit code 1."),
            (report_with(open_sockets=3), "The caller 'threads' has left 3 open sockets."),
            (report_with(tasks=1), "The caller 'threads' has left 1 tasks."),
            (report_with(threads=1), "The caller 'threads' has left 1 threads."),
            (report_with(noise=["Task was destroyed but it is pending!"]), "The caller 'threads' lost 1 exceptions"),
            *(
                (report_with(**{unit: most + 1}), f"has {most + 1} {unit}; at most {most}")
                for unit, most in MOST_GROWTH.items()
            ),
        ],
    )
    def test_run_that_breaks_one_rule_is_reported_in_one_sentence(
        self, change: Callable[[Run], None], sentence: str
    ) -> None:
        run = deepcopy(GOOD)
        change(run)
        (reported,) = broken(run)
        assert sentence in reported

    @pytest.mark.parametrize(
        "change",
        [
            attempts(["cut", True], ["none", True]),
            attempts(["none", False], ["none", True]),
            failed_after("HTML"),
            call_with(outcome="raw", detail="JSONDecodeError: x"),
            report_with(noise=["Unclosed connection"]),
        ],
        ids=["spoiled", "not whole", "failed", "of the stock SDK", "of aiohttp"],
    )
    def test_run_with_a_tolerated_peculiarity_breaks_no_rule(self, change: Callable[[Run], None]) -> None:
        run = deepcopy(GOOD)
        change(run)
        assert broken(run) == []

    def test_counts_name_each_kind_of_end(self) -> None:
        run = deepcopy(GOOD)
        for outcome in ("left", "cancelled", "APITimeoutError"):
            call_with(outcome=outcome)(run)
        call_with(outcome="raw", detail="JSONDecodeError: x")(run)
        assert list(counts(run))[:6] == [
            "calls: 5 (threads 5; raw 5)",
            "results: 1",
            "left by their callers: 2 (1 cancelled)",
            "typed errors: 1 (APITimeoutError 1)",
            "raw exceptions: 0",
            "raw exceptions that the stock SDK raises too: 1 (JSONDecodeError 1)",
        ]
