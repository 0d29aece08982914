"""Checked requests to the three endpoints, from the bytes of a body.

Belongs here: the values that the handlers work with, and the exception for a request that is refused. The
rules and the sentences are in the core (rust/core/src/sidecar/contract.rs), because the fast path has to
decide in the same way. Does not belong here: what the fields are used for.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """A request to `/api/v1/token` or `/api/v1/token/exchange`."""

    target: str
    skip_cache: bool
    user_token: str | None = None
    claims: str | None = None


def is_form(content_types: Iterable[str]) -> bool:
    """Whether a body is a form, from the values of its Content-Type headers; else it is JSON.

    Raises:
        BadRequest: there is not exactly one, or it is another.
    """
    try:
        return _native.is_form(list(content_types))
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None


def token_request(body: bytes, *, form: bool, exchange: bool, one_provider: bool) -> TokenRequest:
    """The request to `/api/v1/token`, or with `exchange` to `/api/v1/token/exchange`.

    Args:
        one_provider: whether exactly one provider is enabled, so that `identity_provider` may be left out.

    Raises:
        BadRequest: the sentence names the field and what was expected.
    """
    try:
        return TokenRequest(
            *_native.parse_token_request(body, form=form, exchange=exchange, one_provider=one_provider)
        )
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None


def introspected_token(body: bytes, *, form: bool, one_provider: bool) -> str:
    """The token in a request to `/api/v1/introspect`.

    Args:
        one_provider: as `token_request`.

    Raises:
        BadRequest: as `token_request`.
    """
    try:
        return _native.parse_introspection_request(body, form=form, one_provider=one_provider)
    except EntraFastError as exc:
        raise BadRequest(exc.message) from None
