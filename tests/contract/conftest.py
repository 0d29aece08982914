"""Fixtures of the contract suite: every test runs in each way of serving."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.provider import Provider
from support.sidecars import Started, StartSidecar, pytest_asyncio_loop_factories, sidecars
from support.wire import WAYS

__all__ = ["pytest_asyncio_loop_factories"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """How requests travel to the sidecar."""
    return str(request.param)


@pytest_asyncio.fixture
async def start(provider: Provider, way: str) -> AsyncIterator[StartSidecar]:
    """Starts sidecars with the test's own settings."""
    async with sidecars(provider, way) as starter:
        yield starter


@pytest_asyncio.fixture
async def sidecar(start: StartSidecar) -> Started:
    """A ready sidecar with the usual settings."""
    return await start()
