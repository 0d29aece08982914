"""Lets every suite import what the suites share (`from support.tokens import ...`), and holds the fixtures
that suites have in common. A suite that wants another `provider` or `start` has its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from support.provider import Provider
from support.sidecars import StartSidecar, sidecars


@pytest.fixture(autouse=True)
def _stop_signals() -> None:
    """Each test begins with Python's own handlers: a command that served in this process has left those of
    its event loop behind, which is closed now, so that they would swallow a signal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    await provider.start()
    yield provider
    await provider.stop()


@pytest_asyncio.fixture
async def start(provider: Provider) -> AsyncIterator[StartSidecar]:
    """Starts sidecars with the test's own settings."""
    async with sidecars(provider) as starter:
        yield starter
