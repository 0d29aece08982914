"""Tokens that must be rejected, made of those that would be accepted.

What belongs here: what is wrong with each. What a good token says belongs to its provider (_tokens.py,
_providers.py)."""

from __future__ import annotations

from typing import Any, Final

LONG_AGO: Final = 86_400
"""Seconds by which the times of bad tokens are off: more than any lifetime and leeway."""

WRONG_AUDIENCE: Final = "ffffffff-ffff-4fff-bfff-ffffffffffff"
WRONG_ISSUER: Final = "https://issuer.test/v2.0"

BAD: Final = (
    "expired",
    "malformed",
    "not_yet_valid",
    "wrong_audience",
    "wrong_issuer",
    "wrong_key",
    "wrong_signature",
)
"""The methods that make tokens which must be rejected."""


def expired(content: dict[str, Any]) -> dict[str, Any]:
    """The claims of a token that expired a day ago."""
    return content | {name: content[name] - LONG_AGO for name in ("iat", "nbf", "exp") if name in content}


def not_yet_valid(content: dict[str, Any]) -> dict[str, Any]:
    """The claims of a token that is valid from tomorrow."""
    return content | {"nbf": content["iat"] + LONG_AGO, "exp": content["exp"] + LONG_AGO}


def tampered(token: str) -> str:
    """A token that was changed after it was signed."""
    # A character in the middle of the signature: the last one has bits that do not count.
    place = token.rindex(".") + 40
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]


def unsigned(token: str) -> str:
    """A token without its signature."""
    return token.rpartition(".")[0]
