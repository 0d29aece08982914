"""When a cached token is renewed before it expires, so that no caller waits for it.

What belongs here: the times at which renewal is due, and tokens that are renewed although no caller asks.
What must never be here: the renewal itself (token_client.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from entra_fast._provider.tokens import FetchedToken, TimedCache, Timer, Timing, WantedToken
from entra_fast.errors import ProviderError

RENEWAL_SPREAD = (0.6, 0.8)
"""Renewal is due at a random point within this part of a token's usable time, so that tokens that were
fetched together are not renewed together."""
UNASKED_RENEWAL = (0.84, 0.96)
"""At a random point within this part of the usable time, an application's own token is renewed even if no
caller has asked for it since renewal became due."""
UNASKED_RENEWALS = 2
"""Maximum number of consecutive renewals that no caller asked for; after that, the token may expire."""
MAX_UNASKED = 1000
"""Maximum number of tokens that are renewed without being asked for."""
RENEWAL_RETRY_PAUSE = (15.0, 30.0)
"""Seconds until a failed renewal is tried again."""
LEFT_RENEWAL_PAUSE = (2.0, 5.0)
"""Seconds until a renewal that was left to another replica is checked."""


@dataclass(slots=True, repr=False)
class _Scheduled:
    """The next renewal of one of the application's own tokens. `unasked`: how many there were in a row."""

    timer: Timer
    unasked: int = 0


class Renewals:
    """Decides when tokens of a cache are renewed.

    Args:
        renew: called to renew a token that no caller has asked for.
    """

    def __init__(self, cache: TimedCache, timing: Timing, renew: Callable[[WantedToken], None]) -> None:
        self._cache = cache
        self._timing = timing
        self._renew = renew
        self._scheduled: dict[bytes, _Scheduled] = {}

    def __len__(self) -> int:
        """How many tokens are renewed without being asked for."""
        return len(self._scheduled)

    def cache(self, key: bytes, token: FetchedToken) -> None:
        """Cache a token; `_native.TokenCache` tells callers when its renewal is due."""
        renew_in = token.usable_for * self._timing.uniform(*RENEWAL_SPREAD)
        self._cache.put(key, token, renew_in=renew_in)

    def schedule(self, wanted: WantedToken, token: FetchedToken) -> None:
        """Renew the token later, even if no caller asks: an application that asks once an hour must not wait
        either. Users' tokens are not renewed this way."""
        if wanted.subject_token is None:
            due_at = token.fetched_at + token.usable_for * self._timing.uniform(*UNASKED_RENEWAL)
            self._schedule(wanted, max(0.0, due_at - self._timing.monotonic()))

    def asked_for(self, key: bytes) -> None:
        """A caller has asked for the token: it is in use."""
        scheduled = self._scheduled.get(key)
        if scheduled is not None:
            scheduled.unasked = 0

    def failed(self, wanted: WantedToken, error: BaseException | None = None) -> None:
        """A renewal, or another fetch, failed. The cached token stays; its renewal is due again later."""
        pause = self._timing.uniform(*RENEWAL_RETRY_PAUSE)
        if isinstance(error, ProviderError) and error.retry_after is not None:
            pause = max(pause, float(error.retry_after))
        self._cache.make_renewal_due_again(wanted.key, retry_in=pause)

    def left_to_another(self, wanted: WantedToken) -> None:
        """Another replica is renewing the token: check soon whether it has."""
        pause = self._timing.uniform(*LEFT_RENEWAL_PAUSE)
        self._cache.make_renewal_due_again(wanted.key, retry_in=pause)
        scheduled = self._scheduled.get(wanted.key)
        if scheduled is not None:
            scheduled.unasked = max(0, scheduled.unasked - 1)  # it has not been renewed
            self._schedule(wanted, pause)

    def close(self) -> None:
        """Stop renewing."""
        for scheduled in self._scheduled.values():
            scheduled.timer.cancel()
        self._scheduled.clear()

    def _schedule(self, wanted: WantedToken, delay: float) -> None:
        scheduled = self._scheduled.get(wanted.key)
        if scheduled is None and len(self._scheduled) >= MAX_UNASKED:
            return
        timer = self._timing.call_later(delay, lambda: self._renew_unasked(wanted))
        if scheduled is None:
            self._scheduled[wanted.key] = _Scheduled(timer)
        else:
            scheduled.timer.cancel()
            scheduled.timer = timer

    def _renew_unasked(self, wanted: WantedToken) -> None:
        scheduled = self._scheduled[wanted.key]
        scheduled.unasked += 1
        if scheduled.unasked > UNASKED_RENEWALS:
            del self._scheduled[wanted.key]
        else:
            self._renew(wanted)
