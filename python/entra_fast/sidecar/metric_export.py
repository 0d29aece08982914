"""The sidecar's metrics in OpenTelemetry's data model.

What belongs here: data points from figures. What must never be here: what is counted (_metrics.py), and when
it is exported (telemetry.py). Imports OpenTelemetry's SDK: only telemetry.py imports this module.

The figures are kept by native code and by several processes, so they are handed to the exporter as they are
instead of being counted a second time by instruments of the SDK. Names and labels are those of `/metrics`. A
collector that writes them for Prometheus leaves them as they are: unit and `_total` are there already.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from entra_fast import _metric_kinds as kinds
from entra_fast import _native
from entra_fast._metric_kinds import LabelValues, Merged

_UNITS = {"seconds": "s", "bytes": "By"}


class MetricExport:
    """Exports metrics, and remembers what was exported where increases are wanted.

    Args:
        exporter: OpenTelemetry's metric exporter.
        resource: what sends the metrics.
        since: when counting began, in nanoseconds since the epoch.
        delta: whether counters and histograms are increases since the last export. By default they are totals
            since counting began.
    """

    def __init__(self, exporter: Any, resource: Resource, *, since: int, delta: bool = False) -> None:
        self._exporter = exporter
        self._resource = resource
        self._began = self._since = since
        self._delta = delta
        self._temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self._exported: dict[tuple[str, LabelValues], list[float]] = {}

    def export(self, merged: Iterable[Merged]) -> None:
        """Send the metrics. A failure is the exporter's matter."""
        now = time.time_ns()
        metrics = [self._metric(metric, series, now) for metric, series in merged if series]
        scope = InstrumentationScope("entra_fast", _native.__version__)
        scopes = [ScopeMetrics(scope, metrics, "")]
        self._exporter.export(MetricsData([ResourceMetrics(self._resource, scopes, "")]))
        if self._delta:
            self._since = now

    def _metric(self, metric: kinds.Metric, series: Mapping[LabelValues, list[float]], now: int) -> Metric:
        names = metric.label_names()
        data: Sum | Gauge | Histogram

        def attributes(values: LabelValues) -> dict[str, str]:
            return dict(zip(names, metric.label_values(values), strict=True))

        if isinstance(metric, kinds.Histogram):
            histograms = []
            for values, numbers in series.items():
                *counts, total = self._reported(metric.name, values, numbers)
                whole = list(map(int, counts))
                histograms.append(
                    HistogramDataPoint(
                        attributes(values),
                        self._since,
                        now,
                        sum(whole),
                        total,
                        whole,
                        metric.bounds,
                        min=cast(float, None),  # optional in the protocol, and not known
                        max=cast(float, None),
                    )
                )
            data = Histogram(histograms, self._temporality)
        elif metric.kind == "counter":
            # A series must not change its type, and what is read elsewhere may be a fraction.
            kind = int if isinstance(metric, kinds.Counter) else float
            points = [
                NumberDataPoint(
                    attributes(values),
                    self._since,
                    now,
                    kind(self._reported(metric.name, values, numbers)[0]),
                )
                for values, numbers in series.items()
            ]
            data = Sum(points, self._temporality, is_monotonic=True)
        else:
            points = [
                NumberDataPoint(attributes(values), self._began, now, float(number))
                for values, (number,) in series.items()
            ]
            data = Gauge(points)
            if metric.is_additive:
                data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=False)
        # Texas's own counters have no suffix there.
        name = metric.name.removesuffix("_total") if metric.texas else metric.name
        return Metric(name, metric.help, unit(name), data)

    def _reported(self, name: str, values: LabelValues, numbers: list[float]) -> list[float]:
        """The numbers, or by how much they have increased."""
        if not self._delta:
            return numbers
        before = self._exported.get((name, values), [0.0] * len(numbers))
        self._exported[name, values] = numbers
        return [now - earlier for now, earlier in zip(numbers, before, strict=True)]


def unit(name: str) -> str:
    """The unit of a metric in UCUM, by its name. Plain numbers have none: with `1`, a collector would append
    `_ratio` to the name of a gauge."""
    return next((_UNITS[part] for part in name.split("_") if part in _UNITS), "")
