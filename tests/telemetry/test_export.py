"""The sidecar with a collector: real processes, real OTLP over gRPC and over HTTP."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from support.collector import Collector, values
from support.fast_path import introspection, token_request
from support.process import Process, Serve
from support.provider import Provider
from support.sidecars import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"


async def exporting(process: Process, processes: int = 1) -> None:
    """Wait until telemetry is exported by every process."""

    async def so() -> bool:
        return process.logged("exporting telemetry") == processes

    await eventually(so)


@pytest.mark.parametrize("workers", [1, 2])
async def test_spans_and_metrics_reach_the_collector(
    collector: Collector, serve: Serve, provider: Provider, workers: int
) -> None:
    """With what NAIS injects, by one process and with workers: spans of the request and of what it caused are
    one trace, and each metric is exported once for the whole sidecar."""
    process = await serve(
        provider.environment(**collector.environment(), ENTRA_FAST_WORKERS=str(workers))
    )
    caller = await process.listening()
    await exporting(process, 1 if workers == 1 else workers + 1)
    for _ in range(2):
        assert (await caller.send(token_request(traceparent=SAMPLED))).status == 200
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.lines

    servers = [(r, span) for r, span in collector.spans if span.name == "POST /api/v1/token"]
    clients = [(r, span) for r, span in collector.spans if span.trace_id.hex() == TRACE and span.kind == span.SPAN_KIND_CLIENT]
    assert len(servers) == 2
    assert len(clients) == 1
    print([values(s.attributes) for _, s in servers], [values(s.attributes) for _, s in clients])
    print(collector.spans[0][0])
    print(sorted(collector.last_metrics()))
    print(process.lines)
    assert 0
