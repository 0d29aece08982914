"""The session's cookie: reading it, and setting and removing it on responses."""

from __future__ import annotations

from aiohttp import web

from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol.store import SESSION_LIFETIME, Session
from entra_fast.emulator.web.handling import LOCAL


def _cookie_name(tenant: Tenant) -> str:
    return f"entra_fast_session_{tenant.id[:8]}"


def cookie_of(request: web.Request, tenant: Tenant) -> str:
    """The cookie's value; empty if the browser has sent none."""
    return request.cookies.get(_cookie_name(tenant), "")


def session_of(request: web.Request, tenant: Tenant) -> Session | None:
    """The browser's session in a tenant."""
    session = request.app[LOCAL].store.sessions.get(cookie_of(request, tenant))
    return session if session is not None and session.tenant_id == tenant.id else None


def set_cookie(request: web.Request, response: web.StreamResponse, tenant: Tenant, value: str) -> None:
    """Begin a session.

    Over https the cookie is sent to frames in pages of other sites, too, as Entra ID's is: single-page
    applications renew their sign-in in one, with `prompt=none`. Forms of such pages are refused anyway
    (server.py), and pages cannot be framed.
    """
    secure = request.app[LOCAL].base_url.startswith("https:")
    response.set_cookie(
        _cookie_name(tenant),
        value,
        max_age=int(SESSION_LIFETIME),
        httponly=True,
        path="/",
        samesite="None" if secure else "Lax",
        secure=secure,
    )


def remove_cookie(response: web.StreamResponse, tenant: Tenant) -> None:
    """End a session."""
    response.del_cookie(_cookie_name(tenant), path="/")
