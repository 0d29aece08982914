"""Metrics: the text format, and labels that cannot grow without bound."""

from __future__ import annotations

import re

import pytest

from entra_fast._metrics import Counter, Histogram, Label, Metrics


def test_a_counter_counts_by_label() -> None:
    """One series for each combination of values, in the text format."""
    counter = Counter("c_total", "Help.", (Label("a", ("x", "y")), Label("b")))
    counter.add("x", "1")
    counter.add("x", "1", amount=2)
    counter.add("y", "2")
    assert counter.render() == (
        "# HELP c_total Help.\n# TYPE c_total counter\n"
        'c_total{a="x",b="1"} 3\nc_total{a="y",b="2"} 1\n'
    )  # fmt: skip


def test_a_value_outside_a_closed_set_is_other() -> None:
    """A closed set stays closed."""
    counter = Counter("c_total", "Help.", (Label("a", ("x",)),))
    counter.add("attacker's choice")
    assert counter.samples() == ['c_total{a="other"} 1']


def test_an_open_set_stops_at_its_limit() -> None:
    """Memory does not grow with the number of different values."""
    counter = Counter("c_total", "Help.", (Label("a", limit=3),))
    for i in range(1000):
        counter.add(str(i))
    assert len(counter.samples()) == 4
    assert counter.value("other") == 997


def test_label_values_are_escaped() -> None:
    """Quotes, backslashes and line ends cannot break the format."""
    counter = Counter("c_total", "Help.", (Label("a"),))
    counter.add('a"b\\c\nd')
    assert counter.samples() == ['c_total{a="a\\"b\\\\c\\nd"} 1']


def test_a_histogram_is_cumulative() -> None:
    """Buckets include all smaller ones; an observation on a bound belongs to it."""
    histogram = Histogram("h", "Help.", buckets=(0.1, 1))
    for value in (0.05, 0.1, 0.5, 5):
        histogram.observe(value)
    assert histogram.samples() == [
        'h_bucket{le="0.1"} 2',
        'h_bucket{le="1"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 5.65",
        "h_count 4",
    ]


def test_a_wrong_number_of_labels_is_a_mistake() -> None:
    """Found at once."""
    with pytest.raises(ValueError, match="c_total has 1 labels"):
        Counter("c_total", "Help.", (Label("a"),)).add("x", "y")


def test_the_whole_text_is_well_formed() -> None:
    """Each family has HELP and TYPE once, each sample a number; names follow Prometheus' conventions."""
    metrics = Metrics()
    metrics.requests.add("token", "200")
    metrics.request_seconds.observe(0.01, "token")
    text = metrics.render().decode()
    assert text.endswith("\n")
    names = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert len(names) == len({name for name, _ in names})
    for name, kind in names:
        assert (kind == "counter") == name.endswith("_total")
    for line in text.splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? -?[0-9.e+-]+', line), line


def test_memory_of_the_process_is_a_real_figure() -> None:
    """Read from the kernel."""
    assert Metrics().memory.read() > 1_000_000


def test_the_figures_of_workers_are_added() -> None:
    """Counters, histograms and sizes; labels that only one of them has are there too."""
    hub, workers = Metrics(), [Metrics(), Metrics()]
    hub.requests.add("other", "200")
    for worker in workers:
        worker.requests.add("token", "200", amount=2)
        worker.request_seconds.observe(0.002, "token")
        worker.connections.read = lambda: 3
    workers[1].requests.add("token", "400")
    text = hub.render([worker.figures() for worker in workers]).decode()
    assert 'entra_fast_requests_total{endpoint="other",status="200"} 1\n' in text
    assert 'entra_fast_requests_total{endpoint="token",status="200"} 4\n' in text
    assert 'entra_fast_requests_total{endpoint="token",status="400"} 1\n' in text
    assert 'entra_fast_request_duration_seconds_bucket{endpoint="token",le="0.0025"} 2\n' in text
    assert 'entra_fast_request_duration_seconds_sum{endpoint="token"} 0.004\n' in text
    assert "entra_fast_connections 6\n" in text


def test_not_every_figure_is_a_sum() -> None:
    """What the hub alone knows is the hub's; the fast path is there if every worker has it."""
    hub, workers = Metrics(), [Metrics(), Metrics()]
    hub.ready.read = lambda: 1
    workers[0].fast_lane.read = lambda: 1
    text = hub.render([worker.figures() for worker in workers]).decode()
    assert "entra_fast_ready 1\n" in text
    assert "entra_fast_fast_lane 0\n" in text
    workers[1].fast_lane.read = lambda: 1
    assert "entra_fast_fast_lane 1\n" in hub.render([worker.figures() for worker in workers]).decode()


def test_what_a_worker_has_counted_outlives_it() -> None:
    """Else Prometheus would take a restart for a reset of the whole. Gauges end with it."""
    hub, gone = Metrics(), Metrics()
    gone.requests.add("token", "200", amount=5)
    gone.connections.read = lambda: 3
    past = hub.accumulated(hub.accumulated({}, gone.figures()), gone.figures())
    text = hub.render([past]).decode()
    assert 'entra_fast_requests_total{endpoint="token",status="200"} 10\n' in text
    assert "entra_fast_connections 0\n" in text


def test_labels_of_workers_are_bounded_too() -> None:
    """However many processes, a label has no more values than its limit."""
    hub = Metrics()
    workers = [Metrics() for _ in range(4)]
    for number, worker in enumerate(workers):
        for status in range(20):
            worker.requests.add("token", f"{number}-{status}")
    lines = hub.requests.samples(worker.figures()["entra_fast_requests_total"] for worker in workers)
    assert len(lines) == 24 + 1
