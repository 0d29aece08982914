"""The local ID-porten over HTTP: its endpoints, its login page, and the frames that end sessions at
applications.

providers/idporten/ decides what a request means; the texts of the pages are in idporten_wording.py.
"""

from __future__ import annotations

import asyncio
import re
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from entra_fast import _native
from entra_fast._web.responses import page, see_other
from entra_fast.emulator.protocol.faults import TOKEN_FAULTS
from entra_fast.emulator.protocol.idporten_logins import Identity, Session
from entra_fast.emulator.protocol.journal import Entry
from entra_fast.emulator.protocol.policy import Reason
from entra_fast.emulator.providers.idporten import sign_out
from entra_fast.emulator.providers.idporten.authentication import claimed_client
from entra_fast.emulator.providers.idporten.authorize import (
    LOCALES,
    Fields,
    LoginError,
    LoginRequest,
    check,
    code_fields,
    error_fields,
    redirect_target,
)
from entra_fast.emulator.providers.idporten.errors import IdPortenError
from entra_fast.emulator.providers.idporten.levels import EIDAS, NATIONAL
from entra_fast.emulator.providers.idporten.persons import EUROPEANS, PERSONS
from entra_fast.emulator.providers.idporten.store import PUSHED_LIFETIME, SESSION_LIFETIME
from entra_fast.emulator.providers.person_numbers import InvalidNumber, parse_person_number
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.web.handling import (
    LOCAL,
    NO_STORE,
    PROVIDERS,
    add_public,
    json_response,
    preflight,
    signed_out,
)
from entra_fast.emulator.web.idporten_wording import LANGUAGES, wording
from entra_fast.emulator.web.pages import PAGES
from entra_fast.emulator.web.provider_requests import Endpoints, add_end_of
from entra_fast.errors import EntraFastError, InvalidToken

HARMLESS: Final = frozenset({"/idporten/authorize", "/idporten/par"})
"""Any page may post to these, besides token endpoint, userinfo and logout: they change nothing by
themselves, or need a credential."""
MAX_EMAIL_CHARACTERS: Final = 254
_CLIENT_HEADERS: Final = "authorization, content-type"
_COOKIE: Final = "entra_fast_idporten_session"
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_LOW: Final = "idporten-loa-low"
_WRONG_FIELDS: Final = {"level_refused": "level", "email_malformed": "email"}
"""What a text about a mistake is shown beside, if not the number."""


def add_routes(app: web.Application) -> None:
    """Add the endpoints and pages."""
    routes = app.router
    for name in ("openid-configuration", "oauth-authorization-server"):
        add_public(routes, f"/idporten/.well-known/{name}", _discovery, _CLIENT_HEADERS)
        # RFC 8414, section 3: between the host and the issuer's path.
        add_public(routes, f"/.well-known/{name}/idporten", _discovery, _CLIENT_HEADERS)
    add_public(routes, "/idporten/jwks.json", _keys, _CLIENT_HEADERS)
    add_public(routes, "/idporten/userinfo", _userinfo, _CLIENT_HEADERS, ("GET", "POST"))
    routes.add_get("/idporten/authorize", _authorize, allow_head=False)
    routes.add_post("/idporten/authorize", _authorize)
    routes.add_get("/idporten/login", _login_page, allow_head=False)
    routes.add_post("/idporten/login", _log_in)
    routes.add_post("/idporten/par", _push)
    routes.add_route("*", "/idporten/token", _token)
    routes.add_get("/idporten/logout", _logout, allow_head=False)
    routes.add_post("/idporten/logout", _logout)
    add_end_of(routes, "/idporten")


def add_admin_routes(app: web.Application) -> None:
    """Add what needs the admin token where there is one: tokens without a login are as good as forged."""
    # No HEAD: it would make a token and discard it.
    app.router.add_get("/idporten/fake", _token_without_login, allow_head=False)
    app.router.add_post("/idporten/fake", _token_without_login)


# Documents


async def _discovery(request: web.Request) -> web.StreamResponse:
    return await _endpoints(request).discovery(request, request.app[PROVIDERS].idporten.discovery)


async def _keys(request: web.Request) -> web.StreamResponse:
    return await _endpoints(request).key_set(request, request.app[PROVIDERS].idporten.key_set)


def _endpoints(request: web.Request) -> Endpoints:
    return Endpoints("idporten", request.app[PROVIDERS].idporten.keys, Refusal.body)


# Authorization endpoint and login page


async def _push(request: web.Request) -> web.StreamResponse:
    """Pushed authorization requests (RFC 9126)."""
    provider, form = request.app[PROVIDERS].idporten, dict[str, str]()
    try:
        form = await _form(request)
        client, _ = provider.authenticator().authenticate(form, _authorization(request), pkce=True)
        wanted = check({**form, "client_id": client.client_id}, provider.client)
    except IdPortenError as error:
        return _refused_request(request, "ID-porten pushed request", form, error)
    except LoginError as refusal:
        return _refused_request(request, "ID-porten pushed request", form, refusal.error)
    uri = provider.store.push(wanted)
    return json_response({"request_uri": uri, "expires_in": int(PUSHED_LIFETIME)}, 201)


async def _authorize(request: web.Request) -> web.StreamResponse:
    parameters: dict[str, str] = {}
    try:
        parameters = await _parameters(request)
        wanted = _wanted(request, parameters)
    except IdPortenError as error:
        return _refusal_page(request, error, parameters)
    except LoginError as refusal:
        return _back(request, refusal, parameters.get("client_id", ""))
    cookie = request.cookies.get(_COOKIE, "")
    session = request.app[PROVIDERS].idporten.store.sessions.get(cookie)
    if session is not None and _suffices(wanted, session, request.app[LOCAL].now()):
        return _return_code(request, wanted, session, cookie)
    if "none" in wanted.prompt:
        refused = wanted.refusal(IdPortenError("login_required", "The user must log in"))
        return _back(request, refused, wanted.client.client_id)
    login = request.app[PROVIDERS].idporten.store.begin_login(wanted)
    return _page_of_login(request, wanted, login, wanted.locale)


def _wanted(request: web.Request, parameters: Mapping[str, str]) -> LoginRequest:
    provider = request.app[PROVIDERS].idporten
    uri = parameters.get("request_uri")
    if uri is None:
        return check(parameters, provider.client)
    wanted = provider.store.pushed.get(uri)
    if wanted is None or wanted.client.client_id != parameters.get("client_id"):
        text = "Invalid request_uri: it is unknown, expired, was used before or belongs to another client"
        raise IdPortenError("invalid_request_uri", text)
    provider.store.pushed.remove(uri)
    return wanted


def _suffices(wanted: LoginRequest, session: Session, now: float) -> bool:
    """Whether a session makes another login unnecessary."""
    return (
        not wanted.prompt & {"login", "select_account"}
        and wanted.levels.allow(session.identity.acr)
        and (wanted.max_age is None or now - session.auth_time <= wanted.max_age)
    )


async def _login_page(request: web.Request) -> web.StreamResponse:
    """The login page again, in another language."""
    login, language = request.query.get("login", ""), request.query.get("language", "")
    wanted = request.app[PROVIDERS].idporten.store.logins.get(login)
    if wanted is None:
        return _login_is_over(language)
    return _page_of_login(request, wanted, login, _locale(language, wanted))


def _locale(chosen: str, wanted: LoginRequest) -> str:
    return chosen if chosen in LOCALES else wanted.locale


async def _log_in(request: web.Request) -> web.StreamResponse:
    provider = request.app[PROVIDERS].idporten
    try:
        form = await _form(request)
    except IdPortenError as error:
        return _refusal_page(request, error, {})
    login = form.get("login", "")
    wanted = provider.store.logins.get(login)
    if wanted is None:
        return _login_is_over("")
    # The language may have been changed on the page.
    wanted = replace(wanted, locale=_locale(form.get("locale", ""), wanted))
    if "cancel" in form:
        provider.store.logins.remove(login)
        refused = wanted.refusal(IdPortenError("access_denied", "The user cancelled the login"))
        return _back(request, refused, wanted.client.client_id)
    identity = _identity(wanted, form)
    if isinstance(identity, str):
        return _page_of_login(request, wanted, login, wanted.locale, form, identity)
    provider.store.logins.remove(login)
    cookie, session = provider.store.log_in(identity, request.cookies.get(_COOKIE, ""))
    response = _return_code(request, wanted, session, cookie)
    secure = request.app[LOCAL].base_url.startswith("https:")
    response.set_cookie(
        _COOKIE,
        cookie,
        max_age=int(SESSION_LIFETIME),
        httponly=True,
        path="/idporten",
        # As for the local Entra ID: a renewal with prompt=none happens in a frame.
        samesite="None" if secure else "Lax",
        secure=secure,
    )
    return response


def _identity(wanted: LoginRequest, form: Mapping[str, str]) -> Identity | str:
    """Who logs in by a form of the login page, or the name of the text that says what is wrong with it."""
    if "email" in form:
        email = form["email"].strip()
        if not wanted.levels.allow(_LOW):
            return "level_refused"
        if not _EMAIL.fullmatch(email) or len(email) > MAX_EMAIL_CHARACTERS:
            return "email_malformed"
        return Identity(email.lower(), None, _LOW, "E-mail", email)
    if "eidas" in form:
        acr = form.get("eidas_level", "")
        known = any(european.key == form["eidas"] for european in EUROPEANS)
        if not known or acr not in wanted.levels.allowed(EIDAS):
            return "level_refused"
        return Identity(form["eidas"], None, acr, "eIDAS")
    try:
        person = parse_person_number(form.get("person") or form.get("pid", ""))
    except InvalidNumber as error:
        return error.problem
    acr = form.get("level", "")
    if acr not in wanted.levels.allowed(NATIONAL):
        return "level_refused"
    return Identity(person.number, person.number, acr, "TestID")


def _page_of_login(
    request: web.Request,
    wanted: LoginRequest,
    login: str,
    locale: str,
    form: Mapping[str, str] | None = None,
    problem: str = "",
) -> web.Response:
    """Args:
    form: what was typed before, and `problem`: the name of the text that says what is wrong with it.
    """
    form = form or {}
    language, texts = wording(locale)
    hint = wanted.login_hint.removeprefix("pid:")
    typed = form.get("pid", "") if problem else hint if hint.isascii() and hint.isdigit() else ""
    query = urllib.parse.urlencode({"login": login})
    html = PAGES.render(
        "idporten_login.html",
        language=language,
        t=texts,
        languages=[
            (code, name, f"/idporten/login?{query}&language={code}") for code, name in LANGUAGES.items()
        ],
        client=wanted.client.name,
        fields=[("login", login), ("locale", locale)],
        persons=PERSONS,
        europeans=EUROPEANS,
        levels_with_number=_choices(wanted.levels.allowed(NATIONAL)),
        levels_of_eidas=_choices(wanted.levels.allowed(EIDAS)),
        by_email=wanted.levels.allow(_LOW),
        level=form.get("level") or form.get("eidas_level", ""),
        typed=typed[:100],
        email=form.get("email", "")[:MAX_EMAIL_CHARACTERS],
        problem=texts[problem] if problem else "",
        wrong=_WRONG_FIELDS.get(problem, "pid" if problem else ""),
    )
    return page(html, 400 if problem else 200, popup=True)


def _choices(levels: Sequence[str]) -> list[tuple[str, str]]:
    return [(level, level.rpartition("-")[2]) for level in levels]


def _return_code(request: web.Request, wanted: LoginRequest, session: Session, cookie: str) -> web.Response:
    provider, identity = request.app[PROVIDERS].idporten, session.identity
    code = provider.new_code(wanted, session, cookie)
    text = f"logged in by {identity.amr} with {identity.acr}; it asked for one of {_asked(wanted)}"
    _record(
        request,
        grant="ID-porten login",
        client=wanted.client.name,
        target=wanted.resource,
        user=identity.key,
        reasons=(Reason("login", True, text, wanted.client.location),),
    )
    return _return(
        request, wanted.redirect_uri, wanted.response_mode, code_fields(wanted, code, provider.issuer)
    )


def _asked(wanted: LoginRequest) -> str:
    return ", ".join((*wanted.levels.allowed(NATIONAL), *wanted.levels.allowed(EIDAS)))


def _back(request: web.Request, refusal: LoginError, client_id: str) -> web.Response:
    """Return to the application with a refusal."""
    client = request.app[PROVIDERS].idporten.client(client_id)
    _record(
        request,
        grant="ID-porten login",
        client=client_id[:100] if client is None else client.name,
        reasons=(Reason("login", False, refusal.error.text),),
        error=refusal.error,
    )
    fields = error_fields(refusal, request.app[PROVIDERS].idporten.issuer)
    return _return(request, refusal.redirect_uri, refusal.response_mode, fields)


def _return(request: web.Request, redirect_uri: str, mode: str, fields: Fields) -> web.Response:
    if mode == "form_post":
        language, texts = wording(request.query.get("ui_locales", ""))
        html = PAGES.render(
            "idporten_form_post.html",
            language=language,
            t=texts,
            languages=(),
            action=redirect_uri,
            fields=fields,
        )
        return page(html, popup=True)
    # 303: the browser must not post the login form to the application (RFC 9700, section 4.12).
    return see_other(redirect_target(redirect_uri, fields))


def _refusal_page(
    request: web.Request, error: IdPortenError, parameters: Mapping[str, str]
) -> web.StreamResponse:
    """A refusal that must not go to the redirect URI."""
    language, texts = wording(parameters.get("ui_locales", "en").partition(" ")[0])
    client = request.app[PROVIDERS].idporten.client(parameters.get("client_id", ""))
    details = [(texts["error"], error.error), (texts["correlation"], error.correlation_id)]
    advice = texts["advice"]
    sent = parameters.get("redirect_uri", "")
    if client is not None and sent not in client.redirect_uris and "request_uri" not in parameters:
        details += [(texts["sent"], sent[:300] or texts["none"])]
        details += [(texts["registered"], "\n".join(client.redirect_uris) or texts["none"])]
        advice = texts["register"]
    _record(
        request,
        grant="ID-porten login",
        client=parameters.get("client_id", "")[:100] if client is None else client.name,
        reasons=(Reason("request", False, error.text),),
        error=error,
    )
    html = PAGES.render(
        "idporten_error.html",
        language=language,
        t=texts,
        languages=(),
        text=error.description,
        advice=advice,
        details=details,
    )
    return page(html, 400, popup=True)


def _login_is_over(language: str) -> web.Response:
    language, texts = wording(language or "en")
    html = PAGES.render(
        "idporten_error.html",
        language=language,
        t=texts,
        languages=(),
        text=texts["login_over"],
        advice="",
        details=(),
    )
    return page(html, 400, popup=True)


# Token endpoint, userinfo, tokens without a login


async def _token(request: web.Request) -> web.StreamResponse:
    provider, cross_origin = request.app[PROVIDERS].idporten, _cross_origin_headers(request)
    if request.method == "OPTIONS":
        return web.Response(status=204, headers=cross_origin)
    if request.method != "POST":
        raise web.HTTPMethodNotAllowed(request.method, ("POST",))
    form: dict[str, str] = {}
    try:
        form = await _form(request)
        authorization = _authorization(request)
        sender = provider.client(form.get("client_id") or claimed_client(form, authorization))
        name = None if sender is None else sender.name
        faults = request.app[LOCAL].faults.take("idporten", name)
        for_token = tuple(fault for fault in faults if fault.kind in TOKEN_FAULTS)
        transport = tuple(fault for fault in faults if fault not in for_token)
        broken = await _endpoints(request).carry_out(request, name or "", transport)
        if broken is not None:
            return broken
        if not provider.keys.ready:  # generating them takes a while, in which others are served
            await asyncio.to_thread(lambda: provider.keys.active)
        client, grant, answer = provider.token_endpoint().answer(form, authorization, for_token)
    except IdPortenError as error:
        response = _refused_request(request, _kind(form), form, error)
        response.headers.update(cross_origin)
        return response
    _record(
        request,
        grant=_kind(form),
        client=client.name,
        target=grant.resource,
        user=grant.identity.key,
        reasons=(Reason("client", True, "the client has authenticated", client.location),),
        claims=_native.unverified_claims(answer["access_token"]),
    )
    return json_response(answer, 200, {**NO_STORE, **cross_origin})


def _kind(form: Mapping[str, str]) -> str:
    return "ID-porten refresh" if form.get("grant_type") == "refresh_token" else "ID-porten code"


async def _userinfo(request: web.Request) -> web.StreamResponse:
    """OpenID Connect Core 1.0, section 5.3."""
    scheme, _, token = _authorization(request).partition(" ")
    try:
        if scheme.lower() != "bearer":
            raise InvalidToken("token_missing", "a bearer token is required")
        claims = request.app[PROVIDERS].idporten.verified(token.strip())
    except InvalidToken as error:
        challenge = f'Bearer error="invalid_token", error_description="{error.message}"'
        refusal = {"error": "invalid_token", "error_description": error.message}
        return json_response(refusal, 401, {**NO_STORE, "WWW-Authenticate": challenge})
    return json_response({name: claims[name] for name in ("sub", "pid", "acr") if name in claims})


async def _token_without_login(request: web.Request) -> web.StreamResponse:
    """A bare access token for any number, as NAV's fakedings issues it at `/fake/idporten`."""
    provider = request.app[PROVIDERS].idporten
    try:
        fields = {
            **_unrepeated(request.query.items()),
            **(await _form(request) if _has_form(request) else {}),
        }
        acr = fields.get("acr") or "idporten-loa-high"
        token = provider.token_without_login(
            fields.get("pid", ""), acr, fields.get("client_id", ""), resource=fields.get("resource", "")
        )
    except IdPortenError as error:
        return web.Response(text=error.text, status=400)
    claims = _native.unverified_claims(token)
    _record(
        request,
        grant="ID-porten token without login",
        user=fields["pid"],
        reasons=(Reason("login", True, "made without a login; the number was not checked"),),
        claims=claims,
        forged=True,
    )
    return web.Response(text=token, headers=NO_STORE)


# Signing out


async def _logout(request: web.Request) -> web.StreamResponse:
    """OpenID Connect RP-Initiated Logout 1.0."""
    provider, cookie = request.app[PROVIDERS].idporten, request.cookies.get(_COOKIE, "")
    try:
        fields = await _parameters(request)
    except IdPortenError as error:
        return _refusal_page(request, error, {})
    if request.method == "POST" and not cookie and fields:
        # The form of another site's page comes without the cookie, which is SameSite=Lax; the request that
        # follows has it.
        return see_other(f"{request.path}?{urllib.parse.urlencode(fields)}")
    return_to, problem = sign_out.return_address(fields, provider.client, provider.issuer, provider.keys)
    session = provider.store.sessions.get(cookie)
    frames = [] if session is None else sign_out.frames(session, provider.client, provider.issuer)
    if session is not None:
        provider.store.end_session(cookie, session)
    response = _signed_out(fields, return_to, problem, frames)
    response.del_cookie(_COOKIE, path="/idporten")
    return response


def _signed_out(
    fields: Mapping[str, str], return_to: str, problem: str, frames: Sequence[str]
) -> web.Response:
    if return_to and not frames:
        return see_other(return_to)
    language, texts = wording(fields.get("ui_locales", "nb").partition(" ")[0])
    html = PAGES.render(
        "idporten_signed_out.html",
        language=language,
        t=texts,
        languages=(),
        problem=texts[problem] if problem else "",
        frames=frames,
        return_to=return_to,
        refresh=f"0; url={return_to}",
    )
    return signed_out(html, frames)


# Shared


def _has_form(request: web.Request) -> bool:
    return request.method == "POST" and request.can_read_body


async def _parameters(request: web.Request) -> dict[str, str]:
    """Of the query, or of the form if it was posted."""
    if request.method == "POST":
        return await _form(request) if request.can_read_body else {}
    return _unrepeated(request.query.items())


async def _form(request: web.Request) -> dict[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        text = "The body must be a form: application/x-www-form-urlencoded"
        raise IdPortenError("invalid_request", text)
    try:
        # RFC 6749, section 3.2: no parameter may be repeated, so all of them are treated as known fields.
        return dict(_native.parse_form(await request.read()))
    except EntraFastError as error:
        raise IdPortenError("invalid_request", f"Malformed form: {error.message}") from None


def _unrepeated(items: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in items:
        if name in found:
            raise IdPortenError("invalid_request", "A parameter is repeated")
        found[name] = value
    return found


def _authorization(request: web.Request) -> str:
    return ", ".join(request.headers.getall("Authorization", []))


def _cross_origin_headers(request: web.Request) -> dict[str, str]:
    """Public clients redeem their codes in a browser, whose pages may read the response."""
    sent = request.headers.get("Origin")
    if sent is None:
        return {}
    if not any(sent in client.origins for client in request.app[PROVIDERS].idporten.clients.values()):
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": sent, "Vary": "Origin", **preflight(_CLIENT_HEADERS)}


def _refused_request(
    request: web.Request, grant: str, form: Mapping[str, str], error: IdPortenError
) -> web.Response:
    sent = form.get("client_id", "")
    client = request.app[PROVIDERS].idporten.client(sent)
    _record(
        request,
        grant=grant,
        client=sent[:100] if client is None else client.name,
        reasons=(Reason("request", False, error.text),),
        error=error,
    )
    return json_response(error.body(), 400)


def _record(
    request: web.Request,
    *,
    grant: str,
    reasons: tuple[Reason, ...],
    client: str = "",
    target: str = "",
    user: str = "",
    claims: Mapping[str, Any] | None = None,
    error: IdPortenError | None = None,
    forged: bool = False,
) -> None:
    """Add to the journal of all local providers."""
    journal = request.app[LOCAL].journal
    journal.add(
        Entry(
            number=journal.next_number(),
            time=request.app[LOCAL].now(),
            tenant="",
            provider="idporten",
            grant=grant,
            client=client,
            target=target[:200],
            user=user[:200],
            granted=error is None,
            code=None,
            message="" if error is None else f"{error.error}: {error.text}",
            reasons=reasons,
            correlation_id=str(uuid.uuid4()) if error is None else error.correlation_id,
            claims=claims or {},
            forged=forged,
        )
    )
