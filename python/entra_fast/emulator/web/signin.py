"""Signing in over HTTP: the authorization endpoint, and its pages for choosing a user and for consent.

protocol/authorize.py decides what a request means and who may sign in, protocol/front_channel.py what the
application gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from entra_fast._web.responses import page, see_other
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol import authorize as login
from entra_fast.emulator.protocol import front_channel
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.authorize import LoginError, LoginRequest
from entra_fast.emulator.protocol.discovery import SHARED
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Decision, failed
from entra_fast.emulator.protocol.store import Session
from entra_fast.emulator.web.endpoints import apply_faults
from entra_fast.emulator.web.handling import LOCAL, Handler, correlation_id, read_form, tenant_of
from entra_fast.emulator.web.pages import PAGES, error_page
from entra_fast.emulator.web.sessions import cookie_of, session_of, set_cookie

_OPENID_SCOPES: Final = {
    "openid": "sign the user in",
    "profile": "read the user's name and user name",
    "email": "read the user's email address",
    "offline_access": "keep this access after the user has left",
}


def add_routes(app: web.Application) -> None:
    """Add the authorization endpoint."""
    for version, middle in ((2, "/v2.0"), (1, "")):
        app.router.add_get(f"/{{tenant}}/oauth2{middle}/authorize", _authorize(version))
        app.router.add_post(f"/{{tenant}}/oauth2{middle}/authorize", _sign_in(version))


def _authorize(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if len(set(request.query)) != len(request.query):
            # RFC 6749, section 3.1: parameters must not be repeated.
            error = EntraError(9002313, reason="a parameter is repeated")
            return _refused(request, error, {})
        return await _login(request, dict(request.query), version)

    return handler


def _sign_in(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        # OpenID Connect Core 1.0, section 3.1.2.1: the request itself may also be posted.
        form = await read_form(request)
        username, answer = form.pop("username", None), form.pop("consent", "")
        return await _login(request, form, version, username, answer)

    return handler


async def _login(
    request: web.Request,
    parameters: dict[str, str],
    version: int,
    username: str | None = None,
    consent: str = "",
) -> web.StreamResponse:
    """Process an authorization request.

    Args:
        username: what was typed or clicked on the sign-in page; None if the request does not come from it.
        consent: what was clicked on the consent page.
    """
    local = request.app[LOCAL]
    if (broken := await apply_faults(request, local.faults.take("authorize"))) is not None:
        return broken
    try:
        tenant = _tenant(request, parameters)
        wanted = login.check(tenant, parameters, local.base_url, version)
    except EntraError as error:
        return _refused(request, error, parameters)
    except LoginError as refusal:
        return _back(request, refusal.request, refusal.error)
    session = session_of(request, tenant)
    if username is not None:
        user = tenant.directory.find_user(username)
        if user is None:
            return page(sign_in_page(wanted, request.path, username), 400, popup=True)
        cookie, session = local.store.new_session(tenant.id, user.id)
        response = _after_sign_in(request, wanted, user, session, cookie, consent)
        set_cookie(request, response, tenant, cookie)
        return response
    user = tenant.directory.users.get(session.user_id) if session is not None else None
    if session is None or user is None or _asks_again(wanted, user, session, local.now()):
        if wanted.prompt == "none":
            return _back(request, wanted, EntraError(50058))
        return page(sign_in_page(wanted, request.path), popup=True)
    return _after_sign_in(request, wanted, user, session, cookie_of(request, tenant), consent)


def _tenant(request: web.Request, parameters: Mapping[str, str]) -> Tenant:
    """The tenant in the path; where that names all of them, the one that `domain_hint` names."""
    if request.match_info["tenant"] in SHARED:
        hinted = request.app[LOCAL].registry.tenant(parameters.get("domain_hint", ""))
        if hinted is not None:
            return hinted
    return tenant_of(request)


def _asks_again(wanted: LoginRequest, user: User, session: Session, now: float) -> bool:
    hinted = wanted.hinted
    return (
        wanted.prompt in ("login", "select_account")
        or (hinted is not None and hinted is not user)
        or wanted.is_too_old(session, now)
    )


def _after_sign_in(
    request: web.Request, wanted: LoginRequest, user: User, session: Session, cookie: str, consent: str
) -> web.Response:
    local = request.app[LOCAL]
    decision = wanted.decide(user)
    if decision.error is not None:
        record_login(request, wanted, user.username, decision)
        if wanted.prompt == "none":
            return _back(request, wanted, decision.error)
        return page(refusal_page(decision, user, login.as_another_user(wanted)), 403, popup=True)
    if wanted.prompt == "consent" and consent != "accept":
        if not consent:
            return page(_consent_page(wanted, request.path, user, decision), popup=True)
        declined = EntraError(65004)
        reasons = (*decision.reasons, failed(declined))
        record_login(request, wanted, user.username, Decision(False, reasons, declined))
        return _back(request, wanted, declined)
    agreed = wanted.login(user, session, now=local.now(), address=request.remote or "")
    issuer = local.token_service().issuer
    answer = front_channel.response(issuer, wanted, user, agreed, decision, correlation_id(request))
    local.store.add_client(cookie, wanted.client.client_id)
    record_login(request, wanted, user.username, decision, claims=answer.claims)
    return _return(wanted, answer.fields)


def sign_in_page(
    wanted: LoginRequest,
    action: str,
    unknown: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Choose or type a user. Shows what the target's policy says about each before one is chosen.

    Args:
        action: where the form goes.
        unknown: what was typed, if there is no such user.
        parameters: what the form sends along; by default the parameters of the request.
    """
    choices = login.sign_in_choices(wanted)
    tenant = wanted.tenant.name
    return PAGES.render(
        "sign_in.html",
        client=wanted.client.name,
        target=(wanted.final_target or wanted.target).name,
        tenant=tenant,
        action=action,
        parameters=wanted.parameters if parameters is None else parameters,
        candidates=choices.candidates,
        more=choices.more,
        suggested=choices.suggested,
        typed=(unknown or "")[:100],
        problem="" if unknown is None else f"There is no user {unknown[:100]!r} in {tenant}.",
    )


def refusal_page(decision: Decision, user: User, again: str) -> str:
    """Why a user may not sign in. `again`: where another user signs in."""
    return PAGES.render(
        "sign_in_refused.html",
        error=str(decision.error),
        reasons=decision.reasons,
        again=again,
        username=user.username,
    )


def target_name(wanted: LoginRequest) -> str:
    """The name of what a token is requested for."""
    return graph.NAME if wanted.graph else wanted.target.name


def _consent_page(wanted: LoginRequest, action: str, user: User, decision: Decision) -> str:
    return PAGES.render(
        "consent.html",
        client=wanted.client.name,
        target=target_name(wanted),
        username=user.username,
        action=action,
        parameters=wanted.parameters,
        openid=[(name, text) for name, text in _OPENID_SCOPES.items() if name in wanted.scope.openid],
        permissions=decision.scopes if wanted.scope.resource is not None else (),
    )


def _refused(request: web.Request, error: EntraError, parameters: Mapping[str, str]) -> web.Response:
    details = [("Error", f"AADSTS{error.code}"), ("Correlation ID", correlation_id(request))]
    advice = ["Correct the request of the application, then start the sign-in again from there."]
    if error.code in (50011, 900971):
        client = _tenant(request, parameters).application(parameters.get("client_id", ""))
        registered = client.reply_urls if client is not None else ()
        details += [("Sent", parameters.get("redirect_uri", "")[:300] or "none")]
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
    return _return(wanted, front_channel.error_fields(wanted, error, body["error_description"]))


def _return(wanted: LoginRequest, fields: list[tuple[str, str]]) -> web.Response:
    if wanted.response_mode == "form_post":
        return page(PAGES.render("form_post.html", action=wanted.redirect_uri, fields=fields), popup=True)
    # 303: the browser must not post the login form to the application (RFC 9700, section 4.12).
    return see_other(front_channel.redirect_target(wanted, fields))


def record_login(
    request: web.Request,
    wanted: LoginRequest,
    username: str,
    decision: Decision,
    *,
    grant: str = "login",
    claims: Mapping[str, Any] | None = None,
) -> None:
    """Add a login to the journal."""
    local = request.app[LOCAL]
    local.journal.add(
        Entry(
            number=local.journal.next_number(),
            time=local.now(),
            tenant=wanted.tenant.name,
            grant=grant,
            client=wanted.client.name,
            target=target_name(wanted),
            user=username,
            granted=decision.granted,
            code=None if decision.error is None else decision.error.code,
            message="" if decision.error is None else decision.error.text,
            reasons=decision.reasons,
            correlation_id=correlation_id(request),
            claims=claims or {},
        )
    )
