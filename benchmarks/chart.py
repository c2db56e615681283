"""The chart of the main rows: cost relative to the bare client, drawn from stored results."""

from __future__ import annotations

from io import StringIO
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from .libraries import LIBRARIES

if TYPE_CHECKING:
    from .report import Results

SHOWN = {
    "client-sync": "CPU to make a further client",
    "memory-sync": "Memory of a further client",
    "handshakes": "TLS handshakes in ten calls 6 s apart",
    "history": "CPU of a call with 100 messages, opt-in long_history()",
    "call": "CPU of a short call",
    "chunk": "CPU of a streamed chunk",
    "together-aiohttp": "CPU of a call, 64 at a time, opt-in aiohttp",
    "paced": "CPU of 150 relayed streams, opt-in merge_chunks=0.1",
}

OURS, PEER, INK, GRID, PAPER = "#c2410c", "#94a3b8", "#1e293b", "#e2e8f0", "#ffffff"
LINE = 0.19
"""Inches per bar."""

# Text stays text, and equal results give equal files.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "sans-serif", "font.size": 8}


def draw(results: Results) -> str:
    """Draw one panel for each row of `SHOWN`, with one bar for each library.

    Args:
        results: The results of a run, as in its JSON file.

    Returns:
        The chart as SVG.
    """
    rows = {title: results["rows"][name] for name, title in SHOWN.items() if name in results["rows"]}
    costs = {
        title: {name: result["cost"] for name, result in row["libraries"].items() if result.get("cost")}
        for title, row in rows.items()
    }
    names = [name for name in LIBRARIES if any(name in panel for panel in costs.values())]
    every = [1, *(cost for panel in costs.values() for cost in panel.values())]
    lines = -(-len(costs) // 2)
    with rc_context(_STYLE):
        height = lines * (LINE * len(names) + 0.45) + 0.8
        figure = Figure(figsize=(8.6, height), facecolor=PAPER, layout="constrained")
        figure.suptitle("Cost beside the bare openai client, which is 1", x=0.01, ha="left", fontsize=11, color=INK)
        panels = figure.subplots(max(lines, 1), 2, sharex=True, sharey=True, squeeze=False).flat
        for axes in panels[len(costs) :]:
            axes.set_axis_off()
        for axes, (title, panel) in zip(panels, costs.items(), strict=False):
            _plot(axes, f"{title}{_bare(rows[title])}", [panel.get(name) for name in names])
            axes.set_yticks(range(len(names)), [name.replace("ours", "deepseek_gateway") for name in names])
            for label, name in zip(axes.get_yticklabels(), names, strict=False):
                label.set(color=OURS if name == "ours" else INK)
            axes.set(xlim=(min(every) / 3, max(every) * 3), ylim=(len(names) - 0.4, -0.6))
        measured = f"openai {results['openai']}, Python {results['python']}, {results['platform']}, {results['date']}"
        figure.supxlabel(
            f"Bars to the left are cheaper, logarithmic. {measured}.", fontsize=7, color=INK, x=0.01, ha="left"
        )
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _bare(row: Results) -> str:
    values = row["libraries"]["bare"].get("values")
    return f" (bare: {median(values):.3g} {row['unit']}".rstrip() + ")" if values else ""


def _plot(axes: Any, title: str, costs: list[float | None]) -> None:
    """Draw a panel. The first bar is ours."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, loc="left", fontsize=8, color=INK, weight="bold")
    axes.set_xscale("log")
    for position, cost in enumerate(costs):
        if cost is None:
            axes.annotate("no figure", (1, position), (4, 0), textcoords="offset points", va="center", color=PEER)
            continue
        axes.barh(position, cost - 1, left=1, height=0.7, color=PEER if position else OURS)
        dearer = cost >= 1
        text = f"{cost:.2f}" if cost >= 0.1 else f"{cost:.3f}"  # noqa: PLR2004  # two significant digits
        place = {"textcoords": "offset points", "va": "center", "ha": "left" if dearer else "right", "color": INK}
        axes.annotate(text, (cost, position), (4 if dearer else -4, 0), **place)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color=INK, linewidth=1)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", labelcolor=INK)
    axes.spines[:].set_visible(False)
