"""Parts of telemetry that a sidecar with a collector does not show: what is missing, late or wrong."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from yarl import URL

from entra_fast import _extras
from entra_fast._metric_kinds import Merged
from entra_fast._metrics import Metrics
from entra_fast.sidecar import telemetry, tracing
from entra_fast.sidecar.metric_export import MetricExport, unit
from entra_fast.sidecar.otlp import GRPC, HTTP, OFF, Exporter, Otlp
from entra_fast.sidecar.telemetry import Telemetry, _Watched, usable

METRICS = Otlp(
    metrics=Exporter("metrics", HTTP, "http://127.0.0.1:9/v1/metrics", "OTEL_EXPORTER_OTLP_ENDPOINT")
)
TRACES = Otlp(
    traces=Exporter("traces", GRPC, "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_ENDPOINT", insecure=True)
)


async def nothing() -> Sequence[Merged]:
    return ()


def test_a_missing_extra_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only if telemetry is wanted; it names the variable, and says what to install."""
    monkeypatch.setattr(_extras, "_is_there", lambda module: module != "opentelemetry.sdk")
    assert usable(OFF) == OFF
    assert caplog.records == []
    assert usable(TRACES) == OFF
    (record,) = caplog.records
    assert record.getMessage() == (
        "no telemetry, although OTEL_EXPORTER_OTLP_ENDPOINT is set: OpenTelemetry needs the package "
        "'opentelemetry-sdk': pip install 'entra-fast[otel]'"
    )


def test_the_exporter_of_the_other_protocol_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who exports over HTTP can do without gRPC, and the other way round."""
    monkeypatch.setattr(_extras, "_is_there", lambda module: not module.endswith(".grpc"))
    assert usable(METRICS) == METRICS
    assert usable(TRACES) == OFF


async def test_without_anything_to_export_there_is_no_thread() -> None:
    """Nothing is started, so nothing has to be closed."""
    before = threading.active_count()
    for otlp, collect in ((OFF, nothing), (METRICS, None)):
        idle = Telemetry(otlp, None, lambda: True, collect)
        idle.start()
        assert threading.active_count() == before
        await idle.aclose()


async def test_a_process_that_ends_before_its_start_is_over_loads_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And does not wait."""
    early = Telemetry(METRICS, None, lambda: False, nothing)
    early.start()
    await early.aclose()
    await early.aclose()
    assert caplog.records == []


async def test_what_cannot_be_loaded_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the kind of the error only: its text may quote a variable. The sidecar goes on."""

    def fail(_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(telemetry, "_exporter", fail)
    broken = Telemetry(METRICS, None, lambda: True, nothing)
    broken.start()
    await asyncio.wait_for(broken._ended.wait(), 30)
    await broken.aclose()
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["fields"]) == (
        "telemetry has ended",
        {"because": "RuntimeError"},
    )


async def test_figures_that_do_not_come_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A line says so, and the next export tries again. The last one has a limit as well."""
    exported: list[object] = []
    monkeypatch.setattr(telemetry, "COLLECT_LIMIT", 0.01)
    monkeypatch.setattr(telemetry, "_exporter", lambda _: SimpleNamespace(export=exported.append))
    late = asyncio.Event()

    async def collect() -> Sequence[Merged]:
        await late.wait()
        return ()

    slow = Telemetry(METRICS, None, lambda: True, collect)
    slow.start()
    await slow.aclose()
    assert "metrics were not exported: the processes did not report their figures in time" in caplog.text
    assert exported == []

    caplog.clear()
    monkeypatch.setattr(telemetry, "COLLECT_LIMIT", 5.0)
    monkeypatch.setattr(telemetry, "FLUSH_LIMIT", 0.01)
    stuck = Telemetry(METRICS, None, lambda: True, collect)
    stuck.start()
    await stuck.aclose()
    assert "the last spans or metrics were not exported: the collector does not answer" in caplog.text
    late.set()
    await asyncio.wait_for(stuck._ended.wait(), 30)


def test_failures_are_reported_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever an exporter raises stays here; a success after failures is a line, too."""
    now = 0.0
    result: Any = SimpleNamespace(name="FAILURE")

    class Inner:
        closed = False

        def export(self, batch: object) -> Any:
            if batch is None:
                raise ValueError("secret")
            return result

        def shutdown(self) -> None:
            self.closed = True

    assert TRACES.traces is not None
    inner = Inner()
    watched = _Watched(inner, TRACES.traces, lambda: now)
    assert watched.export(None) is None
    assert watched.export([1]) is result
    (record,) = caplog.records
    assert record.getMessage() == "cannot export traces to the collector of OTEL_EXPORTER_OTLP_ENDPOINT"
    assert vars(record)["fields"] == {"protocol": "grpc", "address": "127.0.0.1:9", "error": "ValueError"}
    now = 61.0
    watched.export([1])
    assert len(caplog.records) == 2
    assert "error" not in vars(caplog.records[1])["fields"]
    result = SimpleNamespace(name="SUCCESS")
    caplog.set_level("INFO", "entra_fast")
    watched.export([1])
    watched.export([1])
    assert [record.getMessage() for record in caplog.records[2:]] == ["exporting traces again"]
    assert watched.force_flush()
    watched.shutdown()
    assert inner.closed


def test_the_environment_says_who_sends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name and instance are those of the environment; without them, ours and a random one."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.instance.id=b")
    attributes = telemetry._resource().attributes
    assert (attributes["service.name"], attributes["service.instance.id"]) == ("a", "b")
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES")
    attributes = telemetry._resource().attributes
    assert attributes["service.name"] == "entra-fast"
    assert attributes["service.instance.id"] != "b"


def test_units_are_in_the_names() -> None:
    """In UCUM. A plain number has none."""
    assert unit("entra_fast_request_duration_seconds") == "s"
    assert unit("process_cpu_seconds_total") == "s"
    assert unit("entra_fast_memory_limit_bytes") == "By"
    assert unit("entra_fast_requests_total") == ""


def test_an_increase_is_counted_from_the_last_export() -> None:
    """A series that is new has begun at 0, and a gauge is never an increase."""
    sent: list[Any] = []
    export = MetricExport(SimpleNamespace(export=sent.append), Resource({}), since=7, delta=True)
    metrics = Metrics(texas={})
    metrics.workers.read_from(lambda: 4)
    metrics.watch_texas_cache_size(lambda: {"entries": 3, "exchanged": 1})
    for _ in range(2):
        metrics.requests.add("token", "200", "me", amount=2)
        export.export(metrics.merged())
    metrics.requests.add("token", "500", "me")
    export.export(metrics.merged())

    def of(number: int, name: str) -> Any:
        (scope,) = sent[number].resource_metrics[0].scope_metrics
        return next(metric.data for metric in scope.metrics if metric.name == name)

    values = [[point.value for point in of(i, "entra_fast_requests_total").data_points] for i in range(3)]
    assert values == [[2], [2], [0, 1]]
    starts = [of(i, "entra_fast_requests_total").data_points[0].start_time_unix_nano for i in range(3)]
    assert starts[0] == 7
    assert starts == sorted(set(starts))
    assert {of(i, "entra_fast_workers").data_points[0].value for i in range(3)} == {4.0}
    sizes = of(2, "texas_token_cache_size")
    assert {point.value for point in sizes.data_points} == {1.0, 2.0}
    assert {point.start_time_unix_nano for point in sizes.data_points} == {7}
    assert int(sizes.aggregation_temporality) == 2  # cumulative


def test_no_context_where_opentelemetry_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without telemetry sends none, and a message with one is no reason to load it."""
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    with tracing.continued(headers):
        assert tracing.current() == headers
    assert tracing.current() == {}
    assert tracing.received({**headers, "tracestate": 1, "target": "x"}) == headers
    with tracing.continued({}):
        assert tracing.current() == {}
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with tracing.continued(headers):
        assert tracing.current() == {}
    assert tracing.begin(OFF) is None


async def test_without_propagation_a_caller_s_context_means_nothing() -> None:
    """`OTEL_PROPAGATORS=none`: spans are roots, and the provider gets no context."""
    traced = tracing.Tracing(propagates=False)
    traced.begin_with(TracerProvider())
    request: Any = SimpleNamespace(method="BREW", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    with traced.server_span(request, "/api/v1/token"):
        (traceparent,) = tracing.current().values()
        assert "a" * 32 not in traceparent
    config = traced.client_trace("entra_id")
    config.freeze()
    state = SimpleNamespace()
    parameters: Any = SimpleNamespace(method="GET", url=URL("https://u:p@h/x?q"), headers={})
    session: Any = None
    await config.on_request_start.send(session, state, parameters)
    assert parameters.headers == {}
    assert state.span.attributes["url.full"] == "https://h/x"
    assert state.span.attributes["server.port"] == 443


async def test_before_it_has_begun_tracing_makes_no_spans() -> None:
    """The SDK is loaded when the start is over; requests before that are handled without."""
    waiting = tracing.begin(TRACES)
    assert waiting is not None
    request: Any = SimpleNamespace(method="POST", headers={})
    with waiting.server_span(request, "/api/v1/token") as span:
        span.describe({"a": "b"})
        span.answered(200)
    config = waiting.client_trace("entra_id")
    config.freeze()
    session: Any = None
    state = SimpleNamespace()
    parameters: Any = SimpleNamespace(method="GET", url=None, headers={})
    await config.on_request_start.send(session, state, parameters)
    await config.on_request_end.send(session, state, parameters)
    await config.on_request_exception.send(session, state, parameters)
    assert state.span is None
