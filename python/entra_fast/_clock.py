"""The clock on which lifetimes run.

What belongs here: which clock of the system it is. What must never be here: wall-clock times.
The fast path reads the same clock natively (rust/py/src/clock.rs), and all processes of a machine share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

CLOCK_ID: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""Linux only. Elsewhere it is None, and Python's monotonic clock is used."""


def _clock() -> Callable[[], float]:
    # Python's monotonic clock stands still while the machine is suspended: after two hours of sleep, a token
    # of one hour would still seem to be valid.
    if CLOCK_ID is None:
        return time.monotonic
    clock_id = CLOCK_ID
    return lambda: time.clock_gettime(clock_id)


monotonic: Callable[[], float] = _clock()
"""Seconds of a clock that never jumps and, where the system has one (`CLOCK_BOOTTIME`), counts suspend."""
