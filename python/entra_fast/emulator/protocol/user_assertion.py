"""The assertion of an on-behalf-of request: a user's access token that this provider issued to the client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from entra_fast._native import Policy, Validator, unverified_claims
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol.aadsts import EntraError, format_time
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.errors import InvalidToken

_REASONS: Final = {
    "unknown_key": "The key was not found.",
    "signature_invalid": "Key was found, but use of the key to verify the signature failed.",
}


def verify(
    assertion: str, client: Application, issuer: Issuer, keyring: Keyring, now: float
) -> Mapping[str, Any]:
    """The claims of a user's token for the client.

    Raises:
        EntraError: 50013, 500131 or 500133; 7000114 for an application's own token, 240002 for an ID token.
    """
    policy = Policy(
        issuers=[issuer.v2, issuer.v1],
        audiences=client.audiences,
        algorithms=keyring.algorithms,
        leeway=0.0,
    )
    try:
        claims = Validator(policy, keyring.key_set, cache_entries=1).validate(assertion, now)
    except InvalidToken as error:
        raise _refusal(error, assertion, client, now) from None
    if claims.get("idtyp") == "app":
        raise EntraError(7000114, client_id=client.client_id)
    if "scp" not in claims:
        raise EntraError(240002)
    return claims


def _refusal(error: InvalidToken, assertion: str, client: Application, now: float) -> EntraError:
    match error.code:
        case "wrong_audience":
            return EntraError(
                500131,
                audience=str(unverified_claims(assertion).get("aud", ""))[:100],
                expected=client.client_id,
                client_id=client.client_id,
                client=client.name,
            )
        case "token_expired" | "token_not_yet_valid":
            end = unverified_claims(assertion).get("exp", 0)
            return EntraError(500133, now=format_time(now), valid_to=format_time(end))
        case code:
            return EntraError(50013, reason=_REASONS.get(code, f"The {error.message}."))
