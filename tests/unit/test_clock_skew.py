"""How far the clocks differ: only what neither whole seconds, the exchange nor a cache explains."""

from __future__ import annotations

import pytest

from entra_fast._provider.clock_skew import ClockSkew

DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
AT = 1_800_000_000.0


@pytest.mark.parametrize(
    ("wall", "took", "age", "seconds"),
    [
        (AT, 0.0, None, 0.0),
        (AT + 1, 0.0, None, 0.0),
        (AT + 1.5, 0.0, None, 0.5),
        (AT + 1.5, 0.5, None, 0.0),
        (AT - 2, 3.0, None, -2.0),
        (AT - 0.5, 1.0, None, -0.5),
        (AT + 101, 0.0, None, 100.0),
        (AT + 101, 0.0, "100", 0.0),
        (AT + 101, 0.0, " 60 ", 40.0),
        (AT + 101, 0.0, "x", 100.0),
        (AT + 101, 0.0, "-5", 100.0),
        (AT + 101, 0.0, "²", 100.0),
        (AT, 0.0, "999999999", -999_999_999.0),
        (AT, 0.0, "9999999999", 0.0),
    ],
)
def test_the_difference_that_is_left(wall: float, took: float, age: str | None, seconds: float) -> None:
    """The provider's clock showed its date, or up to a second more, at some moment of the exchange; a cache
    that kept the answer says for how long."""
    skew = ClockSkew(lambda: wall)
    skew.seconds = 7.0
    skew.observe({"Date": DATE} | ({} if age is None else {"Age": age}), took)
    assert skew.seconds == pytest.approx(seconds)


@pytest.mark.parametrize("headers", [{}, {"Date": ""}, {"Date": "yesterday"}, {"Age": "5"}])
def test_an_answer_without_a_date_changes_nothing(headers: dict[str, str]) -> None:
    """What was known is still the best there is; at first that is nothing."""
    skew = ClockSkew(lambda: AT)
    skew.observe(headers, 0.0)
    assert skew.seconds == 0.0
    skew.observe({"Date": DATE}, 0.0)
    skew.seconds = 7.0
    skew.observe(headers, 0.0)
    assert skew.seconds == 7.0
