"""What a run measured: counts by kind of answer, and a histogram of latencies.

What belongs here: figures and what follows from them. What must never be here: sockets and text for people.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

_STEPS_PER_DOUBLING: Final = 16
"""A latency is known to 4.4 %: the histogram has 16 buckets between each power of two and the next."""
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


class Latencies:
    """A histogram of durations whose size does not grow with their number."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """One more duration, in seconds."""
        self._buckets[math.ceil(math.log2(max(seconds, 1e-7) * 1e6) * _STEPS_PER_DOUBLING)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float:
        """Seconds within which this share of all durations ended; 0 if there is none."""
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(_upper_bound(bucket), self.longest)
        return 0.0

    def by_power_of_two(self) -> list[tuple[float, int]]:
        """(upper bound in seconds, how many) from the shortest to the longest duration, without a gap."""
        sums: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            sums[math.ceil(bucket / _STEPS_PER_DOUBLING)] += count
        if not sums:
            return []
        return [(2**power / 1e6, sums[power]) for power in range(min(sums), max(sums) + 1)]


def _upper_bound(bucket: int) -> float:
    return float(2 ** (bucket / _STEPS_PER_DOUBLING) / 1e6)


@dataclass(slots=True)
class Figures:
    """One run.

    Attributes:
        right: how many responses were what a working sidecar gives.
        wrong: how many were not, by what they were.
        example: the first wrong response's sentence.
        failures: how many requests got no response, by reason.
        latencies: of all responses.
        seconds: how long the run took.
        client_cpu: the share of one processor that this program used.
    """

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    example: str | None = None
    failures: Counter[str] = field(default_factory=Counter)
    latencies: Latencies = field(default_factory=Latencies)
    seconds: float = 0.0
    client_cpu: float = 0.0

    @property
    def responses(self) -> int:
        """How many responses there were."""
        return self.right + self.wrong.total()

    @property
    def per_second(self) -> float:
        """Responses per second."""
        return self.responses / self.seconds if self.seconds else 0.0

    @property
    def is_limited_by_client(self) -> bool:
        """Whether this program had no time left: the sidecar can then do more than was measured."""
        return self.client_cpu > 0.85

    @property
    def is_clean(self) -> bool:
        """Whether each request got the right response."""
        return self.responses > 0 and not self.wrong and not self.failures

    def document(self) -> dict[str, Any]:
        """For programs: seconds and counts."""
        return {
            "seconds": round(self.seconds, 3),
            "responses": self.responses,
            "per_second": round(self.per_second, 1),
            "right": self.right,
            "wrong": dict(self.wrong),
            "example": self.example,
            "failures": dict(self.failures),
            "latency_seconds": {
                **{f"p{percent:g}": round(self.latencies.percentile(percent), 6) for percent in PERCENTILES},
                "max": round(self.latencies.longest, 6),
            },
            "client_cpu": round(self.client_cpu, 3),
            "limited_by_client": self.is_limited_by_client,
        }
