"""How a run is shown: a line that changes while it lasts, and a table with a picture at the end.

What belongs here: text.
"""

from __future__ import annotations

import sys
from typing import TextIO

from entra_fast._color import painted
from entra_fast.cli.bench.figures import PERCENTILES, Figures
from entra_fast.cli.terminal import printable

_BAR = 40
_LEAST_SHOWN = 0.0005
"""Rows of the histogram at both ends with a smaller share of the responses are left out."""


class Progress:
    """A line on standard error that is written again and again, if that is a terminal."""

    def __init__(self, seconds: float, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._seconds = seconds
        self._terminal = self._stream.isatty()

    def __call__(self, figures: Figures) -> None:
        if self._terminal:
            failed = figures.wrong.total() + figures.failures.total()
            self._write(
                f"{min(figures.seconds, self._seconds):4.0f} of {self._seconds:g} s   "
                f"{figures.per_second:>9,.0f} responses/s   "
                f"half within {_milliseconds(figures.latencies.percentile(50))}"
                + (f"   {failed:,} wrong" if failed else "")
            )

    def ended(self) -> None:
        """Clear the line."""
        if self._terminal:
            self._write("")

    def _write(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)


def lines(figures: Figures, server_cpu: float | None, stream: TextIO) -> list[str]:
    """The result, for people.

    Args:
        figures: of the run.
        server_cpu: seconds of processor time that the sidecar used, if it said so.
        stream: what the lines are for.
    """
    latencies = figures.latencies
    shown = [
        painted(f"{figures.per_second:,.0f} responses per second", "heading", stream),
        "",
        f"  {figures.responses:,} responses in {figures.seconds:.1f} s",
    ]
    if server_cpu is not None and figures.responses:
        shown.append(
            f"  {server_cpu / figures.responses * 1e6:.1f} us of processor time of the sidecar for each, "
            f"{server_cpu / figures.seconds:.0%} of one processor"
        )
    shown += [
        f"  {f'{percent:g} % within':<14}{_milliseconds(latencies.percentile(percent))}"
        for percent in PERCENTILES
    ]
    shown += [f"  {'longest':<14}{_milliseconds(latencies.longest)}", "", *_histogram(figures)]
    if figures.is_clean:
        shown += ["", painted("Every response was right.", "good", stream)]
    for status, count in figures.wrong.most_common():
        mark = painted("wrong:", "bad", stream)
        shown += ["", f"{mark} {count:,} responses with status {status}"]
    if figures.example:
        shown.append(f"  the first one: {printable(figures.example)}")
    for reason, count in figures.failures.most_common(5):
        mark = painted("failed:", "bad", stream)
        shown += ["", f"{mark} {count:,} requests: {printable(reason)}"]
    if figures.is_limited_by_client:
        mark = painted("note:", "warning", stream)
        shown += [
            "",
            f"{mark} this program used {figures.client_cpu:.0%} of a processor, so it may be the limit.",
            "A load generator such as wrk can send more.",
        ]
    return shown


def _histogram(figures: Figures) -> list[str]:
    rows = figures.latencies.by_power_of_two()
    least = figures.latencies.count * _LEAST_SHOWN
    while rows and rows[0][1] < least:
        rows.pop(0)
    while rows and rows[-1][1] < least:
        rows.pop()
    most = max((count for _, count in rows), default=0)
    return [
        f"  up to {_milliseconds(bound):>10}  {'█' * round(count / most * _BAR) or '▏' if count else ''}"
        for bound, count in rows
    ]


def _milliseconds(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
