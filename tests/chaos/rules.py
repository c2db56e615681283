"""The rules of a run, the sentences that report a broken rule, and the counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.chaos.faults import HARMLESS

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_GROWTH = {"more objects of the package": 50, "more objects": 20_000, "more kilobytes": 32_000}
"""How much a caller may grow from the first quarter of the run to its end. Pools and event loops account for some."""

MOST_EXAMPLES = 5

UNTYPED = {
    "JSONDecodeError": "a success cut behind an inner brace, whose framing hides the cut; the SDK reads the JSON",
    "NotAnAnswerError": "a success in plain text, whose body the caller asked to read itself",
    "UnicodeDecodeError": "a stream that is not in UTF-8; the SDK decodes its lines",
}
"""Raw exceptions that are reported and break no rule. The stock SDK raises them as well."""

TOLERATED_NOISE = {
    "Unclosed c": "aiohttp complains about connections of event loops that have ended, and of dropped streams",
    "async_generator_athrow": "an event loop closes each generator of a dropped stream in a task of its own",
    "closing of asynchronous generator": "the same when the event loop ends, as with the bare client",
}
"""Lost exceptions that are reported and break no rule, by a part of their text."""


@dataclass
class Run:
    """What a run has left behind: a line for each call, the raw server's ledger, and the report of each caller."""

    calls: list[dict[str, Any]]
    ledger: dict[str, list[list[Any]]]
    callers: dict[str, dict[str, Any]]
    codes: dict[str, int]
    kills: int

    def attempts_of(self, call: dict[str, Any]) -> list[list[Any]]:
        return self.ledger.get(call["marker"], [])

    def outcomes(self, *, raw: bool = False) -> Counter[str]:
        return Counter(
            call["detail"].partition(":")[0] if raw else call["outcome"]
            for call in self.calls
            if (call["outcome"] == "raw") == raw
        )


def twice(run: Run) -> list[dict[str, Any]]:
    """Return the calls that were sent again although a whole answer had come. See the docstring of the package."""
    return [
        call
        for call in run.calls
        if call["patient"] and any(name in HARMLESS and whole for name, whole in run.attempts_of(call)[:-1])
    ]


def unanswered(run: Run) -> list[dict[str, Any]]:
    """Return the calls that failed although the raw server had sent a whole answer."""
    return [
        call | {"detail": f"{call['outcome']} after {run.attempts_of(call)[-1][0]!r}"}
        for call in run.calls
        if call["patient"]
        and call["outcome"] not in {"result", "left", "cancelled"}
        and any(name in HARMLESS and whole for name, whole in run.attempts_of(call)[-1:])
    ]


def broken(run: Run) -> list[str]:
    """Say which rules were broken."""
    return [*_calls_that_break_rules(run), *_callers_that_break_rules(run)]


def _calls_that_break_rules(run: Run) -> Iterator[str]:
    found = {
        "ended with a raw exception": [
            call for call in run.calls if call["outcome"] == "raw" and call["detail"].partition(":")[0] not in UNTYPED
        ],
        "ended wrongly": [call for call in run.calls if call["outcome"] == "defect"],
        "were answered twice": twice(run),
        "failed although a whole answer had been sent": unanswered(run),
        "were sent more often than they may be tried": [
            call for call in run.calls if len(run.attempts_of(call)) > call["tries"]
        ],
    }
    for what, calls in found.items():
        if calls:
            shown = (f"{call['kind']} {call['marker']} {call.get('detail', '')}" for call in calls[:MOST_EXAMPLES])
            yield f"{len(calls)} calls {what}: {'; '.join(shown)}."
    results = Counter(call["caller"] for call in run.calls if call["outcome"] == "result")
    for name in run.callers:
        if not results[name]:
            yield f"The caller {name!r} got no result, so the run shows nothing about it."


def _callers_that_break_rules(run: Run) -> Iterator[str]:
    for name, code in run.codes.items():
        if code:
            yield f"The caller {name!r} ended with exit code {code}."
    for name, report in run.callers.items():
        for thing in ("open sockets", "tasks", "threads"):
            if report[thing]:
                yield f"The caller {name!r} has left {report[thing]} {thing}."
        for unit, most in MOST_GROWTH.items():
            if report[unit] > most:
                yield f"The caller {name!r} has {report[unit]} {unit}; at most {most} are allowed."
        if noise := [text for text in report["noise"] if not any(part in text for part in TOLERATED_NOISE)]:
            yield f"The caller {name!r} lost {len(noise)} exceptions: {'; '.join(noise[:MOST_EXAMPLES])}."


def counts(run: Run) -> Iterator[str]:
    """Report what happened, in lines."""
    calls = Counter(call["caller"] for call in run.calls)
    where = Counter(call["where"] for call in run.calls)
    outcomes, raw = run.outcomes(), run.outcomes(raw=True)
    ours = {"result", "left", "cancelled", "defect"}
    untyped = Counter({name: raw.pop(name) for name in UNTYPED if name in raw})
    yield f"calls: {len(run.calls)} ({_listed(calls)}; {_listed(where)})"
    yield f"results: {outcomes['result']}"
    yield f"left by their callers: {outcomes['left'] + outcomes['cancelled']} ({outcomes['cancelled']} cancelled)"
    typed = Counter({name: count for name, count in outcomes.items() if name not in ours})
    yield f"typed errors: {typed.total()} ({_listed(typed)})"
    yield f"raw exceptions: {raw.total()}{f' ({_listed(raw)})' if raw else ''}"
    yield f"raw exceptions that the stock SDK raises too: {untyped.total()} ({_listed(untyped)})"
    yield f"wrong or partial answers, and calls without an end: {outcomes['defect']}"
    yield f"calls answered twice: {len(twice(run))}"
    faults = Counter(name for attempts in run.ledger.values() for name, _ in attempts)
    yield f"attempts at the raw server by fault: {_listed(faults)}"
    yield f"times the gateway was killed: {run.kills}"
    for name, report in run.callers.items():
        values = ", ".join(f"{thing} {value}" for thing, value in report.items() if thing != "noise")
        yield f"at the end of {name}: {values}, lost exceptions {len(report['noise'])}"


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"
