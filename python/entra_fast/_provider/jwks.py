"""Fetching and refreshing the provider's key set.

What belongs here: two owners of a key set that follow the schedule of jwks_schedule.py, `AsyncKeys` on an
event loop and `ThreadKeys` for threads, and the interface `KeySource` through which a validator asks for new
keys. What must never be here: a decision about a token, or how to read a JWK.

A caller whose signing key is known never waits for any of this.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import math
import os
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from entra_fast import _background, _clock
from entra_fast._late_imports import importing
from entra_fast._native import KeySet
from entra_fast._provider.jwks_schedule import Cause, KeySchedule, RefreshRules, max_age_of
from entra_fast._shared_threads import requests, schedule
from entra_fast.errors import EntraFastError, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._provider.http_rules import AsyncHttpClient, HttpResponse

logger = logging.getLogger("entra_fast._provider.jwks")


MEDIA_TYPES = "application/json, application/jwk-set+json"
"""Media types of a key set (RFC 7517, section 8.5.2), for the `Accept` of requests."""

RECENT = 1.0
"""Seconds after a fetch in which a token that was rejected may have been verified with the keys before it."""

WOKEN_PER_ROUND = 4
"""Number of waiting callers that continue in one round of the event loop."""


class Waiters:
    """Callers that wait for a fetch on one event loop. There may be thousands: they continue a few at a time,
    so that other requests are served in between."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()
        self._due: collections.deque[Callable[[], None]] = collections.deque()
        self._waking = False

    def add(self, resume: Callable[[], None]) -> None:
        """Call `resume` after the fetch."""
        self._waiting.append(resume)

    async def wait(self) -> None:
        """Return after the fetch."""
        waiter = asyncio.get_running_loop().create_future()
        self.add(lambda: None if waiter.done() else waiter.set_result(None))
        await waiter

    def wake(self) -> None:
        """The fetch has ended for every caller that is waiting now. May be called again before all of them
        have continued."""
        self._due += self._waiting
        self._waiting.clear()
        if self._due and not self._waking:
            self._waking = True
            self._wake_some()

    def _wake_some(self) -> None:
        # Each in a callback of its own, so that one that fails does not keep the others waiting.
        loop = asyncio.get_running_loop()
        for _ in range(min(len(self._due), WOKEN_PER_ROUND)):
            loop.call_soon(self._due.popleft())
        self._waking = bool(self._due)
        if self._waking:
            loop.call_soon(self._wake_some)


def jitter() -> float:
    """A number from 0 to 1 that spreads processes in time. It guards nothing: it is taken from the system
    because the module `random` takes long to import."""
    return int.from_bytes(os.urandom(4)) / 0xFFFF_FFFF


def read_key_set(url: str, response: HttpResponse) -> KeySet:
    """The key set in the response from a URL.

    Raises:
        KeysUnavailable: the status is not 200, or the body has no usable key.
    """
    with importing:
        from entra_fast._provider.http_rules import not_ok, shown_url  # noqa: PLC0415 - something was fetched

    if response.status != 200:
        raise KeysUnavailable("keys_unavailable", f"the key set endpoint {not_ok(url, response)}")
    try:
        return KeySet(response.body)
    except KeysUnavailable as error:
        raise KeysUnavailable(error.code, f"{error.message} ({shown_url(url)})") from None


def _unexpected(error: Exception) -> KeysUnavailable:
    logger.exception("unexpected error while the key set was fetched")
    return KeysUnavailable("keys_unavailable", f"fetching failed with {type(error).__name__}")


class _Keys:
    """What `AsyncKeys` and `ThreadKeys` share: the last good key set, its schedule and its figures.

    Attributes:
        keys: the last good key set; None before the first and after it was discarded.
        text: the JSON text of `keys`, for sending it to another process.
        error: why the last fetch failed; None when it succeeded.
        outcomes: number of fetches by outcome: `ok` or an error code.
    """

    def __init__(
        self,
        jwks_uri: str,
        accept: Callable[[KeySet | None], None],
        rules: RefreshRules | None,
        monotonic: Callable[[], float],
        counted: Callable[[str], object],
    ) -> None:
        self.jwks_uri = jwks_uri
        self.schedule = KeySchedule(rules or RefreshRules())
        self.keys: KeySet | None = None
        self.text: bytes | None = None
        self.error: EntraFastError | None = None
        self.fetches = 0
        self.fetch_failures = 0
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._accept = accept
        self._monotonic = monotonic
        self._counted = counted

    def _fetched(self, keys: KeySet, text: bytes, cache_control: str) -> None:
        self._ended("ok")
        if self.schedule.failures:
            logger.info("key set refreshed after %d failures", self.schedule.failures)
        self.schedule.succeeded(self._monotonic(), max_age_of(cache_control), jitter())
        if keys.ambiguous:
            logger.warning(
                "ignored %d entries of the key set that share their kid with a different key", keys.ambiguous
            )
        if unusable := len(keys.dropped) - keys.ambiguous:
            logger.warning("ignored %d unusable entries of the key set", unusable)
        self.text = text
        self._accept(keys)  # first, so that any caller that sees a key in `keys` can verify with it
        self.keys = keys
        self.error = None

    def _failed_to_fetch(self, error: EntraFastError) -> None:
        now = self._monotonic()
        self.fetch_failures += 1
        self._ended(error.code)
        self.schedule.failed(now, jitter())
        self.error = error
        if (failures := self.schedule.failures) & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th... in a row
            logger.warning("key set could not be refreshed (%s): %s", error.code, error.message)
        self.discard_when_too_old(now)

    def _ended(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._counted(outcome)

    def discard_when_too_old(self, now: float) -> None:
        """Discard the key set if it could not be refreshed for too long."""
        if self.keys is not None and self.schedule.expired(now):
            hours = self.schedule.rules.max_age / 3600
            logger.error("discarded the key set: not refreshed for %g h", hours)
            self.keys = self.text = None
            self._accept(None)

    def _brought(self, cause: Cause, kid: str | None, before: KeySet | None) -> bool:
        """Whether the keys that are known now may verify a token that those before did not."""
        if self.keys is None or cause is Cause.NO_KEYS:
            return self.keys is not None
        if cause is Cause.FAILED_SIGNATURE:
            return before is not None and not self.keys.agrees_with(before, kid)
        # A token without a kid finds nothing, even when a key without one is published. Otherwise it would
        # end the cool-down, and such tokens could cause one fetch each.
        return kid is not None and kid in self.keys.kids

    def _fetched_just_now(self) -> bool:
        """Whether a caller may have been overtaken by the last fetch."""
        fetched_at = self.schedule.fetched_at
        return fetched_at is not None and self._monotonic() - fetched_at < RECENT

    def unavailable(self) -> KeysUnavailable:
        """The error for a token that cannot be verified because there are no keys, with the reason."""
        reason = self.error.message if self.error is not None else "they have not been fetched yet"
        return KeysUnavailable("keys_unavailable", f"keys of the token issuer are not available: {reason}")

    def stats(self) -> dict[str, int]:
        """keys, keys_dropped, keys_ambiguous, key_fetches, key_fetch_failures, and key_set_age_seconds (-1
        before the first)."""
        age = -1
        if self.schedule.fetched_at is not None:
            age = int(self._monotonic() - self.schedule.fetched_at)
        return {
            "keys": len(self.keys) if self.keys is not None else 0,
            "keys_dropped": len(self.keys.dropped) if self.keys is not None else 0,
            "keys_ambiguous": self.keys.ambiguous if self.keys is not None else 0,
            "key_fetches": self.fetches,
            "key_fetch_failures": self.fetch_failures,
            "key_set_age_seconds": age,
        }


class KeySource(Protocol):
    """How a validator on an event loop gets new keys: from an `AsyncKeys`, or from one in another process."""

    async def refresh_for(self, cause: Cause, kid: str | None) -> bool:
        """A token with this `kid` was rejected. Returns whether to verify it once more. While there are
        keys, only a token that could pass with another one may be a cause
        (`Validator.unverified_could_pass`)."""

    def call_when_fetched(self, resume: Callable[[], None]) -> bool:
        """Call `resume` after the fetch that is in flight. False if none is; then `resume` is not
        called."""

    def unavailable(self) -> KeysUnavailable:
        """The error for a token that cannot be verified because there are no keys, with the reason."""


class AsyncKeys(_Keys):
    """A key set that is kept fresh on one event loop: a `KeySource`.

    Args:
        jwks_uri: https URL of the key set (http for loopback only).
        http: the HTTP client for fetching it.
        accept: called with each new key set, and with None when the last good one was discarded.
        rules: when to fetch.
        monotonic: seconds of a clock that never jumps.
        counted: called with the outcome of each fetch: `ok` or an error code. By default nothing happens.
    """

    def __init__(
        self,
        jwks_uri: str,
        http: AsyncHttpClient,
        accept: Callable[[KeySet | None], None],
        *,
        rules: RefreshRules | None = None,
        monotonic: Callable[[], float] = _clock.monotonic,
        counted: Callable[[str], object] = str,
    ) -> None:
        super().__init__(jwks_uri, accept, rules, monotonic, counted)
        self._http = http
        self._fetch_task: asyncio.Task[None] | None = None
        self._refresh_task: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._waiters = Waiters()
        self._cool_down_changed: Callable[[Mapping[Cause, float]], None] | None = None

    def on_cool_down_change(self, changed: Callable[[Mapping[Cause, float]], None]) -> None:
        """Register a callback for changes of the cool-downs.

        Args:
            changed: called with the time until which no token causes a fetch, for each cause, in seconds of
                the monotonic clock, now and at each change. Minus infinity while a fetch may come or is in
                flight. Until that time such tokens may be rejected without asking here.
        """
        self._cool_down_changed = changed
        self._report_cool_down()

    def _report_cool_down(self) -> None:
        if self._cool_down_changed is not None:
            in_flight = self._fetching
            self._cool_down_changed(
                {
                    cause: float("-inf") if in_flight else self.schedule.cool_down_ends(cause)
                    for cause in Cause
                }
            )

    def start(self) -> None:
        """Begin to fetch and refresh in the background."""
        if self._refresh_task is None:
            self._refresh_task = _background.start(self._refresh_forever(), "key set refresh")

    async def aclose(self) -> None:
        """Stop refreshing."""
        tasks = (self._refresh_task, self._fetch_task)
        self._refresh_task = self._fetch_task = None
        await _background.cancel(*tasks)

    async def refresh(self) -> None:
        """Fetch now, or join the fetch that is in flight. Never raises: see `error`. A caller that is
        cancelled does not cancel the fetch for the others."""
        await asyncio.shield(self._begin_fetch())

    def _begin_fetch(self) -> asyncio.Task[None]:
        if self._fetch_task is None or self._fetch_task.done():
            self._fetch_task = _background.start(self._fetch(), "key set fetch")
            self._fetch_task.add_done_callback(self._fetch_ended)
            self._report_cool_down()
        return self._fetch_task

    def _fetch_ended(self, _: asyncio.Task[None]) -> None:
        self._report_cool_down()
        self._waiters.wake()

    @property
    def _fetching(self) -> bool:
        return self._fetch_task is not None and not self._fetch_task.done()

    def call_when_fetched(self, resume: Callable[[], None]) -> bool:
        """Like the waiting of `refresh_for`, for a caller without a task to wait in."""
        if self._fetching:
            self._waiters.add(resume)
            return True
        return False

    async def refresh_for(self, cause: Cause, kid: str | None) -> bool:
        """As `KeySource.refresh_for`: refresh if that is due. Waits only for a fetch that may bring the
        key."""
        before = self.keys
        if self._brought(cause, kid, before):
            return True  # it arrived while the token was verified
        joined = self._fetching
        if joined:
            if not await self._wait() or self.error is not None or self._brought(cause, kid, before):
                return True
            # The response in flight may have been written before the key was published. Only a fetch that
            # begins after that is sure to have it, and another token may have begun one already.
            if self._fetching:
                await self._wait()
                return True
        if not self.schedule.claim_fetch(cause, self._monotonic()):
            return joined or (cause is Cause.FAILED_SIGNATURE and self._fetched_just_now())
        before = self.keys
        await self._wait()
        if self._brought(cause, kid, before):
            self.schedule.key_was_found(cause)
            self._report_cool_down()
        return True

    async def _wait(self) -> bool:
        """Whether the fetch has ended in time."""
        self._begin_fetch()
        try:
            async with asyncio.timeout(self.schedule.rules.max_wait):
                await self._waiters.wait()
        except TimeoutError:
            logger.warning("stopped waiting for the key set; the fetch continues")
            return False
        return True

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            response = await self._http.get(self.jwks_uri, accept=MEDIA_TYPES)
            keys = read_key_set(self.jwks_uri, response)
            self._fetched(keys, response.body, response.headers.get("Cache-Control", ""))
        except EntraFastError as error:
            self._failed_to_fetch(error)
            self._failed.set()
        except Exception as error:  # an unexpected error must not stop the refresh
            self._failed_to_fetch(_unexpected(error))
            self._failed.set()

    async def _refresh_forever(self) -> None:
        while True:
            now = self._monotonic()
            if now >= self.schedule.next_refresh:
                await self.refresh()
            else:
                # At most a minute at a time, so that a set that became too old is discarded in time. A
                # refresh for an unknown kid that fails meanwhile is retried soon, not when the next one was
                # planned.
                self._failed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(self.schedule.next_refresh - now, 60.0)):
                        await self._failed.wait()
            self.discard_when_too_old(self._monotonic())


class ThreadKeys(_Keys):
    """A key set that is kept fresh in the background, for callers in any thread.

    All objects of a process share a few threads (_shared_threads.py), which hold them weakly: one that was
    dropped without `close` fetches nothing. Fetching starts at the first use, and again after a fork.

    Args:
        jwks_uri: https URL of the key set (http for loopback only).
        fetch: returns the response or raises an EntraFastError. Called by one thread at a time.
        accept: called with each new key set, and with None when the last good one was discarded.
        rules: when to fetch.
        monotonic: seconds of a clock that never jumps.
        counted: called with the outcome of each fetch: `ok` or an error code. By default nothing happens.
    """

    def __init__(
        self,
        jwks_uri: str,
        fetch: Callable[[str], HttpResponse],
        accept: Callable[[KeySet | None], None],
        *,
        rules: RefreshRules | None = None,
        monotonic: Callable[[], float] = _clock.monotonic,
        counted: Callable[[str], object] = str,
    ) -> None:
        super().__init__(jwks_uri, accept, rules, monotonic, counted)
        self._server = urllib.parse.urlsplit(jwks_uri).netloc
        self._fetch_response = fetch
        self._closed = False
        self._reset()
        _survives_fork.add(self)

    def _reset(self) -> None:
        """The locks and threads of a parent process do not exist in its child."""
        self._changed = threading.Condition()
        self._fetching = False
        self._finished = self.fetches

    def start(self) -> None:
        """Begin to fetch and refresh in the background."""
        schedule.look_at(self)

    def close(self) -> None:
        """Stop refreshing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        schedule.forget(self)

    def refresh(self) -> None:
        """Fetch now, or join the fetch that is in flight, and wait for it. Never raises: see `error`."""
        with self._changed:
            self._refresh_locked()

    def _refresh_locked(self) -> bool:
        """Whether the fetch has ended in time."""
        if not self._fetching:
            self._begin_fetch()
        awaited, limit = self.fetches, self.schedule.rules.max_wait
        return self._changed.wait_for(lambda: self._finished >= awaited or self._closed, timeout=limit)

    def refresh_for(self, cause: Cause, kid: str | None) -> bool:
        """See `AsyncKeys.refresh_for`."""
        with self._changed:
            if self._closed:
                return False  # nothing is fetched any more
            before = self.keys
            if self._brought(cause, kid, before):
                return True  # it arrived while the token was verified
            joined = self._fetching
            if joined:
                if not self._refresh_locked() or self.error is not None or self._brought(cause, kid, before):
                    return True
                if self._fetching:  # as in `AsyncKeys`
                    self._refresh_locked()
                    return True
            if not self.schedule.claim_fetch(cause, self._monotonic()):
                return joined or (cause is Cause.FAILED_SIGNATURE and self._fetched_just_now())
            before = self.keys
            self._refresh_locked()
            if self._brought(cause, kid, before):
                self.schedule.key_was_found(cause)
        return True

    # --- in the shared threads ---

    def due_in(self) -> float | None:
        """See `Recurring.due_in`."""
        with self._changed:
            if self._closed:
                return None
            # The end of a fetch makes the shared thread ask again.
            return math.inf if self._fetching else self.schedule.next_refresh - self._monotonic()

    def run(self) -> None:
        """See `Recurring.run`."""
        with self._changed:
            if not self._fetching and not self._closed:
                self._begin_fetch()

    def _begin_fetch(self) -> None:
        if not self._closed:
            requests.start(self._server, self, ThreadKeys._fetch)
            self._fetching = True
            self.fetches += 1

    def _fetch(self) -> None:
        try:
            if self._closed:
                return
            response = self._fetch_response(self.jwks_uri)
            keys = read_key_set(self.jwks_uri, response)
            self._fetched(keys, response.body, response.headers.get("Cache-Control", ""))
        except EntraFastError as error:
            self._failed_to_fetch(error)
        except Exception as error:  # an unexpected error must not end the thread
            self._failed_to_fetch(_unexpected(error))
        finally:
            with self._changed:
                self._fetching = False
                self._finished = self.fetches
                self._changed.notify_all()
            schedule.look_at(self)


_survives_fork: weakref.WeakSet[ThreadKeys] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for keys in list(_survives_fork):
        keys._reset()
    requests.reset_in_child()
    # Without this, the child would not refresh as long as it meets no unknown key.
    schedule.restart_in_child()


if hasattr(os, "register_at_fork"):  # pragma: no branch - only Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
