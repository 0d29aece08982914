"""Whose turn it is when more tokens have to be verified than one pass of the event loop may verify.

What belongs here: the order in which connections continue. What must never be here: what they do then
(fast_path.py), and how much fits into a turn (rust/core/src/sidecar/fast_path.rs).
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable

from entra_fast import _native


class Turns:
    """Connections that wait for their next turn, first come, first served. Each connection waits in here at
    most once, so their number is bounded by that of the connections.

    Args:
        native: counts the verifications of a turn.
    """

    def __init__(self, native: _native.FastPath) -> None:
        self._native = native
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._next: asyncio.Handle | None = None

    def wait(self, resume: Callable[[], None]) -> None:
        """Call `resume` when it is this connection's turn."""
        self._waiting.append(resume)
        self.due()

    def due(self) -> None:
        """Begin a turn, once the event loop has looked at its timers and sockets."""
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._next = None
        self._native.begin_turn()
        try:
            for _ in range(len(self._waiting)):  # those that come back wait for the turn after this one
                self._waiting.popleft()()
                if self._native.turn_is_over:
                    break
        finally:
            if self._waiting:
                self.due()
