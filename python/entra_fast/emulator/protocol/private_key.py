"""Keys of the local Entra ID, RSA or ML-DSA: generated, certified, signing, and written down as JWK.

What belongs here: one private key. Which keys there are, and what they sign, is decided in keyring.py and
client_auth.py. The native core signs with keys; generating and exporting them is needed here and in tests
only, so it is done with `cryptography`. Nothing from here is ever logged.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from entra_fast._native import SigningKey
from entra_fast.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import mldsa, rsa

    MlDsaKey = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey

CERTIFICATE_DAYS: Final = 5 * 365  # as Entra ID's; clients do not check it

SIGNING_ALGORITHMS: Final = ("RS256", "ML-DSA-44", "ML-DSA-65", "ML-DSA-87")
"""What the provider can sign with. Entra ID signs with RS256; the others are for applications that prepare
for algorithms that quantum computers do not break."""

_PUBLIC_MEMBERS: Final = {"RSA": ("kty", "use", "kid", "n", "e"), "AKP": ("kty", "use", "kid", "alg", "pub")}
"""By `kty`. RSA keys are published without `alg`, as Entra ID does; AKP keys need it (RFC 9964, section
3)."""


class PrivateKey:
    """A private key. Immutable; its text shows the `kid` and nothing secret."""

    def __init__(self, jwk: Mapping[str, str]) -> None:
        """Load a private JWK (RFC 7517).

        Raises:
            ConfigurationError: it cannot be used (code `signing_key_invalid`).
        """
        self._jwk = dict(jwk)
        self._signing_key = SigningKey.from_jwk(json.dumps(self._jwk))

    @classmethod
    def generate(cls, algorithm: str = "RS256") -> PrivateKey:
        """A new key whose `kid` is its thumbprint (RFC 7638). RSA takes a tenth of a second.

        Args:
            algorithm: one of `SIGNING_ALGORITHMS`.

        Raises:
            ConfigurationError: `cryptography` does not have the algorithm.
        """
        jwk = _new_jwk(algorithm, _generate(algorithm))
        return cls(jwk | {"kid": _thumbprint(jwk)})

    @property
    def kid(self) -> str:
        """The key's id."""
        return self._signing_key.kid or ""

    @property
    def algorithm(self) -> str:
        """Name of the algorithm that the key signs with."""
        return self._signing_key.algorithm

    @property
    def x5t(self) -> str | None:
        """SHA-1 thumbprint of the key's certificate (RFC 7517, section 4.8)."""
        return self._signing_key.x5t

    @property
    def x5t_s256(self) -> str | None:
        """SHA-256 thumbprint of the key's certificate (RFC 7517, section 4.9)."""
        return self._signing_key.x5t_s256

    def public_jwk(self) -> dict[str, str]:
        """The public half, as in a key set."""
        return {name: self._jwk[name] for name in _PUBLIC_MEMBERS[self._jwk["kty"]] if name in self._jwk}

    def private_jwk(self) -> dict[str, str]:
        """The whole key. Secret."""
        return dict(self._jwk)

    def sign(self, header: bytes, payload: bytes) -> str:
        """Compact JWS over exactly these bytes; `header` must be JSON whose `alg` is the key's."""
        return self._signing_key.sign(header, payload)

    def __repr__(self) -> str:
        return f"PrivateKey(kid={self.kid!r})"


def certified_key(common_name: str, now: float, algorithm: str = "RS256") -> tuple[PrivateKey, str]:
    """A new key with a self-signed certificate for its public half.

    Args:
        now: seconds since the epoch.
        algorithm: one of `SIGNING_ALGORITHMS`.

    Returns:
        The key, whose `kid` and `x5t` are the SHA-1 thumbprint of the certificate; and the certificate as
        base64 DER.

    Raises:
        ConfigurationError: `cryptography` does not have the algorithm.
    """
    from cryptography import x509  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - see above
    from cryptography.x509.oid import NameOID  # noqa: PLC0415 - see above

    private_key = _generate(algorithm)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=CERTIFICATE_DAYS))
        .sign(private_key, hashes.SHA256() if algorithm == "RS256" else None)
    )
    der = certificate.public_bytes(Encoding.DER)
    # SHA-1 is what RFC 7517, section 4.8, asks for; it names the certificate and protects nothing.
    thumbprint = base64url(certificate.fingerprint(hashes.SHA1()))  # noqa: S303
    jwk = _new_jwk(algorithm, private_key) | {
        "kid": thumbprint,
        "x5t": thumbprint,
        "x5t#S256": base64url(certificate.fingerprint(hashes.SHA256())),
    }
    return PrivateKey(jwk), base64.b64encode(der).decode()


def _generate(algorithm: str) -> rsa.RSAPrivateKey | MlDsaKey:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - see above

    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 - older versions have none

        match algorithm:
            case "ML-DSA-44":
                return mldsa.MLDSA44PrivateKey.generate()
            case "ML-DSA-65":
                return mldsa.MLDSA65PrivateKey.generate()
            case _:
                return mldsa.MLDSA87PrivateKey.generate()
    except (ImportError, AttributeError, UnsupportedAlgorithm):  # pragma: no cover - with an older version
        message = f"signing with {algorithm} needs a newer version of cryptography: 50 has it"
        raise ConfigurationError("setting_invalid", message, "signing_algorithm") from None


def _new_jwk(algorithm: str, private_key: rsa.RSAPrivateKey | MlDsaKey) -> dict[str, str]:
    """The members of RFC 7518, section 6.3, or of RFC 9964, sections 3 and 4, and what the key is for."""
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - see above

    if not isinstance(private_key, rsa.RSAPrivateKey):
        return {
            "kty": "AKP",
            "use": "sig",
            "alg": algorithm,
            "pub": base64url(private_key.public_key().public_bytes_raw()),
            "priv": base64url(private_key.private_bytes_raw()),
        }
    numbers = private_key.private_numbers()
    public = numbers.public_numbers
    integers = {
        "n": public.n,
        "e": public.e,
        "d": numbers.d,
        "p": numbers.p,
        "q": numbers.q,
        "dp": numbers.dmp1,
        "dq": numbers.dmq1,
        "qi": numbers.iqmp,
    }
    encoded = {name: _base64url_uint(value) for name, value in integers.items()}
    return {"kty": "RSA", "use": "sig", "alg": "RS256"} | encoded


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638, section 3: SHA-256 over the required members, sorted by name, without white space."""
    members = ("e", "kty", "n") if jwk["kty"] == "RSA" else ("alg", "kty", "pub")  # RFC 9964, section 6
    required = {name: jwk[name] for name in members}
    return base64url(hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest())


def _base64url_uint(value: int) -> str:
    return base64url(value.to_bytes((value.bit_length() + 7) // 8))


def base64url(data: bytes) -> str:
    """Base64url without padding, as every part of a JWS and a JWK is written (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
