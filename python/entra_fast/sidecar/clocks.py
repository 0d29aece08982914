"""Where the sidecar reads the time.

What belongs here: the two clocks, as one argument, which a test can replace. What must never be here: time
zones and formats.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from entra_fast import _clock


@dataclass(frozen=True, slots=True)
class Clocks:
    """The clocks of a sidecar.

    Attributes:
        wall: returns seconds since the epoch.
        monotonic: returns seconds of a clock that never jumps, and counts suspend where the system has one.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = _clock.monotonic
