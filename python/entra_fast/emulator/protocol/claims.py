"""The claims of access tokens and id tokens, v2.0 and v1.0, as Entra ID writes them; and signing them.

What a token says follows from a decision (policy.py); nothing is decided here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.emulator.model import graph, ids
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.optional_claims import Facts, extended, login_hint
from entra_fast.emulator.protocol.policy import Decision
from entra_fast.emulator.protocol.private_key import PrivateKey, base64url

BACKDATING: Final = 300
"""Seconds by which `iat` and `nbf` are in the past, so that validators with a slow clock accept the token."""

MAX_GROUPS_IN_URL: Final = 5
"""Maximum number of groups in a token that is part of a URL; above it, `hasgroups` says that there are
some."""

SHORTEST_LIFETIME: Final = 3600
LONGEST_LIFETIME: Final = 5400


@dataclass(frozen=True, slots=True)
class Issuer:
    """Where tokens come from: the provider's address and one tenant."""

    base_url: str
    tenant: Tenant

    @property
    def v2(self) -> str:
        """`iss` of v2.0 tokens."""
        return issuer_url(self.base_url, self.tenant.id, 2)

    @property
    def v1(self) -> str:
        """`iss` of v1.0 tokens. Entra's own is another host; this provider never signs for other hosts."""
        return issuer_url(self.base_url, self.tenant.id, 1)


def issuer_url(base_url: str, tenant_id: str, version: int) -> str:
    """`iss` of the tokens of a tenant. With a placeholder as the id, a template for those of all tenants."""
    return f"{base_url}/{tenant_id}/v2.0" if version == 2 else f"{base_url}/{tenant_id}/"


def random_lifetime() -> int:
    """Lifetime of an access token in seconds: 60 to 90 minutes at random, to expose clients that assume an
    hour.
    """
    return SHORTEST_LIFETIME + secrets.randbelow(LONGEST_LIFETIME - SHORTEST_LIFETIME + 1)


def lifetime_for(application: Application) -> int:
    """Lifetime of a token for an application in seconds: as it is registered, or at random."""
    return application.registration.access_token_lifetime or random_lifetime()


def access_token(
    issuer: Issuer,
    client: Application,
    target: Application,
    user: User | None,
    decision: Decision,
    *,
    azpacr: str,
    now: int,
    lifetime: int,
    version: int = 2,
    audience: str | None = None,
    login: Login | None = None,
) -> dict[str, Any]:
    """Claims of an access token.

    Args:
        azpacr: how the client authenticated: "0" not at all, "1" secret, "2" assertion.
        now: seconds since the epoch.
        lifetime: seconds from now.
        version: 1 or 2.
        audience: `aud` of a v1.0 token, which may be an App ID URI; a v2.0 token's is always the client id.
        login: what the user has agreed to, if there was a login.
    """
    tenant = issuer.tenant
    claims: dict[str, Any] = {
        "aud": target.client_id if version == 2 else (audience or target.identifier_uris[0]),
        "iss": issuer.v2 if version == 2 else issuer.v1,
        "iat": now - BACKDATING,
        "nbf": now - BACKDATING,
        "exp": now + lifetime,
        "aio": _opaque(60),
    }
    if version == 2:
        claims |= {"azp": client.client_id, "azp_name": client.name, "azpacr": azpacr}
    else:
        claims |= {
            "appid": client.client_id,
            "appidacr": azpacr,
            "app_displayname": client.name,
            "azp_name": client.name,
        }
    if user is None:
        claims |= {
            "idtyp": "app",
            "oid": client.object_id,
            "rh": "1." + _opaque(36),
            "roles": list(decision.roles),
            "sub": client.object_id,
        }
    else:
        claims |= _groups(issuer, user, decision)
        claims |= {"name": user.name, "oid": user.id}
        claims |= {"preferred_username": user.username} if version == 2 else _v1_names(user)
        claims |= {"rh": "1." + _opaque(36), "scp": " ".join(decision.scopes)}
        if login is not None and login.session:
            claims["sid"] = login.session
        claims["sub"] = ids.pairwise_subject(tenant.id, target.client_id, user.id)
        if user.nav_ident is not None:
            claims["NAVident"] = user.nav_ident
    claims |= {"tid": tenant.id, "uti": _opaque(22), "ver": f"{version}.0"}
    return extended(claims, target.registration.access_token, Facts(tenant, target, user, login))


def graph_token(
    issuer: Issuer,
    client: Application,
    user: User | None,
    *,
    scopes: Iterable[str],
    roles: Iterable[str],
    audience: str,
    azpacr: str,
    now: int,
    lifetime: int,
    session: str = "",
) -> dict[str, Any]:
    """Claims of an access token for Microsoft Graph, which is always a v1.0 token.

    Args:
        scopes: on behalf of a user; those of OpenID Connect alone make a token for userinfo.
        roles: of the application itself, where there is no user.
        audience: Graph's client id, or its address as it was asked for.
    """
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": issuer.v1,
        "iat": now - BACKDATING,
        "nbf": now - BACKDATING,
        "exp": now + lifetime,
        "aio": _opaque(60),
        "app_displayname": client.name,
        "appid": client.client_id,
        "appidacr": azpacr,
    }
    if user is None:
        claims |= {"idtyp": "app", "oid": client.object_id, "sub": client.object_id}
        if roles := list(roles):
            claims["roles"] = roles
    else:
        claims |= {"idtyp": "user", "name": user.name, "oid": user.id, "scp": " ".join(scopes)}
        claims |= {"sub": ids.pairwise_subject(issuer.tenant.id, graph.CLIENT_ID, user.id)}
        claims |= _v1_names(user)
        if session:
            claims["sid"] = session
    return claims | {"tid": issuer.tenant.id, "uti": _opaque(22), "ver": "1.0"}


def id_token(
    issuer: Issuer,
    client: Application,
    user: User,
    *,
    login: Login,
    now: int,
    lifetime: int,
    decision: Decision,
    openid: frozenset[str],
    version: int = 2,
    front_channel: bool = False,
    requested: Collection[str] = (),
) -> dict[str, Any]:
    """Claims of an id token (OpenID Connect Core 1.0, section 2), for the client itself.

    Args:
        login: what the user has agreed to.
        now: seconds since the epoch.
        lifetime: seconds from now.
        decision: about the client itself; its groups are those that the client's manifest asks for.
        openid: the OpenID Connect scopes that were granted; v2.0 tokens have the claims that these bring.
        version: 1 or 2: of the endpoint.
        front_channel: whether the token is part of a URL, where there is no room for many groups.
        requested: claims that the parameter `claims` requests by name.
    """
    tenant = issuer.tenant
    claims: dict[str, Any] = {
        "aud": client.client_id,
        "iss": issuer.v2 if version == 2 else issuer.v1,
        "iat": now - BACKDATING,
        "nbf": now - BACKDATING,
        "exp": now + lifetime,
        "rh": "1." + _opaque(36),
        # NAIS registers this one as an optional claim of every application.
        "sid": login.session,
        "sub": ids.pairwise_subject(tenant.id, client.client_id, user.id),
        "tid": tenant.id,
        "uti": _opaque(22),
        "ver": f"{version}.0",
        **_groups(issuer, user, decision, front_channel=front_channel),
    }
    if version == 1:
        claims |= {"amr": [login.amr], "name": user.name, "oid": user.id}
        claims |= {"given_name": user.given_name, "family_name": user.family_name}
        claims |= {"unique_name": user.username, "upn": user.username}
        if login.address:
            claims["ipaddr"] = login.address
    elif "profile" in openid:
        claims |= {"name": user.name, "oid": user.id, "preferred_username": user.username}
    if "email" in openid and user.mail is not None:
        claims["email"] = user.mail
    if login.nonce:
        claims["nonce"] = login.nonce
    if user.nav_ident is not None:
        claims["NAVident"] = user.nav_ident
    on_request: dict[str, Any] = {"login_hint": login_hint(tenant, user)}
    if login.auth_time:
        on_request["auth_time"] = int(login.auth_time)
    claims |= {name: value for name, value in on_request.items() if name in requested}
    return extended(claims, client.registration.id_token, Facts(tenant, client, user, login))


def hinted_user(tenant: Tenant, hint: str) -> User | None:
    """The user whom a hint is about: the claim `login_hint`, or any name that signing in accepts."""
    if hint.startswith("O."):
        with contextlib.suppress(ValueError):
            identifier = base64.b64decode(hint[2:] + "=", b"-_", validate=True)[16:]
            user = tenant.directory.users.get(str(uuid.UUID(bytes=identifier)))
            return user if user is not None and login_hint(tenant, user) == hint else None
    return tenant.directory.find_user(hint) if hint else None


def half_hash(text: str) -> str:
    """`c_hash` of a code, or `at_hash` of an access token (OpenID Connect Core 1.0, section 3.3.2.11)."""
    return base64url(hashlib.sha256(text.encode()).digest()[:16])


def client_info(tenant: Tenant, user: User) -> str:
    """MSAL's account id: base64url of `{"uid","utid"}`."""
    text = json.dumps({"uid": user.id, "utid": tenant.id}, separators=(",", ":"))
    return base64url(text.encode())


def sign(key: PrivateKey, claims: dict[str, Any]) -> str:
    """A compact JWS in Entra's form: v1.0 tokens have `x5t` in addition to `kid`."""
    header: dict[str, Any] = {"typ": "JWT", "alg": key.algorithm}
    if claims.get("ver") == "1.0":
        header["x5t"] = key.x5t
    header["kid"] = key.kid
    return key.sign(_json(header), _json(claims))


def _groups(issuer: Issuer, user: User, decision: Decision, *, front_channel: bool = False) -> dict[str, Any]:
    if front_channel and len(decision.groups) > MAX_GROUPS_IN_URL:
        return {"hasgroups": True}
    if decision.groups_overage:
        endpoint = f"{issuer.base_url}/v1.0/users/{user.id}/getMemberObjects"
        return {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": endpoint}}}
    return {"groups": list(decision.groups)} if decision.groups else {}


def _v1_names(user: User) -> dict[str, str]:
    return {"unique_name": user.username, "upn": user.username, "preferred_username": user.username}


def _opaque(length: int) -> str:
    return secrets.token_urlsafe(length)[:length]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
