"""The token generator's routes: requests in, responses out. `provider` sends the requests to the provider.

| route | login | answer |
|---|---|---|
| `GET /` | no | start page |
| `GET /api/obo?aud=` | yes | a token for the audience on behalf of the user: JSON, or a page |
| `GET /api/m2m?aud=` | yes | a token for the audience by client credentials: JSON, or a page |
| `POST /api/public/m2m` | no | the same as a bare token in text/plain, or JSON if the caller prefers it |
| `GET /oauth2/login`, `GET /oauth2/callback`, `POST /oauth2/logout` | | the login: site.py |
| `GET /healthz`, `GET /readyz` | no | probes: site.py |

Tokens and errors are JSON (RFC 6749, sections 5.1 and 5.2), or a page if the caller prefers HTML.
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
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS, Audience, AudienceError, parse_audience
from entra_fast.generator.provider import Provider
from entra_fast.generator.sessions import SessionStore
from entra_fast.generator.settings import GeneratorSettings
from entra_fast.generator.site import HTML, JSON, ROUTES, Site, aadsts_codes
from entra_fast.generator.token_requests import Token

_TEXT: Final = "text/plain"
# AADSTS codes for a user's token that the provider no longer accepts (expired, signed with a withdrawn key,
# revoked): the user must sign in again.
_LOGIN_IS_STALE: Final = frozenset({50013, 500133, 50173, 70043, 700082})


class Generator:
    """The routes, bound to one provider and one public address."""

    def __init__(
        self,
        settings: GeneratorSettings,
        base_url: str,
        provider: Provider,
        *,
        sessions: SessionStore | None = None,
    ) -> None:
        """Args:
        base_url: the origin that browsers use, without a trailing slash.
        """
        self._settings = settings
        self._provider = provider
        self._site = Site(
            base_url,
            settings.server.allowed_hosts,
            provider,
            name="entra_fast_generator",
            product="Token generator",
            audience_of=lambda values: parse_audience(values).text,
            destinations=("obo", "m2m"),
            sessions=sessions,
        )

    def build(self) -> web.Application:
        """The aiohttp application."""
        app = self._site.application()
        app.router.add_get("/", self._start)
        # No HEAD: it would fetch a token and discard it.
        app.router.add_get("/api/obo", self._obo, allow_head=False)
        app.router.add_get("/api/m2m", self._m2m, allow_head=False)
        app.router.add_post("/api/public/m2m", self._public_m2m)
        return app

    async def _start(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        html = pages.start_page(
            self._site.visitor(request),
            issuer=self._provider.issuer,
            base_url=self._site.base_url,
            audiences=self._settings.audiences,
            audience=query.get("aud", ""),
            search=query.get("q", "")[:MAX_AUDIENCE_CHARACTERS],
            number=query.get("page", "1"),
        )
        return page(html)

    async def _obo(self, request: web.Request) -> web.StreamResponse:
        audience = parse_audience(request.query.getall("aud", []))
        session = self._site.session(request)
        if session is None:
            return await self._site.begin_login(request, "obo", audience.text)
        try:
            token = await self._provider.on_behalf_of(audience.scope, session.access_token)
        except ProviderError as error:
            if _LOGIN_IS_STALE.intersection(aadsts_codes(error)):
                self._site.end_session(request)
            raise
        return self._token(request, token, audience)

    async def _m2m(self, request: web.Request) -> web.StreamResponse:
        audience = parse_audience(request.query.getall("aud", []))
        if self._site.session(request) is None:
            return await self._site.begin_login(request, "m2m", audience.text)
        return self._token(request, await self._provider.client_credentials(audience.scope), audience)

    def _token(self, request: web.Request, token: Token, audience: Audience) -> web.StreamResponse:
        """A token: a page for browsers, JSON for programs."""
        if preferred(request.headers.get("Accept"), (JSON, HTML)) != HTML:
            return _token_answer(token)
        on_behalf = request.path == ROUTES["obo"]
        return self._site.token_page(request, token, audience.text, on_behalf=on_behalf)

    async def _public_m2m(self, request: web.Request) -> web.StreamResponse:
        audience = await _audience_of_form_or_query(request)
        token = await self._provider.client_credentials(audience.scope)
        if preferred(request.headers.get("Accept"), (_TEXT, JSON)) == JSON:
            return _token_answer(token)
        return web.Response(text=token.access_token, content_type=_TEXT)


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
    return web.Response(body=json.dumps(body, separators=(",", ":")).encode(), content_type=JSON)
