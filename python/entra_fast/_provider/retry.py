"""When a failed token request is repeated.

What belongs here: attempts within the overall deadline. What must never be here: the request itself
(token_endpoint.py), when none is made at all (back_off.py), and valid tokens that serve in the meantime
(token_client.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from entra_fast._provider import attempts
from entra_fast._provider.back_off import BackOffWindows, NotAsked
from entra_fast._provider.oauth import ANSWERED
from entra_fast._provider.tokens import Timing, WantedToken
from entra_fast.errors import ProviderError

RETRY_PAUSE = (0.05, 0.25)
"""Seconds; each pause before a retry is drawn from this range, so that many sidecars do not retry in step."""
RETRY_RESERVE = 0.25
"""Minimum number of seconds that must be left for another attempt."""

RETRYABLE_FAILURES = frozenset({"dns_failed", "connect_failed", "timed_out", "answer_incomplete"})

T = TypeVar("T")


class Retrying:
    """Makes attempts, outside of back-off windows.

    Args:
        overall_timeout: seconds for all attempts together.
        max_retries: attempts after the first.
    """

    def __init__(self, overall_timeout: float, max_retries: int, timing: Timing) -> None:
        self.overall_timeout = overall_timeout
        self._max_retries = max_retries
        self._timing = timing
        self.windows = BackOffWindows(timing.monotonic)

    async def run(self, wanted: WantedToken, attempt: Callable[[float], Awaitable[T]]) -> T:
        """The result of the first attempt that succeeds. `attempt` is called with its deadline, a time of the
        monotonic clock.

        Raises:
            NotAsked: a back-off window covers the token.
            ProviderError: the last attempt failed.
        """
        with attempts.counted("token"):
            return await self._run(wanted, attempt)

    async def _run(self, wanted: WantedToken, attempt: Callable[[float], Awaitable[T]]) -> T:
        deadline = self._timing.monotonic() + self.overall_timeout
        retries_left = self._max_retries
        while True:
            try:
                return await self.windows.run(wanted, deadline, attempt)
            except NotAsked:
                raise
            except ProviderError as error:
                pause = self._timing.uniform(*RETRY_PAUSE) + (error.retry_after or 0)
                time_left = deadline - self._timing.monotonic()
                if not (_is_retryable(error) and retries_left > 0 and time_left > pause + RETRY_RESERVE):
                    raise
            retries_left -= 1
            await self._timing.sleep(pause)


def _is_retryable(error: ProviderError) -> bool:
    if error.code in ANSWERED:
        return error.status in (408, 429) or error.status >= 500
    return error.code in RETRYABLE_FAILURES
