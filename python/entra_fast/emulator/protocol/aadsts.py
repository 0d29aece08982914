"""Entra ID's errors: one catalogue of AADSTS codes with their OAuth error, status and text, and their shape.

The texts are those that people know from logs and search engines. Nothing here decides when an error applies.
Where Microsoft's documentation does not state the status, the observed or the more plausible one is used; those
rows say so.
"""

# ruff: noqa: E501  the texts stay as people search for them
from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the catalogue. `text` has placeholders in braces."""

    code: int
    error: str
    status: int
    text: str
    suberror: str | None = None


_ROWS: Final = (
    # Who is asking
    Kind(
        90002,
        "invalid_request",
        400,
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID"
        " and are signing into the correct cloud. Check with your subscription administrator, this may happen if"
        " there are no active subscriptions for the tenant.",
    ),
    Kind(
        700016,
        "unauthorized_client",
        400,
        "Application with identifier '{client_id}' was not found in the directory"
        " '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or"
        " consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
    ),
    Kind(
        7000215,
        "invalid_client",
        401,
        "Invalid client secret provided. Ensure the secret being sent in the request"
        " is the client secret value, not the client secret ID, for a secret added to app '{client_id}'.",
    ),
    Kind(
        7000218,
        "invalid_client",
        401,  # status observed
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    Kind(
        700027,
        "invalid_client",
        401,  # status observed
        "The certificate with identifier used to sign the client assertion is not registered on application, or the"
        " assertion does not verify. [Reason - {reason}] Application: '{client_id}'.",
    ),
    Kind(
        700024,
        "invalid_client",
        401,
        "Client assertion is not within its valid time range. Current time: {now},"
        " assertion valid from {valid_from}, expiry time of assertion {valid_to}. Review the documentation at"
        " https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    Kind(
        700021,
        "invalid_client",
        401,
        "Client assertion application identifier doesn't match 'client_id' parameter."
        " Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    Kind(
        700023,
        "invalid_client",
        401,
        "Client assertion audience claim does not match Realm issuer or the token"
        " endpoint. The audience must be '{token_endpoint}' or '{issuer}'.",
    ),
    Kind(
        700213,
        "invalid_client",
        401,
        "No matching federated identity record found for presented assertion subject"
        " '{subject}'. Check your federated identity credential Subject, Audience and Issuer against the presented"
        " assertion.",
    ),
    # What is asked for
    Kind(
        900144,
        "invalid_request",
        400,
        "The request body must contain the following parameter: '{parameter}'.",
    ),
    Kind(
        900561,
        "invalid_request",
        405,
        "The endpoint only accepts POST requests. Received a {method} request.",
    ),
    Kind(9002313, "invalid_request", 400, "Invalid request. Request is malformed or invalid: {reason}."),
    Kind(70003, "unsupported_grant_type", 400, "The app requested an unsupported grant type '{grant_type}'."),
    Kind(
        70011,
        "invalid_scope",
        400,
        "The provided request must include a 'scope' input parameter. The provided value"
        " for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
    ),
    Kind(
        1002012,
        "invalid_scope",
        400,  # status observed
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with"
        " /.default suffixed to the resource identifier (application ID URI).",
    ),
    Kind(
        28000,
        "invalid_scope",
        400,
        "Provided value for the input parameter scope is not valid because it contains"
        " more than one resource. Scope {scope} is not valid.",
    ),
    Kind(
        500011,
        "invalid_resource",
        400,
        "The resource principal named {resource} was not found in the tenant named"
        " {tenant}. This can happen if the application has not been installed by the administrator of the tenant or"
        " consented to by any user in the tenant. You might have sent your authentication request to the wrong"
        " tenant.",
    ),
    # Whether it is granted
    Kind(
        501051,
        "invalid_grant",
        400,
        "Application '{client_id}'({client}) is not assigned to a role for the"
        " application '{resource}'({target}).",
    ),
    Kind(
        65001,
        "invalid_grant",
        400,
        "The user or administrator has not consented to use the application with ID"
        " '{client_id}' named '{client}'. Send an interactive authorization request for this user and resource.",
        "consent_required",
    ),
    Kind(
        50105,
        "invalid_grant",
        400,
        "Your administrator has configured the application {target} ('{target_id}') to"
        " block users unless they are specifically granted ('assigned') access to the application. The signed in user"
        " '{{EmailHidden}}' is blocked because they are not a direct member of a group with access, nor had access"
        " directly assigned by an administrator. Please contact your administrator to assign access to this"
        " application.",
    ),
    Kind(
        50013,
        "invalid_grant",
        400,  # status observed
        "Assertion failed signature validation. [Reason - {reason}]",
    ),
    Kind(
        500133,
        "invalid_grant",
        400,
        "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for"
        " user assertion, or request a new token. Current time: {now}, expiry time of assertion {valid_to}.",
    ),
    Kind(
        500131,
        "invalid_grant",
        400,
        "Assertion audience does not match the Client app presenting the assertion. The"
        " audience in the assertion was '{audience}' and the expected audience is '{expected}' or one of the"
        " Application Uris of this application with App ID '{client_id}'({client}). If the application requesting the"
        " token is a daemon, use the client credentials flow instead.",
    ),
    Kind(
        50076,
        "invalid_grant",
        400,  # status observed
        "Due to a configuration change made by your administrator, or because you moved to a new location, you must use"
        " multi-factor authentication to access '{resource}'.",
        "basic_action",
    ),
    # Logins
    Kind(
        50011,
        "invalid_request",
        400,
        "The redirect URI '{redirect_uri}' specified in the request does not match the"
        " redirect URIs configured for the application '{client_id}'. Make sure the redirect URI sent in the request"
        " matches one added to your application.",
    ),
    Kind(50058, "login_required", 400, "A silent sign-in request was sent but no user is signed in."),
    Kind(
        50034,
        "invalid_grant",
        400,
        "The user account {{EmailHidden}} does not exist in the {tenant} directory. To"
        " sign into this application, the account must be added to the directory.",
    ),
    Kind(70000, "invalid_grant", 400, "Provided grant is invalid or malformed. {reason}"),
    Kind(
        70008,
        "invalid_grant",
        400,
        "The provided authorization code or refresh token has expired due to inactivity."
        " Send a new interactive authorization request for this user and resource.",
    ),
    Kind(
        54005,
        "invalid_grant",
        400,
        "OAuth2 Authorization code was already redeemed, please retry with a new valid"
        " code or use an existing refresh token.",
    ),
    Kind(
        501481,
        "invalid_grant",
        400,
        "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
    ),
    Kind(
        9002325,
        "invalid_request",
        400,
        "Proof Key for Code Exchange is required for cross-origin authorization code redemption.",
    ),
    Kind(
        700054,
        "unsupported_response_type",
        400,
        "response_type '{response_type}' is not enabled for the application.",
    ),
    # Not the caller's fault
    Kind(90033, "temporarily_unavailable", 503, "A transient error has occurred. Please try again."),
    Kind(
        90055,
        "temporarily_unavailable",
        429,
        "The request was throttled because tenant or application exceeded its limits. Try again later.",
    ),
)

KINDS: Final = {row.code: row for row in _ROWS}

WHEN: Final = {
    90002: "the tenant is unknown",
    700016: "the client is unknown in this tenant",
    7000215: "wrong client secret",
    7000218: "neither secret nor assertion was sent",
    700027: "the assertion does not verify, its key is unknown, or it was used before",
    700024: "the assertion is outside of its time range",
    700021: "the assertion's `iss` or `sub` is not the client",
    700023: "the assertion's `aud` is neither token endpoint nor issuer",
    700213: "the federated token is another workload's",
    900144: "a parameter is missing",
    900561: "another method than POST",
    9002313: "the request is malformed",
    70003: "another grant type",
    70011: "the scope is malformed",
    1002012: "client credentials with a scope that does not end in `/.default`",
    28000: "scopes of more than one application",
    500011: "the target is unknown in this tenant",
    501051: "machine to machine: the target does not admit the consumer",
    65001: "for a user: the target does not admit the consumer, or not with that scope (suberror `consent_required`)",
    50105: "the user is in none of the target's groups",
    50013: "the user's token does not verify, or is an application's own",
    500133: "the user's token has expired",
    500131: "the user's token is for another application than the caller",
    50076: "planned only: multi-factor authentication (suberror `basic_action`, with `claims`)",
    50011: "the redirect URI is not registered (shown, never sent)",
    50058: "`prompt=none` and nobody is signed in",
    50034: "the user is gone",
    70000: "the code or refresh token belongs to another client or redirect URI",
    70008: "the code or refresh token is unknown or has expired",
    54005: "the code was used before",
    501481: "PKCE: the verifier does not match",
    9002325: "a single-page application without PKCE",
    700054: "another response type than `code`",
    90033: "planned only: a passing error",
    90055: "planned only: throttled, with `Retry-After`",
}
"""When this provider refuses with a code: the last column of docs/emulator.md."""


class EntraError(Exception):
    """A refusal in Entra ID's own words.

    Attributes:
        kind: the catalogue's row.
        text: the sentence, placeholders filled in.
        claims: a claims challenge as JSON text, for 50076.
        retry_after: seconds, for 429 and 503.
    """

    def __init__(
        self,
        code: int,
        *,
        claims: str | None = None,
        retry_after: int | None = None,
        values: Mapping[str, object] | None = None,
        **more: object,
    ) -> None:
        self.kind = KINDS[code]
        self.text = self.kind.text.format_map({**(values or {}), **more})
        self.claims = claims
        self.retry_after = retry_after
        super().__init__(f"AADSTS{code}: {self.text}")

    @property
    def code(self) -> int:
        """The AADSTS number."""
        return self.kind.code

    def body(self, now: float, base_url: str, trace_id: str, correlation_id: str) -> dict[str, Any]:
        """The JSON object of the token endpoint's answer. `now`: seconds since the epoch."""
        timestamp = format_time(now)
        body: dict[str, Any] = {
            "error": self.kind.error,
            "error_description": f"AADSTS{self.code}: {self.text}\r\nTrace ID: {trace_id}\r\n"
            f"Correlation ID: {correlation_id}\r\nTimestamp: {timestamp}",
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{base_url}/error?code={self.code}",
        }
        if self.kind.suberror is not None:
            body["suberror"] = self.kind.suberror
        if self.claims is not None:
            body["claims"] = self.claims
        return body


def format_time(now: float) -> str:
    """Entra's timestamps: `YYYY-MM-DD HH:MM:SSZ`."""
    moment = datetime.datetime.fromtimestamp(max(0.0, min(now, 253402300799.0)), datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def new_trace_id() -> str:
    """An id for one answer."""
    return str(uuid.uuid4())
