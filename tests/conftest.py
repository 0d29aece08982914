"""Lets every suite import what the suites share (`from support.tokens import ...`), and holds the fixtures
that suites have in common. A suite that wants another `provider` or `start` has its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from support.provider import Provider
from support.sidecars import StartSidecar, sidecars


@pytest.fixture(autouse=True)
def _stop_signals() -> Iterator[None]:
    """A command that serves in this process leaves the handlers of its event loop behind, which is closed
    then: they would swallow a signal of a later test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


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
