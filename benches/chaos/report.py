"""What a run came to: the table, `chaos.json` and the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benches.chaos.plan import TAIL


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds since the start, requests so far, and the resident KiB of each process by its id."""

    moment: float
    requests: int
    resident: dict[int, int]


COUNTED = (
    "requests",
    "wrong_answers",
    "expired_tokens",
    "false_rejections",
    "lost_requests",
    "cut_off_by_crashes",
    "checked_after_skip_cache",
    "workers_replaced",
    "shared_cache_hits",
)
"""What is added up over the parts."""


@dataclass
class PartReport:
    """What a part came to.

    Attributes:
        skipped: why it did not take place.
        cut_off_by_crashes: requests without an answer on connections that belonged to a killed worker.
        checked_after_skip_cache: answers that could have been a token which had been replaced before.
    """

    name: str
    title: str
    seconds: float
    skipped: str | None = None
    requests: int = 0
    wrong_answers: int = 0
    expired_tokens: int = 0
    false_rejections: int = 0
    lost_requests: int = 0
    cut_off_by_crashes: int = 0
    checked_after_skip_cache: int = 0
    workers_replaced: int = 0
    shared_cache_hits: int = 0
    rss_slope_kib_per_10k: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[float, float, str]] = field(default_factory=list)
    memory: list[Sample] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.wrong_answers or self.expired_tokens or self.false_rejections or self.lost_requests)

    def as_json(self) -> dict[str, object]:
        if self.skipped is not None:
            return {"title": self.title, "skipped": self.skipped}
        return {
            "title": self.title,
            "seconds": self.seconds,
            **{name: getattr(self, name) for name in COUNTED},
            "rss_slope_kib_per_10k": round(self.rss_slope_kib_per_10k, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "faults": dict(sorted(Counter(name for _, _, name in self.faults).items())),
            "examples": self.examples,
        }


@dataclass
class Report:
    """What the whole run came to."""

    seed: int
    parts: list[PartReport]

    @property
    def good(self) -> bool:
        return all(part.good for part in self.parts)

    @property
    def run(self) -> list[PartReport]:
        """The parts that took place."""
        return [part for part in self.parts if part.skipped is None]

    def total(self, name: str) -> int:
        return sum(getattr(part, name) for part in self.run)

    def as_json(self) -> dict[str, object]:
        worst = max((part.rss_slope_kib_per_10k for part in self.run), default=0.0)
        return {
            "seed": self.seed,
            **{name: self.total(name) for name in COUNTED},
            "rss_slope_kib_per_10k": round(worst, 1),
            "skipped": [part.name for part in self.parts if part.skipped is not None],
            "parts": {part.name: part.as_json() for part in self.parts},
        }


def slope(samples: list[Sample], seconds: float) -> float:
    """KiB per 10,000 requests that all processes together grow by: least squares over the tail (see plan.py),
    or over what comes after the last replacement of a process, where one was replaced in it."""
    points: list[tuple[int, int]] = []
    for sample in reversed(samples):
        if sample.moment < seconds * TAIL or sample.resident.keys() != samples[-1].resident.keys():
            break
        points.append((sample.requests, sum(sample.resident.values())))
    if len(points) < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 10_000 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def table(report: Report) -> str:
    """The report for people."""
    columns = [*(part.name for part in report.run), "all"]
    lines = [f"{'':<26}" + "".join(f"{name:>12}" for name in columns)]
    for name in COUNTED:
        counts = [*(getattr(part, name) for part in report.run), report.total(name)]
        lines.append(f"{name.replace('_', ' '):<26}" + "".join(f"{count:>12,}" for count in counts))
    slopes = [part.rss_slope_kib_per_10k for part in report.run]
    slopes.append(max(slopes, default=0.0))
    lines.append(f"{'memory, KiB per 10,000':<26}" + "".join(f"{value:>12.1f}" for value in slopes))
    for heading, counters in (
        ("answers", [part.outcomes for part in report.run]),
        ("faults", [Counter(name for *_, name in part.faults) for part in report.run]),
    ):
        lines += ["", heading]
        whole = sum(counters, Counter())
        for name in sorted(whole):
            counts = [*(counter[name] for counter in counters), whole[name]]
            lines.append(f"  {name:<24}" + "".join(f"{count or '':>12}" for count in counts))
    lines += [f"\nNOT RUN: {part.name}: {part.skipped}" for part in report.parts if part.skipped is not None]
    lines += [f"{part.name}, {example}" for part in report.run for example in part.examples]
    return "\n".join(lines)


# --- the picture ---

WIDTH, PANEL, LEFT, RIGHT, TOP = 960, 250, 70, 80, 84
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, PANEL - 70
STYLE = (
    "svg {background: #fff; fill: #1f2933} .fault {fill: #f2994a; opacity: .22} "
    ".death {fill: #c0392b; opacity: .75} polyline {fill: none; stroke-width: 1.6} "
    ".memory {stroke: #1f5fae} .requests {stroke: #3b8a3e; stroke-dasharray: 5 3} "
    ".frame {fill: none; stroke: #9aa5b1} .tail {stroke: #9aa5b1; stroke-dasharray: 2 4} "
    ".title {font-size: 14px; font-weight: bold}"
)
DEATHS = ("worker killed", "worker hangs", "restarted")


def picture(report: Report) -> str:
    """Memory and requests over time, with the faults behind them; one panel for each part."""
    height = TOP + PANEL * len(report.run) + 40
    summary = (
        f"{report.total('requests'):,} requests, {sum(len(part.faults) for part in report.run)} faults: "
        f"{report.total('wrong_answers')} wrong answers, {report.total('expired_tokens')} expired tokens, "
        f"{report.total('false_rejections')} false rejections, {report.total('lost_requests')} lost; "
        f"{report.total('cut_off_by_crashes')} cut off by crashes of their worker"
    )
    legend = (
        (0, "#1f5fae", "memory of each process, MiB"),
        (210, "#3b8a3e", "requests answered (right)"),
        (400, "#b06a1f", "shaded: a fault is active"),
        (590, "#c0392b", "red: a process is killed or restarted"),
    )
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'font-family="sans-serif" font-size="12">',
            f"<style>{STYLE}</style>",
            f'<text x="{LEFT}" y="24" font-size="16" font-weight="bold">'
            f"Sidecars under faults (seed {report.seed})</text>",
            f'<text x="{LEFT}" y="44">{summary}</text>',
            *(_panel(part, TOP + PANEL * number) for number, part in enumerate(report.run)),
            *(
                f'<text x="{LEFT + at}" y="{height - 18}" style="fill: {color}">{text}</text>'
                for at, color, text in legend
            ),
            "</svg>\n",
        )
    )


def _panel(part: PartReport, top: float) -> str:
    seconds = max([part.seconds, *(sample.moment for sample in part.memory)])
    highest = max([1, *(kib for sample in part.memory for kib in sample.resident.values())]) * 1.15
    most = max(1, part.requests)

    def x(moment: float) -> float:
        return LEFT + PLOT_WIDTH * min(1.0, moment / seconds)

    def y(part_of_height: float) -> float:
        return top + PLOT_HEIGHT * (1 - part_of_height)

    def line(kind: str, points: Iterable[tuple[float, float]]) -> str:
        return f'<polyline class="{kind}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'

    pids = sorted({pid for sample in part.memory for pid in sample.resident})
    tail = x(part.seconds * TAIL)
    return "\n".join(
        (
            f'<text class="title" x="{LEFT}" y="{top - 8}">{part.title}</text>',
            f'<text x="{LEFT + PLOT_WIDTH}" y="{top - 8}" text-anchor="end">memory '
            f"{part.rss_slope_kib_per_10k:+.0f} KiB per 10,000 requests, right of the dotted line</text>",
            *(
                _fault(x(begin), x(end), top, f"{name}, {begin:.1f} s", name)
                for begin, end, name in part.faults
            ),
            f'<rect class="frame" x="{LEFT}" y="{top}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}"/>',
            f'<line class="tail" x1="{tail:.1f}" x2="{tail:.1f}" y1="{top}" y2="{top + PLOT_HEIGHT}"/>',
            *(
                line(
                    "memory",
                    ((x(s.moment), y(s.resident[pid] / highest)) for s in part.memory if pid in s.resident),
                )
                for pid in pids
            ),
            line("requests", ((x(s.moment), y(s.requests / most)) for s in part.memory)),
            *(
                f'<text x="{LEFT - 8}" y="{y(share) + 4:.1f}" text-anchor="end">'
                f"{highest * share / 1024:.0f}</text>"
                f'<text x="{LEFT + PLOT_WIDTH + 8}" y="{y(share) + 4:.1f}">{most * share / 1000:.1f}k</text>'
                f'<text x="{x(seconds * share):.1f}" y="{y(0) + 18:.1f}" text-anchor="middle">'
                f"{seconds * share:.0f} s</text>"
                for share in (0, 0.25, 0.5, 0.75, 1)
            ),
        )
    )


def _fault(left: float, right: float, top: float, text: str, name: str) -> str:
    kind = "death" if name in DEATHS else "fault"
    width = 1.5 if name in DEATHS else max(1.0, right - left)
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{PLOT_HEIGHT}">'
        f"<title>{text}</title></rect>"
    )
