"""Fixtures of the fast lane's suite: a sidecar with the lane and one without, at the same provider."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest_asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.provider import Provider
from support.sidecars import Started, StartSidecar, sidecars


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the sidecar runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest_asyncio.fixture
async def start(provider: Provider) -> AsyncIterator[StartSidecar]:
    """Starts sidecars with settings of the test's own."""
    async with sidecars(provider) as starter:
        yield starter


@pytest_asyncio.fixture
async def lane(start: StartSidecar) -> Started:
    """A ready sidecar with the lane."""
    return await start()


@pytest_asyncio.fixture
async def full(start: StartSidecar) -> Started:
    """A ready sidecar without the lane."""
    return await start(ENTRA_FAST_FAST_LANE="false")
