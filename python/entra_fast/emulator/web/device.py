"""Device codes over HTTP (RFC 8628): the device authorization endpoint, and the page where users enter codes.

The page has four steps: the code, the user, a confirmation, the end. protocol/device_codes.py remembers what
was answered, and protocol/authorize.py decides who may sign in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from entra_fast._web.responses import page
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Tenant
from entra_fast.emulator.protocol import authorize as login
from entra_fast.emulator.protocol.aadsts import EntraError, new_trace_id
from entra_fast.emulator.protocol.authorize import LoginRequest
from entra_fast.emulator.protocol.client_auth import known_client
from entra_fast.emulator.protocol.device_codes import DEVICE_CODE_LIFETIME, POLLING_INTERVAL
from entra_fast.emulator.protocol.policy import Decision, Reason, failed
from entra_fast.emulator.protocol.scope import DEFAULT
from entra_fast.emulator.protocol.store import Session
from entra_fast.emulator.web.endpoints import apply_faults, record_refusal
from entra_fast.emulator.web.handling import (
    LOCAL,
    NO_STORE,
    Handler,
    correlation_id,
    entra_error,
    json_response,
    read_form,
    tenant_of,
)
from entra_fast.emulator.web.pages import PAGES
from entra_fast.emulator.web.sessions import session_of, set_cookie
from entra_fast.emulator.web.signin import record_login, refusal_page, sign_in_page

PAGE: Final = "/devicelogin"
GRANT: Final = "device code"
MAX_TYPED: Final = 100


def add_routes(app: web.Application) -> None:
    """Add the endpoint and the page."""
    for path in (PAGE, "/common/oauth2/deviceauth"):
        app.router.add_get(path, _ask_for_code)
        app.router.add_post(path, _answer)
    for version, middle in ((2, "/v2.0"), (1, "")):
        app.router.add_route("*", f"/{{tenant}}/oauth2{middle}/devicecode", _device_code(version))


def _device_code(version: int) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        local = request.app[LOCAL]
        try:
            if request.method != "POST":
                raise EntraError(900561, method=request.method)
            if (broken := await apply_faults(request, local.faults.take("devicecode"))) is not None:
                return broken
            tenant, form = tenant_of(request), await read_form(request)
            wanted = _checked(tenant, form, local.base_url, version)
        except EntraError as error:
            record_refusal(request, GRANT, error)
            return entra_error(request, error)
        code, begun = local.store.device_codes.begin(
            tenant.id, wanted.client.client_id, wanted.scope_text, form.get("claims", ""), version
        )
        address = f"{local.base_url}{PAGE}"
        text = (
            f"To sign in, use a web browser to open the page {address} and enter the code {begun.user_code} "
            "to authenticate."
        )
        begins = Reason("device code", True, "a device code is issued; its user has to sign in")
        record_login(request, wanted, "", Decision(True, (begins,)), grant=GRANT)
        seconds: int | str = int(DEVICE_CODE_LIFETIME) if version == 2 else str(int(DEVICE_CODE_LIFETIME))
        interval: int | str = POLLING_INTERVAL if version == 2 else str(POLLING_INTERVAL)
        answer = {
            "user_code": begun.user_code,
            "device_code": code,
            "verification_uri" if version == 2 else "verification_url": address,
            "expires_in": seconds,
            "interval": interval,
            "message": text,
        }
        headers = {
            **NO_STORE,
            "x-ms-request-id": new_trace_id(),
            "client-request-id": correlation_id(request),
        }
        return json_response(answer, 200, headers)

    return handler


def _checked(tenant: Tenant, form: Mapping[str, str], base_url: str, version: int) -> LoginRequest:
    if not form.get("client_id"):
        raise EntraError(900144, parameter="client_id")
    client = known_client(tenant, form["client_id"])
    scope = form.get("scope", "")
    if version == 1 and form.get("resource"):
        scope = f"openid profile offline_access {form['resource']}/{DEFAULT}"
    elif form.get("resource"):
        raise EntraError(901002)
    if not scope:
        raise EntraError(900144, parameter="scope" if version == 2 else "resource")
    return login.device_request(tenant, client, scope, form.get("claims", ""), base_url, version)


async def _ask_for_code(request: web.Request) -> web.Response:
    # `otc` is how Entra ID's own links carry a code. It is filled in, and still has to be confirmed.
    return _code_page(request.query.get("otc", ""))


async def _answer(request: web.Request) -> web.Response:
    local, form = request.app[LOCAL], await read_form(request)
    typed = form.get("code", "")
    try:
        begun = local.store.device_codes.typed(typed)
        tenant = local.registry.tenant(begun.tenant_id)
        client = None if tenant is None else tenant.application(begun.client_id)
        if tenant is None or client is None:  # the manifests have changed
            raise EntraError(70018)
        wanted = login.device_request(
            tenant, client, begun.scope, begun.claims, local.base_url, begun.version
        )
    except EntraError as error:
        record_refusal(request, GRANT, error)
        return _code_page(typed, error)
    session = session_of(request, tenant)
    if "username" in form:
        user = tenant.directory.find_user(form["username"])
        if user is None:
            return page(_sign_in(wanted, begun.user_code, form["username"]), 400)
        cookie, session = local.store.new_session(tenant.id, user.id)
        response = _confirm(request, wanted, user, begun.user_code)
        set_cookie(request, response, tenant, cookie)
        return response
    user = tenant.directory.users.get(session.user_id) if session is not None else None
    if session is None or user is None or form.get("answer") == "other":
        return page(_sign_in(wanted, begun.user_code))
    if form.get("answer") == "continue":
        return _approve(request, wanted, user, session, begun.user_code)
    if form.get("answer") == "cancel":
        local.store.device_codes.decline(begun.user_code)
        declined = EntraError(70017)
        record_login(
            request, wanted, user.username, Decision(False, (failed(declined),), declined), grant=GRANT
        )
        return page(PAGES.render("device_done.html", client=wanted.client.name, declined=True))
    return _confirm(request, wanted, user, begun.user_code)


def _code_page(typed: str, error: EntraError | None = None) -> web.Response:
    problem = "" if error is None else f"AADSTS{error.code}: {error.text}"
    html = PAGES.render("device_code.html", typed=typed[:MAX_TYPED], problem=problem, action=PAGE)
    return page(html, 200 if error is None else error.kind.status)


def _sign_in(wanted: LoginRequest, user_code: str, unknown: str | None = None) -> str:
    return sign_in_page(wanted, PAGE, unknown, {"code": user_code})


def _confirm(request: web.Request, wanted: LoginRequest, user: User, user_code: str) -> web.Response:
    decision = wanted.decide(user)
    if decision.error is not None:
        record_login(request, wanted, user.username, decision, grant=GRANT)
        return page(refusal_page(decision, user, f"{PAGE}?otc={user_code}"), 403)
    html = PAGES.render(
        "device_confirm.html",
        client=wanted.client.name,
        username=user.username,
        user_code=user_code,
        action=PAGE,
    )
    return page(html)


def _approve(
    request: web.Request, wanted: LoginRequest, user: User, session: Session, user_code: str
) -> web.Response:
    local = request.app[LOCAL]
    decision = wanted.decide(user)
    record_login(request, wanted, user.username, decision, grant=GRANT)
    if decision.error is not None:
        return page(refusal_page(decision, user, f"{PAGE}?otc={user_code}"), 403)
    agreed = wanted.login(user, session, now=local.now(), address=request.remote or "")
    local.store.device_codes.approve(user_code, agreed)
    return page(PAGES.render("device_done.html", client=wanted.client.name, declined=False))
