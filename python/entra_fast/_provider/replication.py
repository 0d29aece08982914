"""The messages between replicas of an application: tokens fetched, fetches and renewals in progress, tokens
replaced.

What belongs here: when a token from another replica is used, and when ours is published. What must never be
here: the server between them (redis_cache.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from entra_fast import _background
from entra_fast._metrics import Metrics
from entra_fast._provider.renewal import RENEWAL_SPREAD, Renewals
from entra_fast._provider.tokens import Fetch, FetchedToken, Leader, Lookup, TimedCache, Timing
from entra_fast._single_flight import SingleFlight

FOLLOWERS_PATIENCE = 2.0
"""Seconds for which a replica waits for a token that another one is fetching, before it asks the provider
itself."""
FOLLOWERS_PAUSE = (0.02, 0.2)
"""Seconds between two looks at the shared cache in the meantime: at first, and at most."""
LEAD_RESERVE = 1.0
"""Seconds beyond its own deadline for which a replica that renews a token keeps others from doing so."""
MAX_REPLACEMENTS = 256
"""Maximum number of announcements that are processed at once; further ones are ignored."""
MAX_REPLACED = 10_000
"""Maximum number of replaced tokens that are remembered; beyond it, the oldest is forgotten."""


class Replicas(Protocol):
    """The tokens of other replicas: `redis_cache.SharedCache`. Nothing here raises.

    Attributes:
        members: those in this process that share the tokens, one for each provider. The first one is told
            the digest of each token that another replica has replaced.
    """

    @property
    def members(self) -> list[Replication]: ...

    async def get(self, digest: bytes) -> Lookup:
        """The token, if a replica has stored it."""

    def put(self, digest: bytes, token: FetchedToken, *, announce: bool) -> None:
        """Store a token, and end the lead of its fetch if this replica has it."""

    def is_writing(self, digest: bytes) -> bool: ...

    async def lead(self, digest: bytes, seconds: float) -> bool:
        """Whether this replica renews a token."""

    async def lead_fetch(self, digest: bytes) -> tuple[Leader, FetchedToken | None]:
        """Take the lead in fetching a token, if no replica has it. The token may be there in either case."""

    def end_lead(self, digest: bytes, *, failed: bool) -> None:
        """End the lead of a fetch, if this replica has it. If it failed, no replica waits for the token."""


class RenewalLeftToAnother(Exception):
    """Another replica renews the token. No caller ever sees this."""


@dataclass(frozen=True, slots=True)
class _Replaced:
    """A token was replaced here by one that was fetched at `since` and expires at `end` (monotonic clock): no
    older token may replace it."""

    since: float
    end: float


class Replication:
    """Adopts tokens of one provider from other replicas, and publishes ours. Belongs to one event loop.

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
        timing: Timing,
        metrics: Metrics,
    ) -> None:
        self._replicas = replicas
        self._cache = cache
        self._renewals = renewals
        self._fetches = fetches
        self._lead_time = overall_timeout + LEAD_RESERVE
        self._timing = timing
        self._monotonic = timing.monotonic
        self._metrics = metrics
        self._replaced: OrderedDict[bytes, _Replaced] = OrderedDict()
        self._replacements: set[asyncio.Task[None]] = set()
        self._members = replicas.members
        self._members.append(self)

    async def aclose(self) -> None:
        await _background.cancel(*self._replacements)

    async def find(self, fetch: Fetch) -> FetchedToken | None:
        """A token that another replica has fetched. If it is None, this replica asks the provider, and says
        how that ended with `publish` or `ended`.

        Raises:
            RenewalLeftToAnother: no caller waits for the token, and another replica is renewing it.
        """
        key = fetch.wanted.key
        if not fetch.wanted.is_cacheable or fetch.must_be_new:
            return None
        found = await self._replicas.get(key)
        token = self._adopt(fetch, found.token)
        if token is not None:
            return token
        if fetch.is_renewal:
            leads = await self._replicas.lead(key, self._lead_time)
            if not leads and fetch.is_renewal:
                raise RenewalLeftToAnother
            return None
        return await self._follow(fetch) if found.answered else None

    def _adopt(self, fetch: Fetch, token: FetchedToken | None) -> FetchedToken | None:
        """The token of another replica, if it will do; it is in our cache then, too."""
        key = fetch.wanted.key
        # The demand may have risen in the meantime.
        if token is None or fetch.must_be_new or self._is_older(key, token):
            return None
        # A renewal wants a token that is younger than the one whose renewal is due.
        young = RENEWAL_SPREAD[0] if fetch.is_renewal else 1
        if self._monotonic() - token.fetched_at < token.usable_for * young:
            self._renewals.schedule(fetch.wanted, token)
            self._renewals.cache(key, token)
            return token
        if not fetch.is_renewal and self._cache.get_stale(key) is None:
            self._renewals.cache(key, token)  # for the case that the provider fails
        return None

    async def _follow(self, fetch: Fetch) -> FetchedToken | None:
        """The token that another replica is fetching; None if this one leads, if there is nothing to wait
        for, or if it takes too long. So a fleet that starts with an empty cache makes one request, not one
        for each replica."""
        key = fetch.wanted.key
        deadline = self._monotonic() + FOLLOWERS_PATIENCE
        pause, longest = FOLLOWERS_PAUSE
        while not fetch.must_be_new:
            leader, token = await self._replicas.lead_fetch(key)
            token = self._adopt(fetch, token)
            if leader is Leader.THIS and (token is not None or fetch.must_be_new):
                self._replicas.end_lead(key, failed=False)  # the last leader was just faster
            if leader is not Leader.ANOTHER or token is not None:
                return token
            # With jitter, so that replicas that start together do not ask together.
            delay = pause * self._timing.uniform(0.5, 1.5)
            if self._monotonic() + delay > deadline:
                break
            await self._timing.sleep(delay)
            pause = min(2 * pause, longest)
        return None

    def ended(self, fetch: Fetch, *, failed: bool) -> None:
        """A fetch has ended without `publish`. If it failed, replicas that wait for it ask the provider
        themselves; otherwise another one takes the lead."""
        self._replicas.end_lead(fetch.wanted.key, failed=failed)

    def publish(self, fetch: Fetch, token: FetchedToken) -> None:
        """Offer a token to the other replicas. If it replaces one (`skip_cache`), replicas with the old one
        are notified."""
        if self._monotonic() >= token.end:
            self.ended(fetch, failed=True)  # another replica gets nothing from this token
            return
        if fetch.must_be_new:
            self._remember_replacement(fetch.wanted.key, token)
        self._replicas.put(fetch.wanted.key, token, announce=fetch.must_be_new)

    def take_over_later(self, key: bytes) -> None:
        """Another replica has replaced a token of any provider: adopt the new one if the old one is cached
        here. The announcement alone changes nothing, so that a false one loses no token. Never raises."""
        if len(self._replacements) >= MAX_REPLACEMENTS:
            self._metrics.shared_announcements.add("ignored")
            return
        task = _background.start(self._take_over(key), "takeover of a replaced token")
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _take_over(self, key: bytes) -> None:
        # The digest does not tell whose token it is, but no two providers have one in common: whatever any of
        # them fetches or has replaced under this key is the same token.
        members = self._members
        fetch = next(filter(None, (each._fetches.in_flight(key) for each in members)), None)
        if fetch is not None:
            await asyncio.wait({fetch})  # it may bring the old one
        outcome = "ignored"
        if self._cache.get_stale(key) is not None and not self._replicas.is_writing(key):
            token = (await self._replicas.get(key)).token
            # A token that was requested in the meantime is newer.
            overtaken = self._replicas.is_writing(key) or any(key in each._fetches for each in members)
            if (
                token is not None
                and not overtaken
                and not any(each._is_older(key, token) for each in members)
            ):
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
