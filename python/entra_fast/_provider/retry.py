"""When a failed token request is repeated, and when none is made at all.

What belongs here: attempts within the overall deadline, and the back-off windows that `Retry-After` opens.
What must never be here: the request itself (token_endpoint.py), and cached tokens that are returned instead
(token_client.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from entra_fast._provider.oauth import ANSWERED
from entra_fast._provider.tokens import Timing
from entra_fast.errors import ProviderError

MAX_WINDOWS = 10_000
"""Maximum number of tokens for which a `Retry-After` is remembered; the oldest is forgotten."""

RETRY_PAUSE = (0.05, 0.25)
"""Seconds; each pause before a retry is drawn from this range, so that many sidecars do not retry in step."""
RETRY_RESERVE = 0.25
"""Minimum number of seconds that must be left for another attempt."""

RETRYABLE_FAILURES = frozenset({"dns_failed", "connect_failed", "timed_out", "answer_incomplete"})

T = TypeVar("T")


class Retrying:
    """Makes attempts, and remembers the `Retry-After` of each token.

    Args:
        overall_timeout: seconds for all attempts together.
        max_retries: attempts after the first.
    """

    def __init__(self, overall_timeout: float, max_retries: int, timing: Timing) -> None:
        self.overall_timeout = overall_timeout
        self._max_retries = max_retries
        self._timing = timing
        self.windows = BackOffWindows(timing.monotonic)

    async def run(self, key: bytes, attempt: Callable[[float], Awaitable[T]]) -> T:
        """The result of the first successful attempt. `attempt` is called with its deadline, a time of the
        monotonic clock.

        Raises:
            ProviderError: the token's back-off window is open, or the last attempt failed.
        """
        self.windows.check(key)
        deadline = self._timing.monotonic() + self.overall_timeout
        retries_left = self._max_retries
        while True:
            try:
                result = await attempt(deadline)
            except ProviderError as error:
                if error.retry_after is not None:
                    self.windows.open(key, error)
                pause = self._timing.uniform(*RETRY_PAUSE) + (error.retry_after or 0)
                time_left = deadline - self._timing.monotonic()
                if not (_is_retryable(error) and retries_left > 0 and time_left > pause + RETRY_RESERVE):
                    raise
            else:
                self.windows.close(key)
                return result
            retries_left -= 1
            await self._timing.sleep(pause)


@dataclass(frozen=True, slots=True)
class _Window:
    """No request is made before `end`, a time of the monotonic clock."""

    end: float
    error: ProviderError


class BackOffWindows:
    """One window for each token that the provider answered with `Retry-After`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def open(self, key: bytes, error: ProviderError) -> None:
        """Until `error.retry_after` seconds from now."""
        # A copy that is never raised: a traceback keeps its frames, and thus the user's token, alive.
        kept = ProviderError(*error.args)
        now = self._monotonic()
        # Most users' tokens are never requested again, so windows that have ended are removed here.
        while self._windows and next(iter(self._windows.values())).end <= now:
            self._windows.popitem(last=False)
        self._windows[key] = _Window(now + (error.retry_after or 0), kept)
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)

    def close(self, key: bytes) -> None:
        """The provider has issued the token."""
        self._windows.pop(key, None)

    def check(self, key: bytes) -> None:
        """
        Raises:
            ProviderError: the error that opened the window, with the remaining time.
        """
        window = self._windows.get(key)
        if window is None:
            return
        left = window.end - self._monotonic()
        if left <= 0:
            del self._windows[key]
            return
        error = window.error
        raise ProviderError(
            error.code, error.message, error.status, error.error, math.ceil(left), dict(error.details)
        )


def _is_retryable(error: ProviderError) -> bool:
    if error.code in ANSWERED:
        return error.status in (408, 429) or error.status >= 500
    return error.code in RETRYABLE_FAILURES
