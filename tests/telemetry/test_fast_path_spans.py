"""Spans of the fast path, as a collector gets them: the same as those that OpenTelemetry's SDK makes on the
slow path, for the same requests."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from entra_fast.sidecar import span_export, telemetry
from support.collector import Collector, http_collector, values
from support.fast_path import (
    Connection,
    fast_path_answers,
    form_request,
    introspection,
    json_request,
    status,
    token_request,
)
from support.provider import Provider
from support.several import KINDS, Several, several
from support.sidecars import Started, eventually, sidecars

SPAN = "00f067aa0ba902b7"
UNSAMPLED = f"00-{'ab' * 16}-{SPAN}-00"
TOKEN, EXCHANGE, INTROSPECT = "/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"
LIMITS = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "6", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "5"}


def sampled(number: int) -> str:
    """A `traceparent` whose trace is one of its own."""
    return f"00-{number + 1:032x}-{SPAN}-01"


@asynccontextmanager
async def traced(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, way: str, providers: Any, **variables: str
) -> AsyncIterator[tuple[Started, Connection]]:
    """A sidecar that sends spans, and a connection to it. The spans have arrived when it has ended."""
    for name, value in (collector.environment() | {"OTEL_METRICS_EXPORTER": "none"} | variables).items():
        monkeypatch.setenv(name, value)
    async with sidecars(providers, way) as start:
        sidecar = await start(environ=providers.environment(PROBE_BIND_ADDRESS="127.0.0.1:0"))
        tracing = sidecar.running.service.tracing
        assert tracing is not None

        async def begun() -> bool:
            return tracing._tracer is not None

        await eventually(begun)
        async with await Connection.to(sidecar) as connection:
            yield sidecar, connection


def server_spans(collector: Collector) -> list[Span]:
    return [span for _, span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]


def comparable(span: Span) -> Span:
    """A span without what is random or a time."""
    found = Span()
    found.CopyFrom(span)
    assert len(found.span_id) == 8
    assert any(found.span_id)
    assert len(found.trace_id) == 16
    assert any(found.trace_id)
    for name in ("span_id", "start_time_unix_nano", "end_time_unix_nano"):
        found.ClearField(name)
    if not found.parent_span_id:
        found.ClearField("trace_id")
    return found


def frames(collector: Collector) -> list[tuple[ResourceSpans, ScopeSpans]]:
    """What is around the server spans, without the id of the process."""
    found = []
    for request in collector.traces:
        for in_resource in request.resource_spans:
            for in_scope in in_resource.scope_spans:
                if any(span.kind == Span.SPAN_KIND_SERVER for span in in_scope.spans):
                    scope = ScopeSpans.FromString(in_scope.SerializeToString())
                    del scope.spans[:]
                    resource = ResourceSpans.FromString(in_resource.SerializeToString())
                    del resource.scope_spans[:]
                    for attribute in resource.resource.attributes:
                        if attribute.key == "service.instance.id":
                            attribute.value.string_value = "*"
                    found.append((resource, scope))
    return found


class Requests:
    """Requests of every kind, each in a trace of its own, with what the fast path answers of them."""

    def __init__(self, running: Several) -> None:
        self.of_the_fast_path: list[bytes] = []
        self.of_the_slow_path: list[bytes] = []
        self.for_the_caches: list[bytes] = []
        self.secrets: list[str] = []
        number = iter(range(1000))

        def add(path: str, fields: dict[str, str], *, send: Any = json_request, **headers: str) -> None:
            headers.setdefault("traceparent", sampled(next(number)))
            given = {name: value for name, value in headers.items() if value}
            self.of_the_fast_path.append(send(path, fields, given))
            self.for_the_caches.append(json_request(path, fields, {"traceparent": UNSAMPLED}))

        for kind in KINDS:
            user = running.mint(kind.name, exp=4_000_000_000)
            self.secrets += [user, user.split(".")[2]]
            about = {"identity_provider": kind.name}
            if kind.issues:
                add(TOKEN, {**about, "target": kind.target})
                add(TOKEN, {**about, "target": kind.target}, send=form_request, tracestate="a=1, b=2")
            if kind.exchanges:
                add(EXCHANGE, {**about, "target": kind.target, "user_token": user})
            add(INTROSPECT, {**about, "token": user})
            add(INTROSPECT, {**about, "token": "junk"}, tracestate="a=1,a=2")
            add(INTROSPECT, {**about, "token": running.mint(kind.name, exp=1)}, traceparent="")
        add(TOKEN, {"identity_provider": "partner", "target": "x" * 300})
        entra = {"identity_provider": "entra_id", "target": "api://c.n.a/.default"}
        for traceparent in (
            "",
            "junk",
            UNSAMPLED,
            f"cc-{'cd' * 16}-{SPAN}-01-what follows",
            f"00-{'CD' * 16}-{SPAN}-01",
            f"00-{'0' * 32}-{SPAN}-01",
        ):
            add(TOKEN, entra, traceparent=traceparent, tracestate="a=1")
        # Not answered from the cache, refused, and with two headers of the same name.
        for path, fields, more in (
            (TOKEN, {**entra, "target": "c:n:other"}, {}),
            (TOKEN, {**entra, "target": ""}, {}),
            (TOKEN, {"identity_provider": "unknown", "target": "c:n:a"}, {}),
            (INTROSPECT, {"identity_provider": "entra_id"}, {}),
            (TOKEN, entra, {"tracestate": "a=1", "Tracestate": "b=2"}),
            (TOKEN, entra, {"Traceparent": sampled(999)}),
        ):
            headers = {"traceparent": sampled(next(number)), **more}
            self.of_the_slow_path.append(json_request(path, fields, headers))


@pytest.mark.parametrize("limits", [{}, LIMITS], ids=["", "limits"])
async def test_spans_of_both_paths_are_equal(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str]
) -> None:
    """Field by field, for every route and provider, with every kind of context: name, kind, attributes,
    status, parent, state, flags, counts of what was dropped, scope and resource. Ids and times are plausible.
    What the fast path hands over has one span, and requests to the provider are its children. No token is in
    them."""
    seen: dict[str, tuple[list[bytes], list[tuple[ResourceSpans, ScopeSpans]]]] = {}
    async with several() as running:
        requests = Requests(running)
        for way in ("fast_path", "slow_path"):
            for kept in (collector.traces, collector.raw):
                kept.clear()
            async with traced(monkeypatch, collector, way, running, **limits) as (sidecar, connection):
                for request in requests.for_the_caches:
                    assert status(await connection.ask(request)) == 200
                before, began = fast_path_answers(sidecar), time.time_ns()
                for request in requests.of_the_fast_path:
                    assert status(await connection.ask(request)) == 200
                by_fast_path = fast_path_answers(sidecar) - before
                for request in requests.of_the_slow_path:
                    await connection.ask(request)
                assert fast_path_answers(sidecar) == before + by_fast_path
                ended = time.time_ns()
                assert by_fast_path == (len(requests.of_the_fast_path) if way == "fast_path" else 0)
            found = server_spans(collector)
            assert len(found) == len(requests.of_the_fast_path) - 1 + len(requests.of_the_slow_path)
            for span in found:
                assert began - 1000 <= span.start_time_unix_nano <= span.end_time_unix_nano <= ended + 1000
            assert len({span.span_id for span in found}) == len(found)
            clients = [span for _, span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT]
            by_id = {span.span_id: span for span in found}
            (parent,) = [by_id[span.parent_span_id] for span in clients if span.parent_span_id]
            assert values(parent.attributes)["entra_fast.cache_hit"] is False
            text = b"".join(collector.raw)
            assert not any(secret.encode() in text for secret in requests.secrets)
            shapes = sorted(comparable(span).SerializeToString(deterministic=True) for span in found)
            seen[way] = (shapes, frames(collector))
    (fast, fast_frames), (slow, slow_frames) = seen["fast_path"], seen["slow_path"]
    assert [Span.FromString(each) for each in fast] == [Span.FromString(each) for each in slow]
    assert all(frame == slow_frames[0] for frame in (*fast_frames, *slow_frames))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        # Without a parent, with one that is sampled, with one that is not.
        ("parentbased_always_on", (True, True, False)),
        ("parentbased_always_off", (False, True, False)),
        ("parentbased_traceidratio", (None, True, False)),
        ("always_on", (True, True, True)),
        ("traceidratio", (None, None, None)),
    ],
)
async def test_the_sampler_decides_on_both_paths(
    monkeypatch: pytest.MonkeyPatch, provider: Provider, sampler: str, expected: tuple[bool | None, ...]
) -> None:
    """Alike: who gets a span is the same on both paths, also where the ratio of the traces decides (None)."""
    chosen: dict[str, set[bytes]] = {}
    parents = ("1" * 16, "2" * 16)
    traces = [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in range(1, 41)]
    for way in ("fast_path", "slow_path"):
        variables = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0.5"}
        async with http_collector() as collector:
            async with traced(monkeypatch, collector, way, provider, **variables) as (sidecar, connection):
                before = fast_path_answers(sidecar)
                for _ in range(40):
                    await connection.ask(introspection("a"))
                for parent, flags in zip(parents, ("01", "00"), strict=True):
                    for trace in traces:
                        traceparent = f"00-{trace}-{parent}-{flags}"
                        await connection.ask(introspection("a", traceparent=traceparent))
                assert fast_path_answers(sidecar) - before == (120 if way == "fast_path" else 0)
            spans = server_spans(collector)
        counts = [sum(span.parent_span_id.hex() == parent for span in spans) for parent in ("", *parents)]
        for count, all_of_them in zip(counts, expected, strict=True):
            assert 0 < count < 40 if all_of_them is None else count == (40 if all_of_them else 0), counts
        chosen[way] = {span.trace_id for span in spans if span.parent_span_id}
    assert chosen["fast_path"] == chosen["slow_path"]


async def test_without_propagation_every_request_begins_a_trace(
    monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    """`OTEL_PROPAGATORS=none`: the headers mean nothing, and the sampler decides alone."""
    async with http_collector() as collector:
        async with traced(monkeypatch, collector, "fast_path", provider, OTEL_PROPAGATORS="none") as (
            sidecar,
            connection,
        ):
            before = fast_path_answers(sidecar)
            await connection.ask(introspection("a", traceparent=UNSAMPLED, tracestate="a=1"))
            assert fast_path_answers(sidecar) - before == 1
        (span,) = server_spans(collector)
    assert (span.parent_span_id, span.trace_state) == (b"", "")
    assert span.trace_id.hex() != "ab" * 16


async def test_a_full_batch_is_exported_at_once(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    """Long before `OTEL_BSP_SCHEDULE_DELAY` is over; the rest waits for the end."""
    variables = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "3"}
    async with http_collector() as collector:
        async with traced(monkeypatch, collector, "fast_path", provider, **variables) as (_, connection):
            for number in range(3):
                await connection.ask(introspection("a", traceparent=sampled(number)))

            async def arrived() -> bool:
                return len(server_spans(collector)) == 3

            await eventually(arrived)
            await connection.ask(introspection("a", traceparent=sampled(3)))
            assert len(server_spans(collector)) == 3
        assert len(server_spans(collector)) == 4


async def test_spans_are_exported_after_the_delay(
    monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    """`OTEL_BSP_SCHEDULE_DELAY`, without a full batch."""
    delay = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
    async with (
        http_collector() as collector,
        traced(monkeypatch, collector, "fast_path", provider, **delay) as (_, connection),
    ):
        await connection.ask(introspection("a", traceparent=sampled(0)))

        async def arrived() -> bool:
            return bool(server_spans(collector))

        await eventually(arrived)


async def test_spans_without_room_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    """While the collector does not answer, `OTEL_BSP_MAX_QUEUE_SIZE` spans wait, and requests are answered as
    ever. `entra_fast_spans_dropped_total` counts the others."""
    answering, asked = threading.Event(), threading.Event()
    export = telemetry._Watched.export

    def waiting(self: telemetry._Watched, batch: object) -> object:
        asked.set()
        answering.wait(30)
        return export(self, batch)

    monkeypatch.setattr(telemetry._Watched, "export", waiting)
    variables = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    async with http_collector() as collector:
        async with traced(monkeypatch, collector, "fast_path", provider, **variables) as (
            sidecar,
            connection,
        ):
            for number in range(4):
                await connection.ask(introspection("a", traceparent=sampled(number)))
            assert await asyncio.to_thread(asked.wait, 30)
            for number in range(4, 15):
                assert status(await connection.ask(introspection("a", traceparent=sampled(number)))) == 200
            assert await sidecar.metric("entra_fast_spans_dropped_total") == 7
            answering.set()
        spans = sorted(span.trace_id for span in server_spans(collector))
    assert spans == [(number + 1).to_bytes(16, "big") for number in range(8)]


async def test_with_another_version_of_the_exporter_the_slow_path_makes_all_spans(
    monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    """Whose private parts are not those that sending ready messages needs."""
    monkeypatch.setattr(span_export, "takes_encoded", lambda _: False)
    async with http_collector() as collector:
        async with traced(monkeypatch, collector, "fast_path", provider) as (sidecar, connection):
            before = fast_path_answers(sidecar)
            await connection.ask(introspection("a", traceparent=sampled(0)))
            assert fast_path_answers(sidecar) == before
            await connection.ask(introspection("a", traceparent=UNSAMPLED))
            assert fast_path_answers(sidecar) == before + 1
            assert await sidecar.metric("entra_fast_spans_dropped_total") == 0
        assert len(server_spans(collector)) == 1


def test_what_an_exporter_needs_for_ready_messages() -> None:
    """The private parts that our subclasses use; exactly those of the installed exporters are there."""
    inner, client = SimpleNamespace(export=None), SimpleNamespace()
    for exporter, expected in (
        (span_export.exporter_over_grpc()(endpoint="http://127.0.0.1:9", insecure=True), True),
        (span_export.exporter_over_http()(endpoint="http://127.0.0.1:9/v1/traces"), True),
        (SimpleNamespace(_client=inner), True),
        (SimpleNamespace(_client=client, _translate_data=None), True),
        (SimpleNamespace(_client=client), False),
        (SimpleNamespace(_translate_data=None), False),
    ):
        assert span_export.takes_encoded(exporter) is expected


async def test_a_slow_path_span_of_a_miss_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch, provider: Provider
) -> None:
    """The fast path begins a span for it and declines the request: nothing of that is exported."""
    async with http_collector() as collector:
        async with traced(monkeypatch, collector, "fast_path", provider) as (_, connection):
            for _ in range(2):
                assert status(await connection.ask(token_request(traceparent=sampled(0)))) == 200
        miss, hit = sorted(server_spans(collector), key=lambda span: span.start_time_unix_nano)
    assert [values(span.attributes)["entra_fast.cache_hit"] for span in (miss, hit)] == [False, True]
