"""Metrics under Texas's names, on `/metrics` and by OTLP: alerts and dashboards of a platform use them."""

from __future__ import annotations

import re
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from entra_fast._metric_kinds import DURATION_BUCKETS, TEXAS_BUCKETS, coarser
from entra_fast._metrics import Metrics
from entra_fast.sidecar.http.facts import Facts
from support.collector import Collector, values
from support.fast_path import introspection, json_request, token_request
from support.process import Serve
from support.provider import Provider, answer, refuse, reset
from support.several import several
from support.sidecars import Started, StartSidecar, eventually
from support.wire import Caller

ON = {"ENTRA_FAST_TEXAS_METRICS": "true"}
TOKEN, EXCHANGE, INTROSPECT = "/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"
NAMES = {
    "http_response_secs",
    "texas_token_cache_hits",
    "texas_handler_requests",
    "texas_handler_errors",
    "texas_identity_provider_latency_secs",
    "texas_token_cache_size",
}


async def scraped(caller: Caller) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples under Texas's names: by name, then by the values of their labels in the order of their
    names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    text = (await caller.get("/metrics")).body.decode()
    for family in text_string_to_metric_families(text):
        if family.name in NAMES:
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def test_they_are_there_on_request_only(start: StartSidecar) -> None:
    """By default, only our own are exported."""
    sidecar = await start()
    await sidecar.call.token()
    assert await scraped(sidecar.call) == {}


@pytest.mark.parametrize("fast_path", ["true", "false"])
async def test_what_is_counted(start: StartSidecar, provider: Provider, fast_path: str) -> None:
    """Requests, cached tokens and times, the same on both paths: requests by provider and kind, responses by
    status and path."""
    sidecar = await start(**ON, ENTRA_FAST_FAST_PATH=fast_path)
    user = provider.mint(exp=4_000_000_000)
    exchange = {"identity_provider": "azuread", "target": "c:n:b", "user_token": user}
    for request in (
        token_request(),
        token_request(),
        token_request("c:n:other"),
        json_request(EXCHANGE, exchange),
        json_request(EXCHANGE, exchange),
        json_request(EXCHANGE, exchange),
        introspection(user),
        introspection("a"),
    ):
        assert (await sidecar.call.send(request)).status == 200
    assert (
        await sidecar.call.send(json_request(TOKEN, b"{"))
    ).status == 400  # Texas does not count it either
    found = await scraped(sidecar.call)
    # Labels: identity_provider, path, request_type.
    assert found["texas_handler_requests_total"] == {
        ("entra_id", TOKEN, "token"): 3,
        ("entra_id", EXCHANGE, "token_exchange"): 3,
        ("entra_id", INTROSPECT, "token_introspection"): 2,
    }
    assert found["texas_token_cache_hits_total"] == {("entra_id", TOKEN): 1, ("entra_id", EXCHANGE): 2}
    assert found["texas_token_cache_size"] == {("token",): 2, ("token/exchange",): 1}
    assert found["texas_identity_provider_latency_secs_count"] == {("entra_id",): 3}
    assert found["http_response_secs_count"] == {
        (TOKEN, "200"): 3,
        (TOKEN, "400"): 1,
        (EXCHANGE, "200"): 3,
        (INTROSPECT, "200"): 2,
    }
    assert "texas_handler_errors_total" not in found
    bounds = {float(key[0]) for key in found["http_response_secs_bucket"] if key[1:] == (TOKEN, "200")}
    assert bounds == {*TEXAS_BUCKETS, float("inf")}
    # Our own have their own buckets, and the same counts.
    assert await sidecar.metric('entra_fast_request_duration_seconds_count{endpoint="exchange"}') == 3
    ours = (await sidecar.call.get("/metrics")).body.decode()
    ours_bounds = re.findall(
        r'^entra_fast_request_duration_seconds_bucket\{endpoint="token",le="([^"]+)"', ours, re.M
    )
    assert [float(bound) for bound in ours_bounds] == [*DURATION_BUCKETS, float("inf")]


async def errors(sidecar: Started) -> dict[tuple[str, ...], float]:
    """By error_kind, identity_provider and path."""
    return (await scraped(sidecar.call)).get("texas_handler_errors_total", {})


async def test_errors_have_the_kinds_of_texas(start: StartSidecar, provider: Provider) -> None:
    """What the provider refused, what it answered without sense, and what never reached it."""
    sidecar = await start(**ON, ENTRA_FAST_HTTP_MAX_RETRIES="0")
    provider.then(refuse(400, "invalid_scope"), answer(200, {"nonsense": 1}), reset())
    for target in ("c:n:a", "c:n:b", "c:n:c"):
        assert (await sidecar.call.send(token_request(target))).status >= 400
    expired = {"identity_provider": "entra_id", "target": "c:n:a", "user_token": provider.mint(exp=1)}
    assert (await sidecar.call.send(json_request(EXCHANGE, expired))).status == 400
    empty = {"identity_provider": "entra_id", "target": "c:n:a", "user_token": "a b"}
    assert (await sidecar.call.send(json_request(EXCHANGE, empty))).status == 400
    assert await errors(sidecar) == {
        ("Upstream", "entra_id", TOKEN): 1,
        ("Json", "entra_id", TOKEN): 1,
        ("UpstreamRequest", "entra_id", TOKEN): 1,
        ("Upstream", "entra_id", EXCHANGE): 1,
        ("UnprocessableContent", "entra_id", EXCHANGE): 1,
    }
    found = await scraped(sidecar.call)
    assert found["texas_handler_requests_total"]["entra_id", EXCHANGE, "token_exchange"] == 2
    assert found["texas_identity_provider_latency_secs_count"] == {("entra_id",): 3}


@pytest.mark.parametrize("fast_path", ["true", "false"])
async def test_each_provider_counts_for_itself(start: StartSidecar, fast_path: str) -> None:
    """By the name that `identity_provider` means, on both paths; what a provider does not support is an error
    of its own kind."""
    async with several() as running:
        sidecar = await start(environ=running.environment(**ON, ENTRA_FAST_FAST_PATH=fast_path))
        user = running.mint("idporten", exp=4_000_000_000)
        for _ in range(2):
            exchanged = await sidecar.call.json(
                EXCHANGE, {"identity_provider": "tokenx", "target": "c:n:a", "user_token": user}
            )
            assert exchanged.status == 200
            assert (await sidecar.call.introspect(user, "idporten")).status == 200
        machine = {"identity_provider": "maskinporten", "target": "nav:a"}
        assert (await sidecar.call.json(TOKEN, machine)).status == 200
        assert (await sidecar.call.json(EXCHANGE, {**machine, "user_token": user})).status == 400
        assert (await sidecar.call.json(TOKEN, {"identity_provider": "tokenx", "target": "a"})).status == 400
        found = await scraped(sidecar.call)
        assert found["texas_handler_requests_total"] == {
            ("tokenx", EXCHANGE, "token_exchange"): 2,
            ("idporten", INTROSPECT, "token_introspection"): 2,
            ("maskinporten", TOKEN, "token"): 1,
            ("maskinporten", EXCHANGE, "token_exchange"): 1,
            ("tokenx", TOKEN, "token"): 1,
        }
        assert found["texas_token_cache_hits_total"] == {("tokenx", EXCHANGE): 1}
        assert found["texas_identity_provider_latency_secs_count"] == {("tokenx",): 1, ("maskinporten",): 1}
        assert found["texas_token_cache_size"] == {("token",): 1, ("token/exchange",): 1}
        assert await errors(sidecar) == {
            ("TokenExchangeUnsupported", "maskinporten", EXCHANGE): 1,
            ("TokenRequestUnsupported", "tokenx", TOKEN): 1,
        }


async def test_a_provider_that_is_not_enabled_is_an_error(start: StartSidecar) -> None:
    """At each endpoint."""
    sidecar = await start(
        environ={"BIND_ADDRESS": "127.0.0.1:0", "AZURE_ENABLED": "false", **ON}, ready=False
    )
    await sidecar.call.send(token_request())
    await sidecar.call.send(introspection("a"))
    assert await errors(sidecar) == {
        ("IdentityProviderNotEnabled", "entra_id", TOKEN): 1,
        ("IdentityProviderNotEnabled", "entra_id", INTROSPECT): 1,
    }


@pytest.mark.parametrize("workers", [1, 2])
async def test_they_are_exported_too(
    collector: Collector, serve: Serve, provider: Provider, workers: int
) -> None:
    """By OTLP with the very names, and with the resource attributes as attributes, on which Texas's alerts
    filter; each token counts once, however many workers have a copy of it."""
    environ = collector.environment(**ON, ENTRA_FAST_WORKERS=str(workers), OTEL_METRIC_EXPORT_INTERVAL="200")
    process = await serve(provider.environment(**environ))
    caller = await process.listening()
    for _ in range(4):
        assert (await caller.send(token_request())).status == 200

    async def counted() -> bool:
        return bool(collector.metrics) and "texas_token_cache_hits" in collector.last_metrics()

    await eventually(counted)
    page = await scraped(caller)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    last = collector.last_metrics()
    assert NAMES - set(last) == {"texas_handler_errors"}
    about = {
        "service_name": "texas",
        "service_namespace": "team-a",
        "downstream_app_name": "app-a",
        "downstream_app_namespace": "team-a",
        "downstream_cluster_name": "dev-gcp",
        "nais_pod_name": "app-a-1",
    }
    (hits,) = last["texas_token_cache_hits"].sum.data_points
    assert hits.as_int == 3
    assert values(hits.attributes) == {"path": TOKEN, "identity_provider": "entra_id", **about}
    assert last["texas_token_cache_hits"].sum.is_monotonic
    (responses,) = last["http_response_secs"].histogram.data_points
    assert (responses.count, tuple(responses.explicit_bounds)) == (4, TEXAS_BUCKETS)
    assert values(responses.attributes) == {"path": TOKEN, "status_code": "200", **about}
    (requests,) = last["texas_handler_requests"].sum.data_points
    assert (requests.as_int, values(requests.attributes)["request_type"]) == (4, "token")
    sizes = {
        values(p.attributes)["cache_type"]: p.as_double
        for p in last["texas_token_cache_size"].sum.data_points
    }
    assert sizes == {"token": 1.0, "token/exchange": 0.0}
    assert not last["texas_token_cache_size"].sum.is_monotonic
    # On the page they have the same labels.
    assert page["texas_token_cache_hits_total"] == {
        ("app-a", "team-a", "dev-gcp", "entra_id", "app-a-1", TOKEN, "texas", "team-a"): 3
    }


def test_resource_attributes_become_labels_that_prometheus_allows() -> None:
    """Each character that it does not allow is replaced; the metric's own labels win."""
    metrics = Metrics(
        texas={
            "a.b-c": "1",
            "9x": "2",
            "__z": "3",
            "path": "4",
            "le": "5",
            **{f"n{i}": "" for i in range(99)},
        }
    )
    assert list(metrics.texas_cache_hits.constants)[:4] == ["a_b_c", "_9x", "_z", "n0"]
    assert len(metrics.texas_cache_hits.constants) == 32
    assert metrics.requests.constants == {}
    metrics.texas_cache_hits.add(TOKEN, "entra_id")
    text = metrics.render().decode()
    assert 'a_b_c="1"' in text


def test_a_client_that_has_gone_got_no_response() -> None:
    """Its request counts, its response does not: 499 is no status of HTTP."""
    metrics, facts = Metrics(texas={}), Facts()
    facts.identity_provider = "entra_id"
    facts.count(metrics, "token", 499, 0.1)
    assert metrics.texas_response_seconds.figures() == {}
    assert metrics.texas_requests.value(TOKEN, "entra_id", "token") == 1


def test_observations_in_coarser_buckets() -> None:
    """Each bucket takes what is in the finer ones up to its bound; the sum stays."""
    assert coarser(([1, 2, 4, 8], 1.5), (1, 2, 3), (2,)) == ([3, 12], 1.5)
    assert coarser(([1, 2], 1.5), (1,), (1,)) == ([1, 2], 1.5)
