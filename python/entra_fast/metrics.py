"""Metrics in the Prometheus text format, with label sets that cannot grow without bound.

What belongs here: the few kinds of metric that are needed, their rendering, and `Metrics`, which names each
one that exists (docs/metrics.md is checked against it). What must never be here: values taken from a request
as labels. Every label has a closed set of values, or a limit after which new values count as `other`.
"""

from __future__ import annotations

import bisect
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of the rendered text (Prometheus exposition formats)."""

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

    def __init__(self, name: str, help_text: str, labels: Sequence[Label] = ()) -> None:
        self.name = name
        self.help = help_text
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

    def samples(self) -> list[str]:
        raise NotImplementedError

    def render(self) -> str:
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        return head + "".join(f"{line}\n" for line in self.samples())


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

    def samples(self) -> list[str]:
        elsewhere = self._elsewhere()
        values = dict.fromkeys(elsewhere, 0.0) | self._values
        return [
            f"{self._series('', key)} {_number(value + elsewhere.get(key, 0))}"
            for key, value in sorted(values.items())
        ]


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

    def samples(self) -> list[str]:
        lines = []
        merged = {key: (list(counts), list(total)) for key, (counts, total) in self._values.items()}
        for label, (counts, seconds) in self._elsewhere().items():
            if any(counts):
                own, total = merged.setdefault((label,), ([0] * len(counts), [0.0]))
                own[:] = [a + b for a, b in zip(own, counts, strict=True)]
                total[0] += seconds
        for key, (counts, total) in sorted(merged.items()):
            running = 0
            for bound, count in zip((*self._bounds, None), counts, strict=True):
                running += count
                text = "+Inf" if bound is None else _number(bound)
                bucket = self._series("_bucket", key, f'le="{text}"')
                lines.append(f"{bucket} {running}")
            lines.append(f"{self._series('_sum', key)} {_number(total[0])}")
            lines.append(f"{self._series('_count', key)} {running}")
        return lines


class Computed(_Family):
    """A gauge or counter that something else keeps: its value is asked for when metrics are read."""

    def __init__(self, kind: str, name: str, help_text: str, read: Callable[[], float] | None = None) -> None:
        super().__init__(name, help_text)
        self.kind = kind
        self.read: Callable[[], float] = read if read is not None else lambda: 0

    def samples(self) -> list[str]:
        return [f"{self.name} {_number(self.read())}"]


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
        )
        self.ready = Computed("gauge", "entra_fast_ready", "1 when /readyz answers 200, else 0.")
        self.credential_rejected = Computed(
            "gauge",
            "entra_fast_credential_rejected",
            "1 while the provider rejects the application's credential, else 0.",
        )
        self.flights = Computed(
            "gauge", "entra_fast_upstream_requests_in_flight", "Tokens being fetched from the provider."
        )
        self.token_cache = CacheFamilies("entra_fast_token_cache", "acquired tokens", TOKEN_CACHE_FIGURES)
        self.verified_cache = CacheFamilies("entra_fast_verified_cache", "verified tokens", VERIFIED_FIGURES)
        started = time.time()
        self.start_time = Computed(
            "gauge",
            "process_start_time_seconds",
            "Start time of the process, seconds since the epoch.",
            lambda: started,
        )
        self.cpu = Computed(
            "counter",
            "process_cpu_seconds_total",
            "User and system CPU time.",
            lambda: sum(os.times()[:2]),
        )
        self.memory = Computed("gauge", "process_resident_memory_bytes", "Resident memory.", _resident_bytes)

    def families(self) -> list[_Family]:
        """Every metric, by name."""
        own = [family for family in vars(self).values() if isinstance(family, _Family)]
        own += [*self.token_cache.families.values(), *self.verified_cache.families.values()]
        return sorted(own, key=lambda family: family.name)

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return "".join(family.render() for family in self.families()).encode("utf-8")


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
