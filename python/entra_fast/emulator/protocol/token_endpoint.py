"""The token endpoint without HTTP: takes a form, returns the response's JSON object or raises EntraError.

Identifies and authenticates the client, carries out planned refusals, and records every request in the
journal with the checks that it went through. What each grant type requires belongs in grant_types.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from entra_fast._native import unverified_claims
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol import claims_request
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.client_auth import CREDENTIAL_FIELDS, ClientVerifier, known_client
from entra_fast.emulator.protocol.faults import Fault, planned_error
from entra_fast.emulator.protocol.grant_types import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    GRANT_NAMES,
    OTHER_SPELLINGS,
    REFRESH_TOKEN,
    GrantTypes,
)
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Reason, failed
from entra_fast.emulator.protocol.token_request import Authentication, TokenRequest
from entra_fast.emulator.protocol.token_response import TokenIssuer
from entra_fast.errors import InvalidToken

STILL_PENDING: Final = 70016


@dataclass(frozen=True, slots=True)
class TokenService:
    """The token endpoint of all tenants. `clock`: seconds since the epoch."""

    clients: ClientVerifier
    grant_types: GrantTypes
    issuer: TokenIssuer
    journal: Journal
    clock: Callable[[], float]

    def answer(
        self,
        tenant: Tenant,
        form: Mapping[str, str],
        *,
        version: int,
        correlation_id: str,
        origin: str = "",
        faults: tuple[Fault, ...] = (),
    ) -> dict[str, Any]:
        """The JSON object of a successful response.

        Args:
            version: 2 for the v2.0 endpoint, 1 for the older one, which takes `resource` and issues v1.0
                tokens.
            origin: of the page that has sent the request, as the browser says; empty for none.
            faults: planned ones that concern the token or the refusal.

        Raises:
            EntraError: the request is refused.
        """
        request = TokenRequest(tenant, form, version, correlation_id, origin, faults)
        try:
            response = self._answer(request)
        except EntraError as error:
            if not request.reasons or request.reasons[-1].passed:
                request.reasons.append(failed(error))
            if error.code != STILL_PENDING:  # a device asks every few seconds: that says nothing
                self._record(request, error)
            raise
        self._record(request, None)
        return response

    def _answer(self, request: TokenRequest) -> dict[str, Any]:
        grant_type = request.required("grant_type")
        grant_type = OTHER_SPELLINGS.get(grant_type, grant_type)
        if grant_type not in GRANT_NAMES:
            raise EntraError(70003, grant_type=grant_type[:100])
        client = _client(request)
        if request.version == 2 and request.form.get("resource"):
            raise EntraError(901002)
        request.requested = claims_request.parse(request.form.get("claims", ""))
        for fault in request.faults:
            if fault.kind == "aadsts":
                request.reasons.append(Reason("fault", False, f"fault {fault.id} was planned"))
                raise planned_error(int(fault.value), request.form, client, request.tenant)
        authentication = self._authenticate(request, client, grant_type)
        request.azpacr = authentication.azpacr
        request.passed("credential", authentication.text)
        authorized = self.grant_types.authorize(grant_type, request, client)
        return self.issuer.respond(request, client, authorized)

    def _authenticate(self, request: TokenRequest, client: Application, grant_type: str) -> Authentication:
        public = Authentication("0", "public client: none needed")
        credential = any(request.form.get(name) for name in CREDENTIAL_FIELDS)
        login = self.grant_types.login_of(grant_type, request)
        if login is not None and login.client_id != client.client_id:
            login = None  # the grant type refuses it
        if grant_type in (AUTHORIZATION_CODE, REFRESH_TOKEN) and _is_single_page(client, login, request):
            if credential:
                raise EntraError(700025)
            if not request.origin:
                raise EntraError(9002327)
            return public
        if request.origin:
            # Also with a credential, which a browser has no way to keep.
            raise EntraError(9002326, origin=request.origin[:200])
        if not credential and _needs_no_credential(client, grant_type, login):
            return public
        return self.clients.authenticate(request.tenant, client, request.form)

    def _record(self, request: TokenRequest, error: EntraError | None) -> None:
        form, client, user = request.form, request.client, request.user
        self.journal.add(
            Entry(
                number=self.journal.next_number(),
                time=self.clock(),
                tenant=request.tenant.name,
                grant=_grant_name(form.get("grant_type", "")),
                client=client.name if client is not None else form.get("client_id", "")[:100],
                target=request.target[:200],
                user=user.username if user is not None else "",
                granted=error is None,
                code=None if error is None else error.code,
                message="" if error is None else error.text,
                reasons=tuple(request.reasons),
                correlation_id=request.correlation_id,
                claims={} if error is not None else request.claims,
            )
        )


def _grant_name(grant_type: str) -> str:
    return GRANT_NAMES.get(OTHER_SPELLINGS.get(grant_type, grant_type), "unknown grant")


def _is_single_page(client: Application, login: Login | None, request: TokenRequest) -> bool:
    if login is not None:
        return client.is_single_page_url(login.redirect_uri)
    return client.single_page or request.origin in client.single_page_origins


def _needs_no_credential(client: Application, grant_type: str, login: Login | None) -> bool:
    """Whether a client may be a public one. Unless its manifest says otherwise, every client may use device
    codes without a credential, and the refresh tokens that came from them.
    """
    if client.public_client is None:
        return grant_type == DEVICE_CODE or (login is not None and login.public)
    return client.public_client and grant_type in (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)


def _client(request: TokenRequest) -> Application:
    client_id = request.form.get("client_id", "")
    if not client_id and request.form.get("client_assertion"):
        # RFC 7521, section 4.2: client_id is optional with an assertion, whose subject names the client.
        try:
            client_id = str(unverified_claims(request.form["client_assertion"]).get("sub", ""))
        except InvalidToken:
            client_id = ""
    if not client_id:
        raise EntraError(900144, parameter="client_id")
    client = known_client(request.tenant, client_id)
    request.client = client
    request.passed("client", f"{client.name} is registered in {request.tenant.name}")
    return client
