"""The HTTP side: Entra ID's paths, the login, and carrying out planned faults. aiohttp, nothing else.

Turns requests into calls of grants.py, login.py and local.py and their results into answers. The console's
pages and the administration's API are console.py and admin.py.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import socket
import ssl
import sys
import urllib.parse
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from entra_fast._native import Policy, Verifier
from entra_fast.emulator import claims as token_claims
from entra_fast.emulator import login, pages
from entra_fast.emulator.aadsts import KINDS, EntraError, new_trace_id
from entra_fast.emulator.faults import KINDS_OF_FAULT, TOKEN_FAULTS, Fault
from entra_fast.emulator.grants import check_of, remedy_for
from entra_fast.emulator.html import tag
from entra_fast.emulator.journal import Entry
from entra_fast.emulator.local import LocalEntraId, RunningEmulator, discovery_document, is_loopback
from entra_fast.emulator.login import LoginError, LoginRequest
from entra_fast.emulator.policy import Decision, Reason
from entra_fast.emulator.registry import Tenant
from entra_fast.emulator.store import SESSION_LIFETIME, Session
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken

MAX_BODY_BYTES: Final = 128 * 1024
MAX_FORM_FIELDS: Final = 64
KEEPALIVE_SECONDS: Final = 75.0
SAVE_INTERVAL: Final = 10.0
# Names that a tenant cannot be addressed by, but that Entra ID knows at the same place.
COMMON: Final = ("common", "organizations")

LOCAL: Final = web.AppKey("local", LocalEntraId)
_ALLOWED_HOSTS: Final = web.AppKey("allowed_hosts", frozenset[str])

_NO_STORE: Final = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": pages.CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers then say "Origin: null" when a form is sent, even to its own origin.
    "Referrer-Policy": "same-origin",
}


def build_app(local: LocalEntraId, *, allow_remote: bool = False) -> web.Application:
    """The aiohttp application of a local Entra ID.

    Args:
        allow_remote: serve requests for host names that are not this machine's.
    """
    from entra_fast.emulator import admin, console  # noqa: PLC0415  they use what is defined here

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors, _who_may_call])
    app[LOCAL] = local
    if not allow_remote:
        own = urllib.parse.urlsplit(local.base_url).hostname or ""
        app[_ALLOWED_HOSTS] = frozenset({own, "localhost", "127.0.0.1", "::1"})
    console.add_routes(app)
    admin.add_routes(app)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/error", _error_reference)
    app.router.add_get("/common/discovery/instance", _instance)
    app.router.add_route("*", "/oidc/userinfo", _userinfo)
    app.router.add_get("/clusters/{cluster}/.well-known/openid-configuration", _cluster_discovery)
    app.router.add_get("/clusters/{cluster}/keys", _cluster_keys)
    for version, middle in ((2, "/v2.0"), (1, "")):
        app.router.add_get(f"/{{tenant}}{middle}/.well-known/openid-configuration", _discovery(version))
        app.router.add_get(f"/{{tenant}}/discovery{middle}/keys", _keys(version))
        app.router.add_route("*", f"/{{tenant}}/oauth2{middle}/token", _token(version))
        app.router.add_get(f"/{{tenant}}/oauth2{middle}/authorize", _authorize)
        app.router.add_post(f"/{{tenant}}/oauth2{middle}/authorize", _sign_in)
        app.router.add_route("*", f"/{{tenant}}/oauth2{middle}/logout", _logout)
    return app


async def serve(
    local: LocalEntraId,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    watch: float | None,
    allow_remote: bool,
) -> RunningEmulator:
    """Bind and serve; `LocalEntraId.start` is the way in. Raises ConfigurationError when the address is
    taken.
    """
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

    return RunningEmulator(local, (str(bound[0]), int(bound[1])), stop)


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
        raise ConfigurationError("address_taken", f"the address {host}:{port} {reason}", "port") from None
    return sock


async def _save_regularly(local: LocalEntraId) -> None:
    while True:
        await asyncio.sleep(SAVE_INTERVAL)
        try:
            await asyncio.to_thread(local.save)
        except ConfigurationError as error:
            print(f"entra-fast: {error}", file=sys.stderr)


async def _watch(local: LocalEntraId, interval: float) -> None:
    """Reload when files change. Polling: it works on every file system, mounted ones included."""
    seen = await asyncio.to_thread(local.watched_files)
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


# Helpers for handlers


def page(text: str, status: int = 200) -> web.Response:
    """An HTML answer."""
    return web.Response(
        text=text, status=status, content_type="text/html", charset="utf-8", headers=_PAGE_HEADERS
    )


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] = _NO_STORE) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=orjson.dumps(value),
        status=status,
        headers={**headers, "Content-Type": "application/json; charset=utf-8"},
    )


async def read_form(request: web.Request) -> dict[str, str]:
    """The form that was posted. Raises EntraError when it is not one, or says something twice."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise EntraError(9002313, reason="the body must be application/x-www-form-urlencoded")
    body = await request.read()
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except ValueError:
        raise EntraError(9002313, reason="the body is not a form") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        # RFC 6749, section 3.2: parameters must not be repeated.
        raise EntraError(9002313, reason="a parameter is there twice")
    return form


def correlation_id(request: web.Request) -> str:
    """The client's own id for this request, if it sent a GUID; Entra ID echoes that."""
    sent = request.headers.get("client-request-id", "")
    try:
        return str(uuid.UUID(sent))
    except ValueError:
        return str(uuid.uuid4())


def _tenant(request: web.Request) -> Tenant:
    local, name = request.app[LOCAL], request.match_info["tenant"]
    if name in COMMON:
        return local.registry.default_tenant
    tenant = local.registry.tenant(name)
    if tenant is None:
        raise EntraError(90002, tenant=name[:100])
    return tenant


def _entra_error(request: web.Request, error: EntraError, correlation: str | None = None) -> web.Response:
    local = request.app[LOCAL]
    trace = new_trace_id()
    body = error.body(local.now(), local.base_url, trace, correlation or correlation_id(request))
    headers = {**_NO_STORE, "x-ms-request-id": trace}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return json_response(body, error.kind.status, headers)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EntraError as error:
        return _entra_error(request, error)
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
    allowed = request.app.get(_ALLOWED_HOSTS)
    host = _host_name(request.host)
    if allowed is not None and host not in allowed and not is_loopback(host):
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
    # Browsers send the first to https and loopback addresses only; programs send neither.
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is None or urllib.parse.urlsplit(origin).netloc == request.host


def _host_name(host: str) -> str:
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


# Faults


async def _apply_faults(request: web.Request, faults: tuple[Fault, ...]) -> web.Response | None:
    """Carry out faults that concern the transport; None lets the request go on."""
    for fault in faults:
        match fault.kind:
            case "delay":
                await asyncio.sleep(fault.value)
            case "throttle":
                return _entra_error(request, EntraError(90055, retry_after=int(fault.value)))
            case "status":
                text = f"<html><body><h1>{int(fault.value)}</h1>planned fault {fault.id}</body></html>"
                return web.Response(text=text, status=int(fault.value), content_type="text/html")
            case "garbage":
                return web.Response(text='{"access_token": "eyJ', content_type="application/json")
            case "redirect":
                return web.Response(status=302, headers={"Location": "https://elsewhere.invalid/"})
            case "reset" | "truncate":
                await _cut(request, fault)
    return None


async def _cut(request: web.Request, fault: Fault) -> None:
    if fault.kind == "truncate":
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "2000"})
        await response.prepare(request)
        await response.write(b'{"token_type": "Bearer", "expires_in": 3599, "access_token": "eyJ0')
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


# The provider's endpoints


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _discovery(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        if (broken := await _apply_faults(request, local.faults.take("discovery"))) is not None:
            return broken
        headers = {"Cache-Control": "max-age=86400, private", **_ANY_ORIGIN}
        name = request.match_info["tenant"]
        if name in COMMON:
            # The issuer of the shared document is a template; validators fill in the token's tid.
            issuer = (
                f"{local.base_url}/{{tenantid}}/v2.0" if version == 2 else f"{local.base_url}/{{tenantid}}/"
            )
            return json_response(discovery_document(local.base_url, name, issuer, version), 200, headers)
        return json_response(local.discovery(_tenant(request), version), 200, headers)

    return handler


def _keys(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        if (broken := await _apply_faults(request, local.faults.take("keys"))) is not None:
            return broken
        name = request.match_info["tenant"]
        identifier = "{tenantid}" if name in COMMON else _tenant(request).id
        issuer = f"{local.base_url}/{identifier}/v2.0" if version == 2 else f"{local.base_url}/{identifier}/"
        headers = {"Cache-Control": "max-age=86400, private", **_ANY_ORIGIN}
        return json_response(await asyncio.to_thread(local.key_set, issuer), 200, headers)

    return handler


def _token(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        correlation = correlation_id(request)
        cross_origin = _cross_origin_headers(request)
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cross_origin)
        try:
            if request.method != "POST":
                raise EntraError(900561, method=request.method)
            tenant, form = await _token_request(request, correlation)
            # Faults of an application are taken when that is known; those of the transport are due before
            # anything.
            client = tenant.application(form.get("client_id", ""))
            name = client.name if client is not None else None
            faults = local.faults.take("token", name)
            transport = tuple(
                fault for fault in faults if fault.kind not in TOKEN_FAULTS and fault.kind != "aadsts"
            )
            _record_faults(request, tenant, form, transport)
            if (broken := await _apply_faults(request, transport)) is not None:
                return broken
            answer = local.token_service().answer(
                tenant,
                form,
                version=version,
                correlation_id=correlation,
                faults=tuple(fault for fault in faults if fault not in transport),
            )
        except EntraError as error:
            response = _entra_error(request, error, correlation)
            response.headers.update(cross_origin)
            return response
        headers = {
            **_NO_STORE,
            "x-ms-request-id": new_trace_id(),
            "client-request-id": correlation,
            **cross_origin,
        }
        return json_response(answer, 200, headers)

    return handler


async def _token_request(request: web.Request, correlation: str) -> tuple[Tenant, dict[str, str]]:
    """Tenant and form; what is refused here never reaches the token service, so it is recorded here."""
    try:
        return _tenant(request), _with_basic(request, await read_form(request))
    except EntraError as error:
        reason = Reason(check_of(error), False, error.text, remedy=remedy_for(error))
        _record(request, grant="unreadable request", code=error.code, message=error.text, reasons=(reason,))
        raise


def _record_faults(
    request: web.Request, tenant: Tenant, form: Mapping[str, str], faults: tuple[Fault, ...]
) -> None:
    for fault in faults:
        client = tenant.application(form.get("client_id", ""))
        if fault.kind == "delay":
            continue  # the answer follows, and is recorded itself
        text = f"{fault.kind}: " + KINDS_OF_FAULT[fault.kind].replace("'value'", f"{fault.value:g}")
        reason = Reason(
            "fault", False, text, remedy="remove it on the page of faults, or wait until it is over"
        )
        name = client.name if client is not None else form.get("client_id", "")[:100]
        _record(request, grant="planned fault", client=name, message=text, reasons=(reason,))


def _record(
    request: web.Request,
    *,
    grant: str,
    reasons: tuple[Reason, ...],
    message: str,
    code: int | None = None,
    client: str = "",
) -> None:
    journal = request.app[LOCAL].journal
    journal.add(
        Entry(
            number=journal.next_number(),
            time=request.app[LOCAL].now(),
            tenant=request.match_info["tenant"][:100],
            grant=grant,
            client=client,
            target="",
            user="",
            granted=False,
            code=code,
            message=message,
            reasons=reasons,
            correlation_id=correlation_id(request),
        )
    )


def _with_basic(request: web.Request, form: dict[str, str]) -> dict[str, str]:
    """client_secret_basic (RFC 6749, section 2.3.1): id and secret in the header, each form-encoded."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        raise EntraError(9002313, reason="the Authorization header is malformed") from None
    client_id, secret = urllib.parse.unquote_plus(client_id), urllib.parse.unquote_plus(secret)
    if (
        form.get("client_secret")
        or form.get("client_assertion")
        or form.get("client_id", client_id) != client_id
    ):
        # RFC 6749, section 2.3: not more than one authentication method in one request.
        raise EntraError(9002313, reason="more than one way of client authentication")
    return {**form, "client_id": client_id, "client_secret": secret}


def _cross_origin_headers(request: web.Request) -> dict[str, str]:
    """Single-page applications redeem their codes from a browser: their registered origins may (RFC 9700,
    2.1.1).
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    for tenant in request.app[LOCAL].registry.tenants:
        for application in tenant.applications.values():
            if application.single_page and any(_origin(url) == origin for url in application.reply_urls):
                return {
                    "Access-Control-Allow-Origin": origin,
                    "Access-Control-Allow-Methods": "POST, OPTIONS",
                    "Access-Control-Allow-Headers": "content-type, client-request-id, x-client-sku, "
                    "x-client-ver, x-client-os, x-client-cpu, x-client-current-telemetry, "
                    "x-client-last-telemetry, x-ms-lib-capability",
                    "Access-Control-Max-Age": "600",
                    "Vary": "Origin",
                }
    return {}


def _origin(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


async def _instance(request: web.Request) -> web.Response:
    """What MSAL asks to learn that an authority is genuine."""
    local = request.app[LOCAL]
    sent = urllib.parse.urlsplit(request.query.get("authorization_endpoint", ""))
    own = urllib.parse.urlsplit(local.base_url).netloc
    # MSAL for Python leaves the port out of its question.
    if sent.netloc not in (own, urllib.parse.urlsplit(local.base_url).hostname):
        return json_response(
            {"error": "invalid_instance", "error_description": "AADSTS50049: Unknown instance."}, 400
        )
    tenant = sent.path.strip("/").split("/")[0] or "common"
    return json_response(
        {
            "tenant_discovery_endpoint": f"{local.base_url}/{tenant}/v2.0/.well-known/openid-configuration",
            "api-version": request.query.get("api-version", "1.1"),
            "metadata": [{"preferred_network": own, "preferred_cache": own, "aliases": [own]}],
        }
    )


async def _cluster_discovery(request: web.Request) -> web.Response:
    return json_response(request.app[LOCAL].cluster_discovery(_cluster(request)))


async def _cluster_keys(request: web.Request) -> web.Response:
    local, cluster = request.app[LOCAL], _cluster(request)
    public = await asyncio.to_thread(lambda: local.credentials.cluster_key(cluster).public_jwk())
    return json_response({"keys": [orjson.loads(public)]})


def _cluster(request: web.Request) -> str:
    cluster = request.match_info["cluster"]
    if cluster not in request.app[LOCAL].clusters():
        raise web.HTTPNotFound
    return cluster


async def _userinfo(request: web.Request) -> web.Response:
    """OpenID Connect Core 1.0, section 5.3. Like Microsoft's, it takes the token of a login for no
    application.
    """
    local = request.app[LOCAL]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise InvalidToken("token_missing", "a bearer token is required")
        issuers = [token_claims.Issuer(local.base_url, tenant).v2 for tenant in local.registry.tenants]
        policy = Policy(issuers=issuers, audiences=[token_claims.GRAPH_CLIENT_ID])
        claims = Verifier(policy, local.keyring.key_set, cache_entries=1).validate(token, local.now())
        tenant = local.registry.tenant(str(claims["tid"]))
        user = None if tenant is None else tenant.directory.users.get(str(claims["oid"]))
        if user is None:
            raise InvalidToken("user_unknown", "the user does not exist")
    except InvalidToken as error:
        hint = (
            "; log in with only OpenID Connect scopes to get a token for it"
            if error.code == "wrong_audience"
            else ""
        )
        challenge = f'Bearer error="invalid_token", error_description="{error.message}{hint}"'
        answer = {"error": "invalid_token", "error_description": error.message + hint}
        return json_response(answer, 401, {**_NO_STORE, "WWW-Authenticate": challenge})
    given, _, family = user.name.rpartition(" ")
    answer = {"sub": claims["sub"], "name": user.name, "family_name": family, "given_name": given or family}
    return json_response(answer | {"email": user.username, "preferred_username": user.username})


# Logging in and out


def _cookie_name(tenant: Tenant) -> str:
    return f"entra_fast_session_{tenant.id[:8]}"


def _session(request: web.Request, tenant: Tenant) -> Session | None:
    session = request.app[LOCAL].store.sessions.get(request.cookies.get(_cookie_name(tenant), ""))
    return session if session is not None and session.tenant_id == tenant.id else None


async def _authorize(request: web.Request) -> web.StreamResponse:
    if len(set(request.query)) != len(request.query):
        # RFC 6749, section 3.1: parameters must not be repeated.
        error = EntraError(9002313, reason="a parameter is there twice")
        return _refused(request, error, {})
    return await _login(request, dict(request.query), None)


async def _sign_in(request: web.Request) -> web.StreamResponse:
    # OpenID Connect Core 1.0, section 3.1.2.1: the request itself may be posted as well.
    form = await read_form(request)
    return await _login(request, form, form.pop("username", None))


async def _login(
    request: web.Request, parameters: dict[str, str], username: str | None
) -> web.StreamResponse:
    local = request.app[LOCAL]
    if (broken := await _apply_faults(request, local.faults.take("authorize"))) is not None:
        return broken
    try:
        tenant = _tenant(request)
        wanted = login.check(tenant, parameters)
    except EntraError as error:
        return _refused(request, error, parameters)
    except LoginError as refusal:
        return _back(request, refusal.request, refusal.error)
    session = _session(request, tenant)
    if username is not None:
        user = tenant.directory.find_user(username)
        if user is None:
            text = f"There is no user {username[:100]!r} in {tenant.name}."
            return page(login.login_page(wanted, request.path, text), 400)
        cookie, session = local.store.new_session(tenant.id, user.id)
    else:
        cookie = None
        user = tenant.directory.users.get(session.user_id) if session is not None else None
        hinted = tenant.directory.find_user(wanted.hint) if wanted.hint else None
        other = hinted is not None and hinted is not user
        if session is None or user is None or other or wanted.prompt in ("login", "select_account"):
            if wanted.prompt == "none":
                return _back(request, wanted, EntraError(50058))
            return page(login.login_page(wanted, request.path))
    decision = wanted.decide(user)
    _record_login(request, wanted, user.username, decision)
    if decision.error is not None:
        if wanted.prompt == "none":
            return _back(request, wanted, decision.error)
        response = page(login.refusal_page(wanted, user, decision), 403)
    else:
        code = local.store.new_code(wanted.login(user, session.id))
        response = _return(wanted, login.code_fields(wanted, code, session.id))
    if cookie is not None:
        response.set_cookie(
            _cookie_name(tenant),
            cookie,
            max_age=int(SESSION_LIFETIME),
            httponly=True,
            path="/",
            samesite="Lax",
            secure=local.base_url.startswith("https:"),
        )
    return response


def _refused(request: web.Request, error: EntraError, parameters: Mapping[str, str]) -> web.Response:
    details = [("Error", f"AADSTS{error.code}"), ("Correlation ID", correlation_id(request))]
    if error.code == 50011:
        client = _tenant(request).application(parameters.get("client_id", ""))
        known = client.reply_urls if client is not None else ()
        details += [("Sent", parameters.get("redirect_uri", "")[:300])]
        details += [("Registered", url) for url in known] or [
            ("Registered", "none: add replyURLs to the manifest")
        ]
    return page(pages.error_page("This login cannot go on", error.text, details=details), error.kind.status)


def _back(request: web.Request, wanted: LoginRequest, error: EntraError) -> web.Response:
    local = request.app[LOCAL]
    body = error.body(local.now(), local.base_url, new_trace_id(), correlation_id(request))
    return _return(wanted, login.error_fields(wanted, error, body["error_description"]))


def _return(wanted: LoginRequest, fields: list[tuple[str, str]]) -> web.Response:
    if wanted.response_mode == "form_post":
        return page(pages.form_post_page(wanted.redirect_uri, fields))
    # 303: the browser must not post the login form to the application (RFC 9700, section 4.12).
    location = login.redirect_target(wanted, fields)
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def _record_login(request: web.Request, wanted: LoginRequest, username: str, decision: Decision) -> None:
    local = request.app[LOCAL]
    local.journal.add(
        Entry(
            number=local.journal.next_number(),
            time=local.now(),
            tenant=wanted.tenant.name,
            grant="login",
            client=wanted.client.name,
            target=wanted.target.name,
            user=username,
            granted=decision.granted,
            code=None if decision.error is None else decision.error.code,
            message="" if decision.error is None else decision.error.text,
            reasons=decision.reasons,
            correlation_id=correlation_id(request),
        )
    )


async def _logout(request: web.Request) -> web.StreamResponse:
    """OpenID Connect RP-Initiated Logout 1.0."""
    local, tenant = request.app[LOCAL], _tenant(request)
    fields = dict(request.query) if request.method == "GET" else await read_form(request)
    local.store.sessions.remove(request.cookies.get(_cookie_name(tenant), ""))
    uri = fields.get("post_logout_redirect_uri", "")
    if uri and login.may_return_to(tenant, uri, fields.get("client_id", "")):
        if "state" in fields:
            uri += ("&" if "?" in uri else "?") + urllib.parse.urlencode({"state": fields["state"]})
        response = web.Response(status=303, headers={"Location": uri, "Cache-Control": "no-store"})
    else:
        note = (
            "The address to return to is on no origin that an application is registered for." if uri else None
        )
        response = page(
            pages.document(
                "Signed out",
                tag("p", f"You have signed out of {tenant.name}."),
                tag("p", note, class_="warn") if note else None,
                tag("p", tag("a", "To the console", href="/")),
                narrow=True,
            )
        )
    response.del_cookie(_cookie_name(tenant), path="/")
    return response


async def _error_reference(request: web.Request) -> web.Response:
    """Where `error_uri` leads."""
    code = request.query.get("code", "")
    kind = KINDS.get(int(code)) if code.isascii() and code.isdigit() and len(code) < 10 else None
    if kind is None:
        return page(pages.error_page("Unknown error", "This provider does not know that code."), 404)
    details = [("OAuth error", kind.error), ("Status", str(kind.status))]
    return page(pages.error_page(f"AADSTS{kind.code}", kind.text, details=details))
