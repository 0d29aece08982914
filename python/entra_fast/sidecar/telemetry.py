"""Exports spans and metrics by OTLP, in a thread of its own.

What belongs here: loading OpenTelemetry's SDK and its exporters, when to export, and what happens when that
fails. What must never be here: the variables (otlp.py), the content of spans (tracing.py) and of metrics
(metric_export.py).

The SDK takes a fifth of a second to load, and gRPC 9 MB of memory, so both are loaded when the start is over,
and only those parts that the protocol needs. Requests that arrive before that make no spans.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from entra_fast import _clock, _extras, _native
from entra_fast._metric_kinds import Merged
from entra_fast.sidecar.logs import Silence, logger
from entra_fast.sidecar.otlp import GRPC, HTTP, OFF, Exporter, Otlp, resource_attributes
from entra_fast.sidecar.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    from entra_fast.sidecar.span_export import FastPathSpans

Collect = Callable[[], Awaitable[Sequence[Merged]]]
"""Returns the metrics of the whole sidecar."""

FLUSH_LIMIT = 2.0
"""Seconds for the last export. A collector that does not answer must not hold up the end of the process."""
COLLECT_LIMIT = 5.0
"""Seconds for the figures of all processes."""

POLL = 0.02
"""Seconds between two looks at whether the start is over."""
_BEGAN: Final = time.time_ns()
"""Nothing is counted before this module is imported."""

_PACKAGES: Final = {
    HTTP: "opentelemetry-exporter-otlp-proto-http",
    GRPC: "opentelemetry-exporter-otlp-proto-grpc",
}


def usable(otlp: Otlp) -> Otlp:
    """What can be exported with the packages that are installed. Warns about one that is missing."""
    exporters = [exporter for exporter in (otlp.traces, otlp.metrics) if exporter is not None]
    protocols = {exporter.protocol for exporter in exporters}
    unused = [package for protocol, package in _PACKAGES.items() if protocol not in protocols]
    package = _extras.absent("otel", dispensable=unused) if exporters else None
    if package is None:
        return otlp
    needs = _extras.sentence("otel", package, "OpenTelemetry")
    logger.warning("no telemetry, although %s is set: %s", exporters[0].variable, needs)
    return OFF


class Telemetry:
    """Exports what the environment asks for. Belongs to one event loop.

    Args:
        otlp: what is exported, and to where.
        tracing: makes the spans; None if there are none.
        has_started: whether the start of the sidecar is over. Called from any thread.
        collect: the metrics; None in a process that exports none.
    """

    def __init__(
        self,
        otlp: Otlp,
        tracing: Tracing | None,
        has_started: Callable[[], bool],
        collect: Collect | None = None,
    ) -> None:
        self._otlp = otlp
        self._tracing = tracing if otlp.traces is not None else None
        self._collect = collect if otlp.metrics is not None else None
        self._has_started = has_started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._ended = asyncio.Event()
        self._spans: TracerProvider | None = None
        self._fast_path_spans: FastPathSpans | None = None
        self._metrics: Callable[[Sequence[Merged]], None] | None = None

    def start(self) -> None:
        """Begin to export, in the background."""
        if self._tracing is not None or self._collect is not None:
            self._loop = asyncio.get_running_loop()
            # A daemon: it may be waiting for a collector when the process ends.
            threading.Thread(target=self._run, name="telemetry", daemon=True).start()

    async def aclose(self) -> None:
        """Export for the last time. Returns after `FLUSH_LIMIT` seconds at the latest."""
        if self._loop is not None and not self._stop.is_set():
            self._stop.set()
            try:
                async with asyncio.timeout(FLUSH_LIMIT):
                    await self._ended.wait()
            except TimeoutError:
                logger.warning("the last spans or metrics were not exported: the collector does not answer")

    # --- in the thread ---

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101 - `start` has set it
        try:
            while not self._has_started() and not self._stop.wait(POLL):
                pass
            if not self._stop.is_set():
                self._load()
            while not self._stop.wait(self._otlp.interval):
                self._export_metrics()
            self._export_metrics()
            if self._fast_path_spans is not None:
                self._fast_path_spans.close()
            if self._spans is not None:
                self._spans.shutdown()
        except Exception as error:
            # Its text may quote a variable.
            logger.warning("telemetry has ended", extra={"fields": {"because": type(error).__name__}})
        with contextlib.suppress(RuntimeError):  # `aclose` no longer waits, and the loop is closed
            self._loop.call_soon_threadsafe(self._ended.set)

    def _load(self) -> None:
        if logging.getLogger().level > logging.DEBUG:
            # A line for each failed export; `_Watched` has better ones.
            logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC writes to standard error past Python's logging
        resource = _resource()
        fields: dict[str, str] = {}
        if self._tracing is not None and self._otlp.traces is not None:
            self._begin_spans(self._tracing, self._otlp.traces, resource)
            fields["traces"] = f"{self._otlp.traces.protocol} {self._otlp.traces.address}"
        if self._collect is not None and self._otlp.metrics is not None:
            from entra_fast.sidecar.metric_export import MetricExport  # noqa: PLC0415 - needs the extra

            exporter = _Watched(_exporter(self._otlp.metrics), self._otlp.metrics)
            exports = MetricExport(exporter, resource, since=_BEGAN, delta=self._otlp.delta)
            self._metrics = exports.export
            fields["metrics"] = f"{self._otlp.metrics.protocol} {self._otlp.metrics.address}"
        logger.info("exporting telemetry", extra={"fields": fields})

    def _begin_spans(self, tracing: Tracing, settings: Exporter, resource: Resource) -> None:
        from entra_fast.sidecar import span_export  # noqa: PLC0415 - needs the extra

        exporter = _exporter(settings)
        watched = _Watched(exporter, settings)
        self._spans = _tracer_provider(self._otlp, watched, resource)
        recorder = None
        if tracing.fast_path is not None and span_export.takes_encoded(exporter):
            self._fast_path_spans = span_export.FastPathSpans(
                self._otlp, resource, tracing.fast_path.providers, watched.export
            )
            recorder = self._fast_path_spans.recorder
        tracing.begin_with(self._spans, recorder)

    def _export_metrics(self) -> None:
        if self._metrics is None or self._collect is None or self._loop is None:
            return
        collected = asyncio.run_coroutine_threadsafe(_collected(self._collect), self._loop)
        try:
            merged = collected.result(COLLECT_LIMIT)
        except TimeoutError:
            collected.cancel()
            logger.warning("metrics were not exported: the processes did not report their figures in time")
            return
        self._metrics(merged)


async def _collected(collect: Collect) -> Sequence[Merged]:
    return await collect()


def _resource() -> Resource:
    """What sends the telemetry: what the environment says, and what it leaves out. Each process is an
    instance of its own."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra

    ours = {
        "service.name": "entra-fast",
        "service.version": _native.__version__,
        "service.instance.id": str(uuid.uuid4()),
    }
    given = resource_attributes()
    return Resource.create({name: value for name, value in ours.items() if not given.get(name)})


def _tracer_provider(otlp: Otlp, exporter: Any, resource: Resource) -> TracerProvider:
    """For the spans of the slow path and of requests to providers."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    from entra_fast.sidecar.span_export import sampler  # noqa: PLC0415

    # `Telemetry.aclose` has a limit.
    provider = TracerProvider(resource=resource, sampler=sampler(otlp), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=otlp.queue, max_export_batch_size=otlp.batch)
    )
    return provider


def _exporter(settings: Exporter) -> Any:
    """OpenTelemetry's exporter of a signal. A collector that is asked over plain http is asked without a
    proxy, like a provider (docs/reference/settings.md, HTTP_PROXY)."""
    options: dict[str, Any] = {"endpoint": settings.endpoint, "timeout": settings.timeout}
    if settings.headers:
        options["headers"] = dict(settings.headers)
    if settings.protocol == GRPC:
        from grpc import Compression as GrpcCompression  # noqa: PLC0415 - an extra

        options["insecure"] = settings.insecure
        if settings.insecure:
            options["channel_options"] = (("grpc.enable_http_proxy", 0),)
        options["compression"] = GrpcCompression.Gzip if settings.gzip else GrpcCompression.NoCompression
    else:
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415 - an extra

        options["compression"] = Compression.Gzip if settings.gzip else Compression.NoCompression
        if settings.insecure:
            import requests  # noqa: PLC0415 - of the extra, too

            options["session"] = requests.Session()
            options["session"].trust_env = False
    return _exporter_class(settings)(**options)


def _exporter_class(settings: Exporter) -> Callable[..., Any]:
    # Only what is used is loaded.
    if settings.signal == "traces":
        from entra_fast.sidecar import span_export  # noqa: PLC0415 - needs the extra

        over_grpc = settings.protocol == GRPC
        return span_export.exporter_over_grpc() if over_grpc else span_export.exporter_over_http()
    if settings.protocol == GRPC:
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc  # noqa: PLC0415

        return grpc.OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http  # noqa: PLC0415

    return http.OTLPMetricExporter


class _Watched:
    """An exporter whose failures are one line at a time instead of one for each attempt. Threads take turns:
    the two that export spans share it.

    Args:
        exporter: OpenTelemetry's, for spans or metrics.
        settings: its settings.
    """

    def __init__(
        self, exporter: Any, settings: Exporter, monotonic: Callable[[], float] = _clock.monotonic
    ) -> None:
        self._exporter = exporter
        self._settings = settings
        self._monotonic = monotonic
        self._silence = Silence()
        self._failing = False
        self._turn = threading.Lock()

    def export(self, batch: Any) -> Any:
        """Like the exporter's. What it raises stays here."""
        with self._turn:
            try:
                result = self._exporter.export(batch)
            except Exception as error:
                self._has_failed(type(error).__name__)
                return None
            if result.name == "SUCCESS":
                self._has_succeeded()
            else:
                self._has_failed(None)
            return result

    def shutdown(self) -> None:
        """Like the exporter's."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Nothing waits here."""
        return True

    def _has_failed(self, error: str | None) -> None:
        self._failing = True
        now = self._monotonic()
        if now < self._silence.until:
            return
        self._silence.begin(now)
        fields = {"protocol": self._settings.protocol, "address": self._settings.address}
        if error is not None:
            fields["error"] = error
        logger.warning(
            "cannot export %s to the collector of %s",
            self._settings.signal,
            self._settings.variable,
            extra={"fields": fields},
        )

    def _has_succeeded(self) -> None:
        if self._failing:
            self._failing = False
            logger.info("exporting %s again", self._settings.signal)
