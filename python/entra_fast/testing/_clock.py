"""A clock that a test moves."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch: the system's clock, until the test moves it. For `clock=` of validators, and
    for the local Entra ID, which issues tokens at its time."""

    def __init__(self) -> None:
        self._offset = 0.0
        self._frozen: float | None = None

    def __call__(self) -> float:
        return (time.time() if self._frozen is None else self._frozen) + self._offset

    @property
    def now(self) -> float:
        """The time of this clock."""
        return self()

    def advance(self, seconds: float) -> None:
        """Move the clock.

        Args:
            seconds: forwards, or backwards if negative.
        """
        self._offset += seconds

    def set(self, moment: float) -> None:
        """Set the clock, and stop it there.

        Args:
            moment: seconds since the epoch.
        """
        self._frozen, self._offset = moment, 0.0

    def freeze(self) -> None:
        """Stop the clock where it is."""
        self.set(self())

    def reset(self) -> None:
        """Run with the system's clock again."""
        self._frozen, self._offset = None, 0.0
