"""The kinds of metrics of the sidecar, and how the figures of several processes are merged.

What belongs here: counting, bounded labels, merging, and the form in which prometheus-client writes a metric.
What must never be here: the metrics themselves (_metrics.py).

prometheus-client is imported at the first scrape: its own counters need a lock for each observation and know
neither native figures nor those of workers, so only its exposition is used, and a process that is not
scraped never loads it.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import prometheus_client.metrics_core as families

Series = Sequence[tuple[Sequence[str], Sequence[float]]]
"""The figures of one metric: for each combination of label values one number or, for a histogram, the counts
in its buckets and the sum."""

Figures = Mapping[str, Series]
"""The figures of all metrics of a process, by metric name. Can be written as JSON."""

Merge = Literal["sum", "minimum", "own"]
"""How the figures of several processes are merged: the sum of all, the minimum of the workers', or the figure
of the process that is asked."""

LabelValues = tuple[str, ...]

Merged = tuple["Metric", Mapping[LabelValues, list[float]]]
"""A metric and its numbers of the whole sidecar, by label values."""

OTHER = "other"
MAX_CONSTANTS = 32
"""Maximum number of resource attributes that become labels."""
DURATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets, in seconds."""


TEXAS_BUCKETS = (
    *(
        0.001,
        0.002,
        0.003,
        0.004,
        0.005,
        0.006,
        0.007,
        0.008,
        0.009,
        0.01,
        0.02,
        0.03,
        0.04,
        0.05,
        0.06,
        0.07,
    ),
    *(0.08, 0.09, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 5.0, 10.0),
)
"""Those of Texas."""

Observations = tuple[Sequence[int], float]
"""How many observations are in each bucket of a histogram and in the overflow bucket, and their sum."""


def coarser(observed: Observations, fine: Sequence[float], coarse: Sequence[float]) -> Observations:
    """Observations in buckets with fewer bounds, which are some of the bounds that they are in."""
    counts = [0] * (len(coarse) + 1)
    for bound, count in zip((*fine, math.inf), observed[0], strict=True):
        counts[bisect.bisect_left(coarse, bound)] += count
    return counts, observed[1]


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its values: those in `values`, or else the first `limit` values that occur."""

    name: str
    values: tuple[str, ...] = ()
    limit: int = 32


class Metric(ABC):
    """A metric with one series for each combination of label values."""

    __slots__ = ("_seen", "constants", "help", "labels", "merge", "name", "texas")

    kind: str
    is_additive: bool = False
    """For a gauge: whether the sum over its series means something (OpenTelemetry's UpDownCounter)."""

    def __init__(
        self, name: str, help_text: str, *labels: Label, merge: Merge = "sum", texas: bool = False
    ) -> None:
        self.name = name
        self.texas = texas
        self.constants: Mapping[str, str] = {}
        self.help = help_text
        self.labels = labels
        self.merge = merge
        self._seen: tuple[set[str], ...] = tuple(set(label.values) for label in labels)

    @abstractmethod
    def figures(self) -> dict[LabelValues, list[float]]:
        """The numbers of this process, by label values: see `Series`."""

    def merged(self, workers: Iterable[Series] = ()) -> dict[LabelValues, list[float]]:
        """The merged numbers of this process and of others.

        Args:
            workers: the figures of the other processes.
        """
        own = self.figures()
        if self.merge == "own":
            return own
        if self.merge == "minimum":
            return self.added(workers) or own
        return self.added([list(own.items()), *workers])

    def added(self, several: Iterable[Series]) -> dict[LabelValues, list[float]]:
        """The merged numbers of several processes."""
        merged: dict[LabelValues, list[float]] = {}
        combine: Callable[[Iterable[float]], float] = min if self.merge == "minimum" else sum
        for labels, numbers in itertools.chain.from_iterable(several):
            key = self._bounded(tuple(labels))
            known = merged.get(key)
            merged[key] = (
                list(numbers)
                if known is None
                else [combine(pair) for pair in zip(known, numbers, strict=True)]
            )
        return merged

    def label_names(self) -> list[str]:
        """The names of all labels."""
        return [*(label.name for label in self.labels), *self.constants]

    def label_values(self, values: LabelValues) -> list[str]:
        """The values of all labels of a series."""
        return [*values, *self.constants.values()]

    @abstractmethod
    def family(self, workers: Iterable[Series] = ()) -> families.Metric:
        """The merged figures in the form that prometheus-client writes."""

    def _bounded(self, values: LabelValues) -> LabelValues:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has {len(self.labels)} labels")
        return tuple(map(self._admit, self._seen, self.labels, values))

    @staticmethod
    def _admit(seen: set[str], label: Label, value: str) -> str:
        if value in seen:
            return value
        if label.values or len(seen) >= label.limit:
            return OTHER
        seen.add(value)
        return value

    def _fill(
        self, family: families.CounterMetricFamily | families.GaugeMetricFamily, workers: Iterable[Series]
    ) -> families.Metric:
        for labels, numbers in sorted(self.merged(workers).items()):
            family.add_metric(self.label_values(labels), numbers[0])
        return family


class Counter(Metric):
    """A number that only goes up."""

    __slots__ = ("_elsewhere", "_values")

    kind = "counter"

    def __init__(self, name: str, help_text: str, *labels: Label, texas: bool = False) -> None:
        super().__init__(name, help_text, *labels, texas=texas)
        self._values: dict[LabelValues, float] = {} if labels else {(): 0}
        self._elsewhere: list[Callable[[], Mapping[LabelValues, float]]] = []

    def include(self, elsewhere: Callable[[], Mapping[LabelValues, float]]) -> None:
        """Register a function that returns counts kept elsewhere, by label values. They are added."""
        self._elsewhere.append(elsewhere)

    def add(self, *labels: str, amount: float = 1) -> None:
        key = self._bounded(labels)
        self._values[key] = self._values.get(key, 0) + amount

    def value(self, *labels: str) -> float:
        return self.figures().get(labels, [0])[0]

    def figures(self) -> dict[LabelValues, list[float]]:
        values = self._values.copy()
        for elsewhere in self._elsewhere:
            for key, count in elsewhere().items():
                values[key] = values.get(key, 0) + count
        return {key: [value] for key, value in values.items()}

    def family(self, workers: Iterable[Series] = ()) -> families.Metric:
        from prometheus_client.metrics_core import CounterMetricFamily  # noqa: PLC0415 - see the module

        return self._fill(CounterMetricFamily(self.name, self.help, labels=self.label_names()), workers)


class Histogram(Metric):
    """Observations, counted in buckets with fixed bounds."""

    __slots__ = ("_elsewhere", "_values", "bounds")

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        *labels: Label,
        buckets: Sequence[float] = DURATION_BUCKETS,
        texas: bool = False,
    ) -> None:
        super().__init__(name, help_text, *labels, texas=texas)
        self.bounds = tuple(buckets)
        self._values: dict[LabelValues, tuple[list[int], list[float]]] = {}
        self._elsewhere: Callable[[], Mapping[LabelValues, Observations]] = dict

    def include(self, elsewhere: Callable[[], Mapping[LabelValues, Observations]]) -> None:
        """Register a function that returns observations kept elsewhere, by label values. They are added."""
        self._elsewhere = elsewhere

    def observe(self, value: float, *labels: str) -> None:
        key = self._bounded(labels)
        counts, total = self._values.setdefault(key, ([0] * (len(self.bounds) + 1), [0.0]))
        counts[bisect.bisect_left(self.bounds, value)] += 1
        total[0] += value

    def figures(self) -> dict[LabelValues, list[float]]:
        merged = {key: [*counts, *total] for key, (counts, total) in self._values.items()}
        for key, (counts, seconds) in self._elsewhere().items():
            if any(counts):
                more = [*counts, seconds]
                own = merged.get(key)
                merged[key] = more if own is None else [a + b for a, b in zip(own, more, strict=True)]
        return merged

    def family(self, workers: Iterable[Series] = ()) -> families.Metric:
        from prometheus_client.metrics_core import HistogramMetricFamily  # noqa: PLC0415 - see the module

        family = HistogramMetricFamily(self.name, self.help, labels=self.label_names())
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        for labels, (*counts, total) in sorted(self.merged(workers).items()):
            buckets = list(zip(bounds, itertools.accumulate(counts), strict=True))
            family.add_metric(self.label_values(labels), buckets, total)
        return family


class Reading(Metric):
    """A gauge or counter whose values are kept elsewhere, and read at each scrape. With labels, there is a
    series for each combination of values with a registered source."""

    __slots__ = ("_reads", "is_additive", "kind")

    def __init__(
        self,
        kind: Literal["gauge", "counter"],
        name: str,
        help_text: str,
        *labels: Label,
        read: Callable[[], float] = int,
        merge: Merge = "sum",
        is_additive: bool = False,
        texas: bool = False,
    ) -> None:
        super().__init__(name, help_text, *labels, merge=merge, texas=texas)
        self.kind = kind
        self.is_additive = is_additive
        self._reads: dict[LabelValues, Callable[[], float]] = {} if labels else {(): read}

    def read_from(self, read: Callable[[], float], *labels: str) -> None:
        """Register the function that returns the value of a series."""
        self._reads[self._bounded(labels)] = read

    def read(self, *labels: str) -> float:
        """The value of a series of this process."""
        return self._reads[labels]()

    def figures(self) -> dict[LabelValues, list[float]]:
        return {key: [read()] for key, read in self._reads.items()}

    def family(self, workers: Iterable[Series] = ()) -> families.Metric:
        from prometheus_client.metrics_core import (  # noqa: PLC0415 - see the module
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        of_kind = GaugeMetricFamily if self.kind == "gauge" else CounterMetricFamily
        return self._fill(of_kind(self.name, self.help, labels=self.label_names()), workers)


class Info(Metric):
    """What does not change while a process runs, as labels of a gauge that is always 1."""

    __slots__ = ("_read",)

    kind = "gauge"

    def __init__(self, name: str, help_text: str, *labels: Label, merge: Merge = "minimum") -> None:
        super().__init__(name, help_text, *labels, merge=merge)
        self._read: Callable[[], Mapping[str, str]] = dict

    def read_from(self, read: Callable[[], Mapping[str, str]]) -> None:
        """Register the function that returns the labels. Those it leaves out are empty."""
        self._read = read

    def figures(self) -> dict[LabelValues, list[float]]:
        found = self._read()
        return {tuple(found.get(label.name, "") for label in self.labels): [1.0]} if found else {}

    def family(self, workers: Iterable[Series] = ()) -> families.Metric:
        from prometheus_client.metrics_core import GaugeMetricFamily  # noqa: PLC0415 - see the module

        return self._fill(GaugeMetricFamily(self.name, self.help, labels=self.label_names()), workers)


def constants(attributes: Mapping[str, str], metric: Metric) -> dict[str, str]:
    """Resource attributes as labels of a metric, with names that Prometheus allows. So has Texas them."""
    taken = {"le", *(label.name for label in metric.labels)}
    found: dict[str, str] = {}
    for name, value in attributes.items():
        label = re.sub(r"[^A-Za-z0-9_]|^(?=[0-9])|^__", "_", name)
        if label not in taken and len(found) < MAX_CONSTANTS:
            found[label] = value
    return found
