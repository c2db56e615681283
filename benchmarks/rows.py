"""The tables of rows, each with its unit, its target and its work."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from .measure import Figures, by_turns

if TYPE_CHECKING:
    from collections.abc import Callable

Measure = partial[Figures]


@dataclass(frozen=True)
class Target:
    """A limit for a comparison of ours with the bare client.

    `ratio` is ours divided by bare, `more` is ours minus bare, and `value` is ours alone. `nothing` is a difference
    that noise explains.
    """

    by: Literal["ratio", "more", "value", "nothing"]
    limit: float = 0
    least: bool = False

    def scores(self, bare: list[float], other: list[float]) -> list[float]:
        """Compare round by round, as far as both have rounds."""
        if self.by == "value":
            return other
        pairs = zip(bare, other, strict=False)
        return [theirs / baseline if self.by == "ratio" else theirs - baseline for baseline, theirs in pairs]

    def met(self, scores: list[float]) -> bool:
        """Whether the median is within the limit. For `nothing`, ours must cost no more than bare in at least one round."""
        if self.by == "nothing":
            return min(scores) <= 0
        return median(scores) >= self.limit if self.least else median(scores) <= self.limit

    def __str__(self) -> str:
        """Write the target for a table."""
        if self.by == "nothing":
            return "nothing measurable"
        sign = {"ratio": " x", "more": " more", "value": ""}[self.by]
        return f"at {'least' if self.least else 'most'} {self.limit:g}{sign}"


@dataclass(frozen=True)
class Row:
    """One line of the table of results."""

    name: str
    what: str
    unit: str
    target: Target
    measure: Measure
    rounds: float = 1
    """Factor for the number of rounds. At least one round is measured."""
    peers: bool = True
    paused: bool = False
    """Whether the row mostly waits, so that it can run beside other rows."""
    every_version: bool = False
    """Whether the row is measured with every version that `--openai` names."""

    def of_version(self, version: str) -> Row:
        """Return the row for another version of openai."""
        return replace(self, name=f"{self.name}-{version}", what=f"{self.what}, openai {version}")


def _clients(kind: str, count: int = 20, ours: int = 200, turns: int = 3) -> Measure:
    return partial(by_turns, work="clients", turns=turns, kind=kind, count=count, ours={"count": ours})


def _memory(kind: str, times: int = 1) -> Measure:
    return partial(by_turns, work="memory", kind=kind, times=times, count=50, ours={"count": 1000})


def _connections(**options: Any) -> Measure:
    return partial(by_turns, work="connections", at_once=True, **options)


def _calls(count: int = 40, turns: int = 25, **options: Any) -> Measure:
    return partial(by_turns, work="calls", turns=turns, count=count, **options)


def _together(count: int = 128, turns: int = 9, width: int = 64, **options: Any) -> Measure:
    return partial(by_turns, work="together", turns=turns, count=count, width=width, **options)


def _paced(caller: str, kind: str) -> Measure:
    return partial(by_turns, work="paced", count=150, caller=caller, ours={"kind": kind})


PAUSED: Any = {"pause": 6, "port": "distant"}  # the bare client keeps an idle connection for 5 s
ONCE: Any = {"paused": True, "every_version": True}
HUNDREDTH, ONE = Target("ratio", 0.01), Target("value", 1)

ROWS = (
    Row("client-sync", "a further client, sync: CPU", "ms", HUNDREDTH, _clients("sync")),
    Row("client-async", "a further client, async: CPU", "ms", HUNDREDTH, _clients("async")),
    Row("client-aiohttp", "a further client, aiohttp: CPU", "ms", HUNDREDTH, _clients("aiohttp")),
    Row("memory-sync", "a further client, sync: memory", "MB", HUNDREDTH, _memory("sync"), 1 / 3),
    Row("memory-async", "a further client, async: memory", "MB", HUNDREDTH, _memory("async"), 1 / 3),
    Row("memory-aiohttp", "a further client, aiohttp: memory", "MB", HUNDREDTH, _memory("aiohttp"), 1 / 3),
    Row("client-environment", "a further client, from environment and .env: CPU", "ms", Target("ratio", 0.02), _clients("environment"), peers=False),
    Row("idle-clients", "1,000 idle clients: memory", "MB", Target("value", 6), _memory("sync", times=1000), 1 / 3),
    Row("handshakes", "ten calls 6 s apart, TLS: handshakes", "", ONE, _connections(**PAUSED), **ONCE),
    Row("handshakes-streamed", "ten streamed calls 6 s apart, TLS: handshakes", "", ONE, _connections(**PAUSED, streamed=True), **ONCE),
    Row("streams-connections", "ten streamed calls back to back: connections", "", ONE, _connections(streamed=True, kinds=["sync"]), 0),
    Row("call", "short call, provider route: CPU", "ms", Target("ratio", 1.03), _calls(), 3),
    Row("call-compat", "short call, compat route: CPU", "ms", Target("ratio", 1.06), _calls(route="compat"), 3, peers=False),
    Row("chunk", "streamed chunk: CPU", "us", Target("ratio", 1.03), partial(by_turns, work="chunks", turns=25, count=3)),
    Row("prompt-compat", "1 MB prompt, compat route: CPU", "ms", Target("more", 2), _calls(4, size=10**6, route="compat"), peers=False),
    Row("prompt", "1 MB prompt, provider route: CPU", "ms", Target("nothing"), _calls(4, size=10**6)),
    Row("together", "async, 64 at a time", "calls/s", Target("ratio", 0.97, least=True), _together()),
    Row("together-aiohttp", "async, 64 at a time, opt-in aiohttp", "calls/s", Target("ratio", 1.6, least=True), _together(ours={"kind": "aiohttp"}), peers=False),
    Row("paced", "150 relayed streams, opt-in merge_chunks=0.1: CPU", "s", Target("ratio", 0.6), _paced("paced", "resting"), 1 / 3, peers=False),
    Row("proxied", "150 relayed streams through a proxy, opt-in merge_chunks: CPU", "s", Target("ratio", 0.4), _paced("proxied", "merging"), 1 / 3, peers=False),
    Row("on-time", "most relayed streams on time, opt-in merge_chunks", "streams", Target("ratio", 3, least=True), partial(by_turns, work="on_time", ours={"kind": "merging"}), 1 / 3, peers=False),
    Row("history", "history of 100 messages, async, 64 at a time, opt-in long_history()", "calls/s", Target("ratio", 8, least=True), _together(64, 3, messages=100, ours={"long": True})),
    Row("import", "import, alone: wall", "ms", Target("value", 60), partial(by_turns, work="importing")),
    Row("import-added", "import, after openai: wall", "ms", Target("value", 10), partial(by_turns, work="importing", after="openai"), peers=False),
)  # fmt: skip


def row_named(name: str) -> Row:
    """Find a row by its name in the results. The name may end in a version of openai."""
    rows = {row.name: row for row in ROWS}
    base, _, version = name.rpartition("-")
    return rows.get(name) or rows[base].of_version(version)


@dataclass(frozen=True)
class Growth:
    """A cost that may grow in proportion to a size, and may not exceed the bare client's at any size."""

    name: str
    what: str
    sizes: tuple[int, ...]
    measure: Callable[[int], Measure]
    each: bool = False
    """Whether a figure is the cost of one of `size` things."""
    rounds: float = 1
    """Factor for the number of rounds. At least one round is measured."""

    STEEPEST = 1.1
    DEAREST = 1.05

    def steepness(self, costs: dict[int, float]) -> float:
        """Return the highest exponent between neighbouring sizes. Proportional growth has 1."""
        whole = {size: cost * (size if self.each else 1) for size, cost in costs.items()}
        steps = zip(self.sizes, self.sizes[1:], strict=False)
        return max(math.log(whole[large] / whole[small]) / math.log(large / small) for small, large in steps)

    def met(self, bare: dict[int, float], ours: dict[int, float]) -> bool:
        """Whether the growth is allowed, with a margin for noise."""
        dearest = max(ours[size] / bare[size] for size in self.sizes)
        return self.steepness(ours) <= max(self.STEEPEST, self.steepness(bare)) and dearest <= self.DEAREST


GROWTH = (
    Growth("growth-clients", "clients: CPU ms for each", (1, 10, 100, 1000), lambda size: _clients("sync", size, size, turns=1), each=True, rounds=1 / 3),
    Growth("growth-concurrency", "calls at a time: CPU ms for each", (1, 4, 16, 64, 256), lambda size: _together(256, 3, width=size, of="ms"), each=True),
    Growth("growth-history", "messages, long_history(): CPU ms for a call", (1, 5, 25, 100, 500), lambda size: _together(8 + 400 // (size + 1), messages=size, width=4, of="ms", ours={"long": True}), rounds=1 / 3),
    Growth("growth-prompt", "kB of prompt, compat route: CPU ms for a call", (1, 16, 256, 4096), lambda size: _calls(4 + 80 // (size + 1), 9, size=1000 * size, route="compat")),
)  # fmt: skip
