"""What one process holds: streams that it relays at DeepSeek's pace, and prompts of a batch that it asks."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from .measure import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measure import Bench, Contestant, Worker

STREAMS = (50, 150, 300, 600)
"""How many streams are relayed at a time."""

RELAYS = {
    "bare `openai`": ("bare", "async"),
    "here": ("ours", "async"),
    '`transport="aiohttp"`': ("ours", "aiohttp"),
    "with `merge_chunks=True`": ("ours", "merging"),
    "with `merge_chunks=0.1`": ("ours", "resting"),
}
"""By what they are relayed: a library, and its kind of client. The last three are options of ours."""

PROMPTS = 2_000
BATCHES = {"batch.py": "one process", "batch_ray.py": "Ray with two actors"}
"""The programs of `examples/` that ask a batch."""


def relayed(bench: Bench, team: Sequence[Contestant], rounds: int) -> dict[str, dict[str, Any]]:
    """Relay streams: CPU seconds, and the seconds by which the last one is late, by the number of streams."""
    pythons = {contestant.name: contestant for contestant in team}
    found: dict[str, dict[str, Any]] = {str(count): {} for count in STREAMS}
    for count in STREAMS:
        runs: dict[str, list[list[float]]] = {name: [] for name in RELAYS}
        for _ in range(rounds):
            for name, (library, kind) in RELAYS.items():
                worker = bench.worker(pythons[library], "paced", {"count": count, "kind": kind})
                runs[name].append(_turns(worker, 2))
        found[str(count)] = {
            name: [float(f"{median(column):.3g}") for column in zip(*of, strict=True)] for name, of in runs.items()
        }
    return found


def asked(bench: Bench, team: Sequence[Contestant], rounds: int) -> dict[str, Any]:
    """Ask a batch with each program: prompts per second, or the reason why there is no figure."""
    found: dict[str, Any] = {}
    for script in BATCHES:
        worker = bench.worker(team[1], "batch", {"script": script, "count": PROMPTS}, pinned=False)
        try:
            found[script] = float(f"{median(_turns(worker, rounds)):.3g}")
        except NotMeasuredError as error:
            found[script] = str(error)
    return found


def _turns(worker: Worker, turns: int) -> list[float]:
    try:
        figures: list[float] = []
        for _ in range(turns):
            worker.begin()
            figures.append(worker.value())
    finally:
        worker.stop()
    return figures


def written(results: dict[str, Any]) -> list[str]:
    """Write the table of each part that was measured."""
    return [write(results[name]) for name, (_, write) in PARTS.items() if name in results]


def streams_markdown(streams: dict[str, dict[str, Any]]) -> str:
    """Write the table of the streams in docs/performance.md."""
    lines = [f"| streams | {' | '.join(RELAYS)} |", "| --- " * (len(RELAYS) + 1) + "|"]
    for count, of in streams.items():
        cells = [f"{of[name][0]:.3g} s CPU, {max(of[name][1], 0):.1f} s late" for name in RELAYS]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def batch_markdown(batch: dict[str, Any]) -> str:
    """Write the table of the batch in docs/performance.md."""
    lines = [f"| {PROMPTS:,} prompts | prompts per second |", "| --- | --- |"]
    for script, figure in batch.items():
        shown = f"{figure:.0f}" if isinstance(figure, float) else figure
        lines.append(f"| {BATCHES[script]}, `examples/{script}` | {shown} |")
    return "\n".join(lines)


PARTS = {"streams": (relayed, streams_markdown), "batch": (asked, batch_markdown)}
"""The parts by their names in the results: how each is measured, and how its table is written."""
