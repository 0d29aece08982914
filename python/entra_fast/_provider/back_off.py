"""Back-off windows: when no request is made, because the provider has answered with `Retry-After`.

What belongs here: which requests a window covers, and which are let through. What must never be here: the
request itself (token_endpoint.py), and whether a failed one is repeated (retry.py).

A window opens for the token that was refused, so that one user's trouble stops no other user. Refusals of
several tokens of one target, and of several targets, mean more than that: the window widens.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from entra_fast._provider.expiring import ExpiringMap
from entra_fast._provider.tokens import WantedToken
from entra_fast.errors import ProviderError

TOKENS_TO_WIDEN = 3
"""Number of different tokens of one grant and target that are refused before all of its tokens are."""
TARGETS_TO_WIDEN = 3
"""Number of different grants and targets that are refused before all requests are."""
MAX_IN_FLIGHT = 4
"""Maximum number of requests in flight for a grant and target while one of its tokens is inside a window."""
PROBES = 10
"""Number of requests that are let through inside a window, evenly spaced."""
MIN_PROBE_PAUSE = 10.0
"""Minimum number of seconds between two of them."""
MAX_WINDOWS = 10_000
"""Maximum number of tokens, and of targets, for which a window is remembered; the oldest is forgotten."""

Target = tuple[str, str]
"""Grant and scope."""
M = TypeVar("M")
T = TypeVar("T")


class NotAsked(ProviderError):
    """No request was made."""


class _Window:
    """No request is made until `end`, a time of the monotonic clock, except for probes."""

    __slots__ = ("_error", "_probed_at", "end")

    def __init__(self, error: ProviderError, end: float, now: float) -> None:
        self.end = end
        # A copy that is never raised: a traceback keeps its frames alive, and with them the user's token.
        self._error = ProviderError(*error.args)
        self._probed_at = now

    def is_open(self, now: float) -> bool:
        return now < self.end

    def continue_until(self, error: ProviderError, end: float) -> None:
        """A further refusal: the same window, with another end. Its probes keep their distance."""
        self.end = end
        self._error = ProviderError(*error.args)

    def may_probe(self, now: float) -> bool:
        return now - self._probed_at >= max((self._error.retry_after or 0) / PROBES, MIN_PROBE_PAUSE)

    def probe(self, now: float) -> None:
        self._probed_at = now

    def refusal(self, now: float) -> NotAsked:
        """The provider's error, with the time that is left. A new one for each caller."""
        error = self._error
        left = math.ceil(self.end - now)
        return NotAsked(error.code, error.message, error.status, error.error, left, error.details.copy())


class _Refusals(Generic[M]):
    """Which members of a whole were refused, and the window of the whole once there are enough of them.

    Args:
        needed: number of different members that are inside a window at once before the whole is.
    """

    __slots__ = ("_ends", "_narrowed_end", "_needed", "window")

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._ends: dict[M, float] = {}  # the latest ones, at most `needed`
        self._narrowed_end = -math.inf
        self.window: _Window | None = None

    @property
    def end(self) -> float:
        """Until then, members are inside a window."""
        return max(self._narrowed_end, *self._ends.values(), -math.inf)

    def add(self, member: M, error: ProviderError, end: float, now: float) -> None:
        """The member is inside a window until `end`."""
        ends = {**self._ends, member: end}
        latest = sorted(ends, key=ends.__getitem__, reverse=True)[: self._needed]
        self._ends = {known: ends[known] for known in latest if ends[known] > now}
        if len(self._ends) < self._needed:
            return
        whole_end = min(self._ends.values())  # until then, enough members are inside a window at once
        if self.window is not None and self.window.is_open(now):
            self.window.continue_until(error, whole_end)
        else:
            self.window = _Window(error, whole_end, now)

    def discard(self, member: M) -> None:
        """The provider accepts the member again."""
        self._ends.pop(member, None)

    def narrow(self) -> None:
        """The provider does not refuse the whole: close its window, and count members again."""
        self._narrowed_end = self.end
        self._ends.clear()
        self.window = None


class _Queue:
    """Requests for a grant and target: those in flight, and those that wait until one of them has ended."""

    __slots__ = ("in_flight", "present", "waiting")

    def __init__(self) -> None:
        self.present = 0
        self.in_flight = 0
        self.waiting: dict[asyncio.Future[None], None] = {}

    def wake_next(self) -> None:
        for waiter in self.waiting:
            del self.waiting[waiter]
            waiter.set_result(None)
            return


class BackOffWindows:
    """The windows of one client at one provider. Belongs to one event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tokens: ExpiringMap[bytes, _Window] = ExpiringMap(MAX_WINDOWS, monotonic)
        self._targets: ExpiringMap[Target, _Refusals[bytes]] = ExpiringMap(MAX_WINDOWS, monotonic)
        self._client: _Refusals[Target] = _Refusals(TARGETS_TO_WIDEN)
        self._queues: dict[Target, _Queue] = {}

    def __len__(self) -> int:
        """The number of tokens whose windows are remembered."""
        return len(self._tokens)

    def sweep(self) -> None:
        """Forget the windows that have ended."""
        self._tokens.sweep()
        self._targets.sweep()

    async def run(self, wanted: WantedToken, deadline: float, attempt: Callable[[float], Awaitable[T]]) -> T:
        """The result of the attempt, which is made unless a window covers the token.

        Args:
            deadline: a time of the monotonic clock. The attempt is called with it.

        Raises:
            NotAsked: as the error that opened the window, with the time that is left of it; or code
                `too_many_fetches`.
            ProviderError: of the attempt.
        """
        target = (wanted.grant, wanted.scope)
        queue = self._queues.setdefault(target, _Queue())
        queue.present += 1
        try:
            passed = await self._admit(wanted, target, queue, deadline)
            queue.in_flight += 1
            try:
                result = await attempt(deadline)
            except ProviderError as error:
                if error.retry_after is not None:
                    self._refused(wanted, target, error, self._monotonic() + error.retry_after)
                raise
            finally:
                queue.in_flight -= 1
            self._issued(wanted, target, passed)
            return result
        finally:
            queue.present -= 1
            if queue.present == 0:
                del self._queues[target]
            elif queue.in_flight < MAX_IN_FLIGHT:
                queue.wake_next()

    async def _admit(
        self, wanted: WantedToken, target: Target, queue: _Queue, deadline: float
    ) -> list[_Window]:
        """Return when the request may be made: the windows inside which it is a probe."""
        while True:
            now = self._monotonic()
            windows = self._open(wanted.key, target, now)
            for window in windows:
                if not window.may_probe(now):
                    raise window.refusal(now)
            if not self._is_limited(target, now):
                queue.wake_next()  # and that one the next
                break
            if queue.in_flight < MAX_IN_FLIGHT:
                break
            await self._wait(queue, deadline - now)
        for window in windows:
            window.probe(now)
        return windows

    def _open(self, key: bytes, target: Target, now: float) -> list[_Window]:
        """The windows that cover the token."""
        refusals = self._targets.get(target)
        of_target = refusals.window if refusals is not None else None
        windows = (self._tokens.get(key), of_target, self._client.window)
        return [window for window in windows if window is not None and window.is_open(now)]

    def _is_limited(self, target: Target, now: float) -> bool:
        """Whether any token of the target is inside a window."""
        refusals = self._targets.get(target)
        return refusals is not None and now < refusals.end

    async def _wait(self, queue: _Queue, seconds: float) -> None:
        """Return when another request has ended."""
        waiter = asyncio.get_running_loop().create_future()
        queue.waiting[waiter] = None
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise NotAsked(
                "too_many_fetches",
                "too many tokens of a target are being fetched while the provider throttles it",
                status=503,
                retry_after=1,
            ) from None
        finally:
            queue.waiting.pop(waiter, None)

    def _refused(self, wanted: WantedToken, target: Target, error: ProviderError, end: float) -> None:
        now = self._monotonic()
        self._tokens.put(wanted.key, _Window(error, end, now), end)
        refusals = self._targets.get(target)
        if refusals is None:
            refusals = _Refusals(TOKENS_TO_WIDEN)
        refusals.add(wanted.key, error, end, now)
        self._targets.put(target, refusals, refusals.end)
        if refusals.window is not None:
            self._client.add(target, error, refusals.window.end, now)
        elif _stands_for_target(wanted):
            self._client.add(target, error, end, now)

    def _issued(self, wanted: WantedToken, target: Target, passed: list[_Window]) -> None:
        """A success ends the token's window, and the wider ones inside which it was a probe. A request that
        was sent before they opened proves nothing about them."""
        self._tokens.discard(wanted.key)
        refusals = self._targets.get(target)
        if refusals is not None:
            refusals.discard(wanted.key)
            if refusals.window in passed:
                refusals.narrow()
                self._client.discard(target)
            elif refusals.window is None and _stands_for_target(wanted):
                self._client.discard(target)
        if self._client.window in passed:
            self._client.narrow()


def _stands_for_target(wanted: WantedToken) -> bool:
    """Whether its refusal is one of the whole target: the application's own token is usually the only one.
    Tokens for a customer or for a resource are several, so that one of them says nothing about the others."""
    plain = not wanted.resources and wanted.authorization_details is None
    return wanted.subject_token is None and plain
