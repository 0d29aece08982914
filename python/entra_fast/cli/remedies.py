"""What to do about a refusal, by provider: for people who run a command or read a check of `doctor`.

What belongs here: one row for each refusal that says what to change, with what is typical of it: the code, or
words of the sentence where the provider has no codes. docs/guides/troubleshooting.md has the same in its
table of symptoms. What must never be here: what a refusal means to the sidecar (_providers.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from entra_fast._providers import ANSATTPORTEN, ENTRA_ID, IDPORTEN, MASKINPORTEN, TOKENX, named

_CLOCK: Final = "check this machine's clock"
_SAME_TENANT: Final = "check that AZURE_APP_CLIENT_ID and AZURE_APP_TENANT_ID belong to the same environment"
_NO_RULE: Final = (
    "add this application to accessPolicy.inbound.rules of the target; 'entra-fast explain{option}' shows "
    "the rule that is missing"
)
_TOKENX_KEY: Final = "mount the current TOKEN_X_PRIVATE_JWK"
_MASKINPORTEN_KEY: Final = "mount the current MASKINPORTEN_CLIENT_JWK, or register its public half"
_DETAILS: Final = "correct 'authorization_details': see the description of the API that the token is for"

_ROWS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    ENTRA_ID.name: (
        ("AADSTS700016|AADSTS90002", _SAME_TENANT),
        ("AADSTS7000112", "let an administrator of the tenant enable the application"),
        ("AADSTS7000215", "mount the current client secret: its value, not its id"),
        ("AADSTS7000222", "create a new client secret, and mount it"),
        (
            "AADSTS700027",
            "register the certificate of the key with the application, or mount the current key",
        ),
        ("AADSTS700024", f"{_CLOCK}; check that the file with the federated token rotates"),
        (
            "AADSTS700213",
            "compare issuer and subject of the federated token with the application's registration",
        ),
        ("AADSTS500011", "check the name of the target: cluster, namespace, application"),
        ("AADSTS501051|AADSTS65001", _NO_RULE.format(option="")),
        ("AADSTS50105", "add a group of the user to claims.groups of the target"),
    ),
    TOKENX.name: (
        (
            "client not registered",
            "check that TOKEN_X_CLIENT_ID and TOKEN_X_WELL_KNOWN_URL belong to the same environment, and "
            "that the manifest has tokenx.enabled: true",
        ),
        (
            "token exchange audience .* is invalid",
            "check the name of the target, <cluster>:<namespace>:<app>, and that its manifest has "
            "tokenx.enabled: true",
        ),
        ("is not authorized to get token with aud=", _NO_RULE.format(option=" --provider tokenx")),
        (
            "invalid subject_token: .*audience does not match",
            "pass a token that was issued to this application: TokenX exchanges its own tokens for no other",
        ),
        (
            "invalid subject_token: .*cannot validate token from issuer",
            "pass a token of ID-porten or TokenX: TokenX does not know the issuer of this one",
        ),
        ("invalid subject_token", "pass a token of ID-porten or TokenX that is valid now"),
        ("max lifetime|[Ee]xpired|before use time|issue time ahead", _CLOCK),
        (
            "JWT aud claim has value",
            "check TOKEN_X_ISSUER: it is the audience of assertions, and must be TokenX's own",
        ),
        ("token verification failed|Client authentication failed", _TOKENX_KEY),
    ),
    MASKINPORTEN.name: (
        (
            "MP-100",
            "check that MASKINPORTEN_CLIENT_ID and MASKINPORTEN_WELL_KNOWN_URL belong to the same "
            "environment",
        ),
        ("MP-110", "check MASKINPORTEN_ISSUER: it is the audience of grants, and ends with a slash"),
        ("MP-121", "register a new key, and mount it as MASKINPORTEN_CLIENT_JWK"),
        ("MP-124|Unknown key identifier", _MASKINPORTEN_KEY),
        ("MP-130|JWT is expired|Issue time is after now", f"{_CLOCK}: it may differ by 10 s at most"),
        ("MP-012|Grant is used before", "try again: a grant can be used once"),
        ("MP-200", "add the scope to maskinporten.scopes.consumes in the manifest"),
        (
            "MP-250",
            "let the owner of the scope grant it to your organization; 'entra-fast explain --provider "
            "maskinporten' shows what is missing",
        ),
        ("MP-251", "let the customer delegate the scope to your organization, in Altinn"),
        ("MP-30[123]", _DETAILS),
        ("MP-011", "check 'resource' and 'authorization_details'"),
    ),
}
_OF_SIDECAR: Final[Mapping[tuple[str, str], str]] = {
    (TOKENX.name, "token requests"): "exchange a user's token: TokenX gives no others",
    (IDPORTEN.name, "token requests"): "ID-porten's tokens are introspected: users get them by logging in",
    (IDPORTEN.name, "token exchange"): "exchange ID-porten's tokens at TokenX: 'identity_provider' tokenx",
    (ANSATTPORTEN.name, "token requests"): (
        "Ansattporten's tokens are introspected: users get them by logging in"
    ),
    (ANSATTPORTEN.name, "token exchange"): "Ansattporten's tokens are introspected, and cannot be exchanged",
    (MASKINPORTEN.name, "token exchange"): "request a token: Maskinporten gives them to organizations only",
}
"""By provider and what it does not support."""


def remedy(provider: str, *said: str) -> str | None:
    """What to do about a refusal, or None.

    Args:
        provider: a value of `identity_provider`.
        said: code, error, description: whatever there is of the refusal.
    """
    kind = named(provider)
    if kind is None:
        return None
    text = " ".join(said)
    if "is not enabled" in text and kind.variables.enabled is not None:
        return (
            f"enable {kind.title} in the application's manifest; without NAIS, set {kind.variables.enabled} "
            "to true"
        )
    unsupported = re.search(r"does not support (token \w+)", text)
    if unsupported is not None:
        return _OF_SIDECAR.get((kind.name, unsupported[1]))
    return next((advice for words, advice in _ROWS.get(kind.name, ()) if re.search(words, text)), None)


def remedy_of_answer(provider: str, answer: Mapping[str, Any]) -> str | None:
    """The same for the JSON object that a sidecar has answered."""
    return remedy(
        provider, *(str(answer.get(name, "")) for name in ("error", "error_description", "error_uri"))
    )
