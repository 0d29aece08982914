"""Metrics: the text format, and labels that cannot grow without bound."""

from __future__ import annotations

import re

import pytest

from entra_fast.metrics import Counter, Histogram, Label, Metrics


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
