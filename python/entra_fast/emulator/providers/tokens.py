"""Signed JWTs as the local providers read and write them.

Which claims a token must have is decided by each provider: here are only its form and its signature, which
the native core verifies.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeGuard

from entra_fast._native import KeySet, Policy, Validator, unverified_claims, unverified_header
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.errors import InvalidToken

TYPES: Final = (None, "JWT")
_NOBODY: Final = "-"


class Signature(enum.Enum):
    """The result of verifying a signature."""

    VALID = "valid"
    NO_KEY = "no key"
    """No key with that id, or none for that algorithm."""
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A JWT that has been read, not verified."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> Self | None:
        """None unless it is a signed JWT (RFC 7519, section 7.2) whose times are numbers."""
        try:
            header, claims = unverified_header(text), unverified_claims(text)
        except InvalidToken:
            return None
        if not isinstance(header.get("alg"), str) or header["alg"].lower() == "none":
            return None
        if not all(is_number(claims[name]) for name in ("exp", "iat", "nbf") if name in claims):
            return None
        return cls(text, header, claims)

    @property
    def type(self) -> str | None:
        """`typ`; media types are compared without regard to case (RFC 7515, section 4.1.9)."""
        found = self.header.get("typ")
        return found.upper() if isinstance(found, str) and found.upper() == "JWT" else found

    @property
    def audiences(self) -> list[str]:
        """`aud` as a list."""
        found = self.claims.get("aud")
        return (
            [str(item) for item in found]
            if isinstance(found, list)
            else []
            if found is None
            else [str(found)]
        )

    def text_of(self, name: str) -> str | None:
        """A claim that is text; None if it is missing, or no text."""
        found = self.claims.get(name)
        return found if isinstance(found, str) else None

    def verify(self, keys: KeySet, algorithms: Sequence[str]) -> Signature:
        """Verify the signature only."""
        named = self.header["alg"]
        if named not in algorithms:
            return Signature.NO_KEY
        # The policy's issuer and audience are no one's: the core judges the claims, too, and each check has
        # its own result.
        policy = Policy(issuers=[_NOBODY], audiences=[_NOBODY], algorithms=[named], required_claims=[])
        checks = Validator(policy, keys, cache_entries=1).explain(self.text, 0.0)
        passed = {check["check"]: check["passed"] for check in checks}
        if passed["signature"]:
            return Signature.VALID
        return Signature.INVALID if passed["key"] else Signature.NO_KEY


def sign(key: PrivateKey, claims: Mapping[str, Any], *, typ: str | None = "JWT") -> str:
    """A compact JWS. `typ`: None leaves it out of the header."""
    header = {"kid": key.kid, **({} if typ is None else {"typ": typ}), "alg": key.algorithm}
    return key.sign(_json(header), _json(claims))


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a claim is a number (RFC 7519, section 2: NumericDate), and none like 1e400, which is read as
    infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
