"""Client authentication: by assertion, by secret in header or form, or by PKCE alone.

A client of NAIS is registered for assertions; secrets work here too, so that libraries and shells can be
tried out.
"""

from __future__ import annotations

import base64
import hmac
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from entra_fast._native import Policy, Validator, unverified_claims, unverified_header
from entra_fast.emulator.protocol.client_auth import ASSERTION_TYPE
from entra_fast.emulator.protocol.provider_keys import ClientKey
from entra_fast.emulator.providers.idporten.clients import Client
from entra_fast.emulator.providers.idporten.errors import IdPortenError, failed_authentication
from entra_fast.emulator.providers.idporten.store import Store
from entra_fast.errors import InvalidToken

METHODS: Final = ("client_secret_basic", "client_secret_post", "none", "private_key_jwt")
MAX_ASSERTION_BYTES: Final = 16_384
MAX_ASSERTION_LIFETIME: Final = 120.0
LEEWAY: Final = 10.0


class Authenticator:
    """Verifies which client sends a request.

    Args:
        find: the client with a client id.
        key: a client's registered key, if it has one.
        secret: a client's secret.
        audiences: what the `aud` of an assertion may be: issuer and token endpoint.
    """

    def __init__(
        self,
        find: Callable[[str], Client | None],
        key: Callable[[Client], ClientKey | None],
        secret: Callable[[Client], str],
        store: Store,
        audiences: Sequence[str],
    ) -> None:
        self._find = find
        self._key = key
        self._secret = secret
        self._store = store
        self._audiences = list(audiences)

    def authenticate(
        self, form: Mapping[str, str], authorization: str, *, pkce: bool = False
    ) -> tuple[Client, str]:
        """(client, method).

        Args:
            authorization: the value of the header; empty without one.
            pkce: whether a public client may do without a credential here, because PKCE proves that it began
                the login.

        Raises:
            IdPortenError: `invalid_client`, or `invalid_request` for more than one method.
        """
        basic = _basic(authorization) if authorization else None
        assertion, secret = form.get("client_assertion", ""), form.get("client_secret", "")
        if (basic is not None) + bool(assertion) + bool(secret) > 1:
            # RFC 6749, section 2.3.
            raise IdPortenError(
                "invalid_request", "More than one method of client authentication is included"
            )
        if basic is not None:
            client_id, secret = basic
            if form.get("client_id", client_id) != client_id:
                raise IdPortenError(
                    "invalid_request", "client_id and the Authorization header name two clients"
                )
            return self._by_secret(client_id, secret), "client_secret_basic"
        if assertion:
            return self._by_assertion(form, assertion), "private_key_jwt"
        if not form.get("client_id"):
            raise failed_authentication("No client authentication included")
        if secret:
            return self._by_secret(form["client_id"], secret), "client_secret_post"
        client = self._known(form["client_id"])
        if not (client.public and pkce):
            raise failed_authentication("No client authentication included")
        return client, "none"

    def _known(self, client_id: str) -> Client:
        client = self._find(client_id)
        if client is None:
            raise failed_authentication("Unknown client")
        return client

    def _by_secret(self, client_id: str, secret: str) -> Client:
        client = self._known(client_id)
        expected = self._secret(client)
        if not hmac.compare_digest(secret.encode(errors="surrogatepass"), expected.encode()):
            raise failed_authentication("Invalid client secret")
        return client

    def _by_assertion(self, form: Mapping[str, str], assertion: str) -> Client:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise failed_authentication(f"Invalid client_assertion_type: expected {ASSERTION_TYPE}")
        if len(assertion) > MAX_ASSERTION_BYTES:
            raise failed_authentication(f"The client assertion is longer than {MAX_ASSERTION_BYTES} bytes")
        try:
            header, claims = unverified_header(assertion), unverified_claims(assertion)
        except InvalidToken:
            raise failed_authentication("The client assertion is not a signed JWT") from None
        subject = claims.get("sub")
        if not isinstance(subject, str) or form.get("client_id", subject) != subject:
            raise failed_authentication("client_id must be the sub of the client assertion")
        client = self._known(subject)
        registered = self._key(client)
        if registered is None or header.get("kid") != registered.key.kid:
            raise failed_authentication("Unknown key identifier (kid) for client")
        if registered.has_expired(self._store.clock()):
            raise failed_authentication("Expired key")
        verified = self._verified(client, registered, assertion)
        now = self._store.clock()
        if float(verified["exp"]) - float(verified["iat"]) > MAX_ASSERTION_LIFETIME + LEEWAY:
            raise failed_authentication(
                f"The client assertion is valid for more than {MAX_ASSERTION_LIFETIME:.0f} seconds"
            )
        # RFC 7523, section 3, item 7.
        identifier = f"{client.client_id}|{verified['jti']}"
        if self._store.assertion_ids.get(identifier) is not None:
            raise failed_authentication("The client assertion was used before: each request needs a new jti")
        self._store.assertion_ids.put(identifier, True, max(1.0, float(verified["exp"]) + LEEWAY - now))
        return client

    def _verified(self, client: Client, key: ClientKey, assertion: str) -> Mapping[str, Any]:
        policy = Policy(
            issuers=[client.client_id],
            audiences=self._audiences,
            leeway=LEEWAY,
            required_claims=["iat", "jti", "sub"],
        )
        try:
            return Validator(policy, key.key_set, cache_entries=1).validate(assertion, self._store.clock())
        except InvalidToken as error:
            sentences = {
                "token_expired": "Expired client assertion",
                "token_not_yet_valid": "The client assertion is not valid yet",
                "issued_in_the_future": "The client assertion was issued in the future",
                "wrong_audience": f"Invalid aud of the client assertion: expected {self._audiences[0]}",
                "wrong_issuer": "iss of the client assertion must be the client_id",
                "signature_invalid": "Invalid signature of the client assertion",
            }
            reason = sentences.get(error.code, f"Invalid client assertion: {error.message}")
            raise failed_authentication(reason) from None


def claimed_client(form: Mapping[str, str], authorization: str) -> str:
    """The client that a request seems to come from, for choosing planned faults only; empty if unknown."""
    try:
        if authorization:
            return _basic(authorization)[0]
        return str(unverified_claims(form.get("client_assertion", "")).get("sub", ""))
    except (IdPortenError, InvalidToken):
        return ""


def _basic(authorization: str) -> tuple[str, str]:
    """Client id and secret, each form-encoded (RFC 6749, section 2.3.1)."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise failed_authentication("The Authorization header must be of the scheme Basic")
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        raise failed_authentication("The Authorization header is malformed") from None
    return urllib.parse.unquote_plus(client_id), urllib.parse.unquote_plus(secret)
