"""Signing in and out over HTTP: the authorization endpoint, the session's cookie, the end of the session.

protocol/authorize.py decides what a request means and who may sign in.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping

from aiohttp import web

from entra_fast._web.responses import page
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol import authorize as login
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.authorize import LoginError, LoginRequest
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Decision
from entra_fast.emulator.protocol.store import SESSION_LIFETIME, Session
from entra_fast.emulator.web.endpoints import apply_faults
from entra_fast.emulator.web.handling import LOCAL, correlation_id, read_form, tenant_of
from entra_fast.emulator.web.pages import PAGES, error_page


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
        error = EntraError(9002313, reason="a parameter is repeated")
        return _refused(request, error, {})
    return await _login(request, dict(request.query), None)


async def _sign_in(request: web.Request) -> web.StreamResponse:
    # OpenID Connect Core 1.0, section 3.1.2.1: the request itself may also be posted.
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
        wanted = login.check(tenant, parameters, local.base_url)
    except EntraError as error:
        return _refused(request, error, parameters)
    except LoginError as refusal:
        return _back(request, refusal.request, refusal.error)
    session = _session(request, tenant)
    if username is not None:
        user = tenant.directory.find_user(username)
        if user is None:
            return page(sign_in_page(wanted, request.path, username), 400, popup=True)
        cookie, session = local.store.new_session(tenant.id, user.id)
    else:
        cookie = None
        user = tenant.directory.users.get(session.user_id) if session is not None else None
        hinted = tenant.directory.find_user(wanted.hint) if wanted.hint else None
        other = hinted is not None and hinted is not user
        if session is None or user is None or other or wanted.prompt in ("login", "select_account"):
            if wanted.prompt == "none":
                return _back(request, wanted, EntraError(50058))
            return page(sign_in_page(wanted, request.path), popup=True)
    decision = wanted.decide(user)
    _record_login(request, wanted, user.username, decision)
    if decision.error is not None:
        if wanted.prompt == "none":
            return _back(request, wanted, decision.error)
        html = PAGES.render(
            "sign_in_refused.html",
            error=str(decision.error),
            reasons=decision.reasons,
            again=login.as_another_user(wanted),
            username=user.username,
        )
        response = page(html, 403, popup=True)
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


def sign_in_page(wanted: LoginRequest, action: str, unknown: str | None = None) -> str:
    """Choose or type a user. Shows what the target's policy says about each before one is chosen.

    Args:
        action: where the form goes.
        unknown: what was typed, if there is no such user.
    """
    choices = login.sign_in_choices(wanted)
    tenant = wanted.tenant.name
    return PAGES.render(
        "sign_in.html",
        client=wanted.client.name,
        target=(wanted.final_target or wanted.target).name,
        tenant=tenant,
        action=action,
        parameters=wanted.parameters,
        candidates=choices.candidates,
        more=choices.more,
        suggested=choices.suggested,
        typed=(unknown or "")[:100],
        problem="" if unknown is None else f"There is no user {unknown[:100]!r} in {tenant}.",
    )


def _refused(request: web.Request, error: EntraError, parameters: Mapping[str, str]) -> web.Response:
    details = [("Error", f"AADSTS{error.code}"), ("Correlation ID", correlation_id(request))]
    advice = ["Correct the request of the application, then start the sign-in again from there."]
    if error.code == 50011:
        client = tenant_of(request).application(parameters.get("client_id", ""))
        registered = client.reply_urls if client is not None else ()
        details += [("Sent", parameters.get("redirect_uri", "")[:300])]
        details += [("Registered", "\n".join(registered) or "none")]
        advice = [
            "Let the application send one of the registered redirect URIs, or add the one that it sends to "
            "spec.azure.application.replyURLs in its manifest."
        ]
    html = error_page("Sign-in failed", error.text, advice=advice, details=details)
    return page(html, error.kind.status, popup=True)


def _back(request: web.Request, wanted: LoginRequest, error: EntraError) -> web.Response:
    local = request.app[LOCAL]
    body = error.body(local.now(), local.base_url, new_trace_id(), correlation_id(request))
    return _return(wanted, login.error_fields(wanted, error, body["error_description"]))


def _return(wanted: LoginRequest, fields: list[tuple[str, str]]) -> web.Response:
    if wanted.response_mode == "form_post":
        return page(PAGES.render("form_post.html", action=wanted.redirect_uri, fields=fields), popup=True)
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
            target=graph.NAME if wanted.graph else wanted.target.name,
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
        problem = (
            "You were not sent back to the application: 'post_logout_redirect_uri' must be on the origin of "
            "a registered reply URL."
        )
        html = PAGES.render("signed_out.html", tenant=tenant.name, problem=problem if uri else "")
        response = page(html, popup=True)
    response.del_cookie(_cookie_name(tenant), path="/")
    return response
