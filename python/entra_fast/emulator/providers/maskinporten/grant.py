"""The JWT that a client sends to Maskinporten as its grant: who has signed it, and whether it counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model.workloads import MaskinportenClient, Workload, Workloads
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.providers.maskinporten import errors, metadata, policy
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.tokens import Signature, SignedToken

MAX_LIFETIME: Final = 120.0
CLOCK_TOLERANCE: Final = 10.0
"""How far `iat` may be from the provider's clock, in seconds."""
_REMEMBERED: Final = MAX_LIFETIME + 2 * CLOCK_TOLERANCE
_TIMES: Final = ("iat", "exp")


@dataclass(frozen=True, slots=True)
class GrantVerifier:
    """Verifies grants.

    Attributes:
        base_url: of the server.
        used: grants that were used.
    """

    base_url: str
    workloads: Workloads
    keys: ProviderKeys
    used: ExpiringMap[bool]

    def verify(
        self, assertion: str, record: Recording, now: float
    ) -> tuple[Workload, MaskinportenClient, SignedToken]:
        """The client, and its grant. Raises Refusal."""
        grant = SignedToken.read(assertion)
        if grant is None:
            raise errors.refusal(errors.INVALID_PARAMETER, remedy="the assertion is not a signed JWT")
        client_id = grant.text_of("iss") or ""
        record.client = client_id
        workload, client = policy.registration(self.workloads.maskinporten_client(client_id), record)
        self._check_signature(grant, workload, now)
        if grant.audiences != [metadata.issuer(self.base_url)]:
            remedy = f"it must be the issuer, {metadata.issuer(self.base_url)}"
            raise errors.refusal(errors.WRONG_AUDIENCE, remedy=remedy)
        self._check_times(grant, now)
        self._check_single_use(grant, client)
        record.passed("credential", "a grant that was signed with the client's key, and not used before")
        return workload, client, grant

    def _check_signature(self, grant: SignedToken, workload: Workload, now: float) -> None:
        if grant.header["alg"] not in metadata.ALGORITHMS:
            remedy = f"alg must be one of {', '.join(metadata.ALGORITHMS)}"
            raise errors.refusal(errors.INVALID_PARAMETER, remedy=remedy)
        if "kid" not in grant.header:
            # A certificate of the organization counts for clients without a registered key only. NAIS
            # registers one for each client.
            row = errors.CERTIFICATE if "x5c" in grant.header else errors.UNKNOWN_KEY
            raise errors.refusal(row, remedy="put the kid of MASKINPORTEN_CLIENT_JWK into the header")
        known = self.keys.known_client("maskinporten", workload.name)
        if known is None or grant.header.get("kid") != known.key.kid:
            remedy = "read MASKINPORTEN_CLIENT_JWK again: the client is registered with another key"
            raise errors.refusal(errors.UNKNOWN_KEY, remedy=remedy)
        if known.has_expired(now):
            remedy = "read MASKINPORTEN_CLIENT_JWK again: that registers a new key"
            raise errors.refusal(errors.EXPIRED_KEY, remedy=remedy)
        if grant.verify(known.key_set, metadata.ALGORITHMS) is not Signature.VALID:
            raise errors.refusal(errors.INVALID_SIGNATURE)

    def _check_times(self, grant: SignedToken, now: float) -> None:
        missing = [name for name in _TIMES if name not in grant.claims]
        if missing:
            raise errors.refusal(errors.INVALID_PARAMETER, remedy=f"{missing[0]} is missing")
        issued, end = grant.claims["iat"], grant.claims["exp"]
        if end - issued > MAX_LIFETIME:
            remedy = f"exp is more than {MAX_LIFETIME:g} s after iat"
            raise errors.refusal(errors.INVALID_PARAMETER, remedy=remedy)
        if max(issued, grant.claims.get("nbf", issued)) > now + CLOCK_TOLERANCE:
            remedy = f"set the clock: iat and nbf are more than {CLOCK_TOLERANCE:g} s ahead"
            raise errors.refusal(errors.ISSUED_LATER, remedy=remedy)
        if end <= now or issued < now - CLOCK_TOLERANCE:
            remedy = (
                f"sign a new grant for each request, and set the clock: iat counts for {CLOCK_TOLERANCE:g} s"
            )
            raise errors.refusal(errors.EXPIRED, remedy=remedy)

    def _check_single_use(self, grant: SignedToken, client: MaskinportenClient) -> None:
        """Refuse a grant that was used, by its `jti` or, without one, as a whole."""
        identifier = grant.text_of("jti") or grant.text
        name = hashlib.sha256(f"{client.client_id}|{identifier}".encode()).hexdigest()
        if self.used.get(name) is not None:
            remedy = "sign a new one, with another jti, for each request; a retry is a request"
            raise errors.refusal(errors.USED_BEFORE, remedy=remedy)
        self.used.put(name, True, _REMEMBERED)
