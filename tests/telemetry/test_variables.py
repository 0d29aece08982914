"""OpenTelemetry's variables: what they mean, and that a wrong one is a warning that names it."""

from __future__ import annotations

import pytest

from entra_fast.sidecar.otlp import GRPC, HTTP, OFF, Exporter, read, resource_attributes

GENERAL = "OTEL_EXPORTER_OTLP_ENDPOINT"


def exporter(environ: dict[str, str]) -> Exporter:
    found = read({**environ, "OTEL_METRICS_EXPORTER": "none"}).traces
    assert found is not None
    return found


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {GENERAL: ""},
        {"OTEL_SERVICE_NAME": "a"},
        {GENERAL: "http://c:4317", "OTEL_SDK_DISABLED": "true"},
        {GENERAL: "http://c:4317", "OTEL_SDK_DISABLED": "TRUE"},
        {GENERAL: "http://c:4317", "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_nothing_is_exported_unless_it_is_wanted(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Without an endpoint, or when it is turned off; and nothing is said about it."""
    read_ = read(environ)
    assert (read_.traces, read_.metrics) == (None, None)
    assert caplog.records == []


def test_what_nais_injects() -> None:
    """Traces and metrics by gRPC without TLS, to the same collector."""
    environ = {
        GENERAL: "http://collector.nais-system:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
        "OTEL_SERVICE_NAME": "texas",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=texas,downstream.app.name=app-a",
    }
    otlp = read(environ)
    for signal in (otlp.traces, otlp.metrics):
        assert signal is not None
        assert (signal.protocol, signal.endpoint) == (GRPC, "http://collector.nais-system:4317")
        assert (signal.insecure, signal.timeout, signal.gzip, signal.headers) == (True, 10.0, False, {})
        assert signal.address == "collector.nais-system:4317"
    assert (otlp.interval, otlp.delta, otlp.propagates) == (60.0, False, True)
    assert (otlp.queue, otlp.batch, otlp.delay) == (2048, 512, 5.0)
    assert (otlp.parent_based, otlp.ratio) == (True, 1.0)
    assert resource_attributes(environ) == {"service.name": "texas", "downstream.app.name": "app-a"}


@pytest.mark.parametrize(
    ("endpoint", "protocol", "expected"),
    [
        # The protocol decides; without one, the port does.
        ("http://c:4318", None, (HTTP, "http://c:4318/v1/traces", True)),
        ("http://c:4317", None, (GRPC, "http://c:4317", True)),
        ("http://c:4318/", "http/protobuf", (HTTP, "http://c:4318/v1/traces", True)),
        ("https://c/base/", "http/protobuf", (HTTP, "https://c/base/v1/traces", False)),
        ("https://c:4317", "grpc", (GRPC, "https://c:4317", False)),
        ("https://c", "GRPC", (GRPC, "https://c:4317", False)),
        ("HTTP://c/ignored", "grpc", (GRPC, "http://c:4317", True)),
        ("http://[::1]:4317", "grpc", (GRPC, "http://[::1]:4317", True)),
        # gRPC's own form of an address has TLS, unless OTEL_EXPORTER_OTLP_INSECURE says otherwise.
        ("c:4317", "grpc", (GRPC, "https://c:4317", False)),
    ],
)
def test_endpoints(endpoint: str, protocol: str | None, expected: tuple[str, str, bool]) -> None:
    """For HTTP, the path of the signal is appended to the endpoint of all signals; for gRPC there is none."""
    environ = {GENERAL: endpoint}
    if protocol is not None:
        environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    found = exporter(environ)
    assert (found.protocol, found.endpoint, found.insecure) == expected


def test_a_grpc_address_without_tls() -> None:
    """As `OTEL_EXPORTER_OTLP_INSECURE` says, which means nothing where there is a scheme."""
    environ = {
        GENERAL: "c:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    assert exporter(environ).insecure
    assert not exporter({**environ, GENERAL: "https://c:4317"}).insecure
    environ["OTEL_EXPORTER_OTLP_TRACES_INSECURE"] = "false"
    assert not exporter(environ).insecure
    assert exporter({**environ, GENERAL: "http://c:4317"}).insecure


def test_variables_of_one_signal_come_first() -> None:
    """Their URL is used as it is."""
    otlp = read(
        {
            GENERAL: "http://c:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
            "OTEL_EXPORTER_OTLP_HEADERS": "A=1,b=x%20y",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:9/path",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "500",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "c=2",
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "none",
        }
    )
    traces, metrics = otlp.traces, otlp.metrics
    assert traces is not None
    assert metrics is not None
    assert (traces.protocol, traces.endpoint, traces.variable) == (GRPC, "http://c:4317", GENERAL)
    assert (traces.timeout, dict(traces.headers), traces.gzip) == (2.0, {"a": "1", "b": "x y"}, True)
    assert (metrics.protocol, metrics.endpoint) == (HTTP, "http://m:9/path")
    assert metrics.variable == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    assert (metrics.timeout, dict(metrics.headers), metrics.gzip) == (0.5, {"c": "2"}, False)
    assert "x y" not in repr(traces)


def test_one_signal_alone() -> None:
    """Only the signal that has an endpoint is exported, without a word about the other."""
    otlp = read({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:4318/v1/metrics"})
    assert otlp.traces is None
    assert otlp.metrics is not None


def test_what_else_can_be_set() -> None:
    """The interval of metrics has a lower bound; a batch of spans cannot be larger than the queue."""
    environ = {
        GENERAL: "http://c:4317",
        "OTEL_METRIC_EXPORT_INTERVAL": "5",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta",
        "OTEL_PROPAGATORS": "none",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
    }
    otlp = read(environ)
    assert (otlp.interval, otlp.delta, otlp.propagates, otlp.queue, otlp.batch) == (
        0.1,
        True,
        False,
        100,
        100,
    )
    assert read({**environ, "OTEL_PROPAGATORS": "baggage"}).propagates is False
    assert read({**environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "7"}).batch == 7
    assert read({**environ, "OTEL_TRACES_SAMPLER": "always_off"}).traces is None
    assert read({**environ, "OTEL_BSP_SCHEDULE_DELAY": "250"}).delay == 0.25


WRONG = {
    "OTEL_SDK_DISABLED": "yes",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "brotli",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "10s",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "0",
    "OTEL_EXPORTER_OTLP_HEADERS": "secret",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "a b=secret",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "key-bin=secret",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "/does/not/exist",
    "OTEL_METRIC_EXPORT_INTERVAL": "often",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "both",
    "OTEL_BSP_MAX_QUEUE_SIZE": "0",
    "OTEL_BSP_SCHEDULE_DELAY": "-1",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many",
    "OTEL_TRACES_SAMPLER": "sometimes",
    "OTEL_PROPAGATORS": "b3",
    "OTEL_RESOURCE_ATTRIBUTES": "a=b,nonsense",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_one_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It names the variable and what is expected, never the value; everything else is exported as ever. What
    other parts read, and workers inherit, is free of it: they have nothing to warn about."""
    environ = {GENERAL: "http://c:4317", name: WRONG[name]}
    otlp = read(environ)
    assert otlp.traces is not None
    assert otlp.metrics is not None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert name in record.getMessage()
    assert "must be" in record.getMessage()
    assert WRONG[name] not in record.getMessage()
    caplog.clear()
    assert read(environ) == otlp
    assert caplog.records == []


def test_what_is_right_in_a_list_is_kept() -> None:
    """Of propagators and resource attributes."""
    environ = {
        GENERAL: "http://c:4317",
        "OTEL_PROPAGATORS": "tracecontext,b3",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b%2Cc,nonsense,=d,e=",
    }
    assert read(environ).propagates
    assert environ["OTEL_PROPAGATORS"] == "tracecontext"
    assert resource_attributes(environ) == {"a": "b,c", "e": ""}


def test_the_ratio_of_the_sampler_is_checked(caplog: pytest.LogCaptureFixture) -> None:
    """Where the sampler has one."""
    environ = {GENERAL: "http://c:4317", "OTEL_TRACES_SAMPLER_ARG": "2"}
    read({**environ, "OTEL_TRACES_SAMPLER": "always_on"})
    assert caplog.records == []
    read({**environ, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"})
    assert "OTEL_TRACES_SAMPLER_ARG" in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (GENERAL, "collector"),
        (GENERAL, "ftp://c:4317"),
        (GENERAL, "http://"),
        (GENERAL, "http://c:port"),
        (GENERAL, "http://user:secret@c:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ],
)
def test_without_a_usable_endpoint_nothing_is_exported(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for both signals, which names the variable."""
    environ = {GENERAL: "http://c:4318", name: value}
    otlp = read(environ)
    assert (otlp.traces, otlp.metrics) == (None, None)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"telemetry is incomplete: no traces and no metrics, because {name} must be "
    )
    assert "secret" not in caplog.text
    caplog.clear()
    read(environ)
    assert caplog.records == []


@pytest.mark.parametrize("value", ["console", "prometheus,console"])
def test_another_exporter_is_one_warning(value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of one signal; the other is exported."""
    otlp = read({GENERAL: "http://c:4318", "OTEL_METRICS_EXPORTER": value, "OTEL_TRACES_EXPORTER": "otlp"})
    assert otlp.metrics is None
    assert otlp.traces is not None
    (record,) = caplog.records
    assert (
        record.getMessage()
        == "telemetry is incomplete: no metrics, because OTEL_METRICS_EXPORTER must be otlp or none"
    )


def test_an_exporter_without_an_endpoint_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry's default is this machine, where a pod has no collector."""
    assert read({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}) == OFF
    (record,) = caplog.records
    assert record.getMessage() == (
        "telemetry is incomplete: no traces and no metrics, because OTEL_EXPORTER_OTLP_ENDPOINT must be set: "
        "it has no default here"
    )


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for OpenTelemetry itself."""
    for name in (GENERAL, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert read() == OFF
    assert resource_attributes()["service.name"] == "mine"


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", (True, 1.0)),
        ("parentbased_always_on", "0.5", (True, 1.0)),
        ("parentbased_always_off", "0.5", (True, 0.0)),
        ("parentbased_traceidratio", ".25", (True, 0.25)),
        ("parentbased_traceidratio", "", (True, 1.0)),
        ("PARENTBASED_TRACEIDRATIO", "2", (True, 1.0)),
        ("always_on", "0.5", (False, 1.0)),
        ("always_off", "", (False, 0.0)),
        ("traceidratio", "0", (False, 0.0)),
        ("traceidratio", "1", (False, 1.0)),
        ("sometimes", "0.5", (True, 1.0)),
    ],
)
def test_samplers(sampler: str, argument: str, expected: tuple[bool, float]) -> None:
    """Whether the caller's decision holds, and which part of the other traces is sampled."""
    environ = {GENERAL: "http://c:4317", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    otlp = read({name: value for name, value in environ.items() if value})
    assert (otlp.parent_based, otlp.ratio) == expected
