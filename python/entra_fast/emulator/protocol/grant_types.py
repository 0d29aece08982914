"""The grant types of the token endpoint: each checks its own parameters and says what is authorized.

Client credentials, on behalf of (RFC 7523 as Microsoft uses it), authorization code with PKCE (RFC 7636),
refresh token, device code (RFC 8628). The client has been authenticated before (client_auth.py); tokens are
issued afterwards (token_response.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol import claims_request, pkce, user_assertion
from entra_fast.emulator.protocol.aadsts import EntraError, format_time
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.graph_policy import decide_graph
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Decision, admits_user, decide, with_permissions
from entra_fast.emulator.protocol.scope import DEFAULT, Scope, parse_scope
from entra_fast.emulator.protocol.store import REFRESH_TOKEN_LIFETIME, Store
from entra_fast.emulator.protocol.token_request import Authorized, TokenRequest

CLIENT_CREDENTIALS: Final = "client_credentials"
ON_BEHALF_OF: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
OTHER_SPELLINGS: Final = {"device_code": DEVICE_CODE}  # of MSAL for Node.js, and of the v1.0 endpoint
GRANT_NAMES: Final = {
    CLIENT_CREDENTIALS: "client credentials",
    ON_BEHALF_OF: "on behalf of",
    AUTHORIZATION_CODE: "authorization code",
    REFRESH_TOKEN: "refresh token",
    DEVICE_CODE: "device code",
}
"""Their names in the journal."""


@dataclass(frozen=True, slots=True)
class GrantTypes:
    """All grant types.

    Attributes:
        base_url: of the provider.
        clock: seconds since the epoch.
    """

    base_url: str
    keyring: Keyring
    store: Store
    clock: Callable[[], float]

    def authorize(self, grant_type: str, request: TokenRequest, client: Application) -> Authorized:
        """What a request is authorized for.

        Args:
            grant_type: one of GRANT_NAMES.
            client: the authenticated client.

        Raises:
            EntraError: the request is refused.
        """
        return {
            CLIENT_CREDENTIALS: self._client_credentials,
            ON_BEHALF_OF: self._on_behalf_of,
            AUTHORIZATION_CODE: self._authorization_code,
            REFRESH_TOKEN: self._refresh_token,
            DEVICE_CODE: self._device_code,
        }[grant_type](request, client)

    def login_of(self, grant_type: str, request: TokenRequest) -> Login | None:
        """The login behind a code or refresh token, if that is known; nothing is used up."""
        if grant_type == AUTHORIZATION_CODE:
            return self.store.codes.get(request.form.get("code", ""))
        if grant_type == REFRESH_TOKEN:
            return self.store.refresh_tokens.get(request.form.get("refresh_token", ""))
        return None

    def _client_credentials(self, request: TokenRequest, client: Application) -> Authorized:
        text = request.form.get("scope", "")
        # A single scope of another form is answered with this code, too, rather than with "malformed".
        if request.version == 2 and len(text.split()) == 1 and not text.strip().endswith(f"/{DEFAULT}"):
            raise EntraError(1002012, scope=text[:200])
        scope = request.scope()
        if scope.resource is None or scope.permissions != (DEFAULT,):
            raise EntraError(1002012, scope=text[:200])
        return self._authorized(request, client, scope, scope.resource)

    def _on_behalf_of(self, request: TokenRequest, client: Application) -> Authorized:
        if request.required("requested_token_use") != "on_behalf_of":
            raise EntraError(9002313, reason="'requested_token_use' must be 'on_behalf_of'")
        assertion = request.required("assertion")
        scope = request.scope()
        issuer = Issuer(self.base_url, request.tenant)
        claims = user_assertion.verify(assertion, client, issuer, self.keyring, self.clock())
        request.user = user = _user(request, str(claims.get("oid", "")))
        request.passed("assertion", f"a token of {user.username} for {client.name}")
        requested = request.form.get("scope", "")
        if scope.resource is None:
            raise EntraError(70011, scope=requested[:200])
        session = str(claims.get("sid", ""))
        login = Login(
            request.tenant.id,
            client.client_id,
            user.id,
            requested,
            session,
            auth_time=float(claims.get("auth_time", 0)),
            started=self.clock(),
        )
        return self._authorized(request, client, scope, scope.resource, login)

    def _authorization_code(self, request: TokenRequest, client: Application) -> Authorized:
        code = request.required("code")
        redirect_uri = request.required("redirect_uri")
        login = self.store.codes.get(code)
        if login is None:
            raise EntraError(54005 if self.store.was_redeemed(code) else 70008)
        _check_owner(request, client, login, "code")
        if login.redirect_uri != redirect_uri:
            raise EntraError(500112, redirect_uri=redirect_uri[:300], expected=login.redirect_uri)
        pkce.check_verifier(
            login, request.form.get("code_verifier", ""), required=client.is_single_page_url(redirect_uri)
        )
        self.store.redeem(code, login)
        request.passed("code", "the authorization code is valid")
        return self._authorize_login(request, client, login)

    def _refresh_token(self, request: TokenRequest, client: Application) -> Authorized:
        login = self.store.refresh_tokens.get(request.required("refresh_token"))
        if login is None:
            raise EntraError(70008)
        _check_owner(request, client, login, "refresh token")
        if client.is_single_page_url(login.redirect_uri):
            self._check_age(login)
        request.passed("refresh token", "the refresh token is valid")
        return self._authorize_login(request, client, replace(login, nonce=""))

    def _check_age(self, login: Login) -> None:
        if self.clock() >= login.started + REFRESH_TOKEN_LIFETIME:
            raise EntraError(700084, lifetime="1.00:00:00", issued=format_time(login.started))

    def _device_code(self, request: TokenRequest, client: Application) -> Authorized:
        # The v1.0 endpoint has another name for it, and MSAL for Python sends both.
        device_code = request.form.get("device_code") or request.form.get("code", "")
        if not device_code:
            raise EntraError(900144, parameter="device_code")
        codes = self.store.device_codes
        login = codes.polled(device_code, request.tenant.id, client.client_id)
        codes.use_up(device_code)
        request.passed("device code", "the user has agreed on the page for device codes")
        return self._authorize_login(request, client, replace(login, public=request.azpacr == "0"))

    def _authorize_login(self, request: TokenRequest, client: Application, login: Login) -> Authorized:
        asked = request.form.get("scope", "")
        if request.version == 1 and request.form.get("resource"):
            asked = f"{request.form['resource']}/{DEFAULT}"
        refreshed = request.form.get("grant_type") == REFRESH_TOKEN
        scope = parse_scope(asked or login.scope, first=refreshed)
        request.requested = claims_request.parse(login.claims).and_also(request.requested)
        agreed = parse_scope(login.scope)
        # The OpenID Connect scopes of the login still apply if they are not repeated here (MSAL omits some).
        # Access that outlives the session is agreed to at the login only (RFC 6749, section 6).
        scope = replace(scope, openid=scope.openid - {"offline_access"} | agreed.openid)
        request.user = _user(request, login.user_id)
        # A user who may no longer log in to the client gets no further tokens through it either.
        admission = admits_user(request.tenant, client, request.user)
        request.reasons.append(admission)
        if not admission.passed:
            raise EntraError(50105, target=client.name, target_id=client.client_id)
        resource = scope.resource or agreed.resource
        if resource is None:
            return Authorized(scope, login=login)
        if scope.resource is None and graph.is_graph(resource, self.base_url):
            scope = replace(scope, resource=resource, permissions=agreed.permissions)
        return self._authorized(request, client, scope, resource, login)

    def _authorized(
        self,
        request: TokenRequest,
        client: Application,
        scope: Scope,
        resource: str,
        login: Login | None = None,
    ) -> Authorized:
        if not graph.is_graph(resource, self.base_url):
            target = request.resource(resource)
            return Authorized(scope, target, _decide(request, client, target, scope), login)
        request.target = graph.NAME
        decision = decide_graph(client, scope, request.user)
        request.reasons.extend(decision.reasons)
        if decision.error is not None:
            raise decision.error
        return Authorized(scope, None, decision, login)


def _check_owner(request: TokenRequest, client: Application, login: Login, what: str) -> None:
    if login.client_id != client.client_id or login.tenant_id != request.tenant.id:
        raise EntraError(70000, reason=f"The {what} was issued to another client.")


def _decide(request: TokenRequest, client: Application, target: Application, scope: Scope) -> Decision:
    decision = decide(request.tenant, client, target, request.user)
    if request.user is not None:
        decision = with_permissions(decision, client, target, scope.permissions)
    request.reasons.extend(decision.reasons)
    if decision.error is not None:
        raise decision.error
    return decision


def _user(request: TokenRequest, user_id: str) -> User:
    user = request.tenant.directory.users.get(user_id)
    if user is None:
        raise EntraError(50034, tenant=request.tenant.name)
    return user
