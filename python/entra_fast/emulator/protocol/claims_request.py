"""The `claims` parameter (OpenID Connect Core 1.0, section 5.5): how clients answer a claims challenge.

Honored are authentication contexts (`acrs`), client capabilities (`xms_cc`), and individual claims of ID
tokens. There is no second factor here, so that an authentication context is taken as given; a refusal can be
planned as a fault (AADSTS50076). Everything else is accepted and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from entra_fast.emulator.protocol.aadsts import EntraError

MAX_LENGTH: Final = 8192
MAX_VALUES: Final = 25

_VALUE: Final = re.compile(r"[A-Za-z0-9:._-]{1,100}")
_CLAIMS_WITH_VALUES: Final = ("acrs", "xms_cc")
_MEMBERS: Final = ("access_token", "id_token", "userinfo")


@dataclass(frozen=True, slots=True)
class ClaimsRequest:
    """What is requested.

    Attributes:
        access_token: claims of the access token.
        id_token: claims of the ID token by name; the values that it has to have, if any.
    """

    access_token: Mapping[str, tuple[str, ...]]
    id_token: Mapping[str, tuple[str, ...]]

    @property
    def access_token_claims(self) -> dict[str, list[str]]:
        """The claims that an access token has because of this request."""
        return _with_values(self.access_token)

    @property
    def id_token_claims(self) -> dict[str, list[str]]:
        """The same for an ID token; those without values are the token's own business."""
        return _with_values(self.id_token)

    def text(self) -> str:
        """As a `claims` parameter; empty for nothing."""
        members = {"access_token": self.access_token, "id_token": self.id_token}
        document = {
            member: {name: {"values": list(values)} if values else None for name, values in claims.items()}
            for member, claims in members.items()
            if claims
        }
        return orjson.dumps(document).decode() if document else ""

    def and_also(self, other: ClaimsRequest) -> ClaimsRequest:
        """Both: what was requested at the login, and what is requested now."""
        return ClaimsRequest(
            _merged(self.access_token, other.access_token), _merged(self.id_token, other.id_token)
        )


NOTHING: Final = ClaimsRequest({}, {})


def parse(text: str) -> ClaimsRequest:
    """Parse a `claims` parameter; an empty one requests nothing.

    Raises:
        EntraError: 9002313, it is not a JSON object of that form.
    """
    if not text:
        return NOTHING
    if len(text) > MAX_LENGTH:
        raise _malformed(f"is longer than {MAX_LENGTH} characters")
    try:
        document = orjson.loads(text)
    except ValueError:
        raise _malformed("is not valid JSON") from None
    if not isinstance(document, dict):
        raise _malformed("must be a JSON object")
    members = {name: _member(name, document.get(name)) for name in _MEMBERS}
    return ClaimsRequest(members["access_token"], members["id_token"])


def _member(name: str, member: Any) -> dict[str, tuple[str, ...]]:
    if member is None:
        return {}
    if not isinstance(member, dict):
        raise _malformed(f"has a member '{name}' that is not an object")
    return {claim: _values(claim, request) for claim, request in member.items()}


def _values(claim: str, request: Any) -> tuple[str, ...]:
    if request is None:  # requested without any conditions
        return ()
    shown = f"'{claim[:50]}'" if _VALUE.fullmatch(claim[:50]) else "a claim"
    if not isinstance(request, dict):
        raise _malformed(f"requests {shown} by something that is neither an object nor null")
    if not isinstance(request.get("essential", False), bool):
        raise _malformed(f"requests {shown} with an 'essential' that is neither true nor false")
    values = request.get("values", [])
    if "value" in request:
        values = [request["value"]]
    if claim not in _CLAIMS_WITH_VALUES:
        return ()  # ignored, so that its values may be of any kind
    if not isinstance(values, list) or len(values) > MAX_VALUES:
        raise _malformed(f"requests {shown} with 'values' that are not an array of at most {MAX_VALUES}")
    if not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in values):
        raise _malformed(f"requests {shown} with a value that is not a name such as c1 or cp1")
    return tuple(dict.fromkeys(values))


def _with_values(claims: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(claims[name]) for name in _CLAIMS_WITH_VALUES if claims.get(name)}


def _merged(
    first: Mapping[str, tuple[str, ...]], second: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(dict.fromkeys((*first.get(name, ()), *second.get(name, ()))))
        for name in dict.fromkeys((*first, *second))
    }


def _malformed(problem: str) -> EntraError:
    return EntraError(9002313, reason=f"the parameter 'claims' {problem}")
