"""Introspection of tokens by a sidecar (RFC 7662; docs/reference/endpoints.md).

    from entra_fast.client import AsyncSidecarClient, SidecarClient

    sidecar = SidecarClient()                    # NAIS_TOKEN_INTROSPECTION_ENDPOINT
    claims = sidecar.validate(token)             # raises InvalidToken, like a Validator
    answer = sidecar.introspect(token)           # or: answer.active, answer.error

What belongs here: the two clients and their result. Getting tokens from a sidecar belongs in
`entra_fast.tokens`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

import orjson

from entra_fast import _native, _providers
from entra_fast._claims import ClaimsView
from entra_fast._net import url_problem
from entra_fast._provider import transport
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.http_rules import HttpFailure, HttpResponse, TokenTransport
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken, KeysUnavailable

__all__ = [
    "AsyncSidecarClient",
    "ConfigurationError",
    "EntraFastError",
    "IntrospectedClaims",
    "Introspection",
    "InvalidToken",
    "KeysUnavailable",
    "SidecarClient",
]

INTROSPECTION_ENDPOINT: Final = "NAIS_TOKEN_INTROSPECTION_ENDPOINT"
"""The variable that NAIS sets in an application with a sidecar."""

TIMEOUT: Final = 5.0
"""Seconds. A sidecar needs less than a millisecond, unless it has to fetch keys first."""

MAX_SHOWN: Final = 200
"""Characters of a sidecar's own error that are shown."""

ERROR_CODES = {
    "token_inactive": "the sidecar says that the token is not active, for a reason without a code",
    "sidecar_unavailable": "the sidecar could not be reached, or did not introspect the token",
}


class IntrospectedClaims(ClaimsView):
    """The claims of a token that a sidecar has verified: the interface of `Claims`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Introspection:
    """What a sidecar says about a token.

    Attributes:
        active: whether the token is valid.
        claims: all its claims, if it is active.
        error: why it is not active, as a sentence (docs/reference/errors.md); it has no part of the token.
        code: the stable code of that reason.
    """

    active: bool
    claims: IntrospectedClaims | None = None
    error: str | None = None
    code: str | None = None

    def require_active(self) -> IntrospectedClaims:
        """The claims of an active token.

        Raises:
            InvalidToken: it is not active.
            KeysUnavailable: the sidecar has no keys to verify it with, which says nothing about the token.
        """
        if self.claims is not None:
            return self.claims
        code, message = self.code or "token_inactive", self.error or "token is not active"
        if code == "keys_unavailable":
            raise KeysUnavailable("keys_unavailable", message)
        raise InvalidToken(code, message)


class SidecarClient:
    """Introspects tokens, from any number of threads. Needs the standard library only, and works after
    `os.fork`.

    Args:
        introspection_endpoint: URL of `/api/v1/introspect`; by default `NAIS_TOKEN_INTROSPECTION_ENDPOINT`.
        identity_provider: whose tokens are introspected, as the sidecar calls it: `entra_id`, `tokenx`,
            `idporten`, `ansattporten`, `maskinporten`, or a name in its `ENTRA_FAST_PROVIDERS`.
        timeout: maximum seconds for one introspection.

    Raises:
        ConfigurationError: the address is missing or wrong; `setting` names it.
    """

    def __init__(
        self,
        introspection_endpoint: str | None = None,
        *,
        identity_provider: str = "entra_id",
        timeout: float = TIMEOUT,
    ) -> None:
        self._requests = _Requests(introspection_endpoint, identity_provider, timeout, os.environ)
        self._checks_audience = _checks_audience(identity_provider)  # the integrations look at it
        self._http = transport.blocking(self._requests.http)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, identity_provider: str = "entra_id"
    ) -> Self:
        """A client for the sidecar that the environment names. The same as `SidecarClient()`.

        Args:
            environ: the environment; that of the process when None.
            identity_provider: whose tokens are introspected, as the sidecar calls it.

        Raises:
            ConfigurationError: `NAIS_TOKEN_INTROSPECTION_ENDPOINT` is missing or wrong.
        """
        return cls(_endpoint(environ), identity_provider=identity_provider)

    def introspect(self, token: str | bytes) -> Introspection:
        """What the sidecar says about a token.

        Args:
            token: the token, without `Bearer `.

        Raises:
            KeysUnavailable: code `sidecar_unavailable`: the sidecar did not say anything about the token.
        """
        document = self._requests.document(token)
        if document is None:
            return TOO_LARGE
        try:
            return read(self._http.post_json(self._requests.url, document))
        except HttpFailure as error:
            raise _unavailable(error.message) from None

    def validate(self, token: str | bytes) -> IntrospectedClaims:
        """The claims of a token, like `Validator.validate`.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; `code` and the message say why (docs/reference/errors.md).
            KeysUnavailable: the sidecar cannot be reached, or has no keys.
        """
        return self.introspect(token).require_active()

    def start(self) -> None:
        """Nothing: for use in place of a `Validator`."""

    def close(self) -> None:
        """Nothing: no connection is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSidecarClient:
    """Introspects tokens, on any event loop. Arguments as for `SidecarClient`.

    Raises:
        ConfigurationError: the address is missing or wrong; `setting` names it.
    """

    def __init__(
        self,
        introspection_endpoint: str | None = None,
        *,
        identity_provider: str = "entra_id",
        timeout: float = TIMEOUT,
    ) -> None:
        self._requests = _Requests(introspection_endpoint, identity_provider, timeout, os.environ)
        self._checks_audience = _checks_audience(identity_provider)  # the integrations look at it
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, TokenTransport] = WeakKeyDictionary()

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, *, identity_provider: str = "entra_id"
    ) -> Self:
        """A client for the sidecar that the environment names: see `SidecarClient.from_env`.

        Args:
            environ: the environment; that of the process when None.
            identity_provider: whose tokens are introspected, as the sidecar calls it.

        Raises:
            ConfigurationError: `NAIS_TOKEN_INTROSPECTION_ENDPOINT` is missing or wrong.
        """
        return cls(_endpoint(environ), identity_provider=identity_provider)

    async def introspect(self, token: str | bytes) -> Introspection:
        """See `SidecarClient.introspect`.

        Args:
            token: the token, without `Bearer `.

        Raises:
            KeysUnavailable: code `sidecar_unavailable`: the sidecar did not say anything about the token.
        """
        document = self._requests.document(token)
        if document is None:
            return TOO_LARGE
        try:
            return read(await self._http().post_json(self._requests.url, document))
        except HttpFailure as error:
            raise _unavailable(error.message) from None

    async def validate(self, token: str | bytes) -> IntrospectedClaims:
        """See `SidecarClient.validate`.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; `code` and the message say why (docs/reference/errors.md).
            KeysUnavailable: the sidecar cannot be reached, or has no keys.
        """
        return (await self.introspect(token)).require_active()

    async def start(self) -> None:
        """Nothing: for use in place of an `AsyncValidator`."""

    async def aclose(self) -> None:
        """Close the connections of the running event loop. The client can be used again."""
        http = self._clients.pop(asyncio.get_running_loop(), None)
        if http is not None:
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _http(self) -> TokenTransport:
        loop = asyncio.get_running_loop()
        http = self._clients.get(loop)
        if http is None:
            http = self._clients[loop] = transport.asynchronous(self._requests.http)
        return http


def _checks_audience(identity_provider: str) -> bool:
    """Whether the sidecar checks the audience of a provider's tokens, as far as this process knows."""
    kind = _providers.named(identity_provider)
    return kind is None or kind.checks_audience


class _Requests:
    """What both clients send, and to where."""

    def __init__(
        self, endpoint: str | None, identity_provider: str, timeout: float, environ: Mapping[str, str]
    ) -> None:
        name = INTROSPECTION_ENDPOINT if endpoint is None else "introspection_endpoint"
        self.url = _endpoint(environ) if endpoint is None else endpoint
        if (problem := url_problem(self.url)) is not None:
            raise ConfigurationError("setting_invalid", f"{name} {problem}", name)
        self.http = HttpOptions(timeout=timeout, proxy=False)  # loopback has no proxy
        self._identity_provider = identity_provider

    def document(self, token: str | bytes) -> dict[str, str] | None:
        """The request for a token; None for one that no sidecar would read."""
        if len(token) > _native.MAX_TOKEN_BYTES:
            return None
        text = token if isinstance(token, str) else token.decode("utf-8", "replace")
        # A token has none of the characters that JSON cannot carry.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return {"identity_provider": self._identity_provider, "token": text}


def _endpoint(environ: Mapping[str, str] | None) -> str:
    url = (os.environ if environ is None else environ).get(INTROSPECTION_ENDPOINT, "").strip()
    if not url:
        raise ConfigurationError(
            "setting_missing",
            f"{INTROSPECTION_ENDPOINT} is not set: set it (NAIS does with a sidecar), or pass "
            "introspection_endpoint",
            INTROSPECTION_ENDPOINT,
        )
    return url


def read(response: HttpResponse) -> Introspection:
    """Read an introspection response.

    Raises:
        KeysUnavailable: code `sidecar_unavailable`: it is none.
    """
    try:
        document = _native.parse_json(response.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _unavailable(f"it answered with status {response.status} and no JSON object")
    active = document.pop("active", None)
    if response.status != 200 or not isinstance(active, bool):
        raise _unavailable(f"it answered with status {response.status}{_reason(document)}")
    if active:
        if not isinstance(document.get("exp"), int | float):
            raise _unavailable("its answer has no 'exp'")
        return Introspection(True, IntrospectedClaims(orjson.dumps(document).decode()))
    error = document.get("error")
    error = error if isinstance(error, str) and error else "token is not active"
    return Introspection(False, None, error, _code(error))


def _reason(document: dict[str, Any]) -> str:
    """The sidecar's own words for a refusal."""
    description = document.get("error_description")
    if not isinstance(description, str) or not description.isprintable():
        return ""
    return f": {description[:MAX_SHOWN]}"


def _unavailable(reason: str) -> KeysUnavailable:
    return KeysUnavailable("sidecar_unavailable", f"the sidecar did not introspect the token: {reason}")


@functools.cache
def _sentences() -> tuple[tuple[re.Pattern[str], str], ...]:
    """The sentences of introspection, with their codes. A sentence may go on with details."""
    return tuple(
        (re.compile(re.escape(sentence).replace(r"\{\}", ".*") + r"(?:$|[:;,])"), code)
        for code, sentence in _native.ERROR_CODES.items()
    )


def _code(error: str) -> str:
    return next((code for pattern, code in _sentences() if pattern.match(error)), "token_inactive")


TOO_LARGE: Final = Introspection(False, None, _native.ERROR_CODES["token_too_large"], "token_too_large")
"""What a sidecar would say about a token that is too large to be sent."""
