"""The clock on which lifetimes run."""

from __future__ import annotations

import importlib
import time

import pytest

from entra_fast import _clock, _native
from entra_fast._provider.jwks_schedule import KeySchedule, RefreshRules
from entra_fast._provider.tokens import Timing
from entra_fast.sidecar.clocks import Clocks


def test_the_native_clock_is_the_same_one() -> None:
    """Times of Python and of the fast path can be compared."""
    before, native, after = _clock.monotonic(), _native.monotonic_clock(), _clock.monotonic()
    assert before <= native <= after


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no CLOCK_BOOTTIME")
def test_it_counts_suspend() -> None:
    """CLOCK_BOOTTIME, in Python and natively."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    times = [_clock.monotonic(), _native.monotonic_clock()]
    assert before <= min(times) <= max(times) <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert _clock.CLOCK_ID == time.CLOCK_BOOTTIME


def test_lifetimes_use_it() -> None:
    """Of tokens, keys and everything that the sidecar measures."""
    assert Timing().monotonic is Clocks().monotonic is _clock.monotonic


def test_a_system_without_it_uses_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows, for instance."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    try:
        assert importlib.reload(_clock).monotonic is time.monotonic
    finally:
        monkeypatch.undo()
        importlib.reload(_clock)


def test_a_key_set_is_too_old_after_a_long_suspend() -> None:
    """A day of sleep is a day: the key set is refreshed, or discarded."""
    schedule = KeySchedule(RefreshRules())
    schedule.succeeded(0.0, None, jitter=0)
    assert schedule.next_refresh <= 86_401.0
    assert schedule.expired(86_401.0)
