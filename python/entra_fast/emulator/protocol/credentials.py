"""Applications' credentials: secrets, keys and federated identity tokens, created and kept.

Secrets derive from a random seed, and keys are generated when they are first needed, so that a thousand
applications load at no cost. Verifying what clients send belongs in client_auth.py and client_assertion.py.
Nothing from here is ever logged.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol.private_key import PrivateKey, base64url, certified_key

FEDERATED_AUDIENCE: Final = "api://AzureADTokenExchange"
FEDERATED_LIFETIME: Final = 3600.0


class Registered(Protocol):
    """A client of a provider."""

    @property
    def name(self) -> str:
        """`<cluster>:<namespace>:<name>`."""

    @property
    def client_id(self) -> str:
        """Client ids differ between providers, so each registration has credentials of its own."""


class Credentials:
    """Credentials of all clients. Thread-safe."""

    def __init__(self, clock: Callable[[], float], seed: bytes | None = None) -> None:
        self._clock = clock
        self.seed = seed if seed is not None else secrets.token_bytes(32)
        self._keys: dict[str, PrivateKey] = {}
        self._cluster_keys: dict[str, PrivateKey] = {}
        self._lock = threading.Lock()

    def secret(self, application: Registered) -> str:
        """The application's client secret."""
        digest = hmac.digest(self.seed, f"secret|{application.client_id}".encode(), hashlib.sha256)
        return "local~" + base64url(digest)

    def key(self, application: Application) -> PrivateKey:
        """The application's private key, generated on first use (about a tenth of a second)."""
        key = self.known_key(application)
        if key is None:
            # Generated outside the lock, so that no other request waits for it.
            key = certified_key(application.name[:64], self._clock())[0]
            with self._lock:
                key = self._keys.setdefault(application.client_id, key)
        return key

    def cluster_key(self, cluster: str) -> PrivateKey:
        """The key with which a cluster signs its workloads' identity tokens."""
        with self._lock:
            key = self._cluster_keys.get(cluster)
        if key is None:
            key = PrivateKey.generate()
            with self._lock:
                key = self._cluster_keys.setdefault(cluster, key)
        return key

    def federated_token(self, application: Application, base_url: str) -> str:
        """What Kubernetes would write into the application's federated token file."""
        cluster, namespace, name = application.name.split(":")
        key = self.cluster_key(cluster)
        now = int(self._clock())
        claims = {
            "aud": [FEDERATED_AUDIENCE],
            "exp": now + int(FEDERATED_LIFETIME),
            "iat": now,
            "iss": cluster_issuer(base_url, cluster),
            "jti": secrets.token_hex(16),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name}},
            "nbf": now,
            "sub": workload_subject(application),
        }
        header = {"alg": "RS256", "kid": key.kid}
        return key.sign(_json(header), _json(claims))

    def export(self) -> dict[str, Any]:
        """Everything, for `restore`. The result is secret."""
        with self._lock:
            return {
                "seed": self.seed.hex(),
                "keys": {name: key.private_jwk() for name, key in self._keys.items()},
                "clusters": {name: key.private_jwk() for name, key in self._cluster_keys.items()},
            }

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Replace everything by what was exported. Raises ConfigurationError when a key is damaged."""
        keys = {str(name): PrivateKey(jwk) for name, jwk in exported["keys"].items()}
        clusters = {str(name): PrivateKey(jwk) for name, jwk in exported["clusters"].items()}
        with self._lock:
            self.seed = bytes.fromhex(exported["seed"])
            self._keys, self._cluster_keys = keys, clusters

    def known_key(self, application: Application) -> PrivateKey | None:
        """The application's key if it has one already: an assertion cannot be signed with a key that was
        never handed out, and a guess must not cost the time of generating one.
        """
        with self._lock:
            return self._keys.get(application.client_id)


def cluster_issuer(base_url: str, cluster: str) -> str:
    """Issuer of a cluster's workload identity tokens."""
    return f"{base_url}/clusters/{cluster}"


def workload_subject(application: Application) -> str:
    """Subject of an application's workload identity tokens."""
    _, namespace, name = application.name.split(":")
    return f"system:serviceaccount:{namespace}:{name}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
