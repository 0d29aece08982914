"""What the members of a token mean, for people: a row for each, with readable times. Verifies nothing.

The meanings are those of RFC 7519, RFC 9068, OpenID Connect Core 1.0 and Microsoft's claims references.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

MAX_VALUE_CHARACTERS: Final = 1000
MAX_MEMBERS: Final = 50

HEADER_MEANINGS: Final = {
    "alg": "Algorithm of the signature",
    "kid": "ID of the signing key in the issuer's key set",
    "typ": "Type of the token",
    "x5t": "Thumbprint (SHA-1) of the signing key's certificate",
    "x5t#S256": "Thumbprint (SHA-256) of the signing key's certificate",
}
CLAIM_MEANINGS: Final = {
    "acr": "Level of authentication: at ID-porten a level of assurance; at Entra ID, 1 means that the user "
    "was authenticated as ISO/IEC 29115 requires",
    "acrs": "Authentication contexts that the sign-in satisfied",
    "aio": "Internal to Entra ID; do not use it",
    "amr": "How the user was authenticated",
    "app_displayname": "Display name of the application that called (v1.0 tokens)",
    "appid": "Client ID of the application that called (v1.0 tokens)",
    "appidacr": "How that application proved its identity: 0 not at all, 1 by secret, 2 by certificate or "
    "assertion (v1.0 tokens)",
    "at_hash": "Binds the ID token to the access token that came with it",
    "aud": "Audience: the application that the token is for. No other application may accept it",
    "auth_time": "When the user signed in",
    "azp": "Client ID of the application that the token was issued to (the caller)",
    "azp_name": "Name of the application that the token was issued to (the caller)",
    "azpacr": "How the caller proved its identity: 0 not at all, 1 by secret, 2 by certificate or assertion",
    "client_amr": "How the client that called proved its identity (ID-porten, Maskinporten)",
    "client_id": "Client ID of the application that the token was issued to (the caller)",
    "consumer": "Organization on whose behalf the caller acts (Maskinporten, ID-porten)",
    "delegation_source": "Where the consumer let the supplier act on its behalf (Maskinporten)",
    "c_hash": "Binds the ID token to the code that came with it",
    "email": "E-mail address of the user; no proof of identity",
    "exp": "Expires: the token must not be accepted after this time",
    "family_name": "The user's last name",
    "given_name": "The user's first name",
    "groups": "Object IDs of the user's groups that are assigned to the audience",
    "hasgroups": "The user has too many groups for the token; ask Microsoft Graph",
    "_claim_names": "Claims that are not in the token, and where they are",
    "_claim_sources": "Where to ask for the claims that are not in the token",
    "iat": "Issued at",
    "idp": "Identity provider that authenticated the user",
    "idtyp": "Kind of token: app for an application's own",
    "ipaddr": "IP address that the user signed in from",
    "iss": "Issuer: who issued and signed the token",
    "jti": "ID of the token",
    "locale": "Language of the login (ID-porten)",
    "name": "Display name of the user; neither unique nor constant",
    "NAVident": "The employee's NAV ident",
    "nbf": "Not valid before this time",
    "nonce": "Binds the ID token to the request that asked for it",
    "oid": "Object ID of the user or of the calling application: the same in all applications of the tenant",
    "pid": "National identity number or D-number of the user (ID-porten, TokenX)",
    "preferred_username": "User name for display; it can change",
    "rh": "Internal to Entra ID; do not use it",
    "roles": "Application roles of the caller (machine-to-machine) or of the user",
    "scp": "Scopes: what the caller may do on behalf of the user",
    "scope": "Scopes: what the caller may do",
    "sid": "Session at the provider",
    "sub": "Subject: the user or application, by an ID that differs for each audience",
    "supplier": "Organization that acts on behalf of the consumer (Maskinporten)",
    "tid": "ID of the tenant",
    "unique_name": "User name for display; it can change (v1.0 tokens)",
    "upn": "User principal name; it can change",
    "uti": "ID of the token, internal to Entra ID",
    "ver": "Version of the token",
    "wids": "Directory roles of the user",
    "xms_act_fct": "Facets of the acting party (agents)",
    "xms_sub_fct": "Facets of the subject (agents)",
    "xms_par_app_azp": "Client ID of the agent's blueprint application",
}
_TIMES: Final = frozenset({"exp", "iat", "nbf", "auth_time"})
_UNITS: Final = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True)
class Member:
    """A member of header or claims. `value`: as JSON, strings without quotes; `note`: a readable time."""

    name: str
    value: str
    meaning: str
    note: str = ""


def header_members(header: Mapping[str, Any]) -> tuple[Member, ...]:
    """The header, in its order; the first MAX_MEMBERS."""
    return tuple(
        Member(name, _text(value), HEADER_MEANINGS.get(name, ""))
        for name, value in list(header.items())[:MAX_MEMBERS]
    )


def claim_members(claims: Mapping[str, Any], now: float) -> tuple[Member, ...]:
    """The claims, in their order; the first MAX_MEMBERS. `now`: seconds since the epoch."""
    return tuple(
        Member(
            name,
            _text(value),
            CLAIM_MEANINGS.get(name, ""),
            readable_time(value, now) if name in _TIMES else "",
        )
        for name, value in list(claims.items())[:MAX_MEMBERS]
    )


def readable_time(value: object, now: float) -> str:
    """`2026-11-28 00:10:00 UTC, in 59 minutes`; empty for what is no time. Seconds since the epoch."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    try:
        moment = datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {distance(value - now)}"


def distance(seconds: float) -> str:
    """`in 59 minutes`, `2 days ago`: in the largest unit of which there are at least two."""
    whole = round(abs(seconds))
    if whole == 0:
        return "now"
    size, unit = next(((size, unit) for size, unit in _UNITS if whole >= 2 * size), _UNITS[-1])
    count = whole // size
    amount = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_VALUE_CHARACTERS:
        return text
    return f"{text[:MAX_VALUE_CHARACTERS]}... ({len(text)} characters)"
