"""A ratio measured in turns, with its interval. `compare.py`, `load/report.py` and `report_micro.py` use it.

A machine that drifts, or is busy for a moment, moves single turns. So a ratio is the median over the turns of
the ratio within a turn, and its 95 % interval comes from resampling the turns (the percentile bootstrap:
Efron, "Bootstrap methods", 1979). A target is reached or missed only if the whole interval says so.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

SAMPLES = 2000
TAIL = 50
"""So many of the samples' medians are below the interval, and as many above it: 2.5 % each."""


@dataclass(frozen=True)
class Ratio:
    """A ratio: above 1, the subject is better than its reference.

    Attributes:
        median: over the turns.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, turns: Iterable[float]) -> Ratio:
        """From the ratio of each turn. The same turns always give the same interval."""
        ratios = list(turns)
        draw = random.Random(1)
        medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(SAMPLES))
        return cls(statistics.median(ratios), medians[TAIL], medians[-TAIL - 1])

    def reaches(self, target: float) -> bool | None:
        """Whether the target is reached; None if more turns are needed to tell."""
        if self.low >= target:
            return True
        return False if self.high < target else None

    @property
    def interval(self) -> list[float]:
        """Its ends, for a result file."""
        return [round(self.low, 3), round(self.high, 3)]


VERDICTS = {True: "reached", False: "MISSED", None: "undecided"}


def conclusion(row: dict[str, object]) -> str:
    """The word for a row of a result file; nothing where there is no target."""
    reached = row["reached"]
    assert reached is None or isinstance(reached, bool)
    return "" if row["target"] is None else VERDICTS[reached]


def both(first: bool | None, second: bool | None) -> bool | None:
    """Whether two targets are reached."""
    if first is False or second is False:
        return False
    return None if first is None or second is None else True
