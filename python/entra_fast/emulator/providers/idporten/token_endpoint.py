"""The token endpoint without HTTP: codes and refresh tokens become tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from entra_fast.emulator.protocol.faults import Fault
from entra_fast.emulator.protocol.idporten_logins import Grant
from entra_fast.emulator.providers.idporten.authentication import Authenticator
from entra_fast.emulator.providers.idporten.clients import Client
from entra_fast.emulator.providers.idporten.errors import IdPortenError
from entra_fast.emulator.providers.idporten.store import Store
from entra_fast.emulator.providers.idporten.tokens import TokenIssuer

GRANT_TYPES: Final = ("authorization_code", "refresh_token")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636, section 4.1


class TokenEndpoint:
    """Answers token requests."""

    def __init__(self, authenticator: Authenticator, store: Store, issuer: TokenIssuer) -> None:
        self._authenticator = authenticator
        self._store = store
        self._issuer = issuer

    def answer(
        self, form: Mapping[str, str], authorization: str = "", faults: Sequence[Fault] = ()
    ) -> tuple[Client, Grant, dict[str, Any]]:
        """(client, what was granted, response).

        Args:
            authorization: the value of the header; empty without one.
            faults: what to corrupt in the access token.

        Raises:
            IdPortenError: the request is refused.
        """
        grant_type = form.get("grant_type", "")
        client, method = self._authenticator.authenticate(form, authorization, pkce=grant_type in GRANT_TYPES)
        match grant_type:
            case "authorization_code":
                grant = self._by_code(client, form)
                scope = grant.scope
            case "refresh_token":
                grant, scope = self._by_refresh_token(client, form)
            case "":
                raise IdPortenError("invalid_request", "Missing parameter: grant_type")
            case _:
                text = f"Unsupported grant_type: expected {' or '.join(GRANT_TYPES)}"
                raise IdPortenError("unsupported_grant_type", text)
        return client, grant, self._issuer.respond(client, method, grant, scope, faults)

    def _by_code(self, client: Client, form: Mapping[str, str]) -> Grant:
        for name in ("code", "redirect_uri", "code_verifier"):
            if not form.get(name):
                raise IdPortenError("invalid_request", f"Missing parameter: {name}")
        grant = self._store.take(self._store.codes, form["code"])
        if grant is None or grant.client_id != client.client_id:
            raise IdPortenError("invalid_grant", "Invalid code: it is unknown, expired or was used before")
        if form["redirect_uri"] != grant.redirect_uri:
            raise IdPortenError("invalid_grant", "Invalid redirect_uri: it differs from the login's")
        if not _VERIFIER.fullmatch(form["code_verifier"]) or not hmac.compare_digest(
            _s256(form["code_verifier"]), grant.challenge
        ):
            raise IdPortenError(
                "invalid_grant", "Invalid code_verifier: it does not match the code_challenge"
            )
        _check_resource(form, grant)
        return grant

    def _by_refresh_token(self, client: Client, form: Mapping[str, str]) -> tuple[Grant, str]:
        """(what the login granted, the scope that is asked for)."""
        token = form.get("refresh_token", "")
        if not token:
            raise IdPortenError("invalid_request", "Missing parameter: refresh_token")
        scope = ""
        held = self._store.refresh_tokens.get(token)
        if held is not None and held.client_id == client.client_id:
            # Before it is used up: a request that asks for too much can be repeated.
            _check_resource(form, held)
            scope = _narrowed(form, held)
        grant = self._store.take(self._store.refresh_tokens, token)
        if grant is None or grant.client_id != client.client_id:
            text = "Invalid refresh_token: it is unknown, expired, revoked or was used before"
            raise IdPortenError("invalid_grant", text)
        return grant, scope


def _narrowed(form: Mapping[str, str], grant: Grant) -> str:
    """The scope of a refreshed token: the login's, or the part of it that is asked for."""
    scope = form.get("scope", grant.scope).split()
    if not scope or not set(scope) <= set(grant.scope.split()):
        raise IdPortenError("invalid_scope", "Invalid scope: the login did not grant it")
    return " ".join(dict.fromkeys(scope))


def _check_resource(form: Mapping[str, str], grant: Grant) -> None:
    # RFC 8707, section 2.2: the token request may name what the login has named.
    if form.get("resource", grant.resource) != grant.resource:
        raise IdPortenError("invalid_target", "Invalid resource: it differs from the login's")


def _s256(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
