"""The result of a run: the table, and `chaos.json`, from which benches/pictures.py draws."""

from __future__ import annotations

from collections import Counter
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
            "timeline": self._timeline(),
        }

    def _timeline(self) -> dict[str, object]:
        """What the picture shows: requests and resident memory over time, and when each fault was active."""
        pids = sorted({pid for sample in self.memory for pid in sample.resident})
        return {
            "moments": [round(sample.moment, 1) for sample in self.memory],
            "requests": [sample.requests for sample in self.memory],
            "processes": [
                {
                    "moments": [round(one.moment, 1) for one in self.memory if pid in one.resident],
                    "resident_kib": [one.resident[pid] for one in self.memory if pid in one.resident],
                }
                for pid in pids
            ],
            "faults": [[round(begin, 1), round(end, 1), name] for begin, end, name in self.faults],
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
