"""The server: one application of all routes, who may call it, binding, saving and reloading while it runs.

The routes themselves are endpoints.py (Entra ID's), signin.py (logging in), console.py and admin.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import sys
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from entra_fast import _native
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.web import admin, console, endpoints, pages, signin
from entra_fast.emulator.web.handling import LOCAL, Handler, entra_error, json_response, page
from entra_fast.errors import ConfigurationError, EntraFastError

MAX_BODY_BYTES: Final = 128 * 1024
KEEPALIVE_SECONDS: Final = 75.0
SAVE_INTERVAL: Final = 10.0

_CALLERS: Final = web.AppKey("callers", _native.CallerCheck)


def build_app(local: LocalProvider, *, allow_remote: bool = False) -> web.Application:
    """The aiohttp application of a local Entra ID.

    Args:
        allow_remote: serve requests for host names that are not this machine's.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors, _who_may_call])
    app[LOCAL] = local
    if not allow_remote:
        own = urllib.parse.urlsplit(local.base_url).hostname or ""
        app[_CALLERS] = _native.CallerCheck([own])
    for part in (console, admin, endpoints, signin):  # the tenants' paths last: they begin with anything
        part.add_routes(app)
    return app


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that listens on `address`, until `stop` is called."""

    address: tuple[str, int]
    stop: Callable[[], Awaitable[None]]


async def serve(
    local: LocalProvider,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    watch: float | None,
    allow_remote: bool,
) -> RunningServer:
    """Bind and serve, until `stop` is called. Raises ConfigurationError when the address is taken."""
    # The base address has to be known before the application is built, so the socket comes first.
    loop = asyncio.get_running_loop()
    sockets = _bind(host, port)
    bound = sockets[0].getsockname()
    if local.public_url is None:
        shown = "localhost" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  compared, not bound
        shown = f"[{shown}]" if ":" in shown else shown
        local.base_url = f"{'https' if tls else 'http'}://{shown}:{bound[1]}"
    runner = web.AppRunner(
        build_app(local, allow_remote=allow_remote),
        access_log=None,
        keepalive_timeout=KEEPALIVE_SECONDS,
        shutdown_timeout=2.0,
    )
    await runner.setup()
    for sock in sockets:
        await web.SockSite(runner, sock, ssl_context=tls).start()
    tasks = [loop.create_task(_save_regularly(local))]
    if watch is not None:
        tasks.append(loop.create_task(_watch(local, watch)))

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await runner.cleanup()
        await asyncio.to_thread(local.save)

    return RunningServer((str(bound[0]), int(bound[1])), stop)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on an address; for localhost both of its addresses, because clients differ in which they
    try first.
    """
    if host != "localhost":
        return [_bind_one(host, port)]
    first = _bind_one("127.0.0.1", port)
    sockets = [first]
    with contextlib.suppress(ConfigurationError):  # no IPv6, or that port is taken there
        sockets.append(_bind_one("::1", first.getsockname()[1]))
    return sockets


def _bind_one(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        text = f"cannot listen on {host}: {error.strerror}"
        raise ConfigurationError("address_invalid", text, "host") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be used: {error.strerror}"
        raise ConfigurationError(
            "address_taken", f"the address {host}:{port} {reason}; choose another port", "port"
        ) from None
    return sock


async def _save_regularly(local: LocalProvider) -> None:
    while True:
        await asyncio.sleep(SAVE_INTERVAL)
        try:
            await asyncio.to_thread(local.save)
        except ConfigurationError as error:
            print(f"entra-fast: {error}", file=sys.stderr)


async def _watch(local: LocalProvider, interval: float) -> None:
    """Reload when files change. Polling: it works on every file system, mounted ones included."""
    seen = local.loaded_files
    while True:
        await asyncio.sleep(interval)
        try:
            found = await asyncio.to_thread(local.watched_files)
            if found == seen:
                continue
            seen = found
            await asyncio.to_thread(local.reload)
            print("entra-fast: manifests reloaded", file=sys.stderr)
        except OSError as error:
            local.load_error = f"the files cannot be read: {error.strerror}"
        except ConfigurationError as error:
            # A half-written file is normal while somebody edits; the last good registry stays.
            local.load_error = error.message
            print(f"entra-fast: manifests not reloaded:\n{error}", file=sys.stderr)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EntraError as error:
        return entra_error(request, error)
    except EntraFastError as error:
        if "text/html" in request.headers.get("Accept", ""):
            return page(pages.error_page("That does not work", error.message), 400)
        return json_response({"error": "invalid_request", "error_description": error.message}, 400)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = {404: "There is nothing here.", 405: "This address does not take such requests."}.get(
            error.status, error.reason
        )
        if "text/html" in request.headers.get("Accept", ""):
            return page(pages.error_page(f"{error.status} {error.reason}", text), error.status)
        return json_response({"error": "invalid_request", "error_description": text}, error.status)


@web.middleware
async def _who_may_call(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a foreign page in a developer's browser could send: other host names (DNS rebinding),
    and changes that come from another origin (cross-site request forgery).
    """
    callers = request.app.get(_CALLERS)
    hosts = request.headers.getall("Host", [])
    if callers is not None and not (len(hosts) == 1 and callers.allows_host(hosts[0])):
        host = _native.host_name(hosts[0]) or "" if hosts else ""
        text = (
            f"the host name {host[:100]!r} is not this provider's; start it with that name as its public URL"
        )
        return json_response({"error": "invalid_request", "error_description": text}, 403)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        text = "compressed bodies are not accepted"
        return json_response({"error": "invalid_request", "error_description": text}, 415)
    oauth = request.path.endswith(("/token", "/userinfo"))
    harmless = request.method in ("GET", "HEAD", "OPTIONS") and not request.path.startswith("/admin/")
    if not harmless and not oauth and not _same_origin(request):
        text = "this request comes from a page of another origin"
        return json_response({"error": "invalid_request", "error_description": text}, 403)
    return await handler(request)


def _same_origin(request: web.Request) -> bool:
    # Browsers send Sec-Fetch-Site to https and loopback addresses only; programs send neither header.
    headers = request.headers
    return _native.is_own_page(
        fetch_site=headers.get("Sec-Fetch-Site"),
        origin=headers.get("Origin"),
        own_origin=request.app[LOCAL].base_url,
        host=headers.get("Host", ""),
    )
