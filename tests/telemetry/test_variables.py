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


SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
)
"""OpenTelemetry's, without those that its SDK for Python does not have."""
MILLISECONDS = "a number of milliseconds, at least 1"
LIMITS = [
    f"OTEL_{kind}_LIMIT"
    for kind in (
        *("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH"),
        *("SPAN_EVENT_COUNT", "SPAN_LINK_COUNT", "EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT"),
    )
]
HEADERS = "a list like name=value,name=value, with percent-encoded values"
FILE = "a file that this process can read"
SIGNALS = ("OTEL_EXPORTER_OTLP", "OTEL_EXPORTER_OTLP_TRACES", "OTEL_EXPORTER_OTLP_METRICS")
WRONG = [
    ("OTEL_SDK_DISABLED", "yes", "one of true, false"),
    ("OTEL_TRACES_SAMPLER", "sometimes", f"one of {', '.join(SAMPLERS)}"),
    ("OTEL_PROPAGATORS", "b3", "one or more of tracecontext, baggage, none"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b,nonsense", "a list like name=value,name=value"),
    (
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        "both",
        "one of cumulative, delta, lowmemory",
    ),
    *((f"{signal}_COMPRESSION", "brotli", "one of none, gzip") for signal in SIGNALS),
    *((f"{signal}_TIMEOUT", "10s", MILLISECONDS) for signal in SIGNALS),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", MILLISECONDS),
    ("OTEL_METRIC_EXPORT_INTERVAL", "often", MILLISECONDS),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "1.5", MILLISECONDS),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1", MILLISECONDS),
    ("OTEL_BSP_EXPORT_TIMEOUT", "1234567890", MILLISECONDS),
    *((f"{signal}_HEADERS", "secret", HEADERS) for signal in SIGNALS),
    ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a b=secret", HEADERS),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key-bin=secret", HEADERS),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=a%0Ab", HEADERS),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=%C3%A6", HEADERS),
    *(
        (f"{signal}_{kind}", "/does/not/exist", FILE)
        for signal in SIGNALS
        for kind in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    ),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a whole number, at least 1"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", "a whole number, at least 1"),
    *((name, "many", "a whole number, at least 0") for name in LIMITS),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_value_is_one_warning(
    name: str, value: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the variable and what is expected, never the value; everything else is exported as ever. What
    other parts read, and workers inherit, is free of it: they have nothing to warn about."""
    environ = {GENERAL: "http://c:4317", name: value}
    otlp = read(environ)
    assert otlp.traces is not None
    assert otlp.metrics is not None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"telemetry setting ignored: {name} must be {expected}"
    caplog.clear()
    assert read(environ) == otlp
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("OTEL_TRACES_SAMPLER", sampler) for sampler in SAMPLERS),
        ("OTEL_TRACES_SAMPLER", "Always_On"),
        *(
            ("OTEL_PROPAGATORS", each)
            for each in ("tracecontext", "baggage", "none", "baggage , tracecontext")
        ),
        ("OTEL_SDK_DISABLED", "False"),
        *((name, "0") for name in LIMITS),
        *((name, "999999999") for name in LIMITS),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "999999999"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "010"),
        *((f"{signal}_CERTIFICATE", __file__) for signal in SIGNALS),
        *((f"{signal}_COMPRESSION", "none") for signal in SIGNALS),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b, c=d,"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=x%20y,Other_1.a="),
    ],
)
def test_a_right_value_is_left_to_the_sdk(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry's SDK reads the environment itself, so it stays as it is, and there is no warning."""
    environ = {GENERAL: "http://c:4317", name: value}
    found = read(environ)
    assert found.metrics is not None
    assert (found.traces is None) == (value == "always_off")
    assert environ == {GENERAL: "http://c:4317", name: value}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("value", "delta"), [("cumulative", False), ("delta", True), ("lowmemory", True), ("LowMemory", True)]
)
def test_whether_increases_are_exported(value: str, delta: bool) -> None:
    """With the lowest memory, counters and histograms are increases, too (OTLP metrics exporter,
    "Additional Environment Variable Configuration")."""
    environ = {GENERAL: "http://c:4317", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": value}
    assert read(environ).delta is delta


@pytest.mark.parametrize("ratio", ["0", "1", "1.", "1.00", "0.5", ".5", "0.000001"])
@pytest.mark.parametrize("sampler", ["traceidratio", "parentbased_traceidratio"])
def test_ratios_of_a_sampler(sampler: str, ratio: str, caplog: pytest.LogCaptureFixture) -> None:
    """From 0 to 1; the SDK would raise for any other."""
    environ = {GENERAL: "http://c:4317", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": ratio}
    read(environ)
    assert caplog.records == []
    assert environ["OTEL_TRACES_SAMPLER_ARG"] == ratio
    for wrong in ("1.1", "-0.5", "half", "10", "0.5x"):
        environ["OTEL_TRACES_SAMPLER_ARG"] = wrong
        caplog.clear()
        read(environ)
        assert [record.getMessage() for record in caplog.records] == [
            "telemetry setting ignored: OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"
        ]
        assert "OTEL_TRACES_SAMPLER_ARG" not in environ


def test_a_flag_that_is_wrong_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """It is read where gRPC's own form of an address leaves TLS open."""
    environ = {
        GENERAL: "c:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_INSECURE": "maybe",
        "OTEL_METRICS_EXPORTER": "none",
    }
    traces = read(environ).traces
    assert traces is not None
    assert not traces.insecure
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry setting ignored: OTEL_EXPORTER_OTLP_INSECURE must be one of true, false"
    ]


def test_signals_that_are_lost_for_different_reasons_are_a_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And the SDK exports none of them either."""
    environ = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://c:4318",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/json",
    }
    assert read(environ) == OFF
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry is incomplete: no traces, because OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be a URL like "
        "http://collector:4317, without a user name",
        "telemetry is incomplete: no metrics, because OTEL_EXPORTER_OTLP_METRICS_PROTOCOL must be grpc or "
        "http/protobuf",
    ]
    assert (environ["OTEL_TRACES_EXPORTER"], environ["OTEL_METRICS_EXPORTER"]) == ("none", "none")


def test_what_is_right_in_a_list_is_kept() -> None:
    """Of propagators and resource attributes."""
    environ = {
        GENERAL: "http://c:4317",
        "OTEL_PROPAGATORS": "tracecontext,b3",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b%2Cc,nonsense,=d,e=",
    }
    assert read(environ).propagates
    assert environ["OTEL_PROPAGATORS"] == "tracecontext"
    assert environ["OTEL_RESOURCE_ATTRIBUTES"] == "a=b%2Cc,e="
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
