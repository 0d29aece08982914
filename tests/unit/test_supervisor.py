"""The supervisor of several workers: what it does about a worker that does not serve or does not end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator

import pytest_asyncio

from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.channel import Channel
from entra_fast.sidecar.process.progress import ProgressOfWorker
from entra_fast.sidecar.process.provider_process import ConnectedWorker, ProviderProcess
from entra_fast.sidecar.process.supervisor import Process, Supervisor, WorkerSlot


class Slot:
    """A worker process that waits for its first message, and the supervisor that has started it."""

    def __init__(self) -> None:
        settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.supervisor = Supervisor(settings, ProviderProcess(settings), [self.listener])
        self.slot = WorkerSlot(0, self.listener)
        self.ours, theirs = socket.socketpair()
        progress = ProgressOfWorker()
        with theirs, contextlib.closing(progress):
            self.process = Process(0, theirs, self.listener, progress)

        async def end(_: str) -> None:
            raise AssertionError("the provider process ends no worker here")

        self.worker = ConnectedWorker(0, end, progress.count)
        self.channel = self.worker.channel = Channel(lambda *_: None, lambda: None)

    async def reaped(self) -> int:
        """Wait until the process has ended, and tell the supervisor's object its status."""
        async with asyncio.timeout(60):
            _, status = await asyncio.to_thread(os.waitpid, self.process.pid, 0)
        self.process.has_ended(os.waitstatus_to_exitcode(status))
        return os.waitstatus_to_exitcode(status)


@pytest_asyncio.fixture
async def slot() -> AsyncIterator[Slot]:
    each = Slot()
    await each.channel.open(each.ours)
    yield each
    if not each.process.ended.done():
        each.process.kill()
        await each.reaped()
    each.channel.abort()
    each.listener.close()


async def test_a_worker_that_is_ended_for_a_reason_is_killed(slot: Slot) -> None:
    """The reason is that of the metrics, unless the worker is gone already. The call returns when it is."""
    ending = asyncio.ensure_future(slot.supervisor._end(slot.slot, slot.worker, slot.process, "hung"))
    assert await slot.reaped() == -signal.SIGKILL
    await ending
    assert slot.slot.reason == "hung"
    await slot.supervisor._end(slot.slot, slot.worker, slot.process, "late")
    assert slot.slot.reason == "hung"


async def test_the_start_limit_does_not_end_a_worker_that_serves(slot: Slot) -> None:
    """It continues when the time is over, and ends later, with its channel."""
    slot.worker.serving = True
    slot.supervisor._kill_unless_serving(slot.worker, slot.process)
    slot.channel.abort()  # it ends by itself
    assert await slot.reaped() != -signal.SIGKILL


async def test_the_start_limit_ends_a_worker_that_does_not_serve(slot: Slot) -> None:
    """It is killed when the time is over."""
    slot.supervisor._kill_unless_serving(slot.worker, slot.process)
    assert await slot.reaped() == -signal.SIGKILL


async def test_the_end_of_a_worker_may_have_no_waiter(slot: Slot) -> None:
    """When the event loop stops, it cancels the wait; the process is reaped all the same."""
    slot.process.kill()
    slot.process.ended.cancel()
    assert await slot.reaped() == -signal.SIGKILL
    assert slot.process.ended.cancelled()
