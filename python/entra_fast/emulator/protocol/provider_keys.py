"""The keys of the local providers: those that a provider signs with, and those of its clients.

All are generated when they are first needed, so that a thousand applications load at no cost. They are kept
in one object, `ProviderKeys`, for saving and exporting. Nothing from here is ever logged.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from entra_fast._native import KeySet
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.errors import EntraFastError

ROTATION_SECONDS: Final = 24 * 3600.0
CLIENT_KEY_SECONDS: Final = 365 * 24 * 3600.0
"""How long a client's key is valid after its registration, where the provider has a limit."""
_SIGNING_MEMBERS: Final = ("kty", "e", "use", "kid", "n")


class SigningKeys:
    """What one provider signs with: the current key, and the previous one, which is still published.

    The next key is generated when the time for it has come: no client can know it before. Thread-safe.

    Args:
        clock: seconds since the epoch.
        rotates: whether the key changes by itself, every 24 hours.
        with_algorithm: whether published keys have `alg`.
    """

    def __init__(self, clock: Callable[[], float], *, rotates: bool, with_algorithm: bool) -> None:
        self._clock = clock
        self._rotates = rotates
        self._members = (*_SIGNING_MEMBERS, "alg") if with_algorithm else _SIGNING_MEMBERS
        self._lock = threading.Lock()
        self._keys: list[PrivateKey] = []
        self._since = 0.0
        self._key_set: KeySet | None = None

    @property
    def ready(self) -> bool:
        """Whether the next call generates no key, which takes a tenth of a second."""
        return len(self._keys) == 2 and not self._is_due()

    @property
    def active(self) -> PrivateKey:
        """The key that signs."""
        with self._lock:
            self._ensure()
            return self._keys[0]

    @property
    def key_set(self) -> KeySet:
        """The published keys, for verifying what this provider has signed."""
        with self._lock:
            self._ensure()
            if self._key_set is None:
                self._key_set = _key_set(self._keys)
            return self._key_set

    def published(self) -> list[dict[str, str]]:
        """Entries of the key set document."""
        with self._lock:
            self._ensure()
            keys = [key.private_jwk() for key in self._keys]
        return [{name: key[name] for name in self._members} for key in keys]

    def rotate(self) -> str:
        """Sign with a new key from now on; returns its kid."""
        with self._lock:
            self._ensure()
            self._rotate()
            return self._keys[0].kid

    def export(self) -> dict[str, Any]:
        """Everything, private halves included, for `restore`. Empty where there are no keys yet."""
        with self._lock:
            return {"since": self._since, "keys": [key.private_jwk() for key in self._keys]}

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Replace all keys by exported ones. Raises ConfigurationError when a key is damaged."""
        keys, since = [PrivateKey(jwk) for jwk in exported["keys"]], float(exported["since"])
        with self._lock:
            self._keys, self._since, self._key_set = keys, since, None

    def _is_due(self) -> bool:
        return self._rotates and self._clock() >= self._since + ROTATION_SECONDS

    def _ensure(self) -> None:
        if not self._keys:
            self._keys, self._since = [_new_key(), _new_key()], self._clock()
        elif self._is_due():
            self._rotate()

    def _rotate(self) -> None:
        self._keys, self._since, self._key_set = [_new_key(), self._keys[0]], self._clock(), None


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A registered key. `since`: when it was registered, seconds since the epoch."""

    key: PrivateKey
    since: float

    def has_expired(self, now: float) -> bool:
        """Whether it is too old for a provider that limits how long keys are valid."""
        return now >= self.since + CLIENT_KEY_SECONDS

    @property
    def key_set(self) -> KeySet:
        """For verifying assertions."""
        return _key_set([self.key])


class ProviderKeys:
    """The keys of all local providers and of their clients. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.signing: Final[Mapping[str, SigningKeys]] = {
            # TokenX changes its key every day, and publishes neither `alg` nor the next key.
            "tokenx": SigningKeys(clock, rotates=True, with_algorithm=False),
            "maskinporten": SigningKeys(clock, rotates=False, with_algorithm=True),
            "idporten": SigningKeys(clock, rotates=False, with_algorithm=True),
        }
        """By name of the provider."""
        self._clients: dict[str, dict[str, ClientKey]] = {name: {} for name in self.signing}
        self._lock = threading.Lock()

    def rotate(self, provider: str) -> str:
        """Let a provider sign with a new key from now on; returns its kid.

        Raises:
            EntraFastError: there is no such provider (code `provider_unknown`).
        """
        if provider not in self.signing:
            text = (
                f"there is no provider {provider[:50]!r} with keys of its own, only {', '.join(self.signing)}"
            )
            raise EntraFastError("provider_unknown", text)
        return self.signing[provider].rotate()

    def client(self, provider: str, application: str) -> PrivateKey:
        """The key that an application is registered with; a new one where there is none, or it is too old."""
        known = self.known_client(provider, application)
        if known is not None and not known.has_expired(self._clock()):
            return known.key
        # Generated outside the lock, so that no other request waits for it.
        fresh = ClientKey(_new_key(), self._clock())
        with self._lock:
            keys = self._clients[provider]
            if keys.get(application) is known:
                keys[application] = fresh
            return keys[application].key

    def known_client(self, provider: str, application: str) -> ClientKey | None:
        """The key of an application if it has one already: an assertion cannot be signed with a key that was
        never handed out, and a guess must not cost the time of generating one."""
        with self._lock:
            return self._clients[provider].get(application)

    def export(self) -> dict[str, Any]:
        """Everything, for `restore`. The result is secret."""
        signing = {name: keys.export() for name, keys in self.signing.items()}
        with self._lock:
            clients = {
                provider: {
                    name: {"jwk": item.key.private_jwk(), "since": item.since} for name, item in keys.items()
                }
                for provider, keys in self._clients.items()
            }
        return {"signing": signing, "clients": clients}

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Replace everything by what was exported; a provider that it does not name keeps its keys. Raises
        ConfigurationError when a key is damaged, and what a wrong form raises."""
        clients = {
            provider: {
                str(name): ClientKey(PrivateKey(item["jwk"]), float(item["since"]))
                for name, item in exported["clients"][provider].items()
            }
            for provider in self._clients
            if provider in exported["clients"]
        }
        for name, keys in self.signing.items():
            if name in exported["signing"]:
                keys.restore(exported["signing"][name])
        with self._lock:
            self._clients.update(clients)


def _new_key() -> PrivateKey:
    """RSA of 2048 bits, with `use`, `alg` and a UUID as `kid`, as NAIS registers them."""
    return PrivateKey(PrivateKey.generate().private_jwk() | {"kid": str(uuid.uuid4())})


def _key_set(keys: Sequence[PrivateKey]) -> KeySet:
    return KeySet(json.dumps({"keys": [key.public_jwk() for key in keys]}))
