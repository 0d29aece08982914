"""An OpenTelemetry collector as far as exporters see it: real servers for OTLP over gRPC and over HTTP, which
keep what they receive."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as a dictionary."""
    found: dict[str, Any] = {}
    each: KeyValue
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found


@dataclass
class Collector:
    """What was received.

    Attributes:
        endpoint: for `OTEL_EXPORTER_OTLP_ENDPOINT`.
        protocol: for `OTEL_EXPORTER_OTLP_PROTOCOL`.
        headers: of each request.
        raw: the bytes of each request.
    """

    protocol: str
    endpoint: str = ""
    traces: list[trace_service.ExportTraceServiceRequest] = field(default_factory=list)
    metrics: list[metrics_service.ExportMetricsServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def environment(self, **more: str) -> dict[str, str]:
        """What NAIS injects, with this collector."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_SERVICE_NAME": "texas",
            "OTEL_RESOURCE_ATTRIBUTES": (
                "service.name=texas,service.namespace=team-a,downstream.app.name=app-a,"
                "downstream.app.namespace=team-a,downstream.cluster.name=dev-gcp,nais.pod.name=app-a-1"
            ),
            **more,
        }

    @property
    def spans(self) -> list[tuple[dict[str, Any], Span]]:
        """All spans, each with the attributes of its resource."""
        return [
            (values(resource.resource.attributes), span)
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def span(self, name: str) -> Span:
        """The only span of that name."""
        (found,) = [span for _, span in self.spans if span.name == name]
        return found

    @property
    def resources_of_metrics(self) -> list[dict[str, Any]]:
        """Of each export of metrics."""
        return [
            values(resource.resource.attributes)
            for request in self.metrics
            for resource in request.resource_metrics
        ]

    def exports(self) -> Iterator[dict[str, Metric]]:
        """The metrics of each export, by name."""
        for request in self.metrics:
            yield {
                metric.name: metric
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }

    def last_metrics(self) -> dict[str, Metric]:
        """The metrics of the last export, by name."""
        return list(self.exports())[-1]

    def keep(self, request: Any, headers: dict[str, str]) -> None:
        kept: list[Any] = self.traces if "Trace" in type(request).__name__ else self.metrics
        kept.append(request)
        self.headers.append(headers)
        self.raw.append(request.SerializeToString())


@asynccontextmanager
async def grpc_collector(port: int = 0, *, pem: bytes | None = None) -> AsyncIterator[Collector]:
    """A collector for OTLP over gRPC, on loopback; with TLS if there are a key and a certificate."""
    collector = Collector("grpc")

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            collector.keep(request, dict(context.invocation_metadata()))
            return trace_service.ExportTraceServiceResponse()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            collector.keep(request, dict(context.invocation_metadata()))
            return metrics_service.ExportMetricsServiceResponse()

    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)  # type: ignore[no-untyped-call]
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)  # type: ignore[no-untyped-call]
    if pem is None:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        collector.endpoint = f"http://127.0.0.1:{bound}"
    else:
        bound = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(pem, pem)]))
        collector.endpoint = f"https://localhost:{bound}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_collector(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    """A collector for OTLP over HTTP, on loopback."""
    collector = Collector("http/protobuf")

    def service(kind: Any) -> Any:
        async def export(request: web.Request) -> web.Response:
            body = await request.read()
            if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
                body = gzip.decompress(body)
            collector.keep(kind.FromString(body), {k.lower(): v for k, v in request.headers.items()})
            return web.Response(content_type="application/x-protobuf")

        return export

    app = web.Application()
    app.router.add_post("/v1/traces", service(trace_service.ExportTraceServiceRequest))
    app.router.add_post("/v1/metrics", service(metrics_service.ExportMetricsServiceRequest))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    host = "http://127.0.0.1" if tls is None else "https://localhost"
    collector.endpoint = f"{host}:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()
