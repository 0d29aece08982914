"""Fetching and refreshing the provider's key set.

What belongs here: when to fetch (`KeySchedule`, without I/O and with time as an argument), and two ways to
live by it: `AsyncKeys` on an event loop and `ThreadKeys` with a background thread. What must never be here:
a decision about a token, or how to read a JWK.

The rules, after Microsoft's advice on signing key rollover: fetch at start, refresh in the background hourly,
keep the last known good set when a refresh fails (but not for longer than a day), and on an unknown `kid`
refresh at once, at most once per cool-down. Whoever has a known key never waits for any of it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from entra_fast._native import KeySet
from entra_fast.errors import EntraFastError, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._provider.http_rules import AsyncHttpClient, HttpResponse

logger = logging.getLogger("entra_fast._provider.jwks")

MEDIA_TYPES = "application/json, application/jwk-set+json"
"""Of a key set (RFC 7517, section 8.5.2), for requests."""

WOKEN_AT_ONCE = 4
"""Of those who waited for a fetch, so many go on in one round of the event loop."""


class Waiters:
    """Those who wait for a fetch on one event loop. Thousands may: they go on a few at a time, so that others
    are served in between."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Callable[[], None]] = collections.deque()

    def add(self, go_on: Callable[[], None]) -> None:
        """Have `go_on` called after the fetch."""
        self._waiting.append(go_on)

    async def wait(self) -> None:
        """Return after the fetch."""
        waiter = asyncio.get_running_loop().create_future()
        self.add(lambda: None if waiter.done() else waiter.set_result(None))
        await waiter

    def wake(self) -> None:
        """The fetch is done, for all who wait now."""
        self._wake(len(self._waiting))

    def _wake(self, left: int) -> None:
        for _ in range(min(left, WOKEN_AT_ONCE)):
            self._waiting.popleft()()
        if left > WOKEN_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._wake, left - WOKEN_AT_ONCE)


@dataclass(frozen=True, slots=True)
class RefreshRules:
    """When keys are fetched. All times are seconds.

    Attributes:
        interval: between scheduled refreshes; a shorter `Cache-Control: max-age` of the answer counts too.
        min_interval: no `max-age` makes refreshes more frequent than this.
        cool_down: after a refresh for an unknown `kid` that did not bring that key, the next such refresh
            waits this long. A refresh that did bring it proves a rollover, which no stranger can cause.
        first_retry, last_retry: pause after the first failure, doubled up to the last.
        max_age: a set that could not be refreshed for so long is given up.
        max_wait: longest that one validation waits for keys.
    """

    interval: float = 3600.0
    min_interval: float = 300.0
    cool_down: float = 300.0
    first_retry: float = 1.0
    last_retry: float = 60.0
    max_age: float = 86_400.0
    max_wait: float = 10.0


class KeySchedule:
    """Decides when to fetch. Holds no keys, does no I/O, reads no clock: `now` is monotonic seconds."""

    def __init__(self, rules: RefreshRules) -> None:
        self.rules = rules
        self.fetched_at: float | None = None
        self.failures = 0
        self.next_refresh = float("-inf")
        self._unknown_allowed_at = float("-inf")

    def succeeded(self, now: float, max_age: float | None, jitter: float) -> None:
        """A set arrived; `max_age` as its answer said. `jitter` (0 to 1) spreads many processes in time."""
        interval = self.rules.interval
        if max_age is not None:
            interval = min(interval, max(max_age, self.rules.min_interval))
        self.fetched_at = now
        self.failures = 0
        earliest = min(interval, self.rules.min_interval)
        self.next_refresh = now + max(earliest, interval * (1 - 0.1 * jitter))

    def failed(self, now: float, jitter: float) -> None:
        """No usable set arrived; the last good one stays."""
        pause = min(self.rules.first_retry * 2.0 ** min(self.failures, 20), self.rules.last_retry)
        self.failures += 1
        self.next_refresh = now + pause * (1 - 0.5 * jitter)

    def expired(self, now: float) -> bool:
        """Has the last good set become too old to be believed?"""
        return self.fetched_at is not None and now - self.fetched_at > self.rules.max_age

    def claim_fetch_for_unknown(self, now: float) -> bool:
        """May an unknown `kid`, or the lack of any keys, cause a fetch now? Saying yes starts the cool-down,
        so that whoever asks next, even while the fetch is under way, hears no."""
        if self.fetched_at is None:
            return self.failures == 0 or now >= self.next_refresh
        if now < self._unknown_allowed_at:
            return False
        self._unknown_allowed_at = now + self.rules.cool_down
        return True

    @property
    def cool_down_ends(self) -> float:
        """Until then no unknown `kid` causes a fetch. The past where one may."""
        return self._unknown_allowed_at if self.fetched_at is not None else float("-inf")

    def unknown_was_found(self) -> None:
        """The fetch brought the key: a rollover, which no stranger can cause, so nothing has to cool down."""
        self._unknown_allowed_at = float("-inf")


_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,;])", re.ASCII | re.IGNORECASE)


def max_age_of(cache_control: str) -> float | None:
    """Seconds of `max-age` in a Cache-Control header (RFC 9111, section 5.2.2.1)."""
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None


def read_key_set(status: int, body: bytes) -> KeySet:
    """The key set in an answer.

    Raises:
        KeysUnavailable: the status is not 200 or the body holds no usable key.
    """
    if status != 200:
        raise KeysUnavailable("keys_unavailable", f"the key set endpoint answered {status} instead of 200")
    return KeySet(body)


def _misbehaved(error: Exception) -> KeysUnavailable:
    logger.exception("key set could not be fetched")
    return KeysUnavailable("keys_unavailable", f"fetching failed with {type(error).__name__}")


class _Keys:
    """What both ways share: the last good set, who is to be told, and figures. `text` is what the last set
    was read from, for whoever hands it on. `outcomes` counts fetches: `ok` or an error code."""

    def __init__(
        self,
        jwks_uri: str,
        accept: Callable[[KeySet | None], None],
        rules: RefreshRules | None,
        monotonic: Callable[[], float],
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

    def _take(self, keys: KeySet, text: bytes, cache_control: str) -> None:
        jitter = random.random()  # noqa: S311 - spreads load, guards nothing
        self.outcomes["ok"] += 1
        if self.schedule.failures:
            logger.info("key set refreshed again after %d failures", self.schedule.failures)
        self.schedule.succeeded(self._monotonic(), max_age_of(cache_control), jitter)
        if keys.dropped:
            logger.warning("key set: %d entries cannot be used and were left out", len(keys.dropped))
        self.text = text
        self._accept(keys)  # first, so that whoever sees a key in `keys` can verify with it
        self.keys = keys
        self.error = None

    def _keep(self, error: EntraFastError) -> None:
        now = self._monotonic()
        self.fetch_failures += 1
        self.outcomes[error.code] += 1
        self.schedule.failed(now, random.random())  # noqa: S311 - as above
        self.error = error
        if (failures := self.schedule.failures) & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th... in a row
            logger.warning("key set could not be refreshed (%s): %s", error.code, error.message)
        self.give_up_when_too_old(now)

    def give_up_when_too_old(self, now: float) -> None:
        if self.keys is not None and self.schedule.expired(now):
            logger.error("key set is too old to be believed and was given up")
            self.keys = self.text = None
            self._accept(None)

    def _has(self, kid: str | None) -> bool:
        # A token without a kid finds nothing, even when a key without one is published: that must not lift
        # the cool-down, or such tokens could cause one fetch each.
        return kid is not None and self.keys is not None and kid in self.keys.kids

    def unavailable(self) -> KeysUnavailable:
        reason = self.error.message if self.error is not None else "they have not been fetched yet"
        return KeysUnavailable("keys_unavailable", f"keys of the token issuer are not available: {reason}")

    def stats(self) -> dict[str, int]:
        age = -1
        if self.schedule.fetched_at is not None:
            age = int(self._monotonic() - self.schedule.fetched_at)
        return {
            "keys": len(self.keys) if self.keys is not None else 0,
            "keys_dropped": len(self.keys.dropped) if self.keys is not None else 0,
            "key_fetches": self.fetches,
            "key_fetch_failures": self.fetch_failures,
            "key_set_age_seconds": age,
        }


class KeySource(Protocol):
    """Where a validator gets new keys: `AsyncKeys`, or whatever asks one in another process."""

    def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def refresh_for_unknown(self, kid: str | None) -> bool: ...

    def call_when_fetched(self, go_on: Callable[[], None]) -> bool: ...

    def unavailable(self) -> KeysUnavailable: ...

    def stats(self) -> dict[str, int]: ...


class AsyncKeys(_Keys):
    """A key set that is kept fresh on one event loop.

    Args:
        jwks_uri: https URL of the key set (http for loopback only).
        http: the way out.
        accept: called with each new set, and with None when the last good one has become too old.
    """

    def __init__(
        self,
        jwks_uri: str,
        http: AsyncHttpClient,
        accept: Callable[[KeySet | None], None],
        *,
        rules: RefreshRules | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(jwks_uri, accept, rules, monotonic)
        self._http = http
        self._flight: asyncio.Task[None] | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self._waiters = Waiters()
        self._cool_down_watcher: Callable[[float], None] | None = None

    def watch_cool_down(self, watcher: Callable[[float], None]) -> None:
        """Have somebody told, whenever it changes, until when no unknown `kid` causes a fetch: monotonic
        seconds, the past while a fetch may come or is under way. Whoever is told may refuse such tokens
        without asking here."""
        self._cool_down_watcher = watcher
        self._tell_cool_down()

    def _tell_cool_down(self) -> None:
        if self._cool_down_watcher is not None:
            self._cool_down_watcher(float("-inf") if self._fetching else self.schedule.cool_down_ends)

    def start(self) -> None:
        """Begin to fetch and refresh in the background."""
        if self._loop_task is None:
            self._loop_task = asyncio.get_running_loop().create_task(self._refresh_forever())

    async def aclose(self) -> None:
        """Stop refreshing."""
        tasks = [task for task in (self._loop_task, self._flight) if task is not None]
        self._loop_task = self._flight = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refresh(self) -> None:
        """Fetch now, or join the fetch that is under way. Never raises: see `error`. A caller that goes away
        does not end the fetch for the others."""
        await asyncio.shield(self._launch())

    def _launch(self) -> asyncio.Task[None]:
        if self._flight is None or self._flight.done():
            self._flight = asyncio.get_running_loop().create_task(self._fetch())
            self._flight.add_done_callback(self._landed)
            self._tell_cool_down()
        return self._flight

    def _landed(self, _: asyncio.Task[None]) -> None:
        self._tell_cool_down()
        self._waiters.wake()

    @property
    def _fetching(self) -> bool:
        return self._flight is not None and not self._flight.done()

    def call_when_fetched(self, go_on: Callable[[], None]) -> bool:
        """As the waiting of `refresh_for_unknown`, for whoever has no task to wait in. False where no fetch
        is under way; then `go_on` is not called."""
        if self._fetching:
            self._waiters.add(go_on)
            return True
        return False

    async def refresh_for_unknown(self, kid: str | None) -> bool:
        """A token names a key that is not in the set. Refresh if that is due; returns whether a new try makes
        sense. Waits only for a fetch that may bring the key."""
        if self._has(kid):
            return True  # it came while the token was judged
        joined = self._fetching
        if joined:
            if not await self._wait() or self.error is not None or self._has(kid):
                return True
            # What was under way may have been written before the key was published: it takes one that begins
            # after that, and another token may have begun that already.
            if self._fetching:
                await self._wait()
                return True
        if not self.schedule.claim_fetch_for_unknown(self._monotonic()):
            return joined
        await self._wait()
        if self._has(kid):
            self.schedule.unknown_was_found()
            self._tell_cool_down()
        return True

    async def _wait(self) -> bool:
        """Whether the fetch has ended."""
        self._launch()
        try:
            async with asyncio.timeout(self.schedule.rules.max_wait):
                await self._waiters.wait()
        except TimeoutError:
            logger.warning("gave up waiting for the key set; the fetch goes on")
            return False
        return True

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            response = await self._http.get(self.jwks_uri, accept=MEDIA_TYPES)
            keys = read_key_set(response.status, response.body)
        except EntraFastError as error:
            self._keep(error)
            self._failed.set()
        except Exception as error:  # a fetch that misbehaves must not end the refreshing
            self._keep(_misbehaved(error))
            self._failed.set()
        else:
            self._take(keys, response.body, response.headers.get("Cache-Control", ""))

    async def _refresh_forever(self) -> None:
        while True:
            now = self._monotonic()
            if now >= self.schedule.next_refresh:
                await self.refresh()
            else:
                # In slices, so that a set that became too old goes in time. A refresh for an unknown kid that
                # fails meanwhile is retried soon, and not when the next one was planned.
                self._failed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(self.schedule.next_refresh - now, 60.0)):
                        await self._failed.wait()
            self.give_up_when_too_old(self._monotonic())


class ThreadKeys(_Keys):
    """A key set that is kept fresh by a background thread, for callers in any thread.

    The thread is a daemon, started at the first use and anew after a fork; it holds this object weakly, so a
    forgotten validator does not fetch for ever.

    Args:
        jwks_uri: https URL of the key set (http for loopback only).
        fetch: brings the answer, or raises an EntraFastError; called by one thread at a time.
        accept: called with each new set, and with None when the last good one has become too old.
    """

    def __init__(
        self,
        jwks_uri: str,
        fetch: Callable[[str], HttpResponse],
        accept: Callable[[KeySet | None], None],
        *,
        rules: RefreshRules | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(jwks_uri, accept, rules, monotonic)
        self._fetch_answer = fetch
        self._closed = False
        self._reset()
        _survives_fork.add(self)

    def _reset(self) -> None:
        """Locks and threads of the parent mean nothing in a child process."""
        self._changed = threading.Condition()
        self._in_flight = False
        self._finished = self.fetches
        self._wanted = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to fetch and refresh in the background."""
        with self._changed:
            self._ensure_thread()

    def close(self) -> None:
        """Stop refreshing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def refresh(self) -> None:
        """Fetch now, or join the fetch that is under way, and wait for it. Never raises: see `error`."""
        with self._changed:
            self._refresh_locked()

    @property
    def _fetching(self) -> bool:
        return self._in_flight or self._wanted

    def _refresh_locked(self) -> bool:
        """Whether the fetch has ended."""
        done = self.fetches
        if not self._in_flight:
            done += 1
            self._wanted = True
            self._ensure_thread()
            self._changed.notify_all()
        limit = self.schedule.rules.max_wait
        return self._changed.wait_for(lambda: self._finished >= done, timeout=limit)

    def refresh_for_unknown(self, kid: str | None) -> bool:
        """As `AsyncKeys.refresh_for_unknown`."""
        with self._changed:
            if self._closed:
                return False  # nobody is there to fetch
            if self._has(kid):
                return True  # it came while the token was judged
            joined = self._fetching
            if joined:
                if not self._refresh_locked() or self.error is not None or self._has(kid):
                    return True
                if self._fetching:  # as in `AsyncKeys`
                    self._refresh_locked()
                    return True
            if not self.schedule.claim_fetch_for_unknown(self._monotonic()):
                return joined
            self._refresh_locked()
            if self._has(kid):
                self.schedule.unknown_was_found()
        return True

    def _ensure_thread(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(
                target=_run, args=(weakref.ref(self),), name="entra_fast-keys", daemon=True
            )
            self._thread.start()

    def _step(self) -> bool:
        """Fetch if that is due, else wait a little. False when the thread is to end."""
        with self._changed:
            pause = self.schedule.next_refresh - self._monotonic()
            if not self._wanted and pause > 0:
                self._changed.wait(min(pause, 30.0))  # bounded: while it waits, the thread keeps this object
            if self._closed:
                return False
            due = self._wanted or self.schedule.next_refresh <= self._monotonic()
            if due:
                self._wanted = False
                self._in_flight = True
                self.fetches += 1
        if due:
            try:
                self._fetch()
            finally:
                with self._changed:
                    self._in_flight = False
                    self._finished = self.fetches
                    self._changed.notify_all()
        self.give_up_when_too_old(self._monotonic())
        return True

    def _fetch(self) -> None:
        try:
            answer = self._fetch_answer(self.jwks_uri)
            keys = read_key_set(answer.status, answer.body)
        except EntraFastError as error:
            self._keep(error)
        except Exception as error:  # a fetch that misbehaves must not end the thread
            self._keep(_misbehaved(error))
        else:
            self._take(keys, answer.body, answer.headers.get("Cache-Control", ""))


def _run(reference: weakref.ref[ThreadKeys]) -> None:
    while True:
        keys = reference()
        if keys is None or not keys._step():
            return
        del keys


_survives_fork: weakref.WeakSet[ThreadKeys] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for keys in list(_survives_fork):
        was_running = keys._thread is not None
        keys._reset()
        if was_running:
            # Else nothing would refresh in this process as long as the keys that it has are enough.
            keys.start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
