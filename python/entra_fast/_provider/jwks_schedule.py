"""When to fetch the provider's key set.

What belongs here: the schedule and its rules, without I/O and with time as an argument. What must never be
here: keys, tasks, threads and requests (jwks.py).

The rules follow Microsoft's advice on signing key rollover: fetch at start, refresh in the background every
hour, keep the last good set when a refresh fails (for a day at most), and refresh at once for an unknown
signing key, at most once per cool-down. The same holds for a signature that fails under a known `kid`, with a
cool-down of its own: a provider that was deployed again may use an old `kid` for a new key.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """When keys are fetched. All times are in seconds.

    Attributes:
        interval: time between scheduled refreshes. A shorter `Cache-Control: max-age` of the response is
            honoured.
        min_interval: minimum time between scheduled refreshes, whatever `max-age` says.
        cool_down: time after a refresh for an unknown `kid` that did not bring the key in which no further
            unknown `kid` causes a refresh. A refresh that brought the key does not start it: only the
            provider can publish a key. Signatures that fail under a known `kid` have a cool-down of their
            own, of the same length.
        first_retry: pause after the first failed fetch. It doubles with every further failure.
        last_retry: maximum pause after a failed fetch.
        max_age: age at which a key set that could not be refreshed is discarded.
        max_wait: maximum time that one validation waits for keys.
    """

    interval: float = 3600.0
    min_interval: float = 300.0
    cool_down: float = 300.0
    first_retry: float = 1.0
    last_retry: float = 60.0
    max_age: float = 86_400.0
    max_wait: float = 10.0


class Cause(enum.Enum):
    """Why a token may cause a refresh before it is due: the code of the error that it was rejected with. Each
    has a cool-down of its own."""

    NO_KEYS = "keys_unavailable"
    """There is no key set."""
    UNKNOWN_KEY = "unknown_key"
    """Its `kid` is not in the key set."""
    FAILED_SIGNATURE = "signature_invalid"
    """Its signature does not verify with the key that has its `kid`."""


class KeySchedule:
    """Decides when to fetch. Holds no keys, does no I/O and reads no clock: `now` is monotonic seconds."""

    def __init__(self, rules: RefreshRules) -> None:
        self.rules = rules
        self.fetched_at: float | None = None
        self.failures = 0
        self.next_refresh = float("-inf")
        self._cool_downs = dict.fromkeys(Cause, float("-inf"))

    def succeeded(self, now: float, max_age: float | None, jitter: float) -> None:
        """A key set arrived, with the `max_age` of its response. `jitter` (0 to 1) spreads processes in
        time."""
        interval = self.rules.interval
        if max_age is not None:
            interval = min(interval, max(max_age, self.rules.min_interval))
        self.fetched_at = now
        self.failures = 0
        earliest = min(interval, self.rules.min_interval)
        self.next_refresh = now + max(earliest, interval * (1 - 0.1 * jitter))

    def failed(self, now: float, jitter: float) -> None:
        """No usable key set arrived. The last good one stays."""
        pause = min(self.rules.first_retry * 2.0 ** min(self.failures, 20), self.rules.last_retry)
        self.failures += 1
        self.next_refresh = now + pause * (1 - 0.5 * jitter)

    def expired(self, now: float) -> bool:
        """Whether the last good key set is too old to use."""
        return self.fetched_at is not None and now - self.fetched_at > self.rules.max_age

    def claim_fetch(self, cause: Cause, now: float) -> bool:
        """Whether a token may cause a fetch now. True starts the cool-down, so the next caller gets False
        even while the fetch is in flight."""
        if self.fetched_at is None:
            return self.failures == 0 or now >= self.next_refresh
        if now < self._cool_downs[cause]:
            return False
        self._cool_downs[cause] = now + self.rules.cool_down
        return True

    def cool_down_ends(self, cause: Cause) -> float:
        """Time until which no such token causes a fetch; minus infinity where one may."""
        return self._cool_downs[cause] if self.fetched_at is not None else float("-inf")

    def key_was_found(self, cause: Cause) -> None:
        """The fetch brought the key. Only the provider can cause that, so the cool-down ends."""
        self._cool_downs[cause] = float("-inf")


_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,;])", re.ASCII | re.IGNORECASE)


def max_age_of(cache_control: str) -> float | None:
    """Seconds of `max-age` in a Cache-Control header (RFC 9111, section 5.2.2.1)."""
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None
