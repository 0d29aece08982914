"""The Grafana dashboard: `python deploy/monitoring/dashboard.py > deploy/monitoring/dashboard.json`.

What belongs here: rows of panels, each with its question, its unit and its queries. A test compares
dashboard.json with this file, and every metric with docs/reference/metrics.md. Import the JSON into Grafana
10 or newer, or let Grafana pick it up from a ConfigMap.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

SELECTION = 'namespace=~"$namespace", pod=~"$pod"'
WIDTH, HEIGHT = 24, 7

Panel = dict[str, Any]
Query = tuple[str, str]
"""A PromQL expression, in which `{}` stands for the selection of pods, and the legend of its series."""


def panel(title: str, unit: str, *queries: Query, kind: str = "timeseries", description: str = "") -> Panel:
    """One panel. `unit` is an id of Grafana's: s, bytes, reqps, percentunit, short."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "expr": expression.replace("{}", "{" + SELECTION + "}"),
                "legendFormat": legend,
                "refId": chr(65 + index),
            }
            for index, (expression, legend) in enumerate(queries)
        ],
    }


def quantiles(metric: str, by: str = "endpoint") -> list[Query]:
    """The median and the slowest percent of a histogram."""
    return [
        (
            f"histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket{{}}[$__rate_interval])))",
            f"{name} {{{{{by}}}}}",
        )
        for q, name in ((0.5, "median"), (0.99, "p99"))
    ]


def rate(metric: str, *by: str) -> Query:
    """The rate of a counter, by labels."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return f"sum by ({', '.join(by)}) (rate({metric}{{}}[$__rate_interval]))", legend


def hit_ratio(cache: str) -> Query:
    """Look-ups in a cache that hit, of all."""
    hits, misses = (
        f"sum(rate(entra_fast_{cache}_{what}_total{{}}[$__rate_interval]))" for what in ("hits", "misses")
    )
    return f"{hits} / ({hits} + {misses})", cache.replace("_", " ")


ROWS: dict[str, list[Panel]] = {
    "Can applications get and check tokens?": [
        panel(
            "Sidecars that are ready",
            "short",
            ("sum(entra_fast_ready{})", "ready"),
            ("count(entra_fast_ready{})", "all"),
        ),
        panel(
            "Credential rejected",
            "short",
            ("sum by (identity_provider) (entra_fast_credential_rejected{})", "{{identity_provider}}"),
            description="Sidecars, by provider. 0 is right.",
        ),
        panel(
            "Age of the oldest key set",
            "s",
            ("max by (identity_provider) (entra_fast_key_set_age_seconds{})", "{{identity_provider}}"),
            description="Two hours are an alert; a day discards it.",
        ),
    ],
    "Traffic": [
        panel("Requests", "reqps", rate("entra_fast_requests_total", "identity_provider", "endpoint")),
        panel(
            "Requests that failed, by status",
            "reqps",
            (
                "sum by (identity_provider, endpoint, status) (rate(entra_fast_requests_total{"
                + SELECTION
                + ', status!="200"}[$__rate_interval]))',
                "{{identity_provider}} {{endpoint}} {{status}}",
            ),
        ),
        panel(
            "Introspections",
            "reqps",
            rate("entra_fast_introspections_total", "identity_provider", "active"),
            description="Expired tokens are normal; a jump of inactive ones is not.",
        ),
        panel(
            "Rejected tokens, by error code",
            "reqps",
            rate("entra_fast_introspections_rejected_total", "identity_provider", "code"),
        ),
    ],
    "Latency": [
        panel("Time to answer", "s", *quantiles("entra_fast_request_duration_seconds")),
        panel(
            "Time of the providers",
            "s",
            *quantiles("entra_fast_upstream_duration_seconds", "identity_provider"),
        ),
    ],
    "Providers": [
        panel(
            "Token requests, by outcome",
            "reqps",
            rate("entra_fast_upstream_requests_total", "identity_provider", "grant", "outcome"),
        ),
        panel(
            "Errors, by the provider's code",
            "reqps",
            rate("entra_fast_provider_errors_total", "identity_provider", "code"),
        ),
        panel(
            "Requests for keys, by outcome",
            "reqps",
            rate("entra_fast_key_set_requests_total", "identity_provider", "outcome"),
        ),
        panel(
            "Clock ahead of the provider's",
            "s",
            ("max by (identity_provider) (entra_fast_clock_skew_seconds{})", "{{identity_provider}} most"),
            ("min by (identity_provider) (entra_fast_clock_skew_seconds{})", "{{identity_provider}} least"),
            description="Half a minute is too much; for Maskinporten five seconds.",
        ),
        panel(
            "Cached tokens served while a provider fails",
            "reqps",
            rate("entra_fast_stale_tokens_served_total", "identity_provider"),
        ),
    ],
    "Caches": [
        panel("Hits", "percentunit", hit_ratio("token_cache"), hit_ratio("verified_cache")),
        panel(
            "Cached tokens served",
            "reqps",
            rate("entra_fast_tokens_from_cache_total", "identity_provider", "endpoint"),
        ),
        panel(
            "Entries",
            "short",
            ("sum(entra_fast_token_cache_entries{})", "acquired tokens"),
            ("sum(entra_fast_verified_cache_entries{})", "verified tokens"),
        ),
        panel(
            "Size",
            "bytes",
            ("sum(entra_fast_token_cache_bytes{})", "acquired tokens"),
            ("sum(entra_fast_verified_cache_bytes{})", "verified tokens"),
        ),
        panel(
            "Shared cache, by outcome",
            "reqps",
            rate("entra_fast_shared_cache_requests_total", "operation", "outcome"),
        ),
    ],
    "Processes": [
        panel(
            "Memory, and its limit",
            "bytes",
            ("process_resident_memory_bytes{}", "{{pod}}"),
            ("max(entra_fast_memory_limit_bytes{})", "limit"),
            description="All processes of a sidecar together.",
        ),
        panel(
            "Memory, of the limit",
            "percentunit",
            ("process_resident_memory_bytes{} / (entra_fast_memory_limit_bytes{} > 0)", "{{pod}}"),
            description="Nothing for a sidecar without a limit. Above 90 % there is an alert.",
        ),
        panel(
            "CPU",
            "short",
            ("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{pod}}"),
            description="Cores in use.",
        ),
        panel("Open connections", "short", ("entra_fast_connections{}", "{{pod}}")),
        panel(
            "Workers that were replaced",
            "short",
            ("sum by (reason) (increase(entra_fast_worker_restarts_total{}[1h]))", "{{reason}}"),
        ),
    ],
    "What runs": [
        panel(
            "Sidecars by version",
            "short",
            (
                "count by (version, python, rust, rsa, fast_path) (entra_fast_build_info{})",
                "{{version}}, Python {{python}}, Rust {{rust}}, {{rsa}}, fast path {{fast_path}}",
            ),
            description="Two lines during an upgrade, and no longer.",
        ),
        panel(
            "Sidecars that may ask a provider over plain http",
            "short",
            ("count(entra_fast_insecure_provider_hosts{} > 0) or vector(0)", "sidecars"),
            description="0 is right in production.",
        ),
    ],
}


def variable(name: str, query: str) -> dict[str, Any]:
    """A choice at the top of the dashboard; all by default."""
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    panels: list[Panel] = []
    ids = itertools.count(1)
    y = 0
    for title, row in ROWS.items():
        panels.append(
            {"type": "row", "title": title, "id": next(ids), "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}}
        )
        width = WIDTH // len(row)
        panels += [
            {**one, "id": next(ids), "gridPos": {"x": index * width, "y": y + 1, "w": width, "h": HEIGHT}}
            for index, one in enumerate(row)
        ]
        y += HEIGHT + 1
    return {
        "title": "entra_fast sidecars",
        "uid": "entra-fast",
        "schemaVersion": 39,
        "tags": ["entra-fast"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
                variable("namespace", "label_values(entra_fast_ready, namespace)"),
                variable("pod", 'label_values(entra_fast_ready{namespace=~"$namespace"}, pod)'),
            ]
        },
        "panels": panels,
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
