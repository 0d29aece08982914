"""The value of `WWW-Authenticate` for bearer tokens (RFC 6750, section 3).

    bearer(realm="cases")                                  # no token came
    bearer(realm="cases", error="invalid_token", description=error.message)
    for_step_up(error, realm="cases", authorization_uri="https://login.microsoftonline.com/.../authorize")

What belongs here: how a challenge is written. Every function is pure, and no input can add a parameter or a
header: what may not stand in a quoted string is refused where the service names it, and replaced in
    descriptions. What must
never be here: which challenge a request gets (`integrations/_core.py`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from entra_fast._assurance import in_requests
from entra_fast.errors import StepUpRequired

__all__ = ["bearer", "claims_for_auth_contexts", "for_step_up"]

MAX_DESCRIPTION: Final = 500
"""Limit of a description, in characters: servers and proxies limit a header to some kilobytes."""

MAX_CLAIMS: Final = 4096
"""Limit of a claims challenge, in bytes of JSON."""

_QUOTABLE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6750, section 3
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3
_URI = re.compile(r"https?://[\x21\x23-\x5b\x5d\x5f\x61-\x7a\x7e]+")  # RFC 3986, without what it excludes


def bearer(
    *,
    realm: str,
    error: str | None = None,
    description: str | None = None,
    scope: Iterable[str] = (),
    acr_values: Iterable[str] = (),
    authorization_uri: str | None = None,
    claims: Mapping[str, Any] | str | None = None,
    resource_metadata: str | None = None,
) -> str:
    """A challenge of the scheme `Bearer`.

    Args:
        realm: name of what is protected.
        error: `invalid_request`, `invalid_token`, `insufficient_scope`, `insufficient_claims` (Entra ID) or
            `insufficient_user_authentication` (RFC 9470). Leave it out where no token came (RFC 6750, section
            3.1).
        description: a sentence for developers. What the grammar does not allow is replaced, and it is cut to
            500 characters.
        scope: scopes that suffice.
        acr_values: accepted levels of authentication (RFC 9470, section 3).
        authorization_uri: where the user signs in.
        claims: a claims challenge of Entra ID, as an object or as its JSON text; written in Base64.
        resource_metadata: URL of the metadata of the resource (RFC 9728, section 5.1).

    Returns:
        The value of the header, in ASCII.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument cannot stand in a challenge, or `claims` is no JSON object of at most 4096
        bytes.
    """
    parameters = {
        "realm": _quotable("realm", realm),
        "error": None if error is None else _quotable("error", error),
        "error_description": None if description is None else described(description),
        "scope": _list("scope", scope),
        "acr_values": _list("acr_values", acr_values),
        "authorization_uri": _uri("authorization_uri", authorization_uri),
        "claims": None if claims is None else _base64(claims),
        "resource_metadata": _uri("resource_metadata", resource_metadata),
    }
    return "Bearer " + ", ".join(
        f'{name}="{value}"' for name, value in parameters.items() if value is not None
    )


def for_step_up(
    error: StepUpRequired,
    *,
    realm: str,
    authorization_uri: str | None = None,
    resource_metadata: str | None = None,
) -> str:
    """The challenge that tells a client how the user must sign in.

    Args:
        error: as `Require.check` raised it.
        realm: name of what is protected.
        authorization_uri: where the user signs in: the provider's authorization endpoint.
        resource_metadata: URL of the metadata of the resource (RFC 9728, section 5.1).

    Returns:
        The value of the header: a claims challenge (Entra ID) for authentication contexts, else one of RFC
        9470.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: an argument cannot stand in a challenge.
    """
    contexts = error.auth_contexts
    return bearer(
        realm=realm,
        error="insufficient_claims" if contexts else "insufficient_user_authentication",
        description=error.message,
        acr_values=() if error.acr_at_least is None else (in_requests(error.acr_at_least),),
        authorization_uri=authorization_uri,
        claims=claims_for_auth_contexts(contexts) if contexts else None,
        resource_metadata=resource_metadata,
    )


def claims_for_auth_contexts(contexts: Iterable[str]) -> dict[str, Any]:
    """The claims challenge for authentication contexts of Conditional Access.

    Args:
        contexts: ids of the contexts, `c1` to `c99`.

    Returns:
        The object that the client passes to the provider as `claims`.
    """
    wanted = list(contexts)
    value = {"value": wanted[0]} if len(wanted) == 1 else {"values": wanted}
    return {"access_token": {"acrs": {"essential": True, **value}}}


def described(text: str) -> str:
    """A sentence as it may stand in `error_description` (RFC 6750, section 3)."""
    if not isinstance(text, str):
        raise TypeError(f"description is a string, not {type(text).__name__}")
    plain = text[:MAX_DESCRIPTION].translate({ord('"'): "'", ord("\\"): "/"})
    return "".join(one if " " <= one <= "~" else "?" for one in plain)


def check_realm(realm: object) -> str:
    """The realm, if it can stand in a challenge.

    Raises:
        TypeError: it is no string.
        ValueError: it is empty or has characters other than printable ASCII without quotes and backslashes.
    """
    return _quotable("realm", realm)


def _quotable(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    if not _QUOTABLE.fullmatch(value):
        raise ValueError(f"{name} is printable ASCII without quotes and backslashes, and not empty")
    return value


def _list(name: str, values: Iterable[str]) -> str | None:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} is a list of names, not {type(values).__name__}")
    names = list(values)
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"{name} is a list of names, not of {type(one).__name__}")
        if not _SCOPE.fullmatch(one):
            raise ValueError(f"each name in {name} is printable ASCII without spaces, quotes and backslashes")
    return " ".join(names) or None


def _uri(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is a string, not {type(value).__name__}")
    if not _URI.fullmatch(value):
        raise ValueError(f"{name} is an http or https URL in ASCII")
    return value


def _base64(claims: Mapping[str, Any] | str) -> str:
    """Base64 with padding (RFC 4648, section 4), as Entra ID's clients expect it."""
    if isinstance(claims, str):
        try:
            document = orjson.loads(claims)
        except ValueError:
            document = None
        text = claims.encode("utf-8", "surrogatepass")
    elif isinstance(claims, Mapping):
        document, text = claims, orjson.dumps(dict(claims))
    else:
        raise TypeError(f"claims is an object or its JSON text, not {type(claims).__name__}")
    if not isinstance(document, Mapping):
        raise ValueError("claims is not the text of a JSON object")  # noqa: TRY004 - the type is right
    if len(text) > MAX_CLAIMS:
        raise ValueError(f"claims has at most {MAX_CLAIMS} bytes, not {len(text)}")
    return base64.b64encode(text).decode("ascii")
