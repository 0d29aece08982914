"""What token generators have in common: the caller check, the login and its session, the headers of every
response, and one shape for every failure.

Routes that give tokens are in app.py (Entra ID) and tokenx/app.py. A site is bound to one login provider and
one public address.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
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
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, AudienceError
from entra_fast.generator.login import TICKET_SECONDS, Destination, Login, LoginError, Logins
from entra_fast.generator.sessions import MAX_SESSION_SECONDS, Session, SessionStore
from entra_fast.generator.settings import CALLBACK_PATH
from entra_fast.generator.token_requests import Token

MAX_BODY_BYTES: Final = 16 * 1024
MIN_SESSION_SECONDS: Final = 10.0
"""A session with less time left would send the browser back to the login at once, in a loop."""
JSON: Final = "application/json"
HTML: Final = "text/html"
ROUTES: Final[dict[Destination, str]] = {"obo": "/api/obo", "m2m": "/api/m2m"}
"""Where a login leads to, besides the start page."""

_LOGIN_PATH: Final = "/oauth2/login"
_PROBES: Final = frozenset({"/healthz", "/readyz"})

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A user who has just logged in.

    Attributes:
        access_token: what tokens on behalf of the user are requested with.
        logout_hint: which session the provider's logout is about; empty if the provider did not say.
    """

    name: str
    access_token: str = field(repr=False)
    expires_in: float
    logout_hint: str = ""


class LoginProvider(Protocol):
    """Where users log in."""

    async def expected_issuer(self) -> str | None:
        """What `iss` in a callback must be (RFC 9207); None where the provider does not send it. Raises
        ProviderError."""

    async def not_ready_reason(self) -> str | None:
        """Why no token can be acquired now, or None."""

    async def authorization_url(self, login: Login, redirect_uri: str, *, prompt: str | None = None) -> str:
        """Where to send the browser. Raises ProviderError."""

    async def redeem(self, login: Login, code: str, redirect_uri: str) -> LoggedIn:
        """Redeem an authorization code. Raises ProviderError, or LoginError."""

    async def logout_url(self, return_to: str, hint: str = "") -> str | None:
        """Where to send the browser to end its session at the provider too; None for nowhere."""


class Site:
    """Requests to a token generator, but for the routes that give tokens.

    Args:
        base_url: the origin that browsers use, without a trailing slash.
        allowed_hosts: further host names that it is reached by.
        name: for cookies, and `product` for pages.
        audience_of: the audience among the values of `aud`; raises AudienceError.
        destinations: what a login may lead to, besides the start page.
    """

    def __init__(
        self,
        base_url: str,
        allowed_hosts: Collection[str],
        provider: LoginProvider,
        *,
        name: str,
        product: str,
        audience_of: Callable[[list[str]], str],
        destinations: Collection[Destination],
        sessions: SessionStore | None = None,
    ) -> None:
        self.base_url = base_url
        self._provider = provider
        self._product = product
        self._audience_of = audience_of
        self._destinations = frozenset(destinations)
        self._logins = Logins()
        self._sessions = sessions if sessions is not None else SessionStore()
        self._host = (urlsplit(base_url).hostname or "").lower()
        self._callers = CallerCheck(
            base_url,
            {self._host, *allowed_hosts},
            "use the host of TOKEN_GENERATOR_URL, or add this one to ENTRA_FAST_ALLOWED_HOSTS",
        )
        self._secure = base_url.startswith("https://")
        # Cookies are shared between the ports of a host, so the names identify their owner. `__Host-` keeps
        # neighbours on the same domain from planting them; browsers take it over https only (RFC 6265bis,
        # section 4.1.3.2).
        prefix = "__Host-" if self._secure else ""
        self._session_cookie = f"{prefix}{name}_session"
        self._login_cookie = f"{prefix}{name}_login"

    def application(self) -> web.Application:
        """The aiohttp application, with the routes of login and probes."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
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

    # --- for the routes that give tokens -----------------------------------------------------------------

    def session(self, request: web.Request) -> Session | None:
        """The session of the browser, if a user is logged in."""
        return self._sessions.find(request.cookies.get(self._session_cookie))

    def end_session(self, request: web.Request) -> None:
        """Forget it, so that the user has to log in again."""
        self._sessions.remove(request.cookies.get(self._session_cookie))

    async def begin_login(
        self, request: web.Request, destination: Destination, audience: str = "", *, prompt: str | None = None
    ) -> web.StreamResponse:
        """Send the browser to the login."""
        host = _native.host_name(request.headers.get("Host", "")) or ""
        if host != self._host and _native.is_loopback_host(host) and _native.is_loopback_host(self._host):
            # localhost for 127.0.0.1: the login comes back to the latter, where this browser has no cookie.
            again = _path_of(destination, audience)
            if request.path == _LOGIN_PATH:
                again = request.path_qs
            return web.Response(status=302, headers={"Location": self.base_url + again})
        login = self._logins.begin(destination, audience)
        location = await self._provider.authorization_url(login, self._redirect_uri, prompt=prompt)
        response = web.Response(status=302, headers={"Location": location})
        self._set_cookie(response, self._login_cookie, login.ticket, TICKET_SECONDS)
        return response

    def visitor(self, request: web.Request) -> pages.Visitor:
        """Who looks at a page, and where a sign-in from there leads back to."""
        session = self.session(request)
        try:
            destination, audience = self._asked_for(request)
        except AudienceError:
            destination, audience = "start", ""
        query = {"to": destination, "aud": audience} if audience else {}
        return pages.Visitor(
            None if session is None else session.name,
            0 if session is None else int(self._sessions.seconds_left(session) // 60),
            f"?{urlencode(query)}" if query else "",
            self._product,
        )

    def token_page(
        self, request: web.Request, token: Token, audience: str, *, on_behalf: bool
    ) -> web.StreamResponse:
        """A token as a page; `on_behalf`: of the user who is logged in."""
        html = pages.token_page(
            self.visitor(request),
            base_url=self.base_url,
            audience=audience,
            on_behalf=on_behalf,
            token=token.access_token,
            expires_in=token.expires_in,
            now=time.time(),
        )
        return page(html)

    # --- login -------------------------------------------------------------------------------------------

    @property
    def _redirect_uri(self) -> str:
        return self.base_url + CALLBACK_PATH

    async def _login(self, request: web.Request) -> web.StreamResponse:
        prompt = "select_account" if request.query.get("prompt") == "select_account" else None
        destination, audience = self._asked_for(request)
        return await self.begin_login(request, destination, audience, prompt=prompt)

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        login = self._logins.resume(request.cookies.get(self._login_cookie), query.get("state"))
        issuer = await self._provider.expected_issuer()
        if issuer is not None and not hmac.compare_digest(
            query.get("iss", "").encode(errors="replace"), issuer.encode()
        ):
            # RFC 9207, section 2.4.
            raise LoginError("The response comes from another provider. Sign in again.")
        destination = _path_of(login.destination, login.audience)
        if error := query.get("error"):
            description = query.get("error_description", "The provider gave no reason.")
            response = self.error(
                request, 400, error, description, title="Sign-in refused", again=destination
            )
        elif not query.get("code"):
            raise LoginError("The provider sent neither a code nor an error. Sign in again.")
        else:
            user = await self._provider.redeem(login, query["code"], self._redirect_uri)
            response = self._signed_in(request, user, destination)
        self._del_cookie(response, self._login_cookie)
        return response

    def _signed_in(self, request: web.Request, user: LoggedIn, destination: str) -> web.Response:
        """Begin the session of a user who has just logged in, and send the browser on."""
        if user.expires_in < MIN_SESSION_SECONDS:
            raise LoginError("The provider's token for this sign-in has expired already. Sign in again.")
        # A new name for every login: an earlier cookie never becomes a signed-in one (session fixation).
        self.end_session(request)
        cookie = self._sessions.create(
            user.name, user.access_token, user.expires_in, logout_hint=user.logout_hint
        )
        response = web.Response(status=302, headers={"Location": destination})
        self._set_cookie(response, self._session_cookie, cookie, min(user.expires_in, MAX_SESSION_SECONDS))
        return response

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        session = self.session(request)
        self.end_session(request)
        # Without the provider's own logout, the next click would sign the same user in again without asking.
        hint = "" if session is None else session.logout_hint
        location = await self._provider.logout_url(f"{self.base_url}/", hint) or "/"
        response = web.Response(status=303, headers={"Location": location})
        self._del_cookie(response, self._session_cookie)
        return response

    def _asked_for(self, request: web.Request) -> tuple[Destination, str]:
        """What a request, or the sign-in that it begins, is about: where it leads, and the audience if any.

        Raises:
            AudienceError: the audience cannot be one.
        """
        values = request.query.getall("aud", [])
        if not any(values):
            return "start", ""
        name = request.query.get("to") if request.path == _LOGIN_PATH else request.path.rpartition("/")[2]
        destination: Destination = next((each for each in self._destinations if each == name), "start")
        return destination, self._audience_of(values)

    def _set_cookie(self, response: web.Response, name: str, value: str, lifetime: float) -> None:
        # Lax, not Strict: the way back from the provider is a navigation from another site.
        response.set_cookie(
            name, value, max_age=int(lifetime), path="/", httponly=True, secure=self._secure, samesite="Lax"
        )

    def _del_cookie(self, response: web.Response, name: str) -> None:
        response.del_cookie(name, path="/", httponly=True, secure=self._secure, samesite="Lax")

    # --- probes ------------------------------------------------------------------------------------------

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        reason = await self._provider.not_ready_reason()
        return (
            web.Response(status=200, text="ok\n")
            if reason is None
            else web.Response(status=503, text=reason + "\n")
        )

    # --- around every request ----------------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """The caller check, the headers of every response, and one shape for every failure."""
        response: web.StreamResponse
        try:
            if refusal := self._refusal(request):
                response = self.error(request, 403, "access_denied", refusal)
            elif refused := refusals.body_refusal(request):
                status, sentence = refused
                response = closing_if_unread(
                    request, self.error(request, status, "invalid_request", sentence)
                )
            else:
                response = await handler(request)
        except AudienceError as error:
            response = self.error(request, 400, "invalid_request", str(error))
        except LoginError as error:
            response = self.error(
                request, 400, "invalid_request", str(error), title="Sign-in failed", again=_LOGIN_PATH
            )
            self._del_cookie(response, self._login_cookie)
        except ProviderError as error:
            response = self._provider_error(request, error)
        except EntraFastError as error:
            response = self.error(request, 502, "server_error", error.message)
        except web.HTTPException as error:
            response = self.error(request, error.status, "invalid_request", f"{error.status} {error.reason}")
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except (RequestTimedOut, web.RequestPayloadError, ConnectionError):
            raise  # the server below answers, if there is still a client
        except Exception as error:
            # Neither the exception's text, which may quote its input, nor the path as it was sent.
            _log.error("request failed: %s", describe(error))
            response = self.error(request, 500, "server_error", "an internal error; the log has the details")
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
        response = self.error(
            request,
            error.status,
            error.error,
            error.message,
            title="Token request refused" if error.status < 500 else "Token request failed",
            codes=aadsts_codes(error),
            details=error.details,
            again=request.path_qs if request.method == "GET" and request.path in ROUTES.values() else None,
        )
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    def error(
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
        """A failure: JSON (RFC 6749, section 5.2), or a page for callers that prefer HTML."""
        if preferred(request.headers.get("Accept"), (JSON, HTML)) == HTML:
            html = pages.error_page(
                self.visitor(request),
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
            status=status, body=json.dumps(body, separators=(",", ":")).encode(), content_type=JSON
        )


def aadsts_codes(error: ProviderError) -> tuple[int, ...]:
    """Entra ID's codes in a refusal."""
    return tuple(error.details.get("error_codes", ()))


def _path_of(destination: Destination, audience: str) -> str:
    """Where a finished login leads: always one of our own routes."""
    query = f"?aud={quote(audience, safe='')}" if audience else ""
    return ROUTES.get(destination, "/") + query
