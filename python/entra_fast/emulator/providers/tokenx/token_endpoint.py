"""The token endpoint of TokenX without HTTP: takes a form, returns the JSON object of the response or raises
Refusal.

The checks stand in the order in which tokendings makes them.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from entra_fast._native import KeySet
from entra_fast.emulator.model.workloads import Workload, Workloads
from entra_fast.emulator.protocol import faulty_tokens
from entra_fast.emulator.protocol.client_auth import ASSERTION_TYPE
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.journal import Journal
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.providers.tokens import SignedToken, sign
from entra_fast.emulator.providers.tokenx import metadata, policy, verification

LIFETIME: Final = 900
MAX_ASSERTION_LIFETIME: Final = 120
TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
ISSUED_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"

_ASSERTION_CLAIMS: Final = ("aud", "exp", "iat", "iss", "jti", "nbf", "sub")
_SUBJECT_CLAIMS: Final = ("iss", "iat", "exp")


class KeysUnreachable(Exception):
    """The keys of an issuer of subject tokens could not be fetched. The text says why."""


@dataclass(frozen=True, slots=True)
class SubjectIssuer:
    """An issuer whose tokens are accepted as subject tokens.

    Attributes:
        name: its `iss`; of a remote one without a slash at the end, which its metadata may have.
        keys: returns its keys, for a token with this `iss` and `kid`; may raise KeysUnreachable.
    """

    name: str
    keys: Callable[[str, str | None], KeySet]

    def is_named(self, issuer: str) -> bool:
        """Whether an `iss` is this issuer's."""
        return issuer.rstrip("/") == self.name


@dataclass(frozen=True, slots=True)
class TokenXService:
    """The token endpoint.

    Attributes:
        base_url: of the server.
        issuers: whose subject tokens are accepted besides TokenX's own.
        acr: values of the claim `acr` that are replaced where the token comes straight from one of them.
        clock: seconds since the epoch.
        stray_key: makes the key for tokens whose key is not published (a planned fault).
    """

    base_url: str
    workloads: Workloads
    keys: ProviderKeys
    issuers: Sequence[SubjectIssuer]
    acr: Mapping[str, str]
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
        record = Recording("tokenx", "token exchange", target=form.get("audience", ""))
        now = self.clock()
        try:
            client = self._authenticated(form, record, now)
            response = self._exchange(form, client, record, now, faults)
        except Refusal as refusal:
            record.finish(self.journal, now, refusal)
            raise
        record.finish(self.journal, now, None)
        return response

    def _authenticated(self, form: Mapping[str, str], record: Recording, now: float) -> Workload:
        kind = _required(form, "client_assertion_type")
        assertion = verification.parse(_required(form, "client_assertion"))
        if kind != ASSERTION_TYPE:
            raise _unauthenticated("invalid client_assertion_type")
        client_id = assertion.text_of("sub")
        if client_id is None:
            raise _unauthenticated("sub must be present in assertion")
        record.client = client_id
        client = policy.known_client(self.workloads, client_id, record)
        key = self.keys.known_client("tokenx", client.name)
        verification.verify(
            assertion,
            None if key is None else key.key_set,
            required=_ASSERTION_CLAIMS,
            expected={"iss": client_id, "sub": client_id},
            now=now,
        )
        audiences = (metadata.token_endpoint(self.base_url), metadata.issuer(self.base_url))
        verification.check_assertion(assertion, audiences, now)
        if math.floor(assertion.claims["exp"] - now) > MAX_ASSERTION_LIFETIME:
            text = f"client assertion exceeded max lifetime ({MAX_ASSERTION_LIFETIME}s)."
            raise Refusal(
                401,
                "invalid_client",
                f"invalid client authentication for client_id={client_id}, {text}",
                check="credential",
            )
        record.passed("credential", f"client assertion for {assertion.audiences[0]}")
        return client

    def _exchange(
        self,
        form: Mapping[str, str],
        client: Workload,
        record: Recording,
        now: float,
        faults: Iterable[Fault],
    ) -> dict[str, Any]:
        grant_type = form.get("grant_type")
        if grant_type != metadata.GRANT_TYPE:
            text = f"could not find authorizer for grant_type={'null' if grant_type is None else grant_type}"
            raise Refusal(403, "access_denied", text, check="request")
        if form.get("subject_token_type") != TOKEN_TYPE:
            text = f"Parameter subject_token_type must be {TOKEN_TYPE}"
            raise Refusal(400, "invalid_request", text, check="request")
        subject_token, audience = _required(form, "subject_token"), _required(form, "audience")
        target = policy.admit(self.workloads, client, audience, record)
        try:
            subject = self._subject(subject_token, client, now)
        except Refusal as refusal:
            raise Refusal(
                refusal.status,
                refusal.error,
                f"invalid subject_token: {refusal.text}",
                check="user",
                remedy=refusal.remedy,
            ) from None
        record.user = subject.text_of("pid") or subject.text_of("sub") or ""
        record.passed("user", f"token of {subject.claims['iss']}")
        record.claims = self._claims(subject, client, target, int(now))
        token = faulty_tokens.signed(
            record.claims, self.keys.signing["tokenx"].active, faults, stray_key=self.stray_key, sign=sign
        )
        response: dict[str, Any] = {
            "access_token": token,
            "issued_token_type": ISSUED_TYPE,
            "token_type": "Bearer",
            # What is left of a lifetime that began a moment ago, in whole seconds.
            "expires_in": LIFETIME - 1,
        }
        return response | ({"scope": form["scope"]} if "scope" in form else {})

    def _subject(self, text: str, client: Workload, now: float) -> SignedToken:
        """The subject token, verified. Raises Refusal."""
        token = verification.parse(text)
        issuer = token.text_of("iss")
        is_own = issuer == metadata.issuer(self.base_url)
        keys = self.keys.signing["tokenx"].key_set if is_own else self._keys_of(issuer, token)
        verification.verify(token, keys, required=_SUBJECT_CLAIMS, expected={}, now=now)
        if is_own and client.name not in token.audiences:
            text = f"audience does not match client_id={client.name}"
            remedy = f"the token is for {', '.join(token.audiences)}: only that application may exchange it"
            raise Refusal(400, "invalid_request", text, check="user", remedy=remedy)
        return token

    def _keys_of(self, issuer: str | None, token: SignedToken) -> KeySet:
        trusted = next((item for item in self.issuers if issuer is not None and item.is_named(issuer)), None)
        if issuer is None or trusted is None:
            own = metadata.issuer(self.base_url)
            raise Refusal(
                400,
                "invalid_request",
                f"invalid request, cannot validate token from issuer={'null' if issuer is None else issuer}",
                check="user",
                remedy=f"its issuers are {', '.join([own, *(item.name for item in self.issuers)])}",
            )
        kid = token.header.get("kid")
        try:
            return trusted.keys(issuer, kid if isinstance(kid, str) else None)
        except KeysUnreachable as error:
            raise verification.failure(f"Couldn't retrieve remote JWK set: {error}") from None

    def _claims(self, subject: SignedToken, client: Workload, target: Workload, now: int) -> dict[str, Any]:
        claims = dict(subject.claims)
        issuer = str(claims["iss"])
        # The first issuer survives a chain of exchanges.
        claims.setdefault("idp", issuer)
        if issuer != metadata.issuer(self.base_url) and isinstance(claims.get("acr"), str):
            claims["acr"] = self.acr.get(claims["acr"], claims["acr"])
        return claims | {
            "client_id": client.name,
            "aud": target.name,
            "iss": metadata.issuer(self.base_url),
            "nbf": now,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": str(uuid.uuid4()),
        }


def _required(form: Mapping[str, str], name: str) -> str:
    if name not in form:
        raise Refusal(400, "invalid_request", f"Parameter {name} missing", check="request")
    return form[name]


def _unauthenticated(text: str) -> Refusal:
    return Refusal(401, "invalid_client", f"Client authentication failed: {text}", check="credential")
