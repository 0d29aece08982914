"""Private RSA keys of providers and applications in tests.

The native core signs with them; `cryptography` generates them, which the core does not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from entra_fast._native import SigningKey


class Key:
    """A private key for RS256. `kid` is its thumbprint (RFC 7638)."""

    def __init__(self, jwk: dict[str, Any]) -> None:
        self._jwk = jwk
        self._signing_key = SigningKey.from_jwk(json.dumps(jwk))
        self.kid = str(jwk["kid"])
        self.algorithm = self._signing_key.algorithm

    @classmethod
    def generate(cls) -> Key:
        """A new one. Takes a tenth of a second."""
        numbers = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048)))
        numbers.pop("key_ops")
        required = {name: numbers[name] for name in ("e", "kty", "n")}
        digest = hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest()
        kid = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return cls({**numbers, "use": "sig", "alg": "RS256", "kid": kid})

    def named(self, kid: str) -> Key:
        """The same key under another name."""
        return Key({**self._jwk, "kid": kid})

    def public_jwk(self) -> str:
        """The public half as JWK text, without `alg`, as in Entra ID's key sets."""
        return json.dumps({name: self._jwk[name] for name in ("kty", "use", "kid", "n", "e")})

    def private_jwk(self) -> str:
        """The whole key as JWK text."""
        return json.dumps(self._jwk, separators=(",", ":"))

    def sign(self, header: bytes, payload: bytes) -> str:
        """Compact JWS over exactly these bytes."""
        return self._signing_key.sign(header, payload)
