"""The messages between replicas of an application: tokens fetched, renewals in progress, tokens replaced.

What belongs here: when a token from another replica is used, and when ours is published. What must never be
here: the server between them (redis_cache.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from entra_fast import _background
from entra_fast._metrics import Metrics
from entra_fast._provider.renewal import RENEWAL_SPREAD, Renewals
from entra_fast._provider.tokens import Fetch, FetchedToken, TimedCache
from entra_fast._single_flight import SingleFlight

LEAD_RESERVE = 1.0
"""Seconds beyond its own deadline for which a replica that renews a token keeps others from doing so."""
MAX_REPLACEMENTS = 256
"""Maximum number of announcements that are processed at once; further ones are ignored."""
MAX_REPLACED = 10_000
"""Maximum number of replaced tokens that are remembered; beyond it, the oldest is forgotten."""


class Replicas(Protocol):
    """The tokens of other replicas: `redis_cache.SharedCache`. Nothing here raises.

    Attributes:
        on_replaced: called with the digest of a token that another replica has replaced; must not raise.
    """

    on_replaced: Callable[[bytes], None]

    async def get(self, digest: bytes) -> FetchedToken | None: ...

    def put(self, digest: bytes, token: FetchedToken, *, announce: bool) -> None: ...

    def is_writing(self, digest: bytes) -> bool: ...

    async def lead(self, digest: bytes, seconds: float) -> bool: ...


class RenewalLeftToAnother(Exception):
    """Another replica renews the token. No caller ever sees this."""


@dataclass(frozen=True, slots=True)
class _Replaced:
    """A token was replaced here by one that was fetched at `since` and expires at `end` (monotonic clock): no
    older token may replace it."""

    since: float
    end: float


class Replication:
    """Adopts tokens from other replicas, and publishes ours. Belongs to one event loop.

    Args:
        fetches: the token client's fetches in flight.
        overall_timeout: seconds that a fetch may take.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        cache: TimedCache,
        renewals: Renewals,
        fetches: SingleFlight[bytes, FetchedToken],
        overall_timeout: float,
        monotonic: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self._replicas = replicas
        self._cache = cache
        self._renewals = renewals
        self._fetches = fetches
        self._lead_time = overall_timeout + LEAD_RESERVE
        self._monotonic = monotonic
        self._metrics = metrics
        self._replaced: OrderedDict[bytes, _Replaced] = OrderedDict()
        self._replacements: set[asyncio.Task[None]] = set()
        replicas.on_replaced = self._take_over_later

    async def aclose(self) -> None:
        await _background.cancel(*self._replacements)

    async def find(self, fetch: Fetch) -> FetchedToken | None:
        """A token that another replica has fetched. If it is None, this replica asks the provider.

        Raises:
            RenewalLeftToAnother: no caller waits for the token, and another replica is renewing it.
        """
        key = fetch.wanted.key
        if not fetch.wanted.is_cacheable or fetch.must_be_new:
            return None
        token = await self._replicas.get(key)
        # The demand may have risen in the meantime.
        if token is not None and not fetch.must_be_new and not self._is_older(key, token):
            # A renewal wants a token that is younger than the one whose renewal is due.
            young = RENEWAL_SPREAD[0] if fetch.is_renewal else 1
            if self._monotonic() - token.fetched_at < token.usable_for * young:
                self._renewals.schedule(fetch.wanted, token)
                self._renewals.cache(key, token)
                return token
            if not fetch.is_renewal and self._cache.get_stale(key) is None:
                self._renewals.cache(key, token)  # for the case that the provider fails
        if fetch.is_renewal:
            leads = await self._replicas.lead(key, self._lead_time)
            if not leads and fetch.is_renewal:
                raise RenewalLeftToAnother
        return None

    def publish(self, fetch: Fetch, token: FetchedToken) -> None:
        """Offer a token to the other replicas. If it replaces one (`skip_cache`), replicas with the old one
        are notified."""
        if self._monotonic() >= token.end:
            return
        if fetch.must_be_new:
            self._remember_replacement(fetch.wanted.key, token)
        self._replicas.put(fetch.wanted.key, token, announce=fetch.must_be_new)

    def _take_over_later(self, key: bytes) -> None:
        """Another replica has replaced a token: adopt the new one if the old one is cached here. The
        announcement alone changes nothing, so that a false one loses no token."""
        if len(self._replacements) >= MAX_REPLACEMENTS:
            self._metrics.shared_announcements.add("ignored")
            return
        task = _background.start(self._take_over(key), "takeover of a replaced token")
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _take_over(self, key: bytes) -> None:
        fetch = self._fetches.in_flight(key)
        if fetch is not None:
            await asyncio.wait({fetch})  # it may bring the old one
        outcome = "ignored"
        if self._cache.get_stale(key) is not None and not self._replicas.is_writing(key):
            token = await self._replicas.get(key)
            # A token that was requested in the meantime is newer.
            overtaken = key in self._fetches or self._replicas.is_writing(key)
            if token is not None and not overtaken and not self._is_older(key, token):
                self._renewals.cache(key, token)
                outcome = "adopted"
        self._metrics.shared_announcements.add(outcome)

    def _remember_replacement(self, key: bytes, token: FetchedToken) -> None:
        while self._replaced and next(iter(self._replaced.values())).end <= self._monotonic():
            self._replaced.popitem(last=False)
        self._replaced[key] = _Replaced(token.fetched_at, token.end)
        self._replaced.move_to_end(key)
        if len(self._replaced) > MAX_REPLACED:
            self._replaced.popitem(last=False)

    def _is_older(self, key: bytes, token: FetchedToken) -> bool:
        """Whether the token was fetched before one that replaced it here. If publishing ours failed, the
        shared cache may still hold another replica's older token."""
        replaced = self._replaced.get(key)
        return replaced is not None and token.fetched_at < replaced.since
