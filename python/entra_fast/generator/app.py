"""The token generator's routes: requests in, responses out. `provider` sends the requests to the provider.

| route | login | answer |
|---|---|---|
| `GET /` | no | start page |
| `GET /api/obo?aud=` | yes | a token for the audience on behalf of the user: JSON, or a page |
| `GET /api/m2m?aud=` | yes | a token for the audience by client credentials: JSON, or a page |
| `POST /api/public/m2m` | no | the same as a bare token in text/plain, or JSON if the caller prefers it |
| `GET /oauth2/login`, `GET /oauth2/callback`, `POST /oauth2/logout` | | the login |
| `GET /healthz`, `GET /readyz` | no | probes |

Tokens and errors are JSON (RFC 6749, sections 5.1 and 5.2), or a page if the caller prefers HTML.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import web

from entra_fast import _native
from entra_fast._http import refusals
from entra_fast._http.refusals import RequestTimedOut
from entra_fast._http.responses import closing_if_unread, describe
from entra_fast._sweeping import LoopSweeps
from entra_fast._web.caller_check import CallerCheck
from entra_fast._web.negotiation import preferred
from entra_fast._web.responses import PAGE_HEADERS, page
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.generator import pages
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, Audience, AudienceError, parse_audience
from entra_fast.generator.login import TICKET_SECONDS, Destination, LoginError, Logins
from entra_fast.generator.provider import Provider, Token
from entra_fast.generator.sessions import MAX_SESSION_SECONDS, Session, SessionStore
from entra_fast.generator.settings import CALLBACK_PATH, GeneratorSettings

MAX_BODY_BYTES: Final = 16 * 1024
MIN_SESSION_SECONDS: Final = 10.0
"""A session with less time left would send the browser back to the login at once, in a loop."""

_JSON: Final = "application/json"
_HTML: Final = "text/html"
_TEXT: Final = "text/plain"
_LOGIN_PATH: Final = "/oauth2/login"
_PROBES: Final = frozenset({"/healthz", "/readyz"})
_ROUTES: Final[dict[Destination, str]] = {"obo": "/api/obo", "m2m": "/api/m2m"}
# AADSTS codes for a user's token that the provider no longer accepts (expired, signed with a withdrawn key,
# revoked): the user must sign in again.
_LOGIN_IS_STALE: Final = frozenset({50013, 500133, 50173, 70043, 700082})

_log = logging.getLogger(__name__)


class Generator:
    """The routes, bound to one provider and one public address."""

    def __init__(
        self,
        settings: GeneratorSettings,
        base_url: str,
        provider: Provider,
        *,
        logins: Logins | None = None,
        sessions: SessionStore | None = None,
    ) -> None:
        """Args:
        base_url: the origin that browsers use, without a trailing slash.
        """
        self._settings = settings
        self._base_url = base_url
        self._provider = provider
        self._logins = logins if logins is not None else Logins()
        self._sessions = sessions if sessions is not None else SessionStore()
        self._host = (urlsplit(base_url).hostname or "").lower()
        self._callers = CallerCheck(
            base_url,
            {self._host, *settings.server.allowed_hosts},
            "use the host of TOKEN_GENERATOR_URL, or add this one to ENTRA_FAST_ALLOWED_HOSTS",
        )
        self._secure = base_url.startswith("https://")
        # Cookies are shared between the ports of a host, so the names identify their owner. `__Host-` keeps
        # neighbours on the same domain from planting them; browsers take it over https only (RFC 6265bis,
        # section 4.1.3.2).
        prefix = "__Host-" if self._secure else ""
        self._session_cookie = f"{prefix}entra_fast_generator_session"
        self._login_cookie = f"{prefix}entra_fast_generator_login"

    def build(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/", self._start)
        # No HEAD: it would fetch a token and discard it.
        app.router.add_get("/api/obo", self._obo, allow_head=False)
        app.router.add_get("/api/m2m", self._m2m, allow_head=False)
        app.router.add_post("/api/public/m2m", self._public_m2m)
        app.router.add_get(_LOGIN_PATH, self._login, allow_head=False)
        app.router.add_get(CALLBACK_PATH, self._callback, allow_head=False)
        app.router.add_post("/oauth2/logout", self._logout)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.cleanup_ctx.append(self._sweep_sessions)
        return app

    async def _sweep_sessions(self, _: web.Application) -> AsyncIterator[None]:
        """Sweep while the application runs."""
        sweeps = LoopSweeps(self._sessions.sweep)
        sweeps.start()
        yield
        await sweeps.aclose()

    # --- routes ------------------------------------------------------------------------------------------

    async def _start(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        html = pages.start_page(
            self._visitor(request),
            issuer=self._provider.issuer,
            base_url=self._base_url,
            audiences=self._settings.audiences,
            audience=query.get("aud", ""),
            search=query.get("q", "")[:MAX_AUDIENCE_CHARACTERS],
            number=query.get("page", "1"),
        )
        return page(html)

    async def _obo(self, request: web.Request) -> web.StreamResponse:
        audience = parse_audience(request.query.getall("aud", []))
        session = self._session(request)
        if session is None:
            return await self._begin_login(request, "obo", audience.text)
        try:
            token = await self._provider.on_behalf_of(audience.scope, session.access_token)
        except ProviderError as error:
            if _LOGIN_IS_STALE.intersection(_codes(error)):
                self._sessions.remove(request.cookies.get(self._session_cookie))
            raise
        return self._token(request, token, audience)

    async def _m2m(self, request: web.Request) -> web.StreamResponse:
        audience = parse_audience(request.query.getall("aud", []))
        if self._session(request) is None:
            return await self._begin_login(request, "m2m", audience.text)
        return self._token(request, await self._provider.client_credentials(audience.scope), audience)

    def _token(self, request: web.Request, token: Token, audience: Audience) -> web.Response:
        """A token: a page for browsers, JSON for programs."""
        if preferred(request.headers.get("Accept"), (_JSON, _HTML)) != _HTML:
            return _token_answer(token)
        html = pages.token_page(
            self._visitor(request),
            base_url=self._base_url,
            audience=audience.text,
            on_behalf=request.path == _ROUTES["obo"],
            token=token.access_token,
            expires_in=token.expires_in,
            now=time.time(),
        )
        return page(html)

    async def _public_m2m(self, request: web.Request) -> web.StreamResponse:
        audience = await _audience_of_form_or_query(request)
        token = await self._provider.client_credentials(audience.scope)
        if preferred(request.headers.get("Accept"), (_TEXT, _JSON)) == _JSON:
            return _token_answer(token)
        return web.Response(text=token.access_token, content_type=_TEXT)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        prompt = "select_account" if request.query.get("prompt") == "select_account" else None
        destination, audience = _asked_for(request)
        return await self._begin_login(request, destination, audience, prompt=prompt)

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        login = self._logins.resume(request.cookies.get(self._login_cookie), request.query.get("state"))
        error = request.query.get("error")
        code = request.query.get("code")
        if error:
            description = request.query.get("error_description", "The provider gave no reason.")
            response = self._error(
                request,
                400,
                error,
                description,
                title="Sign-in refused",
                again=_path_of(login.destination, login.audience),
            )
        elif not code:
            raise LoginError("The provider sent neither a code nor an error. Sign in again.")
        else:
            user = await self._provider.redeem(login, code, self._redirect_uri)
            if user.expires_in < MIN_SESSION_SECONDS:
                raise LoginError("The provider's token for this sign-in has expired already. Sign in again.")
            # A new name for every login: an earlier cookie never becomes a signed-in one (session fixation).
            self._sessions.remove(request.cookies.get(self._session_cookie))
            cookie = self._sessions.create(
                user.name, user.access_token, user.expires_in, logout_hint=user.logout_hint
            )
            response = web.Response(
                status=302, headers={"Location": _path_of(login.destination, login.audience)}
            )
            self._set_cookie(
                response, self._session_cookie, cookie, min(user.expires_in, MAX_SESSION_SECONDS)
            )
        self._del_cookie(response, self._login_cookie)
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request)
        self._sessions.remove(request.cookies.get(self._session_cookie))
        # Without the provider's own logout, the next click would sign the same user in again without asking.
        hint = "" if session is None else session.logout_hint
        location = await self._provider.logout_url(f"{self._base_url}/", hint) or "/"
        response = web.Response(status=303, headers={"Location": location})
        self._del_cookie(response, self._session_cookie)
        return response

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        reason = await self._provider.not_ready_reason()
        return (
            web.Response(status=200, text="ok\n")
            if reason is None
            else web.Response(status=503, text=reason + "\n")
        )

    # --- login -------------------------------------------------------------------------------------------

    @property
    def _redirect_uri(self) -> str:
        return self._base_url + CALLBACK_PATH

    async def _begin_login(
        self, request: web.Request, destination: Destination, audience: str = "", *, prompt: str | None = None
    ) -> web.StreamResponse:
        host = _native.host_name(request.headers.get("Host", "")) or ""
        if host != self._host and _native.is_loopback_host(host) and _native.is_loopback_host(self._host):
            # localhost for 127.0.0.1: the login comes back to the latter, where this browser has no cookie.
            again = _path_of(destination, audience)
            if request.path == _LOGIN_PATH:
                again = request.path_qs
            return web.Response(status=302, headers={"Location": self._base_url + again})
        login = self._logins.begin(destination, audience)
        location = await self._provider.authorization_url(login, self._redirect_uri, prompt=prompt)
        response = web.Response(status=302, headers={"Location": location})
        self._set_cookie(response, self._login_cookie, login.ticket, TICKET_SECONDS)
        return response

    def _session(self, request: web.Request) -> Session | None:
        return self._sessions.find(request.cookies.get(self._session_cookie))

    def _visitor(self, request: web.Request) -> pages.Visitor:
        """Who looks at a page, and where a sign-in from there leads back to."""
        session = self._session(request)
        try:
            destination, audience = _asked_for(request)
        except AudienceError:
            destination, audience = "start", ""
        query = {"to": destination, "aud": audience} if audience else {}
        return pages.Visitor(
            None if session is None else session.name,
            0 if session is None else int(self._sessions.seconds_left(session) // 60),
            f"?{urlencode(query)}" if query else "",
        )

    def _set_cookie(self, response: web.Response, name: str, value: str, lifetime: float) -> None:
        # Lax, not Strict: the way back from the provider is a navigation from another site.
        response.set_cookie(
            name, value, max_age=int(lifetime), path="/", httponly=True, secure=self._secure, samesite="Lax"
        )

    def _del_cookie(self, response: web.Response, name: str) -> None:
        response.del_cookie(name, path="/", httponly=True, secure=self._secure, samesite="Lax")

    # --- around every request ----------------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The caller check, the headers of every response, and one shape for every failure."""
        response: web.StreamResponse
        try:
            if refusal := self._refusal(request):
                response = self._error(request, 403, "access_denied", refusal)
            elif refused := refusals.body_refusal(request):
                status, sentence = refused
                response = closing_if_unread(
                    request, self._error(request, status, "invalid_request", sentence)
                )
            else:
                response = await handler(request)
        except AudienceError as error:
            response = self._error(request, 400, "invalid_request", str(error))
        except LoginError as error:
            response = self._error(
                request, 400, "invalid_request", str(error), title="Sign-in failed", again=_LOGIN_PATH
            )
            self._del_cookie(response, self._login_cookie)
        except ProviderError as error:
            response = self._provider_error(request, error)
        except EntraFastError as error:
            response = self._error(request, 502, "server_error", error.message)
        except web.HTTPException as error:
            response = self._error(request, error.status, "invalid_request", f"{error.status} {error.reason}")
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except (RequestTimedOut, web.RequestPayloadError, ConnectionError):
            raise  # the server below answers, if there is still a client
        except Exception as error:
            # Neither the exception's text, which may quote its input, nor the path as it was sent.
            _log.error("request failed: %s", describe(error))
            response = self._error(request, 500, "server_error", "an internal error; the log has the details")
        headers = response.headers
        headers.update(PAGE_HEADERS)
        headers["Vary"] = "Accept, Cookie"
        if self._secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    def _refusal(self, request: web.Request) -> str | None:
        """Why a request is not answered at all, or None."""
        if request.path in _PROBES:
            return None  # Kubernetes asks by the pod's address
        return self._callers.refusal(request, changes=request.method == "POST")

    # --- errors ------------------------------------------------------------------------------------------

    def _provider_error(self, request: web.Request, error: ProviderError) -> web.Response:
        response = self._error(
            request,
            error.status,
            error.error,
            error.message,
            title="Token request refused" if error.status < 500 else "Token request failed",
            codes=_codes(error),
            details=error.details,
            again=request.path_qs if request.method == "GET" and request.path in _ROUTES.values() else None,
        )
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    def _error(
        self,
        request: web.Request,
        status: int,
        error: str,
        description: str,
        *,
        title: str | None = None,
        codes: tuple[int, ...] = (),
        details: Mapping[str, object] | None = None,
        again: str | None = None,
    ) -> web.Response:
        if preferred(request.headers.get("Accept"), (_JSON, _HTML)) == _HTML:
            html = pages.error_page(
                self._visitor(request),
                title=title or "Request failed",
                error=error,
                description=description,
                codes=codes,
                again=again,
                audience=request.query.get("aud", "")[:MAX_AUDIENCE_CHARACTERS],
            )
            return page(html, status)
        body = {"error": error, "error_description": description, **(details or {})}
        return web.Response(
            status=status, body=json.dumps(body, separators=(",", ":")).encode(), content_type=_JSON
        )


async def _audience_of_form_or_query(request: web.Request) -> Audience:
    values: list[str] = []
    if request.content_type == "application/x-www-form-urlencoded":
        try:
            values = [value for _, value in _native.parse_form(await request.read(), ["aud"])]
        except EntraFastError as error:
            raise AudienceError(error.message) from None
    return parse_audience(values or request.query.getall("aud", []))


def _token_answer(token: Token) -> web.Response:
    body = {"access_token": token.access_token, "expires_in": token.expires_in, "token_type": "Bearer"}
    return web.Response(body=json.dumps(body, separators=(",", ":")).encode(), content_type=_JSON)


def _path_of(destination: Destination, audience: str) -> str:
    """Where a finished login leads: always one of our own routes."""
    query = f"?aud={quote(audience, safe='')}" if audience else ""
    return _ROUTES.get(destination, "/") + query


def _asked_for(request: web.Request) -> tuple[Destination, str]:
    """What a request, or the sign-in that it begins, is about: where it leads, and the audience if any.

    Raises:
        AudienceError: the audience cannot be one.
    """
    values = request.query.getall("aud", [])
    if not any(values):
        return "start", ""
    name = request.query.get("to") if request.path == _LOGIN_PATH else request.path.rpartition("/")[2]
    destination: Destination = "obo" if name == "obo" else "m2m" if name == "m2m" else "start"
    return destination, parse_audience(values).text


def _codes(error: ProviderError) -> tuple[int, ...]:
    return tuple(error.details.get("error_codes", ()))
