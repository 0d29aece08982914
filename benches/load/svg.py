"""Pictures without a library: bars, percentiles on a logarithmic scale, lines over the course of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

INK, SOFT, FAINT, PAPER = "#1c2430", "#5b6675", "#e3e7ec", "#ffffff"
OURS, THEIRS, WARN = "#0b6bcb", "#9aa5b1", "#c4471d"
FONT = "font-family='Inter, Helvetica, Arial, sans-serif'"


@dataclass(frozen=True)
class Bar:
    """A server under one kind of load. Latencies are microseconds; None where there are none."""

    label: str
    per_second: float
    percentiles: tuple[float, float, float] | None
    ours: bool


@dataclass(frozen=True)
class Lines:
    """A panel with lines over one x. Each line is (name, colour, values)."""

    title: str
    xs: Sequence[float]
    lines: Sequence[tuple[str, str, Sequence[float]]]
    unit: str
    note: str = ""


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: int = 13,
    fill: str = INK,
    anchor: str = "start",
    weight: int = 400,
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{fill}' text-anchor='{anchor}' "
        f"font-weight='{weight}'>{escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = FAINT, width: float = 1) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='{stroke}' stroke-width='{width}'/>"


def block(x: float, y: float, width: float, height: float, fill: str) -> str:
    size = f"width='{width:.1f}' height='{height:.1f}'"
    return f"<rect x='{x:.1f}' y='{y:.1f}' {size} rx='2' fill='{fill}'/>"


def document(width: int, height: int, parts: Sequence[str], title: str) -> str:
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{width}' height='{height}' role='img' {FONT}>\n"
        f"<title>{escape(title)}</title>\n<rect width='100%' height='100%' fill='{PAPER}'/>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def microseconds(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} s"
    return f"{value / 1e3:.3g} ms" if value >= 1000 else f"{value:.0f} µs"


def load_picture(bars: Sequence[Bar], title: str, subtitle: str) -> str:
    """Throughput as bars on the left, latency percentiles on the right, one row for each server."""
    width, top, step = 1120, 130, 40
    left, bar_right, dots_left, dots_right = 290, 660, 750, 1085
    height = top + step * len(bars) + 62
    bottom = top + step * len(bars)
    most = _nice_ceiling(max(bar.per_second for bar in bars))
    latencies = [value for bar in bars if bar.percentiles for value in bar.percentiles if value > 0]
    low = 10 ** math.floor(math.log10(min(latencies)))
    high = max(latencies) * 1.15

    def across(value: float) -> float:
        return left + (bar_right - left) * value / most

    def along(value: float) -> float:
        return dots_left + (dots_right - dots_left) * math.log(value / low) / math.log(high / low)

    parts = [
        text(24, 38, title, size=21, weight=700),
        text(24, 62, subtitle, size=13, fill=SOFT),
        text(left, 96, "Requests a second, one core", size=14, weight=600),
        text(left, 114, "longer is better", size=12, fill=SOFT),
        text(dots_left, 96, "Latency: p50 — p99 — p99.9", size=14, weight=600),
        text(dots_left, 114, "64 connections; further left is better; logarithmic", size=12, fill=SOFT),
    ]
    for tick in range(5):
        x = across(most * tick / 4)
        parts += [
            line(x, top, x, bottom),
            text(x, bottom + 20, f"{most * tick / 4:,.0f}", size=11, fill=SOFT, anchor="middle"),
        ]
    for power in range(int(math.log10(low)), int(math.log10(high)) + 1):
        for factor in (1, 2, 5):
            value = factor * 10.0**power
            if low <= value <= high:
                x = along(value)
                parts.append(line(x, top, x, bottom))
                if factor == 1:
                    parts.append(
                        text(x, bottom + 20, microseconds(value), size=11, fill=SOFT, anchor="middle")
                    )
    for index, bar in enumerate(bars):
        y = top + step * index + step / 2
        colour = OURS if bar.ours else THEIRS
        weight = 600 if bar.ours else 400
        parts += [
            text(left - 12, y + 4.5, bar.label, anchor="end", weight=weight, fill=INK if bar.ours else SOFT),
            block(left, y - 11, max(across(bar.per_second) - left, 1.5), 22, colour),
            text(across(bar.per_second) + 7, y + 4.5, f"{bar.per_second:,.0f}", weight=weight),
        ]
        if bar.percentiles is None:
            parts.append(text(dots_left, y + 4.5, "computed from two measurements", size=11, fill=SOFT))
            continue
        p50, p99, p99_9 = (along(value) for value in bar.percentiles)
        parts.append(line(p50, y, p99_9, y, colour, 3))
        parts += [
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{r}' fill='{colour}' stroke='{PAPER}' stroke-width='1.5'/>"
            for x, r in ((p50, 7), (p99, 5.5), (p99_9, 4.5))
        ]
    parts += [
        block(left, height - 30, 12, 12, OURS),
        text(left + 18, height - 20, "entra_fast", size=12),
        block(left + 110, height - 30, 12, 12, THEIRS),
        text(left + 128, height - 20, "reference, measured in the same run", size=12),
    ]
    return document(width, height, parts, title)


def course_picture(panels: Sequence[Lines], title: str, subtitle: str, x_name: str) -> str:
    """Panels with lines, one above the other, over the course of a run."""
    width, panel, top = 1000, 200, 90
    left, right = 80, 970
    parts = [text(24, 38, title, size=21, weight=700), text(24, 62, subtitle, size=13, fill=SOFT)]
    for number, lines in enumerate(panels):
        y0 = top + number * panel
        parts += _panel(lines, left, right, y0 + 34, y0 + panel - 34)
        parts.append(text(left, y0 + 20, lines.title, size=14, weight=600))
        if lines.note:
            parts.append(text(right, y0 + 20, lines.note, size=12, fill=SOFT, anchor="end"))
    height = top + panel * len(panels) + 16
    parts.append(text(right, height - 12, x_name, size=12, fill=SOFT, anchor="end"))
    return document(width, height, parts, title)


def _panel(lines: Lines, left: float, right: float, top: float, bottom: float) -> list[str]:
    most = _nice_ceiling(max((max(values) for _, _, values in lines.lines), default=1) or 1)
    last = max(lines.xs[-1], 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / last, bottom - (bottom - top) * min(y, most) / most

    parts = []
    for tick in range(5):
        y = bottom - (bottom - top) * tick / 4
        parts += [
            line(left, y, right, y),
            text(left - 8, y + 4, f"{most * tick / 4:,g}", size=11, fill=SOFT, anchor="end"),
        ]
    for tick in range(6):
        x = left + (right - left) * tick / 5
        parts.append(text(x, bottom + 16, _count(last * tick / 5), size=11, fill=SOFT, anchor="middle"))
    parts.append(text(left - 8, top - 8, lines.unit, size=11, fill=SOFT, anchor="end"))
    for index, (name, colour, values) in enumerate(lines.lines):
        points = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(lines.xs, values, strict=True))
        parts.append(
            f"<polyline points='{points}' fill='none' stroke='{colour}' "
            "stroke-width='2' stroke-linejoin='round'/>"
        )
        if len(lines.lines) > 1:
            x = left + 12 + index * 150
            parts += [
                line(x, top + 2, x + 18, top + 2, colour, 3),
                text(x + 24, top + 6, name, size=12, fill=SOFT),
            ]
    return parts


def _count(value: float) -> str:
    for size, suffix in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _nice_ceiling(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    steps: Callable[[float], bool] = lambda step: value <= step * power  # noqa: E731
    return next(step for step in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if steps(step)) * power
