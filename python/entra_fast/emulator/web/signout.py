"""Signing out over HTTP: the end-session endpoint, its account picker, and the frames that tell applications.

protocol/sign_out.py decides what a request means and where it may return to.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence

from aiohttp import web

from entra_fast._web.responses import page, see_other
from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol import sign_out
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.optional_claims import login_hint
from entra_fast.emulator.protocol.sign_out import SignOut
from entra_fast.emulator.web.handling import LOCAL, read_form, signed_out, tenant_of
from entra_fast.emulator.web.pages import PAGES
from entra_fast.emulator.web.sessions import cookie_of, remove_cookie, session_of


def add_routes(app: web.Application) -> None:
    """Add the end-session endpoint."""
    for middle in ("/v2.0", ""):
        app.router.add_route("*", f"/{{tenant}}/oauth2{middle}/logout", _logout)


async def _logout(request: web.Request) -> web.StreamResponse:
    """OpenID Connect RP-Initiated Logout 1.0."""
    local, tenant = request.app[LOCAL], tenant_of(request)
    if request.method not in ("GET", "HEAD", "POST"):
        raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD", "POST"))
    if request.method == "POST":
        fields = await read_form(request) if request.can_read_body else {}
        if not cookie_of(request, tenant):
            # The form of another site's page comes without the cookie, which is SameSite=Lax; the request
            # that follows has it.
            return see_other(f"{request.path}?{urllib.parse.urlencode(fields)}")
    else:
        if len(set(request.query)) != len(request.query):
            raise EntraError(9002313, reason="a parameter is repeated")
        fields = dict(request.query)
    session = session_of(request, tenant)
    wanted = sign_out.check(tenant, fields, session, local.base_url, local.keyring)
    if not wanted.confirmed:
        return page(_picker(wanted, tenant, request.path, fields), popup=True)
    frames = sign_out.frames(tenant, session) if session is not None else []
    local.store.sessions.remove(cookie_of(request, tenant))
    response = _signed_out(wanted, tenant, frames)
    remove_cookie(response, tenant)
    return response


def _picker(wanted: SignOut, tenant: Tenant, action: str, fields: Mapping[str, str]) -> str:
    kept = {name: value for name, value in fields.items() if name != "logout_hint"}
    return PAGES.render(
        "sign_out.html",
        user=wanted.user,
        hint="" if wanted.user is None else login_hint(tenant, wanted.user),
        action=action,
        fields=kept.items(),
        tenant=tenant.name,
    )


def _signed_out(wanted: SignOut, tenant: Tenant, frames: Sequence[str]) -> web.Response:
    if wanted.return_to and not frames:
        return see_other(wanted.return_to)
    html = PAGES.render(
        "signed_out.html",
        tenant=tenant.name,
        problem=wanted.problem,
        frames=frames,
        return_to=wanted.return_to,
        refresh=f"0; url={wanted.return_to}",
    )
    return signed_out(html, frames)
