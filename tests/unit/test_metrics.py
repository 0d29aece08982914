"""Metrics: counting, bounded labels, merging the figures of several processes, and the text format."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from entra_fast._metric_kinds import (
    DURATION_BUCKETS,
    TEXAS_BUCKETS,
    Counter,
    Figures,
    Histogram,
    Label,
    Metric,
)
from entra_fast._metrics import Metrics


def samples(metric: Metric) -> dict[tuple[str, ...], float]:
    """The values of a metric's samples, by sample name and label values."""
    return {(sample.name, *sample.labels.values()): sample.value for sample in metric.family().samples}


def scrape(metrics: Metrics, workers: Sequence[Figures] = ()) -> dict[str, float]:
    """What Prometheus reads from the text, as `name{label="value"}`."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render(workers).decode()):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_counter_counts_by_label() -> None:
    """Each combination of label values is a series."""
    counter = Counter("c_total", "Help.", Label("a", ("x", "y")), Label("b"))
    counter.add("x", "1")
    counter.add("x", "1", amount=2)
    counter.add("y", "2")
    assert samples(counter) == {("c_total", "x", "1"): 3, ("c_total", "y", "2"): 1}


def test_a_counter_without_labels_exists_from_the_start() -> None:
    """Prometheus needs the zero to see the first increase."""
    assert samples(Counter("c_total", "Help.")) == {("c_total",): 0}


def test_counts_kept_elsewhere_are_added() -> None:
    """Native code keeps its own counts; a series may be in either place or in both."""
    counter = Counter("c_total", "Help.", Label("a"))
    counter.add("both")
    counter.add("here")
    counter.include(lambda: {("both",): 2, ("there",): 4})
    assert samples(counter) == {("c_total", "both"): 3, ("c_total", "here"): 1, ("c_total", "there"): 4}
    assert counter.value("both") == 3


def test_a_value_outside_a_closed_set_is_other() -> None:
    """A closed set stays closed."""
    counter = Counter("c_total", "Help.", Label("a", ("x",)))
    counter.add("attacker's choice")
    assert samples(counter) == {("c_total", "other"): 1}


def test_an_open_set_stops_at_its_limit() -> None:
    """Memory does not grow with the number of different values: 32 unless a label says otherwise."""
    for label, limit in ((Label("a", limit=3), 3), (Label("a"), 32)):
        counter = Counter("c_total", "Help.", label)
        for i in range(1000):
            counter.add(str(i))
        assert len(samples(counter)) == limit + 1
        assert counter.value("other") == 1000 - limit


def test_bounds_of_buckets_are_in_order() -> None:
    """An observation is looked up in them by bisection, here and in native code."""
    for bounds in (DURATION_BUCKETS, TEXAS_BUCKETS):
        assert list(bounds) == sorted(set(bounds))


def test_label_values_are_escaped() -> None:
    """Quotes, backslashes and line ends cannot break the format."""
    metrics = Metrics()
    metrics.provider_errors.add('a"b\\c\nd', "me")
    assert scrape(metrics)['entra_fast_provider_errors_total{code="a"b\\c\nd",identity_provider="me"}'] == 1


def test_a_histogram_is_cumulative() -> None:
    """Buckets include all smaller ones; an observation equal to a bound belongs to its bucket."""
    histogram = Histogram("h", "Help.", buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 5):
        histogram.observe(value)
    assert samples(histogram) == {
        ("h_bucket", "0.1"): 2,
        ("h_bucket", "1"): 3,
        ("h_bucket", "+Inf"): 4,
        ("h_sum",): 5.65,
        ("h_count",): 4,
    }


def test_observations_kept_elsewhere_are_added() -> None:
    """Native code observes in the same buckets; labels without an observation are left out."""
    histogram = Histogram("h", "Help.", Label("a", ("both", "there", "nowhere")), buckets=(1,))
    histogram.observe(0.5, "both")
    elsewhere: dict[tuple[str, ...], tuple[list[int], float]]
    elsewhere = {("both",): ([0, 1], 2.5), ("there",): ([1, 0], 0.5), ("nowhere",): ([0, 0], 0.0)}
    histogram.include(lambda: elsewhere)
    assert samples(histogram) == {
        ("h_bucket", "both", "1"): 1,
        ("h_bucket", "both", "+Inf"): 2,
        ("h_sum", "both"): 3.0,
        ("h_count", "both"): 2,
        ("h_bucket", "there", "1"): 1,
        ("h_bucket", "there", "+Inf"): 1,
        ("h_sum", "there"): 0.5,
        ("h_count", "there"): 1,
    }


def test_a_wrong_number_of_labels_is_an_error() -> None:
    """A mistake in the code is found at once."""
    with pytest.raises(ValueError, match="c_total has 1 labels"):
        Counter("c_total", "Help.", Label("a")).add("x", "y")


def test_every_metric_has_a_kind_a_unique_name_and_a_description() -> None:
    """Names follow the conventions of Prometheus: a counter's name ends with `_total`."""
    text = Metrics().render().decode()
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert names == [(family.name, family.kind) for family in Metrics().families()]
    assert len(names) == len({name for name, _ in names})
    for name, kind in names:
        assert (kind == "counter") == name.endswith("_total")
        assert re.search(rf"^# HELP {name} \S", text, re.MULTILINE)


def test_instances_share_nothing() -> None:
    """Two sidecars in one process count separately."""
    one, other = Metrics(), Metrics()
    one.stale_served.add("me")
    assert (one.stale_served.value("me"), other.stale_served.value("me")) == (1, 0)
    assert isinstance(vars(Metrics)["stale_served"], type(Metrics.stale_served))


def test_figures_of_the_process_are_real() -> None:
    """Read from the kernel."""
    found = scrape(Metrics())
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert found["process_cpu_seconds_total"] > 0
    assert found["process_start_time_seconds"] > 1_000_000_000


def test_figures_of_caches_and_keys_are_read_at_each_scrape() -> None:
    """A figure that its source does not have is 0, or -1 for an age."""
    metrics = Metrics()
    figures = {"entries": 1, "bytes": 2, "hits": 3, "misses": 4, "evictions": 5, "expired": 6}
    metrics.watch_token_cache(lambda: figures)
    metrics.watch_verification_cache(lambda: {f"cache_{name}": 10 * value for name, value in figures.items()})
    metrics.watch_keys("me", lambda: {"keys": 7, "keys_dropped": 8, "keys_ambiguous": 6}, lambda: {"ok": 9})
    found = scrape(metrics)
    assert [found[f"entra_fast_token_cache_{name}"] for name in ("entries", "bytes")] == [1, 2]
    counters = ("hits", "misses", "evictions", "expired")
    assert [found[f"entra_fast_token_cache_{name}_total"] for name in counters] == [3, 4, 5, 6]
    assert [found[f"entra_fast_verified_cache_{name}"] for name in ("entries", "bytes")] == [10, 20]
    assert [found[f"entra_fast_verified_cache_{name}_total"] for name in counters[:3]] == [30, 40, 50]
    assert (
        found['entra_fast_key_set_keys{identity_provider="me"}'],
        found['entra_fast_key_set_dropped{identity_provider="me"}'],
    ) == (7, 8)
    assert found['entra_fast_key_set_ambiguous{identity_provider="me"}'] == 6
    assert found['entra_fast_key_set_age_seconds{identity_provider="me"}'] == -1
    assert found['entra_fast_key_set_requests_total{identity_provider="me",outcome="ok"}'] == 9
    figures["entries"] = 100
    assert scrape(metrics)["entra_fast_token_cache_entries"] == 100


def test_the_older_name_of_the_fast_path_is_exported_beside_the_new_one() -> None:
    """Dashboards keep working for one minor release."""
    metrics = Metrics()
    metrics.fast_path.read_from(lambda: True)
    found = scrape(metrics)
    assert found["entra_fast_fast_path"] == found["entra_fast_fast_lane"] == 1


def test_what_runs_is_a_gauge_with_labels() -> None:
    """One series where all workers run the same, and one for each where they differ."""
    metrics, workers = Metrics(), [Metrics(), Metrics()]
    assert not [name for name in scrape(metrics) if name.startswith("entra_fast_build_info")]
    labels = {"version": "1.2.3", "python": "3.11.7", "rust": "1.95.0", "rsa": "rind"}
    for worker in workers:
        worker.build_info.read_from(lambda: {**labels, "fast_path": "true"})
    expected = (
        'entra_fast_build_info{{fast_path="{1}",python="3.11.7",rsa="{0}",rust="1.95.0",version="1.2.3"}}'
    )
    found = scrape(metrics, [worker.figures() for worker in workers])
    assert found[expected.format("rind", "true")] == 1
    workers[1].build_info.read_from(lambda: {**labels, "rsa": "aws-lc", "fast_path": "false"})
    found = scrape(metrics, [worker.figures() for worker in workers])
    assert found[expected.format("rind", "true")] == found[expected.format("aws-lc", "false")] == 1


def test_the_figures_of_workers_are_added() -> None:
    """Counters, histograms and sizes, including series that only one process has."""
    metrics, workers = Metrics(), [Metrics(), Metrics()]
    metrics.requests.add("other", "200", "none")
    for worker in workers:
        worker.requests.add("token", "200", "me", amount=2)
        worker.request_seconds.observe(0.002, "token")
        worker.connections.read_from(lambda: 3)
    workers[1].requests.add("token", "400", "me")
    found = scrape(metrics, [worker.figures() for worker in workers])
    assert found['entra_fast_requests_total{endpoint="other",identity_provider="none",status="200"}'] == 1
    assert found['entra_fast_requests_total{endpoint="token",identity_provider="me",status="200"}'] == 4
    assert found['entra_fast_requests_total{endpoint="token",identity_provider="me",status="400"}'] == 1
    assert found['entra_fast_request_duration_seconds_bucket{endpoint="token",le="0.0025"}'] == 2
    assert found['entra_fast_request_duration_seconds_sum{endpoint="token"}'] == 0.004
    assert found["entra_fast_connections"] == 6


def test_not_every_figure_is_a_sum() -> None:
    """Readiness is that of the process that is asked; the fast path is on if every worker has it."""
    metrics, workers = Metrics(), [Metrics(), Metrics()]
    metrics.ready.read_from(lambda: 1)
    workers[0].fast_path.read_from(lambda: 1)
    found = scrape(metrics, [worker.figures() for worker in workers])
    assert found["entra_fast_ready"] == 1
    assert found["entra_fast_fast_path"] == 0
    workers[1].fast_path.read_from(lambda: 1)
    assert scrape(metrics, [worker.figures() for worker in workers])["entra_fast_fast_path"] == 1


def test_the_counts_of_a_worker_outlive_it() -> None:
    """Otherwise Prometheus would see a counter reset at each restart. Gauges end with the worker."""
    metrics, gone = Metrics(), Metrics()
    gone.requests.add("token", "200", "me", amount=5)
    gone.connections.read_from(lambda: 3)
    past = metrics.accumulated(metrics.accumulated({}, gone.figures()), gone.figures())
    found = scrape(metrics, [past])
    assert found['entra_fast_requests_total{endpoint="token",identity_provider="me",status="200"}'] == 10
    assert found["entra_fast_connections"] == 0


def test_labels_of_workers_are_bounded_too() -> None:
    """A label has no more values than its limit, however many processes there are."""
    metrics = Metrics()
    workers = [Metrics() for _ in range(4)]
    for number, worker in enumerate(workers):
        for status in range(20):
            worker.requests.add("token", f"{number}-{status}", "me")
    merged = metrics.requests.merged(worker.figures()["entra_fast_requests_total"] for worker in workers)
    assert len(merged) == 24 + 1


def test_prometheus_client_is_imported_by_the_first_scrape_only() -> None:
    """Neither the library nor an unscraped sidecar pays for it."""
    program = """
import asyncio, sys
import entra_fast.validate, entra_fast.sidecar
from entra_fast._metrics import Metrics
metrics = Metrics()
metrics.figures()
print("prometheus_client" in sys.modules)
for _ in range(2):
    assert asyncio.run(metrics.exposition()).startswith(b"# HELP ")
print("prometheus_client" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


async def test_a_scrape_renders_the_same_with_and_without_the_import() -> None:
    """The first scrape imports prometheus-client in a thread; later ones do not."""
    metrics = Metrics()
    metrics.requests.add("token", "200", "me")
    loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "prometheus_client"}
    try:
        first = await metrics.exposition()
    finally:
        sys.modules.update(loaded)
    for text in (first, await metrics.exposition()):
        assert (
            b'entra_fast_requests_total{endpoint="token",identity_provider="me",status="200"} 1.0\n' in text
        )


def test_figures_of_another_shape_are_an_error() -> None:
    """A histogram of a process with other buckets is not cut to fit: its observations would be in the wrong
    ones."""
    histogram = Histogram("h", "Help.", buckets=(0.1, 1))
    histogram.observe(0.5)
    with pytest.raises(ValueError, match="zip"):
        histogram.merged([[((), (1, 2, 3.0))]])
    histogram.include(lambda: {(): ([1, 2], 3.0)})
    with pytest.raises(ValueError, match="zip"):
        histogram.figures()
