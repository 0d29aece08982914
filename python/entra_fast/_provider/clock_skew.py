"""How far this machine's clock is from the provider's.

What belongs here: reading the difference from the `Date` of answers. What must never be here: correcting
anything by it, and the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from entra_fast._provider.oauth import http_date

MAX_AGE_DIGITS = 9


class ClockSkew:
    """The difference of the clocks, from the latest answer with a `Date` (RFC 9110, section 6.6.1).

    Attributes:
        seconds: by which this machine's clock is ahead of the provider's; negative where it is behind, 0
            before the first answer. The provider gives whole seconds, and the answer has taken some time:
            only what neither explains counts.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.seconds = 0.0

    def observe(self, headers: Mapping[str, str], took: float) -> None:
        """An answer has just arrived.

        Args:
            headers: of the answer.
            took: seconds from its request.
        """
        date = http_date(headers.get("Date") or "")
        if date is None:
            return
        now = self._wall()
        date += _age(headers.get("Age") or "")
        # The provider's clock showed `date` to `date + 1` at some moment of the exchange.
        ahead, behind = now - took - (date + 1), date - now
        self.seconds = ahead if ahead > 0 else -behind if behind > 0 else 0.0


def _age(value: str) -> float:
    """Seconds that an answer spent in a cache (RFC 9111, section 5.1)."""
    value = value.strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) <= MAX_AGE_DIGITS else 0.0
