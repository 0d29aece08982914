"""Entra ID's endpoints over HTTP: discovery, keys, token, userinfo; and carrying out planned faults.

Requests become calls of the protocol, and their results become responses. Signing in is signin.py.
"""

from __future__ import annotations

import asyncio
import base64
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web

from entra_fast._aadsts import KINDS
from entra_fast._web.responses import page
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol import discovery
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.claims import issuer_url
from entra_fast.emulator.protocol.client_auth import CREDENTIAL_FIELDS, SEVERAL_METHODS
from entra_fast.emulator.protocol.faults import KINDS_OF_FAULT, TOKEN_FAULTS, Fault
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Reason, failed
from entra_fast.emulator.protocol.userinfo import user_claims
from entra_fast.emulator.web.handling import (
    LOCAL,
    NO_STORE,
    Handler,
    add_public,
    correlation_id,
    entra_error,
    json_response,
    read_form,
    tenant_of,
)
from entra_fast.emulator.web.pages import error_page
from entra_fast.errors import InvalidToken

_CLIENT_HEADERS: Final = (
    "content-type, client-request-id, x-client-sku, x-client-ver, x-client-os, x-client-cpu, "
    "x-client-current-telemetry, x-client-last-telemetry, x-ms-lib-capability, x-app-name, x-app-ver, "
    "x-anchormailbox, return-client-request-id, x-requested-with"  # the last one: Swagger UI
)

_ANY_TENANT: Final = "{tenantid}"
"""In the issuer of documents that no tenant owns: validators fill in the token's tid."""

_CACHED_FOR_A_DAY: Final = {"Cache-Control": "max-age=86400, private"}

_SLOW_DOWN: Final = "The device polls too often: wait 5 seconds longer between two requests. (planned fault)"


def add_routes(app: web.Application) -> None:
    """Add the endpoints."""
    routes = app.router
    routes.add_get("/healthz", _healthz)
    routes.add_get("/error", _error_reference)
    _add_public(routes, "/common/discovery/instance", _instance)
    _add_public(routes, "/oidc/userinfo", _userinfo, ("GET", "POST"))
    routes.add_get("/{tenant}/kerberos", _kerberos)
    routes.add_get("/clusters/{cluster}/.well-known/openid-configuration", _cluster_discovery)
    routes.add_get("/clusters/{cluster}/keys", _cluster_keys)
    for version, middle in ((2, "/v2.0"), (1, "")):
        for name in ("openid-configuration", "oauth-authorization-server"):
            _add_public(routes, f"/{{tenant}}{middle}/.well-known/{name}", _discovery(version))
            # RFC 8414, section 3: between the host and the issuer's path. Some clients look for both there.
            _add_public(routes, f"/.well-known/{name}/{{tenant}}{middle}", _discovery(version))
        _add_public(routes, f"/{{tenant}}/discovery{middle}/keys", _keys(version))
        routes.add_route("*", f"/{{tenant}}/oauth2{middle}/token", _token(version))


def _add_public(
    routes: web.UrlDispatcher, path: str, handler: Handler, methods: Sequence[str] = ("GET",)
) -> None:
    """Add what pages of any origin may read, refusals included: single-page applications do."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except EntraError as error:
            return entra_error(request, error)

    add_public(routes, path, answered, f"authorization, {_CLIENT_HEADERS}", methods)


async def apply_faults(request: web.Request, faults: tuple[Fault, ...]) -> web.Response | None:
    """Apply faults that concern the transport; after None, the request continues."""
    for fault in faults:
        match fault.kind:
            case "delay":
                await asyncio.sleep(fault.value)
            case "throttle":
                return entra_error(request, EntraError(90055, retry_after=int(fault.value)))
            case "status":
                text = f"<html><body><h1>{int(fault.value)}</h1>planned fault {fault.id}</body></html>"
                return web.Response(text=text, status=int(fault.value), content_type="text/html")
            case "slow_down":
                # Entra ID has no code for it, as it never says this.
                return json_response({"error": "slow_down", "error_description": _SLOW_DOWN}, 400)
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


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _discovery(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        if (broken := await apply_faults(request, local.faults.take("discovery"))) is not None:
            return broken
        name = request.match_info["tenant"]
        if name in discovery.SHARED:
            issuer = issuer_url(local.base_url, _ANY_TENANT, version)
            document = discovery.document(
                local.base_url, name, issuer, version, local.keyring.algorithm, exact=local.exact_discovery
            )
        else:
            document = local.discovery(tenant_of(request), version)
        return json_response(document, 200, _CACHED_FOR_A_DAY)

    return handler


def _keys(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        if (broken := await apply_faults(request, local.faults.take("keys"))) is not None:
            return broken
        name = request.match_info["tenant"]
        identifier = _ANY_TENANT if name in discovery.SHARED else tenant_of(request).id
        issuer = issuer_url(local.base_url, identifier, version)
        return json_response(await asyncio.to_thread(local.key_set, issuer), 200, _CACHED_FOR_A_DAY)

    return handler


def _token(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        # Before the client is known: any that could be the one.
        cross_origin = _cross_origin_headers(request)
        if request.method == "OPTIONS":
            return web.Response(status=204, headers=cross_origin)
        correlation = correlation_id(request)
        try:
            if request.method != "POST":
                raise EntraError(900561, method=request.method)
            tenant, form = await _token_request(request)
            cross_origin = _cross_origin_headers(request, tenant.application(form.get("client_id", "")))
            response = await _token_response(request, tenant, form, version, correlation)
        except EntraError as error:
            response = entra_error(request, error, correlation)
            if response.status == 401 and "Authorization" in request.headers:
                # RFC 6749, section 5.2: in the scheme that the client has used.
                response.headers["WWW-Authenticate"] = 'Basic realm="local Entra ID"'
        response.headers.update(cross_origin)
        return response

    return handler


async def _token_response(
    request: web.Request, tenant: Tenant, form: dict[str, str], version: int, correlation: str
) -> web.Response:
    """A token, or a planned fault in its place.

    Raises:
        EntraError: the request is refused.
    """
    local = request.app[LOCAL]
    # Faults of an application are taken when that is known; those of the transport are due before anything.
    client = tenant.application(form.get("client_id", ""))
    name = client.name if client is not None else None
    faults = local.faults.take("token", name, grant=form.get("grant_type", ""))
    transport = tuple(fault for fault in faults if fault.kind not in TOKEN_FAULTS and fault.kind != "aadsts")
    _record_faults(request, tenant, form, transport)
    if (broken := await apply_faults(request, transport)) is not None:
        return broken
    answer = local.token_service().answer(
        tenant,
        form,
        version=version,
        correlation_id=correlation,
        origin=request.headers.get("Origin", ""),
        faults=tuple(fault for fault in faults if fault not in transport),
    )
    headers = {**NO_STORE, "x-ms-request-id": new_trace_id(), "client-request-id": correlation}
    return json_response(answer, 200, headers)


async def _token_request(request: web.Request) -> tuple[Tenant, dict[str, str]]:
    """Tenant and form; what is refused here never reaches the token service, so it is recorded here."""
    try:
        return tenant_of(request), _with_basic(request, await read_form(request))
    except EntraError as error:
        record_refusal(request, "unreadable request", error)
        raise


def record_refusal(request: web.Request, grant: str, error: EntraError) -> None:
    """Add to the journal what was refused before anything about it was known."""
    _record(request, grant=grant, code=error.code, message=error.text, reasons=(failed(error),))


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
            tenant=request.match_info.get("tenant", "")[:100],
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
    sent = request.headers.getall("Authorization", [])
    if len(sent) > 1:
        raise EntraError(9002313, reason="more than one Authorization header")
    scheme, _, value = "".join(sent).partition(" ")
    if scheme.lower() != "basic":
        return form
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        raise EntraError(9002313, reason="the Authorization header is malformed") from None
    client_id, secret = urllib.parse.unquote_plus(client_id), urllib.parse.unquote_plus(secret)
    if any(form.get(name) for name in CREDENTIAL_FIELDS) or form.get("client_id", client_id) != client_id:
        # RFC 6749, section 2.3: not more than one authentication method in one request.
        raise EntraError(9002313, reason=SEVERAL_METHODS)
    return {**form, "client_id": client_id, "client_secret": secret}


def _cross_origin_headers(request: web.Request, client: Application | None = None) -> dict[str, str]:
    """Single-page applications redeem their codes from a browser, so that its pages may read the response:
    pages of that client's origins, or of any single-page application's while the client is not known.
    """
    origin = request.headers.get("Origin")
    if origin is None:
        return {}
    registry = request.app[LOCAL].registry
    candidates = (
        [client]
        if client is not None
        else [item for tenant in registry.tenants for item in tenant.applications.values()]
    )
    if not any(origin in candidate.single_page_origins for candidate in candidates):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "POST, OPTIONS",
        "Access-Control-Allow-Headers": _CLIENT_HEADERS,
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }


async def _instance(request: web.Request) -> web.Response:
    query = request.query
    endpoint, version = query.get("authorization_endpoint", ""), query.get("api-version", "1.1")
    document = discovery.instance_document(request.app[LOCAL].base_url, endpoint, version)
    if document is None:
        error = EntraError(50049)
        refusal = {"error": error.error, "error_description": str(error)}
        return json_response(refusal, error.kind.status)
    return json_response(document)


async def _kerberos(request: web.Request) -> web.Response:
    # Discovery names this address, because clients of the real document read it.
    tenant_of(request)
    text = "The local Entra ID has no Kerberos."
    return json_response({"error": "unsupported", "error_description": text}, 501)


async def _cluster_discovery(request: web.Request) -> web.Response:
    return json_response(request.app[LOCAL].cluster_discovery(_cluster(request)))


async def _cluster_keys(request: web.Request) -> web.Response:
    local, cluster = request.app[LOCAL], _cluster(request)
    public = await asyncio.to_thread(lambda: local.credentials.cluster_key(cluster).public_jwk())
    return json_response({"keys": [public]})


def _cluster(request: web.Request) -> str:
    cluster = request.match_info["cluster"]
    if cluster not in request.app[LOCAL].clusters():
        raise web.HTTPNotFound
    return cluster


async def _userinfo(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise InvalidToken("token_missing", "a bearer token is required")
        answer = user_claims(token, local.registry, local.base_url, local.keyring, local.now())
    except InvalidToken as error:
        challenge = f'Bearer error="invalid_token", error_description="{error.message}"'
        refusal = {"error": "invalid_token", "error_description": error.message}
        return json_response(refusal, 401, {**NO_STORE, "WWW-Authenticate": challenge})
    return json_response(answer)


async def _error_reference(request: web.Request) -> web.Response:
    """Where `error_uri` leads."""
    code = request.query.get("code", "")
    kind = KINDS.get(int(code)) if code.isascii() and code.isdigit() and len(code) < 10 else None
    if kind is None:
        text = "This provider does not know that code."
        return page(error_page("Unknown error code", text), 404)
    # The error's own text has places for values: the last request that it refused shows it with them.
    entries = request.app[LOCAL].journal.entries()
    last = next((entry for entry in entries if entry.code == kind.code), None)
    html = error_page(
        f"AADSTS{kind.code}",
        f"{kind.when.replace('`', '')}.",
        advice=[kind.remedy or "The log names what to change for each refused request."],
        details=[("OAuth error", kind.error), ("Status", str(kind.status))],
        actions=[
            *([] if last is None else [("Open the last such request", f"/log/{last.number}")]),
            ("Open the refused requests", f"/log?code={kind.code}"),
            ("Open the console", "/"),
        ],
    )
    return page(html)
