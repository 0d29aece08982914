"""The running sidecar: listeners, draining, signals, the process.

What belongs here: start and end. What must never be here: what happens to a request in between.

Exit statuses: 0 after a drain in which every request was answered; 1 when requests had to be cut off or a
second signal came; 2 when a setting is missing or wrong, or an address cannot be listened on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import resource
import signal
import socket
from typing import Any

import uvloop
from aiohttp import web

from entra_fast import _native
from entra_fast._settings.load import Settings
from entra_fast._settings.model import ServerSettings
from entra_fast.sidecar.http.app import build_app, build_probe_app
from entra_fast.sidecar.http.fast_path import FastLaneServer
from entra_fast.sidecar.http.listener import BACKLOG, let_nobody_in, listen
from entra_fast.sidecar.http.protocol import Limits, SidecarRunner, SidecarServer
from entra_fast.sidecar.logs import configure, logger
from entra_fast.sidecar.service import Clocks, Service

PROBE_CONNECTIONS = 64
QUIET_CHECKS, QUIET_PAUSE = 5, 0.02
"""While draining: this many checks in a row, this many seconds apart, must find no request under way."""
SPARE_FILES = 640
"""File descriptors kept free for the way out."""


class RunningSidecar:
    """A sidecar that listens.

    Attributes:
        address: host:port of the API. probe_address: host:port of the probes (the API's own where there is
            no second listener).
        service: what it works with.
    """

    def __init__(
        self,
        settings: ServerSettings,
        service: Service,
        api: SidecarRunner,
        listener: socket.socket,
        probe: SidecarRunner | None,
    ) -> None:
        self._settings = settings
        self._api = api
        self._listener = listener
        self._probe = probe
        self._stopped = False
        self.service = service
        self.address = listening_on(api.addresses[0])
        self.probe_address = self.address if probe is None else listening_on(probe.addresses[0])

    @property
    def base_url(self) -> str:
        return f"http://{self.address}"

    @property
    def probe_url(self) -> str:
        return f"http://{self.probe_address}"

    async def stop(self, *, drain: bool = False) -> bool:
        """Stop. With `drain`: first fail the readiness probe and go on serving for a while, then accept no
        more connections, and let requests under way finish.

        Returns:
            Whether every request was answered.
        """
        if self._stopped:
            return True
        self._stopped = True
        self.service.draining = True
        if isinstance(self._api.sidecar_server, FastLaneServer):
            self._api.sidecar_server.close_lane()
        if drain:
            await asyncio.sleep(self._settings.drain_delay)
            await let_nobody_in(self._listener)
        for site in list(self._api.sites):
            await site.stop()
        finished = await self._quiet() if drain else True
        await self._api.cleanup()
        self.service.access_log.close()
        await self.service.aclose()
        if self._probe is not None:
            await self._probe.cleanup()
        return finished

    async def _quiet(self) -> bool:
        """Wait until no request is under way, also none of a connection that was accepted a moment ago."""
        server = self._api.sidecar_server
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_timeout
        quiet = 0
        while server is not None and quiet < QUIET_CHECKS:
            if loop.time() >= deadline and server.busy:
                return False
            quiet = 0 if server.busy else quiet + 1
            await asyncio.sleep(QUIET_PAUSE)
        return True


async def start_sidecar(settings: Settings, *, clocks: Clocks | None = None) -> RunningSidecar:
    """Start a sidecar in the running event loop. Starts also while the provider is down.

    Raises:
        ConfigurationError: an address cannot be listened on.
    """
    server = settings.server
    api_socket = listen(server.host, server.port, "BIND_ADDRESS")
    probe_socket = None
    try:
        if server.probe_host is not None:
            probe_socket = listen(server.probe_host, server.probe_port, "PROBE_BIND_ADDRESS")
        service = Service(settings, clocks=clocks)
    except BaseException:
        api_socket.close()
        raise
    api = await start_api(settings, service, api_socket, probes=probe_socket is None)
    probe = None if probe_socket is None else await start_probes(server, service, probe_socket)
    return RunningSidecar(server, service, api, api_socket, probe)


async def start_api(
    settings: Settings, service: Service, listener: socket.socket, *, probes: bool
) -> SidecarRunner:
    """Start the service, and serve the API on a socket. `probes`: and probes and metrics."""
    server = settings.server
    limits = Limits(
        max_connections=_possible_connections(server.max_connections), request_timeout=server.request_timeout
    )
    api = SidecarRunner(
        build_app(settings, service=service, probes=probes),
        limits,
        service.metrics,
        idle_timeout=server.idle_timeout,
        server=SidecarServer if service.lane is None else functools.partial(FastLaneServer, service.lane),
    )
    await api.setup()
    web_server = api.sidecar_server
    service.metrics.connections.read_from(
        lambda: len(web_server.connections) if web_server is not None else 0
    )
    await service.start()
    service.access_log.start()
    await web.SockSite(api, listener, backlog=BACKLOG).start()
    return api


async def start_probes(server: ServerSettings, service: Service, listener: socket.socket) -> SidecarRunner:
    """Serve probes and metrics on a socket of their own."""
    probe = SidecarRunner(
        build_probe_app(service),
        Limits(max_connections=PROBE_CONNECTIONS, request_timeout=server.request_timeout),
        service.metrics,
        idle_timeout=server.idle_timeout,
    )
    await probe.setup()
    await web.SockSite(probe, listener, backlog=BACKLOG).start()
    return probe


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit status.

    Raises:
        ConfigurationError: an address cannot be listened on.
    """
    configure(settings.server.log_level)
    if settings.unknown:
        logger.warning("unknown settings ignored: %s", ", ".join(settings.unknown))
    if settings.server.workers > 1:
        from entra_fast.sidecar.process.supervisor import supervise  # noqa: PLC0415 - for one process it is not needed

        serve = supervise
    else:
        serve = _serve
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


async def _serve(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            logger.warning("second signal: stopping at once")
            logging.shutdown()
            os._exit(1)
        logger.info("draining", extra={"fields": {"signal": signal.Signals(number).name}})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        # Set explicitly: as PID 1 a process has no default action for signals.
        loop.add_signal_handler(number, on_signal, number)
    sidecar = await start_sidecar(settings)
    spare_the_collector()
    fields = {"address": sidecar.address, "probes": sidecar.probe_address, "version": _native.__version__}
    logger.info("listening", extra={"fields": fields})
    await stop.wait()
    finished = await sidecar.stop(drain=True)
    logger.info("stopped", extra={"fields": {"every_request_answered": finished}})
    return 0 if finished else 1


def spare_the_collector() -> None:
    """Keep Python's cyclic collector from stopping everybody for tens of milliseconds.

    What has been imported stays for good, so it need not be looked at again. And thousands of requests that
    wait at once are no garbage: collections come with many new objects, not with few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 10)


def listening_on(address: tuple[Any, ...]) -> str:
    """host:port of a socket's own address."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _possible_connections(wanted: int) -> int:
    """As many as asked for, as far as the limit of open files allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return max(1, min(wanted, soft - SPARE_FILES))
