"""Fixtures of the fast path's suite: a sidecar with the fast path and one without, at the same provider."""

from __future__ import annotations

import pytest_asyncio

from support.sidecars import Started, StartSidecar, pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest_asyncio.fixture
async def fast(start: StartSidecar) -> Started:
    """A ready sidecar with the fast path."""
    return await start()


@pytest_asyncio.fixture
async def slow(start: StartSidecar) -> Started:
    """A ready sidecar without the fast path."""
    return await start(ENTRA_FAST_FAST_PATH="false")
