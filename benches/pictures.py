"""Draws the results of the benchmarks: `make bench-pictures` redraws benches/results/*.json.

What belongs here: how measured figures become pictures. Nothing is measured here, and nothing is read but the
JSON files that the benchmarks write. They import this module, and with it matplotlib, after measuring.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

RESULTS = Path(__file__).parent / "results"
INK, SOFT, FAINT = "#1c2430", "#5b6675", "#e3e7ec"
OURS, REFERENCE, WARN, FAULT, GOOD = "#0b6bcb", "#9aa5b1", "#c4471d", "#f2994a", "#3b8a3e"

mpl.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": REFERENCE,
        "axes.grid": True,
        "axes.labelcolor": SOFT,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "font.family": "sans-serif",
        "font.size": 10,
        "grid.color": FAINT,
        "legend.frameon": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "entra_fast",
        "text.color": INK,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
    }
)


def _figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    layout = ConstrainedLayoutEngine(rect=(0.005, 0, 0.99, 1 - 0.75 / height))
    figure = Figure(figsize=(width, height), layout=layout)
    figure.text(0.1 / width, 1 - 0.08 / height, title, size=15, weight="bold", va="top")
    figure.text(0.1 / width, 1 - 0.42 / height, subtitle, size=9.5, color=SOFT, va="top")
    return figure


# --- load: throughput and latency, against the references of the same run ---

CONDITIONS = ", JSON, 64 connections"


def load_picture(result: dict[str, Any]) -> Figure:
    """Throughput and latency percentiles with 64 connections and JSON, the fastest on top."""
    rows = [row for row in result["rows"] if row["subject"].endswith(CONDITIONS) and row["row"] != "log"]
    servers: dict[str, dict[str, float]] = {}
    for row in reversed(rows):  # of what was measured twice, the first counts: beside the bare protocol
        servers[row["reference"].partition(" + ")[0]] = row["reference_figures"]
        servers[row["subject"].removesuffix(CONDITIONS)] = row["subject_figures"]
    names = sorted(servers, key=lambda name: servers[name]["per_second"])
    ours = {row["subject"].removesuffix(CONDITIONS) for row in rows}
    colours = [OURS if name in ours or name.startswith("entra_fast") else REFERENCE for name in names]

    figure = _figure(
        11.5, 1.9 + 0.44 * len(names), "The sidecar on one core, beside its references", result["machine"]
    )
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.15, 1))
    rates = [servers[name]["per_second"] for name in names]
    bars = left.barh(names, rates, color=colours, height=0.62)
    left.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=4, size=9.5)
    left.set(title="Requests per second, more is better", xlim=(0, max(rates) * 1.16))
    left.xaxis.set_major_formatter(EngFormatter(sep=""))
    left.grid(axis="y", visible=False)
    left.tick_params(axis="y", length=0, labelsize=10.5, labelcolor=INK)

    for place, (name, colour) in enumerate(zip(names, colours, strict=True)):
        p50, p99, p99_9 = (servers[name][key] / 1e3 for key in ("p50", "p99", "p99_9"))
        right.plot([p50, p99_9], [place, place], color=colour, linewidth=2.5, solid_capstyle="round")
        for value, marker, size in ((p50, "o", 8), (p99, "D", 6), (p99_9, "|", 11)):
            right.plot(value, place, marker, color=colour, markersize=size, markeredgewidth=2)
    right.set_xscale("log")
    right.set(title="Latency, less is better")
    right.xaxis.set_major_locator(LogLocator(subs=(1,)))
    right.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _milliseconds(value)))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.grid(axis="y", visible=False)
    right.grid(axis="x", which="minor")
    right.tick_params(axis="y", length=0)
    figure.legend(
        handles=[
            Patch(color=OURS, label="entra_fast"),
            Patch(color=REFERENCE, label="reference, measured in the same run"),
            *(
                Line2D([], [], color=SOFT, marker=marker, linestyle="none", markeredgewidth=2, label=label)
                for marker, label in (("o", "p50"), ("D", "p99"), ("|", "p99.9"))
            ),
        ],
        loc="outside lower left",
        ncols=5,
    )
    return figure


def _milliseconds(value: float) -> str:
    return f"{value:g} ms" if value >= 1 else f"{value * 1e3:.0f} µs"


# --- soak: the course of a long run ---


def soak_picture(result: dict[str, Any]) -> Figure:
    """Memory, latency and rate over the course of the run."""
    windows = result["windows"]
    answered = [window["requests"] for window in windows]
    summary = f"{result['requests']:,} requests, {result['wrong_answers']} wrong, {result['errors']} errors"
    figure = _figure(10.5, 7.6, f"Soak: {summary}", result["machine"])
    memory, latency, rate = figure.subplots(3, 1, sharex=True)

    slope = result["slope_bytes_per_million_requests"] / 2**20
    memory.plot(answered, [window["resident_bytes"] / 2**20 for window in windows], color=OURS)
    memory.set(title="Resident memory of the sidecar", ylabel="MiB")
    _from_zero(memory)
    _remark(memory, f"{slope:+.2f} MiB per million requests over the last three quarters")

    for name, colour in (("p50", OURS), ("p99", WARN)):
        latency.plot(answered, [window[f"{name}_us"] / 1e3 for window in windows], color=colour, label=name)
    latency.set(title="Time to a response, pipelined", ylabel="ms")
    _from_zero(latency)
    latency.legend(loc="lower right", ncols=2)

    rate.plot(answered, [window["per_second"] / 1e3 for window in windows], color=OURS)
    rate.set(title="Responses per second", ylabel="thousands", xlabel="requests so far")
    _from_zero(rate)
    _remark(rate, "limited by the client")
    rate.xaxis.set_major_formatter(EngFormatter(sep=""))
    rate.set_xlim(0, answered[-1])
    return figure


def _from_zero(axes: Axes) -> None:
    """Heights can be compared by eye only if the axis begins at zero."""
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)


def _remark(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="right", size=9, weight="normal", color=SOFT)


# --- chaos: memory and requests, with the faults behind them ---

DEATHS = {"worker killed", "worker hangs", "restarted"}


def chaos_picture(result: dict[str, Any]) -> Figure:
    """One panel for each part: memory of each process, responses, and when which fault was active."""
    parts = [part for part in result["parts"].values() if "skipped" not in part]
    faults = sum(len(part["timeline"]["faults"]) for part in parts)
    summary = (
        f"{result['requests']:,} requests, {faults} faults: {result['wrong_answers']} wrong responses, "
        f"{result['expired_tokens']} expired tokens, {result['false_rejections']} false rejections, "
        f"{result['lost_requests']} lost; {result['cut_off_by_crashes']} cut off by crashes of their worker"
    )
    figure = _figure(10.5, 1.5 + 2.7 * len(parts), f"Sidecars under faults (seed {result['seed']})", summary)
    panels: list[Axes] = list(figure.subplots(len(parts), 1, squeeze=False)[:, 0])
    for axes, part in zip(panels, parts, strict=True):
        _chaos_panel(axes, part)
    panels[-1].set_xlabel("seconds")
    figure.legend(
        handles=[
            Line2D([], [], color=OURS, label="memory of each process"),
            Line2D([], [], color=GOOD, linestyle="--", label="requests answered"),
            Patch(color=FAULT, alpha=0.3, label="a fault is active"),
            Line2D([], [], color=WARN, label="a process is killed or restarted"),
        ],
        loc="outside lower left",
        ncols=4,
    )
    return figure


def _chaos_panel(axes: Axes, part: dict[str, Any]) -> None:
    timeline = part["timeline"]
    for begin, end, name in timeline["faults"]:
        if name in DEATHS:
            axes.axvline(begin, color=WARN, linewidth=1.2, alpha=0.8)
        else:
            axes.axvspan(begin, end, color=FAULT, alpha=0.22, linewidth=0)
    for process in timeline["processes"]:
        axes.plot(
            process["moments"], [kib / 1024 for kib in process["resident_kib"]], color=OURS, linewidth=1.4
        )
    last = max(moment for process in timeline["processes"] for moment in process["moments"])
    axes.set(title=part["title"][:1].upper() + part["title"][1:], ylabel="MiB", xlim=(0, last))
    _from_zero(axes)
    _remark(axes, f"memory {part['rss_slope_kib_per_10k']:+.0f} KiB per 10,000 requests at the end")
    requests = axes.twinx()
    requests.plot(timeline["moments"], timeline["requests"], color=GOOD, linestyle="--", linewidth=1.4)
    requests.set(ylabel="requests")
    _from_zero(requests)
    requests.yaxis.set_major_formatter(EngFormatter(sep=""))
    requests.grid(visible=False)


PICTURES = {"load": load_picture, "soak": soak_picture, "chaos": chaos_picture}


def draw(result: Path, picture: Callable[[dict[str, Any]], Figure]) -> Path:
    """Draw a result file; returns the path of the drawing, in the same directory."""
    drawing = result.with_suffix(".svg")
    # Without a date: the same figures give the same file.
    picture(json.loads(result.read_text())).savefig(drawing, metadata={"Date": None})
    return drawing


def main(names: Sequence[str]) -> int:
    for name in names or PICTURES:
        print(f"drew {draw(RESULTS / f'{name}.json', PICTURES[name])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
