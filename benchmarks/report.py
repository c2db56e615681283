"""Results as the JSON file holds them, and the tables made from them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from .rows import row_named
from .scale import written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measure import Figures
    from .rows import Growth, Row

Results = dict[str, Any]
Line = tuple[str, ...]


def row_result(row: Row, figures: Figures) -> Results:
    """Sum up a row: values, score and cost of each library, and whether ours meets the target."""
    libraries: Results = {}
    result: Results = {"what": row.what, "unit": row.unit, "target": str(row.target), "by": row.target.by}
    result["libraries"] = libraries
    bare = known if isinstance(known := figures["bare"], list) else []
    for name, values in figures.items():
        if isinstance(values, str):
            libraries[name] = {"reason": values}
            continue
        libraries[name] = {"values": _rounded(values)}
        if name != "bare" and bare:
            scores = row.target.scores(bare, values)
            pairs = [pair for pair in zip(bare, values, strict=False) if all(pair)]
            costs = [theirs / ours if row.target.least else ours / theirs for theirs, ours in pairs]
            libraries[name]["score"] = _rounded([median(scores), min(scores), max(scores)])
            libraries[name]["cost"] = _rounded([median(costs or [0])])[0]
            if name == "ours":
                result["met"] = row.target.met(scores)
    return result


def judged(results: Results) -> Results:
    """Compare the figures of an earlier run with the current targets."""
    rows: Results = {}
    for name, row in results["rows"].items():
        figures = {library: found.get("values") or found["reason"] for library, found in row["libraries"].items()}
        rows[name] = row_result(row_named(name), figures)
    return {**results, "rows": rows}


def growth_result(growth: Growth, figures: dict[int, Figures]) -> Results:
    """Sum up how the cost of each library grows with the size."""
    result: Results = {"what": growth.what, "libraries": {}}
    costs: dict[str, dict[int, float]] = {}
    for name in ("bare", "ours"):
        known = {size: of[name] for size, of in figures.items()}
        if reasons := [values for values in known.values() if isinstance(values, str)]:
            result["libraries"][name] = {"reason": reasons[0]}
            continue
        costs[name] = {size: median(values) for size, values in known.items() if isinstance(values, list)}
        result["libraries"][name] = {
            "costs": {str(size): _rounded([cost])[0] for size, cost in costs[name].items()},
            "steepness": round(growth.steepness(costs[name]), 2),
        }
    if len(costs) > 1:
        result["met"] = growth.met(costs["bare"], costs["ours"])
    return result


def _rounded(values: list[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def table(results: Results) -> str:
    """Write the results as plain text: rows, peers, growth, and the rows without a figure."""
    rows, grown = results["rows"].values(), results["growth"].values()
    ours = [
        (row["what"], _value(row, "bare"), _value(row, "ours"), _score(row, "ours"), row["target"], _verdict(row))
        for row in rows
    ]
    others = [
        (row["what"], name, _value(row, name), _score(row, name))
        for row in rows
        for name in row["libraries"]
        if name not in {"bare", "ours"}
    ]
    growth = [
        (
            one["what"],
            name,
            "  ".join(f"{int(size):,}: {_short(cost)}" for size, cost in result.get("costs", {}).items()),
            f"{result.get('steepness', '-')}",
            _verdict(one) if name == "ours" else "",
        )
        for one in grown
        for name, result in one["libraries"].items()
    ]
    parts = [
        _columns(("what", "bare", "ours", "median [range]", "target", ""), ours),
        _columns(("what", "peer", "measured", "median [range]"), others),
        _columns(("cost by number of", "", "number: cost", "steepness", ""), growth),
    ]
    notes = [f"skipped: {name}: {reason}" for name, reason in results["skipped"].items()]
    notes += [
        f"not measured: {one['what']}: {name}: {result['reason']}"
        for one in (*rows, *grown)
        for name, result in one["libraries"].items()
        if "reason" in result
    ]
    parts += written(results)
    return "\n\n".join(filter(None, [*parts, "\n".join(notes)]))


SHOWN_ROWS = (
    *("client-sync", "memory-sync", "idle-clients", "handshakes", "handshakes-streamed", "streams-connections"),
    *("call", "call-compat", "chunk", "prompt-compat", "together", "together-aiohttp", "paced", "proxied", "on-time"),
    *("history", "import-added"),
)


def markdown(results: Results) -> str:
    """Write the table of docs/performance.md, which shows some of the rows, and those that follow it."""
    lines = ["| what | bare `openai` | here | compared, with the range of the rounds | target |", "| --- " * 5 + "|"]
    for name in SHOWN_ROWS:
        if row := results["rows"].get(name):
            target = row["target"] + ("" if row["met"] else ": missed")
            lines.append(
                f"| {row['what']} | {_value(row, 'bare')} | {_value(row, 'ours')} | {_score(row, 'ours')} | {target} |"
            )
    return "\n\n".join(["\n".join(lines), *written(results)])


def _value(row: Results, name: str) -> str:
    values = row["libraries"].get(name, {}).get("values")
    return f"{_short(median(values))} {row['unit']}".strip() if values else "-"


def _score(row: Results, name: str) -> str:
    if "score" not in (result := row["libraries"].get(name, {})):
        return "-"
    middle, low, high = map(_short, result["score"])
    return f"{middle} [{low} to {high}]" + (" x" if row["by"] == "ratio" else "")


def _short(value: float) -> str:
    """Write three significant digits, at most four decimal places, and no exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{round(value, 4):.3g}"  # noqa: PLR2004  # three significant digits


def _verdict(result: Results) -> str:
    return {True: "met", False: "MISSED", None: "not measured"}[result.get("met")]


def _columns(header: Line, lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *lines)
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])
