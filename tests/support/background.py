"""Servers on an event loop in a thread, so that blocking clients and asynchronous ones are tested alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar
from support.sidecars import eventually

T = TypeVar("T")


class ThreadLoop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def started_sidecar(environ: Mapping[str, str]) -> RunningSidecar:
    """A sidecar that has keys."""
    running = await start_sidecar(Settings.from_environment({**environ, "BIND_ADDRESS": "127.0.0.1:0"}))

    async def is_ready() -> bool:
        return (await running.service.readiness()).ready

    await eventually(is_ready)
    return running


@dataclass
class Received:
    """A request as an API saw it."""

    path: str
    authorization: str | None
    body: bytes


Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Api:
    """An API that records requests, and answers from a script, otherwise with 200."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    script: list[web.StreamResponse | Respond] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.received.append(Received(request.path_qs, request.headers.get("Authorization"), body))
        if not self.script:
            return web.json_response({"path": request.path})
        answer = self.script.pop(0)
        return answer if isinstance(answer, web.StreamResponse) else await answer(request)

    @property
    def tokens(self) -> list[str | None]:
        """The tokens of all requests."""
        return [
            None if one.authorization is None else one.authorization.removeprefix("Bearer ")
            for one in self.received
        ]
