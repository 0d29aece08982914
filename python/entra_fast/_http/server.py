"""Serving an application on listening sockets, in the best of three ways that this aiohttp supports.

What belongs here: the choice between the fast path, the slow path with the strict protocol, and plain
aiohttp; and what a running server needs from each. What must never be here: requests, and private parts of
aiohttp (internals.py lists those that the first two need).
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from entra_fast._http.internals import missing_parts
from entra_fast._http.limits import MAX_FIELDS, MAX_FIELDS_BYTES, MAX_LINE_BYTES, Limits
from entra_fast._http.listener import BACKLOG
from entra_fast._http.protocol import Observer, StrictRunner, StrictServer
from entra_fast._http.refusals import head_refusal

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("entra_fast")

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


class _Listening:
    """An application and the sockets that it listens on."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._sites: list[asyncio.Server] = []

    @property
    def app(self) -> web.Application:
        return self._runner.app

    @property
    def addresses(self) -> list[tuple[object, ...]]:
        return [listener.getsockname() for site in self._sites for listener in site.sockets]

    async def listen(
        self, listeners: Sequence[socket.socket], tls: ssl.SSLContext | None, handshake_timeout: float
    ) -> None:
        await self._runner.setup()
        server = self._runner.server
        assert server is not None  # noqa: S101 - `setup` has made it
        # Not by a site of aiohttp's, which has no argument for the time that a handshake may take.
        options: dict[str, Any] = {"ssl": tls, "ssl_handshake_timeout": handshake_timeout} if tls else {}
        loop = asyncio.get_running_loop()
        for listener in listeners:
            self._sites.append(await loop.create_server(server, sock=listener, backlog=BACKLOG, **options))

    async def stop_listening(self) -> None:
        while self._sites:
            self._sites.pop().close()

    async def aclose(self) -> None:
        await self.stop_listening()
        await self._runner.cleanup()


class StrictHttpServer(_Listening):
    """An application behind the strict protocol, with the fast path in front if there is one."""

    def __init__(self, runner: StrictRunner) -> None:
        super().__init__(runner)
        self._strict = runner

    @property
    def server(self) -> StrictServer:
        """Makes the protocol of each connection."""
        assert self._strict.strict_server is not None  # noqa: S101 - `listen` has set it
        return self._strict.strict_server

    @property
    def connections(self) -> list[web.RequestHandler]:
        return self.server.connections

    @property
    def busy(self) -> bool:
        return self.server.busy

    def leave_fast_path(self) -> None:
        self.server.leave_fast_path()


class PlainHttpServer(_Listening):
    """An application behind plain aiohttp, using only its public parts. There is no fast path, no limit on
    connections and no deadline to receive a request, and aiohttp answers malformed requests in its own
    words."""

    def __init__(self, runner: web.AppRunner) -> None:
        super().__init__(runner)
        self._in_progress = 0
        runner.app.middlewares.insert(0, self._count)

    @property
    def connections(self) -> list[web.RequestHandler]:
        server = self._runner.server
        return [] if server is None else server.connections

    @property
    def busy(self) -> bool:
        return self._in_progress > 0

    def leave_fast_path(self) -> None:
        """There is none."""

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
        _log.warning(message, extra={"fields": fields})
        return Way.PLAIN_AIOHTTP
    if missing.for_fast_path:
        fields = {"aiohttp_lacks": [*missing.for_fast_path]}
        _log.warning("serving without the fast path", extra={"fields": fields})
        return Way.SLOW_PATH
    return Way.FAST_PATH


async def serve(
    app: web.Application,
    listeners: Sequence[socket.socket],
    limits: Limits,
    observer: Observer,
    way: Way,
    *,
    server: Callable[..., StrictServer] = StrictServer,
    tls: ssl.SSLContext | None = None,
    shutdown_time: float | None = None,
) -> HttpServer:
    """Serve an application on listening sockets.

    Args:
        app: the application.
        listeners: the sockets, which listen already.
        limits: what connections may do.
        observer: is told of refused connections and the like.
        way: the result of `best_way`.
        server: makes the protocols, where `way` allows any but plain aiohttp's.
        tls: serve https.
        shutdown_time: seconds that a handler has to finish when the server closes its connection; None for
            `SHUTDOWN_TIME`.
    """
    options: dict[str, Any] = {
        "access_log": None,  # applications write their own lines, without headers
        "auto_decompress": False,  # a compressed body is refused, so it must not be decompressed first
        "keepalive_timeout": limits.idle_timeout,
        "lingering_time": LINGERING_TIME,
        "max_field_size": MAX_FIELDS_BYTES,
        "max_headers": MAX_FIELDS,
        "max_line_size": MAX_LINE_BYTES,
        "shutdown_timeout": SHUTDOWN_TIME if shutdown_time is None else shutdown_time,
    }
    listening: StrictHttpServer | PlainHttpServer
    if way is Way.PLAIN_AIOHTTP:
        listening = PlainHttpServer(web.AppRunner(app, **options))
    else:
        make = functools.partial(server, limits=limits, observer=observer)
        listening = StrictHttpServer(StrictRunner(app, make, **options))
    try:
        await listening.listen(listeners, tls, limits.request_timeout)
    except BaseException:
        await listening.stop_listening()  # asyncio cannot stop on a socket that is closed already
        for listener in listeners:
            listener.close()
        await listening.aclose()
        raise
    return listening
