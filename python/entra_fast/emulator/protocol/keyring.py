"""The provider's signing keys: which one signs, which ones are published, rotation and withdrawal.

Like Entra ID, it publishes the next key before that key signs anything, its keys carry a self-signed
certificate (`x5c`), and `kid` is the certificate's SHA-1 thumbprint. Applications' own keys are in
credentials.py.
"""

from __future__ import annotations

import base64
import datetime
import json
import threading
from collections.abc import Callable
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from entra_fast._native import KeySet, SigningKey
from entra_fast.errors import EntraFastError

MAX_PUBLISHED_KEYS: Final = 12
CERTIFICATE_DAYS: Final = 5 * 365  # as Entra's; nobody checks it


def certified_key(common_name: str, now: float, bits: int = 2048) -> tuple[SigningKey, str]:
    """A new RSA key with a self-signed certificate for its public half.

    Returns:
        The key, its `kid` and `x5t` being the SHA-1 thumbprint of the certificate; and the certificate as
        base64 DER.
    """
    jwk = json.loads(SigningKey.generate(bits).private_jwk())
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    private_key = _private_key(jwk)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=CERTIFICATE_DAYS))
        .sign(private_key, hashes.SHA256())
    )
    der = certificate.public_bytes(Encoding.DER)
    # SHA-1 is what RFC 7517, section 4.8, asks for; it names the certificate and protects nothing.
    thumbprint = _base64url(certificate.fingerprint(hashes.SHA1()))  # noqa: S303
    jwk |= {
        "kid": thumbprint,
        "x5t": thumbprint,
        "x5t#S256": _base64url(certificate.fingerprint(hashes.SHA256())),
    }
    return SigningKey.from_jwk(json.dumps(jwk)), base64.b64encode(der).decode()


class Keyring:
    """Signing keys. Thread-safe. Keys are generated when they are first needed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: list[tuple[SigningKey, str]] = []
        self._active = 0
        self._withdrawn: list[str] = []
        self._key_set: KeySet | None = None

    def _generate(self) -> tuple[SigningKey, str]:
        return certified_key("entra-fast local Entra ID, not for production", self._clock())

    def _ensure(self) -> None:
        while len(self._keys) < 2:
            self._keys.append(self._generate())

    @property
    def active(self) -> SigningKey:
        """The key that signs."""
        with self._lock:
            self._ensure()
            return self._keys[self._active][0]

    @property
    def key_set(self) -> KeySet:
        """The published keys, for verifying what this provider has signed."""
        with self._lock:
            self._ensure()
            if self._key_set is None:
                self._key_set = KeySet(
                    json.dumps({"keys": [json.loads(key.public_jwk()) for key, _ in self._keys]})
                )
            return self._key_set

    def published(self, issuer: str) -> list[dict[str, Any]]:
        """Entries of the key set document: `kty use kid x5t n e x5c issuer`, and no `alg`."""
        with self._lock:
            self._ensure()
            entries = []
            for key, certificate in self._keys:
                public = json.loads(key.public_jwk())
                entry = {
                    "kty": "RSA",
                    "use": "sig",
                    "kid": key.kid,
                    "x5t": key.x5t,
                    "n": public["n"],
                    "e": public["e"],
                }
                entries.append(entry | {"x5c": [certificate], "issuer": issuer})
            return entries

    def describe(self) -> list[tuple[str, str]]:
        """(kid, state) of each key, the withdrawn ones at the end."""
        with self._lock:
            self._ensure()
            states = [
                (key.kid or "", "signs" if place == self._active else "published")
                for place, (key, _) in enumerate(self._keys)
            ]
            return states + [(kid, "withdrawn") for kid in self._withdrawn]

    def rotate(self, *, announced: bool = True) -> str:
        """Sign with another key from now on; returns its kid.

        Args:
            announced: True takes the key that has been published all along, as Entra ID's planned rollover
                does; False a new one that no client can know yet, as its emergency rollover would.
        """
        fresh = self._generate()  # outside of the lock: it takes a while
        with self._lock:
            self._ensure()
            self._keys.append(fresh)
            self._active = self._active + 1 if announced else len(self._keys) - 1
            if not announced:
                # The standby stays behind the active key, so that the next planned rollover has one.
                standby = self._keys.pop(-2)
                self._keys.append(standby)
                self._active -= 1
            while len(self._keys) > MAX_PUBLISHED_KEYS:
                self._withdrawn.append(self._keys.pop(0)[0].kid or "")
                self._active -= 1
            del self._withdrawn[:-MAX_PUBLISHED_KEYS]
            self._key_set = None
            return self._keys[self._active][0].kid or ""

    def withdraw(self, kid: str) -> None:
        """Publish a key no more. If it is the one that signs, the next one takes over at once.

        Raises:
            EntraFastError: no such key (code `key_unknown`).
        """
        fresh = self._generate()
        with self._lock:
            self._ensure()
            place = next((index for index, (key, _) in enumerate(self._keys) if key.kid == kid), None)
            if place is None:
                raise EntraFastError("key_unknown", "no key of this kid is published")
            del self._keys[place]
            if place < self._active:
                self._active -= 1
            if self._active >= len(self._keys) - 1:
                self._keys.append(fresh)
            self._withdrawn = [*self._withdrawn, kid][-MAX_PUBLISHED_KEYS:]
            self._key_set = None

    def export(self) -> list[dict[str, Any]]:
        """Everything, private halves included, for `restore`."""
        with self._lock:
            self._ensure()
            return [
                {"jwk": json.loads(key.private_jwk()), "x5c": certificate, "active": place == self._active}
                for place, (key, certificate) in enumerate(self._keys)
            ]

    def restore(self, exported: list[dict[str, Any]]) -> None:
        """Replace all keys by exported ones. Raises ConfigurationError when a key is damaged."""
        keys = [(SigningKey.from_jwk(json.dumps(entry["jwk"])), str(entry["x5c"])) for entry in exported]
        with self._lock:
            self._keys = keys
            self._active = next((place for place, entry in enumerate(exported) if entry["active"]), 0)
            self._key_set = None


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _integer(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _private_key(jwk: dict[str, str]) -> rsa.RSAPrivateKey:
    part = {name: _integer(jwk[name]) for name in ("n", "e", "d", "p", "q", "dp", "dq", "qi")}
    public = rsa.RSAPublicNumbers(part["e"], part["n"])
    numbers = rsa.RSAPrivateNumbers(
        part["p"], part["q"], part["d"], part["dp"], part["dq"], part["qi"], public
    )
    return numbers.private_key()
