"""The server: one application of all routes, the caller check, binding, and saving and reloading at run time.

The routes themselves are endpoints.py (Entra ID's), signin.py, signout.py and device.py (logging in and out),
graph.py (Microsoft Graph's), tokenx.py, maskinporten.py and idporten.py (the other local providers'),
console.py, access_map.py and log.py, admin.py and journal.py.
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

from entra_fast import _extras
from entra_fast._http import listener, refusals
from entra_fast._http import server as http
from entra_fast._http.limits import Limits, possible_connections
from entra_fast._http.observing import LoggingObserver
from entra_fast._http.responses import closing_if_unread, error_response
from entra_fast._web.caller_check import CallerCheck
from entra_fast._web.negotiation import preferred
from entra_fast._web.responses import page
from entra_fast.emulator.graph import routes
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.base_url import check_base_url
from entra_fast.emulator.providers import LocalProviders
from entra_fast.emulator.web import (
    access_map,
    admin,
    console,
    device,
    endpoints,
    graph,
    idporten,
    journal,
    log,
    maskinporten,
    signin,
    signout,
    tokenx,
)
from entra_fast.emulator.web.admin_access import AdminAccess
from entra_fast.emulator.web.handling import LOCAL, PROVIDERS, Handler, entra_error, json_response
from entra_fast.emulator.web.pages import error_page
from entra_fast.errors import ConfigurationError, EntraFastError

MAX_BODY_BYTES: Final = 128 * 1024
MAX_CONNECTIONS: Final = 4096
REQUEST_SECONDS: Final = 10.0
"""Maximum time to receive a request, from its first byte to its last."""
KEEPALIVE_SECONDS: Final = 75.0
SAVE_INTERVAL: Final = 10.0

_CALLERS: Final = web.AppKey("callers", CallerCheck)
_ADMIN: Final = web.AppKey("admin", AdminAccess)
_ADMIN_RESOURCES: Final = web.AppKey("admin_resources", frozenset[web.AbstractResource])


def build_app(
    local: LocalProvider,
    providers: LocalProviders,
    *,
    allow_remote: bool = False,
    admin_token: str | None = None,
) -> web.Application:
    """The aiohttp application of a local Entra ID.

    Args:
        providers: what is served beside it.
        allow_remote: serve requests for host names that are not this machine's.
        admin_token: what the console and the admin API demand; None for nothing.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors, _check_caller])
    app[LOCAL] = local
    app[PROVIDERS] = providers
    own = urllib.parse.urlsplit(local.base_url).hostname or ""
    app[_CALLERS] = CallerCheck(
        local.base_url,
        None if allow_remote else frozenset({own}),
        "start it with --public-url to give it another name",
    )
    app[_ADMIN] = AdminAccess(admin_token, secure=local.base_url.startswith("https:"))
    for part in (console, access_map, log, admin, journal):
        part.add_routes(app)
    idporten.add_admin_routes(app)
    app[_ADMIN_RESOURCES] = frozenset(app.router.resources())
    # The tenants' paths last: they begin with anything.
    for other in (graph, tokenx, maskinporten, idporten, endpoints, signin, signout, device):
        other.add_routes(app)
    return app


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that listens on `address`, until `stop` is called."""

    address: tuple[str, int]
    stop: Callable[[], Awaitable[None]]


async def serve(
    local: LocalProvider,
    providers: LocalProviders,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    watch: float | None,
    allow_remote: bool,
    admin_token: str | None,
) -> RunningServer:
    """Bind and serve, until `stop` is called.

    Raises:
        ConfigurationError: the address is taken, or a package of the extra is not installed.
    """
    _extras.need("dev", "the local Entra ID")
    # The base address has to be known before the application is built, so the socket comes first.
    loop = asyncio.get_running_loop()
    sockets = _bind(host, port)
    bound = sockets[0].getsockname()
    if local.public_url is None:
        shown = "localhost" if host in ("0.0.0.0", "::", "") else host  # noqa: S104  compared, not bound
        shown = f"[{shown}]" if ":" in shown else shown
        local.base_url = check_base_url(f"{'https' if tls else 'http'}://{shown}:{bound[1]}")
    server = await http.serve(
        build_app(local, providers, allow_remote=allow_remote, admin_token=admin_token),
        sockets,
        Limits(possible_connections(MAX_CONNECTIONS), REQUEST_SECONDS, KEEPALIVE_SECONDS),
        LoggingObserver(),
        http.best_way(),
        tls=tls,
        shutdown_time=2.0,
    )
    tasks = [loop.create_task(_save_regularly(local))]
    if watch is not None:
        tasks.append(loop.create_task(_watch(local, watch)))

    async def stop() -> None:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await server.aclose()
        await asyncio.to_thread(local.save)

    return RunningServer((str(bound[0]), int(bound[1])), stop)


def _bind(host: str, port: int) -> list[socket.socket]:
    """Sockets on an address; for localhost both of its addresses, because clients differ in which they
    try first.
    """
    if host.lower() != "localhost":
        return [_bind_one(host, port)]
    first = _bind_one("127.0.0.1", port)
    sockets = [first]
    with contextlib.suppress(ConfigurationError):  # no IPv6, or that port is taken there
        sockets.append(_bind_one("::1", first.getsockname()[1]))
    return sockets


def _bind_one(host: str, port: int) -> socket.socket:
    try:
        return listener.bind(host, port)
    except socket.gaierror as error:
        text = f"cannot listen on {host}: {error.strerror}"
        raise ConfigurationError("address_invalid", text, "host") from None
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken by another program" if taken else f"cannot be used: {error.strerror}"
        raise ConfigurationError(
            "address_taken", f"the address {host}:{port} {reason}; choose another port", "port"
        ) from None


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
            # A half-written file is normal during editing; the last good registry stays.
            local.load_error = error.message
            print(f"entra-fast: manifests not reloaded:\n{error}", file=sys.stderr)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EntraError as error:
        return entra_error(request, error)
    except EntraFastError as error:
        return _failure(request, 400, "Request failed", error.message)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        text = {
            404: "There is no page and no endpoint at this address.",
            405: "This address does not support the method of the request.",
        }.get(error.status, error.reason)
        response = _failure(request, error.status, f"{error.status} {error.reason}", text)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _failure(request: web.Request, status: int, title: str, text: str) -> web.Response:
    """A failure as a page for browsers, as JSON for programs."""
    if preferred(request.headers.get("Accept"), ("application/json", "text/html")) == "text/html":
        return page(error_page(title, text), status)
    return json_response({"error": "invalid_request", "error_description": text}, status)


@web.middleware
async def _check_caller(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests that a page of another site could send from a developer's browser."""
    problem = request.app[_CALLERS].refusal(request, changes=not _is_harmless(request))
    if problem is not None:
        return error_response(403, problem)
    request = admin.with_own_limit(request)
    refused = refusals.body_refusal(request)
    if refused is not None:
        return closing_if_unread(request, error_response(*refused))
    if request.match_info.route.resource in request.app[_ADMIN_RESOURCES]:
        denied = request.app[_ADMIN].answer(request)
        if denied is not None:
            return closing_if_unread(request, denied)
    return await handler(request)


def _is_harmless(request: web.Request) -> bool:
    """Whether any page may send a request: it changes nothing, or needs a credential of its own."""
    # Signing out asks first, unless a hint shows that the request comes from an application of the session.
    if request.path.endswith(("/token", "/userinfo", "/devicecode", "/logout")) or request.path.startswith(
        f"{routes.ROOT}/"
    ):
        return True
    if request.path in idporten.HARMLESS:
        return True
    return request.method in ("GET", "HEAD", "OPTIONS") and not request.path.startswith("/admin/")
