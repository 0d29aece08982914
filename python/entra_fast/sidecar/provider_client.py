"""The client of one provider.

What belongs here: assembling the endpoints, the credential, the token client and the keys of one application
at one provider, and starting and stopping them. What must never be here: other providers
(provider_clients.py), requests of clients and responses to them (service.py), and several processes
(process/).
"""

from __future__ import annotations

import functools
import math

from entra_fast._metrics import Metrics
from entra_fast._provider.clock_skew import ClockSkew
from entra_fast._provider.credential_try import CredentialTry
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.jwks import AsyncKeys
from entra_fast._provider.jwks_schedule import RefreshRules
from entra_fast._provider.replication import Replicas
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing, TokenCache
from entra_fast._provider.waiting import Waiting
from entra_fast._settings.load import Settings
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.errors import EntraFastError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import ProviderChanges
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.readiness import Part, ProviderReadiness
from entra_fast.sidecar.tracing import Tracing


class ProviderClient:
    """Speaks to a provider for one application. Belongs to one event loop.

    Args:
        settings: of the sidecar.
        provider: the part of them that describes the provider.
        cache: where acquired tokens are kept.
        metrics: where requests to the provider are counted.
        clocks: where time comes from.
        replicas: the tokens of other replicas, where they share a cache.
        tracing: makes a span for each request to the provider.
        waiting: counts the callers that wait for tokens of any provider.

    Attributes:
        tokens: acquires tokens; None where the provider issues none.
        keys: its key set, once its endpoints are known.
    """

    def __init__(
        self,
        settings: Settings,
        provider: ProviderSettings,
        *,
        cache: TokenCache,
        metrics: Metrics,
        clocks: Clocks,
        replicas: Replicas | None = None,
        tracing: Tracing | None = None,
        waiting: Waiting | None = None,
    ) -> None:
        self._provider = provider
        self._clocks = clocks
        self._clock_skew = ClockSkew(clocks.wall)
        self._token_http = _http_client(settings.outbound, tracing, provider.kind.name, self._clock_skew)
        # A separate pool of connections: if requests for tokens hang, requests for keys must not wait.
        self._key_http = _http_client(settings.outbound, tracing, provider.kind.name, self._clock_skew)
        self._finder = EndpointFinder(provider, self._key_http, metrics, monotonic=clocks.monotonic)
        self._credentials = Credentials(
            provider.credentials, provider.client_id, monotonic=clocks.monotonic, rejection_memory=math.inf
        )
        timing = Timing(clocks.wall, clocks.monotonic)
        endpoint = TokenEndpoint(
            provider,
            finder=self._finder,
            http=self._token_http,
            credentials=self._credentials,
            metrics=metrics,
            timing=timing,
        )
        self.tokens: TokenClient | None = None
        if provider.kind.has_credential:
            self.tokens = TokenClient(
                endpoint,
                cache,
                settings.outbound,
                metrics=metrics,
                replicas=replicas,
                timing=timing,
                waiting=waiting,
            )
        self._credential_try = CredentialTry(
            provider.kind, endpoint, self._credentials, settings.outbound.overall_timeout, timing
        )
        self._is_tried = provider.tried_scope is not None
        self._live = settings.server.readiness == "live"
        self.keys: AsyncKeys | None = None
        self._changes: ProviderChanges | None = None
        self._unusable: str | None = None
        self._watch(metrics, provider.name)

    def _watch(self, metrics: Metrics, name: str) -> None:
        metrics.clock_skew.read_from(lambda: self._clock_skew.seconds, name)
        metrics.watch_keys(
            name,
            lambda: {} if self.keys is None else self.keys.stats(),
            lambda: {} if self.keys is None else self.keys.outcomes,
        )
        tokens = self.tokens
        if tokens is not None:
            metrics.credential_rejected.read_from(lambda: self._credentials.rejection is not None, name)
            metrics.flights.read_from(lambda: tokens.in_flight, name)
            metrics.stale_served.add(name, amount=0)  # alerts compare it with an earlier figure

    async def start(self, changes: ProviderChanges) -> None:
        """Begin to fetch in the background. Does not fail when the provider is unavailable."""
        self._changes = changes
        if self._finder.endpoints is not None:
            self._begin(self._finder.endpoints)
        else:
            self._finder.start(self._begin)

    async def aclose(self) -> None:
        """Stop everything that runs in the background, and close the connections to the provider."""
        await self._finder.aclose()
        await self._credential_try.aclose()
        if self.tokens is not None:
            await self.tokens.aclose()
        if self.keys is not None:
            await self.keys.aclose()
        for http in (self._token_http, self._key_http):
            await http.aclose()

    def readiness(self) -> ProviderReadiness:
        """What works now."""
        problem = self.no_keys_reason()
        keys = Part("available" if problem is None else "missing", problem)
        credential = self._credential()
        fetched = self.keys is not None and self.keys.schedule.fetched_at is not None
        ready = fetched and (not self._is_tried or self._credentials.have_been_accepted)
        if self._live:
            ready = ready and keys.reason is None and (credential is None or not credential.is_broken)
        skew = round(self._clock_skew.seconds, 1)
        return ProviderReadiness(self._provider.name, ready, keys, credential, skew)

    def _credential(self) -> Part | None:
        if self.tokens is None:
            return None
        status, reason = self._credentials.state()
        if status == "rejected":
            reason = f"credential rejected ({self._credentials.rejection})"
        elif status == "unknown" and not self._is_tried:
            reason = None  # the first request of a caller judges it: nothing is wrong until then
        return Part(status, reason)

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

    def _begin(self, endpoints: Endpoints) -> None:
        self._begin_with_keys(endpoints)
        self._credential_try.start()  # after the request for the keys, which must not wait for it

    def _begin_with_keys(self, endpoints: Endpoints) -> None:
        assert self._changes is not None  # noqa: S101 - `start` has set it
        changes, name = self._changes, self._provider.name
        try:
            policy_for(endpoints.issuer, self._provider)
        except EntraFastError as error:
            # Without this, the reason would be lost in the task that found the endpoints.
            self._unusable = f"tokens of this issuer cannot be verified: {error.message}"
            logger.error(
                "introspection is not possible",
                extra={"fields": {"provider": name, "reason": self._unusable}},
            )
            return
        self.keys = keys = AsyncKeys(
            endpoints.jwks_uri,
            self._key_http,
            functools.partial(changes.keys_changed, name),
            rules=RefreshRules(cool_down=self._provider.kind.cool_down),
            monotonic=self._clocks.monotonic,
        )
        changes.provider_found(name, endpoints.issuer, keys)
        keys.on_cool_down_change(functools.partial(changes.cool_downs_changed, name))
        keys.start()


def _http_client(
    outbound: OutboundSettings, tracing: Tracing | None, identity_provider: str, skew: ClockSkew
) -> HttpClient:
    traces = () if tracing is None else (tracing.client_trace(identity_provider),)
    return HttpClient.from_settings(outbound, trace_configs=traces, answered=skew.observe)
