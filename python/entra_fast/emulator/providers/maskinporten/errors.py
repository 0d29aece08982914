"""The refusals of Maskinporten: one row for each, and the JSON object of the response.

When one applies is decided elsewhere. Maskinporten documents neither a number nor the OAuth error of some of
them; those have the likely one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.providers.maskinporten import metadata
from entra_fast.emulator.providers.refusals import Refusal

_NOT_AUTHENTICATED: Final = "Invalid assertion. Client authentication failed."


@dataclass(frozen=True, slots=True)
class Row:
    """A kind of refusal.

    Attributes:
        code: such as `MP-100`; empty where there is none.
        text: with places for values.
        check: short name of the check that failed.
    """

    code: str
    status: int
    error: str
    text: str
    check: str


UNSUPPORTED_GRANT_TYPE: Final = Row("", 400, "unsupported_grant_type", "Unsupported grant type", "request")
INVALID_PARAMETER: Final = Row(
    "MP-011", 400, "invalid_request", "Invalid assertion. Invalid parameter value", "request"
)
USED_BEFORE: Final = Row("MP-012", 400, "invalid_grant", "Grant is used before", "credential")
UNKNOWN_CLIENT: Final = Row("MP-100", 400, "invalid_grant", _NOT_AUTHENTICATED, "client")
WRONG_AUDIENCE: Final = Row(
    "MP-110", 400, "invalid_grant", f"{_NOT_AUTHENTICATED} Invalid JWT claim aud.", "credential"
)
EXPIRED_KEY: Final = Row("MP-121", 400, "invalid_grant", f"{_NOT_AUTHENTICATED} Expired key.", "credential")
INVALID_SIGNATURE: Final = Row(
    "MP-124", 400, "invalid_grant", f"{_NOT_AUTHENTICATED} Invalid JWT signature.", "credential"
)
UNKNOWN_KEY: Final = Row(
    "", 400, "invalid_grant", f"{_NOT_AUTHENTICATED} Unknown key identifier (kid) for client.", "credential"
)
CERTIFICATE: Final = Row(
    "",
    400,
    "invalid_grant",
    f"{_NOT_AUTHENTICATED} Unknown key identifier (kid) for client: it has a registered key, so the header "
    "must have the kid of that key in place of x5c.",
    "credential",
)
EXPIRED: Final = Row("MP-130", 400, "invalid_grant", "JWT is expired", "credential")
ISSUED_LATER: Final = Row("", 400, "invalid_grant", "Issue time is after now", "credential")
INVALID_SCOPES: Final = Row(
    "MP-200", 400, "invalid_scope", "Token request contains invalid scopes for client, {scope}", "scope"
)
NOT_GRANTED: Final = Row(
    "MP-250", 403, "forbidden", "Consumer has not been granted access to the scope {scope}.", "scope"
)
NOT_DELEGATED: Final = Row(
    "MP-251",
    403,
    "forbidden",
    "Consumer {consumer} has not delegated access to the scope {scope} to supplier {supplier}.",
    "scope",
)
UNKNOWN_DETAILS_TYPE: Final = Row(
    "MP-301", 400, "invalid_request", "Invalid authorization_details. Unknown type", "request"
)
UNKNOWN_DETAILS_FIELD: Final = Row(
    "MP-302", 400, "invalid_request", "Invalid authorization_details. Unknown field", "request"
)
INVALID_DETAILS_VALUE: Final = Row(
    "MP-303", 400, "invalid_request", "Invalid authorization_details. Invalid value", "request"
)

ROWS: Final = (
    INVALID_PARAMETER,
    USED_BEFORE,
    UNKNOWN_CLIENT,
    WRONG_AUDIENCE,
    EXPIRED_KEY,
    INVALID_SIGNATURE,
    EXPIRED,
    INVALID_SCOPES,
    NOT_GRANTED,
    NOT_DELEGATED,
    UNKNOWN_DETAILS_TYPE,
    UNKNOWN_DETAILS_FIELD,
    INVALID_DETAILS_VALUE,
)
"""Those with a code."""


def refusal(row: Row, *, location: str = "", remedy: str = "", **values: str) -> Refusal:
    """A refusal.

    Args:
        location: `<file>:<line>` that it depends on.
        remedy: what to change.
        values: for the places of the text.
    """
    return Refusal(
        row.status,
        row.error,
        row.text.format_map(values),
        check=row.check,
        location=location,
        remedy=remedy,
        code=row.code,
    )


def body(found: Refusal, base_url: str) -> dict[str, str]:
    """The JSON object of the response, with an id of its own in the description."""
    content = found.body()
    content["error_description"] += f" (trace_id: {secrets.token_hex(16)})"
    if found.code:
        content["error_uri"] = f"{metadata.issuer(base_url)}errors/{found.code}"
    return content
