"""A listening sidecar: starting, draining and stopping it.

What belongs here: what a single process and a worker have in common: serving the API and the probes on
sockets, and finishing every request before exit. What must never be here: signals and exit statuses
(single.py), several processes (supervisor.py), and what happens to a request.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import socket
from collections.abc import Callable, Sequence

from entra_fast._http.limits import Limits, possible_connections
from entra_fast._http.listener import stop_accepting
from entra_fast._http.protocol import StrictServer
from entra_fast._http.server import HttpServer, Way, best_way, serve
from entra_fast._metric_kinds import Merged
from entra_fast._settings.load import Settings
from entra_fast._settings.model import ServerSettings
from entra_fast.sidecar import otlp, tracing
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.http.app import build_app, build_probe_app
from entra_fast.sidecar.http.fast_path import FastPathServer
from entra_fast.sidecar.http.listener import listen
from entra_fast.sidecar.http.observing import MetricsObserver, unobserved
from entra_fast.sidecar.interfaces import Observed
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.readiness import SHUTTING_DOWN, Readiness
from entra_fast.sidecar.service import Service, new_metrics, new_token_cache
from entra_fast.sidecar.status_log import Introspections, StatusLog
from entra_fast.sidecar.telemetry import Telemetry, usable

PROBE_CONNECTIONS = 64
"""Maximum number of connections to the probe listener."""
QUIET_CHECKS, QUIET_PAUSE = 5, 0.02
"""While draining: this many checks in a row, this many seconds apart, must find no request in progress."""


class RunningSidecar:
    """A sidecar that listens.

    Attributes:
        service: answers the requests.
        address: host:port of the API.
        probe_address: host:port of the probes; that of the API where there is no second listener.
    """

    def __init__(
        self,
        settings: ServerSettings,
        service: Service,
        api: HttpServer,
        listener: socket.socket,
        *,
        probe: HttpServer | None = None,
        status_log: StatusLog | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._probe = probe
        self._status_log = status_log
        self._telemetry = telemetry
        self._stopped = False
        self.api = api
        self.service = service
        self.address = host_and_port(api.addresses[0])
        self.probe_address = self.address if probe is None else host_and_port(probe.addresses[0])

    @property
    def base_url(self) -> str:
        """URL of the API."""
        return f"http://{self.address}"

    @property
    def probe_url(self) -> str:
        """URL of the probes."""
        return f"http://{self.probe_address}"

    async def stop(self, *, drain: bool = False) -> bool:
        """Stop.

        Args:
            drain: first fail the readiness probe and continue to serve for a while, then accept no more
                connections, and finish the requests in progress.

        Returns:
            Whether every request was answered.
        """
        if self._stopped:
            return True
        self._stopped = True
        if self._status_log is not None:
            await self._status_log.aclose()  # draining has log lines of its own
        self.service.draining = True
        self.api.leave_fast_path()
        if drain:
            await asyncio.sleep(self._settings.drain_delay)
            await stop_accepting(self._listener)
        await self.api.stop_listening()
        finished = await self._quiet() if drain else True
        await self.api.aclose()
        self.service.access_log.close()
        await self.service.aclose()
        if self._probe is not None:
            await self._probe.aclose()
        if self._telemetry is not None:
            await self._telemetry.aclose()
        return finished

    async def _quiet(self) -> bool:
        """Wait until no request is in progress, including requests on connections that were just accepted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_timeout
        quiet = 0
        while quiet < QUIET_CHECKS:
            if loop.time() >= deadline and self.api.busy:
                return False
            quiet = 0 if self.api.busy else quiet + 1
            await asyncio.sleep(QUIET_PAUSE)
        return True


async def start_sidecar(settings: Settings, *, clocks: Clocks | None = None) -> RunningSidecar:
    """Start a sidecar in the running event loop, as a single process. Starts even while the provider is
    unavailable.

    Args:
        settings: of the sidecar.
        clocks: where time comes from; for tests.

    Raises:
        ConfigurationError: the sidecar cannot listen on an address.
    """
    server, clocks = settings.server, clocks or Clocks()
    api_socket = listen(server.host, server.port, "BIND_ADDRESS")
    probe_socket = None
    try:
        if server.probe_host is not None:
            probe_socket = listen(server.probe_host, server.probe_port, "PROBE_BIND_ADDRESS")
        way = best_way()
        cache, exported = new_token_cache(settings.caches), usable(otlp.read())
        metrics, traces = new_metrics(server), tracing.begin(exported)
        providers = ProviderClients(
            settings,
            cache=cache,
            metrics=metrics,
            clocks=clocks,
            tracing=traces,
            cached_bytes=lambda: cache.stats()["bytes"],
        )
        service = Service(
            settings,
            providers,
            cache=cache,
            metrics=metrics,
            clocks=clocks,
            tracing=traces,
            fast_path=way is Way.FAST_PATH,
        )
    except BaseException:
        api_socket.close()
        if probe_socket is not None:
            probe_socket.close()
        raise

    def readiness() -> Readiness:
        return SHUTTING_DOWN if service.draining else providers.readiness_now()

    def introspections() -> dict[str, Introspections]:
        return Introspections.of(metrics, (), service.rejections.take_examples())

    metrics.ready.read_from(lambda: readiness().ready)
    await service.start()
    api = await start_api(service, api_socket, way, probes=probe_socket is None)
    probe = None if probe_socket is None else await start_probes(server, service, probe_socket, way)
    status_log = None
    if settings.providers:
        status_log = StatusLog(
            metrics,
            [provider.name for provider in settings.providers],
            readiness,
            introspections,
            clocks.monotonic,
            clock_tolerance=settings.clock_tolerance,
        )
        status_log.start()

    async def figures() -> list[Merged]:
        return metrics.merged()

    telemetry = Telemetry(exported, traces, service.has_started, figures)
    telemetry.start()
    return RunningSidecar(
        server, service, api, api_socket, probe=probe, status_log=status_log, telemetry=telemetry
    )


async def start_api(
    service: Service,
    listener: socket.socket,
    way: Way,
    *,
    probes: bool,
    worked: Callable[[], None] = unobserved,
) -> HttpServer:
    """Serve the API on a socket.

    Args:
        service: answers the requests. It has been started.
        listener: the socket.
        way: the result of `best_way`.
        probes: whether probes and metrics are served there too.
        worked: see `MetricsObserver`.
    """
    server = service.settings.server
    limits = Limits(
        max_connections=possible_connections(server.max_connections),
        request_timeout=server.request_timeout,
        idle_timeout=server.idle_timeout,
    )
    service.access_log.start()
    app = build_app(service, probes=probes)
    make: Callable[..., StrictServer] = StrictServer
    if way is Way.FAST_PATH and service.fast_path is not None:
        make = functools.partial(FastPathServer, service.fast_path)
    api = await serve(app, [listener], limits, MetricsObserver(service.metrics, worked), way, server=make)
    service.metrics.connections.read_from(lambda: len(api.connections))
    return api


async def start_probes(
    server: ServerSettings, observed: Observed, listener: socket.socket, way: Way
) -> HttpServer:
    """Serve probes and metrics on a socket of their own."""
    limits = Limits(
        max_connections=PROBE_CONNECTIONS,
        request_timeout=server.request_timeout,
        idle_timeout=server.idle_timeout,
    )
    return await serve(build_probe_app(observed), [listener], limits, MetricsObserver(observed.metrics), way)


def freeze_garbage_collector() -> None:
    """Keep Python's cyclic garbage collector from stopping the process for tens of milliseconds.

    Everything imported stays until the process ends, so it need not be scanned again. Thousands of waiting
    requests are not garbage either, so collections run only after many new objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 10)


def host_and_port(address: Sequence[object]) -> str:
    """host:port of a socket's own address."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
