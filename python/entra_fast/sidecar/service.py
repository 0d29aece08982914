"""The side of the sidecar that answers requests, without HTTP: acquire, exchange, introspect, and whether it
is ready.

What belongs here: cached tokens, validation over a source of keys for each provider, what the fast path
needs, metrics and the access log. What must never be here: requests and responses (http/), and the providers
themselves: see interfaces.py.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

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
from entra_fast.sidecar.interfaces import Providers
from entra_fast.sidecar.logs import AccessLog
from entra_fast.sidecar.otlp import resource_attributes
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.providers import contract_of
from entra_fast.sidecar.readiness import SHUTTING_DOWN, Readiness, StartUp
from entra_fast.sidecar.rejections import Rejections
from entra_fast.sidecar.tracing import Tracing


@dataclass(slots=True, eq=False)
class ServedProvider:
    """What a sidecar has for one provider.

    Attributes:
        position: among the enabled ones, as the native modules name it.
        settings: of the provider.
        tokens: acquires tokens; None where the provider issues none.
        keys: the source of its keys, once its issuer is known.
        key_set: the current one.
        validation: verifies its tokens, once its issuer is known. No other provider has the same.
    """

    position: int
    settings: ProviderSettings
    tokens: Acquirer | None
    keys: KeySource | None = None
    key_set: KeySet | None = None
    validation: AsyncValidation | None = None


class FastPath:
    """The state that the fast paths of all connections share.

    Attributes:
        native: answers plain requests from the caches.
        monotonic: returns seconds of a clock that never jumps.
        open: whether requests may take the fast path. False from the beginning of draining.
    """

    __slots__ = ("_providers", "monotonic", "native", "open")

    def __init__(
        self,
        native: _native.FastPath,
        providers: Sequence[ServedProvider],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._providers = providers
        self.native = native
        self.monotonic = monotonic
        self.open = True

    def renew(
        self,
        position: int,
        target: str,
        subject_token: str | None,
        resources: Sequence[str],
        authorization_details: str | None,
    ) -> None:
        """Renew a token of a provider in the background."""
        tokens = self._providers[position].tokens
        if tokens is not None:  # pragma: no branch - it was in the cache
            tokens.renew(
                target, subject_token, resources=resources, authorization_details=authorization_details
            )

    def call_when_fetched(self, position: int, resume: Callable[[], None]) -> bool:
        """See `KeySource.call_when_fetched`."""
        keys = self._providers[position].keys
        return keys is not None and keys.call_when_fetched(resume)


class Service:
    """Answers requests: `ProviderChanges` and `Observed`. Belongs to one event loop; `start` before use,
    `aclose` after.

    Args:
        settings: of the sidecar.
        providers: acquire tokens, and bring keys.
        cache: the tokens that can be handed out without asking a provider.
        metrics: where requests are counted.
        clocks: where time comes from.
        tracing: makes the spans of requests.
        worker: the number of this process, where several serve as one.
        fast_path: whether plain requests may take the fast path. The settings can also turn it off.

    Attributes:
        contract: the enabled providers, by position, for reading requests.
        served: what there is for each of them, in the same order.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Providers,
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
        self.contract = contract_of(settings.providers)
        self.served = tuple(
            ServedProvider(position, provider, providers.tokens.get(provider.name))
            for position, provider in enumerate(settings.providers)
        )
        self._by_name = {served.settings.name: served for served in self.served}
        self.fast_path: FastPath | None = None
        self._providers = providers
        self._clocks = clocks
        self._sweeps = LoopSweeps(self._sweep, self._sweep_part)
        if settings.providers and server.fast_path and fast_path:
            self.fast_path = self._make_fast_path()
        metrics.watch_verification_cache(self._verification_stats)
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
        """Begin to fetch what is needed, in the background. Does not fail when a provider is unavailable."""
        await self._providers.start(self)
        self._sweeps.start()

    async def aclose(self) -> None:
        """Stop everything that runs in the background, and close the connections to the providers."""
        await self._sweeps.aclose()
        await self._providers.aclose()

    async def introspect(self, position: int, token: str) -> bytes:
        """The body of an introspection response (docs/reference/endpoints.md). Never raises for a token or
        for absent keys.

        Args:
            position: of the provider.
            token: to verify.
        """
        served = self.served[position]
        if served.validation is not None:
            body, error = await served.validation.introspect_with_error(token)
            if error is None:
                self.metrics.introspections.add("true", served.settings.name)
            else:
                self.rejections.add(error, served.settings.name)
            return body
        # The sentence that the validator has for the same problem.
        problem = await self._providers.keys_problem(served.settings.name)
        unavailable = KeysUnavailable(
            "keys_unavailable", f"keys of the token issuer are not available: {problem}"
        )
        self.rejections.add(unavailable, served.settings.name)
        return inactive(unavailable.message)

    async def readiness(self) -> Readiness:
        """See `Observed.readiness`."""
        return SHUTTING_DOWN if self.draining else await self._providers.readiness()

    def has_started(self) -> bool:
        """See `Observed.has_started`."""
        return self.start_up.is_over(has_keys=all(served.key_set is not None for served in self.served))

    async def exposition(self) -> bytes:
        """See `Observed.exposition`."""
        return await self._providers.exposition(self.metrics)

    # --- what changes at the providers ---

    def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
        """See `ProviderChanges.provider_found`."""
        served = self._by_name[provider]
        if served.validation is not None:
            return
        caches, count = self.settings.caches, len(self.served)
        native = _native.Validator(
            policy_for(issuer, served.settings, self.settings.server.signatures),
            served.key_set,
            # A verification cache belongs to one provider. Together they stay within the settings, but each
            # holds a token, also where there are more providers.
            cache_entries=max(1, caches.verified_entries // count),
            cache_bytes=caches.verified_bytes // count,
        )
        _signatures.log_distrust()
        clock = None if self._clocks == Clocks() else self._clocks.wall
        served.keys = keys
        served.validation = AsyncValidation(native, keys, clock)
        if self.fast_path is not None:
            self.fast_path.native.attach(served.position, native)

    def keys_changed(self, provider: str, keys: KeySet | None) -> None:
        """See `ProviderChanges.keys_changed`."""
        served = self._by_name[provider]
        served.key_set = keys
        if served.validation is not None:
            served.validation.native.set_keys(keys)

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        """See `ProviderChanges.cool_downs_changed`."""
        if self.fast_path is not None:
            self.fast_path.native.set_cool_downs(
                self._by_name[provider].position,
                unknown_key=until[Cause.UNKNOWN_KEY],
                failed_signature=until[Cause.FAILED_SIGNATURE],
            )

    def _sweep_part(self) -> None:
        """Remove what has ended from a part of each cache."""
        now = self._clocks.wall()
        self.cache.sweep(monotonic=self._clocks.monotonic(), now=now, parts=LOOP_PARTS)
        for served in self.served:
            if served.validation is not None:
                served.validation.native.sweep(parts=LOOP_PARTS, now=now)

    def _sweep(self) -> None:
        for tokens in self._providers.tokens.values():
            tokens.sweep()

    def _verification_stats(self) -> Mapping[str, int]:
        """Those of all verification caches together."""
        total: Counter[str] = Counter()
        for served in self.served:
            if served.validation is not None:
                total.update(served.validation.native.stats())
        return total

    def _make_fast_path(self) -> FastPath:
        # Native code observes in the buckets of all histograms at once.
        bounds = sorted({*DURATION_BUCKETS, *TEXAS_BUCKETS}) if self.metrics.texas else DURATION_BUCKETS
        native = _native.FastPath(
            self.cache,
            _native.CallerCheck(self.settings.server.allowed_hosts),
            self.contract,
            bounds=bounds,
            access_log=self.access_log.native,
            clocks=None if self._clocks == Clocks() else (self._clocks.wall, self._clocks.monotonic),
        )
        metrics = self.metrics
        metrics.request_seconds.include(
            lambda: {
                (endpoint,): coarser(observed, bounds, DURATION_BUCKETS)
                for endpoint, observed in native.durations().items()
            }
        )
        names = [served.settings.name for served in self.served]
        answered = functools.partial(_answered, native, names)
        metrics.requests.include(
            lambda: {(endpoint, "200", provider): count for endpoint, provider, count in answered()}
        )
        metrics.tokens_from_cache.include(
            lambda: {
                (endpoint, provider): count
                for endpoint, provider, count in answered()
                if endpoint != "introspect"  # every other answer of the fast path is a cached token
            }
        )
        if metrics.texas:
            _include_texas(metrics, native, bounds, answered)
        self.rejections.include(native, names)
        if self.tracing is not None:
            self.tracing.include(native, names)
            metrics.spans_dropped.read_from(self.tracing.dropped)
        return FastPath(native, self.served, monotonic=self._clocks.monotonic)


def _answered(native: _native.FastPath, providers: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Endpoint, provider, and how many such requests native code has answered.

    Args:
        providers: the names of the enabled ones, by position.
    """
    for position, provider in enumerate(providers):
        for endpoint, count in native.answered(position).items():
            if count:
                yield endpoint, provider, count


def _include_texas(
    metrics: Metrics,
    native: _native.FastPath,
    bounds: Sequence[float],
    answered: Callable[[], Iterable[tuple[str, str, int]]],
) -> None:
    """Register what native code has counted under the names of Texas.

    Args:
        bounds: those of the buckets in which it observes.
        answered: see `_answered`.
    """

    metrics.texas_response_seconds.include(
        lambda: {
            ("200", _native.ENDPOINT_PATHS[endpoint]): coarser(observed, bounds, TEXAS_BUCKETS)
            for endpoint, observed in native.durations().items()
        }
    )
    metrics.texas_requests.include(
        lambda: {
            (_native.ENDPOINT_PATHS[endpoint], provider, TEXAS_REQUEST_TYPES[endpoint]): count
            for endpoint, provider, count in answered()
        }
    )
    metrics.texas_cache_hits.include(
        lambda: {
            (_native.ENDPOINT_PATHS[endpoint], provider): count
            for endpoint, provider, count in answered()
            if endpoint != "introspect"
        }
    )


def new_metrics(server: ServerSettings) -> Metrics:
    """Metrics that have counted nothing, with those under Texas's names if they are wanted."""
    return Metrics(texas=resource_attributes() if server.texas_metrics else None)


def new_token_cache(caches: CacheSettings) -> _native.TokenCache:
    """An empty cache for tokens, with the limits of the settings."""
    return _native.TokenCache(max_entries=caches.max_entries, max_bytes=caches.max_bytes)
