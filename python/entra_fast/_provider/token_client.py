"""Acquire tokens (client credentials) and exchange them (on behalf of a user).

What belongs here: when to ask the provider and when not to. One request per token however many callers,
renewal behind the callers' backs, retries, `Retry-After`, and the rule that a still valid token beats an
error. What must never be here: the protocol's forms and answers (oauth.py), sockets (http.py), and the shape
of the sidecar's own answers (sidecar/).

Two clocks, both injectable: lifetimes run on the monotonic one, so that a jump of the wall clock neither
kills nor resurrects a token; a subject token's own end and assertions are wall-clock times.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import random
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.oauth import (
    JWT_BEARER_ASSERTION,
    TokenAnswer,
    aadsts_code,
    client_credentials_form,
    on_behalf_of_form,
    parse_token_answer,
    scope_for,
)
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken, ProviderError

CLIENT_CREDENTIALS = "client_credentials"
ON_BEHALF_OF = "on_behalf_of"
"""Purposes of cache keys, and names of grants in metrics."""

MAX_SUBJECT_TOKEN_BYTES = 65_536
MAX_FLIGHTS = 4096
"""Most different tokens that are fetched at once; a request for a further one is refused."""
MAX_WINDOWS = 10_000
"""Most tokens for which a `Retry-After` is remembered; the oldest is forgotten."""

RETRY_PAUSE = (0.05, 0.25)
"""Seconds; each pause before a retry is drawn from this range, so that many sidecars do not retry in step."""
RETRY_RESERVE = 0.25
"""Seconds that must be left for an attempt to be worth making."""
RENEWAL_SPREAD = (0.6, 0.8)
"""Renewal is due at a random point in this part of the time in which a token is handed out, so that tokens
which were fetched together are not renewed together."""
UNASKED_RENEWAL = (0.84, 0.96)
"""At a random point in this part of that time an application's own token is renewed even if nobody has asked
for it since renewal became due."""
UNASKED_RENEWALS = 2
"""How often in a row that happens without anybody asking; then the token may lapse."""
MAX_UNASKED = 1000
"""Most tokens that are renewed without being asked for."""
RENEWAL_RETRY_PAUSE = (15.0, 30.0)
"""Seconds until a failed renewal is tried again."""
LEFT_RENEWAL_PAUSE = (2.0, 5.0)
"""Seconds until a renewal that was left to another replica is looked at again."""
LEAD_RESERVE = 1.0
"""Seconds for which a replica that renews a token keeps others from it, beyond its own deadline."""
MAX_REPLACEMENTS = 256
"""Most announcements of replicas that are followed up at once; a further one is ignored."""
LONG_MARGIN = 120.0
"""Seconds before its end at which a token is no longer handed out, unless the provider fails."""

ERROR_CODES = {
    "subject_token_expired": "the user's token has expired, so nothing is acquired on behalf of that user",
    "subject_token_invalid": "the user's token is empty, too large or has characters no token has",
    "too_many_fetches": "too many different tokens are being fetched from the provider at once",
    "credential_unusable": "the application's credential cannot be read",
}

RETRYABLE_FAILURES = frozenset({"dns_failed", "connect_failed", "timed_out", "answer_incomplete"})


@dataclass(frozen=True, slots=True, repr=False)
class AcquiredToken:
    """A token for the application. `expires_in`: whole seconds that it has left now."""

    access_token: str
    expires_in: int
    token_type: str = "Bearer"

    def __repr__(self) -> str:
        return f"AcquiredToken(expires_in={self.expires_in})"


@dataclass(frozen=True, slots=True, repr=False)
class _Wanted:
    """What identifies a token, and what is needed to fetch it."""

    key: bytes
    grant: str
    scope: str
    subject_token: str | None = None
    subject_expires_at: float | None = None

    @property
    def is_cacheable(self) -> bool:
        """Not where it cannot be told for how long the user's token allows it."""
        return self.subject_token is None or self.subject_expires_at is not None


@dataclass(frozen=True, slots=True, repr=False)
class _Fetched:
    """A token as it came: `end` is a time of the monotonic clock."""

    access_token: str
    end: float


@dataclass(frozen=True, slots=True, repr=False)
class SharedToken:
    """A token as replicas pass it on. Times are seconds.

    Attributes:
        life: how long it lived when it was fetched. age: how long ago that was; always less than `life`.
        subject_expires_at: the end of the token it was exchanged for, since the epoch; None where there is
            none.
    """

    access_token: str
    life: float
    age: float
    subject_expires_at: float | None


@dataclass(frozen=True, slots=True)
class _Window:
    """The provider asked not to be asked again before `end`, a time of the monotonic clock."""

    end: float
    error: ProviderError


@dataclass(frozen=True, slots=True)
class _Replaced:
    """A token was replaced here by one that was fetched at `since` and lives until `end`, times of the
    monotonic clock: no older one may come back."""

    since: float
    end: float


class _Demand(enum.IntEnum):
    """What is asked of a fetch; rises while it is under way, when somebody else joins it."""

    RENEWAL = 0
    """Nobody waits: another replica may do it as well."""
    TOKEN = 1
    """Somebody waits: for any token, also one that another replica has."""
    NEW_TOKEN = 2
    """Somebody waits for a token that is newer than the request (`skip_cache`)."""


class _LeftToAnother(Exception):
    """Another replica renews the token. Never reaches whoever waits for one."""


class Timer(Protocol):
    """What `loop.call_later` returns."""

    def cancel(self) -> None: ...


@dataclass(slots=True, repr=False)
class _Upkeep:
    """Keeps one of the application's own tokens fresh for callers who come seldom."""

    timer: Timer
    unasked: int = 0


class TokenCache(Protocol):
    """Where tokens are kept: `_native.TokenCache`, or something that does more when it changes."""

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


class Replicas(Protocol):
    """The tokens of other replicas: `shared_cache.SharedCache`. Nothing here raises."""

    async def get(self, digest: bytes) -> SharedToken | None: ...

    def put(self, digest: bytes, token: SharedToken, *, announce: bool) -> None: ...

    def is_writing(self, digest: bytes) -> bool: ...

    async def lead(self, digest: bytes, seconds: float) -> bool: ...


class Acquirer(Protocol):
    """What hands out tokens: `TokenAcquirer`, or whatever asks one in another process."""

    @property
    def in_flight(self) -> int: ...

    async def acquire(self, target: str, *, skip_cache: bool = False) -> AcquiredToken: ...

    async def exchange(
        self, target: str, subject_token: str, *, skip_cache: bool = False
    ) -> AcquiredToken: ...

    def renew(self, target: str, subject_token: str | None = None) -> None: ...

    async def aclose(self) -> None: ...


def token_key(provider: ProviderSettings, scope: str, subject_token: str | None = None) -> bytes:
    """The key of a token in a `TokenCache`: what makes two requests the same request. The two names of the
    provider do not appear in it.

    Args:
        scope: as `oauth.scope_for` gives it.
        subject_token: the user's token, where one is exchanged.
    """
    purpose = CLIENT_CREDENTIALS if subject_token is None else ON_BEHALF_OF
    return _native.token_cache_key(
        purpose, [provider.tenant_id, provider.client_id, scope, subject_token or ""]
    )


class TokenAcquirer:
    """Acquires and exchanges tokens through a cache. Belongs to one event loop.

    Args:
        clock: seconds since the epoch. monotonic: seconds of a clock that never jumps.
        replicas: the tokens of other replicas, where there is a cache that they share.
        sleep, uniform, call_later: for tests that must neither wait nor depend on chance.
    """

    def __init__(
        self,
        provider: ProviderSettings,
        *,
        finder: EndpointFinder,
        http: HttpClient,
        credentials: Credentials,
        cache: TokenCache,
        metrics: Metrics,
        outbound: OutboundSettings,
        replicas: Replicas | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._provider = provider
        self._finder = finder
        self._http = http
        self._credentials = credentials
        self._cache = cache
        self._metrics = metrics
        self._overall_timeout = outbound.overall_timeout
        self._max_retries = outbound.max_retries
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._uniform = uniform
        self._call_later = call_later
        self._upkeep: dict[bytes, _Upkeep] = {}
        self._flights: dict[bytes, asyncio.Task[_Fetched]] = {}
        self._demands: dict[bytes, _Demand] = {}
        self._replicas = replicas
        self._replacements: set[asyncio.Task[None]] = set()
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()
        self._replaced: OrderedDict[bytes, _Replaced] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """How many tokens are being fetched now."""
        return len(self._flights)

    async def acquire(self, target: str, *, skip_cache: bool = False) -> AcquiredToken:
        """A token for the application itself (client credentials).

        Args:
            target: as in contract.md; see `oauth.scope_for`.
            skip_cache: fetch a new token, which replaces the cached one for everybody. A fetch that is under
                way already is joined: nobody waits for a second one.

        Raises:
            EntraFastError: code `target_invalid`.
            ProviderError: no token could be had, and there is no valid one left in the cache.
        """
        scope = scope_for(target)
        wanted = _Wanted(token_key(self._provider, scope), CLIENT_CREDENTIALS, scope)
        return await self._obtain(wanted, skip_cache)

    async def exchange(self, target: str, subject_token: str, *, skip_cache: bool = False) -> AcquiredToken:
        """A token on behalf of the user whose token is `subject_token`.

        Raises:
            EntraFastError: codes `target_invalid`, `subject_token_invalid`.
            ProviderError: as `acquire`; also code `subject_token_expired`.
        """
        scope = scope_for(target)
        end = self._subject_end(subject_token)
        key = token_key(self._provider, scope, subject_token)
        wanted = _Wanted(key, ON_BEHALF_OF, scope, subject_token, end)
        token = await self._obtain(wanted, skip_cache)
        self._refuse_expired(end)  # it may have ended while the provider was asked
        return token

    async def aclose(self) -> None:
        """Give up what is being fetched, and renew no more."""
        for upkeep in self._upkeep.values():
            upkeep.timer.cancel()
        self._upkeep.clear()
        tasks = [*self._flights.values(), *self._replacements]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._demands.clear()
        self._flights.clear()  # one that had not begun yet could not do so itself

    # --- which token ---

    def _subject_end(self, subject_token: str) -> float | None:
        """The `exp` of a user's token. Nobody has verified it, but it suffices for refusing; a token that
        cannot be read here is for the provider to judge, and nothing is cached for it."""
        if not (0 < len(subject_token) <= MAX_SUBJECT_TOKEN_BYTES and _is_visible_ascii(subject_token)):
            raise EntraFastError(
                "subject_token_invalid",
                f"user_token must be a token of 1 to {MAX_SUBJECT_TOKEN_BYTES} characters, without spaces",
            )
        try:
            end = _native.unverified_claims(subject_token).get("exp")
        except InvalidToken:
            return None
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            return None
        self._refuse_expired(end)
        return float(end)

    def _refuse_expired(self, subject_end: float | None) -> None:
        if subject_end is not None and self._clock() >= subject_end:
            # RFC 6749, section 5.2: the grant (here: the user's token) is expired.
            raise ProviderError(
                "subject_token_expired", "user_token has expired", status=400, error="invalid_grant"
            )

    # --- from the cache or from a fetch ---

    async def _obtain(self, wanted: _Wanted, skip_cache: bool) -> AcquiredToken:
        self._was_asked_for(wanted.key)
        if not skip_cache:
            grant = self._cache.get(wanted.key, monotonic=self._monotonic(), now=self._clock())
            if grant is not None:
                if grant.renewal_due:
                    self._renew(wanted)
                return AcquiredToken(grant.access_token, grant.expires_in)
        try:
            # The flight belongs to nobody: a caller that goes away does not cancel it for the others.
            demand = _Demand.NEW_TOKEN if skip_cache else _Demand.TOKEN
            fetched = await asyncio.shield(self._flight(wanted, demand))
        except ProviderError as exc:
            if skip_cache and exc.code == "provider_refused" and exc.status < 500 and exc.status != 429:
                raise  # asked for a new token, and refused one: an old one would hide the reason
            stale = self._stale(wanted.key)
            if stale is None:
                raise
            self._metrics.stale_served.add()
            return AcquiredToken(stale.access_token, stale.expires_in)
        return AcquiredToken(fetched.access_token, max(0, math.floor(fetched.end - self._monotonic())))

    def _flight(self, wanted: _Wanted, demand: _Demand) -> asyncio.Task[_Fetched]:
        """The fetch of this token that is under way, or a new one."""
        flight = self._flights.get(wanted.key)
        if flight is not None:
            self._demands[wanted.key] = max(demand, self._demands[wanted.key])
        else:
            if len(self._flights) >= MAX_FLIGHTS:
                raise ProviderError(
                    "too_many_fetches",
                    "too many different tokens are being fetched from the provider at once",
                    status=503,
                    retry_after=1,
                )
            flight = asyncio.get_running_loop().create_task(self._fly(wanted))
            flight.add_done_callback(_mark_retrieved)
            self._flights[wanted.key] = flight
            self._demands[wanted.key] = demand
        return flight

    def renew(self, target: str, subject_token: str | None = None) -> None:
        """Renew a cached token in the background. For whoever answered from the cache without this class.
        Never raises: what cannot be renewed any more needs no renewal."""
        with contextlib.suppress(EntraFastError):
            scope = scope_for(target)
            if subject_token is None:
                wanted = _Wanted(token_key(self._provider, scope), CLIENT_CREDENTIALS, scope)
            else:
                end = self._subject_end(subject_token)
                key = token_key(self._provider, scope, subject_token)
                wanted = _Wanted(key, ON_BEHALF_OF, scope, subject_token, end)
            self._was_asked_for(wanted.key)
            self._renew(wanted)

    def _was_asked_for(self, key: bytes) -> None:
        upkeep = self._upkeep.get(key)
        if upkeep is not None:
            upkeep.unasked = 0

    def _renew(self, wanted: _Wanted) -> None:
        if wanted.key in self._flights:
            return
        try:
            flight = self._flight(wanted, _Demand.RENEWAL)
        except ProviderError:
            self._renewal_failed(wanted, None)
            return
        flight.add_done_callback(self._count_renewal)

    def _count_renewal(self, task: asyncio.Task[_Fetched]) -> None:
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not isinstance(failure, _LeftToAnother):
            self._metrics.renewals.add("ok" if failure is None else "failed")

    def _keep_up(self, wanted: _Wanted, delay: float) -> None:
        """Renew later, even if nobody asks: an application that comes once an hour must not wait either.
        Users' tokens are not kept for this."""
        known = self._upkeep.get(wanted.key)
        if known is None and len(self._upkeep) >= MAX_UNASKED:
            return
        call_later = self._call_later or asyncio.get_running_loop().call_later
        timer = call_later(delay, lambda: self._renew_unasked(wanted))
        if known is None:
            self._upkeep[wanted.key] = _Upkeep(timer)
        else:
            known.timer.cancel()
            known.timer = timer

    def _unasked_renewal(self, life: float) -> float:
        return _handed_out(life) * self._uniform(*UNASKED_RENEWAL)

    def _renew_unasked(self, wanted: _Wanted) -> None:
        upkeep = self._upkeep[wanted.key]
        upkeep.unasked += 1
        if upkeep.unasked > UNASKED_RENEWALS:
            del self._upkeep[wanted.key]
        else:
            self._renew(wanted)

    async def _fly(self, wanted: _Wanted) -> _Fetched:
        try:
            return await self._from_replicas(wanted) or await self._fetch(wanted)
        except _LeftToAnother:
            self._look_again(wanted)
            raise
        except BaseException as exc:
            # A token that is cached still stays; its renewal becomes due again later.
            self._renewal_failed(wanted, exc)
            raise
        finally:
            self._flights.pop(wanted.key, None)
            self._demands.pop(wanted.key, None)

    def _renewal_failed(self, wanted: _Wanted, exc: BaseException | None) -> None:
        pause = self._uniform(*RENEWAL_RETRY_PAUSE)
        if isinstance(exc, ProviderError) and exc.retry_after is not None:
            pause = max(pause, float(exc.retry_after))
        self._cache.renewal_failed(wanted.key, monotonic=self._monotonic(), retry_in=pause)

    # --- asking the provider ---

    async def _fetch(self, wanted: _Wanted) -> _Fetched:
        """Ask, and ask again where that is safe and time remains."""
        self._refuse_inside_window(wanted.key)
        deadline = self._monotonic() + self._overall_timeout
        retries_left = self._max_retries
        while True:
            try:
                return await self._attempt(wanted, deadline)
            except ProviderError as exc:
                if exc.retry_after is not None:
                    self._open_window(wanted.key, exc)
                pause = self._uniform(*RETRY_PAUSE) + (exc.retry_after or 0)
                time_left = deadline - self._monotonic()
                if not (_is_retryable(exc) and retries_left > 0 and time_left > pause + RETRY_RESERVE):
                    raise
            retries_left -= 1
            await self._sleep(pause)

    async def _attempt(self, wanted: _Wanted, deadline: float) -> _Fetched:
        """One attempt, with a new assertion; during a rotation of credentials, one for each of them."""
        endpoints = await self._endpoints(deadline)
        candidates = self._credentials.in_order()
        failure: ProviderError | None = None
        for credential in candidates:
            try:
                fields = self._credentials.fields(credential, endpoints.token_endpoint, self._clock())
            except ConfigurationError as exc:
                # A successor that is not there yet is no reason to forget why the current one was rejected.
                failure = failure or ProviderError("credential_unusable", exc.message)
                continue
            sent_at = self._monotonic()
            try:
                answer = await self._post(wanted, endpoints.token_endpoint, fields, deadline - sent_at)
            except ProviderError as exc:
                if exc.error != "invalid_client":
                    raise
                failure = ProviderError(*exc.args)
                continue
            self._credentials.accepted(credential)
            return self._keep(wanted, answer, sent_at)
        if failure is None:  # there is always a candidate
            raise ProviderError("credential_unusable", "the application has no credential")
        if failure.error == "invalid_client":
            self._credentials.rejected(failure)
        # A copy again: what is raised refers to this frame, which must not refer back to it. Such cycles keep
        # the user's token until the collector comes.
        raise ProviderError(*failure.args)

    async def _endpoints(self, deadline: float) -> Endpoints:
        try:
            async with asyncio.timeout(deadline - self._monotonic()):
                return await self._finder.find()
        except TimeoutError:  # whoever else waits for them goes on
            raise ProviderError(
                "endpoints_unknown", "the provider's endpoints are not known: no discovery document in time"
            ) from None

    async def _post(
        self, wanted: _Wanted, token_endpoint: str, credential: dict[str, str], time_left: float
    ) -> TokenAnswer:
        client_id, scope = self._provider.client_id, wanted.scope
        if wanted.subject_token is None:
            form = client_credentials_form(client_id, scope, credential)
        else:
            form = on_behalf_of_form(client_id, scope, wanted.subject_token, credential)
        started = self._monotonic()
        outcome = "cancelled"
        try:
            response = await self._http.post_form(token_endpoint, form, timeout=time_left)
            answer = parse_token_answer(response.status, response.headers, response.body, now=self._clock())
            outcome = "ok"
        except HttpFailure as exc:
            outcome = exc.code
            raise ProviderError(exc.code, f"no token from the provider: {exc.message}") from None
        except ProviderError as exc:
            outcome = f"http_{exc.status}" if exc.code in _ANSWERED else exc.code
            self._metrics.provider_errors.add(aadsts_code(exc) or exc.error)
            raise _without_secrets(exc, (*credential.values(), wanted.subject_token or "")) from None
        finally:
            self._metrics.upstream.add(wanted.grant, outcome)
            self._metrics.upstream_seconds.observe(self._monotonic() - started, wanted.grant)
        return answer

    def _keep(self, wanted: _Wanted, answer: TokenAnswer, sent_at: float) -> _Fetched:
        # The token's life is counted from before it was asked for: rather short than expired.
        self._windows.pop(wanted.key, None)
        fetched = _Fetched(answer.access_token, sent_at + answer.expires_in)
        if answer.cacheable and wanted.is_cacheable:
            age = self._monotonic() - sent_at
            token = SharedToken(answer.access_token, answer.expires_in, age, wanted.subject_expires_at)
            self._remember(wanted.key, token, sent_at)
            if wanted.subject_token is None:
                self._keep_up(wanted, self._unasked_renewal(token.life))
            if self._replicas is not None and age < token.life:
                replaced = self._demands.get(wanted.key) is _Demand.NEW_TOKEN
                if replaced:
                    self._has_replaced(wanted.key, _Replaced(sent_at, fetched.end))
                self._replicas.put(wanted.key, token, announce=replaced)
        return fetched

    def _remember(self, key: bytes, token: SharedToken, fetched_at: float) -> None:
        self._cache.put(
            key,
            token.access_token,
            token.life,
            monotonic=fetched_at,
            renew_in=_handed_out(token.life) * self._uniform(*RENEWAL_SPREAD),
            subject_expires_at=token.subject_expires_at,
        )

    # --- other replicas ---

    async def _from_replicas(self, wanted: _Wanted) -> _Fetched | None:
        """The token that another replica has fetched, or None: then this one asks the provider.

        Raises:
            _LeftToAnother: nobody waits for the token, and another replica is renewing it.
        """
        key = wanted.key
        if self._replicas is None or not wanted.is_cacheable or self._demands[key] is _Demand.NEW_TOKEN:
            return None
        token = await self._replicas.get(key)
        if (
            token is not None
            and self._demands[key] is not _Demand.NEW_TOKEN
            and not self._is_older(key, token)
        ):
            handed_out = _handed_out(token.life)
            # Whoever wants to renew has a token of that age already.
            renewing = self._demands[key] is _Demand.RENEWAL
            if token.age < handed_out * (RENEWAL_SPREAD[0] if renewing else 1):
                if wanted.subject_token is None:
                    self._keep_up(wanted, max(0.0, self._unasked_renewal(token.life) - token.age))
                return self._adopt(key, token)
            if not renewing and self._stale(key) is None:
                self._adopt(key, token)  # for the case that the provider fails
        if self._demands[key] is _Demand.RENEWAL:
            leads = await self._replicas.lead(key, self._overall_timeout + LEAD_RESERVE)
            if not leads and self._demands[key] is _Demand.RENEWAL:
                raise _LeftToAnother
        return None

    def _adopt(self, key: bytes, token: SharedToken) -> _Fetched:
        fetched_at = self._monotonic() - token.age
        self._remember(key, token, fetched_at)
        return _Fetched(token.access_token, fetched_at + token.life)

    def _has_replaced(self, key: bytes, replaced: _Replaced) -> None:
        while self._replaced and next(iter(self._replaced.values())).end <= self._monotonic():
            self._replaced.popitem(last=False)
        self._replaced[key] = replaced
        self._replaced.move_to_end(key)
        if len(self._replaced) > MAX_WINDOWS:
            self._replaced.popitem(last=False)

    def _is_older(self, key: bytes, token: SharedToken) -> bool:
        """Whether the token was fetched before one that replaced it here. Where our own did not get there,
        what is found may be another replica's older one."""
        replaced = self._replaced.get(key)
        return replaced is not None and self._monotonic() - token.age < replaced.since

    def _stale(self, key: bytes) -> _native.CachedToken | None:
        return self._cache.get_stale(key, monotonic=self._monotonic(), now=self._clock())

    def _look_again(self, wanted: _Wanted) -> None:
        pause = self._uniform(*LEFT_RENEWAL_PAUSE)
        self._cache.renewal_failed(wanted.key, monotonic=self._monotonic(), retry_in=pause)
        upkeep = self._upkeep.get(wanted.key)
        if upkeep is not None:
            upkeep.unasked = max(0, upkeep.unasked - 1)  # it has not been renewed
            self._keep_up(wanted, pause)

    def replaced_elsewhere(self, key: bytes) -> None:
        """Another replica was told to replace a token (`skip_cache`): take over the new one, if the old one
        is cached here. The announcement itself is not believed, so that a false one costs no token."""
        if self._replicas is None or len(self._replacements) >= MAX_REPLACEMENTS:
            self._metrics.shared_announcements.add("ignored")
            return
        task = asyncio.get_running_loop().create_task(self._replace(key, self._replicas))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _replace(self, key: bytes, replicas: Replicas) -> None:
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait({flight})  # it may bring the old one
        outcome = "ignored"
        if self._stale(key) is not None and not replicas.is_writing(key):
            token = await replicas.get(key)
            # What was asked for in the meantime is newer.
            overtaken = key in self._flights or replicas.is_writing(key)
            if token is not None and not overtaken and not self._is_older(key, token):
                self._adopt(key, token)
                outcome = "adopted"
        self._metrics.shared_announcements.add(outcome)

    # --- Retry-After ---

    def _open_window(self, key: bytes, error: ProviderError) -> None:
        # A copy that is never raised: a traceback keeps its frames alive, and with them the user's token.
        kept = ProviderError(*error.args)
        now = self._monotonic()
        # Most users' tokens are never asked for again: what was remembered for them must not wait for that.
        while self._windows and next(iter(self._windows.values())).end <= now:
            self._windows.popitem(last=False)
        self._windows[key] = _Window(now + (error.retry_after or 0), kept)
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)

    def _refuse_inside_window(self, key: bytes) -> None:
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


_ANSWERED = ("provider_refused", "provider_failed")


def _handed_out(life: float) -> float:
    """For how many seconds of its life a token is handed out: as `TokenCache` does."""
    return life - (LONG_MARGIN if life > 2 * LONG_MARGIN else life / 2)


def _is_retryable(error: ProviderError) -> bool:
    if error.code in _ANSWERED:
        return error.status in (408, 429) or error.status >= 500
    return error.code in RETRYABLE_FAILURES


def _is_visible_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _mark_retrieved(task: asyncio.Task[_Fetched]) -> None:
    """Nobody may be waiting any more; a failure is then no unhandled exception."""
    if not task.cancelled():
        task.exception()


def _without_secrets(error: ProviderError, sent: Iterable[str]) -> ProviderError:
    """The error without anything that was sent: a provider, or a proxy before it, may echo the request."""
    needles = {
        part
        for text in sent
        for part in (text, urllib.parse.quote_plus(text), *text.split("."))
        if len(part) >= 8
    }
    # What is no secret stays readable.
    needles -= {JWT_BEARER_ASSERTION, urllib.parse.quote_plus(JWT_BEARER_ASSERTION)}

    def clean(value: object) -> object:
        if isinstance(value, str):
            for needle in needles:
                value = value.replace(needle, "[removed]")
        return value

    return ProviderError(
        error.code,
        str(clean(error.message)),
        error.status,
        str(clean(error.error)),
        error.retry_after,
        {name: clean(value) for name, value in error.details.items()},
    )
