"""Lets a sidecar validate tokens, where it already holds the keys.

    validator = AsyncSidecarValidator()    # NAIS_TOKEN_INTROSPECTION_ENDPOINT, as NAIS sets it
    claims = await validator.validate(token)

What belongs here: the introspection endpoint of this project's sidecar and of Texas, behind the interface of
a
validator: the same claims, the same errors. What must never be here: verification.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from typing import TYPE_CHECKING, Any, Final

from entra_fast._native import ERROR_CODES, Claims, introspected_claims, parse_json
from entra_fast._net import url_problem
from entra_fast._provider.blocking_http_client import BlockingHttpClient
from entra_fast._provider.http_rules import HttpResponse
from entra_fast.errors import ConfigurationError, EntraFastError, InvalidToken, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._provider.http_client import HttpClient

__all__ = ["AsyncSidecarValidator", "SidecarValidator"]

VARIABLE: Final = "NAIS_TOKEN_INTROSPECTION_ENDPOINT"


class SidecarValidator:
    """Validates tokens by asking the sidecar, from any number of threads.

    Args:
        endpoint: URL of the sidecar's introspection endpoint; by default `NAIS_TOKEN_INTROSPECTION_ENDPOINT`.
        identity_provider: the provider whose tokens are accepted, by its name in the sidecar's API.

    Raises:
        ConfigurationError: the URL is missing or wrong; `setting` names it.
    """

    def __init__(self, endpoint: str | None = None, *, identity_provider: str = "entra_id") -> None:
        self._request = _Request(endpoint, identity_provider)
        self._http = BlockingHttpClient()

    def validate(self, token: str | bytes) -> Claims:
        """Have a token verified and return its claims.

        Args:
            token: the token, without `Bearer `.

        Raises:
            InvalidToken: the token is rejected; the message is the sidecar's.
            KeysUnavailable: the sidecar did not answer, which says nothing about the token.
        """
        fields = self._request.fields(token)
        try:
            return _claims(self._http.post_form(self._request.url, fields))
        except EntraFastError as error:
            raise _translated(error) from None


class AsyncSidecarValidator:
    """Validates tokens by asking the sidecar, on an event loop. See `SidecarValidator`.

    Args:
        endpoint: as for `SidecarValidator`.
        identity_provider: as for `SidecarValidator`.

    Raises:
        ConfigurationError: the URL is missing or wrong; `setting` names it.
    """

    def __init__(self, endpoint: str | None = None, *, identity_provider: str = "entra_id") -> None:
        self._request = _Request(endpoint, identity_provider)
        self._pool: HttpClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_pool = importlib.util.find_spec("aiohttp") is not None

    async def validate(self, token: str | bytes) -> Claims:
        """See `SidecarValidator.validate`."""
        fields = self._request.fields(token)
        try:
            return _claims(await self._post(fields))
        except EntraFastError as error:
            raise _translated(error) from None

    async def aclose(self) -> None:
        """Close the connections to the sidecar. They are opened again when another token comes."""
        pool, self._pool = self._pool, None
        if pool is not None and self._loop is asyncio.get_running_loop():
            await pool.aclose()

    async def _post(self, fields: dict[str, str]) -> HttpResponse:
        if not self._has_pool:
            return await asyncio.to_thread(BlockingHttpClient().post_form, self._request.url, fields)
        loop = asyncio.get_running_loop()
        if self._pool is None or self._loop is not loop:  # connections belong to the loop that made them
            from entra_fast._provider.http_client import HttpClient  # noqa: PLC0415 - loads aiohttp

            self._pool, self._loop = HttpClient(), loop
        return await self._pool.post_form(self._request.url, fields)


class _Request:
    """Where and what to ask."""

    def __init__(self, endpoint: str | None, identity_provider: str) -> None:
        url = os.environ.get(VARIABLE) if endpoint is None else endpoint
        if not url:
            raise ConfigurationError(
                "setting_missing", f"{VARIABLE} is not set: set it (NAIS does), or pass endpoint", VARIABLE
            )
        if (problem := url_problem(url)) is not None:
            name = VARIABLE if endpoint is None else "endpoint"
            raise ConfigurationError("setting_invalid", f"{name} {problem}", name)
        self.url = url
        self._identity_provider = identity_provider

    def fields(self, token: str | bytes) -> dict[str, str]:
        """The form (RFC 7662, section 2.1, with the sidecar's own field)."""
        text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
        if not text.isascii():
            raise InvalidToken("not_a_jwt", "token is not a JWT: expected base64url characters")
        return {"identity_provider": self._identity_provider, "token": text}


def _claims(response: HttpResponse) -> Claims:
    """The claims in an introspection response.

    Raises:
        InvalidToken: the token is not active.
        KeysUnavailable: the response is another than that of a sidecar with keys.
    """
    document: Any = None
    if response.status == 200:
        try:
            document = parse_json(response.body)
        except ValueError:
            document = None
    if not isinstance(document, dict) or not isinstance(document.get("active"), bool):
        raise KeysUnavailable(
            "introspection_failed",
            f"the sidecar did not answer the introspection, but with status {response.status}",
        )
    if document.pop("active"):
        return introspected_claims(json.dumps(document))
    reason = document.get("error")
    message = reason if isinstance(reason, str) and reason.isprintable() else "the token is not active"
    code = next(
        (code for code, text in ERROR_CODES.items() if message.startswith(text.partition("{}")[0])), None
    )
    if code == "keys_unavailable":
        raise KeysUnavailable("keys_unavailable", message)
    if code is None:
        raise InvalidToken("token_inactive", message[:500])
    raise InvalidToken(code, message[:500])


def _translated(error: EntraFastError) -> EntraFastError:
    """An error of the HTTP client as one of validation."""
    if isinstance(error, InvalidToken | KeysUnavailable):
        return error
    return KeysUnavailable("introspection_failed", f"the sidecar could not be asked: {error.message}")
