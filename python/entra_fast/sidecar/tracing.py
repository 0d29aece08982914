"""OpenTelemetry spans.

What belongs here: one server span for each request of the API that takes the slow path, one client span for
each request to the provider, who makes the spans of the fast path, and the context that connects them with
the caller's trace and, where there are workers, across processes. What must never be here: anything secret or
personal. Attributes are the method, the route that matched, the status, the provider, the target, whether the
cache answered, and the provider's address; never a header, a query, a body, or the text of an error.

The fast path records the spans of the requests that it answers, with the same content
(rust/core/src/sidecar/spans.rs), and span_export.py exports them. It cannot where the process has a tracer
provider of its own, whose sampler and processors it does not know: then requests that may need a span take
the slow path.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from entra_fast import _native
from entra_fast._provider import attempts
from entra_fast.sidecar.logs import Trace
from entra_fast.sidecar.otlp import Otlp

if TYPE_CHECKING:
    import aiohttp
    from aiohttp import web
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

SCOPE: Final = "entra_fast"
"""The instrumentation scope of all spans."""
IDENTITY_PROVIDER: Final = "entra_fast.identity_provider"
TARGET: Final = "entra_fast.target"
CACHE_HIT: Final = "entra_fast.cache_hit"
MAX_TARGET = 256
"""Characters of a target in an attribute."""


def begin(otlp: Otlp) -> Tracing | None:
    """Tracing, if the process has a tracer provider or the environment asks for traces; else None.

    Args:
        otlp: what the environment asks for. Its spans begin later: see telemetry.py.
    """
    # Only a process that has loaded OpenTelemetry can have set a provider.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None and not isinstance(
        provider := trace.get_tracer_provider(), trace.ProxyTracerProvider
    ):
        tracing = Tracing(propagates=otlp.propagates)
        tracing.begin_with(provider)
        return tracing
    return None if otlp.traces is None else Tracing(propagates=otlp.propagates)


@dataclass(frozen=True, slots=True)
class FastPath:
    """The fast path of this process.

    Attributes:
        native: answers requests.
        providers: the names of the enabled ones, by position.
    """

    native: _native.FastPath
    providers: Sequence[str]


class Tracing:
    """Creates the spans: none before `begin_with`.

    Args:
        propagates: whether `traceparent` is read from requests and sent to the provider.

    Attributes:
        fast_path: the one whose requests get spans, too.
    """

    def __init__(self, *, propagates: bool = True) -> None:
        self.propagates = propagates
        self.fast_path: FastPath | None = None
        self._recorder: _native.SpanRecorder | None = None
        self._tracer: Tracer | None = None

    def include(self, native: _native.FastPath, providers: Sequence[str]) -> None:
        """Requests that this fast path answers get spans, too, from when there are any.

        Args:
            providers: the names of the enabled ones, by position.
        """
        self.fast_path = FastPath(native, providers)
        if self._tracer is not None:
            native.leave_spans(self.propagates)

    def dropped(self) -> int:
        """How many spans of the fast path were dropped because too many waited."""
        return 0 if self._recorder is None else self._recorder.dropped

    def begin_with(self, provider: Any, recorder: _native.SpanRecorder | None = None) -> None:
        """Create spans from now on, with this tracer provider. May be called from any thread.

        Args:
            recorder: for the spans of the fast path; without one, the slow path makes all spans.
        """
        from opentelemetry.trace.propagation import tracecontext  # noqa: F401, PLC0415 - loaded here, not later

        Trace.fields = staticmethod(_trace_fields)
        self._tracer = provider.get_tracer(SCOPE)
        self._recorder = recorder
        if self.fast_path is not None:
            if recorder is None:
                self.fast_path.native.leave_spans(self.propagates)
            else:
                self.fast_path.native.record_spans(recorder)

    @contextlib.contextmanager
    def server_span(self, request: web.Request, route: str) -> Iterator[ServerSpan]:
        """A span for the handling of a request; a child of the caller's span, if `traceparent` names one."""
        if self._tracer is None:
            yield ServerSpan(None)
            return
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

        method = request.method if request.method in _METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=_context_of(request) if self.propagates else None,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method,
                "http.route": route,
                "url.path": route,  # they are the same: no route has parameters
                "url.scheme": "http",
            },
            record_exception=False,  # its text may contain anything
            set_status_on_exception=False,
        ) as span:
            yield ServerSpan(span)

    def client_trace(self, identity_provider: str) -> aiohttp.TraceConfig:
        """For an aiohttp client session: a client span around each request to a provider."""
        import aiohttp  # noqa: PLC0415

        async def started(
            _: aiohttp.ClientSession, state: SimpleNamespace, started: aiohttp.TraceRequestStartParams
        ) -> None:
            state.span, resends = None, attempts.ordinal()
            if self._tracer is None:
                return
            from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415 - an extra

            url = started.url.with_user(None).with_query(None).with_fragment(None)
            state.span = self._tracer.start_span(
                started.method,
                kind=SpanKind.CLIENT,
                attributes={
                    "http.request.method": started.method,
                    "server.address": url.host or "",
                    "server.port": url.port or 0,
                    "url.full": str(url),
                    IDENTITY_PROVIDER: identity_provider,
                },
            )
            if resends:
                state.span.set_attribute("http.request.resend_count", resends)
            if self.propagates:
                started.headers.update(_headers(set_span_in_context(state.span)))

        async def ended(
            _: aiohttp.ClientSession, state: SimpleNamespace, ended: aiohttp.TraceRequestEndParams
        ) -> None:
            if state.span is not None:
                _conclude(state.span, ended.response.status, 400)
                state.span.end()

        async def failed(
            _: aiohttp.ClientSession, state: SimpleNamespace, failed: aiohttp.TraceRequestExceptionParams
        ) -> None:
            if state.span is not None:
                _fail(state.span, type(failed.exception).__name__)
                state.span.end()

        config = aiohttp.TraceConfig()
        config.on_request_start.append(started)
        config.on_request_end.append(ended)
        config.on_request_exception.append(failed)
        return config


class ServerSpan:
    """The span of a request, or none.

    Args:
        span: None while there is no tracer provider.
    """

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def describe(self, attributes: Mapping[str, str | bool]) -> None:
        """Add attributes."""
        if self._span is not None:
            self._span.set_attributes(dict(attributes))

    def answered(self, status: int) -> None:
        """Record the status of the response."""
        if self._span is not None:
            _conclude(self._span, status, 500)


# --- context ---


def current() -> dict[str, str]:
    """The current context, as headers to send: to a process that continues this request. Empty outside a
    span."""
    return _headers() if "opentelemetry.trace" in sys.modules else {}


def received(fields: Mapping[str, object]) -> dict[str, str]:
    """What `current` returned, among the fields of a message."""
    return {name: value for name in _HEADERS if isinstance(value := fields.get(name), str)}


@contextlib.contextmanager
def continued(headers: Mapping[str, str]) -> Iterator[None]:
    """What happens within belongs to the context that `current` returned in another process."""
    if not headers or "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import context  # noqa: PLC0415 - an extra

    token = context.attach(_context(headers))
    try:
        yield
    finally:
        context.detach(token)


def _headers(context: Context | None = None) -> dict[str, str]:
    # Not OpenTelemetry's global propagator: baggage may hold anything, and is nothing for a provider.
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers, context)
    return headers


def _context(headers: Mapping[str, str | list[str]]) -> Context:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(headers)


def _context_of(request: web.Request) -> Context:
    """The caller's. A `traceparent` that stands twice is none, and several `tracestate` are one (W3C Trace
    Context, sections 3.2 and 3.3)."""
    traceparents = request.headers.getall("traceparent", [])
    if len(traceparents) != 1:
        return _context({})
    return _context({"traceparent": traceparents, "tracestate": request.headers.getall("tracestate", [])})


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


_HEADERS = ("traceparent", "tracestate")
"""W3C Trace Context, section 3."""
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
