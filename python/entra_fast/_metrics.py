"""Metrics in the Prometheus text format, with label sets that cannot grow without bound.

What belongs here: the few kinds of metric that are needed, their rendering, and `Metrics`, which names each
one that exists (docs/metrics.md is checked against it). What must never be here: values taken from a request
as labels. Every label has a closed set of values, or a limit after which new values count as `other`.

Several processes can be one sidecar (docs/workers.md): each metric knows how the figures of the workers and
those of the process that is asked become one.
"""

from __future__ import annotations

import bisect
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from entra_fast import _signatures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the rendered text (Prometheus exposition formats)."""

Series = Sequence[tuple[Sequence[str], Sequence[float]]]
"""The figures of one metric: for each combination of labels one number, or of a histogram the counts in its
buckets and the sum."""

Figures = Mapping[str, Series]
"""The figures of all metrics of a process, by name; can be written as JSON."""

Whole = Literal["sum", "least", "own"]
"""What several processes have as one: the sum of all; the least of the workers'; or what the process says
that is asked."""

OTHER = "other"
DURATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label and its values. With `values` the set is closed; else the first `limit` values are kept."""

    name: str
    values: tuple[str, ...] = ()
    limit: int = 32


class _Family:
    """Series of one metric, by the values of its labels."""

    kind = ""

    def __init__(self, name: str, help_text: str, labels: Sequence[Label] = (), whole: Whole = "sum") -> None:
        self.name = name
        self.help = help_text
        self.whole = whole
        self.labels = tuple(labels)
        self._seen: tuple[set[str], ...] = tuple(set(label.values) for label in self.labels)

    def _bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.name} has {len(self.labels)} labels")
        return tuple(self._admit(i, value) for i, value in enumerate(values))

    def _admit(self, index: int, value: str) -> str:
        seen, label = self._seen[index], self.labels[index]
        if value in seen:
            return value
        if label.values or len(seen) >= label.limit:
            return OTHER
        seen.add(value)
        return value

    def _series(self, suffix: str, values: tuple[str, ...], extra: str = "") -> str:
        pairs = [f'{label.name}="{_escape(v)}"' for label, v in zip(self.labels, values, strict=True)]
        if extra:
            pairs.append(extra)
        return f"{self.name}{suffix}{{{','.join(pairs)}}}" if pairs else f"{self.name}{suffix}"

    def figures(self) -> dict[tuple[str, ...], list[float]]:
        """The numbers of this process, by the values of the labels: see `Series`."""
        raise NotImplementedError

    def _lines(self, labels: tuple[str, ...], numbers: Sequence[float]) -> list[str]:
        return [f"{self._series('', labels)} {_number(numbers[0])}"]

    def samples(self, workers: Iterable[Series] = ()) -> list[str]:
        """The lines of the text format, without its head.

        Args:
            workers: the figures of other processes that are to be seen as one with this one.
        """
        merged = self.figures()
        if self.whole != "own":
            others = self._merged(workers)
            if self.whole == "sum":
                others = self._merged((list(merged.items()), list(others.items())))
            merged = others or merged
        return [line for labels, numbers in sorted(merged.items()) for line in self._lines(labels, numbers)]

    def added(self, several: Iterable[Series]) -> Series:
        """The figures of several processes as one."""
        return list(self._merged(several).items())

    def _merged(self, several: Iterable[Series]) -> dict[tuple[str, ...], list[float]]:
        merged: dict[tuple[str, ...], list[float]] = {}
        for series in several:
            for labels, numbers in series:
                key = self._bounded(tuple(labels))
                known = merged.get(key)
                merged[key] = list(numbers) if known is None else self._one(known, numbers)
        return merged

    def _one(self, known: Sequence[float], more: Sequence[float]) -> list[float]:
        pairs = zip(known, more, strict=True)
        return [min(pair) for pair in pairs] if self.whole == "least" else [sum(pair) for pair in pairs]

    def render(self, workers: Iterable[Series] = ()) -> str:
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(f"{line}\n" for line in self.samples(workers))


class Counter(_Family):
    """Only goes up."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: Sequence[Label] = ()) -> None:
        super().__init__(name, help_text, labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0}
        self._elsewhere: Callable[[], dict[tuple[str, ...], float]] = dict

    def include(self, elsewhere: Callable[[], dict[tuple[str, ...], float]]) -> None:
        """Add what is counted elsewhere, by the values of its labels, whenever metrics are read."""
        self._elsewhere = elsewhere

    def add(self, *labels: str, amount: float = 1) -> None:
        key = self._bounded(labels)
        self._values[key] = self._values.get(key, 0) + amount

    def value(self, *labels: str) -> float:
        return self._values.get(labels, 0) + self._elsewhere().get(labels, 0)

    def figures(self) -> dict[tuple[str, ...], list[float]]:
        elsewhere = self._elsewhere()
        values = dict.fromkeys(elsewhere, 0.0) | self._values
        return {key: [value + elsewhere.get(key, 0)] for key, value in values.items()}


class Histogram(_Family):
    """Counts observations in buckets of fixed bounds."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[Label] = (),
        buckets: Sequence[float] = DURATION_BUCKETS,
    ) -> None:
        super().__init__(name, help_text, labels)
        self._bounds = tuple(buckets)
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._elsewhere: Callable[[], dict[str, tuple[list[int], float]]] = dict

    def include(self, elsewhere: Callable[[], dict[str, tuple[list[int], float]]]) -> None:
        """Add what is observed elsewhere, by the value of the one label: counts in the same buckets and one
        more, and the sum; whenever metrics are read."""
        self._elsewhere = elsewhere

    def observe(self, value: float, *labels: str) -> None:
        key = self._bounded(labels)
        counts, total = self._values.setdefault(key, ([0] * (len(self._bounds) + 1), [0.0]))
        counts[bisect.bisect_left(self._bounds, value)] += 1
        total[0] += value

    def figures(self) -> dict[tuple[str, ...], list[float]]:
        merged = {key: [*counts, *total] for key, (counts, total) in self._values.items()}
        for label, (counts, seconds) in self._elsewhere().items():
            if any(counts):
                more = [*counts, seconds]
                own = merged.get((label,))
                merged[(label,)] = more if own is None else [a + b for a, b in zip(own, more, strict=True)]
        return merged

    def _lines(self, labels: tuple[str, ...], numbers: Sequence[float]) -> list[str]:
        *counts, total = numbers
        lines = []
        running = 0.0
        for bound, count in zip((*self._bounds, None), counts, strict=True):
            running += count
            text = "+Inf" if bound is None else _number(bound)
            bucket = self._series("_bucket", labels, f'le="{text}"')
            lines.append(f"{bucket} {_number(running)}")
        lines.append(f"{self._series('_sum', labels)} {_number(total)}")
        lines.append(f"{self._series('_count', labels)} {_number(running)}")
        return lines


class Computed(_Family):
    """A gauge or counter that something else keeps: its value is asked for when metrics are read."""

    def __init__(
        self,
        kind: str,
        name: str,
        help_text: str,
        read: Callable[[], float] | None = None,
        *,
        whole: Whole = "sum",
    ) -> None:
        super().__init__(name, help_text, whole=whole)
        self.kind = kind
        self.read: Callable[[], float] = read if read is not None else lambda: 0

    def figures(self) -> dict[tuple[str, ...], list[float]]:
        return {(): [self.read()]}


TOKEN_CACHE_FIGURES = ("entries", "bytes", "hits", "misses", "evictions", "expired")
VERIFIED_FIGURES = ("entries", "bytes", "hits", "misses", "evictions")
_SIZES = ("entries", "bytes")


class CacheFamilies:
    """The figures of a native cache, each as a metric of its own."""

    def __init__(self, prefix: str, what: str, figures: Sequence[str]) -> None:
        self._stats: Callable[[], dict[str, int]] = dict
        self.families = {
            figure: Computed(
                "gauge" if figure in _SIZES else "counter",
                f"{prefix}_{figure}" if figure in _SIZES else f"{prefix}_{figure}_total",
                f"Cache of {what}: {figure}.",
                functools.partial(self._figure, figure),
            )
            for figure in figures
        }
        self._prefix = ""

    def watch(self, stats: Callable[[], dict[str, int]], prefix: str = "") -> None:
        """Take the figures from `stats()`, whose keys are the figures' names after `prefix`."""
        self._stats, self._prefix = stats, prefix

    def _figure(self, figure: str) -> float:
        return self._stats().get(self._prefix + figure, 0)


SHARED_OPERATIONS = ("get", "put", "lead", "ping")
SHARED_FAILURES = ("timed_out", "connect_failed", "tls_failed", "auth_failed", "malformed")
"""How a Redis server fails. After some in a row it is left alone for a while."""
SHARED_OUTCOMES = ("ok", "hit", "miss", "rejected", "taken", "refused", "paused", "busy", *SHARED_FAILURES)
SHARED_REJECTIONS = ("type", "size", "version", "decryption", "content", "clock", "expiry")

ENDPOINTS = ("token", "exchange", "introspect", OTHER)
GRANTS = ("client_credentials", "on_behalf_of")


class Metrics:
    """All metrics of a sidecar. One instance belongs to one sidecar; there is no global registry."""

    def __init__(self) -> None:
        self.requests = Counter(
            "entra_fast_requests_total",
            "Requests answered by the API, by endpoint and status.",
            (Label("endpoint", ENDPOINTS), Label("status", limit=24)),
        )
        self.request_seconds = Histogram(
            "entra_fast_request_duration_seconds",
            "Time from a request's headers to its answer.",
            (Label("endpoint", ENDPOINTS),),
        )
        self.introspections = Counter(
            "entra_fast_introspections_total",
            "Introspection answers, by whether the token was active.",
            (Label("active", ("true", "false")),),
        )
        self.signature_confirmations = Counter(
            "entra_fast_signature_confirmations_total",
            "Signatures that AWS-LC verified after rind, by outcome. `disagreed` must stay 0.",
            (Label("outcome", ("agreed", "disagreed")),),
        )
        self.signature_confirmations.include(_signatures.confirmations)
        self.upstream = Counter(
            "entra_fast_upstream_requests_total",
            "Requests for tokens sent to the provider, by grant and outcome (`ok` or an error code).",
            (Label("grant", GRANTS), Label("outcome")),
        )
        self.upstream_seconds = Histogram(
            "entra_fast_upstream_duration_seconds",
            "Time that the provider took for one request for a token.",
            (Label("grant", GRANTS),),
        )
        self.discovery = Counter(
            "entra_fast_discovery_requests_total",
            "Requests for the discovery document, by outcome (`ok` or an error code).",
            (Label("outcome"),),
        )
        self.key_requests = Counter(
            "entra_fast_key_set_requests_total",
            "Requests for the provider's key set, by outcome (`ok` or an error code).",
            (Label("outcome"),),
        )
        self.keys = Computed(
            "gauge", "entra_fast_key_set_keys", "Keys by which tokens are judged now.", whole="own"
        )
        self.keys_dropped = Computed(
            "gauge",
            "entra_fast_key_set_dropped",
            "Entries of the key set that cannot be used and were left out.",
            whole="own",
        )
        self.key_set_age = Computed(
            "gauge",
            "entra_fast_key_set_age_seconds",
            "Time since keys were last fetched, or -1 before that.",
            lambda: -1,
            whole="own",
        )
        self.provider_errors = Counter(
            "entra_fast_provider_errors_total",
            "Refusals of the provider, by AADSTS code (or OAuth error where there is none).",
            (Label("code", limit=64),),
        )
        self.renewals = Counter(
            "entra_fast_renewals_total",
            "Renewals of cached tokens ahead of their expiry, by outcome.",
            (Label("outcome", ("ok", "failed")),),
        )
        self.stale_served = Counter(
            "entra_fast_stale_tokens_served_total",
            "Answers with a still valid cached token because the provider failed.",
        )
        self.shared = Counter(
            "entra_fast_shared_cache_requests_total",
            "Requests to the cache that replicas share, by operation and outcome.",
            (Label("operation", SHARED_OPERATIONS), Label("outcome", SHARED_OUTCOMES)),
        )
        self.shared_seconds = Histogram(
            "entra_fast_shared_cache_duration_seconds",
            "Time spent waiting for the cache that replicas share.",
            (Label("operation", SHARED_OPERATIONS),),
        )
        self.shared_rejected = Counter(
            "entra_fast_shared_cache_rejected_total",
            "Entries of the cache that replicas share that were not believed, by reason.",
            (Label("reason", SHARED_REJECTIONS),),
        )
        self.shared_announcements = Counter(
            "entra_fast_shared_cache_announcements_total",
            "Announcements of other replicas that a token was replaced on demand, by what became of them.",
            (Label("outcome", ("adopted", "ignored", "rejected")),),
        )
        self.shared_interruptions = Counter(
            "entra_fast_shared_cache_interruptions_total",
            "How often the cache that replicas share failed so much that it was left alone for a while.",
        )
        self.shared_available = Computed(
            "gauge",
            "entra_fast_shared_cache_available",
            "1 while a cache that replicas share is set up and in use, else 0.",
            whole="own",
        )
        self.connections_refused = Counter(
            "entra_fast_connections_refused_total", "Connections refused because there were too many."
        )
        self.receive_timeouts = Counter(
            "entra_fast_receive_timeouts_total", "Requests given up because they did not arrive in time."
        )
        self.connections = Computed("gauge", "entra_fast_connections", "Open connections to the API.")
        self.fast_lane = Computed(
            "gauge",
            "entra_fast_fast_lane",
            "1 while plain requests are answered on the fast lane, below aiohttp, else 0.",
            whole="least",
        )
        self.ready = Computed("gauge", "entra_fast_ready", "1 when /readyz answers 200, else 0.", whole="own")
        self.credential_rejected = Computed(
            "gauge",
            "entra_fast_credential_rejected",
            "1 while the provider rejects the application's credential, else 0.",
            whole="own",
        )
        self.flights = Computed(
            "gauge", "entra_fast_upstream_requests_in_flight", "Tokens being fetched from the provider."
        )
        self.token_cache = CacheFamilies("entra_fast_token_cache", "acquired tokens", TOKEN_CACHE_FIGURES)
        self.verified_cache = CacheFamilies("entra_fast_verified_cache", "verified tokens", VERIFIED_FIGURES)
        self.workers = Computed(
            "gauge",
            "entra_fast_workers",
            "Processes that serve the API.",
            lambda: 1,
            whole="own",
        )
        self.worker_requests = Counter(
            "entra_fast_worker_requests_total",
            "Requests answered by each of several workers, by its number.",
            (Label("worker", limit=64),),
        )
        self.worker_restarts = Counter(
            "entra_fast_worker_restarts_total",
            "Workers that ended by themselves or had to be ended, and were replaced, by the reason.",
            (Label("reason", ("ended", "hung", "not_started")),),
        )
        started = time.time()
        self.start_time = Computed(
            "gauge",
            "process_start_time_seconds",
            "Start time of the process, seconds since the epoch.",
            lambda: started,
            whole="own",
        )
        self.cpu = Computed(
            "counter",
            "process_cpu_seconds_total",
            "User and system CPU time.",
            lambda: sum(os.times()[:2]),
        )
        self.memory = Computed("gauge", "process_resident_memory_bytes", "Resident memory.", _resident_bytes)

    def watch_keys(
        self, stats: Callable[[], dict[str, int]], outcomes: Callable[[], Mapping[str, int]]
    ) -> None:
        """Take the figures of keys from `stats()`, and how fetching them went from `outcomes()`."""
        self.keys.read = lambda: stats().get("keys", 0)
        self.keys_dropped.read = lambda: stats().get("keys_dropped", 0)
        self.key_set_age.read = lambda: stats().get("key_set_age_seconds", -1)
        self.key_requests.include(lambda: {(outcome,): count for outcome, count in outcomes().items()})

    def families(self) -> list[_Family]:
        """Every metric, by name."""
        own = [family for family in vars(self).values() if isinstance(family, _Family)]
        own += [*self.token_cache.families.values(), *self.verified_cache.families.values()]
        return sorted(own, key=lambda family: family.name)

    def render(self, workers: Sequence[Figures] = ()) -> bytes:
        """The text that Prometheus scrapes.

        Args:
            workers: the figures of other processes that are to be seen as one with this one.
        """
        texts = (
            family.render(figures.get(family.name, ()) for figures in workers) for family in self.families()
        )
        return "".join(texts).encode("utf-8")

    def figures(self) -> Figures:
        """The figures of this process."""
        return {family.name: list(family.figures().items()) for family in self.families()}

    def accumulated(self, earlier: Figures, more: Figures) -> Figures:
        """What remains of processes that are gone: the sums of what they have counted, and no gauges."""
        counted = (family for family in self.families() if family.kind != "gauge" and family.whole == "sum")
        return {
            family.name: family.added((earlier.get(family.name, ()), more.get(family.name, ())))
            for family in counted
        }


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _resident_bytes() -> float:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux
        return 0
