"""The side of the sidecar that talks to the provider.

What belongs here: assembling the endpoints, the credential, the token client, the keys and the shared cache
of one application at one provider, and starting and stopping them. What must never be here: requests of
clients and responses to them (service.py), and several processes (process/).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from entra_fast._metrics import Metrics
from entra_fast._provider.clock_skew import ClockSkew
from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.jwks import AsyncKeys
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing, TokenCache
from entra_fast._settings.load import Settings
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.errors import EntraFastError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import ProviderChanges
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.readiness import Part, ProviderReadiness, Readiness
from entra_fast.sidecar.tracing import Tracing

if TYPE_CHECKING:
    from entra_fast._provider.redis_cache import SharedCache


class ProviderClient:
    """Speaks to the provider for one application: a `Provider`. Belongs to one event loop.

    Args:
        settings: of the sidecar.
        provider: the part of them that names the provider.
        cache: where acquired tokens are kept.
        metrics: where requests to the provider are counted.
        clocks: where time comes from.
        tracing: makes a span for each request to the provider.
    """

    def __init__(
        self,
        settings: Settings,
        provider: ProviderSettings,
        *,
        cache: TokenCache,
        metrics: Metrics,
        clocks: Clocks,
        tracing: Tracing | None = None,
    ) -> None:
        self._provider = provider
        self._metrics = metrics
        self._clocks = clocks
        self._clock_skew = ClockSkew(clocks.wall)
        self._token_http = _http_client(settings.outbound, tracing, provider.kind.name, self._clock_skew)
        # A separate pool of connections: if requests for tokens hang, requests for keys must not wait.
        self._key_http = _http_client(settings.outbound, tracing, provider.kind.name, self._clock_skew)
        self._finder = EndpointFinder(provider, self._key_http, metrics, monotonic=clocks.monotonic)
        self._credentials = Credentials(
            provider.credentials, provider.client_id, monotonic=clocks.monotonic, rejection_memory=math.inf
        )
        self._shared_cache = _shared_cache(settings, metrics, clocks)
        timing = Timing(clocks.wall, clocks.monotonic)
        endpoint = TokenEndpoint(
            provider,
            finder=self._finder,
            http=self._token_http,
            credentials=self._credentials,
            metrics=metrics,
            timing=timing,
        )
        self.tokens = TokenClient(
            endpoint, cache, settings.outbound, metrics=metrics, replicas=self._shared_cache, timing=timing
        )
        self._credential_try = CredentialTry(
            provider.kind, endpoint, self._credentials, settings.outbound.overall_timeout, timing
        )
        self._live = settings.server.readiness == "live"
        self.keys: AsyncKeys | None = None
        self._changes: ProviderChanges | None = None
        self._unusable: str | None = None
        metrics.credential_rejected.read_from(lambda: self._credentials.rejection is not None)
        metrics.flights.read_from(lambda: self.tokens.in_flight)
        metrics.clock_skew.read_from(lambda: self._clock_skew.seconds)

    async def start(self, changes: ProviderChanges) -> None:
        """See `Provider.start`."""
        self._changes = changes
        if self._shared_cache is not None:
            self._shared_cache.start()
        if self._finder.endpoints is not None:
            self._begin(self._finder.endpoints)
        else:
            self._finder.start(self._begin)

    async def aclose(self) -> None:
        """See `Provider.aclose`."""
        await self._finder.aclose()
        await self._credential_try.aclose()
        await self.tokens.aclose()
        if self._shared_cache is not None:
            await self._shared_cache.aclose()
        if self.keys is not None:
            await self.keys.aclose()
        for http in (self._token_http, self._key_http):
            await http.aclose()

    async def readiness(self) -> Readiness:
        """See `Provider.readiness`."""
        return self.readiness_now()

    def readiness_now(self) -> Readiness:
        """Like `readiness`."""
        problem = self.no_keys_reason()
        keys = Part("available" if problem is None else "missing", problem)
        credential = Part(*self._credentials.state())
        fetched = self.keys is not None and self.keys.schedule.fetched_at is not None
        ready = fetched and self._credentials.have_been_accepted
        if self._live:
            ready = ready and keys.reason is None and credential.status not in ("rejected", "unreadable")
        skew = round(self._clock_skew.seconds, 1)
        return Readiness.of(ProviderReadiness(self._provider.name, ready, keys, credential, skew))

    @property
    def has_keys(self) -> bool:
        """Whether tokens can be verified now."""
        return self.no_keys_reason() is None

    def no_keys_reason(self) -> str | None:
        """Why no token can be verified now, or None."""
        if self._unusable is not None:
            return self._unusable
        if self.keys is None:
            return self._finder.problem or "validation has not started yet"
        return self.keys.unavailable().message if self.keys.keys is None else None

    async def keys_problem(self) -> str | None:
        """See `Provider.keys_problem`."""
        return self.no_keys_reason()

    async def exposition(self, own: Metrics) -> bytes:
        """Like `Provider.exposition`: one process is the whole."""
        return await own.exposition()

    def _begin(self, endpoints: Endpoints) -> None:
        self._begin_with_keys(endpoints)
        self._credential_try.start()  # after the request for the keys, which must not wait for it

    def _begin_with_keys(self, endpoints: Endpoints) -> None:
        assert self._changes is not None  # noqa: S101 - `start` has set it
        try:
            policy_for(endpoints.issuer, self._provider)
        except EntraFastError as error:
            # Without this, the reason would be lost in the task that found the endpoints.
            self._unusable = f"tokens of this issuer cannot be verified: {error.message}"
            logger.error("introspection is not possible", extra={"fields": {"reason": self._unusable}})
            return
        self.keys = keys = AsyncKeys(
            endpoints.jwks_uri, self._key_http, self._changes.keys_changed, monotonic=self._clocks.monotonic
        )
        self._metrics.watch_keys(keys.stats, lambda: keys.outcomes)
        self._changes.provider_found(endpoints.issuer, keys)
        keys.on_cool_down_change(self._changes.cool_downs_changed)
        keys.start()


class NoProvider:
    """The `Provider` if none is enabled."""

    tokens = None
    keys = None
    has_keys = True  # of every provider

    async def start(self, _: ProviderChanges) -> None:
        """Say that there is none."""
        logger.warning("no provider is enabled: AZURE_ENABLED is false")

    async def aclose(self) -> None:
        """Nothing runs in the background."""

    async def readiness(self) -> Readiness:
        """There is nothing to wait for."""
        return self.readiness_now()

    def readiness_now(self) -> Readiness:
        """There is nothing to wait for."""
        return Readiness.of()

    def no_keys_reason(self) -> str | None:
        """There are no keys to fetch."""
        return None

    async def keys_problem(self) -> str | None:
        """There are no keys to fetch."""
        return None

    async def exposition(self, own: Metrics) -> bytes:
        """Like `Provider.exposition`: one process is the whole."""
        return await own.exposition()


def _http_client(
    outbound: OutboundSettings, tracing: Tracing | None, identity_provider: str, skew: ClockSkew
) -> HttpClient:
    traces = () if tracing is None else (tracing.client_trace(identity_provider),)
    return HttpClient.from_settings(outbound, trace_configs=traces, answered=skew.observe)


def _shared_cache(settings: Settings, metrics: Metrics, clocks: Clocks) -> SharedCache | None:
    """The cache that replicas share, if one is configured."""
    if settings.shared_cache is None:
        return None
    from entra_fast._provider.redis_cache import SharedCache  # noqa: PLC0415 - needs the [redis] extra

    shared_cache = SharedCache(
        settings.shared_cache,
        ca_bundle=settings.outbound.ca_bundle,
        metrics=metrics,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
    )
    metrics.shared_available.read_from(lambda: shared_cache.available)
    return shared_cache
