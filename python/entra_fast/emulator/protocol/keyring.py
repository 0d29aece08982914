"""The provider's signing keys: which one signs, which ones are published, rotation and withdrawal.

Like Entra ID, it publishes the next key before that key signs anything, its keys carry a self-signed
certificate (`x5c`), and `kid` is the certificate's SHA-1 thumbprint. Applications' own keys are in
credentials.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any, Final

from entra_fast._native import KeySet
from entra_fast.emulator.protocol.private_key import SIGNING_ALGORITHMS, PrivateKey, certified_key
from entra_fast.errors import ConfigurationError, EntraFastError

MAX_PUBLISHED_KEYS: Final = 12


class Keyring:
    """Signing keys. Thread-safe. Keys are generated when they are first needed.

    Args:
        algorithm: what new keys sign with: one of `private_key.SIGNING_ALGORITHMS`.
    """

    def __init__(self, clock: Callable[[], float], algorithm: str = "RS256") -> None:
        if algorithm not in SIGNING_ALGORITHMS:
            message = f"signing_algorithm must be one of {', '.join(SIGNING_ALGORITHMS)}"
            raise ConfigurationError("setting_invalid", message, "signing_algorithm")
        self.algorithm = algorithm
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: list[tuple[PrivateKey, str]] = []
        self._active = 0
        self._withdrawn: list[str] = []
        self._key_set: KeySet | None = None

    def _generate(self) -> tuple[PrivateKey, str]:
        name = "entra-fast local Entra ID, not for production"
        return certified_key(name, self._clock(), self.algorithm)

    def _ensure(self) -> None:
        while len(self._keys) < 2:
            self._keys.append(self._generate())

    @property
    def active(self) -> PrivateKey:
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
                self._key_set = KeySet(json.dumps({"keys": [key.public_jwk() for key, _ in self._keys]}))
            return self._key_set

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What the published keys sign with."""
        with self._lock:
            self._ensure()
            return tuple(dict.fromkeys(key.algorithm for key, _ in self._keys))

    def published(self, issuer: str) -> list[dict[str, Any]]:
        """Entries of the key set document: `kty use kid x5t n e x5c issuer`, and no `alg`, for RSA."""
        with self._lock:
            self._ensure()
            return [
                {**key.public_jwk(), "x5t": key.x5t, "x5c": [certificate], "issuer": issuer}
                for key, certificate in self._keys
            ]

    def describe(self) -> list[tuple[str, str]]:
        """(kid, state) of each key, the withdrawn ones at the end."""
        with self._lock:
            self._ensure()
            states = [
                (key.kid, "signs" if place == self._active else "published")
                for place, (key, _) in enumerate(self._keys)
            ]
            return states + [(kid, "withdrawn") for kid in self._withdrawn]

    def rotate(self, *, announced: bool = True) -> str:
        """Sign with another key from now on; returns its kid.

        Args:
            announced: True takes the key that has been published all along, as Entra ID's planned rollover
                does; False a new one that no client can know yet, as its emergency rollover would.
        """
        fresh = self._generate()  # outside the lock: it takes a while
        with self._lock:
            self._ensure()
            self._keys.append(fresh)
            self._active = self._active + 1 if announced else len(self._keys) - 1
            if not announced:
                # The standby key stays after the active key, so that the next planned rollover has one.
                standby = self._keys.pop(-2)
                self._keys.append(standby)
                self._active -= 1
            while len(self._keys) > MAX_PUBLISHED_KEYS:
                self._withdrawn.append(self._keys.pop(0)[0].kid)
                self._active -= 1
            del self._withdrawn[:-MAX_PUBLISHED_KEYS]
            self._key_set = None
            return self._keys[self._active][0].kid

    def withdraw(self, kid: str) -> None:
        """Stop publishing a key. If it is the one that signs, the next one takes over at once.

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
                {"jwk": key.private_jwk(), "x5c": certificate, "active": place == self._active}
                for place, (key, certificate) in enumerate(self._keys)
            ]

    def restore(self, exported: list[dict[str, Any]]) -> None:
        """Replace all keys by exported ones. Raises ConfigurationError when a key is damaged."""
        keys = [(PrivateKey(entry["jwk"]), str(entry["x5c"])) for entry in exported]
        with self._lock:
            self._keys = keys
            self._active = next((place for place, entry in enumerate(exported) if entry["active"]), 0)
            self._key_set = None
            if keys and keys[self._active][0].algorithm != self.algorithm:
                # Sign with new keys; what was signed with the older ones stays valid.
                self._keys += [self._generate(), self._generate()]
                self._active = len(self._keys) - 2
