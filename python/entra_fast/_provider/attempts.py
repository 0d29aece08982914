"""Which attempt at a request is being sent: the spans of repeated requests say so.

What belongs here: the ordinal of an attempt, for code that watches requests below the code that repeats them.
What must never be here: whether a request is repeated (retry.py, endpoints.py, credentials.py).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from contextvars import ContextVar

_counted: ContextVar[tuple[str, Iterator[int]] | None] = ContextVar("attempts", default=None)


@contextlib.contextmanager
def counted(what: str) -> Iterator[None]:
    """The requests that are sent within are attempts at one.

    Args:
        what: is requested. Within an outer count of the same, that one goes on; one of something else waits.
    """
    outer = _counted.get()
    if outer is not None and outer[0] == what:
        yield
        return
    token = _counted.set((what, itertools.count()))
    try:
        yield
    finally:
        _counted.reset(token)


def ordinal() -> int:
    """Call once for each request: 0 for the first attempt and for whatever is not counted, then 1, 2, ..."""
    counting = _counted.get()
    return 0 if counting is None else next(counting[1])
