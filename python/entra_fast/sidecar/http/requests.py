"""Checked requests to the three endpoints, from the bytes of a body.

Belongs here: the values that the handlers work with, and the exception for a request that is refused. The
rules and the sentences are in the core (rust/core/src/sidecar/contract.rs), because the fast path has to
decide in the same way. Does not belong here: what the fields are used for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from entra_fast import _native
from entra_fast.errors import EntraFastError

MAX_BODY_BYTES = _native.MAX_BODY_BYTES
"""A larger body is refused before it is parsed."""


class BadRequest(Exception):
    """The request cannot be served as it is. `status` is the answer's status at the token endpoints."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """A request to `/api/v1/token` or `/api/v1/token/exchange`.

    Attributes:
        provider: its position.
        resources: the values of `resource` (RFC 8707).
        authorization_details: the text of a JSON array of objects (RFC 9396).
    """

    provider: int
    target: str
    skip_cache: bool
    user_token: str | None
    claims: str | None
    resources: Sequence[str]
    authorization_details: str | None


def is_form(content_types: Iterable[str]) -> bool:
    """Whether a body is a form, from the values of its Content-Type headers; else it is JSON.

    Raises:
        BadRequest: there is not exactly one, or it is another.
    """
    try:
        return _native.is_form(list(content_types))
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None


def token_request(contract: _native.Providers, body: bytes, *, form: bool, exchange: bool) -> TokenRequest:
    """The request to `/api/v1/token`, or with `exchange` to `/api/v1/token/exchange`.

    Args:
        contract: the enabled providers.

    Raises:
        BadRequest: the sentence names the field and what was expected.
    """
    try:
        return TokenRequest(*contract.parse_token_request(body, form=form, exchange=exchange))
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None


def introspected_token(contract: _native.Providers, body: bytes, *, form: bool) -> tuple[int, str]:
    """The position of the provider and the token in a request to `/api/v1/introspect`.

    Args:
        contract: the enabled providers.

    Raises:
        BadRequest: as `token_request`.
    """
    try:
        return contract.parse_introspection_request(body, form=form)
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None
