"""Keys and tokens of the tests' own making, good ones and crafted ones.

Signatures come from `cryptography` and encodings from the standard library, never from the code under test:
a mistake that signing and verifying shared would cancel out. Nothing here decides anything.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from entra_fast.validate import InvalidToken, Validator

NOW: Final = 1_800_000_000.0
"""What the tests' clock says, in seconds since the epoch."""

TENANT: Final = "11111111-2222-3333-4444-555555555555"
OTHER_TENANT: Final = "99999999-8888-7777-6666-555555555555"
ISSUER: Final = f"https://login.microsoftonline.com/{TENANT}/v2.0"
ISSUER_TEMPLATE: Final = "https://login.microsoftonline.com/{tenantid}/v2.0"
V1_ISSUER_TEMPLATE: Final = "https://sts.windows.net/{tenantid}/"
AUDIENCE: Final = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final[Any] = _Absent()
"""As the value of a claim or a header parameter: leave it out. (None is null.)"""

MlDsaKey = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | MlDsaKey

_ML_DSA: Final[dict[str, type[MlDsaKey]]] = {
    "ML-DSA-44": mldsa.MLDSA44PrivateKey,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey,
}

_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Final[dict[str, ec.EllipticCurve]] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}


def b64(data: bytes | str) -> str:
    """base64url without padding (RFC 7515, section 2)."""
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The opposite of `b64`."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(value: int) -> str:
    """A big integer as in a JWK (RFC 7518, section 2: Base64urlUInt)."""
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def segment(value: Mapping[str, Any] | str | bytes) -> str:
    """A header or payload segment: of an object, or of exactly this text."""
    return b64(value if isinstance(value, str | bytes) else json.dumps(value))


@dataclass(frozen=True)
class Signer:
    """A private key with the name and algorithm under which it signs."""

    kid: str | None
    algorithm: str
    key: PrivateKey

    def named(self, kid: str | None) -> Signer:
        """The same key under another name."""
        return replace(self, kid=kid)

    def using(self, algorithm: str) -> Signer:
        """The same key with another algorithm."""
        return replace(self, algorithm=algorithm)

    def signature(self, message: bytes) -> bytes:
        """Sign as RFC 7518, section 3, RFC 8037, section 3.1, and RFC 9964, section 5 say."""
        key = self.key
        if isinstance(key, ed25519.Ed25519PrivateKey | MlDsaKey):
            return key.sign(message)
        algorithm = _HASHES[self.algorithm[2:]]
        if isinstance(key, ec.EllipticCurvePrivateKey):
            size = (key.curve.key_size + 7) // 8
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if self.algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(algorithm), salt_length=algorithm.digest_size)
            return key.sign(message, pss, algorithm)
        return key.sign(message, padding.PKCS1v15(), algorithm)

    def sign(self, header_segment: str, payload_segment: str) -> str:
        """A token over these very segments, however they are spelled."""
        signed = f"{header_segment}.{payload_segment}"
        return f"{signed}.{b64(self.signature(signed.encode()))}"

    def header(self, **changes: Any) -> dict[str, Any]:
        """The header of this key's tokens."""
        return _changed({"typ": "JWT", "alg": self.algorithm, "kid": self.kid or ABSENT}, changes)

    def token(
        self,
        claims: Mapping[str, Any] | str | bytes | None = None,
        /,
        header: Mapping[str, Any] | str | bytes | None = None,
        **changes: Any,
    ) -> str:
        """A signed token.

        `claims`: an object, or exactly this text; without it, good claims with `changes`.
        `header`: changes to the good one as an object, or exactly this text.
        """
        head = header if isinstance(header, str | bytes) else self.header(**(header or {}))
        return self.sign(segment(head), segment(good_claims(**changes) if claims is None else claims))

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """The public key as Entra ID publishes it: no `alg`, except where its type demands one."""
        public: dict[str, Any]
        key = self.key
        if isinstance(key, rsa.RSAPrivateKey):
            numbers = key.public_key().public_numbers()
            public = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            size = (key.curve.key_size + 7) // 8
            point = key.public_key().public_numbers()
            x, y = (b64(part.to_bytes(size, "big")) for part in (point.x, point.y))
            public = {"kty": "EC", "crv": f"P-{key.curve.key_size}", "x": x, "y": y}
        elif isinstance(key, MlDsaKey):
            public = {"kty": "AKP", "alg": self.algorithm, "pub": b64(key.public_key().public_bytes_raw())}
        else:
            raw = key.public_key().public_bytes_raw()
            public = {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}
        return _changed({"kid": self.kid or ABSENT, "use": "sig", **public}, changes)

    def pem(self) -> bytes:
        """The public key as PEM (SubjectPublicKeyInfo)."""
        return self.public_bytes(serialization.Encoding.PEM)

    def public_bytes(
        self,
        encoding: serialization.Encoding,
        form: serialization.PublicFormat = serialization.PublicFormat.SubjectPublicKeyInfo,
    ) -> bytes:
        """The public key in another encoding."""
        return self.key.public_key().public_bytes(encoding, form)


@functools.cache
def signer(
    kid: str | None = "key-1", algorithm: str = "RS256", *, bits: int = 2048, exponent: int = 65537
) -> Signer:
    """A key that lasts for the whole run: the same arguments give the same key."""
    key: PrivateKey
    if algorithm in _CURVES:
        key = ec.generate_private_key(_CURVES[algorithm])
    elif algorithm in _ML_DSA:
        key = _ML_DSA[algorithm].generate()
    elif algorithm in ("EdDSA", "Ed25519"):
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = rsa.generate_private_key(exponent, bits)
    return Signer(kid, algorithm, key)


def good_claims(**changes: Any) -> dict[str, Any]:
    """Claims that the default validator accepts at `NOW`, with changes; ABSENT removes a claim."""
    now = int(NOW)
    return _changed(
        {
            "aud": AUDIENCE,
            "iss": ISSUER,
            "iat": now,
            "nbf": now,
            "exp": now + 3900,
            "azp": "cccccccc-0000-0000-0000-000000000000",
            "oid": "dddddddd-0000-0000-0000-000000000000",
            "sub": "dddddddd-0000-0000-0000-000000000000",
            "tid": TENANT,
            "uti": "uti",
            "ver": "2.0",
            "idtyp": "app",
            "roles": ["access_as_application"],
        },
        changes,
    )


def jwks(*keys: Signer | Mapping[str, Any]) -> str:
    """A key set's text (RFC 7517, section 5)."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, Signer) else dict(key) for key in keys]})


class Clock:
    """Time that moves when told to: seconds."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def validator(*keys: Signer | Mapping[str, Any], **options: Any) -> Validator:
    """The public front door with a fixed key set, for `ISSUER` and `AUDIENCE`, at `NOW`."""
    settings: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "clock": lambda: NOW, **options}
    issuer, audience = settings.pop("issuer"), settings.pop("audience")
    return Validator(issuer, audience, jwks=jwks(*(keys or (signer(),))), **settings)


def refusal(validator: Validator, token: str | bytes) -> InvalidToken:
    """The error that a token is refused with, which must be fit for a log line and repeat no token bytes."""
    try:
        claims = validator.validate(token)
    except InvalidToken as error:
        text = token if isinstance(token, str) else token.decode("latin-1")
        for said in (str(error), repr(error), error.expected or "", error.actual or ""):
            assert len(said) < 1000, said
            assert said.isprintable(), repr(said)
            assert not any(len(part) >= 16 and part in said for part in text.split(".")), said
        return error
    raise AssertionError(f"a token was accepted that must be refused: {dict(claims)}")


def _changed(members: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}
