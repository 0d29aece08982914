"""Client assertions (RFC 7523, section 2.2), signed with the application's key or by its cluster.

Entra ID's leniency is kept where real clients depend on it; a comment names the client each time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from entra_fast._native import KeySet, Policy, Validator, unverified_claims, unverified_header
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError, format_time
from entra_fast.emulator.protocol.credentials import (
    FEDERATED_AUDIENCE,
    Credentials,
    cluster_issuer,
    workload_subject,
)
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.store import Store
from entra_fast.emulator.protocol.token_request import Authentication
from entra_fast.errors import InvalidToken

ALGORITHMS: Final = ("RS256", "PS256", "ES256")
LEEWAY: Final = 300.0  # Entra ID's clock skew
MAX_BYTES: Final = 16_384
MAX_LIFETIME: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class _Expected:
    """What an assertion must match.

    Attributes:
        kid_required: whether the assertion must name the key by `kid`.
        wrong_audience: the refusal of another audience.
    """

    client: Application
    key: PrivateKey
    issuer: str
    audiences: Sequence[str]
    wrong_audience: EntraError
    kid_required: bool


@dataclass(frozen=True, slots=True)
class AssertionVerifier:
    """Verifies client assertions.

    Attributes:
        clock: seconds since the epoch.
        base_url: of the provider.
        strict: also refuse reused assertions from clients that reuse them by design.
    """

    credentials: Credentials
    store: Store
    clock: Callable[[], float]
    base_url: str
    strict: bool = False

    def verify(self, tenant: Tenant, client: Application, assertion: str) -> Authentication:
        """Verify an assertion. Raises EntraError, which never holds the assertion."""
        if len(assertion) > MAX_BYTES:
            raise _not_verified(client, f"The assertion is longer than {MAX_BYTES} bytes.")
        try:
            header, claims = unverified_header(assertion), unverified_claims(assertion)
        except InvalidToken:
            raise _not_verified(client, "The assertion is not a signed JWT.") from None
        if str(claims.get("iss", "")).startswith(f"{self.base_url}/clusters/"):
            return self._federated(client, assertion, header, claims)
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
            raise _not_verified(client, "The key was not found.")
        if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
            raise EntraError(700021)
        # The endpoints under the tenant's domain name, and the v1.0 ones, also belong to this provider.
        audiences = [
            f"{self.base_url}/{name}{path}"
            for name in (tenant.id, tenant.name)
            for path in ("/oauth2/v2.0/token", "/v2.0", "/oauth2/token", "/")
        ]
        wrong_audience = EntraError(700023, token_endpoint=audiences[0], issuer=audiences[1])
        by_kid = "kid" in header
        expected = _Expected(client, key, client.client_id, audiences, wrong_audience, by_kid)
        self._verify(assertion, header, claims, expected)
        if claims["exp"] > self.clock() + MAX_LIFETIME + LEEWAY:
            raise self._out_of_range(claims)
        self._check_single_use(client, claims, by_kid=by_kid)
        named_by = "kid" if by_kid else "certificate thumbprint"
        return Authentication("2", f"client assertion, its key named by {named_by}")

    def _federated(
        self, client: Application, assertion: str, header: Mapping[str, Any], claims: Mapping[str, Any]
    ) -> Authentication:
        cluster = client.name.partition(":")[0]
        issuer, subject = cluster_issuer(self.base_url, cluster), workload_subject(client)
        mismatch = EntraError(700213, subject=str(claims.get("sub"))[:200])
        if claims.get("sub") != subject or claims.get("iss") != issuer:
            raise mismatch
        key = self.credentials.cluster_key(cluster)
        self._verify(
            assertion, header, claims, _Expected(client, key, issuer, [FEDERATED_AUDIENCE], mismatch, True)
        )
        return Authentication("2", f"federated credential of {subject}")

    def _verify(
        self, assertion: str, header: Mapping[str, Any], claims: Mapping[str, Any], expected: _Expected
    ) -> None:
        # A key serves one algorithm. Which one, the application decides: MSAL signs with one certificate by
        # RS256 or PS256, depending on how it names it.
        named = header.get("alg")
        policy = Policy(
            issuers=[expected.issuer],
            audiences=expected.audiences,
            algorithms=sorted(ALGORITHMS, key=lambda algorithm: algorithm != named),
            leeway=LEEWAY,
        )
        public = expected.key.public_jwk()
        if not expected.kid_required:
            public.pop("kid", None)  # named by its certificate: the only key of the set is meant
        validator = Validator(policy, KeySet(json.dumps({"keys": [public]})), cache_entries=1)
        try:
            validator.validate(assertion, self.clock())
        except InvalidToken as error:
            match error.code:
                case "token_expired" | "token_not_yet_valid" | "issued_in_the_future":
                    raise self._out_of_range(claims) from None
                case "wrong_audience":
                    raise expected.wrong_audience from None
                case "claim_missing" if "iat" not in claims:
                    self._check_without_iat(claims, expected)
                case "claim_missing" | "claim_malformed" | "algorithm_not_allowed" | "type_not_accepted":
                    raise _not_verified(expected.client, f"The {error.message}.") from None
                case _:
                    reason = "Key was found, but use of the key to verify the signature failed."
                    raise _not_verified(expected.client, reason) from None

    def _check_without_iat(self, claims: Mapping[str, Any], expected: _Expected) -> None:
        """`iat` is optional in assertions (RFC 7523, section 3, item 6), and MSAL for Java and Go omit it;
        access tokens need it, so the core requires it. The core reads claims only after it has verified the
        signature, and the issuer was compared before: audience and times remain.
        """
        sent = claims.get("aud")
        if not any(item in expected.audiences for item in (sent if isinstance(sent, list) else [sent])):
            raise expected.wrong_audience
        start, end = claims.get("nbf", 0), claims.get("exp")
        if not _is_number(start) or not _is_number(end):
            raise _not_verified(expected.client, "The token has a missing or malformed claim 'exp' or 'nbf'.")
        if not start - LEEWAY <= self.clock() < end + LEEWAY:
            raise self._out_of_range(claims)

    def _check_single_use(self, client: Application, claims: Mapping[str, Any], *, by_kid: bool) -> None:
        """Refuse an assertion that was seen before (RFC 7523, section 3, item 7).

        Entra ID itself is lenient, and MSAL relies on that: with certificates it sends one assertion for nine
        minutes. Such assertions name their key by thumbprint only, so those are accepted again unless
        `strict` is set.
        """
        identifier = claims.get("jti")
        if not isinstance(identifier, str) or not identifier:
            if self.strict:
                raise _not_verified(client, "The assertion has no 'jti'.")
            return
        seen_key = hashlib.sha256(f"{client.client_id}|{identifier}".encode()).hexdigest()
        seen = self.store.assertion_ids.get(seen_key) is not None
        self.store.assertion_ids.put(seen_key, True, max(1.0, claims["exp"] + LEEWAY - self.clock()))
        if seen and (by_kid or self.strict):
            raise _not_verified(
                client, "The assertion was used before; each request needs one with a new 'jti'."
            )

    def _out_of_range(self, claims: Mapping[str, Any]) -> EntraError:
        return EntraError(
            700024,
            now=format_time(self.clock()),
            valid_from=_time(claims.get("nbf", claims.get("iat"))),
            valid_to=_time(claims.get("exp")),
        )


def _not_verified(client: Application, reason: str) -> EntraError:
    return EntraError(700027, reason=reason, client_id=client.client_id)


def _names(header: Mapping[str, Any], key: PrivateKey) -> bool:
    """Whether a header names this key: by kid, else by a thumbprint of its certificate."""
    if "kid" in header:
        return bool(header["kid"] == key.kid)
    thumbprints = [(header.get("x5t"), key.x5t), (header.get("x5t#S256"), key.x5t_s256)]
    return any(isinstance(sent, str) and sent.rstrip("=") == own for sent, own in thumbprints)


def _is_number(value: object) -> TypeGuard[int | float]:
    # 1e400 is read as infinite.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(value: object) -> str:
    return format_time(value) if _is_number(value) else "(not a number)"
