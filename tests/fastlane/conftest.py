"""Fixtures of the fast lane's suite: a sidecar with the lane and one without, at the same provider."""

from __future__ import annotations

import pytest_asyncio

from support.sidecars import Started, StartSidecar, pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest_asyncio.fixture
async def lane(start: StartSidecar) -> Started:
    """A ready sidecar with the lane."""
    return await start()


@pytest_asyncio.fixture
async def full(start: StartSidecar) -> Started:
    """A ready sidecar without the lane."""
    return await start(ENTRA_FAST_FAST_LANE="false")
