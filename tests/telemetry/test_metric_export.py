"""Metrics in OpenTelemetry's data model, as OTLP has them on the wire: what a collector reads of each kind of
metric."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from entra_fast import _native
from entra_fast._metric_kinds import DURATION_BUCKETS
from entra_fast._metrics import Metrics
from entra_fast.sidecar.metric_export import MetricExport
from support.collector import values

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
BEGAN = 7


class Sent:
    """An export of these metrics, and what it has sent."""

    def __init__(self, metrics: Metrics, *, delta: bool = False) -> None:
        self._metrics = metrics
        self.requests: list[ExportMetricsServiceRequest] = []
        exporter = SimpleNamespace(export=self._received)
        resource = Resource({"service.name": "mine"})
        self._export = MetricExport(exporter, resource, since=BEGAN, **({"delta": True} if delta else {}))

    def _received(self, data: MetricsData) -> None:
        self.requests.append(encode_metrics(data))

    def once_more(self) -> dict[str, Metric]:
        """Export, and return what a collector receives, by name."""
        self._export.export(self._metrics.merged())
        (resource,) = self.requests[-1].resource_metrics
        (scope,) = resource.scope_metrics
        names = [metric.name for metric in scope.metrics]
        assert len(names) == len(set(names))
        return {metric.name: metric for metric in scope.metrics}


def points(metric: Metric) -> dict[tuple[str, ...], Any]:
    """The data points of a metric, by the values of their attributes in the order of their names."""
    kind: Any = getattr(metric, str(metric.WhichOneof("data")))
    return {
        tuple(value for _, value in sorted(values(point.attributes).items())): point
        for point in kind.data_points
    }


def figures(metric: Metric) -> Mapping[tuple[str, ...], tuple[str, float]]:
    """The numbers of a metric, and whether they are whole on the wire."""
    return {
        key: (str(point.WhichOneof("value")), getattr(point, str(point.WhichOneof("value"))))
        for key, point in points(metric).items()
    }


@pytest.fixture
def counted() -> Metrics:
    """One of each kind."""
    metrics = Metrics(texas={"pod.name": "a-1"})
    metrics.requests.add("token", "200", "entra_id", amount=3)
    metrics.requests.add("introspect", "400", "tokenx")
    for seconds in (0.0004, 0.0008, 0.0009, 9.0):
        metrics.request_seconds.observe(seconds, "token")
    metrics.workers.read_from(lambda: 4)
    cache = {"entries": 3, "exchanged": 1, "hits": 5, "bytes": 100}
    metrics.watch_token_cache(lambda: cache)
    metrics.watch_texas_cache_size(lambda: cache)
    metrics.texas_cache_hits.add("/api/v1/token", "entra_id", amount=2)
    return metrics


def test_who_sends_them(counted: Metrics) -> None:
    """The resource, and this package with its version as the scope."""
    sent = Sent(counted)
    sent.once_more()
    (resource,) = sent.requests[0].resource_metrics
    assert values(resource.resource.attributes) == {"service.name": "mine"}
    (scope,) = resource.scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("entra_fast", _native.__version__)
    assert (resource.schema_url, scope.schema_url) == ("", "")  # the names are our own


def test_a_counter_is_a_monotonic_sum(counted: Metrics) -> None:
    """Whole numbers, since counting began, with the labels as attributes."""
    before = time.time_ns()
    metric = Sent(counted).once_more()["entra_fast_requests_total"]
    assert (metric.description, metric.unit) == (counted.requests.help, "")
    assert (metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (True, CUMULATIVE)
    # In the order of the names: endpoint, identity_provider, status.
    assert figures(metric) == {
        ("token", "entra_id", "200"): ("as_int", 3),
        ("introspect", "tokenx", "400"): ("as_int", 1),
    }
    for point in points(metric).values():
        assert values(point.attributes).keys() == {"endpoint", "identity_provider", "status"}
        assert point.start_time_unix_nano == BEGAN
        assert before <= point.time_unix_nano <= time.time_ns()


def test_a_counter_that_is_kept_elsewhere_may_be_a_fraction(counted: Metrics) -> None:
    """Seconds of the processor are one: a series must not change its type."""
    sent = Sent(counted).once_more()
    seconds = sent["process_cpu_seconds_total"]
    assert (seconds.unit, seconds.sum.is_monotonic) == ("s", True)
    assert [kind for kind, _ in figures(seconds).values()] == ["as_double"]
    assert figures(sent["entra_fast_token_cache_hits_total"]) == {(): ("as_double", 5.0)}


def test_a_gauge_is_what_it_is_now(counted: Metrics) -> None:
    """Not monotonic, and no sum over its series where that would mean nothing."""
    sent = Sent(counted).once_more()
    workers = sent["entra_fast_workers"]
    assert workers.WhichOneof("data") == "gauge"
    assert figures(workers) == {(): ("as_double", 4.0)}
    size = sent["entra_fast_token_cache_bytes"]
    assert (size.unit, figures(size)) == ("By", {(): ("as_double", 100.0)})


def test_a_gauge_whose_sum_means_something_is_a_sum(counted: Metrics) -> None:
    """OpenTelemetry's UpDownCounter. Texas's metrics have the resource's attributes, too."""
    sizes = Sent(counted).once_more()["texas_token_cache_size"]
    assert (sizes.sum.is_monotonic, sizes.sum.aggregation_temporality) == (False, CUMULATIVE)
    assert figures(sizes) == {
        ("token", "a-1"): ("as_double", 2.0),
        ("token/exchange", "a-1"): ("as_double", 1.0),
    }
    attributes = values(points(sizes)["token", "a-1"].attributes)
    assert attributes == {"cache_type": "token", "pod_name": "a-1"}


def test_a_histogram_has_all_its_buckets(counted: Metrics) -> None:
    """One more than bounds, each with what is in it alone; sum and count; neither minimum nor maximum."""
    before = time.time_ns()
    durations = Sent(counted).once_more()["entra_fast_request_duration_seconds"]
    assert (durations.unit, durations.histogram.aggregation_temporality) == ("s", CUMULATIVE)
    (point,) = durations.histogram.data_points
    assert values(point.attributes) == {"endpoint": "token"}
    assert tuple(point.explicit_bounds) == DURATION_BUCKETS
    assert list(point.bucket_counts) == [1, 2, *[0] * (len(DURATION_BUCKETS) - 2), 1]
    assert (point.count, point.sum) == (4, pytest.approx(9.0021))
    assert not point.HasField("min")
    assert not point.HasField("max")
    assert point.start_time_unix_nano == BEGAN
    assert before <= point.time_unix_nano <= time.time_ns()


def test_names_of_texas_have_no_suffix(counted: Metrics) -> None:
    """Its alerts know the counter without `_total`; ours keep it."""
    sent = Sent(counted).once_more()
    assert "texas_token_cache_hits_total" not in sent
    hits = sent["texas_token_cache_hits"]
    assert figures(hits) == {("entra_id", "/api/v1/token", "a-1"): ("as_int", 2)}
    assert hits.description == counted.texas_cache_hits.help


def test_a_metric_without_a_series_is_not_sent() -> None:
    """Nothing has been counted yet."""
    assert "entra_fast_requests_total" not in Sent(Metrics()).once_more()


def test_totals_stay_totals(counted: Metrics) -> None:
    """By default each export has everything since counting began."""
    sent = Sent(counted)
    sent.once_more()
    counted.requests.add("token", "200", "entra_id")
    requests = sent.once_more()["entra_fast_requests_total"]
    assert figures(requests)["token", "entra_id", "200"] == ("as_int", 4)
    assert {point.start_time_unix_nano for point in points(requests).values()} == {BEGAN}


def test_increases_are_those_since_the_last_export(counted: Metrics) -> None:
    """Of counters and of histograms, which say so; each begins where the last one ended."""
    sent = Sent(counted, delta=True)
    first = sent.once_more()
    counted.requests.add("token", "200", "entra_id", amount=5)
    counted.request_seconds.observe(0.0004, "token")
    second = sent.once_more()
    requests, durations = second["entra_fast_requests_total"], second["entra_fast_request_duration_seconds"]
    assert requests.sum.aggregation_temporality == DELTA
    assert durations.histogram.aggregation_temporality == DELTA
    assert figures(requests) == {
        ("token", "entra_id", "200"): ("as_int", 5),
        ("introspect", "tokenx", "400"): ("as_int", 0),
    }
    (point,) = durations.histogram.data_points
    assert list(point.bucket_counts) == [1, *[0] * len(DURATION_BUCKETS)]
    assert (point.count, point.sum) == (1, pytest.approx(0.0004))
    (before,) = first["entra_fast_request_duration_seconds"].histogram.data_points
    assert (before.count, before.start_time_unix_nano) == (4, BEGAN)
    assert point.start_time_unix_nano == before.time_unix_nano < point.time_unix_nano
    assert second["entra_fast_workers"].WhichOneof("data") == "gauge"
    assert figures(second["entra_fast_workers"]) == {(): ("as_double", 4.0)}
