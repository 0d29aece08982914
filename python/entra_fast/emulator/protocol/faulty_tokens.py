"""Tokens that planned faults corrupt. Which faults apply to a request is decided in faults.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.private_key import PrivateKey

_EXPIRED_BY: Final = 9000
"""Seconds by which a token's times are moved into the past: more than the longest lifetime."""


def signed(
    claims: dict[str, Any],
    key: PrivateKey,
    faults: Iterable[Fault],
    *,
    stray_key: Callable[[], PrivateKey],
    sign: Callable[[PrivateKey, dict[str, Any]], str],
) -> str:
    """A token with these claims, corrupted as the faults require; the claims change with it.

    Args:
        stray_key: makes a key that is not published.
        sign: makes the token.
    """
    kinds = {fault.kind for fault in faults}
    if "expired_token" in kinds:
        claims |= {name: claims[name] - _EXPIRED_BY for name in ("iat", "nbf", "exp") if name in claims}
    if "wrong_audience" in kinds:
        claims["aud"] = "ffffffff-ffff-4fff-bfff-ffffffffffff"
    if "wrong_issuer" in kinds:
        claims["iss"] = "https://issuer.invalid/v2.0"
    if "unknown_key" in kinds:
        key = stray_key()
    token = sign(key, claims)
    return _with_wrong_signature(token) if "wrong_signature" in kinds else token


def _with_wrong_signature(token: str) -> str:
    # A character in the middle of the signature: the last one has bits that do not count.
    place = token.rindex(".") + 40
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
