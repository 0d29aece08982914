"""Acquires tokens (client credentials) and exchanges them (on behalf of a user).

What belongs here: how a request gets from the cache to the provider. There is one fetch per token, however
many callers ask for it, and a token that is still valid is preferred to an error. What must never be here:
the parts that are used (retry.py, renewal.py, replication.py, token_endpoint.py), and the format of the
sidecar's responses (sidecar/).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._provider.back_off import NotAsked
from entra_fast._provider.expiring import ExpiringMap
from entra_fast._provider.renewal import RENEWAL_RETRY_PAUSE, Renewals
from entra_fast._provider.replication import RenewalLeftToAnother, Replicas, Replication
from entra_fast._provider.retry import Retrying
from entra_fast._provider.tokens import (
    AcquiredToken,
    ClientIdentity,
    Demand,
    Fetch,
    FetchedToken,
    TimedCache,
    Timing,
    TokenCache,
    WantedToken,
    token_key,
    whole_seconds,
)
from entra_fast._provider.waiting import Waiting
from entra_fast._settings.model import OutboundSettings
from entra_fast._single_flight import SingleFlight
from entra_fast.errors import EntraFastError, InvalidToken, ProviderError

MAX_SUBJECT_TOKEN_BYTES = 65_536
MAX_FETCHES = 4096
"""Maximum number of different tokens that are fetched at once; further requests are refused."""

PATIENCE = 0.3
"""Seconds that a caller waits for a new token where a cached one is still valid."""
MAX_IMPATIENT = 10_000
"""Maximum number of tokens for which it is remembered that their renewal fails or takes long."""
MAX_CHALLENGED = 10_000
"""Maximum number of tokens of which it is remembered when one was requested that meets a claims challenge."""
REFUSAL_MEMORY = 1.0
"""Seconds for which a failed request is not repeated; its error answers in the meantime."""
MAX_REFUSALS = 4096
"""Maximum number of requests of which that is remembered; the oldest is forgotten."""
NOT_REMEMBERED = frozenset({"endpoints_unknown", "credential_unusable"})
"""Codes of errors that say nothing about the request: it was not sent."""

ERROR_CODES = {
    "subject_token_expired": "the user's token has expired, so nothing is acquired on behalf of that user",
    "subject_token_invalid": "the user's token is empty, too large or has characters no token has",
    "claims_invalid": "the claims challenge is not a JSON object, or is too large",
    "resource_invalid": "a resource is empty or too long, or there are too many",
    "authorization_details_invalid": "authorization_details is no JSON array of objects, or is too large",
    "too_many_fetches": "too many different tokens are being fetched from the provider at once, or too many "
    "requests wait for them",
}


class Acquirer(Protocol):
    """Hands out tokens: `TokenClient`, or what asks one in another process."""

    @property
    def in_flight(self) -> int: ...

    async def acquire(
        self,
        target: str,
        *,
        skip_cache: bool = False,
        claims: str | None = None,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> AcquiredToken: ...

    async def exchange(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> AcquiredToken: ...

    def renew(
        self,
        target: str,
        subject_token: str | None = None,
        *,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> None: ...

    def sweep(self) -> None:
        """Forget what has ended, except for tokens, which are in a cache that can be swept by itself."""

    async def aclose(self) -> None: ...


class Endpoint(Protocol):
    """Where tokens are requested: the provider's token endpoint, or a sidecar."""

    @property
    def provider(self) -> ClientIdentity: ...

    def would_fail_again(self, failure: ProviderError) -> bool:
        """Whether a recent failure still stands: not if it was about a credential that has changed."""

    def scope_for(self, target: str) -> str: ...

    def grant_for(self, *, exchange: bool, fields: Iterable[str] = ()) -> str:
        """The name in metrics of the grant for a request.

        Args:
            exchange: whether a user's token is exchanged.
            fields: those that only some providers support: `claims`, `resource`, `authorization_details`.

        Raises:
            EntraFastError: codes `grant_unsupported`, `field_unsupported`: the provider does not support it.
        """

    async def request(self, wanted: WantedToken, deadline: float, *, new: bool) -> FetchedToken:
        """One attempt. `new`: a token from a cache does not do."""


class TokenClient:
    """Acquires and exchanges tokens through a cache. Belongs to one event loop, except for `cached`.

    Args:
        replicas: the tokens of other replicas, where they share a cache.
        subject_name: what callers call the user's token, in messages.
        waiting: counts the callers that wait for tokens; None where their number needs no limit.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache: TokenCache,
        outbound: OutboundSettings,
        *,
        metrics: Metrics,
        replicas: Replicas | None = None,
        timing: Timing,
        subject_name: str = "user_token",
        waiting: Waiting | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._waiting = waiting
        self._subject_name = subject_name
        self._timing = timing
        self._metrics = metrics
        self._cache = TimedCache(cache, timing)
        self._retrying = Retrying(outbound.overall_timeout, outbound.max_retries, timing)
        self._renewals = Renewals(self._cache, timing, self._renew)
        self._fetches: SingleFlight[bytes, FetchedToken] = SingleFlight(
            "fetching a token", expected=(EntraFastError, RenewalLeftToAnother)
        )
        self._under_way: dict[bytes, Fetch] = {}
        self._failures: ExpiringMap[bytes, ProviderError] = ExpiringMap(MAX_REFUSALS, timing.monotonic)
        self._challenged: ExpiringMap[bytes, float] = ExpiringMap(MAX_CHALLENGED, timing.monotonic)
        self._impatient: ExpiringMap[bytes, bool] = ExpiringMap(MAX_IMPATIENT, timing.monotonic)
        self._replication: Replication | None = None
        if replicas is not None:
            self._replication = Replication(
                replicas,
                cache=self._cache,
                renewals=self._renewals,
                fetches=self._fetches,
                overall_timeout=outbound.overall_timeout,
                timing=timing,
                metrics=metrics,
            )

    @property
    def in_flight(self) -> int:
        """How many tokens are being fetched now."""
        return len(self._fetches)

    def cached(self, target: str, subject_token: str | None = None) -> _native.CachedToken | None:
        """The cached token, or None if it must be fetched. May be called from any thread.

        Raises:
            EntraFastError, ProviderError: as `exchange`.
        """
        if subject_token is not None:
            self._subject_end(subject_token)
        key = token_key(self._endpoint.provider, self._endpoint.scope_for(target), subject_token)
        self._renewals.asked_for(key)
        return self._cache.get(key)

    async def acquire(
        self,
        target: str,
        *,
        skip_cache: bool = False,
        claims: str | None = None,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> AcquiredToken:
        """A token for the application itself.

        Args:
            target: see `oauth.scope_for`.
            skip_cache: fetch a new token, which replaces the cached one for every caller. A fetch that is in
                flight already is joined: no caller waits for a second one.
            claims: a claims challenge that the token has to meet: the text of a JSON object. No cached token
                answers it; the new token replaces the cached one.
            resources: the audiences of the token (`resource`, RFC 8707).
            authorization_details: what the token is for (RFC 9396): the text of a JSON array of objects.

        Raises:
            EntraFastError: codes `target_invalid`, `claims_invalid`, `resource_invalid`,
                `authorization_details_invalid`, `grant_unsupported`, `field_unsupported`.
            ProviderError: no token was issued, and there is no valid one left in the cache.
        """
        wanted = self._wanted(
            target, None, claims, resources=resources, authorization_details=authorization_details
        )
        return await self._obtain(wanted, skip_cache)

    async def exchange(
        self, target: str, subject_token: str, *, skip_cache: bool = False, claims: str | None = None
    ) -> AcquiredToken:
        """A token on behalf of the user whose token is `subject_token`.

        Raises:
            EntraFastError: codes `target_invalid`, `subject_token_invalid`, `claims_invalid`,
                `grant_unsupported`, `field_unsupported`.
            ProviderError: as `acquire`; also code `subject_token_expired`.
        """
        wanted = self._wanted(target, subject_token, claims)
        token = await self._obtain(wanted, skip_cache)
        self._refuse_expired(wanted.subject_expires_at)  # it may have expired while the provider was asked
        return token

    def renew(
        self,
        target: str,
        subject_token: str | None = None,
        *,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> None:
        """Renew a cached token in the background, for a caller that answered from the cache without this
        class. Never raises: a token that can no longer be renewed needs no renewal."""
        with contextlib.suppress(EntraFastError):
            wanted = self._wanted(
                target, subject_token, resources=resources, authorization_details=authorization_details
            )
            self._renewals.asked_for(wanted.key)
            self._renew(wanted)

    def sweep(self) -> None:
        """Forget failures and back-off windows that no longer count."""
        self._failures.sweep()
        self._impatient.sweep()
        self._challenged.sweep()
        self._retrying.windows.sweep()

    async def aclose(self) -> None:
        """Cancel fetches in flight, and stop renewing."""
        self._renewals.close()
        await self._fetches.aclose()
        self._under_way.clear()  # a fetch that had not begun could not do so itself
        if self._replication is not None:
            await self._replication.aclose()

    # --- which token ---

    def _wanted(
        self,
        target: str,
        subject_token: str | None,
        claims: str | None = None,
        *,
        resources: Sequence[str] = (),
        authorization_details: str | None = None,
    ) -> WantedToken:
        endpoint = self._endpoint
        given = {
            "claims": claims,
            "resource": resources or None,
            "authorization_details": authorization_details,
        }
        fields = [name for name, value in given.items() if value is not None]
        grant = endpoint.grant_for(exchange=subject_token is not None, fields=fields)
        scope = endpoint.scope_for(target)
        if claims is not None:
            _check_claims(claims)
        if resources:
            _check_resources(resources)
        if authorization_details is not None:
            _check_authorization_details(authorization_details)
        end = None if subject_token is None else self._subject_end(subject_token)
        key = token_key(
            endpoint.provider,
            scope,
            subject_token,
            resources=resources,
            authorization_details=authorization_details,
        )
        return WantedToken(
            key, grant, scope, subject_token, end, claims, tuple(resources), authorization_details
        )

    def _subject_end(self, subject_token: str) -> float | None:
        """The `exp` of a user's token. It is not verified, but it suffices for refusing; a token that cannot
        be read here is sent to the provider, and nothing is cached for it."""
        if not (0 < len(subject_token) <= MAX_SUBJECT_TOKEN_BYTES and _is_visible_ascii(subject_token)):
            raise EntraFastError(
                "subject_token_invalid",
                f"{self._subject_name} must be a token of 1 to {MAX_SUBJECT_TOKEN_BYTES} characters, "
                "without spaces",
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
        if subject_end is not None and self._timing.clock() >= subject_end:
            # RFC 6749, section 5.2: the grant (here: the user's token) is expired.
            raise ProviderError(
                "subject_token_expired",
                f"{self._subject_name} has expired",
                status=400,
                error="invalid_grant",
            )

    # --- from the cache or from a fetch ---

    async def _obtain(self, wanted: WantedToken, skip_cache: bool) -> AcquiredToken:
        self._renewals.asked_for(wanted.key)
        if wanted.claims is not None:
            # The API has refused the cached token, so that token is no answer when the provider fails.
            return self._acquired(await self._fetch(wanted, Demand.NEW_TOKEN))
        if not skip_cache:
            cached = self._cache.get(wanted.key)
            if cached is not None:
                if cached.renewal_due:
                    self._renew(wanted)
                return AcquiredToken(cached.access_token, cached.expires_in, cached=True)
            if self._cache.get_stale(wanted.key) is not None:
                return await self._obtain_at_once(wanted)
        try:
            fetched = await self._fetch(wanted, Demand.NEW_TOKEN if skip_cache else Demand.TOKEN)
        except ProviderError as error:
            if skip_cache and error.code == "provider_refused" and error.status < 500 and error.status != 429:
                raise  # a new token was asked for and refused: an old one would hide the reason
            stale = self._stale(wanted)
            if stale is None:
                raise
            return stale
        return self._acquired(fetched)

    async def _obtain_at_once(self, wanted: WantedToken) -> AcquiredToken:
        """A new token if it comes soon, else the cached one, which is about to end. Where one caller waited
        in vain, no other one waits until it is time to try again; the fetch goes on meanwhile."""
        if self._impatient.get(wanted.key) is None:
            pause = self._timing.uniform(*RENEWAL_RETRY_PAUSE)
            self._impatient.put(wanted.key, True, self._timing.monotonic() + pause)
            with contextlib.suppress(ProviderError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    return self._acquired(await self._fetch(wanted, Demand.TOKEN))
        stale = self._stale(wanted)
        return stale if stale is not None else self._acquired(await self._fetch(wanted, Demand.TOKEN))

    def _acquired(self, fetched: FetchedToken) -> AcquiredToken:
        return AcquiredToken(fetched.access_token, whole_seconds(fetched.end - self._timing.monotonic()))

    def _stale(self, wanted: WantedToken) -> AcquiredToken | None:
        """The cached token as long as it is valid."""
        stale = self._cache.get_stale(wanted.key)
        if stale is None:
            return None
        self._metrics.stale_served.add(self._endpoint.provider.name)
        return AcquiredToken(stale.access_token, stale.expires_in, cached=True)

    async def _fetch(self, wanted: WantedToken, demand: Demand) -> FetchedToken:
        """The token of the fetch that is under way, or of a new one.

        Raises:
            ProviderError: no token was issued, or none a moment ago; there is no memory for another caller.
        """
        self._refuse_again(wanted)
        with contextlib.nullcontext() if self._waiting is None else self._waiting.caller(wanted.size):
            fetch = self._fetch_of(wanted, demand)
            return await self._fetches.join(wanted.request_key, lambda: self._run(fetch))

    def _refuse_again(self, wanted: WantedToken) -> None:
        failure = self._failures.get(wanted.request_key)
        if failure is None:
            return
        if self._endpoint.would_fail_again(failure):
            raise ProviderError(*failure.args)  # a new one for each caller: tracebacks would add up

    def _renew(self, wanted: WantedToken) -> None:
        """Fetch a token in the background, unless a fetch is in flight."""
        if wanted.key in self._fetches:
            return
        try:
            self._refuse_again(wanted)
            fetch = self._fetch_of(wanted, Demand.RENEWAL)
        except ProviderError:
            self._renewals.failed(wanted)
            return
        self._fetches.start(wanted.key, lambda: self._run(fetch)).add_done_callback(self._count_renewal)

    def _count_renewal(self, task: asyncio.Task[FetchedToken]) -> None:
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not isinstance(failure, RenewalLeftToAnother):
            outcome = "ok" if failure is None else "failed"
            self._metrics.renewals.add(outcome, self._endpoint.provider.name)

    def _fetch_of(self, wanted: WantedToken, demand: Demand) -> Fetch:
        """The fetch in flight for this token, whose demand is raised, or a new one, which is not started yet.

        Raises:
            ProviderError: code `too_many_fetches`.
        """
        fetch = self._under_way.get(wanted.request_key)
        if fetch is not None:
            fetch.demand = max(fetch.demand, demand)
            return fetch
        if len(self._under_way) >= MAX_FETCHES:
            raise ProviderError(
                "too_many_fetches",
                "too many different tokens are being fetched from the provider at once",
                status=503,
                retry_after=1,
            )
        fetch = self._under_way[wanted.request_key] = Fetch(wanted, demand)
        return fetch

    async def _run(self, fetch: Fetch) -> FetchedToken:
        wanted = fetch.wanted
        try:
            found = None if self._replication is None else await self._replication.find(fetch)
            return found or await self._ask_provider(fetch)
        except RenewalLeftToAnother:
            self._renewals.left_to_another(wanted)
            raise
        except BaseException as error:
            if wanted.claims is None:  # a challenge that is not met says nothing about the cached token
                self._renewals.failed(wanted, error)
            self._end_lead(fetch, failed=isinstance(error, ProviderError))
            raise
        finally:
            self._under_way.pop(wanted.request_key, None)

    async def _ask_provider(self, fetch: Fetch) -> FetchedToken:
        wanted = fetch.wanted
        try:
            token = await self._retrying.run(
                wanted, lambda deadline: self._endpoint.request(wanted, deadline, new=fetch.must_be_new)
            )
        except NotAsked:
            raise
        except ProviderError as error:
            if error.code not in NOT_REMEMBERED:
                # A copy that is never raised: a traceback keeps its frames alive, and with them the user's
                # token.
                kept = ProviderError(*error.args)
                self._failures.put(wanted.request_key, kept, self._timing.monotonic() + REFUSAL_MEMORY)
            raise
        self._impatient.discard(wanted.key)
        if token.cacheable and not self._is_overtaken(wanted, token):
            if wanted.claims is not None:
                self._challenged.put(wanted.key, token.fetched_at, token.end)
            self._renewals.cache(wanted.key, token)
            self._renewals.schedule(wanted.without_claims(), token)
            if self._replication is not None:
                self._replication.publish(fetch, token)
        else:
            self._end_lead(fetch, failed=not token.cacheable)
        return token

    def _end_lead(self, fetch: Fetch, *, failed: bool) -> None:
        # A fetch with a claims challenge never leads; one without may run beside it.
        if self._replication is not None and fetch.wanted.claims is None:
            self._replication.ended(fetch, failed=failed)

    def _is_overtaken(self, wanted: WantedToken, token: FetchedToken) -> bool:
        """Whether a token that meets a claims challenge was requested after this one and has come before it.
        Only requests with different challenges, or with and without one, run beside each other."""
        challenged_at = self._challenged.get(wanted.key)
        return challenged_at is not None and token.fetched_at < challenged_at


def _check_claims(claims: str) -> None:
    """
    Raises:
        EntraFastError: code `claims_invalid`.
    """
    if _fits(claims, _native.MAX_CLAIMS_BYTES):
        with contextlib.suppress(ValueError):
            if isinstance(_native.parse_json(claims), dict):
                return
    raise EntraFastError(
        "claims_invalid",
        f"claims must be a JSON object of at most {_native.MAX_CLAIMS_BYTES} bytes, as a string",
    )


def _check_resources(resources: Sequence[str]) -> None:
    """
    Raises:
        EntraFastError: code `resource_invalid`.
    """
    fits = len(resources) <= _native.MAX_RESOURCES and _fits("".join(resources), _native.MAX_RESOURCE_BYTES)
    if not fits or not all(resources):
        raise EntraFastError(
            "resource_invalid",
            f"resource must be a string or at most {_native.MAX_RESOURCES} strings, none of them empty, "
            f"of at most {_native.MAX_RESOURCE_BYTES} bytes together",
        )


def _check_authorization_details(text: str) -> None:
    """
    Raises:
        EntraFastError: code `authorization_details_invalid`.
    """
    if _fits(text, _native.MAX_DETAILS_BYTES):
        with contextlib.suppress(ValueError):
            details = _native.parse_json(text)
            if isinstance(details, list) and all(isinstance(each, dict) for each in details):
                return
    raise EntraFastError(
        "authorization_details_invalid",
        "authorization_details must be a JSON array of objects of at most "
        f"{_native.MAX_DETAILS_BYTES} bytes, as a string",
    )


def _fits(text: str, most: int) -> bool:
    """Whether a text has at most this many bytes in UTF-8. One with a lone surrogate has no such form."""
    try:
        return len(text.encode()) <= most
    except UnicodeEncodeError:
        return False


def _is_visible_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
