"""Spans of OpenTelemetry in a process with a tracer provider of its own, whose sampler and processors decide:
the slow path makes all spans. tests/telemetry has those that the fast path makes."""

from __future__ import annotations

import socket

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from support.fast_path import (
    TOKEN,
    Connection,
    fast_path_answers,
    introspection,
    json_request,
    status,
    token_request,
)
from support.provider import Provider, refuse, reset
from support.sidecars import Started, StartSidecar, eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where spans go: a tracer provider is configured, as an application's own set-up would do it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return exporter


async def ready(start: StartSidecar, spans: InMemorySpanExporter) -> Started:
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    spans.clear()  # discovery and keys
    return sidecar


async def test_a_request_that_may_need_a_span_takes_the_slow_path_and_gets_it(
    start: StartSidecar, spans: InMemorySpanExporter
) -> None:
    """A child of the caller's span, or the root of a trace; unsampled requests stay on the fast path, without
    spans. The fast path is back at the next request of the connection."""
    sidecar = await ready(start, spans)
    async with await Connection.to(sidecar) as connection:
        for headers, by_fast_path in (
            ({}, 0),
            ({"traceparent": UNSAMPLED}, 1),
            ({"traceparent": SAMPLED}, 0),
            ({"traceparent": UNSAMPLED}, 1),
        ):
            before = fast_path_answers(sidecar)
            assert status(await connection.ask(introspection("a", **headers))) == 200
            assert fast_path_answers(sidecar) - before == by_fast_path
    root, span = spans.get_finished_spans()
    assert (root.name, root.parent) == (span.name, None)
    assert (span.name, span.kind.name) == ("POST /api/v1/introspect", "SERVER")
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/api/v1/introspect",
        "url.path": "/api/v1/introspect",
        "url.scheme": "http",
        "entra_fast.identity_provider": "entra_id",
        "http.response.status_code": 200,
    }


async def test_a_request_to_the_provider_is_a_child(
    start: StartSidecar, spans: InMemorySpanExporter, provider: Provider
) -> None:
    """A client span with address, path and status, in the trace of the request that caused it."""
    sidecar = await ready(start, spans)
    async with await Connection.to(sidecar) as connection:
        assert status(await connection.ask(token_request(traceparent=SAMPLED))) == 200
    client, server = _by_kind(spans)
    assert client.parent is not None
    assert server.context is not None
    assert client.parent.span_id == server.context.span_id
    assert dict(client.attributes or {}) == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
        "url.full": provider.token_endpoint,
        "entra_fast.identity_provider": "entra_id",
        "http.response.status_code": 200,
    }


async def test_failures_are_marked(
    start: StartSidecar, spans: InMemorySpanExporter, provider: Provider
) -> None:
    """A refusal by the provider marks the client span; a 5xx of the sidecar also marks the server span."""
    sidecar = await ready(start, spans)
    provider.then(refuse(400, "invalid_scope"))
    async with await Connection.to(sidecar) as connection:
        assert status(await connection.ask(token_request(traceparent=SAMPLED))) == 400
        client, server = _by_kind(spans)
        assert (client.status.status_code.name, server.status.status_code.name) == ("ERROR", "UNSET")
        spans.clear()
        provider.always = reset()
        assert status(await connection.ask(token_request("c:n:b", traceparent=SAMPLED))) == 500
    *clients, server = _by_kind(spans)
    assert len(clients) == 2  # with its retry
    for client in clients:
        assert (client.attributes or {})["error.type"] == "ServerDisconnectedError"
        assert client.status.description is None
    assert [(client.attributes or {}).get("http.request.resend_count") for client in clients] == [None, 1]
    assert server.status.status_code.name == "ERROR"
    assert (server.attributes or {})["error.type"] == "500"


async def test_a_repeated_request_for_the_discovery_document_says_so(
    start: StartSidecar, spans: InMemorySpanExporter
) -> None:
    """Each time that it is wanted, there are two attempts, and the second one is a resend."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/.well-known/openid-configuration"
    await start(ready=False, AZURE_APP_WELL_KNOWN_URL=url)

    async def tried_twice() -> bool:
        return len(spans.get_finished_spans()) >= 4

    await eventually(tried_twice)
    first = spans.get_finished_spans()[:4]
    assert [(span.attributes or {})["url.full"] for span in first] == [url] * 4
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in first]
    assert resends == [None, 1, None, 1]


async def test_spans_hold_nothing_that_was_sent(
    start: StartSidecar, spans: InMemorySpanExporter, provider: Provider
) -> None:
    """No token, assertion, header, query or body but the target; neither from callers nor to the provider."""
    sidecar = await ready(start, spans)
    user = provider.mint(exp=4_000_000_000, canary="canary")
    fields = {"identity_provider": "entra_id", "target": "c:n:a", "user_token": user}
    async with await Connection.to(sidecar) as connection:
        for path in ("/api/v1/token/exchange", "/api/v1/token/exchange?canary=1"):
            await connection.ask(json_request(path, fields, {"traceparent": SAMPLED, "X-Canary": "canary"}))
        await connection.ask(json_request(TOKEN, b"canary", {"traceparent": SAMPLED}))
    finished = spans.get_finished_spans()
    assert len(finished) == 4
    text = "".join(span.to_json() for span in finished)
    assertion = provider.requests[-1].form["client_assertion"]
    for secret in ("canary", user, user.split(".")[2], assertion.split(".")[2]):
        assert secret not in text
    assert not any(span.events for span in finished)


async def test_a_renewal_from_the_fast_path_has_a_span_of_its_own(
    start: StartSidecar, spans: InMemorySpanExporter, provider: Provider
) -> None:
    """It has no parent: the caller that found the token due already has its response."""
    sidecar = await ready(start, spans)
    async with await Connection.to(sidecar) as connection:
        await connection.ask(token_request())
        spans.clear()
        sidecar.clock.advance(3400)
        before = fast_path_answers(sidecar)
        await connection.ask(token_request(traceparent=UNSAMPLED))
        assert fast_path_answers(sidecar) - before == 1

    async def finished() -> bool:
        return bool(spans.get_finished_spans())

    await eventually(finished)
    (span,) = spans.get_finished_spans()
    assert (span.kind.name, span.parent) == ("CLIENT", None)
    assert len(provider.requests) == 2


async def test_probes_and_unknown_paths_make_no_spans(
    start: StartSidecar, spans: InMemorySpanExporter
) -> None:
    """The kubelet asks every few seconds, and a path may be anything."""
    sidecar = await ready(start, spans)
    for path in ("/healthz", "/readyz", "/metrics", "/anything"):
        await sidecar.probe.get(path, {"traceparent": SAMPLED})
        await sidecar.call.get(path, {"traceparent": SAMPLED})
    assert spans.get_finished_spans() == ()


def _by_kind(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """Client spans first."""
    return sorted(spans.get_finished_spans(), key=lambda span: span.kind.name)


async def test_without_propagation_no_request_says_that_it_needs_no_span(
    start: StartSidecar, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_PROPAGATORS=none`: `traceparent` means nothing then, and every request begins a trace."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_PROPAGATORS", "none")
    sidecar = await ready(start, spans)
    async with await Connection.to(sidecar) as connection:
        before = fast_path_answers(sidecar)
        assert status(await connection.ask(introspection("a", traceparent=UNSAMPLED))) == 200
        assert fast_path_answers(sidecar) == before
    (span,) = spans.get_finished_spans()
    assert span.parent is None
