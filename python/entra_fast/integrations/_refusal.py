"""A refused request: status, headers and body, as the table in docs/guides/frameworks.md has them.

What belongs here: from an error to the parts of a response. What must never be here: a framework's response.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from entra_fast import challenge
from entra_fast.errors import EntraFastError, Forbidden, KeysUnavailable, StepUpRequired
from entra_fast.require import Require

RETRY_AFTER: Final = 5
"""Seconds after which a client may ask again while keys are not available."""

_CHALLENGE: Final = "WWW-Authenticate"


class Refusal(Exception):
    """A request that is not let through. No part of it contains bytes of a token.

    Attributes:
        status: the HTTP status: 400, 401, 403 or 503.
        outcome: `no_token`, `invalid_request`, `step_up`, `keys_unavailable`, or the code of the error.
        error: the OAuth error code, or the outcome where OAuth has none.
        description: one sentence for developers.
        challenge: the value of `WWW-Authenticate`; None for 503.
    """

    def __init__(
        self, status: int, outcome: str, error: str, description: str, challenge: str | None
    ) -> None:
        super().__init__(status, outcome, error, description, challenge)
        self.status = status
        self.outcome = outcome
        self.error = error
        self.description = description
        self.challenge = challenge

    def __str__(self) -> str:
        return self.description

    @property
    def retry_after(self) -> int | None:
        """Seconds after which the client may ask again."""
        return RETRY_AFTER if self.status == 503 else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response, without those of the body."""
        headers = {"Cache-Control": "no-store"}
        if self.challenge is not None:
            headers[_CHALLENGE] = self.challenge
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers

    @property
    def body(self) -> dict[str, str]:
        """The JSON body."""
        return {"error": self.error, "error_description": self.description}


def prefers_html(accept: str) -> bool:
    """Whether a client prefers a page: browsers name `text/html` before `*/*`, other clients do not.

    Args:
        accept: the value of `Accept`.
    """
    quality = {"text/html": 0.0, "application/json": 0.0}
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if name in quality:
            weight = next((one.removeprefix("q=") for one in parameters if one.startswith("q=")), "1")
            with contextlib.suppress(ValueError):
                quality[name] = float(weight)
    return quality["text/html"] > quality["application/json"]


def no_token(realm: str, metadata: str | None = None) -> Refusal:
    """No token came: a challenge without an error (RFC 6750, section 3.1).

    Args:
        metadata: URL of the metadata of the resource (RFC 9728), in this and in the other refusals.
    """
    description = "this needs an access token: send it as 'Authorization: Bearer <token>'"
    value = challenge.bearer(realm=realm, resource_metadata=metadata)
    return Refusal(401, "no_token", "no_token", description, value)


def malformed(realm: str, reason: str, metadata: str | None = None) -> Refusal:
    """The header cannot be read."""
    value = challenge.bearer(
        realm=realm, error="invalid_request", description=reason, resource_metadata=metadata
    )
    return Refusal(400, "invalid_request", "invalid_request", reason, value)


def refusal_for(
    error: EntraFastError,
    realm: str,
    requirement: Require | None = None,
    claims: Mapping[str, Any] | None = None,
    metadata: str | None = None,
) -> Refusal:
    """The refusal for an error of validation or of a requirement.

    Args:
        error: an `InvalidToken`, a `KeysUnavailable` or a `Forbidden`.
        realm: name of what is protected.
        requirement: what was required, if the error is a `Forbidden`.
        claims: those of the token, if it was verified.
        metadata: as for `no_token`.
    """
    if isinstance(error, KeysUnavailable):
        # The reason names hosts of the outside and of our network: it is for our log.
        description = "tokens cannot be verified at the moment: try again later"
        return Refusal(503, "keys_unavailable", "temporarily_unavailable", description, None)
    if isinstance(error, StepUpRequired):
        value = challenge.for_step_up(
            error,
            realm=realm,
            authorization_uri=_authorization_uri(claims),
            resource_metadata=metadata,
        )
        name = "insufficient_claims" if error.auth_contexts else "insufficient_user_authentication"
        return Refusal(401, "step_up", name, error.message, value)
    if isinstance(error, Forbidden):
        value = challenge.bearer(
            realm=realm,
            error="insufficient_scope",
            description=error.message,
            scope=() if requirement is None else _sufficient_scopes(requirement, claims),
            resource_metadata=metadata,
        )
        return Refusal(403, error.code, "insufficient_scope", error.message, value)
    value = challenge.bearer(
        realm=realm, error="invalid_token", description=error.message, resource_metadata=metadata
    )
    return Refusal(401, error.code, "invalid_token", challenge.described(error.message), value)


def _sufficient_scopes(requirement: Require, claims: Mapping[str, Any] | None) -> list[str]:
    """The scopes that suffice, as clients ask for them, where there is one such set. A role is none: clients
    cannot ask for it."""
    with_scopes = [one for one in requirement.alternatives if one.scopes]
    if len(with_scopes) != 1:
        return []
    (only,) = with_scopes
    # A token for other scopes would still be of the same application, organization and issuer.
    others = (only.roles, only.groups, only.tenant, only.issuer, only.client, only.consumer_orgno)
    if any(others) or only.kind == "app":
        return []
    if claims is not None and claims.get("tid") is None:  # scopes of other providers name no application
        return list(only.scopes)
    return [full_scope(scope, (claims or {}).get("aud")) for scope in only.scopes]


def full_scope(scope: str, audience: object) -> str:
    """A scope with the URI of its application: `api://<client id>/cases.read`."""
    if not isinstance(audience, str) or not audience.isascii() or not audience.isprintable():
        return scope
    uri = audience if "://" in audience else f"api://{audience}"
    return scope if any(one in uri for one in ' "\\') else f"{uri.removesuffix('/')}/{scope}"


def _authorization_uri(claims: Mapping[str, Any] | None) -> str | None:
    """Entra ID's authorization endpoint, which stands beside its issuer."""
    issuer = (claims or {}).get("iss")
    if not isinstance(issuer, str) or not issuer.endswith("/v2.0"):
        return None
    return f"{issuer.removesuffix('/v2.0')}/oauth2/v2.0/authorize"
