"""One request to the token endpoint: what was sent, and what has been established about it so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.claims_request import NOTHING, ClaimsRequest
from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.login import Login
from entra_fast.emulator.protocol.policy import Decision, Reason
from entra_fast.emulator.protocol.scope import Scope, parse_scope


@dataclass(frozen=True, slots=True)
class Authentication:
    """How a client has authenticated.

    Attributes:
        azpacr: "0" public, "1" secret, "2" assertion; the claim of that name.
        text: for the journal.
    """

    azpacr: str
    text: str


@dataclass(slots=True)
class TokenRequest:
    """A request while the token endpoint processes it; the journal keeps its final values.

    Attributes:
        version: 2 for the v2.0 endpoint, 1 for the older one.
        origin: of the page that has sent it, as the browser says; empty for one that no page has sent.
        faults: planned ones that concern the token or the refusal.
        requested: what the parameter `claims` requests, now and at the login.
        client: the calling application, once it is known.
        target: name of the application that a token is requested for, or what was sent in its place.
        user: on whose behalf, once that is known.
        azpacr: how the client authenticated, as the claim of that name.
        reasons: the checks so far.
        claims: of the access token, once it is issued.
    """

    tenant: Tenant
    form: Mapping[str, str]
    version: int
    correlation_id: str
    origin: str = ""
    faults: tuple[Fault, ...] = ()
    requested: ClaimsRequest = NOTHING
    client: Application | None = None
    target: str = ""
    user: User | None = None
    azpacr: str = "0"
    reasons: list[Reason] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)

    def passed(self, check: str, text: str) -> None:
        """Record a check that passed."""
        self.reasons.append(Reason(check, True, text))

    def required(self, name: str) -> str:
        """A parameter that must be there. Raises EntraError 900144."""
        value = self.form.get(name, "")
        if not value:
            raise EntraError(900144, parameter=name)
        return value

    def scope(self) -> Scope:
        """What is requested: `scope`, or `resource` at the v1.0 endpoint. Raises EntraError."""
        if self.version == 1 and "scope" not in self.form:
            return parse_scope(f"{self.required('resource')}/.default openid")
        return parse_scope(self.required("scope"))

    def resource(self, identifier: str) -> Application:
        """The application that a token is requested for. Raises EntraError 500011."""
        self.target = identifier
        found = self.tenant.resource(identifier)
        if found is None:
            raise EntraError(500011, resource=identifier[:200], tenant=self.tenant.name)
        self.target = found.name
        return found


@dataclass(frozen=True, slots=True)
class Authorized:
    """What a grant type has authorized: everything that the response depends on.

    Attributes:
        target: None for Microsoft Graph, and for a login without a target application.
        decision: about the target or Graph; None for a login without either.
        login: what the user agreed to; None for client credentials.
    """

    scope: Scope
    target: Application | None = None
    decision: Decision | None = None
    login: Login | None = None
