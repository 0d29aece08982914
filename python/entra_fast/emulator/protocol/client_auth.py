"""Applications' credentials: secrets, keys and federated identities; issuing them, and verifying what clients
send.

Secrets follow from a random seed, keys are generated when somebody asks for them: a thousand applications
cost nothing to load. Nothing from here is ever logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from entra_fast._native import KeySet, Policy, Validator, unverified_claims, unverified_header
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError, format_time
from entra_fast.emulator.protocol.private_key import PrivateKey, certified_key
from entra_fast.emulator.protocol.store import Store
from entra_fast.errors import InvalidToken

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FEDERATED_AUDIENCE: Final = "api://AzureADTokenExchange"
ASSERTION_ALGORITHMS: Final = ("RS256", "PS256", "ES256")
LEEWAY: Final = 300.0  # Entra ID's clock skew
MAX_ASSERTION_BYTES: Final = 16_384
MAX_ASSERTION_LIFETIME: Final = 24 * 3600.0
FEDERATED_LIFETIME: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Authentication:
    """How a client has proved who it is.

    Attributes:
        azpacr: "0" public, "1" secret, "2" assertion; the claim of that name.
        text: for the log.
    """

    azpacr: str
    text: str


class Credentials:
    """Credentials of all applications. Thread-safe."""

    def __init__(self, clock: Callable[[], float], seed: bytes | None = None) -> None:
        self._clock = clock
        self.seed = seed if seed is not None else secrets.token_bytes(32)
        self._keys: dict[str, PrivateKey] = {}
        self._cluster_keys: dict[str, PrivateKey] = {}
        self._lock = threading.Lock()

    def secret(self, application: Application) -> str:
        """The application's client secret."""
        digest = hmac.digest(self.seed, f"secret|{application.client_id}".encode(), hashlib.sha256)
        return "local~" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def key(self, application: Application) -> PrivateKey:
        """The application's private key, generated on first use (a tenth of a second)."""
        key = self.known_key(application)
        if key is None:
            # Outside of the lock: nobody else's request shall wait for it.
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
            "sub": f"system:serviceaccount:{namespace}:{name}",
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


@dataclass(frozen=True, slots=True)
class ClientVerifier:
    """Verifies the credential in a token request.

    Attributes:
        base_url: of the provider.
        strict_assertions: refuse an assertion that is used twice also where real clients do that.
    """

    credentials: Credentials
    store: Store
    clock: Callable[[], float]
    base_url: str
    strict_assertions: bool = False

    def authenticate(self, tenant: Tenant, client: Application, form: Mapping[str, str]) -> Authentication:
        """Verify the client's credential. Raises EntraError; a secret or assertion is never part of it."""
        assertion, secret = form.get("client_assertion"), form.get("client_secret")
        if assertion is not None and assertion != "":
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                raise EntraError(9002313, reason=f"'client_assertion_type' must be '{ASSERTION_TYPE}'")
            return self._assertion(tenant, client, assertion)
        if secret is not None and secret != "":
            expected = self.credentials.secret(client)
            if not hmac.compare_digest(secret.encode(), expected.encode()):
                raise EntraError(7000215, client_id=client.client_id)
            return Authentication("1", "client secret")
        raise EntraError(7000218)

    def _assertion(self, tenant: Tenant, client: Application, assertion: str) -> Authentication:
        if len(assertion) > MAX_ASSERTION_BYTES:
            raise self._unverified(client, f"The assertion is longer than {MAX_ASSERTION_BYTES} bytes.")
        try:
            header, claims = unverified_header(assertion), unverified_claims(assertion)
        except InvalidToken:
            raise self._unverified(client, "The assertion is not a signed JWT.") from None
        if str(claims.get("iss", "")).startswith(f"{self.base_url}/clusters/"):
            return self._federated(client, assertion, claims)
        return self._private_key(tenant, client, assertion, header, claims)

    def _private_key(
        self,
        tenant: Tenant,
        client: Application,
        assertion: str,
        header: Mapping[str, Any],
        claims: Mapping[str, Any],
    ) -> Authentication:
        key = self.credentials.known_key(client)
        if key is None or not _names(header, key):
            raise self._unverified(client, "The key was not found.")
        issuer = f"{self.base_url}/{tenant.id}/v2.0"
        endpoint = f"{self.base_url}/{tenant.id}/oauth2/v2.0/token"
        # The same endpoints by the tenant's domain name, and the v1.0 ones, are this provider as well.
        audiences = [
            f"{self.base_url}/{name}{path}"
            for name in (tenant.id, tenant.name)
            for path in ("/oauth2/v2.0/token", "/v2.0", "/oauth2/token", "/")
        ]
        if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
            raise EntraError(700021)
        self._verify(
            client,
            key,
            assertion,
            header=header,
            claims=claims,
            issuer=client.client_id,
            audiences=audiences,
            wrong_audience=EntraError(700023, token_endpoint=endpoint, issuer=issuer),
        )
        if claims["exp"] > self.clock() + MAX_ASSERTION_LIFETIME + LEEWAY:
            raise self._out_of_range(claims)
        self._single_use(client, header, claims)
        by = "kid" if "kid" in header else "certificate thumbprint"
        return Authentication("2", f"client assertion, its key named by {by}")

    def _federated(self, client: Application, assertion: str, claims: Mapping[str, Any]) -> Authentication:
        cluster, namespace, name = client.name.split(":")
        subject = f"system:serviceaccount:{namespace}:{name}"
        mismatch = EntraError(700213, subject=str(claims.get("sub"))[:200])
        issuer = cluster_issuer(self.base_url, cluster)
        if claims.get("sub") != subject or claims.get("iss") != issuer:
            raise mismatch
        self._verify(
            client,
            self.credentials.cluster_key(cluster),
            assertion,
            header={},
            claims=claims,
            issuer=issuer,
            audiences=[FEDERATED_AUDIENCE],
            wrong_audience=mismatch,
        )
        return Authentication("2", f"federated credential of {subject}")

    def _verify(
        self,
        client: Application,
        key: PrivateKey,
        assertion: str,
        *,
        header: Mapping[str, Any],
        claims: Mapping[str, Any],
        issuer: str,
        audiences: Sequence[str],
        wrong_audience: EntraError,
    ) -> None:
        policy = Policy(issuers=[issuer], audiences=audiences, algorithms=ASSERTION_ALGORITHMS, leeway=LEEWAY)
        public = key.public_jwk()
        if "kid" not in header and header:
            public.pop("kid", None)  # named by its certificate: the only key of the set is meant
        try:
            Validator(policy, KeySet(json.dumps({"keys": [public]})), cache_entries=1).validate(
                assertion, self.clock()
            )
        except InvalidToken as error:
            match error.code:
                case "token_expired" | "token_not_yet_valid" | "issued_in_the_future":
                    raise self._out_of_range(claims) from None
                case "wrong_audience":
                    raise wrong_audience from None
                case "claim_missing" if "iat" not in claims:
                    self._check_without_iat(client, claims, audiences, wrong_audience)
                case "claim_missing" | "claim_malformed" | "algorithm_not_allowed" | "type_not_accepted":
                    raise self._unverified(client, f"The {error.message}.") from None
                case _:
                    raise self._unverified(
                        client, "Key was found, but use of the key to verify the signature failed."
                    ) from None

    def _check_without_iat(
        self,
        client: Application,
        claims: Mapping[str, Any],
        audiences: Sequence[str],
        wrong_audience: EntraError,
    ) -> None:
        """`iat` is optional in assertions (RFC 7523, section 3, item 6), and MSAL for Java and Go leave it
        out; access tokens need it, so the core insists. It looks at claims only after the signature has been
        verified, and the issuer has been compared here: what is left are audience and times.
        """
        sent = claims.get("aud")
        if not any(item in audiences for item in (sent if isinstance(sent, list) else [sent])):
            raise wrong_audience
        start, end = claims.get("nbf", 0), claims.get("exp")
        if not _is_number(start) or not _is_number(end):
            raise self._unverified(client, "The token has a missing or malformed claim 'exp' or 'nbf'.")
        if not start - LEEWAY <= self.clock() < end + LEEWAY:
            raise self._out_of_range(claims)

    def _single_use(self, client: Application, header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
        """Refuse an assertion that was seen before (RFC 7523, section 3, item 7).

        Entra ID itself is lenient, and MSAL relies on it: with certificates it sends one assertion for nine
        minutes. Such assertions name their key by thumbprint only, so those are let through unless told
        otherwise.
        """
        identifier = claims.get("jti")
        if not isinstance(identifier, str) or not identifier:
            if self.strict_assertions:
                raise self._unverified(client, "The assertion has no 'jti'.")
            return
        seen_key = hashlib.sha256(f"{client.client_id}|{identifier}".encode()).hexdigest()
        seen = self.store.assertion_ids.get(seen_key) is not None
        self.store.assertion_ids.put(seen_key, True, max(1.0, claims["exp"] + LEEWAY - self.clock()))
        if seen and ("kid" in header or self.strict_assertions):
            raise self._unverified(
                client, "The assertion was used before; each request needs one with a new 'jti'."
            )

    def _unverified(self, client: Application, reason: str) -> EntraError:
        return EntraError(700027, reason=reason, client_id=client.client_id)

    def _out_of_range(self, claims: Mapping[str, Any]) -> EntraError:
        return EntraError(
            700024,
            now=format_time(self.clock()),
            valid_from=_time(claims.get("nbf", claims.get("iat"))),
            valid_to=_time(claims.get("exp")),
        )


def _names(header: Mapping[str, Any], key: PrivateKey) -> bool:
    """Whether a header names this key: by kid, else by a thumbprint of its certificate."""
    if "kid" in header:
        return bool(header["kid"] == key.kid)
    thumbprints = [(header.get("x5t"), key.x5t), (header.get("x5t#S256"), key.x5t_s256)]
    return any(isinstance(sent, str) and sent.rstrip("=") == own for sent, own in thumbprints)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _time(value: object) -> str:
    return format_time(value) if _is_number(value) else "(not a number)"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
