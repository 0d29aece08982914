"""Starting and stopping the token generator: sockets, signals, exit status. The routes are in `app`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass

from entra_fast import _event_loop, _extras, _net
from entra_fast._http.limits import Limits, possible_connections
from entra_fast._http.listener import bind
from entra_fast._http.observing import LoggingObserver
from entra_fast._http.server import HttpServer, best_way, serve
from entra_fast.errors import ConfigurationError
from entra_fast.generator.app import Generator
from entra_fast.generator.login import Logins
from entra_fast.generator.provider import Provider
from entra_fast.generator.sessions import SessionStore
from entra_fast.generator.settings import GeneratorSettings


@dataclass(frozen=True, slots=True)
class RunningGenerator:
    """A token generator that answers requests.

    Attributes:
        base_url: its origin as browsers see it.
    """

    base_url: str
    _runner: HttpServer
    _provider: Provider

    async def stop(self) -> None:
        """Finish the requests in flight and close everything."""
        await self._runner.aclose()
        await self._provider.aclose()


async def start_generator(
    settings: GeneratorSettings,
    host: str | None = None,
    port: int | None = None,
    *,
    logins: Logins | None = None,
    sessions: SessionStore | None = None,
) -> RunningGenerator:
    """Listen and serve.

    Args:
        host, port: instead of the settings' own; port 0 takes a free one.
        logins, sessions: for tests that bring their own clocks.

    Raises:
        ExtraMissing: Jinja2 is not installed.
        OSError: the address cannot be bound.
    """
    _extras.need("dev", "the token generator")
    host = settings.server.host if host is None else host
    port = settings.server.port if port is None else port
    # The routes need the public address, which may only be known once the port is: bind first.
    listener = bind(host, port)
    name = f"[{host}]" if ":" in host else host
    base_url = settings.url or f"http://{name}:{listener.getsockname()[1]}"
    provider = Provider(settings.provider, settings.outbound)
    app = Generator(settings, base_url, provider, logins=logins, sessions=sessions).build()
    limits = Limits(
        possible_connections(settings.server.max_connections),
        settings.server.request_timeout,
        settings.server.idle_timeout,
    )
    try:
        server = await serve(app, [listener], limits, LoggingObserver(), best_way(), shutdown_time=5.0)
    except BaseException:
        await provider.aclose()
        raise
    return RunningGenerator(base_url, server, provider)


def run(settings: GeneratorSettings) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 0 after an orderly stop.

    Raises:
        ConfigurationError: Jinja2 is not installed, or the address cannot be bound.
    """
    logging.basicConfig(level=settings.server.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _net.warn_of_insecure_hosts(settings.outbound.insecure_hosts)
    return _event_loop.run(_serve(settings))


async def _serve(settings: GeneratorSettings) -> int:
    stop = asyncio.Event()
    _event_loop.on_stop_signals(lambda _: stop.set())
    try:
        running = await start_generator(settings)
    except OSError as error:
        # asyncio and uvloop repeat the address in strerror.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise ConfigurationError(
            "address_unavailable",
            f"cannot listen on {settings.server.host}:{settings.server.port} ({reason or error}); "
            "choose another address with --bind or BIND_ADDRESS",
            "BIND_ADDRESS",
        ) from None
    print(f"token generator: {running.base_url}", file=sys.stderr, flush=True)
    await stop.wait()
    _event_loop.restore_stop_signals()  # a second signal stops at once
    await running.stop()
    return 0
