"""Client authentication at the token endpoint: by secret, by assertion, or not at all.

How an assertion is verified belongs in client_assertion.py.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.model.registry import Application, Tenant
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.client_assertion import AssertionVerifier
from entra_fast.emulator.protocol.token_request import Authentication

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SEVERAL_METHODS: Final = "more than one method of client authentication"
NIL_GUID: Final = "00000000-0000-0000-0000-000000000000"
CREDENTIAL_FIELDS: Final = ("client_secret", "client_assertion", "client_assertion_type")


def known_client(tenant: Tenant, client_id: str) -> Application:
    """The client with an id. Raises EntraError 700038 or 700016."""
    if client_id == NIL_GUID:
        raise EntraError(700038, client_id=client_id)
    client = tenant.application(client_id)
    if client is None:
        raise EntraError(700016, client_id=client_id[:100], tenant=tenant.name)
    return client


@dataclass(frozen=True, slots=True)
class ClientVerifier:
    """Verifies the credential in a token request."""

    assertions: AssertionVerifier

    def authenticate(self, tenant: Tenant, client: Application, form: Mapping[str, str]) -> Authentication:
        """Verify the client's credential. Raises EntraError, which never holds a secret or an assertion."""
        assertion, secret = form.get("client_assertion"), form.get("client_secret")
        kind = form.get("client_assertion_type")
        if assertion and secret:
            # RFC 6749, section 2.3. Even if one of them is right: the other shows a client that is confused.
            raise EntraError(9002313, reason=SEVERAL_METHODS)
        if kind and not assertion:
            raise EntraError(900144, parameter="client_assertion")
        if assertion:
            if not kind:
                raise EntraError(900144, parameter="client_assertion_type")
            if kind != ASSERTION_TYPE:
                raise EntraError(9002313, reason=f"'client_assertion_type' must be '{ASSERTION_TYPE}'")
            return self.assertions.verify(tenant, client, assertion)
        if secret:
            expected = self.assertions.credentials.secret(client)
            if not hmac.compare_digest(secret.encode(), expected.encode()):
                raise EntraError(7000215, client_id=client.client_id)
            return Authentication("1", "client secret")
        raise EntraError(7000218)
