"""OpenTelemetry spans, if OpenTelemetry is installed and configured to send them.

What belongs here: one server span for each request of the API that takes the slow path, one client span for
each request to the provider. What must never be here: anything that was sent. Attributes are the method, the
route that matched, the status, and the provider's address; never a header, a query, a body, or the text of an
error.

Requests on the fast path create no spans, but a request whose `traceparent` is sampled never takes the fast
path while tracing is on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from entra_fast import _extras
from entra_fast.sidecar.logs import Trace, logger

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web
    from opentelemetry.trace import Span, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""If one of these variables is set, spans are sent to its address (OTLP over HTTP)."""
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
"""The only supported protocol. A gRPC endpoint does not accept it."""
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")


def begin(environ: Mapping[str, str] | None = None) -> Tracing | None:
    """Tracing, if a tracer provider is configured or the environment names an endpoint; else None.

    Args:
        environ: by default the process's environment, which OpenTelemetry itself reads in any case
            (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and so on).
    """
    environ = os.environ if environ is None else environ
    wanted = any(environ.get(name) for name in ENDPOINTS)
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # none is configured
            if not wanted:
                return None
            protocol = next(filter(None, map(environ.get, PROTOCOLS)), PROTOCOL)
            if protocol != PROTOCOL:
                fields = {"protocol": protocol[:32], "expected": PROTOCOL}
                logger.warning("no traces: the protocol is not supported", extra={"fields": fields})
                return None
            trace.set_tracer_provider(_exporting_provider(environ))
    except ImportError:
        if wanted:
            package = _extras.absent("otel") or "opentelemetry-sdk"
            logger.warning("no traces: %s", _extras.sentence("otel", package, "OpenTelemetry"))
        return None
    Trace.fields = staticmethod(_trace_fields)
    provider = trace.get_tracer_provider()
    return Tracing(provider.get_tracer("entra_fast"), getattr(provider, "force_flush", None))


def _trace_fields() -> Mapping[str, str]:
    """What connects a log line with the current span."""
    from opentelemetry import trace  # noqa: PLC0415

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
        "trace_flags": f"{context.trace_flags:02x}",
    }


def _exporting_provider(environ: Mapping[str, str]) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = environ.get("OTEL_SERVICE_NAME")
    provider = TracerProvider(resource=Resource.create({} if name else {"service.name": "entra-fast"}))
    # The process waits for its last spans when it ends. OpenTelemetry's default of 10 s is too long for a
    # drain.
    timeout = None if any(environ.get(name) for name in TIMEOUTS) else 2
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=timeout)))
    return provider


class Tracing:
    """Creates the spans. `begin` returns an instance if tracing is configured.

    Args:
        tracer: creates the spans.
        flush: sends the spans that are waiting; None if the tracer provider cannot.
    """

    def __init__(self, tracer: Tracer, flush: Callable[[], object] | None = None) -> None:
        self._tracer = tracer
        self._flush = flush

    def flush(self) -> None:
        """Send the waiting spans, for a process that exits without Python's own clean-up."""
        if self._flush is not None:
            self._flush()

    @contextlib.contextmanager
    def server_span(self, request: web.Request, route: str) -> Iterator[Span]:
        """A span for the handling of a request; a child of the caller's span, if `traceparent` names one."""
        from opentelemetry import propagate  # noqa: PLC0415
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        method = request.method if request.method in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=propagate.extract(request.headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route, "url.scheme": "http"},
            record_exception=False,  # its text may contain anything
            set_status_on_exception=False,
        ) as span:
            yield span

    def answered(self, span: Span, status: int) -> None:
        """End a server span with the status of the response."""
        _conclude(span, status, 500)

    def client_trace(self) -> aiohttp.TraceConfig:
        """For an aiohttp client session: a client span around each request."""
        import aiohttp  # noqa: PLC0415
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        async def started(
            _: aiohttp.ClientSession, state: SimpleNamespace, started: aiohttp.TraceRequestStartParams
        ) -> None:
            url = started.url
            attributes = {"http.request.method": started.method, "server.address": url.host or ""}
            state.span = self._tracer.start_span(
                started.method,
                kind=SpanKind.CLIENT,
                attributes={**attributes, "server.port": url.port or 0, "url.path": url.path},
            )

        async def ended(
            _: aiohttp.ClientSession, state: SimpleNamespace, ended: aiohttp.TraceRequestEndParams
        ) -> None:
            _conclude(state.span, ended.response.status, 400)
            state.span.end()

        async def failed(
            _: aiohttp.ClientSession, state: SimpleNamespace, failed: aiohttp.TraceRequestExceptionParams
        ) -> None:
            _fail(state.span, type(failed.exception).__name__)
            state.span.end()

        config = aiohttp.TraceConfig()
        config.on_request_start.append(started)
        config.on_request_end.append(ended)
        config.on_request_exception.append(failed)
        return config


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
"""Others count as `_OTHER` (OpenTelemetry's semantic conventions for HTTP)."""


def _conclude(span: Span, status: int, error_from: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= error_from:
        _fail(span, str(status))


def _fail(span: Span, kind: str) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415

    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR)
