"""What all handlers share: the application's state, forms in, JSON and redirects out, tenants in paths, and
what pages of other origins may read. No routes."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from entra_fast import _native
from entra_fast._web.rendering import CONTENT_SECURITY_POLICY
from entra_fast._web.responses import page
from entra_fast.emulator.local import LocalProvider
from entra_fast.emulator.model.registry import Tenant, origin
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.discovery import SHARED
from entra_fast.emulator.providers import LocalProviders
from entra_fast.errors import EntraFastError

LOCAL: Final = web.AppKey("local", LocalProvider)
PROVIDERS: Final = web.AppKey("providers", LocalProviders)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NO_STORE: Final = {"Cache-Control": "no-store, no-cache", "Pragma": "no-cache"}
_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}


def preflight(allowed_headers: str) -> dict[str, str]:
    """The headers of a response to a preflight request."""
    return {
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": allowed_headers,
        "Access-Control-Max-Age": "600",
    }


def add_public(
    routes: web.UrlDispatcher,
    path: str,
    handler: Handler,
    allowed_headers: str,
    methods: Sequence[str] = ("GET",),
) -> None:
    """Add what pages of any origin may read."""

    async def readable(request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={**_ANY_ORIGIN, **preflight(allowed_headers)})
        response = await handler(request)
        response.headers.update(_ANY_ORIGIN)
        return response

    for method in (*methods, "OPTIONS"):
        routes.add_route(method, path, readable)
    if "GET" in methods:
        routes.add_route("HEAD", path, readable)


def signed_out(html: str, frames: Sequence[str]) -> web.Response:
    """The page after a sign-out, which loads these addresses of applications in frames."""
    response = page(html, popup=True)
    if frames:
        sources = " ".join(dict.fromkeys(origin(url) for url in frames))
        response.headers["Content-Security-Policy"] = f"{CONTENT_SECURITY_POLICY}; frame-src {sources}"
    return response


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=orjson.dumps(value),
        status=status,
        headers={**headers, "Content-Type": "application/json; charset=utf-8"},
    )


async def read_form(request: web.Request) -> dict[str, str]:
    """The form that was posted. Raises EntraError if it is not a form, or has a duplicate parameter."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise EntraError(9002313, reason="the body must be application/x-www-form-urlencoded")
    try:
        # RFC 6749, section 3.2: no parameter may be repeated, so all of them are treated as known fields.
        return dict(_native.parse_form(await request.read()))
    except EntraFastError as exc:
        raise EntraError(9002313, reason=exc.message) from None


def correlation_id(request: web.Request) -> str:
    """The client's own id for this request, if it sent a GUID; Entra ID echoes that."""
    sent = request.headers.get("client-request-id", "")
    try:
        return str(uuid.UUID(sent))
    except ValueError:
        return str(uuid.uuid4())


def tenant_of(request: web.Request) -> Tenant:
    """The tenant in the path. Raises EntraError 90002."""
    local, name = request.app[LOCAL], request.match_info["tenant"]
    if name in SHARED:
        return local.registry.default_tenant
    tenant = local.registry.tenant(name)
    if tenant is None:
        raise EntraError(90002, tenant=name[:100])
    return tenant


def entra_error(request: web.Request, error: EntraError, correlation: str | None = None) -> web.Response:
    """A refusal as the token endpoint gives it."""
    local = request.app[LOCAL]
    trace = new_trace_id()
    body = error.body(local.now(), local.base_url, trace, correlation or correlation_id(request))
    headers = {**NO_STORE, "x-ms-request-id": trace}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    return json_response(body, error.kind.status, headers)
