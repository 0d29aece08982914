"""What connections and requests may take: numbers, and how the limit on open files caps them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Final

MAX_LINE_BYTES: Final = 8190
"""Maximum size of a request line."""
MAX_FIELDS_BYTES: Final = 32_768
"""Maximum size of all header fields together: name, colon, value and line end of each, without white space
around the value. The fast path has the same limit (rust/core/src/sidecar/http1.rs)."""
MAX_FIELDS: Final = 128
"""Maximum number of header fields."""
MAX_HEAD_BYTES: Final = 65_536
"""A head of which this many bytes have arrived is refused before its end. More than the limits above add up
to, because white space around a value counts here."""
SPARE_FILES: Final = 640
"""File descriptors kept free for outbound HTTP."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a listener.

    Attributes:
        max_connections: maximum number of open connections.
        request_timeout: maximum time from the first byte of a request to its last, in seconds.
        idle_timeout: maximum time between two requests of a connection, in seconds.
    """

    max_connections: int
    request_timeout: float
    idle_timeout: float


def possible_connections(wanted: int) -> int:
    """The requested number of connections, or fewer if the limit on open files is too low."""
    try:
        import resource  # noqa: PLC0415 - does not exist on Windows, which has no such limit
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(wanted, soft - SPARE_FILES))
