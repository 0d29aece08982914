"""Exports the spans that the fast path records, and sends them as the bytes that native code has encoded.

What belongs here: the recorder as the environment and the SDK want it, the thread that empties it, and
OpenTelemetry's exporters for a message that is ready. What must never be here: the content of spans
(rust/core/src/sidecar/otlp.rs), and which exporter there is (telemetry.py). Imports OpenTelemetry's SDK: only
telemetry.py imports this module.

The SDK's spans cost some 100 microseconds each, so the fast path makes none. Its message equals the one that
the exporters would make of such spans.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased

from entra_fast import _native
from entra_fast.sidecar.otlp import Otlp
from entra_fast.sidecar.tracing import SCOPE

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource


@dataclass(frozen=True, slots=True)
class Encoded:
    """What is exported instead of a sequence of spans.

    Attributes:
        message: an `ExportTraceServiceRequest`, encoded.
        count: how many spans it has.
    """

    message: bytes
    count: int


def exporter_over_grpc() -> type[Any]:
    """OpenTelemetry's exporter, whose `export` takes `Encoded`, too."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - gRPC

    class ExporterOverGrpc(OTLPSpanExporter):
        def _translate_data(self, data: Sequence[ReadableSpan] | Encoded) -> Any:
            if isinstance(data, Encoded):
                return ExportTraceServiceRequest.FromString(data.message)
            return super()._translate_data(data)

        def _count_data(self, data: Sequence[ReadableSpan] | Encoded) -> int:
            return data.count if isinstance(data, Encoded) else len(data)

    return ExporterOverGrpc


def exporter_over_http() -> type[Any]:
    """OpenTelemetry's exporter, whose `export` takes `Encoded`, too, if `takes_encoded`."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    class ExporterOverHttp(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan] | Encoded) -> SpanExportResult:
            if isinstance(spans, Encoded):
                sent = self._client.export(spans.message).success
                return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE
            return super().export(spans)

    return ExporterOverHttp


def takes_encoded(exporter: object) -> bool:
    """Whether an exporter has the private parts that this module needs. Where one has not, in another version
    of OpenTelemetry, the slow path makes all spans."""
    return hasattr(exporter, "_client") and (
        hasattr(exporter, "_translate_data") or hasattr(exporter._client, "export")
    )


def sampler(otlp: Otlp) -> Sampler:
    """The SDK's, for the slow path."""
    root = TraceIdRatioBased(otlp.ratio)
    return ParentBased(root) if otlp.parent_based else root


class FastPathSpans:
    """Empties the recorder of the fast path, in a thread of its own.

    Args:
        otlp: sizes, times and the sampler.
        providers: the names of the enabled ones, by position.
        export: sends an export.

    Attributes:
        recorder: for the fast path.
    """

    def __init__(
        self,
        otlp: Otlp,
        resource: Resource,
        providers: Sequence[str],
        export: Callable[[Encoded], object],
    ) -> None:
        self._delay = otlp.delay
        self._export = export
        self._due = threading.Event()
        self._stopping = False
        limits, frames = SpanLimits(), _frames(resource)
        self.recorder = _native.SpanRecorder(
            providers,
            parent_based=otlp.parent_based,
            bound=TraceIdRatioBased(otlp.ratio).bound,
            propagates=otlp.propagates,
            queue=otlp.queue,
            batch=otlp.batch,
            resource=frames[0],
            scope=frames[1],
            max_attributes=limits.max_span_attributes,
            max_characters=limits.max_span_attribute_length,
            batch_is_full=self._due.set,
        )
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Export what is left. Returns when the collector has answered."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._due.wait(self._delay)
            self._due.clear()
            while (waiting := self.recorder.take()) is not None:
                self._export(Encoded(*waiting))


def _frames(resource: Resource) -> tuple[bytes, bytes]:
    """A `ResourceSpans` without `scope_spans`, and a `ScopeSpans` without `spans`, as the SDK makes them."""
    provider = TracerProvider(resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False)
    span = provider.get_tracer(SCOPE).start_span("")
    assert isinstance(span, ReadableSpan)  # noqa: S101 - it is sampled
    (in_resource,) = encode_spans([span]).resource_spans
    (in_scope,) = in_resource.scope_spans
    del in_scope.spans[:]
    scope = in_scope.SerializeToString()
    del in_resource.scope_spans[:]
    return in_resource.SerializeToString(), scope
