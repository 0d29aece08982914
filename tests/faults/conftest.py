"""Fixtures of the fault suite: a provider behind a network that fails on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from support.network import Authority, TcpProxy
from support.process import Serve, served
from support.provider import Provider
from support.sidecars import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]


@pytest_asyncio.fixture
async def network() -> AsyncIterator[TcpProxy]:
    """The network between the sidecar and the provider."""
    proxy = TcpProxy()
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest_asyncio.fixture
async def provider(network: TcpProxy) -> AsyncIterator[Provider]:
    """A provider that is reached through `network`."""
    provider = Provider()
    await provider.start(public_url=f"http://127.0.0.1:{network.port}")
    network.target_port = provider.port
    yield provider
    await provider.stop()


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts `entra-fast serve` as a process, with exactly the given environment."""
    async with served() as starter:
        yield starter


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority that no one trusts yet."""
    return Authority(tmp_path)
