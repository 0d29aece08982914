"""The grant types of the token endpoint: each checks its own parameters and says what is authorized.

Client credentials, on behalf of (RFC 7523 as Microsoft uses it), authorization code with PKCE (RFC 7636),
refresh token. The client has been authenticated before (client_auth.py); tokens are issued afterwards
(token_response.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol import pkce, user_assertion
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.policy import Decision, Reason, admits_user, decide
from entra_fast.emulator.protocol.scope import DEFAULT, Scope, parse_scope
from entra_fast.emulator.protocol.store import Login, Store
from entra_fast.emulator.protocol.token_request import Authorized, TokenRequest

CLIENT_CREDENTIALS: Final = "client_credentials"
ON_BEHALF_OF: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"
GRANT_NAMES: Final = {
    CLIENT_CREDENTIALS: "client credentials",
    ON_BEHALF_OF: "on behalf of",
    AUTHORIZATION_CODE: "authorization code",
    REFRESH_TOKEN: "refresh token",
}
"""Their names in the journal."""

PUBLIC_CLIENT_GRANTS: Final = frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN})
"""Grant types that a single-page application uses without a credential."""


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
        }[grant_type](request, client)

    def _client_credentials(self, request: TokenRequest, client: Application) -> Authorized:
        text = request.form.get("scope", "")
        # A single scope of another form is answered with this code, too, rather than with "malformed".
        if request.version == 2 and len(text.split()) == 1 and not text.strip().endswith(f"/{DEFAULT}"):
            raise EntraError(1002012, scope=text[:200])
        scope = request.scope()
        if scope.resource is None or scope.permissions != (DEFAULT,):
            raise EntraError(1002012, scope=text[:200])
        target = request.resource(scope.resource)
        return Authorized(scope, target, _decide(request, client, target, scope))

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
        target = request.resource(scope.resource)
        decision = _decide(request, client, target, scope)
        session = str(claims.get("sid", ""))
        login = Login(request.tenant.id, client.client_id, user.id, requested, session)
        return Authorized(scope, target, decision, login)

    def _authorization_code(self, request: TokenRequest, client: Application) -> Authorized:
        code = request.required("code")
        redirect_uri = request.required("redirect_uri")
        login = self.store.codes.get(code)
        if login is None:
            raise EntraError(54005 if self.store.was_redeemed(code) else 70008)
        _check_owner(request, client, login, "code")
        if login.redirect_uri != redirect_uri:
            raise EntraError(500112, redirect_uri=redirect_uri[:300], expected=login.redirect_uri)
        pkce.check_verifier(login, request.form.get("code_verifier", ""), required=client.single_page)
        self.store.redeem(code, login)
        request.passed("code", "the authorization code is valid")
        return _authorize_login(request, client, login)

    def _refresh_token(self, request: TokenRequest, client: Application) -> Authorized:
        login = self.store.refresh_tokens.get(request.required("refresh_token"))
        if login is None:
            raise EntraError(70008)
        _check_owner(request, client, login, "refresh token")
        request.passed("refresh token", "the refresh token is valid")
        return _authorize_login(request, client, replace(login, nonce=""))


def _check_owner(request: TokenRequest, client: Application, login: Login, what: str) -> None:
    if login.client_id != client.client_id or login.tenant_id != request.tenant.id:
        raise EntraError(70000, reason=f"The {what} was issued to another client.")


def _authorize_login(request: TokenRequest, client: Application, login: Login) -> Authorized:
    scope = parse_scope(request.form.get("scope") or login.scope)
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
    target = request.resource(resource)
    return Authorized(scope, target, _decide(request, client, target, scope), login)


def _decide(request: TokenRequest, client: Application, target: Application, scope: Scope) -> Decision:
    decision = decide(request.tenant, client, target, request.user)
    request.reasons.extend(decision.reasons)
    if decision.error is not None:
        raise decision.error
    if request.user is None:
        return decision
    for permission in scope.permissions:
        if permission not in (DEFAULT, *decision.scopes):
            text = f"{target.name} has not granted the scope {permission!r} to {client.name}"
            remedy = f"add it to permissions.scopes of its rule for {client.name}, or ask for /{DEFAULT}"
            request.reasons.append(Reason("scope", False, text, remedy=remedy))
            raise EntraError(65001, client_id=client.client_id, client=client.name)
    return decision


def _user(request: TokenRequest, user_id: str) -> User:
    user = request.tenant.directory.users.get(user_id)
    if user is None:
        raise EntraError(50034, tenant=request.tenant.name)
    return user
