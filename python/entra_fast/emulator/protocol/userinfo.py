"""Userinfo (OpenID Connect Core 1.0, section 5.3), for user tokens without a target application. No HTTP.

Like Microsoft's, it accepts the token of a sign-in that requested only OpenID Connect scopes.
"""

from __future__ import annotations

from typing import Any

from entra_fast._native import Policy, Validator
from entra_fast.emulator.model import graph
from entra_fast.emulator.model.registry import Registry
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.errors import InvalidToken


def user_claims(
    token: str, registry: Registry, base_url: str, keyring: Keyring, now: float
) -> dict[str, Any]:
    """The claims about the user of a token. Raises InvalidToken."""
    issuers = [Issuer(base_url, tenant).v1 for tenant in registry.tenants]
    policy = Policy(
        issuers=issuers,
        audiences=graph.audiences(base_url),
        algorithms=keyring.algorithms,
        required_claims=["iat", "oid", "sub", "tid"],  # a forged token can lack any
    )
    try:
        claims = Validator(policy, keyring.key_set, cache_entries=1).validate(token, now)
    except InvalidToken as error:
        if error.code != "wrong_audience":
            raise
        advice = "sign in with only OpenID Connect scopes to get a token for userinfo"
        raise InvalidToken(
            "wrong_audience", f"{error.message}; {advice}", error.expected, error.actual
        ) from None
    tenant = registry.tenant(str(claims["tid"]))
    user = None if tenant is None else tenant.directory.users.get(str(claims["oid"]))
    if user is None:
        raise InvalidToken("user_unknown", "the user does not exist")
    answer = {
        "sub": claims["sub"],
        "name": user.name,
        "family_name": user.family_name,
        "given_name": user.given_name,
        "preferred_username": user.username,
    }
    return answer if user.mail is None else answer | {"email": user.mail}
