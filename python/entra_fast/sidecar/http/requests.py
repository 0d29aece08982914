"""A request's body becomes checked fields. Bytes in, values or `BadRequest` out; no I/O.

What belongs here: the two content types, strictness about duplicates and types, and the sentences that name
the field and what was expected. What must never be here: what the fields are used for. Nothing of a body is
ever repeated in a sentence.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from entra_fast import _native

MAX_BODY_BYTES = 131_072
"""A larger body is refused before it is parsed."""
MAX_FORM_FIELDS = 64

PROVIDERS = ("entra_id", "azuread")
"""The provider's name and its older one: one provider."""

Kind = Literal["json", "form"]


class BadRequest(Exception):
    """The request cannot be served as it is. `status` is the answer's status at the token endpoints."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """What `/api/v1/token` and `/api/v1/token/exchange` are asked for."""

    target: str
    skip_cache: bool
    user_token: str = ""


def body_kind(content_types: Iterable[str]) -> Kind:
    """The form of a body, from the values of its Content-Type headers.

    Raises:
        BadRequest: there is not exactly one, or it is another.
    """
    values = list(content_types)
    media_type = values[0].partition(";")[0].strip().lower() if len(values) == 1 else ""
    if media_type == "application/json":
        return "json"
    if media_type == "application/x-www-form-urlencoded":
        return "form"
    raise BadRequest("content-type must be 'application/json' or 'application/x-www-form-urlencoded'")


def parse_fields(kind: Kind, body: bytes) -> Mapping[str, object]:
    """The fields of a body.

    Raises:
        BadRequest: it is malformed, or a field is there twice.
    """
    return _parse_json(body) if kind == "json" else _parse_form(body)


def token_request(fields: Mapping[str, object], kind: Kind) -> TokenRequest:
    """Fields of `/api/v1/token`."""
    check_provider(fields)
    return TokenRequest(_text(fields, "target"), _flag(fields, kind))


def exchange_request(fields: Mapping[str, object], kind: Kind) -> TokenRequest:
    """Fields of `/api/v1/token/exchange`."""
    check_provider(fields)
    return TokenRequest(_text(fields, "target"), _flag(fields, kind), _text(fields, "user_token"))


def introspected_token(fields: Mapping[str, object]) -> str:
    """The token that `/api/v1/introspect` is asked about."""
    check_provider(fields)
    return _text(fields, "token")


def check_provider(fields: Mapping[str, object]) -> None:
    if _text(fields, "identity_provider") not in PROVIDERS:
        raise BadRequest("identity_provider must be 'entra_id' (or its older name 'azuread')")


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise BadRequest(f"{name} is missing: expected a string")
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    if not value:
        raise BadRequest(f"{name} must not be empty")
    return value


def _flag(fields: Mapping[str, object], kind: Kind) -> bool:
    value = fields.get("skip_cache")
    if value is None:
        return False
    if kind == "json" and isinstance(value, bool):
        return value
    if kind == "form" and value in ("true", "false"):
        return value == "true"
    expected = "true or false, as a JSON boolean" if kind == "json" else "'true' or 'false'"
    raise BadRequest(f"skip_cache must be {expected}")


def _parse_json(body: bytes) -> Mapping[str, object]:
    try:
        members = _native.parse_json(body)
    except ValueError as exc:  # its text repeats nothing of the body
        raise BadRequest(f"request body is not valid JSON: {exc}") from None
    if not isinstance(members, dict):
        raise BadRequest("request body must be a JSON object")
    return members


def _parse_form(body: bytes) -> Mapping[str, object]:
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FORM_FIELDS,
        )
    except ValueError:  # includes UnicodeDecodeError, whose text holds the body
        raise BadRequest("request body is not a valid form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("request body has a field twice")
    return fields
