"""How TokenX verifies a JWT, and the sentence for each way in which it can fail.

The order of the checks and the sentences are those of the library that tokendings uses (Nimbus JOSE + JWT):
type, key, signature, required claims, expected claims, times.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection, Mapping
from typing import Final

from entra_fast._native import KeySet
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.providers.tokens import TYPES, Signature, SignedToken

LEEWAY: Final = 60.0
ALGORITHM: Final = "RS256"

_SIGNATURES: Final = {
    Signature.NO_KEY: "Signed JWT rejected: Another algorithm expected, or no matching key(s) found",
    Signature.INVALID: "Signed JWT rejected: Invalid signature",
}


def parse(text: str) -> SignedToken:
    """A signed JWT, not verified. Raises Refusal."""
    token = SignedToken.read(text)
    if token is None:
        raise Refusal(400, "invalid_request", "invalid request, cannot parse token", check="token")
    return token


def verify(
    token: SignedToken,
    keys: KeySet | None,
    *,
    required: Collection[str],
    expected: Mapping[str, str],
    now: float,
) -> None:
    """Verify type, signature, claims and times.

    Args:
        keys: those of the issuer; None if it has none.
        required: claims that must be there.
        expected: claims that must have these values.
        now: seconds since the epoch.

    Raises:
        Refusal: something is wrong.
    """
    if token.type not in TYPES:
        raise failure(f"JOSE header typ (type) {token.type} not allowed")
    signature = Signature.NO_KEY if keys is None else token.verify(keys, (ALGORITHM,))
    if signature is not Signature.VALID:
        raise failure(_SIGNATURES[signature])
    claims = token.claims
    missing = sorted(name for name in required if name not in claims)
    if missing:
        raise failure(f"JWT missing required claims: [{', '.join(missing)}]")
    for name, value in expected.items():
        if claims[name] != value:
            raise failure(f"JWT {name} claim has value {claims[name]}, must be {value}")
    if claims["exp"] + LEEWAY <= now:
        raise failure("Expired JWT")
    if "nbf" in claims and claims["nbf"] - LEEWAY >= now:
        raise failure("JWT before use time")


def check_assertion(token: SignedToken, audiences: tuple[str, str], now: float) -> None:
    """The further checks of a client assertion. Raises Refusal.

    Args:
        audiences: token endpoint and issuer; the assertion must be for exactly one of them.
    """
    if token.claims["iat"] - LEEWAY >= now:
        raise failure("JWT issue time ahead of current time")
    sent = token.audiences
    if len(sent) != 1 or sent[0] not in audiences:
        text = f"JWT aud claim has value [{', '.join(sent)}], must be exactly one of [{', '.join(audiences)}]"
        raise failure(text)


def failure(reason: str) -> Refusal:
    """The refusal for a reason, which is written as in a form: `+` for a space."""
    encoded = urllib.parse.quote_plus(reason, safe="*").replace("~", "%7E")
    return Refusal(
        400, "invalid_request", f"token verification failed: {encoded}", check="token", remedy=reason
    )
