"""Importing the client of Redis without OpenTelemetry's metrics, which it loads where they are installed.

What belongs here: nothing else. The client can count its own requests, which nobody asks it to, and for that
it imports OpenTelemetry's SDK: 20 MiB, and a part of the start. Where telemetry is sent, the SDK is loaded in
any case, and perhaps at this moment in a thread: then nothing is held back.
"""

from __future__ import annotations

import os
import sys

from entra_fast._settings.cache_sizes import has_telemetry

_HELD_BACK = "opentelemetry.sdk.metrics"


def import_redis() -> None:
    """Import the client. Call it while no other thread imports anything of OpenTelemetry.

    Raises:
        ImportError: it is not installed.
    """
    hold_back = _HELD_BACK not in sys.modules and not has_telemetry(os.environ)
    if hold_back:
        sys.modules[_HELD_BACK] = None  # type: ignore[assignment] # importing it is an ImportError
    try:
        import redis.asyncio  # noqa: F401, PLC0415 - the purpose of this function
    finally:
        if hold_back:
            del sys.modules[_HELD_BACK]
