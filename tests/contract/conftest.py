"""Fixtures of the contract suite: every test runs in each way of serving."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.provider import Provider
from support.sidecars import Started, StartSidecar, sidecars
from support.wire import WAYS


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the sidecar runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How requests travel to the sidecar."""
    return str(request.param)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest_asyncio.fixture
async def start(provider: Provider, way: str) -> AsyncIterator[StartSidecar]:
    """Starts sidecars with settings of the test's own."""
    async with sidecars(provider, way) as starter:
        yield starter


@pytest_asyncio.fixture
async def sidecar(start: StartSidecar) -> Started:
    """A ready sidecar with the usual settings."""
    return await start()
