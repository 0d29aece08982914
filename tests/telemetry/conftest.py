"""Fixtures of the telemetry suite: a collector for each protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.collector import Collector, grpc_collector, http_collector
from support.process import Serve, served
from support.sidecars import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest_asyncio.fixture(params=["grpc", "http/protobuf"])
async def collector(request: pytest.FixtureRequest) -> AsyncIterator[Collector]:
    """A collector for OTLP over gRPC, and one over HTTP."""
    async with grpc_collector() if request.param == "grpc" else http_collector() as running:
        yield running


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts `entra-fast serve` with exactly the given environment."""
    async with served() as start:
        yield start
