"""Which telemetry is exported, and to where: OpenTelemetry's environment variables.

What belongs here: reading and checking the variables (OpenTelemetry specification, "Environment Variable
Specification" and "OTLP Exporter Configuration"). What must never be here: an import of OpenTelemetry, which
is loaded only when something is exported (telemetry.py).

Nothing in these variables stops the sidecar. A wrong value is one warning that names the variable, and is
removed from the environment: OpenTelemetry's SDK, which reads the environment too, raises for some of them,
and workers, which inherit it, would repeat the warning.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final, Literal

from entra_fast.sidecar.logs import logger

GRPC: Final = "grpc"
HTTP: Final = "http/protobuf"
Signal = Literal["traces", "metrics"]
SIGNALS: Final[tuple[Signal, ...]] = ("traces", "metrics")

DEFAULT_TIMEOUT = 10.0
"""Seconds for one export, with its retries."""
DEFAULT_INTERVAL, SHORTEST_INTERVAL = 60.0, 0.1
"""Seconds between two exports of metrics."""
GRPC_PORT = 4317
"""The registered port of OTLP over gRPC."""
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
PROPAGATORS = ("tracecontext", "baggage", "none")
_HEADER = re.compile(r"[a-z0-9_.-]+")
_MILLISECONDS = (
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
)
_COUNTS = {
    "OTEL_BSP_MAX_QUEUE_SIZE": 1,
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 1,
    "OTEL_ATTRIBUTE_COUNT_LIMIT": 0,
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": 0,
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": 0,
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": 0,
    "OTEL_SPAN_EVENT_COUNT_LIMIT": 0,
    "OTEL_SPAN_LINK_COUNT_LIMIT": 0,
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": 0,
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": 0,
}
"""Variables with whole numbers, and the smallest one that each allows."""
_CERTIFICATES = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")


@dataclass(frozen=True, slots=True)
class Exporter:
    """Where one signal is sent, and how.

    Attributes:
        protocol: `GRPC` or `HTTP`.
        endpoint: for gRPC scheme, host and port; for HTTP the whole URL.
        variable: the one that names the endpoint.
        timeout: seconds for one export.
        insecure: whether gRPC does without TLS.
    """

    signal: Signal
    protocol: str
    endpoint: str
    variable: str
    timeout: float = DEFAULT_TIMEOUT
    insecure: bool = False
    gzip: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # usually a key of the collector

    @property
    def address(self) -> str:
        """Host and port, for log lines."""
        return urllib.parse.urlsplit(self.endpoint).netloc


@dataclass(frozen=True, slots=True)
class Otlp:
    """What is exported.

    Attributes:
        propagates: whether `traceparent` is read from requests and sent to the provider.
        interval: seconds between two exports of metrics.
        delta: whether counters and histograms are exported as increases since the last export.
        queue: maximum number of spans that wait to be exported.
        batch: maximum number of spans in one export.
        delay: seconds between two exports of spans, unless a whole batch waits earlier.
        parent_based: whether a caller's decision about its trace holds for its requests.
        ratio: the part of all other traces that is sampled: from 0, which is none, to 1.
    """

    traces: Exporter | None = None
    metrics: Exporter | None = None
    propagates: bool = True
    interval: float = DEFAULT_INTERVAL
    delta: bool = False
    queue: int = 2048
    batch: int = 512
    delay: float = 5.0
    parent_based: bool = True
    ratio: float = 1.0


OFF: Final = Otlp()
"""Nothing is exported."""


def read(environ: MutableMapping[str, str] | None = None) -> Otlp:
    """What the environment asks for. Never raises.

    Args:
        environ: by default the process's environment. Wrong values are removed from it.
    """
    reader = _Reader(os.environ if environ is None else environ)
    if reader.choice("OTEL_SDK_DISABLED", ("true", "false")) == "true":
        return OFF
    if not any(reader.text(name) for signal in SIGNALS for name in reader.names(signal, "ENDPOINT")):
        for signal in SIGNALS:
            name = f"OTEL_{signal.upper()}_EXPORTER"
            if reader.text(name) == "otlp":
                reader.lose(signal, "OTEL_EXPORTER_OTLP_ENDPOINT", "set: it has no default here")
        reader.report()
        return OFF
    reader.check_what_the_sdk_reads()
    exporters = {signal: reader.exporter(signal) for signal in SIGNALS}
    reader.report()
    queue = int(reader.number("OTEL_BSP_MAX_QUEUE_SIZE", OFF.queue))
    interval = reader.number("OTEL_METRIC_EXPORT_INTERVAL", 1000 * DEFAULT_INTERVAL) / 1000
    return Otlp(
        traces=None if reader.sampler == "always_off" else exporters["traces"],
        metrics=exporters["metrics"],
        propagates="tracecontext" in reader.propagators(),
        interval=max(interval, SHORTEST_INTERVAL),
        delta=reader.temporality() in ("delta", "lowmemory"),
        queue=queue,
        batch=min(int(reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", OFF.batch)), queue),
        delay=reader.number("OTEL_BSP_SCHEDULE_DELAY", 1000 * OFF.delay) / 1000,
        parent_based=reader.sampler.startswith("parentbased_") or not reader.sampler,
        ratio=reader.ratio(),
    )


def resource_attributes(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The attributes in `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`, without malformed pairs."""
    environ = os.environ if environ is None else environ
    attributes = _pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))[0]
    name = environ.get("OTEL_SERVICE_NAME", "").strip()
    return attributes | ({"service.name": name} if name else {})


def _pairs(text: str) -> tuple[dict[str, str], bool]:
    """The pairs in `name=value,...` with percent-encoded values, and whether all of them are well-formed."""
    found: dict[str, str] = {}
    well_formed = True
    for pair in filter(str.strip, text.split(",")):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found[name.strip()] = urllib.parse.unquote(value.strip())
        else:
            well_formed = False
    return found, well_formed


class _Reader:
    """Reads variables, warns about wrong ones and removes them."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._environ = environ
        self._lost: dict[tuple[str, str], list[Signal]] = {}
        self.sampler = ""

    @staticmethod
    def names(signal: Signal, name: str) -> tuple[str, str]:
        """The variable of a signal, and the one for all signals."""
        return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"

    def text(self, name: str) -> str:
        """The value; empty means unset (the specification, "Parsing empty value")."""
        return self._environ.get(name, "").strip()

    def refuse(self, name: str, expected: str) -> None:
        """Ignore a variable, or what is wrong in it."""
        logger.warning("telemetry setting ignored: %s must be %s", name, expected)
        del self._environ[name]

    def lose(self, signal: Signal, name: str, expected: str) -> None:
        """Do without a signal because of a variable."""
        self._lost.setdefault((name, expected), []).append(signal)
        self._environ[f"OTEL_{signal.upper()}_EXPORTER"] = "none"

    def report(self) -> None:
        """One line for each variable because of which signals are lost."""
        for (name, expected), signals in self._lost.items():
            signals_lost = " and no ".join(signals)
            logger.warning(
                "telemetry is incomplete: no %s, because %s must be %s", signals_lost, name, expected
            )

    def choice(self, name: str, choices: Collection[str]) -> str:
        value = self.text(name).lower()
        if value and value not in choices:
            self.refuse(name, f"one of {', '.join(choices)}")
            return ""
        return value

    def number(self, name: str, default: float) -> float:
        """A number that `check_what_the_sdk_reads` has checked."""
        value = self.text(name)
        return float(value) if value else default

    def exporter(self, signal: Signal) -> Exporter | None:
        """Where a signal is sent; None if it is not exported."""
        name = f"OTEL_{signal.upper()}_EXPORTER"
        wanted = [each.strip() for each in (self.text(name) or "otlp").split(",")]
        if "otlp" not in wanted:
            if wanted != ["none"]:
                self.lose(signal, name, "otlp or none")
            return None
        variable = next(filter(self.text, self.names(signal, "ENDPOINT")), None)
        if variable is None:  # only the other signal has an endpoint
            return None
        url = self.text(variable)
        scheme, target = url.split("://", 1) if "://" in url else ("", url)
        scheme = scheme.lower()
        try:
            parts = urllib.parse.urlsplit(f"//{target}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        protocol = next(filter(self.text, self.names(signal, "PROTOCOL")), None)
        chosen = (GRPC if port == GRPC_PORT else HTTP) if protocol is None else self.text(protocol).lower()
        if chosen not in (GRPC, HTTP):
            self.lose(signal, protocol or variable, f"{GRPC} or {HTTP}")
            return None
        schemes = ("http", "https", "") if chosen == GRPC else ("http", "https")
        if host is None or scheme not in schemes or "@" in parts.netloc:
            self.lose(signal, variable, "a URL like http://collector:4317, without a user name")
            return None
        if chosen == GRPC:
            netloc = parts.netloc if port else f"{parts.netloc.rstrip(':')}:{GRPC_PORT}"
            insecure = scheme == "http" or (not scheme and self._flag(signal, "INSECURE"))
            endpoint = f"{'http' if insecure else 'https'}://{netloc}"
        else:
            insecure = scheme == "http"
            endpoint = url if variable == self.names(signal, "ENDPOINT")[0] else _with_path(url, signal)
        return Exporter(
            signal,
            chosen,
            endpoint,
            variable,
            timeout=self._first(signal, "TIMEOUT", 1000 * DEFAULT_TIMEOUT) / 1000,
            insecure=insecure,
            gzip=self._choice_for(signal, "COMPRESSION", ("none", "gzip")) == "gzip",
            headers=self._headers(signal),
        )

    def _first(self, signal: Signal, name: str, default: float) -> float:
        return self.number(next(filter(self.text, self.names(signal, name)), name), default)

    def _choice_for(self, signal: Signal, name: str, choices: Collection[str]) -> str:
        return next(filter(None, (self.choice(each, choices) for each in self.names(signal, name))), "")

    def _flag(self, signal: Signal, name: str) -> bool:
        return self._choice_for(signal, name, ("true", "false")) == "true"

    def _headers(self, signal: Signal) -> dict[str, str]:
        for name in self.names(signal, "HEADERS"):
            if not self.text(name):
                continue
            found, well_formed = _pairs(self.text(name))
            headers = {key.lower(): value for key, value in found.items()}
            if well_formed and all(_is_header(key, value) for key, value in headers.items()):
                return headers
            self.refuse(name, "a list like name=value,name=value, with percent-encoded values")
        return {}

    def check_what_the_sdk_reads(self) -> None:
        """Variables whose wrong values would end or confuse the SDK."""
        for name in _MILLISECONDS:
            if self.text(name) and not re.fullmatch(r"0*[1-9][0-9]{0,8}", self.text(name)):
                self.refuse(name, "a number of milliseconds, at least 1")
        for name, least in _COUNTS.items():
            value = self.text(name)
            if value and not (re.fullmatch(r"[0-9]{1,9}", value) and int(value) >= least):
                self.refuse(name, f"a whole number, at least {least}")
        self.sampler = self.choice("OTEL_TRACES_SAMPLER", SAMPLERS)
        ratio = self.text("OTEL_TRACES_SAMPLER_ARG")
        if ratio and "traceidratio" in self.sampler and not re.fullmatch(r"0?\.[0-9]+|0|1(\.0*)?", ratio):
            self.refuse("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")
        if not _pairs(self.text("OTEL_RESOURCE_ATTRIBUTES"))[1]:
            known = resource_attributes({"OTEL_RESOURCE_ATTRIBUTES": self.text("OTEL_RESOURCE_ATTRIBUTES")})
            self.refuse("OTEL_RESOURCE_ATTRIBUTES", "a list like name=value,name=value")
            self._environ["OTEL_RESOURCE_ATTRIBUTES"] = ",".join(
                f"{name}={urllib.parse.quote(value)}" for name, value in known.items()
            )
        for kind in _CERTIFICATES:
            for name in {name for signal in SIGNALS for name in self.names(signal, kind)}:
                if self.text(name) and not os.access(self.text(name), os.R_OK):
                    self.refuse(name, "a file that this process can read")

    def ratio(self) -> float:
        """The part of the traces without a caller's decision that is sampled."""
        if self.sampler.endswith("traceidratio"):
            return self.number("OTEL_TRACES_SAMPLER_ARG", OFF.ratio)
        return 0.0 if self.sampler.endswith("always_off") else OFF.ratio

    def propagators(self) -> list[str]:
        name = "OTEL_PROPAGATORS"
        wanted = [each.strip() for each in (self.text(name) or "tracecontext,baggage").split(",")]
        known = [each for each in wanted if each in PROPAGATORS]
        if known != wanted:
            self.refuse(name, f"one or more of {', '.join(PROPAGATORS)}")
            self._environ[name] = ",".join(known) or "none"
        return [] if "none" in known else known

    def temporality(self) -> str:
        return self.choice(
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", ("cumulative", "delta", "lowmemory")
        )


def _is_header(name: str, value: str) -> bool:
    # gRPC keeps `-bin` for binary values.
    return (
        bool(_HEADER.fullmatch(name))
        and not name.endswith("-bin")
        and value.isascii()
        and value.isprintable()
    )


def _with_path(url: str, signal: Signal) -> str:
    """The URL of a signal under the one for all signals."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}"))
