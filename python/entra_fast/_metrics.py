"""The metrics of a sidecar.

What belongs here: one row for each metric (docs/reference/metrics.md is checked against the rows of
`Metrics`), and the collector that hands them to prometheus-client, which writes the text format. What must
never be here: how they are counted and merged (_metric_kinds.py), and values from a request as labels. Each
label has a closed set of values, or a limit after which new values count as `other`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    import prometheus_client.metrics_core as families

from entra_fast import _native, _signatures, metrics
from entra_fast._metric_kinds import (
    OTHER,
    TEXAS_BUCKETS,
    Counter,
    Figures,
    Histogram,
    Info,
    Label,
    Merged,
    Metric,
    Reading,
    constants,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the exposition."""

SHARED_OPERATIONS = ("get", "put", "lock", "lead", "ping")
SHARED_FAILURES = ("timed_out", "connect_failed", "tls_failed", "auth_failed", "malformed")
"""The ways in which Redis fails. Several failures in a row pause the shared cache."""
SHARED_OUTCOMES = ("ok", "hit", "miss", "rejected", "taken", "refused", "paused", "busy", *SHARED_FAILURES)
SHARED_REJECTIONS = ("type", "size", "version", "decryption", "content", "clock", "expiry")

ENDPOINTS = ("token", "exchange", "introspect", OTHER)
NO_PROVIDER = "none"
"""The identity provider of a request that was refused before one was known."""
_PROVIDER = Label("identity_provider", limit=64)
_PATH = Label("path", tuple(_native.ENDPOINT_PATHS.values()))
TEXAS_REQUEST_TYPES = {
    "token": "token",
    "exchange": "token_exchange",
    "introspect": "token_introspection",
}
TEXAS_ERROR_KINDS = (
    "UpstreamRequest",
    "Upstream",
    "Json",
    "Sign",
    "UnprocessableContent",
    "TokenExchangeUnsupported",
    "TokenRequestUnsupported",
    "IdentityProviderNotEnabled",
)
GRANTS = ("client_credentials", "on_behalf_of", "jwt_bearer", "token_exchange", "credential_try")


def _resident_bytes() -> float:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # pragma: no cover - only where there is no /proc
        return 0


M = TypeVar("M", bound=Metric)
_gauge = functools.partial(Reading, "gauge")
_counter = functools.partial(Reading, "counter")


class _Row(Generic[M]):
    """Describes one metric; each instance of `Metrics` has a metric of its own."""

    def __init__(
        self, kind: Callable[..., M], name: str, help_text: str, *labels: Any, **options: Any
    ) -> None:
        self.make: Callable[[], M] = functools.partial(kind, name, help_text, *labels, **options)

    @overload
    def __get__(self, metrics: None, owner: type) -> _Row[M]: ...
    @overload
    def __get__(self, metrics: Metrics, owner: type) -> M: ...
    def __get__(self, metrics: Metrics | None, owner: type) -> _Row[M] | M:
        """For the type checker: in an instance, its own metric takes the place of the row."""
        return self


class Metrics:
    """All metrics of a sidecar. One instance belongs to one sidecar; there is no global registry.

    Args:
        texas: whether the metrics under Texas's names are there, and the resource attributes that are labels
            of them, as they are there; None if those metrics are not wanted.
    """

    # --- requests to the sidecar ---
    requests = _Row(
        Counter,
        "entra_fast_requests_total",
        "Requests answered by the API, by endpoint and status.",
        Label("endpoint", ENDPOINTS),
        Label("status", limit=24),
        _PROVIDER,
    )
    request_seconds = _Row(
        Histogram,
        "entra_fast_request_duration_seconds",
        "Time from the headers of a request to its response.",
        Label("endpoint", ENDPOINTS),
    )
    introspections = _Row(
        Counter,
        "entra_fast_introspections_total",
        "Introspection responses, by whether the token was active.",
        Label("active", ("true", "false")),
        _PROVIDER,
    )
    introspections_rejected = _Row(
        Counter,
        "entra_fast_introspections_rejected_total",
        "Introspection responses with an inactive token, by error code.",
        Label("code", limit=64),
        _PROVIDER,
    )
    signature_confirmations = _Row(
        Counter,
        "entra_fast_signature_confirmations_total",
        "Signatures that AWS-LC verified after rind, by outcome. `disagreed` must stay 0.",
        Label("outcome", ("agreed", "disagreed")),
    )
    connections = _Row(_gauge, "entra_fast_connections", "Open connections to the API.")
    connections_refused = _Row(
        Counter,
        "entra_fast_connections_refused_total",
        "Connections refused because the maximum number was open.",
    )
    receive_timeouts = _Row(
        Counter,
        "entra_fast_receive_timeouts_total",
        "Requests abandoned because they did not arrive in time.",
    )
    fast_path = _Row(
        _gauge,
        "entra_fast_fast_path",
        "1 while native code answers common requests (the fast path), else 0.",
        merge="minimum",
    )
    fast_lane = _Row(_gauge, "entra_fast_fast_lane", "Older name of entra_fast_fast_path.", merge="minimum")
    spans_dropped = _Row(
        _counter,
        "entra_fast_spans_dropped_total",
        "Spans of requests on the fast path that were not exported because too many waited.",
    )
    ready = _Row(_gauge, "entra_fast_ready", "1 when /readyz answers 200, else 0.", merge="own")

    # --- requests to the provider ---
    upstream = _Row(
        Counter,
        "entra_fast_upstream_requests_total",
        "Token requests sent to the provider, by grant and outcome (`ok` or an error code).",
        Label("grant", GRANTS),
        Label("outcome"),
        _PROVIDER,
    )
    upstream_seconds = _Row(
        Histogram,
        "entra_fast_upstream_duration_seconds",
        "Time that the provider took to answer a token request.",
        Label("grant", GRANTS),
        _PROVIDER,
    )
    flights = _Row(
        _gauge, "entra_fast_upstream_requests_in_flight", "Tokens being fetched from the provider.", _PROVIDER
    )
    discovery = _Row(
        Counter,
        "entra_fast_discovery_requests_total",
        "Requests for the discovery document, by outcome (`ok` or an error code).",
        Label("outcome"),
        _PROVIDER,
    )
    key_requests = _Row(
        Counter,
        metrics.KEY_SET_REQUESTS.name,  # a validator in a service counts the same
        metrics.KEY_SET_REQUESTS.help,
        Label("outcome"),
        _PROVIDER,
    )
    keys = _Row(
        _gauge,
        "entra_fast_key_set_keys",
        "Signing keys that tokens are verified with.",
        _PROVIDER,
        merge="own",
    )
    keys_dropped = _Row(
        _gauge,
        "entra_fast_key_set_dropped",
        "Entries of the key set that are not usable and are ignored.",
        _PROVIDER,
        merge="own",
    )
    keys_ambiguous = _Row(
        _gauge,
        "entra_fast_key_set_ambiguous",
        "Entries of the key set that are ignored because a different key has the same `kid`.",
        _PROVIDER,
        merge="own",
    )
    key_set_age = _Row(
        _gauge,
        "entra_fast_key_set_age_seconds",
        "Time since the key set was last fetched, or -1 before that.",
        _PROVIDER,
        merge="own",
    )
    provider_errors = _Row(
        Counter,
        "entra_fast_provider_errors_total",
        "Error responses from the provider, by AADSTS code (or OAuth error if there is none).",
        Label("code", limit=64),
        _PROVIDER,
    )
    credential_rejected = _Row(
        _gauge,
        "entra_fast_credential_rejected",
        "1 while the provider rejects the application's credential, else 0.",
        _PROVIDER,
        merge="own",
    )
    clock_skew = _Row(
        _gauge,
        "entra_fast_clock_skew_seconds",
        "Seconds by which the clock of this machine is ahead of the provider's; negative where it is behind.",
        _PROVIDER,
        merge="own",
    )
    insecure_hosts = _Row(
        _gauge,
        "entra_fast_insecure_provider_hosts",
        "Hosts of providers that may be asked over plain http (ENTRA_FAST_INSECURE_PROVIDER_HOSTS).",
        merge="own",
    )
    renewals = _Row(
        Counter,
        "entra_fast_renewals_total",
        "Renewals of cached tokens before their expiry, by outcome.",
        Label("outcome", ("ok", "failed")),
        _PROVIDER,
    )
    stale_served = _Row(
        Counter,
        "entra_fast_stale_tokens_served_total",
        "Responses with a cached, still valid token because the provider failed.",
        _PROVIDER,
    )

    # --- caches ---
    tokens_from_cache = _Row(
        Counter,
        "entra_fast_tokens_from_cache_total",
        "Responses with a cached token, by endpoint.",
        Label("endpoint", ("token", "exchange")),
        _PROVIDER,
    )
    token_cache_entries = _Row(_gauge, "entra_fast_token_cache_entries", "Tokens in the token cache.")
    token_cache_bytes = _Row(_gauge, "entra_fast_token_cache_bytes", "Size of the token cache.")
    token_cache_hits = _Row(_counter, "entra_fast_token_cache_hits_total", "Token cache look-ups that hit.")
    token_cache_misses = _Row(
        _counter, "entra_fast_token_cache_misses_total", "Token cache look-ups that missed."
    )
    token_cache_evictions = _Row(
        _counter, "entra_fast_token_cache_evictions_total", "Tokens evicted from the token cache."
    )
    token_cache_expired = _Row(
        _counter, "entra_fast_token_cache_expired_total", "Expired tokens removed from the token cache."
    )
    verified_cache_entries = _Row(
        _gauge, "entra_fast_verified_cache_entries", "Tokens in the verification cache."
    )
    verified_cache_bytes = _Row(_gauge, "entra_fast_verified_cache_bytes", "Size of the verification cache.")
    verified_cache_hits = _Row(
        _counter, "entra_fast_verified_cache_hits_total", "Verification cache look-ups that hit."
    )
    verified_cache_misses = _Row(
        _counter, "entra_fast_verified_cache_misses_total", "Verification cache look-ups that missed."
    )
    verified_cache_evictions = _Row(
        _counter, "entra_fast_verified_cache_evictions_total", "Tokens evicted from the verification cache."
    )

    # --- the cache that replicas share ---
    shared = _Row(
        Counter,
        "entra_fast_shared_cache_requests_total",
        "Requests to the shared cache, by operation and outcome.",
        Label("operation", SHARED_OPERATIONS),
        Label("outcome", SHARED_OUTCOMES),
    )
    shared_seconds = _Row(
        Histogram,
        "entra_fast_shared_cache_duration_seconds",
        "Time spent waiting for the shared cache.",
        Label("operation", SHARED_OPERATIONS),
    )
    shared_rejected = _Row(
        Counter,
        "entra_fast_shared_cache_rejected_total",
        "Entries of the shared cache that were rejected, by reason.",
        Label("reason", SHARED_REJECTIONS),
    )
    shared_announcements = _Row(
        Counter,
        "entra_fast_shared_cache_announcements_total",
        "Announcements by other replicas that a token was replaced on request, by outcome.",
        Label("outcome", ("adopted", "ignored", "rejected")),
    )
    memory_limit = _Row(
        _gauge,
        "entra_fast_memory_limit_bytes",
        "Memory limit of the container, or 0 without one.",
        merge="own",
    )
    shared_interruptions = _Row(
        Counter,
        "entra_fast_shared_cache_interruptions_total",
        "Times the shared cache was paused after repeated failures.",
    )
    shared_available = _Row(
        _gauge,
        "entra_fast_shared_cache_available",
        "1 while a shared cache is configured and in use, else 0.",
        merge="own",
    )

    # --- processes ---
    build_info = _Row(
        Info,
        "entra_fast_build_info",
        "1; the labels say what runs. With several workers, those whose labels differ have a series each.",
        Label("version"),
        Label("python"),
        Label("rust"),
        Label("rsa", ("rind", "aws-lc")),
        Label("fast_path", ("true", "false")),
    )
    workers = _Row(_gauge, "entra_fast_workers", "Processes that serve the API.", read=lambda: 1, merge="own")
    worker_requests = _Row(
        Counter,
        "entra_fast_worker_requests_total",
        "Requests answered by each worker, by worker number.",
        Label("worker", limit=64),
    )
    worker_restarts = _Row(
        Counter,
        "entra_fast_worker_restarts_total",
        "Workers that were replaced, by reason.",
        Label("reason", ("ended", "hung", "not_started")),
    )
    start_time = _Row(
        _gauge,
        "process_start_time_seconds",
        "Start time of the process, in seconds since the epoch.",
        merge="own",
    )
    cpu = _Row(
        _counter, "process_cpu_seconds_total", "User and system CPU time.", read=lambda: sum(os.times()[:2])
    )
    memory = _Row(_gauge, "process_resident_memory_bytes", "Resident memory.", read=_resident_bytes)

    # --- under Texas's names, if they are wanted: for alerts and dashboards that use them ---
    texas_response_seconds = _Row(
        Histogram,
        "http_response_secs",
        "Response time in seconds, by status and path.",
        Label("status_code", limit=24),
        _PATH,
        buckets=TEXAS_BUCKETS,
        texas=True,
    )
    texas_cache_hits = _Row(
        Counter,
        "texas_token_cache_hits_total",
        "Requests answered with a cached token.",
        _PATH,
        _PROVIDER,
        texas=True,
    )
    texas_requests = _Row(
        Counter,
        "texas_handler_requests_total",
        "Well-formed requests.",
        _PATH,
        _PROVIDER,
        Label("request_type", tuple(TEXAS_REQUEST_TYPES.values())),
        texas=True,
    )
    texas_errors = _Row(
        Counter,
        "texas_handler_errors_total",
        "Well-formed requests that got an error.",
        _PATH,
        _PROVIDER,
        Label("error_kind", TEXAS_ERROR_KINDS),
        texas=True,
    )
    texas_provider_seconds = _Row(
        Histogram,
        "texas_identity_provider_latency_secs",
        "Time that the provider took to answer a token request of a caller, in seconds.",
        _PROVIDER,
        buckets=TEXAS_BUCKETS,
        texas=True,
    )
    texas_cache_size = _Row(
        _gauge,
        "texas_token_cache_size",
        "Tokens in the token cache.",
        Label("cache_type", ("token", "token/exchange")),
        merge="own",
        is_additive=True,
        texas=True,
    )

    def __init__(self, texas: Mapping[str, str] | None = None) -> None:
        for attribute, row in vars(Metrics).items():
            if isinstance(row, _Row):
                setattr(self, attribute, row.make())
        self.texas = texas is not None
        for metric in self.families():
            if metric.texas and texas is not None:
                metric.constants = constants(texas, metric)
        self.fast_lane.read_from(self.fast_path.read)
        self.signature_confirmations.include(_signatures.confirmations)
        started = time.time()
        self.start_time.read_from(lambda: started)

    def watch_keys(
        self,
        provider: str,
        stats: Callable[[], Mapping[str, int]],
        outcomes: Callable[[], Mapping[str, int]],
    ) -> None:
        """Register the sources of the figures of a provider's key set and of the outcomes of fetching it.
        Before there is a key set, both return nothing."""
        self.keys.read_from(lambda: stats().get("keys", 0), provider)
        self.keys_dropped.read_from(lambda: stats().get("keys_dropped", 0), provider)
        self.keys_ambiguous.read_from(lambda: stats().get("keys_ambiguous", 0), provider)
        self.key_set_age.read_from(lambda: stats().get("key_set_age_seconds", -1), provider)
        self.key_requests.include(
            lambda: {(outcome, provider): count for outcome, count in outcomes().items()}
        )

    def watch_token_cache(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """Register the source of the token cache's figures: `TokenCache.stats`."""
        self.token_cache_entries.read_from(lambda: stats().get("entries", 0))
        self.token_cache_bytes.read_from(lambda: stats().get("bytes", 0))
        self.token_cache_hits.read_from(lambda: stats().get("hits", 0))
        self.token_cache_misses.read_from(lambda: stats().get("misses", 0))
        self.token_cache_evictions.read_from(lambda: stats().get("evictions", 0))
        self.token_cache_expired.read_from(lambda: stats().get("expired", 0))
        self.watch_texas_cache_size(stats)

    def watch_texas_cache_size(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """Register the source of the token cache's size under its name in Texas: `TokenCache.stats`."""

        def exchanged() -> int:
            return stats().get("exchanged", 0)

        self.texas_cache_size.read_from(lambda: max(0, stats().get("entries", 0) - exchanged()), "token")
        self.texas_cache_size.read_from(exchanged, "token/exchange")

    def watch_verification_cache(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """Register the source of the verification cache's figures: `AsyncValidator.stats`."""
        self.verified_cache_entries.read_from(lambda: stats().get("cache_entries", 0))
        self.verified_cache_bytes.read_from(lambda: stats().get("cache_bytes", 0))
        self.verified_cache_hits.read_from(lambda: stats().get("cache_hits", 0))
        self.verified_cache_misses.read_from(lambda: stats().get("cache_misses", 0))
        self.verified_cache_evictions.read_from(lambda: stats().get("cache_evictions", 0))

    def families(self) -> list[Metric]:
        """Every metric, by name."""
        own = (metric for metric in vars(self).values() if isinstance(metric, Metric))
        return sorted(
            (metric for metric in own if self.texas or not metric.texas), key=lambda metric: metric.name
        )

    def render(self, workers: Sequence[Figures] = ()) -> bytes:
        """The text that Prometheus scrapes.

        Args:
            workers: the figures of other processes, to be merged with those of this one.
        """
        import prometheus_client  # noqa: PLC0415 - see the module

        registry = prometheus_client.CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self.families(), workers))
        return prometheus_client.generate_latest(registry)

    async def exposition(self, workers: Sequence[Figures] = ()) -> bytes:
        """Like `render`, without blocking the event loop while prometheus-client is imported."""
        if "prometheus_client" not in sys.modules:
            await asyncio.to_thread(__import__, "prometheus_client")
        return self.render(workers)

    def merged(self, workers: Sequence[Figures] = ()) -> list[Merged]:
        """The numbers of every metric. Arguments as for `render`."""
        return [
            (metric, metric.merged([figures.get(metric.name, ()) for figures in workers]))
            for metric in self.families()
        ]

    def figures(self) -> Figures:
        """The figures of this process."""
        return {metric.name: list(metric.figures().items()) for metric in self.families()}

    def accumulated(self, earlier: Figures, more: Figures) -> Figures:
        """The figures that outlive ended processes: the sums of their counters and histograms."""
        counted = (metric for metric in self.families() if metric.kind != "gauge" and metric.merge == "sum")
        return {
            metric.name: list(metric.added((earlier.get(metric.name, ()), more.get(metric.name, ()))).items())
            for metric in counted
        }


class _Collector:
    """Yields the families of all metrics, merged over the processes: prometheus-client's custom collector."""

    def __init__(self, metrics: Sequence[Metric], workers: Sequence[Figures]) -> None:
        self._metrics = metrics
        self._workers = workers

    def collect(self) -> Iterator[families.Metric]:
        for metric in self._metrics:
            yield metric.family([figures.get(metric.name, ()) for figures in self._workers])
