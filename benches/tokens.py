"""Tokens and keys for benchmarks: realistic Entra ID access tokens, many distinct ones, made once per run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from entra_fast._native import SigningKey
from entra_fast.emulator.protocol.private_key import PrivateKey

TENANT = "62366534-1ec3-4962-8869-9b5535279d0b"
ISSUER = f"https://login.microsoftonline.com/{TENANT}/v2.0"
AUDIENCE = "1f7a9cb0-6a7c-4a8b-9a43-0b2f3c5c7d11"


@dataclass(frozen=True)
class Tokens:
    """Tokens of one algorithm, and the key set that verifies them."""

    algorithm: str
    tokens: list[str]
    jwks: str
    public_jwk: dict[str, str]


def private_jwk(algorithm: str) -> dict[str, str]:
    """A new key for the algorithm."""
    common = {"use": "sig", "kid": f"bench-{algorithm}", "alg": algorithm}
    if algorithm == "ES256":
        return common | dict(json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()))))
    if algorithm == "EdDSA":
        return common | dict(json.loads(OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate())))
    return PrivateKey.generate().private_jwk() | common


def public_half(jwk: dict[str, str]) -> dict[str, str]:
    """What of a private key may be published."""
    return {name: value for name, value in jwk.items() if name not in ("d", "p", "q", "dp", "dq", "qi")}


def claims(serial: int, now: int) -> dict[str, object]:
    """The claims of a user's token as Entra ID writes them: 18 claims, about 1.6 kB once signed."""
    return {
        "aud": AUDIENCE,
        "iss": ISSUER,
        "iat": now,
        "nbf": now,
        "exp": now + 3900,
        "aio": "AXQAi/8XAAAAr0Q1pYyYh2ZqJmXW8v5r3cW1hUeKQxkz6bN4Qn2cGm9tT3YvJ5sLd7PfB1uEaRk" + "x" * 60,
        "azp": "5b1a2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
        "azpacr": "2",
        "groups": ["2d7e1c52-0a4e-4c3b-9e0f-0c6f3f6d8a11", "c5a8b9d2-7f61-4f0e-8f3a-2b1c0d9e8f77"],
        "name": "Ola Normann Testesen",
        "oid": "7c9a4b1e-3d2f-4e5a-9b8c-0d1e2f3a4b5c",
        "preferred_username": "ola.normann.testesen@example.com",
        "rh": "1.AUcANGU2YsMeYkmIaZtVNSedC7Cceh98aotKmkMLLzxcfRFHAAAA." + "y" * 20,
        "scp": "defaultaccess",
        "sub": f"bW9uZGF5LXR1ZXNkYXktd2VkbmVzZGF5-{serial:010d}",
        "tid": TENANT,
        "uti": f"uti{serial:019d}",
        "ver": "2.0",
    }


def make(algorithm: str, count: int) -> Tokens:
    """`count` distinct tokens, valid for an hour."""
    jwk = private_jwk(algorithm)
    key = SigningKey.from_jwk(json.dumps(jwk))
    now = int(time.time()) - 30
    header = json.dumps({"typ": "JWT", "alg": algorithm, "kid": key.kid}, separators=(",", ":")).encode()
    bodies = (json.dumps(claims(serial, now), separators=(",", ":")).encode() for serial in range(count))
    tokens = [key.sign(header, body) for body in bodies]
    public = public_half(jwk)
    return Tokens(algorithm, tokens, json.dumps({"keys": [public]}), public)
