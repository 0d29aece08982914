"""Starting and stopping the token generator: sockets, signals, exit status. The routes are in `app`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from entra_fast import _event_loop, _extras, _net
from entra_fast._http.limits import Limits, possible_connections
from entra_fast._http.listener import bind
from entra_fast._http.observing import LoggingObserver
from entra_fast._http.server import HttpServer, best_way, serve
from entra_fast._provider.http_client import HttpClient
from entra_fast._settings.kinds import HostPort
from entra_fast._settings.model import ServerSettings
from entra_fast.errors import ConfigurationError
from entra_fast.generator.app import Generator
from entra_fast.generator.provider import Provider
from entra_fast.generator.sessions import SessionStore
from entra_fast.generator.settings import GeneratorSettings
from entra_fast.generator.tokenx.app import TokenXGenerator
from entra_fast.generator.tokenx.providers import IdPortenLogin, TokenXExchange
from entra_fast.generator.tokenx.settings import TokenXGeneratorSettings


@dataclass(frozen=True, slots=True)
class RunningGenerator:
    """A token generator that answers requests.

    Attributes:
        base_url: its origin as browsers see it.
    """

    base_url: str
    _runner: HttpServer
    _close: Callable[[], Awaitable[None]]

    async def stop(self) -> None:
        """Finish the requests in flight and close everything."""
        await self._runner.aclose()
        await self._close()


async def start_generator(
    settings: GeneratorSettings, port: int | None = None, *, sessions: SessionStore | None = None
) -> RunningGenerator:
    """Listen and serve.

    Args:
        port: instead of the settings' own; 0 takes a free one.
        sessions: for tests that bring their own clock.

    Raises:
        ExtraMissing: Jinja2 is not installed.
        OSError: the address cannot be bound.
    """
    provider = Provider(settings.provider, settings.outbound)
    return await _started(
        settings.server,
        settings.url,
        port,
        lambda base_url: Generator(settings, base_url, provider, sessions=sessions).build(),
        provider.aclose,
    )


async def start_tokenx_generator(
    settings: TokenXGeneratorSettings, port: int | None = None
) -> RunningGenerator:
    """Listen and serve the token generator for TokenX. Arguments and errors as for `start_generator`."""
    http = HttpClient.from_settings(settings.outbound)
    login = IdPortenLogin(
        settings.idporten,
        http,
        fake_login_url=settings.fake_login_url,
        fake_login_token=settings.fake_login_token,
    )
    exchange = TokenXExchange(settings.tokenx, http)

    async def close() -> None:
        await login.aclose()
        await http.aclose()

    return await _started(
        settings.server,
        settings.url,
        port,
        lambda base_url: TokenXGenerator(settings, base_url, login, exchange).build(),
        close,
    )


async def _started(
    server_settings: ServerSettings,
    url: str | None,
    port: int | None,
    build: Callable[[str], web.Application],
    close: Callable[[], Awaitable[None]],
) -> RunningGenerator:
    """Listen and serve what `build` makes for the public address; `close` what it uses."""
    try:
        _extras.need("dev", "the token generator")
        # The routes need the public address, which may only be known once the port is: bind first.
        host = server_settings.host
        listener = bind(host, server_settings.port if port is None else port)
        base_url = url or f"http://{HostPort(host, listener.getsockname()[1])}"
        limits = Limits(
            possible_connections(server_settings.max_connections),
            server_settings.request_timeout,
            server_settings.idle_timeout,
        )
        server = await serve(
            build(base_url), [listener], limits, LoggingObserver(), best_way(), shutdown_time=5.0
        )
    except BaseException:
        await close()
        raise
    return RunningGenerator(base_url, server, close)


def run(settings: GeneratorSettings | TokenXGeneratorSettings) -> int:
    """Serve a token generator of one kind or the other until SIGINT or SIGTERM.

    Returns:
        The exit status: 0 after an orderly stop.

    Raises:
        ConfigurationError: Jinja2 is not installed, or the address cannot be bound.
    """
    logging.basicConfig(level=settings.server.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _net.warn_of_insecure_hosts(settings.outbound.insecure_hosts)
    return _event_loop.run(_serve(settings))


async def _serve(settings: GeneratorSettings | TokenXGeneratorSettings) -> int:
    stop = asyncio.Event()
    _event_loop.on_stop_signals(lambda _: stop.set())
    try:
        if isinstance(settings, TokenXGeneratorSettings):
            running = await start_tokenx_generator(settings)
        else:
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
