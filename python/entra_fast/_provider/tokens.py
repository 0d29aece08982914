"""Types that the parts of the token client share: the wanted token, the fetched token, and the token cache.

What belongs here: types, and what follows from a token's lifetime alone. What must never be here: requests.

Two clocks: lifetimes use the monotonic clock, so that a jump of the wall clock neither expires nor revives a
token; a subject token's expiry and client assertions use the wall clock.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from entra_fast import _clock, _native

CLIENT_CREDENTIALS = "client_credentials"
ON_BEHALF_OF = "on_behalf_of"
"""Purposes of cache keys: whose token it is, whatever the grant."""
CREDENTIAL_TRY = "credential_try"
"""Name in metrics of a request whose token nobody gets: see credential_try.py."""

LONG_MARGIN = 120.0
"""Seconds before its expiry at which a token is no longer handed out, unless the provider fails."""


@dataclass(frozen=True, slots=True, repr=False)
class AcquiredToken:
    """A token for the application.

    Attributes:
        expires_in: whole seconds that it has left now.
        cached: whether it was in a cache, so that no one was asked for it.
    """

    access_token: str
    expires_in: int
    token_type: str = "Bearer"
    cached: bool = False

    def __repr__(self) -> str:
        return f"AcquiredToken(expires_in={self.expires_in})"


@dataclass(frozen=True, slots=True, repr=False)
class FetchedToken:
    """A token as the provider issued it, here or to another replica. Times are seconds.

    Attributes:
        lifetime: from `fetched_at` to its end. fetched_at: when it was requested, by the monotonic clock.
        subject_expires_at: the end of the token it was exchanged for, since the epoch; None if there is
        none. cacheable: False if its end, or that of its subject token, is not known.
    """

    access_token: str
    lifetime: float
    fetched_at: float
    subject_expires_at: float | None = None
    cacheable: bool = True

    @property
    def end(self) -> float:
        return self.fetched_at + self.lifetime

    @property
    def usable_for(self) -> float:
        """The seconds of its lifetime for which it is handed out; `_native.TokenCache` uses the same rule."""
        return self.lifetime - (LONG_MARGIN if self.lifetime > 2 * LONG_MARGIN else self.lifetime / 2)


@dataclass(frozen=True, slots=True, repr=False)
class WantedToken:
    """What identifies a token, and what is needed to fetch it.

    Attributes:
        key: of the token in the cache. `claims`, a claims challenge, is not a part of it: the token that
            meets a challenge replaces the one that does not.
        grant: its name in metrics.
        resources: the values of `resource` (RFC 8707).
        authorization_details: the text of a JSON array (RFC 9396).
    """

    key: bytes
    grant: str
    scope: str
    subject_token: str | None = None
    subject_expires_at: float | None = None
    claims: str | None = None
    resources: tuple[str, ...] = ()
    authorization_details: str | None = None

    @property
    def is_cacheable(self) -> bool:
        """False if the expiry of the user's token is unknown: no token for that user may outlive it."""
        return self.subject_token is None or self.subject_expires_at is not None

    @property
    def size(self) -> int:
        """Bytes of what the caller sends: the user's token, and what else may be large."""
        return sum(len(part or "") for part in (self.subject_token, self.claims, self.authorization_details))

    @property
    def request_key(self) -> bytes:
        """The key of the request for it: requests with the same one have the same answer. A claims challenge
        is a part of it."""
        if self.claims is None:
            return self.key
        return _native.token_cache_key("claims_challenge", [self.key.hex(), self.claims])

    def without_claims(self) -> WantedToken:
        """The same token as any caller wants it."""
        return self if self.claims is None else dataclasses.replace(self, claims=None)


@dataclass(frozen=True, slots=True, repr=False)
class Lookup:
    """What the shared cache has for a token. `answered`: whether it could be asked."""

    token: FetchedToken | None
    answered: bool = True


class Leader(enum.Enum):
    """Who fetches a token for all replicas."""

    THIS = "this"
    """This replica: the others wait for it."""
    ANOTHER = "another"
    """Another replica: this one can wait for it."""
    NONE = "none"
    """No replica, because the leader has failed, or it is not known: each asks for itself."""


class Demand(enum.IntEnum):
    """What callers expect of a fetch; rises while it is in flight, when another caller joins."""

    RENEWAL = 0
    """No caller waits: another replica may fetch the token instead."""
    TOKEN = 1
    """A caller waits for any token, including one that another replica has."""
    NEW_TOKEN = 2
    """A caller waits for a token that is newer than the request (`skip_cache`, or a claims challenge)."""


@dataclass(slots=True, repr=False)
class Fetch:
    """A fetch in flight."""

    wanted: WantedToken
    demand: Demand

    @property
    def is_renewal(self) -> bool:
        return self.demand is Demand.RENEWAL

    @property
    def must_be_new(self) -> bool:
        return self.demand is Demand.NEW_TOKEN


class Timer(Protocol):
    """The result of `loop.call_later`."""

    def cancel(self) -> None: ...


def _call_later(delay: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay, callback)


@dataclass(frozen=True, slots=True)
class Timing:
    """Time and chance, replaceable in tests.

    Attributes:
        clock: seconds since the epoch.
        monotonic: seconds of a clock that never jumps.
    """

    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = _clock.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform
    call_later: Callable[[float, Callable[[], None]], Timer] = _call_later


class TokenCache(Protocol):
    """Where tokens are kept: `_native.TokenCache`, or a class that also reacts to changes."""

    def get(self, key: bytes, *, monotonic: float, now: float) -> _native.CachedToken | None: ...

    def get_stale(self, key: bytes, *, monotonic: float, now: float) -> _native.CachedToken | None: ...

    def put(
        self,
        key: bytes,
        access_token: str,
        expires_in: float,
        *,
        monotonic: float,
        renew_in: float | None = None,
        subject_expires_at: float | None = None,
    ) -> None: ...

    def renewal_failed(self, key: bytes, *, monotonic: float, retry_in: float) -> None: ...


class TimedCache:
    """A `TokenCache` that gets the time as an argument."""

    def __init__(self, cache: TokenCache, timing: Timing) -> None:
        self._cache = cache
        self._timing = timing

    def get(self, key: bytes) -> _native.CachedToken | None:
        """The token, unless it is about to expire."""
        return self._cache.get(key, monotonic=self._timing.monotonic(), now=self._timing.clock())

    def get_stale(self, key: bytes) -> _native.CachedToken | None:
        """The token while it is valid, for use when the provider fails."""
        return self._cache.get_stale(key, monotonic=self._timing.monotonic(), now=self._timing.clock())

    def put(self, key: bytes, token: FetchedToken, *, renew_in: float) -> None:
        """`renew_in`: seconds from `token.fetched_at` until its renewal is due."""
        self._cache.put(
            key,
            token.access_token,
            token.lifetime,
            monotonic=token.fetched_at,
            renew_in=renew_in,
            subject_expires_at=token.subject_expires_at,
        )

    def make_renewal_due_again(self, key: bytes, *, retry_in: float) -> None:
        """`retry_in`: seconds from now."""
        self._cache.renewal_failed(key, monotonic=self._timing.monotonic(), retry_in=retry_in)


class ClientIdentity(Protocol):
    """The part of `ProviderSettings` that identifies the application whose tokens are cached."""

    @property
    def name(self) -> str: ...

    @property
    def tenant_id(self) -> str: ...

    @property
    def client_id(self) -> str: ...


def token_key(
    provider: ClientIdentity,
    scope: str,
    subject_token: str | None = None,
    *,
    resources: Sequence[str] = (),
    authorization_details: str | None = None,
) -> bytes:
    """The key of a token in a `TokenCache`. Requests with the same key are the same request; providers never
    share one. The native fast path makes the same key of the same parts.

    Args:
        scope: as the provider gets it.
        subject_token: the user's token, where one is exchanged.
        resources: the values of `resource` (RFC 8707).
        authorization_details: the text of a JSON array (RFC 9396).
    """
    purpose = CLIENT_CREDENTIALS if subject_token is None else ON_BEHALF_OF
    own = [provider.name, provider.tenant_id, provider.client_id]
    parts = [scope, subject_token or "", authorization_details or "", *resources]
    return _native.token_cache_key(purpose, [*own, *parts])


def whole_seconds(seconds: float) -> int:
    """As `expires_in` states them: rounded down, never negative."""
    return max(0, math.floor(seconds))
