"""Sweeping caches, so that nothing that has ended stays in memory because no one asks for it.

What belongs here: when caches are swept, on an event loop and in a thread. What must never be here: what has
ended, which each cache knows.

A sweep is done in parts, so that no request waits for a whole cache. A round of all parts takes half of
`LIMIT`: an entry that is added while a cache grows may be swept in the next round only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from entra_fast import _background, _clock, _native, _shared_threads

LIMIT = 60.0
"""Seconds for which an entry stays in memory, at most, after it has ended."""

LOOP_PARTS = 60
"""Parts of a round on an event loop, where requests wait for each of them."""
THREAD_PARTS = 3
"""Parts of a round in a thread, which no one waits for: it should not wake an idle process often."""


class LoopSweeps:
    """Sweeps on an event loop.

    Args:
        sweep: sweeps small caches.
        sweep_part: sweeps the next of `LOOP_PARTS` parts of large ones, if there are any.
    """

    def __init__(self, sweep: Callable[[], None], sweep_part: Callable[[], None] | None = None) -> None:
        self._sweep = sweep
        self._sweep_part = sweep_part
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep from now on, in the running event loop."""
        self._task = _background.start(self._sweep_forever(), "sweep of caches")

    async def aclose(self) -> None:
        """Stop sweeping."""
        await _background.cancel(self._task)

    async def _sweep_forever(self) -> None:
        parts = 1 if self._sweep_part is None else LOOP_PARTS
        while True:
            for _ in range(parts):
                await asyncio.sleep(LIMIT / 2 / parts)
                if self._sweep_part is not None:
                    self._sweep_part()
            self._sweep()


class ThreadSweeps:
    """Sweeps the verification caches of a validator that the library's user has, in the shared thread.

    Args:
        natives: one for each key set.
        clock: seconds since the epoch; by default the native module reads the wall clock.
    """

    def __init__(self, natives: Sequence[_native.Validator], clock: Callable[[], float] | None) -> None:
        self._natives = natives
        self._clock = clock
        self._due_at: float | None = None

    def begin(self) -> bool:
        """Sweep from now on, for as long as this object exists, if there is anything in a cache. Returns
        whether sweeps have begun."""
        if self._due_at is None and any(native.stats()["cache_entries"] for native in self._natives):
            self._due_at = time.monotonic() + LIMIT / 2 / THREAD_PARTS
            _shared_threads.schedule.look_at(self)
        return self._due_at is not None

    def due_in(self) -> float | None:
        """See `Recurring.due_in`."""
        return None if self._due_at is None else self._due_at - time.monotonic()

    def run(self) -> None:
        """See `Recurring.run`."""
        self._due_at = time.monotonic() + LIMIT / 2 / THREAD_PARTS
        now = None if self._clock is None else self._clock()
        for native in self._natives:
            native.sweep(parts=THREAD_PARTS, now=now)


class ThreadTokenSweeps:
    """Sweeps the token cache of a client that the library's user has, in the shared thread."""

    def __init__(self, cache: _native.TokenCache) -> None:
        self._cache = cache
        self._due_at: float | None = None

    def begin(self) -> None:
        """Sweep from now on, for as long as this object exists."""
        if self._due_at is None:
            self._due_at = time.monotonic() + LIMIT / 2 / THREAD_PARTS
            _shared_threads.schedule.look_at(self)

    def due_in(self) -> float | None:
        """See `Recurring.due_in`."""
        return None if self._due_at is None else self._due_at - time.monotonic()

    def run(self) -> None:
        """See `Recurring.run`."""
        self._due_at = time.monotonic() + LIMIT / 2 / THREAD_PARTS
        self._cache.sweep(monotonic=_clock.monotonic(), now=time.time(), parts=THREAD_PARTS)
