"""The sidecar with a collector: real processes, real OTLP over gRPC and over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from entra_fast._metric_kinds import DURATION_BUCKETS
from entra_fast._metrics import Metrics
from support.collector import Collector, grpc_collector, http_collector, values
from support.fast_path import introspection, json_request, token_request
from support.network import Authority
from support.process import Process, Serve, children
from support.provider import Provider
from support.several import several
from support.sidecars import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


async def exporting(process: Process, processes: int = 1) -> None:
    """Wait until telemetry is exported by every process."""

    async def so() -> bool:
        return process.logged("exporting telemetry") == processes

    await eventually(so)


async def stopped(process: Process) -> None:
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.lines
    assert not process.logged("Traceback")


def mapped_files(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def series(metric: Metric) -> dict[tuple[str, ...], Any]:
    """The data points of a metric, by the values of their attributes in the order of their names."""
    data = getattr(metric, metric.WhichOneof("data") or "")
    return {
        tuple(value for _, value in sorted(values(point.attributes).items())): point
        for point in data.data_points
    }


def of_the_trace(collector: Collector, kind: Span.SpanKind.ValueType) -> list[Span]:
    return [span for _, span in collector.spans if span.trace_id.hex() == TRACE and span.kind == kind]


@pytest.mark.parametrize("workers", [1, 2])
async def test_spans_and_metrics_reach_the_collector(
    collector: Collector, serve: Serve, provider: Provider, workers: int
) -> None:
    """With what NAIS injects, by one process and with workers: a request and what it caused belong to the
    caller's trace, metrics are exported once for the whole sidecar, and no byte of a token is."""
    process = await serve(provider.environment(**collector.environment(), ENTRA_FAST_WORKERS=str(workers)))
    caller = await process.listening()
    await exporting(process, 1 if workers == 1 else workers + 1)
    user = provider.mint(exp=4_000_000_000)
    exchange = {"identity_provider": "entra_id", "target": "c:n:b", "user_token": user}
    answers = [
        await caller.send(token_request(traceparent=SAMPLED)),
        await caller.send(token_request(traceparent=SAMPLED)),
        await caller.send(json_request("/api/v1/token/exchange", exchange, {"traceparent": SAMPLED})),
        await caller.send(introspection(user, traceparent=SAMPLED)),
        await caller.send(token_request()),
    ]
    assert [answer.status for answer in answers] == [200] * 5
    await stopped(process)

    # Spans: one for each sampled request, one for each request to the provider below it.
    servers = of_the_trace(collector, Span.SPAN_KIND_SERVER)
    assert {span.parent_span_id.hex() for span in servers} == {SPAN}
    http = {"http.request.method": "POST", "url.scheme": "http", "http.response.status_code": 200}
    described = []
    for span in sorted(servers, key=lambda span: span.start_time_unix_nano):
        attributes = values(span.attributes)
        route = attributes.pop("http.route")
        assert span.name == f"POST {route}"
        assert attributes.pop("url.path") == route
        assert http.items() <= attributes.items()
        described.append((route, {name: attributes[name] for name in attributes.keys() - http.keys()}))
    about = {"entra_fast.identity_provider": "entra_id"}
    target = {**about, "entra_fast.target": "api://c.n.a/.default"}
    assert described == [
        ("/api/v1/token", {**target, "entra_fast.cache_hit": False}),
        ("/api/v1/token", {**target, "entra_fast.cache_hit": True}),
        ("/api/v1/token/exchange", {**about, "entra_fast.target": "c:n:b", "entra_fast.cache_hit": False}),
        ("/api/v1/introspect", about),
    ]
    clients = of_the_trace(collector, Span.SPAN_KIND_CLIENT)
    assert len(clients) == 2
    by_id = {span.span_id: span for span in servers}
    assert {by_id[span.parent_span_id].name for span in clients} == {
        "POST /api/v1/token",
        "POST /api/v1/token/exchange",
    }
    for span in clients:
        assert span.name == "POST"
        assert values(span.attributes) == {
            "http.request.method": "POST",
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "url.full": provider.token_endpoint,
            "http.response.status_code": 200,
            **about,
        }
    # The context goes on to the provider.
    sent = [request.headers["traceparent"] for request in provider.requests if request.form]
    assert {f"00-{TRACE}-{span.span_id.hex()}-01" for span in clients} <= set(sent)

    # Metrics: each export is that of the whole sidecar, by one process.
    last = collector.last_metrics()
    assert len(collector.metrics) == 1  # the interval is a minute: what there is was exported at the end
    requests = series(last["entra_fast_requests_total"])
    assert {key: point.as_int for key, point in requests.items()} == {
        ("exchange", "entra_id", "200"): 1,
        ("introspect", "entra_id", "200"): 1,
        ("token", "entra_id", "200"): 3,
    }
    assert last["entra_fast_requests_total"].sum.is_monotonic
    assert last["entra_fast_requests_total"].sum.aggregation_temporality == CUMULATIVE
    durations = last["entra_fast_request_duration_seconds"]
    assert durations.unit == "s"
    assert durations.histogram.aggregation_temporality == CUMULATIVE
    token = series(durations)["token",]
    assert (token.count, sum(token.bucket_counts)) == (3, 3)
    assert tuple(token.explicit_bounds) == DURATION_BUCKETS
    assert 0 < token.sum < 60
    assert not token.HasField("min")
    assert token.start_time_unix_nano < token.time_unix_nano <= time.time_ns()
    assert last["process_resident_memory_bytes"].unit == "By"
    assert last["process_resident_memory_bytes"].WhichOneof("data") == "gauge"

    # Who sent it: each process is an instance of one service.
    resources = [resource for resource, _ in collector.spans] + collector.resources_of_metrics
    for resource in resources:
        assert resource["service.name"] == "texas"
        assert resource["service.namespace"] == "team-a"
        assert resource["downstream.app.name"] == "app-a"
        assert resource["nais.pod.name"] == "app-a-1"
    assert len({r["service.instance.id"] for r in collector.resources_of_metrics}) == 1
    assert len({resource["service.instance.id"] for resource in resources}) <= (1 if workers == 1 else 3)

    for secret in (user, user.split(".")[2], answers[0].json["access_token"]):
        assert not any(secret.encode() in raw for raw in collector.raw)


CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


async def test_spans_name_the_provider(collector: Collector, serve: Serve) -> None:
    """Those of requests, and those of requests to the provider below them."""
    async with several() as running:
        process = await serve(running.environment(**collector.environment()))
        caller = await process.listening()
        await exporting(process)
        user = running.mint("idporten", exp=4_000_000_000)
        exchange = {"identity_provider": "tokenx", "target": "c:n:a", "user_token": user}
        headers = {"traceparent": SAMPLED}
        answers = [
            await caller.send(json_request("/api/v1/token/exchange", exchange, headers)),
            await caller.send(
                json_request("/api/v1/introspect", {"identity_provider": "idporten", "token": user}, headers)
            ),
        ]
        assert [answer.status for answer in answers] == [200, 200]
        await stopped(process)
    found = {
        (span.name, values(span.attributes)["entra_fast.identity_provider"])
        for span in (
            *of_the_trace(collector, Span.SPAN_KIND_SERVER),
            *of_the_trace(collector, Span.SPAN_KIND_CLIENT),
        )
    }
    assert found == {
        ("POST /api/v1/token/exchange", "tokenx"),
        ("POST", "tokenx"),
        ("POST /api/v1/introspect", "idporten"),
    }
    assert not any(user.encode() in raw for raw in collector.raw)


async def test_the_metrics_are_those_of_the_page(
    collector: Collector, serve: Serve, provider: Provider
) -> None:
    """Names and labels are those of `/metrics`, at every interval; headers and compression are used."""
    more = {"OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b"}
    if collector.protocol != "grpc":
        more["OTEL_EXPORTER_OTLP_COMPRESSION"] = "gzip"
    process = await serve(provider.environment(**collector.environment(**more)))
    caller = await process.listening()
    assert (await caller.send(token_request())).status == 200

    async def counted() -> bool:
        return len(collector.metrics) > 2 and ("token", "entra_id", "200") in series(
            collector.last_metrics()["entra_fast_requests_total"]
        )

    await eventually(counted)
    page = (await caller.get("/metrics")).body.decode()
    await stopped(process)
    assert {headers["x-key"] for headers in collector.headers} == {"a b"}
    exported = collector.last_metrics()
    named = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    with_series = {
        line.partition("{")[0].partition(" ")[0] for line in page.splitlines() if not line.startswith("#")
    }
    assert {name for name in named if name in with_series or f"{name}_count" in with_series} == set(exported)
    labels = {metric.name: [label.name for label in metric.labels] for metric in Metrics().families()}
    for name, metric in exported.items():
        for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
            assert sorted(values(point.attributes)) == sorted(labels[name])


async def test_increases_are_exported_on_request(
    collector: Collector, serve: Serve, provider: Provider
) -> None:
    """Delta temporality: the exports add up to the totals, and each begins where the one before it ended."""
    more = {
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_TRACES_EXPORTER": "none",
    }
    process = await serve(provider.environment(**collector.environment(**more)))
    caller = await process.listening()
    await exporting(process)
    for _ in range(3):
        before = len(collector.metrics)
        assert (await caller.send(introspection("a", traceparent=SAMPLED))).status == 200

        async def exported(before: int = before) -> bool:
            return len(collector.metrics) > before + 1

        await eventually(exported)
    await stopped(process)
    name = "entra_fast_introspections_total"
    points = [series(export[name])["false", "entra_id"] for export in collector.exports() if name in export]
    assert sum(point.as_int for point in points) == 3
    assert max(point.as_int for point in points) == 1
    for earlier, later in itertools.pairwise(points):
        assert later.start_time_unix_nano == earlier.time_unix_nano
    durations = [export["entra_fast_request_duration_seconds"] for export in collector.exports()]
    assert (
        sum(series(each)["introspect",].count for each in durations if ("introspect",) in series(each)) == 3
    )
    delta = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    assert {each.histogram.aggregation_temporality for each in durations} == {delta}
    assert collector.traces == []


@pytest.mark.parametrize("answering", [False, True])
async def test_a_dead_collector_is_one_warning(serve: Serve, provider: Provider, answering: bool) -> None:
    """Nothing listens, or something accepts connections and never answers: requests are answered as ever, one
    line for each signal names the variable, and the end of the process waits for two seconds at most."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    if not answering:
        server.close()
    environ = provider.environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_TIMEOUT="300",
        OTEL_METRIC_EXPORT_INTERVAL="100",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    process = await serve(environ)
    caller = await process.listening()
    await exporting(process)

    async def warned() -> bool:
        assert (await caller.send(introspection("a", traceparent=SAMPLED))).status == 200
        return process.logged("cannot export") == 2

    await eventually(warned)
    await asyncio.sleep(0.5)  # further exports fail
    began = time.monotonic()
    await stopped(process)
    assert time.monotonic() - began < 8
    for signal_name in ("traces", "metrics"):
        assert (
            process.logged(f"cannot export {signal_name} to the collector of OTEL_EXPORTER_OTLP_ENDPOINT")
            == 1
        )
    server.close()
    assert not [line for line in process.lines if not line.startswith("{")]  # gRPC writes past the log


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_collector_with_tls(serve: Serve, provider: Provider, tmp_path: Path, protocol: str) -> None:
    """Its certificate is verified with the authorities in `OTEL_EXPORTER_OTLP_CERTIFICATE`. Lines of
    OpenTelemetry are logged at the level `debug` only."""
    authority = Authority(tmp_path)
    context, pem = authority.server("localhost"), (tmp_path / "server.pem").read_bytes()
    async with grpc_collector(pem=pem) if protocol == "grpc" else http_collector(tls=context) as collector:
        environ = provider.environment(
            **collector.environment(OTEL_METRIC_EXPORT_INTERVAL="100", OTEL_EXPORTER_OTLP_TIMEOUT="500"),
        )
        trusting = {**environ, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(authority.bundle)}
        process = await serve({**trusting, "ENTRA_FAST_LOG_LEVEL": "debug"})
        await process.listening()

        async def exported() -> bool:
            return bool(collector.metrics)

        await eventually(exported)
        await stopped(process)
        collector.metrics.clear()
        doubting = await serve({**environ, "ENTRA_FAST_LOG_LEVEL": "debug"})

        async def warned() -> bool:
            return bool(doubting.logged("cannot export metrics"))

        await eventually(warned)
        assert doubting.logged('"logger":"opentelemetry.exporter')
        assert not collector.metrics


async def test_exports_continue_when_the_collector_is_back(serve: Serve, provider: Provider) -> None:
    """A line says so, and the totals of the meantime are there."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    environ = provider.environment(
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_METRICS_TIMEOUT="500",
        OTEL_METRIC_EXPORT_INTERVAL="100",
    )
    process = await serve(environ)
    caller = await process.listening()

    async def logged(text: str) -> None:
        async def so() -> bool:
            return bool(process.logged(text))

        await eventually(so)

    await logged("cannot export metrics to the collector of OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    assert (await caller.send(introspection("a"))).status == 200
    async with grpc_collector(port) as collector:
        await logged("exporting metrics again")
        await stopped(process)
        assert (
            series(collector.last_metrics()["entra_fast_introspections_total"])["false", "entra_id"].as_int
            == 1
        )
        assert collector.traces == []


async def test_grpc_is_loaded_only_where_it_is_used(
    collector: Collector, serve: Serve, provider: Provider
) -> None:
    """It takes 9 MB of memory: only those who ask for it pay for it."""
    process = await serve(provider.environment(**collector.environment()))
    await process.listening()
    await exporting(process)
    assert ("cygrpc" in mapped_files(process.process.pid)) == (collector.protocol == "grpc")


async def test_a_replaced_worker_exports_too(serve: Serve, provider: Provider) -> None:
    """Although gRPC is in use in the process that starts it. The counts of the one that ended are kept."""
    async with grpc_collector() as collector:
        environ = collector.environment(OTEL_METRIC_EXPORT_INTERVAL="100")
        process = await serve(provider.environment(**environ, ENTRA_FAST_WORKERS="2"))
        caller = await process.listening()
        await exporting(process, 3)
        for _ in range(4):
            assert (await caller.send(introspection("a"))).status == 200
        await asyncio.sleep(1.2)  # the provider process has asked for their figures
        first = children(process.process.pid)[0]
        os.kill(first, signal.SIGKILL)
        await exporting(process, 4)
        assert first not in children(process.process.pid)
        await stopped(process)
        last = collector.last_metrics()
        assert series(last["entra_fast_introspections_total"])["false", "entra_id"].as_int == 4
        assert series(last["entra_fast_worker_restarts_total"])["ended",].as_int == 1
