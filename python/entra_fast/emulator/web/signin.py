"""Logging in and out over HTTP: the authorization endpoint, the session's cookie, the end of the session.

What a request means and what the pages say is login.py; here is only the way in and out.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from aiohttp import web

from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol import authorize as login
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.authorize import LoginError, LoginRequest
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Decision
from entra_fast.emulator.protocol.store import SESSION_LIFETIME, Session
from entra_fast.emulator.web import pages
from entra_fast.emulator.web.endpoints import apply_faults
from entra_fast.emulator.web.handling import LOCAL, correlation_id, page, read_form, tenant_of
from entra_fast.emulator.web.html import tag


def add_routes(app: web.Application) -> None:
    """Add the authorization and end-session endpoints."""
    for middle in ("/v2.0", ""):
        app.router.add_get(f"/{{tenant}}/oauth2{middle}/authorize", _authorize)
        app.router.add_post(f"/{{tenant}}/oauth2{middle}/authorize", _sign_in)
        app.router.add_route("*", f"/{{tenant}}/oauth2{middle}/logout", _logout)


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
    if (broken := await apply_faults(request, local.faults.take("authorize"))) is not None:
        return broken
    try:
        tenant = tenant_of(request)
        wanted = login.check(tenant, parameters)
    except EntraError as error:
        return _refused(request, error, parameters)
    except LoginError as refusal:
        return _back(request, refusal.request, refusal.error)
    session = _session(request, tenant)
    if username is not None:
        user = tenant.directory.find_user(username)
        if user is None:
            return page(login.login_page(wanted, request.path, username), 400)
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
        client = tenant_of(request).application(parameters.get("client_id", ""))
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
    local, tenant = request.app[LOCAL], tenant_of(request)
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
