"""A worker as a process of its own, with a test in the place of the provider process."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.progress import ProgressOfWorker
from entra_fast.sidecar.process.worker_settings import for_worker
from support.process import inherited
from support.provider import Provider
from support.wire import Caller, read_answer, request_bytes


class Ends:
    """A worker process, and the other ends of what it was given."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[str] = asyncio.Queue()
        self.channel = Channel(self._hear, lambda: None)
        self.ours, self._theirs = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        self.progress = ProgressOfWorker()
        self.process: asyncio.subprocess.Process | None = None

    def _hear(self, name: str, _: Fields) -> Fields | None:
        self.said.put_nowait(name)
        return {"again": False, "reason": None} if name == "keys" else None

    async def start(
        self, *, supervisor: int | None = None, channel: int | None = None, **environ: str
    ) -> None:
        fds = (
            self._theirs.fileno() if channel is None else channel,
            self._listener.fileno(),
            self.progress.file,
        )
        arguments = (0, os.getpid() if supervisor is None else supervisor, *fds)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "entra_fast.sidecar.process", *map(str, arguments)),
            pass_fds=fds,
            env={**inherited(), "PYTHONPATH": os.pathsep.join(sys.path), **environ},
            stderr=asyncio.subprocess.PIPE,
        )

    async def greeted(self, provider: Provider, **environ: str) -> None:
        """Give it its settings, and wait until it has said hello."""
        await self.channel.open(self.ours)
        settings = Settings.from_environment(provider.environment(ENTRA_FAST_WORKERS="2", **environ), None)
        self.channel.send("start", **for_worker(settings))
        await self.says("hello")

    async def says(self, name: str) -> None:
        """Its next message is this one."""
        async with asyncio.timeout(60):
            assert await self.said.get() == name

    async def logs(self, text: str) -> None:
        """Read its log up to this line."""
        assert self.process is not None
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while text not in (await self.process.stderr.readline()).decode():
                pass

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
        self.progress.close()


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
    if message == "unheard of":
        await ends.greeted(provider)
    else:
        await ends.channel.open(ends.ours)
    ends.channel.send(message)
    status, log = await ends.ended()
    assert status == 1
    assert "message not understood" in log


async def test_a_worker_applies_an_announcement_before_it_confirms_it(ends: Ends, provider: Provider) -> None:
    """Told to distrust rind, it has done so, and reports that to the provider process, when it answers
    `sync`."""
    await ends.start()
    await ends.greeted(provider)
    ends.channel.send("signatures_distrusted")
    async with asyncio.timeout(60):
        assert await ends.channel.call("sync") == {}
    await ends.says("signatures_distrusted")
    ends.channel.abort()
    status, log = await ends.ended()
    assert status == 1
    assert log.count("rind is no longer used") == 1


async def test_a_worker_sends_its_last_spans_before_it_ends(ends: Ends, provider: Provider) -> None:
    """It ends with `os._exit`, so nothing else would send the span of its last request."""
    received = bytearray()

    async def collect(request: web.Request) -> web.Response:
        received.extend(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    collector = web.AppRunner(app)
    await collector.setup()
    await web.TCPSite(collector, "127.0.0.1", 0).start()
    await ends.start(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.addresses[0][1]}",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
        OTEL_BSP_SCHEDULE_DELAY="3600000",  # not by itself
    )
    await ends.greeted(provider)
    ends.channel.send("serve", began=0.0)
    await ends.says("serving")
    await ends.logs("exporting telemetry")
    body = json.dumps({"identity_provider": "entra_id", "token": "a"}).encode()
    headers = {"Content-Type": "application/json", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    request = request_bytes("POST", "/api/v1/introspect", body, headers)
    assert (await Caller(ends.address).send(request)).status == 200
    await ends.says("keys")
    assert not received
    ends.channel.send("drain")
    await ends.says("drained")
    assert (await ends.ended())[0] == 0
    assert b"POST /api/v1/introspect" in received
    await collector.cleanup()


@pytest.mark.parametrize("fast_path", ["true", "false"])
async def test_a_worker_shows_its_work_without_being_asked(
    ends: Ends, provider: Provider, fast_path: str
) -> None:
    """Each time that it has handled bytes of a connection, on both paths: so the provider process can tell an
    overloaded worker from one that hangs."""
    await ends.start()
    await ends.greeted(provider, ENTRA_FAST_FAST_PATH=fast_path)
    ends.channel.send("serve", began=0.0)
    await ends.says("serving")
    assert ends.progress.count() == 0
    seen = 0
    body = json.dumps({"identity_provider": "entra_id", "token": "a"}).encode()
    request = request_bytes("POST", "/api/v1/introspect", body, {"Content-Type": "application/json"})
    caller = Caller(ends.address)
    for _ in range(3):
        reader, writer = await caller.connect()
        writer.write(request * 2)
        assert [(await read_answer(reader)).status for _ in range(2)] == [200, 200]
        writer.close()
        assert ends.progress.count() > seen
        seen = ends.progress.count()
    ends.channel.abort()
    assert (await ends.ended())[0] == 1


def test_importing_the_entry_point_starts_no_worker() -> None:
    """Tools that import every module, such as those that make documentation, have no supervisor."""
    assert not hasattr(importlib.import_module("entra_fast.sidecar.process.__main__"), "main")
