"""The successful response of the token endpoint: its tokens and its other members.

What is authorized has already been decided (grant_types.py); planned faults that corrupt a token are applied
here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.emulator.protocol import faulty_tokens
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Decision, decide
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.scope import DEFAULT
from entra_fast.emulator.protocol.store import Store
from entra_fast.emulator.protocol.token_request import Authorized, TokenRequest

_LOGIN_SCOPES: Final = "openid profile email"


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Issues what is authorized.

    Attributes:
        base_url: of the provider.
        clock: seconds since the epoch.
        stray_key: makes the key for tokens whose key is not published (a planned fault).
    """

    base_url: str
    keyring: Keyring
    store: Store
    clock: Callable[[], float]
    stray_key: Callable[[], PrivateKey]

    def respond(self, request: TokenRequest, client: Application, authorized: Authorized) -> dict[str, Any]:
        """The JSON object of the response. Raises EntraError 70011 where there is nothing to issue."""
        target = authorized.target
        lifetime = token_claims.random_lifetime() if target is None else token_claims.lifetime_for(target)
        now = int(self.clock())
        scope = authorized.scope
        request.claims = self._access_token(request, client, authorized, now, lifetime)
        response: dict[str, Any] = {
            "token_type": "Bearer",
            "expires_in": lifetime - 1,
            "ext_expires_in": lifetime - 1,
            "access_token": self._signed(request),
        }
        if request.version == 1:
            # The older endpoint writes numbers as strings.
            times = {"expires_in": lifetime - 1, "ext_expires_in": lifetime - 1}
            times |= {"expires_on": now + lifetime, "not_before": now - token_claims.BACKDATING}
            response |= {name: str(value) for name, value in times.items()} | {"resource": scope.resource}
        if request.user is not None and authorized.login is not None:
            response |= self._login_members(
                request,
                client,
                authorized,
                request.user,
                authorized.login,
                now,
                token_claims.lifetime_for(client),
            )
        return response

    def _access_token(
        self, request: TokenRequest, client: Application, authorized: Authorized, now: int, lifetime: int
    ) -> dict[str, Any]:
        issuer = Issuer(self.base_url, request.tenant)
        target, decision, login = authorized.target, authorized.decision, authorized.login
        requested = request.requested.access_token_claims
        if target is not None and decision is not None:
            return requested | token_claims.access_token(
                issuer,
                client,
                target,
                request.user,
                decision,
                azpacr=request.azpacr,
                now=now,
                lifetime=lifetime,
                version=1 if request.version == 1 else target.token_version,
                audience=authorized.scope.resource,
                login=login,
            )
        if request.user is None and decision is None:
            raise EntraError(70011, scope=request.form.get("scope", "")[:200])
        request.target = "userinfo" if decision is None else graph.NAME
        return requested | token_claims.graph_token(
            issuer,
            client,
            request.user,
            scopes=_graph_scopes(authorized),
            roles=decision.roles if decision is not None else (),
            audience=authorized.scope.resource or graph.CLIENT_ID,
            azpacr=request.azpacr,
            now=now,
            lifetime=lifetime,
            session=login.session if login is not None else "",
        )

    def _login_members(
        self,
        request: TokenRequest,
        client: Application,
        authorized: Authorized,
        user: User,
        login: Login,
        now: int,
        lifetime: int,
    ) -> dict[str, Any]:
        """The members that only responses on behalf of a user have."""
        openid = authorized.scope.openid
        members: dict[str, Any] = {"scope": _granted_scope(authorized)}
        if "openid" in openid:
            members["id_token"] = self.id_token(request, client, user, login, openid, now, lifetime)
        if "offline_access" in openid:
            fixed = client.is_single_page_url(login.redirect_uri)
            token, seconds = self.store.new_refresh_token(replace(login, nonce=""), fixed=fixed)
            members |= {"refresh_token": token, "refresh_token_expires_in": seconds - 1}
        if request.form.get("client_info") == "1":
            members["client_info"] = token_claims.client_info(request.tenant, user)
        return members

    def id_token(
        self,
        request: TokenRequest,
        client: Application,
        user: User,
        login: Login,
        openid: frozenset[str],
        now: int,
        lifetime: int,
        front_channel: Mapping[str, str] | None = None,
    ) -> str:
        """A signed ID token. `front_channel`: the hashes that it has where the authorization endpoint
        returns it; None at the token endpoint.
        """
        claims = token_claims.id_token(
            Issuer(self.base_url, request.tenant),
            client,
            user,
            login=login,
            now=now,
            lifetime=lifetime,
            decision=decide(request.tenant, client, client, user),
            openid=openid,
            version=request.version,
            front_channel=front_channel is not None,
            requested=request.requested.id_token,
        )
        return token_claims.sign(
            self.keyring.active, claims | request.requested.id_token_claims | dict(front_channel or {})
        )

    def _signed(self, request: TokenRequest) -> str:
        """The access token, corrupted as planned faults require."""
        return faulty_tokens.signed(
            request.claims,
            self.keyring.active,
            request.faults,
            stray_key=self.stray_key,
            sign=token_claims.sign,
        )


def _granted_scope(authorized: Authorized) -> str:
    target, decision, scope = authorized.target, authorized.decision, authorized.scope
    if decision is None:
        return _LOGIN_SCOPES
    if target is None:
        return _granted_graph_scope(authorized, decision)
    # Entra ID repeats `.default` among the granted scopes; otherwise MSAL misses the token in its cache.
    # In the spelling of the request: MSAL for Go takes a scope that it does not find for a declined one.
    spelled = {permission.lower(): permission for permission in scope.permissions}
    granted = [spelled.get(name.lower(), name) for name in decision.scopes]
    granted += [DEFAULT] if DEFAULT in scope.permissions else []
    prefix = scope.resource or target.identifier_uris[0]
    return " ".join(f"{prefix}/{name}" for name in granted)


def _graph_scopes(authorized: Authorized) -> list[str]:
    """`scp` of a token for Graph: its permissions, and OpenID Connect's after a login."""
    decision = authorized.decision
    if decision is None:
        return [_LOGIN_SCOPES]
    return [*decision.scopes, *([_LOGIN_SCOPES] if "openid" in authorized.scope.openid else [])]


def _granted_graph_scope(authorized: Authorized, decision: Decision) -> str:
    resource, asked = authorized.scope.resource or graph.CLIENT_ID, authorized.scope.permissions
    prefix = "" if resource == graph.CLIENT_ID else f"{resource}/"
    names = [*decision.scopes, DEFAULT] if asked == (DEFAULT,) else dict.fromkeys(asked)
    granted = [f"{prefix}{name}" for name in names]
    if "openid" in authorized.scope.openid:
        granted.append(_LOGIN_SCOPES)
    return " ".join(granted)
