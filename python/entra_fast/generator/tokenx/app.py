"""The routes of the token generator for TokenX. `providers` sends the requests to ID-porten and TokenX.

| route | login | answer |
|---|---|---|
| `GET /` | no | start page |
| `GET /api/obo?aud=` | yes | a token for the target: `{"access_token","expires_in"}`, or a page |
| `POST /api/public/obo` | no | a bare token for the form's `aud` and `pid`, with the level `acr` |
| `GET /oauth2/login`, `GET /oauth2/callback`, `POST /oauth2/logout` | | the login: ../site.py |
| `GET /healthz`, `GET /readyz` | no | probes: ../site.py |

What a caller did wrong is a sentence in text/plain, as the generator of NAIS writes it.
"""

from __future__ import annotations

import json
from typing import Final

from aiohttp import web

from entra_fast import _native
from entra_fast._web.negotiation import preferred
from entra_fast._web.responses import page
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.generator import pages
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, AudienceError
from entra_fast.generator.site import HTML, JSON, Site
from entra_fast.generator.token_requests import Token
from entra_fast.generator.tokenx.providers import IdPortenLogin, TokenXExchange
from entra_fast.generator.tokenx.settings import TokenXGeneratorSettings
from entra_fast.generator.tokenx.target import parse_target

ACR_VALUES: Final = ("idporten-loa-substantial", "idporten-loa-high", "Level3", "Level4")
DEFAULT_ACR: Final = "idporten-loa-high"
MAX_PID_CHARACTERS: Final = 200
_FIELDS: Final = ("aud", "pid", "acr")
_STALE_LOGIN: Final = "invalid subject_token"
"""How TokenX begins its refusal of a user's token: the user must log in again."""


class TokenXGenerator:
    """The routes, bound to TokenX, ID-porten and one public address.

    Args:
        base_url: the origin that browsers use, without a trailing slash.
    """

    def __init__(
        self,
        settings: TokenXGeneratorSettings,
        base_url: str,
        login: IdPortenLogin,
        exchange: TokenXExchange,
    ) -> None:
        self._settings = settings
        self._login = login
        self._exchange = exchange
        self._site = Site(
            base_url,
            settings.server.allowed_hosts,
            _Both(login, exchange),
            name="entra_fast_tokenx_generator",
            product="TokenX generator",
            audience_of=parse_target,
            destinations={"obo"},
        )

    def build(self) -> web.Application:
        """The aiohttp application."""
        app = self._site.application()
        app.router.add_get("/", self._start)
        # No HEAD: it would fetch a token and discard it.
        app.router.add_get("/api/obo", self._obo, allow_head=False)
        app.router.add_post("/api/public/obo", self._public_obo)
        return app

    async def _start(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        html = pages.tokenx_start_page(
            self._site.visitor(request),
            client=self._exchange.client_id,
            base_url=self._site.base_url,
            audiences=self._settings.audiences,
            audience=query.get("aud", ""),
            search=query.get("q", "")[:MAX_AUDIENCE_CHARACTERS],
            number=query.get("page", "1"),
            without_login=self._login.gives_tokens_without_login,
        )
        return page(html)

    async def _obo(self, request: web.Request) -> web.StreamResponse:
        try:
            target = parse_target(request.query.getall("aud", []))
        except AudienceError as error:
            if _prefers_html(request):
                raise
            return _sentence(400, str(error))
        session = self._site.session(request)
        if session is None:
            return await self._site.begin_login(request, "obo", target)
        try:
            token = await self._exchange.exchange(target, session.access_token)
        except ProviderError as error:
            if error.message.startswith(_STALE_LOGIN):
                self._site.end_session(request)
            raise
        return self._token(request, token, target)

    def _token(self, request: web.Request, token: Token, target: str) -> web.StreamResponse:
        if not _prefers_html(request):
            body = {"access_token": token.access_token, "expires_in": token.expires_in}
            return web.Response(body=json.dumps(body, separators=(",", ":")).encode(), content_type=JSON)
        return self._site.token_page(request, token, target, on_behalf=True)

    async def _public_obo(self, request: web.Request) -> web.StreamResponse:
        if not self._login.gives_tokens_without_login:
            text = "tokens without a login are not configured: set TOKEN_GENERATOR_FAKE_LOGIN_URL"
            return _sentence(404, text)
        try:
            fields = await _fields(request)
            target, pid, acr = _asked_for(fields)
        except AudienceError as error:
            return _sentence(400, str(error))
        try:
            subject_token = await self._login.without_login(pid, acr)
            token = await self._exchange.exchange(target, subject_token)
        except ProviderError as error:
            return _sentence(error.status, f"{error.error}: {error.message}")
        return web.Response(text=token.access_token)


class _Both:
    """ID-porten for logins, and both providers for readiness."""

    def __init__(self, login: IdPortenLogin, exchange: TokenXExchange) -> None:
        self._login = login
        self._exchange = exchange
        self.expected_issuer = login.issuer
        self.authorization_url = login.authorization_url
        self.logout_url = login.logout_url
        self.redeem = login.redeem

    async def not_ready_reason(self) -> str | None:
        return await self._login.not_ready_reason() or await self._exchange.not_ready_reason()


def _prefers_html(request: web.Request) -> bool:
    return preferred(request.headers.get("Accept"), (JSON, HTML)) == HTML


def _sentence(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text)


async def _fields(request: web.Request) -> dict[str, str]:
    """The fields of the form that matter; those of the query do not count."""
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        return dict(_native.parse_form(await request.read(), _FIELDS))
    except EntraFastError as error:
        raise AudienceError(error.message) from None


def _asked_for(fields: dict[str, str]) -> tuple[str, str, str]:
    """(target, number, level). Raises AudienceError, whose text is the sentence."""
    target = parse_target([fields.get("aud", "")], "form")
    pid, acr = fields.get("pid", "").strip(), fields.get("acr") or DEFAULT_ACR
    if not pid:
        raise AudienceError("missing 'pid' form parameter")
    if len(pid) > MAX_PID_CHARACTERS:
        raise AudienceError(f"the form parameter 'pid' is longer than {MAX_PID_CHARACTERS} characters")
    if acr not in ACR_VALUES:
        raise AudienceError(f"invalid 'acr' form parameter, must be one of: {', '.join(ACR_VALUES)}")
    return target, pid, acr
