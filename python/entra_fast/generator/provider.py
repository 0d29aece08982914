"""The token generator's requests to the provider: discovery, the login's code, and fresh tokens.

Requests for tokens and the check of ID tokens are those of `token_requests`. Only the endpoints are cached:
every request gets a new token, so that a changed policy or group shows at once.
"""

from __future__ import annotations

from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.oauth import client_credentials_form, on_behalf_of_form
from entra_fast._settings.model import OutboundSettings, ProviderSettings
from entra_fast.errors import ProviderError
from entra_fast.generator.audience import parse_audience
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

MAX_HINT_CHARACTERS = 500
_WELL_KNOWN = "/.well-known/openid-configuration"


class Provider:
    """One application's view of its provider. Belongs to one event loop."""

    def __init__(self, settings: ProviderSettings, outbound: OutboundSettings) -> None:
        self._settings = settings
        self._http = HttpClient.from_settings(outbound)
        self._endpoints = Remembered(lambda: discover(self._http, settings), LoginEndpoints.aclose)
        self._requests = TokenRequests(settings, self._http, provider="the provider")

    @property
    def issuer(self) -> str:
        """The issuer according to the settings; to be shown, not to decide on."""
        return self._settings.issuer or (self._settings.well_known_url or "").removesuffix(_WELL_KNOWN)

    async def expected_issuer(self) -> str | None:
        """Entra ID does not send `iss` to redirect URIs."""
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._endpoints.aclose()
        await self._http.aclose()

    async def not_ready_reason(self) -> str | None:
        """Why no token can be acquired now, or None."""
        try:
            await self._endpoints.get()
        except ProviderError as error:
            return error.message
        return self._requests.credentials.problem()

    async def authorization_url(self, login: Login, redirect_uri: str, *, prompt: str | None = None) -> str:
        """Where to send the browser (OpenID Connect Core, section 3.1.2.1).

        Raises:
            ProviderError: the discovery document is not available.
        """
        endpoint = (await self._endpoints.get()).authorization_endpoint
        client_id = self._settings.client_id
        query = authorization_query(login, client_id, redirect_uri, self._login_scope, prompt)
        query["response_mode"] = "query"
        if login.destination == "obo":
            # The local Entra ID says at the sign-in which users this target will refuse; Entra ID ignores it.
            query["entra_fast_target"] = parse_audience([login.audience]).scope
        return with_query(endpoint, query)

    async def logout_url(self, return_to: str, hint: str = "") -> str | None:
        """Where to send the browser to end its session at the provider too (OpenID Connect RP-Initiated
        Logout 1.0); None if the endpoints are not known, or include none for it. With `hint`, the provider
        does not ask which account it is about."""
        query = {"post_logout_redirect_uri": return_to, "client_id": self._settings.client_id}
        if hint:
            query["logout_hint"] = hint
        try:
            return (await self._endpoints.get()).logout_url(query)
        except ProviderError:
            return None

    async def redeem(self, login: Login, code: str, redirect_uri: str) -> LoggedIn:
        """Redeem an authorization code, and check the ID token that comes with it.

        Raises:
            ProviderError: the provider refused or failed.
            LoginError: the ID token is not valid or belongs to another login.
        """
        endpoints = await self._endpoints.get()
        form = code_form(login, self._settings.client_id, redirect_uri, code)
        form["scope"] = self._login_scope
        token, body = await self._request(endpoints.token_endpoint, form)
        claims = await verified_id_token(
            body, endpoints.validator, login, sender="The provider", id_token="The provider's ID token"
        )
        hints = (claims.get(claim) for claim in ("login_hint", "preferred_username"))
        hint = next((hint for hint in hints if isinstance(hint, str)), "")
        return LoggedIn(
            shown_name(claims, ("name", "preferred_username", "oid", "sub")),
            token.access_token,
            float(token.expires_in),
            hint if len(hint) <= MAX_HINT_CHARACTERS else "",
        )

    async def client_credentials(self, scope: str) -> Token:
        """A fresh token for the application itself. Raises ProviderError."""
        endpoint = (await self._endpoints.get()).token_endpoint
        form = client_credentials_form(self._settings.client_id, scope, {})
        return (await self._request(endpoint, form))[0]

    async def on_behalf_of(self, scope: str, subject_token: str) -> Token:
        """A fresh token on behalf of the user. Raises ProviderError."""
        endpoint = (await self._endpoints.get()).token_endpoint
        form = on_behalf_of_form(self._settings.client_id, scope, subject_token, {})
        return (await self._request(endpoint, form))[0]

    # --- inside ------------------------------------------------------------------------------------------

    @property
    def _login_scope(self) -> str:
        # The access token of the login must be meant for this application, to be the assertion of the
        # on-behalf-of flow. By its client id alone: an application that asks for a token for itself by its
        # api:// name gets AADSTS90009. No offline_access: the session ends with the token, and logging in
        # again is one redirect.
        return f"openid profile {self._settings.client_id}/.default"

    async def _request(self, token_endpoint: str, form: dict[str, str]) -> tuple[Token, bytes]:
        return await self._requests.send(token_endpoint, form, audience=token_endpoint)
