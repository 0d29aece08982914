"""Serving an application on a listening socket, in the best of three ways that this aiohttp supports.

What belongs here: the choice between the fast path, the slow path with the sidecar's own protocol, and plain
aiohttp; and what a running sidecar needs from each. What must never be here: requests, and private parts of
aiohttp (internals.py lists those that the first two need).
"""

from __future__ import annotations

import enum
import functools
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from entra_fast._metrics import Metrics
from entra_fast.sidecar.http.fast_path import FastPathServer
from entra_fast.sidecar.http.internals import missing_parts
from entra_fast.sidecar.http.listener import BACKLOG
from entra_fast.sidecar.http.protocol import Limits, SidecarRunner, SidecarServer, head_refusal, unobserved
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.service import FastPath

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LINGERING_TIME = 2.0
"""Seconds in which aiohttp reads the rest of a body that a handler did not read."""
SHUTDOWN_TIME = 1.0
"""Seconds that a handler has to finish when the server closes its connection."""


class HttpServer(Protocol):
    """An application that listens."""

    @property
    def app(self) -> web.Application:
        """The application."""

    @property
    def addresses(self) -> list[tuple[object, ...]]:
        """The addresses of the listening sockets."""

    @property
    def connections(self) -> list[web.RequestHandler]:
        """The open connections."""

    @property
    def busy(self) -> bool:
        """Whether any request is being received or answered."""

    def leave_fast_path(self) -> None:
        """From now on every request takes the slow path."""

    async def stop_listening(self) -> None:
        """Close the listening socket. Open connections stay."""

    async def aclose(self) -> None:
        """Close everything."""


class SidecarHttpServer:
    """An application behind the sidecar's own protocol, with the fast path in front if there is one."""

    def __init__(self, runner: SidecarRunner) -> None:
        self._runner = runner

    @property
    def server(self) -> SidecarServer:
        """Makes the protocol of each connection."""
        assert self._runner.sidecar_server is not None  # noqa: S101 - `serve` has set it
        return self._runner.sidecar_server

    @property
    def app(self) -> web.Application:
        return self._runner.app

    @property
    def addresses(self) -> list[tuple[object, ...]]:
        return self._runner.addresses

    @property
    def connections(self) -> list[web.RequestHandler]:
        return self.server.connections

    @property
    def busy(self) -> bool:
        return self.server.busy

    def leave_fast_path(self) -> None:
        self.server.leave_fast_path()

    async def stop_listening(self) -> None:
        await _stop_listening(self._runner)

    async def aclose(self) -> None:
        await self._runner.cleanup()


class PlainHttpServer:
    """An application behind plain aiohttp, using only its public parts. There is no fast path, no limit on
    connections and no deadline to receive a request, and aiohttp answers malformed requests in its own
    words."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._in_progress = 0
        runner.app.middlewares.insert(0, self._count)

    @property
    def app(self) -> web.Application:
        return self._runner.app

    @property
    def addresses(self) -> list[tuple[object, ...]]:
        return self._runner.addresses

    @property
    def connections(self) -> list[web.RequestHandler]:
        server = self._runner.server
        return [] if server is None else server.connections

    @property
    def busy(self) -> bool:
        return self._in_progress > 0

    def leave_fast_path(self) -> None:
        """There is none."""

    async def stop_listening(self) -> None:
        await _stop_listening(self._runner)

    async def aclose(self) -> None:
        await self._runner.cleanup()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._in_progress += 1
        try:
            return head_refusal(request) or await handler(request)
        finally:
            self._in_progress -= 1


class Way(enum.Enum):
    """How requests are served."""

    FAST_PATH = "fast path"
    SLOW_PATH = "slow path"
    PLAIN_AIOHTTP = "plain aiohttp"


def best_way() -> Way:
    """The best way that this aiohttp supports. If that is not the fast path, a warning names what is missing.
    Must be called in a running event loop."""
    missing = missing_parts()
    if missing.for_protocol:
        fields = {"aiohttp_lacks": [*missing.for_protocol, *missing.for_fast_path]}
        message = "serving with plain aiohttp: no fast path, no connection limit, no request deadline"
        logger.warning(message, extra={"fields": fields})
        return Way.PLAIN_AIOHTTP
    if missing.for_fast_path:
        fields = {"aiohttp_lacks": [*missing.for_fast_path]}
        logger.warning("serving without the fast path", extra={"fields": fields})
        return Way.SLOW_PATH
    return Way.FAST_PATH


async def serve(
    app: web.Application,
    listener: socket.socket,
    limits: Limits,
    metrics: Metrics,
    way: Way,
    fast_path: FastPath | None = None,
    worked: Callable[[], None] = unobserved,
) -> HttpServer:
    """Serve an application on a listening socket.

    Args:
        app: the application.
        listener: the socket, which listens already.
        limits: what connections may do.
        metrics: where refused connections and the like are counted.
        way: the result of `best_way`.
        fast_path: answers plain requests below aiohttp, where `way` allows it.
        worked: called whenever bytes of a connection have been handled, except by plain aiohttp.
    """
    options: dict[str, Any] = {
        "access_log": None,  # the application writes its own lines, without headers
        "keepalive_timeout": limits.idle_timeout,
        "lingering_time": LINGERING_TIME,
        "shutdown_timeout": SHUTDOWN_TIME,
    }
    if way is Way.PLAIN_AIOHTTP:
        runner = web.AppRunner(app, **options)
        server: HttpServer = PlainHttpServer(runner)
    else:
        make: Callable[..., SidecarServer] = SidecarServer
        if way is Way.FAST_PATH and fast_path is not None:
            make = functools.partial(FastPathServer, fast_path)
        runner = SidecarRunner(
            app, functools.partial(make, limits=limits, metrics=metrics, worked=worked), **options
        )
        server = SidecarHttpServer(runner)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=BACKLOG).start()
    return server


async def _stop_listening(runner: web.AppRunner) -> None:
    for site in list(runner.sites):
        await site.stop()
