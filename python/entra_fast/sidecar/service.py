"""What the sidecar can do, without HTTP: acquire, exchange, introspect, and say whether it is ready.

What belongs here: putting the parts together for one application at one provider, and their life from start
to end. What must never be here: requests and answers (app.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from entra_fast import _native
from entra_fast._metrics import DURATION_BUCKETS, Metrics
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.token_client import Acquirer, TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing, TokenCache
from entra_fast._settings.load import OutboundSettings, ProviderSettings, Settings
from entra_fast.sidecar import tracing
from entra_fast.sidecar.http.fast_path import Lane, missing_parts
from entra_fast.sidecar.logs import AccessLog, logger
from entra_fast.sidecar.status_log import LOOKS_EVERY, Story
from entra_fast.validate import AsyncValidator

if TYPE_CHECKING:
    from entra_fast._provider.redis_cache import SharedCache


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from: `wall` gives seconds since the epoch, `monotonic` never jumps."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class Service:
    """The application at its provider. Belongs to one event loop; `start` before use, `aclose` after.

    This is the whole in one process. With several, `hub.HubService` is the half that speaks to the provider,
    and `worker.WorkerService` the half that answers requests.
    """

    def __init__(
        self, settings: Settings, *, clocks: Clocks | None = None, worker: int | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        server = settings.server
        wanted = server.access_log and server.log_level in ("debug", "info")
        self.access_log = AccessLog(wanted, worker)
        self.cache = _native.TokenCache(
            max_entries=settings.caches.max_entries, max_bytes=settings.caches.max_bytes
        )
        self.acquirer: Acquirer | None = None
        self.validator: AsyncValidator | None = None
        self.draining = False
        self.tracing = tracing.begin()
        self._clocks = clocks or Clocks()
        self._finder: EndpointFinder | None = None
        self._credentials: Credentials | None = None
        self._validator_started: asyncio.Task[None] | None = None
        self._token_http: HttpClient | None = None
        self._key_http: HttpClient | None = None
        self._shared_cache: SharedCache | None = None
        self._telling: asyncio.Task[None] | None = None
        if settings.provider is not None:
            self.acquirer = self._make_acquirer(settings.provider)
        self.lane = self._make_lane()
        self._watch()

    async def start(self) -> None:
        """Begin to fetch what is needed, in the background. Does not fail when the provider is down."""
        if self._finder is None:
            logger.warning("no provider is enabled: set AZURE_APP_CLIENT_ID, or AZURE_ENABLED=true")
            return
        self._telling = asyncio.get_running_loop().create_task(self._tell())
        if self._shared_cache is not None:
            self._shared_cache.start()
        if self._finder.endpoints is not None:
            await self._begin_validation(self._finder.endpoints)
        else:
            self._finder.start(self._found)

    async def aclose(self) -> None:
        """Stop all that runs in the background and close the connections to the provider."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._finder is not None:
            await self._finder.aclose()
        if self._validator_started is not None:
            self._validator_started.cancel()
            await asyncio.gather(self._validator_started, return_exceptions=True)
        if self.acquirer is not None:
            await self.acquirer.aclose()
        if self._shared_cache is not None:
            await self._shared_cache.aclose()
        if self.validator is not None:
            await self.validator.aclose()
        for http in (self._token_http, self._key_http):
            if http is not None:
                await http.aclose()

    @property
    def enabled(self) -> bool:
        """Whether the provider is."""
        return self.acquirer is not None

    async def introspect(self, token: str) -> bytes:
        """The body of an introspection answer (contract.md). Never raises for a token or for absent keys."""
        if self.validator is not None:
            body = await self.validator.introspect(token)
        elif not self.enabled:
            body = inactive("identity_provider 'entra_id' is not enabled")
        else:
            # The sentence that the validator has for the same trouble.
            body = inactive(f"keys of the token issuer are not available: {await self._undiscovered()}")
        self.metrics.introspections.add("true" if body.startswith(b'{"active":true') else "false")
        return body

    def not_ready_reason(self) -> str | None:
        """Why the sidecar cannot do all of its work now, or None."""
        if self.draining:
            return "shutting down"
        if self._finder is None or self._credentials is None:
            return None
        if self._finder.endpoints is None:
            return self._finder.problem
        return self._keys_problem() or self._credentials.problem()

    async def readiness(self) -> str | None:
        """`not_ready_reason` of the whole, which another process may know."""
        return self.not_ready_reason()

    async def exposition(self) -> bytes:
        """The metrics of the whole, as Prometheus reads them."""
        return self.metrics.render()

    def _keys_problem(self) -> str | None:
        """Why no token can be judged, once the endpoints are known; or None."""
        return "validation has not started yet" if self.validator is None else self.validator.not_ready_reason

    async def _tell(self) -> None:
        story = Story(self.metrics, self.not_ready_reason, self._clocks.monotonic)
        while True:
            await asyncio.sleep(LOOKS_EVERY)
            if not self.draining:  # which has its own lines
                story.look()

    async def _undiscovered(self) -> str | None:
        """Why the provider's endpoints are not known."""
        return None if self._finder is None else self._finder.problem

    def _make_acquirer(self, provider: ProviderSettings) -> Acquirer:
        outbound = self.settings.outbound
        self._token_http = self._make_http(outbound)
        # With connections of its own: where requests for tokens hang, keys must not wait behind them.
        self._key_http = self._make_http(outbound)
        self._finder = EndpointFinder(
            provider, self._key_http, self.metrics, monotonic=self._clocks.monotonic
        )
        self._credentials = Credentials(
            provider.credentials, provider.client_id, monotonic=self._clocks.monotonic
        )
        self._shared_cache = self._make_shared_cache()
        timing = Timing(self._clocks.wall, self._clocks.monotonic)
        endpoint = TokenEndpoint(
            provider,
            finder=self._finder,
            http=self._token_http,
            credentials=self._credentials,
            metrics=self.metrics,
            timing=timing,
        )
        return TokenClient(
            endpoint,
            self._token_cache(),
            outbound,
            metrics=self.metrics,
            replicas=self._shared_cache,
            timing=timing,
        )

    def _make_http(self, outbound: OutboundSettings) -> HttpClient:
        traces = () if self.tracing is None else (self.tracing.client_trace(),)
        return HttpClient.from_settings(outbound, trace_configs=traces)

    def _make_shared_cache(self) -> SharedCache | None:
        """The cache that replicas share, where there is one."""
        if self.settings.shared_cache is None:
            return None
        from entra_fast._provider.redis_cache import SharedCache  # noqa: PLC0415 - needs the [redis] extra

        shared_cache = SharedCache(
            self.settings.shared_cache,
            ca_bundle=self.settings.outbound.ca_bundle,
            metrics=self.metrics,
            clock=self._clocks.wall,
            monotonic=self._clocks.monotonic,
        )
        self.metrics.shared_available.read = lambda: shared_cache.available
        return shared_cache

    def _token_cache(self) -> TokenCache:
        """Where the acquirer keeps tokens."""
        return self.cache

    def _found(self, endpoints: Endpoints) -> None:
        self._validator_started = asyncio.get_running_loop().create_task(self._begin_validation(endpoints))

    async def _begin_validation(self, endpoints: Endpoints) -> None:
        provider = self.settings.provider
        if provider is None:
            return
        validator = AsyncValidator(
            issuer=endpoints.issuer,
            audience=provider.client_id,
            jwks_uri=endpoints.jwks_uri,
            required_claims=("iat",),
            cache_entries=self.settings.caches.verified_entries,
            http=self._key_http,
            clock=self._clocks.wall,
        )
        await validator.start()
        self.metrics.watch_keys(validator.stats, lambda: validator.fetch_outcomes)
        self._judge_by(validator)

    def _judge_by(self, validator: AsyncValidator) -> None:
        """Introspect with this validator from now on, on the fast lane too."""
        self.validator = validator
        self.metrics.verified_cache.watch(validator.stats, prefix="cache_")
        if self.lane is not None:
            self.lane.native.attach(validator.verifier)
            self.lane.call_when_fetched = validator.call_when_fetched
            validator.watch_cool_down(self.lane.native.refuse_unknown_keys_until)

    def _make_lane(self) -> Lane | None:
        """The fast lane, unless it is turned off, has nothing to answer, or does not fit this aiohttp."""
        provider, server = self.settings.provider, self.settings.server
        if provider is None or self.acquirer is None or not server.fast_lane:
            return None
        if missing := missing_parts():
            logger.warning("serving without the fast lane", extra={"fields": {"aiohttp_lacks": missing}})
            return None
        native = _native.FastPath(
            self.cache,
            _native.CallerCheck(server.allowed_hosts),
            tenant=provider.tenant_id,
            client_id=provider.client_id,
            bounds=DURATION_BUCKETS,
            access_log=self.access_log.native,
            tracing=self.tracing is not None,
            clocks=None if self._clocks == Clocks() else (self._clocks.wall, self._clocks.monotonic),
        )
        metrics = self.metrics
        metrics.request_seconds.include(native.durations)
        metrics.requests.include(
            lambda: {
                (endpoint, "200"): sum(counts)
                for endpoint, (counts, _) in native.durations().items()
                if any(counts)
            }
        )
        metrics.introspections.include(
            lambda: dict(zip([("true",), ("false",)], map(float, native.introspections()), strict=True))
        )
        return Lane(
            native,
            monotonic=self._clocks.monotonic,
            renew=self.acquirer.renew,
        )

    def _watch(self) -> None:
        metrics = self.metrics
        metrics.token_cache.watch(self.cache.stats)
        metrics.fast_lane.read = lambda: self.lane is not None and self.lane.open
        metrics.ready.read = lambda: self.not_ready_reason() is None
        metrics.credential_rejected.read = lambda: (
            self._credentials is not None and self._credentials.rejection is not None
        )
        metrics.flights.read = lambda: self.acquirer.in_flight if self.acquirer is not None else 0


def inactive(reason: str) -> bytes:
    """The body of an introspection answer for what is not a valid token."""
    return orjson.dumps({"active": False, "error": reason})
