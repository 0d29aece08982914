"""What the authentication classes of all HTTP clients share: which origins get a token, and when a token is
renewed.

What belongs here: decisions, without any HTTP client. A token is sent to the origins that the program names
and to no other one, however a request gets there. After a 401 with a claims challenge (Entra ID:
`insufficient_claims`), one new token is requested for it and the request is repeated once.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import logging
import re
from collections.abc import Awaitable, Iterable
from typing import Final, Protocol, TypeVar

from entra_fast import _native
from entra_fast.errors import ConfigurationError, ProviderError
from entra_fast.tokens._token import Token

logger = logging.getLogger("entra_fast.tokens")

ERROR_CODES = {
    "origin_invalid": "an origin that may get tokens is not of the form https://host or https://host:port"
}

MAX_CHALLENGE_BYTES: Final = 8192
"""Maximum size of a claims challenge, decoded."""
MAX_FIELD: Final = 65_536
"""Characters of `WWW-Authenticate` that are read."""
MAX_WARNED: Final = 100
"""Maximum number of origins that are remembered as warned about."""

DEFAULT_PORTS: Final = {"https": 443, "http": 80}

Origin = tuple[str, str, int]
"""Scheme, host and port (RFC 6454, section 4), in lower case."""

T = TypeVar("T")


class TokenSource(Protocol):
    """`TokenClient`, or `TokenClient.for_user(...)`."""

    def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token: ...


class AsyncTokenSource(Protocol):
    """`AsyncTokenClient`, or `AsyncTokenClient.for_user(...)`."""

    async def token(self, target: str, *, skip_cache: bool = False, claims: str | None = None) -> Token: ...


_ORIGIN = re.compile(r"(https?)://([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?/?", re.ASCII)


class Origins:
    """The origins that get a token.

    Args:
        origins: `https://host`, with a port unless it is 443. `http://host:port` sends the token in clear
            text: for loopback, and for networks that encrypt below HTTP. There are no wildcards.

    Raises:
        ConfigurationError: code `origin_invalid`.
    """

    def __init__(self, origins: Iterable[str]) -> None:
        named = [origins] if isinstance(origins, str) else list(origins)
        self._allowed = frozenset(_parsed(origin) for origin in named)
        self._warned: set[Origin] = set()
        if not self._allowed:
            raise _invalid(
                "origins is empty: name the origins that get the token, such as https://api.example"
            )

    def allow(self, scheme: str, host: str | None, port: int | None, *, warn: bool = True) -> bool:
        """Whether a request to this origin gets the token. For the first one that does not, there is a
        warning."""
        scheme, host = scheme.lower(), (host or "").lower().strip("[]")
        origin = (scheme, host, port or DEFAULT_PORTS.get(scheme, 0))
        if origin in self._allowed:
            return True
        if warn and origin not in self._warned and len(self._warned) < MAX_WARNED:
            self._warned.add(origin)
            logger.warning(
                "request without token: the origin is not one of those that get it",
                extra={"fields": {"origin": f"{scheme}://{host}:{origin[2]}"}},
            )
        return False


def _parsed(origin: str) -> Origin:
    match = _ORIGIN.fullmatch(origin.lower()) if isinstance(origin, str) else None
    port = int(match[3]) if match is not None and match[3] else None
    if match is None or (port is not None and not 0 < port < 65_536):
        raise _invalid(
            f"the origin {str(origin)[:200]!r} must be https://host or https://host:port (or http), without "
            "a path, a user name or a wildcard"
        )
    return match[1], match[2].strip("[]"), port or DEFAULT_PORTS[match[1]]


def _invalid(message: str) -> ConfigurationError:
    return ConfigurationError("origin_invalid", message, "origins")


# --- claims challenges ------------------------------------------------------------------------------------

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"[\s,]*({_NAME})(?=[ \t,]|$)[ \t]*", re.ASCII)
_PARAMETER = re.compile(rf'[\s,]*({_NAME})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_NAME}))', re.ASCII)
_BASE64URL = str.maketrans("-_", "+/")


def claims_challenge(fields: Iterable[str]) -> str | None:
    """The claims challenge of a 401 response, as JSON; None if it has none that can be answered.

    Args:
        fields: the values of all `WWW-Authenticate` fields.
    """
    for field in fields:
        for parameters in _bearer_challenges(field[:MAX_FIELD]):
            if parameters.get("error", "").lower() == "insufficient_claims":
                claims = _decoded(parameters.get("claims", ""))
                if claims is not None:
                    return claims
    return None


def _bearer_challenges(field: str) -> Iterable[dict[str, str]]:
    """The parameters of each challenge of the scheme `Bearer` (RFC 9110, section 11.6.1)."""
    place = 0
    while (scheme := _SCHEME.match(field, place)) is not None:
        place = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(field, place)) is not None:
            place = parameter.end()
            quoted, plain = parameter[2], parameter[3]
            parameters.setdefault(
                parameter[1].lower(), plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            )
        if scheme[1].lower() == "bearer":
            yield parameters
        if not parameters:
            place = field.find(",", place)  # what follows is no parameter, but may be Base64
            if place < 0:
                return


def _decoded(text: str) -> str | None:
    """The JSON object in Base64, with or without padding, in either alphabet."""
    if not text or len(text) > MAX_CHALLENGE_BYTES * 4 // 3 + 4:
        return None
    plain = text.rstrip("=").translate(_BASE64URL)
    try:
        claims = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("utf-8")
        is_object = isinstance(_native.parse_json(claims), dict)
    except (binascii.Error, ValueError):
        return None
    return claims if is_object and len(claims.encode()) <= MAX_CHALLENGE_BYTES else None


# --- tokens -----------------------------------------------------------------------------------------------


class Authentication:
    """A source of tokens, a target, and the origins that get them."""

    def __init__(self, tokens: TokenSource | AsyncTokenSource, target: str, origins: Iterable[str]) -> None:
        self._tokens = tokens
        self._target = target
        self.origins = Origins(origins)

    def token(self, claims: str | None = None) -> Token:
        """A token, from a synchronous source.

        Args:
            claims: a claims challenge.

        Raises:
            TypeError: the source is asynchronous.
            ProviderError: no token was issued; `details["claims"]` is the challenge.
        """
        found = self._ask(claims)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise TypeError("this client is synchronous: pass a TokenClient, not an AsyncTokenClient")
        return found

    async def token_async(self, claims: str | None = None) -> Token:
        """A token, from an asynchronous source. See `token`."""
        try:
            found = self._ask(claims)
            if not inspect.isawaitable(found):
                raise TypeError("this client is asynchronous: pass an AsyncTokenClient, not a TokenClient")
            return await found
        except ProviderError as error:
            raise _with_challenge(error, claims) from None

    def _ask(self, claims: str | None) -> Token | Awaitable[Token]:
        try:
            return (
                self._tokens.token(self._target)
                if claims is None
                else self._tokens.token(self._target, claims=claims)
            )
        except ProviderError as error:
            raise _with_challenge(error, claims) from None


def _with_challenge(error: ProviderError, claims: str | None) -> ProviderError:
    """The error with the challenge that the token was requested for, unless the provider has sent its own:
    a caller that can send the user to a login needs it."""
    details = error.details if claims is None else {"claims": claims, **error.details}
    return ProviderError(error.code, error.message, error.status, error.error, error.retry_after, details)
