"""The side of the sidecar that answers requests, without HTTP: acquire, exchange, introspect, and whether it
is ready.

What belongs here: cached tokens, validation over a source of keys, what the fast path needs, metrics and the
access log. What must never be here: requests and responses (http/), and the provider itself: see
interfaces.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

from entra_fast import _native, _signatures
from entra_fast._metric_kinds import DURATION_BUCKETS, TEXAS_BUCKETS, coarser
from entra_fast._metrics import TEXAS_REQUEST_TYPES, Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.token_client import Acquirer
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CacheSettings, ProviderSettings, ServerSettings
from entra_fast._sweeping import LOOP_PARTS, LoopSweeps
from entra_fast._validation import AsyncValidation, inactive
from entra_fast.errors import KeysUnavailable
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import Provider
from entra_fast.sidecar.logs import AccessLog
from entra_fast.sidecar.otlp import resource_attributes
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.readiness import SHUTTING_DOWN, Readiness, StartUp
from entra_fast.sidecar.rejections import INVALID_REQUEST, Rejections
from entra_fast.sidecar.tracing import Tracing


class FastPath:
    """The state that the fast paths of all connections share.

    Attributes:
        native: answers plain requests from the caches.
        monotonic: returns seconds of a clock that never jumps.
        renew: asked to renew a token in the background: (target, subject token or None).
        open: whether requests may take the fast path. False from the beginning of draining.
        call_when_fetched: see `KeySource.call_when_fetched`.
    """

    __slots__ = ("call_when_fetched", "monotonic", "native", "open", "renew")

    def __init__(
        self,
        native: _native.FastPath,
        *,
        monotonic: Callable[[], float],
        renew: Callable[[str, str | None], None],
    ) -> None:
        self.native = native
        self.monotonic = monotonic
        self.renew = renew
        self.open = True
        self.call_when_fetched: Callable[[Callable[[], None]], bool] = lambda _: False


class Service:
    """Answers requests: `ProviderChanges` and `Observed`. Belongs to one event loop; `start` before use,
    `aclose` after.

    Args:
        settings: of the sidecar.
        provider: acquires tokens, and brings keys.
        cache: the tokens that can be handed out without asking the provider.
        metrics: where requests are counted.
        clocks: where time comes from.
        tracing: makes a span for each request on the slow path.
        worker: the number of this process, where several serve as one.
        fast_path: whether plain requests may take the fast path. The settings can also turn it off.
    """

    def __init__(
        self,
        settings: Settings,
        provider: Provider,
        *,
        cache: _native.TokenCache,
        metrics: Metrics,
        clocks: Clocks,
        tracing: Tracing | None = None,
        worker: int | None = None,
        fast_path: bool = True,
    ) -> None:
        server = settings.server
        self.settings = settings
        self.metrics = metrics
        self.tracing = tracing
        self.access_log = AccessLog(server.access_log and server.log_level in ("debug", "info"), worker)
        self.cache = cache
        self.draining = False
        self.rejections = Rejections(metrics)
        self.start_up = StartUp(clocks.monotonic)
        self.validation: AsyncValidation | None = None
        self.fast_path: FastPath | None = None
        self._provider = provider
        self._clocks = clocks
        self._key_set: KeySet | None = None
        self._sweeps = LoopSweeps(self._sweep, self._sweep_part)
        if settings.provider is not None and provider.tokens is not None and server.fast_path and fast_path:
            self.fast_path = self._make_fast_path(settings.provider, provider.tokens)
        metrics.watch_token_cache(cache.stats)
        metrics.memory_limit.read_from(lambda: settings.caches.memory_limit or 0)
        metrics.insecure_hosts.read_from(lambda: len(settings.outbound.insecure_hosts))
        metrics.fast_path.read_from(lambda: self.fast_path is not None and self.fast_path.open)
        metrics.build_info.read_from(self._build_info)

    def _build_info(self) -> dict[str, str]:
        rind = self.settings.server.signatures == "fast" and _native.signature_figures()["fast"]
        fast_path = self.fast_path is not None and self.fast_path.open
        return {
            "version": _native.__version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "rust": _native.RUST_VERSION,
            "rsa": "rind" if rind else "aws-lc",
            "fast_path": "true" if fast_path else "false",
        }

    async def start(self) -> None:
        """Begin to fetch what is needed, in the background. Does not fail when the provider is
        unavailable."""
        await self._provider.start(self)
        self._sweeps.start()

    async def aclose(self) -> None:
        """Stop everything that runs in the background, and close the connections to the provider."""
        await self._sweeps.aclose()
        await self._provider.aclose()

    @property
    def tokens(self) -> Acquirer | None:
        """Acquires tokens; None if no provider is enabled."""
        return self._provider.tokens

    async def introspect(self, token: str) -> bytes:
        """The body of an introspection response (docs/reference/endpoints.md). Never raises for a token or
        for absent keys."""
        if self.validation is not None:
            body, error = await self.validation.introspect_with_error(token)
            if error is None:
                self.metrics.introspections.add("true")
            else:
                self.rejections.add(error)
            return body
        if self.tokens is None:
            self.rejections.add_code(INVALID_REQUEST)
            return inactive("identity_provider 'entra_id' is not enabled")
        # The sentence that the validator has for the same problem.
        problem = await self._provider.keys_problem()
        unavailable = KeysUnavailable(
            "keys_unavailable", f"keys of the token issuer are not available: {problem}"
        )
        self.rejections.add(unavailable)
        return inactive(unavailable.message)

    async def readiness(self) -> Readiness:
        """See `Observed.readiness`."""
        return SHUTTING_DOWN if self.draining else await self._provider.readiness()

    def has_started(self) -> bool:
        """See `Observed.has_started`."""
        return self.start_up.is_over(has_keys=self._key_set is not None or self.tokens is None)

    async def exposition(self) -> bytes:
        """See `Observed.exposition`."""
        return await self._provider.exposition(self.metrics)

    # --- what changes at the provider ---

    def provider_found(self, issuer: str, keys: KeySource) -> None:
        """See `ProviderChanges.provider_found`."""
        provider = self.settings.provider
        if provider is None or self.validation is not None:
            return
        native = _native.Validator(
            policy_for(issuer, provider, self.settings.server.signatures),
            self._key_set,
            cache_entries=self.settings.caches.verified_entries,
            cache_bytes=self.settings.caches.verified_bytes,
        )
        _signatures.log_distrust()
        clock = None if self._clocks == Clocks() else self._clocks.wall
        self.validation = AsyncValidation(native, keys, clock)
        self.metrics.watch_verification_cache(native.stats)
        if self.fast_path is not None:
            self.fast_path.native.attach(native)
            self.fast_path.call_when_fetched = keys.call_when_fetched

    def keys_changed(self, keys: KeySet | None) -> None:
        """See `ProviderChanges.keys_changed`."""
        self._key_set = keys
        if self.validation is not None:
            self.validation.native.set_keys(keys)

    def cool_downs_changed(self, until: Mapping[Cause, float]) -> None:
        """See `ProviderChanges.cool_downs_changed`."""
        if self.fast_path is not None:
            self.fast_path.native.set_cool_downs(
                unknown_key=until[Cause.UNKNOWN_KEY], failed_signature=until[Cause.FAILED_SIGNATURE]
            )

    def _sweep_part(self) -> None:
        """Remove what has ended from a part of both caches."""
        now = self._clocks.wall()
        self.cache.sweep(monotonic=self._clocks.monotonic(), now=now, parts=LOOP_PARTS)
        if self.validation is not None:
            self.validation.native.sweep(parts=LOOP_PARTS, now=now)

    def _sweep(self) -> None:
        if self.tokens is not None:
            self.tokens.sweep()

    def _make_fast_path(self, provider: ProviderSettings, tokens: Acquirer) -> FastPath:
        # Native code observes in the buckets of all histograms at once.
        bounds = sorted({*DURATION_BUCKETS, *TEXAS_BUCKETS}) if self.metrics.texas else DURATION_BUCKETS
        native = _native.FastPath(
            self.cache,
            _native.CallerCheck(self.settings.server.allowed_hosts),
            provider=provider.name,
            rewrites_targets=provider.kind.rewrites_targets,
            tenant=provider.tenant_id,
            client_id=provider.client_id,
            bounds=bounds,
            access_log=self.access_log.native,
            tracing=self.tracing is not None and self.tracing.propagates,
            clocks=None if self._clocks == Clocks() else (self._clocks.wall, self._clocks.monotonic),
        )
        metrics = self.metrics
        metrics.request_seconds.include(
            lambda: {
                (endpoint,): coarser(observed, bounds, DURATION_BUCKETS)
                for endpoint, observed in native.durations().items()
            }
        )
        metrics.requests.include(
            lambda: {
                (endpoint, "200"): sum(counts)
                for endpoint, (counts, _) in native.durations().items()
                if any(counts)
            }
        )
        if metrics.texas:
            _include_texas(metrics, native, bounds, provider.kind.name)
        self.rejections.include(native)
        return FastPath(native, monotonic=self._clocks.monotonic, renew=tokens.renew)


def _include_texas(
    metrics: Metrics, native: _native.FastPath, bounds: Sequence[float], provider: str
) -> None:
    """Register what native code has counted under the names of Texas."""

    def answered() -> dict[str, int]:
        return {endpoint: sum(counts) for endpoint, (counts, _) in native.durations().items() if any(counts)}

    metrics.texas_response_seconds.include(
        lambda: {
            ("200", _native.ENDPOINT_PATHS[endpoint]): coarser(observed, bounds, TEXAS_BUCKETS)
            for endpoint, observed in native.durations().items()
        }
    )
    metrics.texas_requests.include(
        lambda: {
            (_native.ENDPOINT_PATHS[endpoint], provider, TEXAS_REQUEST_TYPES[endpoint]): count
            for endpoint, count in answered().items()
        }
    )
    metrics.texas_cache_hits.include(
        lambda: {
            (_native.ENDPOINT_PATHS[endpoint], provider): count
            for endpoint, count in answered().items()
            if endpoint != "introspect"  # every other answer of the fast path is a cached token
        }
    )


def new_metrics(server: ServerSettings) -> Metrics:
    """Metrics that have counted nothing, with those under Texas's names if they are wanted."""
    return Metrics(texas=resource_attributes() if server.texas_metrics else None)


def new_token_cache(caches: CacheSettings) -> _native.TokenCache:
    """An empty cache for tokens, with the limits of the settings."""
    return _native.TokenCache(max_entries=caches.max_entries, max_bytes=caches.max_bytes)
