"""Starting and stopping the token generator: sockets, signals, exit status. The routes are in `app`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from dataclasses import dataclass

from aiohttp import web

from entra_fast import _event_loop, _extras
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
    _runner: web.AppRunner
    _provider: Provider

    async def stop(self) -> None:
        """Finish the requests in flight and close everything."""
        await self._runner.cleanup()
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
    listener = _bind(host, port)
    name = f"[{host}]" if ":" in host else host
    base_url = settings.url or f"http://{name}:{listener.getsockname()[1]}"
    provider = Provider(settings.provider, settings.outbound)
    app = Generator(settings, base_url, provider, logins=logins, sessions=sessions).build()
    runner = web.AppRunner(
        app, access_log=None, keepalive_timeout=settings.server.idle_timeout, shutdown_timeout=5.0
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listener, backlog=128).start()
    except BaseException:
        listener.close()
        await runner.cleanup()
        await provider.aclose()
        raise
    return RunningGenerator(base_url, runner, provider)


def run(settings: GeneratorSettings) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit status: 0 after an orderly stop.

    Raises:
        ConfigurationError: Jinja2 is not installed, or the address cannot be bound.
    """
    logging.basicConfig(level=settings.server.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
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


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return socket.create_server(address[:2], family=family)
