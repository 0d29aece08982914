"""The event loop of the servers, and the signals that stop them.

What belongs here: the choice between uvloop and asyncio's own event loop, and what one of them cannot do.
uvloop does not exist for Windows. asyncio's event loops there cannot handle signals.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:
    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    WITHOUT_UVLOOP: str | None = f"uvloop is not available on {sys.platform}: using asyncio's event loop"
else:
    _new_event_loop, WITHOUT_UVLOOP = uvloop.new_event_loop, None
"""`WITHOUT_UVLOOP` is the log line of a server that runs without uvloop; None with it."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_Result = TypeVar("_Result")


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine on a new event loop: uvloop's where it is available, else asyncio's own."""
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        return runner.run(main)


def on_stop_signals(callback: Callable[[int], object]) -> None:
    """From now on, call back in the running event loop for each SIGINT and SIGTERM, with its number.

    Set explicitly: as PID 1, a process has no default action for signals.
    """
    loop = asyncio.get_running_loop()

    def call_back(number: int, _: FrameType | None) -> None:  # pragma: no cover - Windows
        loop.call_soon_threadsafe(callback, number)

    for number in STOP_SIGNALS:
        try:
            loop.add_signal_handler(number, callback, number)
        except NotImplementedError:  # pragma: no cover - Windows
            signal.signal(number, call_back)


def restore_stop_signals() -> None:
    """Give SIGINT and SIGTERM their usual effect again."""
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        try:
            loop.remove_signal_handler(number)
        except NotImplementedError:  # pragma: no cover - Windows
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
