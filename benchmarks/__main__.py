"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .environments import CACHE, NotInstalledError, prepared
from .libraries import PEERS
from .measure import Bench, Contestant
from .report import Results, growth_result, judged, markdown, row_result, table
from .rows import GROWTH, ROWS
from .scale import PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PEER_ROUNDS = 3
NAMES = [*(row.name for row in ROWS), *(growth.name for growth in GROWTH), *PARTS]
_EPILOG = """rows:
{names}

examples:
  python -m benchmarks --quick                  a rough look, in less than a minute
  python -m benchmarks --only call chunk        two rows, as precisely as in a whole run
  python -m benchmarks --peers --json results.json --chart chart.svg
  python -m benchmarks --openai 3.54.0 1.66.0   all rows with 3.54.0, the handshakes with both
  python -m benchmarks --from results.json --chart chart.svg
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure deepseek_gateway against the bare openai client, on loopback.",
        epilog=_EPILOG.format(names=textwrap.fill(", ".join(NAMES), 76)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", action="store_true", help="also measure other libraries, each in its own environment")
    add("--quick", action="store_true", help="one round of each row, and no row with pauses")
    add("--only", nargs="+", metavar="ROW", choices=NAMES, default=NAMES, help="only these rows")
    add("--rounds", type=_count, metavar="N", help="rounds of most rows (default: 9)")
    add("--json", type=Path, metavar="FILE", help="write the results as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw the results as SVG")
    add("--markdown", action="store_true", help="print the tables of the documents")
    add("--from", type=Path, metavar="FILE", dest="source", help="measure nothing; show the results in this file")
    add("--openai", nargs="+", metavar="VERSION", help="openai versions: all rows with the first, handshakes with each")
    add("--venvs", type=Path, metavar="DIR", default=CACHE, help="folder of the environments (default: %(default)s)")
    add("--self", action="store_true", dest="alike", help="compare the bare client with itself, to see the noise")
    return parser


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write and draw.

    Args:
        arguments: The arguments of the command line. By default, the arguments of this process.

    Returns:
        0, even if a target is missed.
    """
    options = _parser().parse_args(arguments)
    results = judged(json.loads(options.source.read_text("utf-8"))) if options.source else measured(options)
    print(markdown(results) if options.markdown else table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if options.chart:
        from .chart import draw  # only the chart needs matplotlib

        options.chart.write_text(draw(results), "utf-8")
    return 0


def measured(options: argparse.Namespace) -> Results:
    """Measure the rows that the options select, and return the results for the JSON file."""
    rounds = options.rounds or (1 if options.quick else 9)
    versions = options.openai or [version("openai")]
    teams = [_team(wanted, options) for wanted in options.openai or [None]]
    results: Results = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "openai": versions[0],
        "rounds": rounds,
        "skipped": {},
        "rows": {},
        "growth": {},
    }
    peers = _peers(options, results["skipped"]) if options.peers else []
    rows = [(row, teams[0] + (peers if row.peers else [])) for row in ROWS if row.name in options.only]
    for team, other in zip(teams[1:], versions[1:], strict=True):
        rows += [(row.of_version(other), team) for row, _ in rows if row.every_version and row.name in NAMES]
    growths = [growth for growth in GROWTH if growth.name in options.only]
    scale = [name for name in PARTS if name in options.only]
    if options.quick:
        slow = [*(row.name for row, _ in rows if row.paused), *(growth.name for growth in growths), *scale]
        results["skipped"] |= dict.fromkeys(slow, "takes too long for --quick")
        rows, growths, scale = [(row, team) for row, team in rows if not row.paused], [], []
    paused = [row for row in rows if row[0].paused]
    announce = _progress(len(rows) - len(paused) + bool(paused) + len(growths) + len(scale))

    with ExitStack() as stack:
        bench = Bench(stack, quick=options.quick)
        if paused:
            announce("rows with pauses, all at once")
            pool = stack.enter_context(ThreadPoolExecutor(len(paused)))
            found = pool.map(lambda row: row[0].measure(bench, row[1], 1), paused)
            for (row, _), figures in zip(paused, found, strict=True):
                results["rows"][row.name] = row_result(row, figures)
        for row, team in rows:
            if not row.paused:
                announce(row.what)
                figures = row.measure(bench, team, max(1, round(rounds * row.rounds)))
                results["rows"][row.name] = row_result(row, figures)
        for growth in growths:
            announce(f"growth: {growth.what}")
            times = max(1, round(rounds * growth.rounds))
            by_size = {size: growth.measure(size)(bench, teams[0], times) for size in growth.sizes}
            results["growth"][growth.name] = growth_result(growth, by_size)
        for name in scale:
            announce(name)
            results[name] = PARTS[name][0](bench, teams[0], max(1, rounds // 3))
    return results


def _progress(parts: int) -> Callable[[str], None]:
    """Return a function that announces the next part of a run on standard error."""
    started, numbers = time.monotonic(), itertools.count(1)

    def announce(what: str) -> None:
        print(f"[{next(numbers):2}/{parts}] {time.monotonic() - started:4.0f} s  {what}", file=sys.stderr, flush=True)

    return announce


def _team(wanted: str | None, options: argparse.Namespace) -> list[Contestant]:
    """Return the bare client and ours, in this interpreter or in one with another openai."""
    python = sys.executable
    if wanted:
        python = prepared(f"openai-{wanted}", (f"openai[aiohttp]=={wanted}", "python-dotenv"), options.venvs)
    return [Contestant("bare", "bare", python), Contestant("ours", "bare" if options.alike else "ours", python)]


def _peers(options: argparse.Namespace, skipped: dict[str, str]) -> list[Contestant]:
    """Make the environments of the peers. A peer that cannot be installed is reported as skipped."""
    found = []
    for name, peer in PEERS.items():
        try:
            found.append(Contestant(name, name, prepared(name, peer.requirements, options.venvs), PEER_ROUNDS))
        except NotInstalledError as error:
            skipped[name] = f"cannot be installed: {error}"
    return found


if __name__ == "__main__":
    sys.exit(main())
