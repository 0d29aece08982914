"""The event loop that all synchronous token clients of a process share, in a thread of its own.

What belongs here: the thread, running coroutines on it from other threads, and what happens after `os.fork`:
a child has no such thread, and starts one of its own when it needs it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="entra_fast-tokens", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """The result of a coroutine.

        Raises:
            TimeoutError: there is none within `timeout` seconds. The coroutine is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise TimeoutError from None
        finally:
            future.cancel()  # also where the waiting thread is interrupted

    def call(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call something on the loop, without waiting for it."""
        self._loop.call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Cancel everything and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()


_lock = threading.Lock()
_current: BackgroundLoop | None = None


def current() -> BackgroundLoop:
    """The loop of this process, which is started when it is first needed."""
    global _current  # noqa: PLW0603 - one per process
    if _current is None:
        with _lock:
            if _current is None:  # pragma: no branch - another thread was faster
                _current = BackgroundLoop()
    return _current


def _after_fork() -> None:
    """The child has neither the thread nor the thread that may hold the lock."""
    global _current, _lock
    _current, _lock = None, threading.Lock()


def _at_exit() -> None:
    if _current is not None:
        _current.stop()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
