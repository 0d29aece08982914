"""Fixtures' machinery: sidecars in this process, on free ports, with clocks that a test can move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar
from support.exposition import Exposition
from support.provider import Provider
from support.wire import Caller


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A hook for the conftest.py of a suite: the loop that the sidecar runs on in production."""
    return {"uvloop": uvloop.new_event_loop}


class MovableClocks:
    """Real clocks that a test can set forward, both at once or the wall clock alone, or stop."""

    def __init__(self) -> None:
        self.wall_offset = 0.0
        self.monotonic_offset = 0.0
        self._stopped: tuple[float, float] | None = None

    def stop(self, wall: float) -> None:
        """Set the time and stop the clock."""
        self._stopped = (wall, float(int(time.monotonic())))

    def advance(self, seconds: float) -> None:
        self.wall_offset += seconds
        self.monotonic_offset += seconds

    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: (self._stopped[0] if self._stopped else time.time()) + self.wall_offset,
            monotonic=lambda: (
                (self._stopped[1] if self._stopped else time.monotonic()) + self.monotonic_offset
            ),
        )


class Started:
    """A running sidecar with a client for it."""

    def __init__(self, running: RunningSidecar, clock: MovableClocks, way: str) -> None:
        self.running = running
        self.clock = clock
        self.call = Caller(running.address, way)
        self.probe = Caller(running.probe_address)

    async def until_ready(self) -> None:
        await eventually(self._ready)

    async def _ready(self) -> bool:
        return (await self.probe.get("/readyz")).status == 200

    async def received(self, requests: int) -> None:
        """Wait until this many requests are in progress at once in the API's server."""
        api = self.running.api

        async def enough() -> bool:
            return sum(c._request_in_progress for c in api.connections) >= requests

        await eventually(enough)
        await asyncio.sleep(0.02)  # their bodies are read, too

    async def metric(self, series: str) -> float:
        """The sum of all series with this name and these labels."""
        return Exposition((await self.probe.get("/metrics")).body.decode()).get(series)


StartSidecar = Callable[..., Awaitable[Started]]


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail when it never does."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def sidecars(provider: Provider, way: str = "fast_path") -> AsyncIterator[StartSidecar]:
    """A function that starts sidecars; all are stopped at the end."""
    running: list[RunningSidecar] = []

    async def start(
        *,
        ready: bool = True,
        environ: dict[str, str] | None = None,
        directory: Path | None = None,
        **changes: str | None,
    ) -> Started:
        clock = MovableClocks()
        environ = environ or provider.environment(**changes)
        if way == "slow_path":
            environ = {**environ, "ENTRA_FAST_FAST_PATH": "false"}
        settings = Settings.from_environment(environ, directory)
        sidecar = await start_sidecar(settings, clocks=clock.clocks())
        running.append(sidecar)
        started = Started(sidecar, clock, way)
        if ready:
            await started.until_ready()
        return started

    try:
        yield start
    finally:
        for sidecar in running:
            await sidecar.stop()
