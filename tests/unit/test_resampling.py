"""How the benchmarks judge a ratio: by its interval over the turns, not by its median alone."""

from __future__ import annotations

import pytest

from benches.compare import compared
from benches.load import report
from benches.load.wrk import Run
from benches.resampling import Ratio, conclusion


def test_an_interval_contains_the_median_and_narrows_with_more_turns() -> None:
    """It lies within the turns, is the same for the same turns, and one odd turn of many does not move it."""
    few, many = Ratio.of([0.9, 1.0, 1.1]), Ratio.of([0.9, 1.0, 1.1] * 50)
    assert (few.median, many.median) == (1.0, 1.0)
    assert 0.9 <= few.low < few.median < few.high <= 1.1
    assert few.low <= many.low <= many.high <= few.high
    assert many.high - many.low < few.high - few.low
    assert Ratio.of([0.9, 1.0, 1.1]) == few
    steady = Ratio.of([1.0] * 40 + [0.1])
    assert (steady.low, steady.median, steady.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("turns", "reached", "word"),
    [
        ([1.2, 1.21, 1.22], True, "reached"),
        ([1.0, 1.01, 1.02], False, "MISSED"),
        ([1.05, 1.12, 1.2], None, "undecided"),
    ],
)
def test_a_target_is_judged_by_the_whole_interval(
    turns: list[float], reached: bool | None, word: str
) -> None:
    """A median above the target with turns below it proves nothing."""
    assert Ratio.of(turns).reaches(1.1) is reached
    assert conclusion({"target": 1.1, "reached": reached}) == word
    assert conclusion({"target": None, "reached": None}) == ""


def test_versions_are_compared_by_the_same_interval() -> None:
    """`make bench-compare` calls a row worse only if its whole interval is."""
    rows = compared({"row": {"base": [1.0, 1.1, 1.0], "new": [2.0, 2.1, 2.0]}})
    assert (rows[0]["conclusion"], rows[0]["ratio"]) == ("WORSE", 0.5)
    rows = compared({"row": {"base": [1.0, 1.0, 1.0], "new": [2.0, 0.9, 1.0]}})
    assert rows[0]["conclusion"].startswith("undecided")


def run(per_second: float, cpu: float) -> Run:
    return Run(1000, per_second=per_second, cpu=cpu, p50=1, p90=1, p99=1, p99_9=1, max=1)


def test_a_row_of_the_sidecar_needs_both_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    """With 64 connections, throughput and CPU time must both reach the target; the table shows both
    intervals."""
    results = report.Results()
    for cpu in (10.0, 10.1, 10.2):
        results.add("token/json/64", "sidecar", run(90.0, cpu))
        results.add("token/json/64", "bare", run(100.0, 7.0))
    (row,) = report.rows(results)
    assert (row["interval"], row["ratio"], row["target"]) == ([0.9, 0.9], 0.9, 0.8)
    assert row["cpu_interval"][0] < row["cpu_ratio"] < row["cpu_interval"][1] < 0.8
    assert row["reached"] is False
    report.show([row])
    printed = capsys.readouterr().out
    assert "0.90 (0.90 to 0.90)" in printed
    assert "MISSED" in printed
