"""The token endpoint of Maskinporten without HTTP: takes a form, returns the JSON object of the response or
raises Refusal.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.emulator.model.forms import is_nine_digits
from entra_fast.emulator.model.workloads import MaskinportenClient, Scope, Workload, Workloads
from entra_fast.emulator.protocol import faulty_tokens
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.journal import Journal
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.providers.maskinporten import details, errors, metadata, policy
from entra_fast.emulator.providers.maskinporten.grant import GrantVerifier
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.providers.tokens import SignedToken, sign

DEFAULT_LIFETIME: Final = 120
MAX_RESOURCES: Final = 20


@dataclass(frozen=True, slots=True)
class MaskinportenService:
    """The token endpoint.

    Attributes:
        base_url: of the server.
        used: grants that were used.
        clock: seconds since the epoch.
        stray_key: makes the key for tokens whose key is not published (a planned fault).
    """

    base_url: str
    workloads: Workloads
    keys: ProviderKeys
    used: ExpiringMap[bool]
    journal: Journal
    clock: Callable[[], float]
    stray_key: Callable[[], PrivateKey]

    def answer(self, form: Mapping[str, str], faults: Iterable[Fault] = ()) -> dict[str, Any]:
        """The JSON object of a successful response.

        Args:
            faults: planned ones that concern the token.

        Raises:
            Refusal: the request is refused.
        """
        record, now = Recording("maskinporten", "JWT grant"), self.clock()
        try:
            response = self._answer(form, record, now, faults)
        except Refusal as refusal:
            record.finish(self.journal, now, refusal)
            raise
        record.finish(self.journal, now, None)
        return response

    def _answer(
        self, form: Mapping[str, str], record: Recording, now: float, faults: Iterable[Fault]
    ) -> dict[str, Any]:
        if form.get("grant_type") != metadata.GRANT_TYPE:
            raise errors.refusal(errors.UNSUPPORTED_GRANT_TYPE, remedy=f"it must be {metadata.GRANT_TYPE}")
        if not form.get("assertion"):
            raise errors.refusal(errors.INVALID_PARAMETER, remedy="assertion is missing")
        verifier = GrantVerifier(self.base_url, self.workloads, self.keys, self.used)
        workload, client, grant = verifier.verify(form["assertion"], record, now)
        names = tuple(dict.fromkeys((grant.text_of("scope") or "").split()))
        record.target = " ".join(names)
        if not names:
            raise errors.refusal(errors.INVALID_PARAMETER, remedy="scope is missing")
        claims = _requested(grant, client, workload)
        customer = grant.text_of("consumer_org")
        scopes = policy.scopes_for(self.workloads, workload, client, names, customer, record)
        lifetime = min(scope.lifetime or DEFAULT_LIFETIME for scope in scopes)
        record.claims = self._claims(client, scopes, customer, claims, int(now), lifetime)
        token = faulty_tokens.signed(
            record.claims,
            self.keys.signing["maskinporten"].active,
            faults,
            stray_key=self.stray_key,
            sign=lambda key, found: sign(key, found, typ=None),
        )
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": lifetime,
            "scope": record.claims["scope"],
        }

    def _claims(
        self,
        client: MaskinportenClient,
        scopes: Sequence[Scope],
        customer: str | None,
        requested: Mapping[str, Any],
        now: int,
        lifetime: int,
    ) -> dict[str, Any]:
        delegated: dict[str, Any] = {}
        if customer is not None:
            delegated = {
                "supplier": details.organization(client.organization),
                "delegation_source": scopes[0].delegation_source,
            }
        return {
            "iss": metadata.issuer(self.base_url),
            "client_id": client.client_id,
            "client_amr": "private_key_jwt",
            "token_type": "Bearer",
            "scope": " ".join(scope.name for scope in scopes),
            "consumer": details.organization(customer or client.organization),
            **delegated,
            **requested,
            "iat": now,
            "exp": now + lifetime,
            "jti": str(uuid.uuid4()),
        }


def _requested(grant: SignedToken, client: MaskinportenClient, workload: Workload) -> dict[str, Any]:
    """Claims of the token that follow from optional ones of the grant. Raises Refusal."""
    claims = grant.claims
    found: dict[str, Any] = {}
    if "consumer_org" in claims and not is_nine_digits(grant.text_of("consumer_org") or ""):
        raise errors.refusal(errors.INVALID_PARAMETER, remedy="consumer_org must be text of nine digits")
    if "resource" in claims:
        found["aud"] = _audience(claims["resource"])
    if "pid" in claims:
        pid = grant.text_of("pid") or ""
        if not (len(pid) == 11 and pid.isascii() and pid.isdigit()):
            raise errors.refusal(errors.INVALID_PARAMETER, remedy="pid must be text of eleven digits")
        found["pid"] = pid
    if "authorization_details" in claims:
        system = workload.name.rpartition(":")[2]
        found["authorization_details"] = details.granted(claims["authorization_details"], client, system)
    return found


def _audience(resource: object) -> str | list[str]:
    """`aud` for `resource` (RFC 8707): text, or a list where the grant has more than one."""
    names = resource if isinstance(resource, list) else [resource]
    if not 1 <= len(names) <= MAX_RESOURCES or not all(isinstance(name, str) and name for name in names):
        text = f"resource must be text, or a list of 1 to {MAX_RESOURCES} texts"
        raise errors.refusal(errors.INVALID_PARAMETER, remedy=text)
    return str(names[0]) if len(names) == 1 else [str(name) for name in names]
