"""The provider's clock: everything that it signs and checks follows it. It can be moved, and stopped."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Final

from entra_fast.errors import ConfigurationError

MAX_OFFSET: Final = 10 * 365 * 86_400.0
"""Maximum distance from the wall clock, in seconds."""


class ProviderClock:
    """Seconds since the epoch: the wall clock's, or an offset from it, or a moment at which it stands.

    Args:
        wall: seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._offset = 0.0
        self._stands_at: float | None = None

    def __call__(self) -> float:
        return self._wall() + self._offset if self._stands_at is None else self._stands_at

    @property
    def offset(self) -> float:
        """Seconds by which it is ahead of the wall clock; while it stands, that changes."""
        return self._offset if self._stands_at is None else self._stands_at - self._wall()

    @property
    def frozen(self) -> bool:
        """Whether it stands."""
        return self._stands_at is not None

    def set(self, moment: float) -> None:
        """Set it, in seconds since the epoch; it goes on running, or stands there if it stood.

        Raises:
            ConfigurationError: the moment is too far away.
        """
        self.set_offset(moment - self._wall())
        if self._stands_at is not None:
            self._stands_at = moment

    def set_offset(self, seconds: float) -> None:
        """Set it to an offset from the wall clock. Raises ConfigurationError when that is too large."""
        if not -MAX_OFFSET <= seconds <= MAX_OFFSET:
            text = f"offset: at most {MAX_OFFSET:g} seconds either way"
            raise ConfigurationError("offset_invalid", text, "offset")
        self._offset = seconds
        if self._stands_at is not None:
            self._stands_at = self._wall() + seconds

    def advance(self, seconds: float) -> None:
        """Move it, whether it runs or stands; backwards by a negative number. Raises ConfigurationError when
        that leads too far away."""
        self.set(self() + seconds)

    def freeze(self) -> None:
        """Stop it where it is."""
        self._stands_at = self()

    def thaw(self) -> None:
        """Let it run on from where it stands."""
        self._offset, self._stands_at = self.offset, None

    def release(self) -> None:
        """Run with the wall clock again."""
        self._offset, self._stands_at = 0.0, None


def parse_moment(text: str) -> float:
    """Seconds since the epoch from such a number, or from a date and time (RFC 3339).

    Raises:
        ValueError: it is neither.
    """
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.timestamp()
