"""A worker as a process of its own, with a test in the place of the provider process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.worker_settings import for_worker
from support.process import inherited
from support.provider import Provider


class Ends:
    """A worker process, and the other ends of what it was given."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.channel = Channel(self._hear, lambda: None)
        self.ours, self._theirs = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.process: asyncio.subprocess.Process | None = None

    def _hear(self, name: str, _: Fields) -> None:
        self.said.put_nowait(name)

    async def start(self, *, supervisor: int | None = None, channel: int | None = None) -> None:
        fds = (self._theirs.fileno() if channel is None else channel, self._listener.fileno())
        arguments = (0, os.getpid() if supervisor is None else supervisor, *fds)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "entra_fast.sidecar.process.worker", *map(str, arguments)),
            pass_fds=fds,
            env={**inherited(), "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=asyncio.subprocess.PIPE,
        )

    async def ended(self) -> tuple[int, str]:
        """Its exit status and its log."""
        assert self.process is not None
        async with asyncio.timeout(60):
            _, log = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, log.decode()

    def close(self) -> None:
        self.channel.abort()
        for each in (self.ours, self._theirs, self._listener):
            each.close()


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    yield both
    both.close()


async def test_a_worker_of_another_supervisor_ends_at_once(ends: Ends) -> None:
    """Its supervisor may have ended before the worker could ask to end with it."""
    await ends.start(supervisor=1)
    assert (await ends.ended())[0] == 1


async def test_a_worker_without_its_sockets_says_that_it_failed(ends: Ends) -> None:
    """With exit status 1, and the exception by name."""
    reading, writing = os.pipe()
    await ends.start(channel=reading)
    status, log = await ends.ended()
    os.close(reading)
    os.close(writing)
    assert status == 1
    assert "worker failed" in log


@pytest.mark.parametrize("message", ["sync", "unheard of"])
async def test_a_worker_that_is_told_what_it_does_not_understand_ends(
    ends: Ends, provider: Provider, message: str
) -> None:
    """Nothing else that it was told could be trusted. Its settings come first."""
    await ends.start()
    await ends.channel.open(ends.ours)
    if message == "unheard of":
        settings = Settings.from_environment(provider.environment(ENTRA_FAST_WORKERS="2"), None)
        ends.channel.send("start", **for_worker(settings))
        async with asyncio.timeout(60):
            assert await ends.said.get() == "hello"
    ends.channel.send(message)
    status, log = await ends.ended()
    assert status == 1
    assert "message not understood" in log
