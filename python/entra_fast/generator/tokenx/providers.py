"""The requests of the token generator for TokenX: the login at ID-porten, and the exchange at TokenX.

Requests for tokens and the check of ID tokens are those of `token_requests`. Every request for a token gets
a new one, so that a changed policy shows at once.
"""

from __future__ import annotations

from urllib.parse import urlencode

from entra_fast import _native
from entra_fast._provider.discovery_document import Discovery
from entra_fast._provider.endpoints import fetch_document
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.oauth import token_exchange_form
from entra_fast._settings.model import ProviderSettings
from entra_fast._settings.secret import Secret
from entra_fast.errors import InvalidToken, ProviderError
from entra_fast.generator.login import Login
from entra_fast.generator.openid import (
    LoginEndpoints,
    authorization_query,
    code_form,
    discover,
    with_query,
)
from entra_fast.generator.remembered import Remembered
from entra_fast.generator.site import LoggedIn
from entra_fast.generator.token_requests import Token, TokenRequests, shown_name, verified_id_token


class IdPortenLogin:
    """Logs users in at ID-porten. Belongs to one event loop.

    Args:
        http: for all requests.
        fake_login_url: what returns a token of ID-porten without a login; None for nothing.
        fake_login_token: what that demands; None for nothing.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        http: HttpClient,
        *,
        fake_login_url: str | None = None,
        fake_login_token: Secret | None = None,
    ) -> None:
        self._settings = settings
        self._http = http
        self._fake_login_url = fake_login_url
        self._fake_login_token = fake_login_token
        self._requests = TokenRequests(settings, http, provider=settings.kind.title)
        self._endpoints = Remembered(lambda: discover(http, settings), LoginEndpoints.aclose)

    async def aclose(self) -> None:
        """Close what verifies ID tokens."""
        await self._endpoints.aclose()

    async def not_ready_reason(self) -> str | None:
        """Why no one can log in now, or None."""
        try:
            await self._endpoints.get()
        except ProviderError as error:
            return f"ID-porten: {error.message}"
        return self._requests.credentials.problem()

    async def issuer(self) -> str:
        """What `iss` in a callback must be. Raises ProviderError."""
        return (await self._endpoints.get()).issuer

    async def authorization_url(self, login: Login, redirect_uri: str, *, prompt: str | None = None) -> str:
        """Where to send the browser (OpenID Connect Core, section 3.1.2.1). Raises ProviderError."""
        query = authorization_query(login, self._settings.client_id, redirect_uri, "openid profile", prompt)
        # The lowest level, so that the user can choose: TokenX passes it on to the target.
        query["acr_values"] = "idporten-loa-substantial"
        return with_query((await self._endpoints.get()).authorization_endpoint, query)

    async def logout_url(self, return_to: str, _hint: str = "") -> str | None:
        """Where to send the browser to end its session (OpenID Connect RP-Initiated Logout 1.0)."""
        query = {"post_logout_redirect_uri": return_to, "client_id": self._settings.client_id}
        try:
            return (await self._endpoints.get()).logout_url(query)
        except ProviderError:
            return None

    async def redeem(self, login: Login, code: str, redirect_uri: str) -> LoggedIn:
        """Redeem an authorization code, and check the ID token that comes with it.

        Raises:
            ProviderError: ID-porten refused or failed.
            LoginError: the ID token is not valid or belongs to another login.
        """
        known = await self._endpoints.get()
        form = code_form(login, self._settings.client_id, redirect_uri, code)
        token, body = await self._requests.send(known.token_endpoint, form, audience=known.issuer)
        claims = await verified_id_token(
            body, known.validator, login, sender="ID-porten", id_token="The ID token of ID-porten"
        )
        name = shown_name(claims, ("pid", "email", "sub"))
        return LoggedIn(name, token.access_token, float(token.expires_in))

    @property
    def gives_tokens_without_login(self) -> bool:
        """Whether `without_login` can be used."""
        return self._fake_login_url is not None

    async def without_login(self, pid: str, acr: str) -> str:
        """A token of ID-porten for any number, which is not checked. Raises ProviderError."""
        # In the query, because fakedings reads that; posted, because it makes something.
        url = f"{self._fake_login_url}?{urlencode({'pid': pid, 'acr': acr})}"
        secret = self._fake_login_token
        headers = {} if secret is None else {"Authorization": f"Bearer {secret.reveal()}"}
        try:
            response = await self._http.post_form(url, {}, headers=headers)
        except HttpFailure as error:
            raise ProviderError(error.code, f"no token without a login: {error.message}") from None
        token = response.body.decode(errors="replace").strip()
        try:
            _native.unverified_claims(token)
        except InvalidToken:
            text = f"{self._fake_login_url} answered {response.status} and no token"
            raise ProviderError("provider_answer_malformed", text, status=502) from None
        return token


class TokenXExchange:
    """Exchanges tokens of users at TokenX. Belongs to one event loop."""

    def __init__(self, settings: ProviderSettings, http: HttpClient) -> None:
        self._settings = settings
        self._http = http
        self._requests = TokenRequests(settings, http, provider=settings.kind.title)
        self._endpoints = Remembered(self._discover, _nothing)

    @property
    def client_id(self) -> str:
        """The name by which targets admit the token generator."""
        return self._settings.client_id

    async def not_ready_reason(self) -> str | None:
        """Why no token can be exchanged now, or None."""
        try:
            await self._endpoints.get()
        except ProviderError as error:
            return f"TokenX: {error.message}"
        return self._requests.credentials.problem()

    async def exchange(self, target: str, subject_token: str) -> Token:
        """A fresh token for a target on behalf of the user (RFC 8693). Raises ProviderError."""
        form = token_exchange_form(target, subject_token, {})
        known = await self._endpoints.get()
        return (await self._requests.send(known.token_endpoint, form, audience=known.issuer))[0]

    async def _discover(self) -> Discovery:
        known = self._settings
        if known.well_known_url is None:
            return Discovery(known.issuer or "", known.jwks_uri or "", known.token_endpoint or "")
        return await fetch_document(self._http, known.well_known_url, known.issuer)


async def _nothing(_: Discovery) -> None:
    """Nothing has to be closed."""
