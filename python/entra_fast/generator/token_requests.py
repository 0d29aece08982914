"""What the requests of both token generators share: a request for a token, and the check of an ID token.

What belongs here: what does not depend on the provider. What must never be here: endpoints, and who is logged
in (site.py).
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from entra_fast._native import Claims
from entra_fast._provider.credentials import Credentials, authenticated
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.oauth import parse_token_response, without_secrets
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import InvalidToken, KeysUnavailable, ProviderError
from entra_fast.generator.login import Login, LoginError
from entra_fast.validate import AsyncValidator

MAX_NAME_CHARACTERS: Final = 200
_SECRET_FIELDS: Final = ("code", "code_verifier", "assertion", "subject_token")
"""Fields of a form that a provider's errors must not repeat, besides the credential."""


@dataclass(frozen=True, slots=True)
class Token:
    """A fresh token. `expires_in`: whole seconds."""

    access_token: str = field(repr=False)
    expires_in: int


class TokenRequests:
    """Token requests of one client.

    Args:
        provider: the provider's name in sentences.
    """

    def __init__(self, settings: ProviderSettings, http: HttpClient, *, provider: str) -> None:
        self._kind = settings.kind
        self._http = http
        self._provider = provider
        self.credentials = Credentials(settings.credentials, settings.client_id)

    async def send(self, token_endpoint: str, form: dict[str, str], *, audience: str) -> tuple[Token, bytes]:
        """(token, whole response) of one request; during a rotation of the credential, of a second one with
        the other credential.

        Args:
            audience: of the client assertion.

        Raises:
            ProviderError: the provider refused or failed.
        """
        secrets = [form[name] for name in _SECRET_FIELDS if name in form]

        async def attempt(proof: dict[str, str]) -> tuple[Token, bytes]:
            try:
                response = await self._http.post_form(token_endpoint, {**form, **proof})
                answer = parse_token_response(
                    response.status, response.headers, response.body, now=time.time()
                )
            except HttpFailure as error:
                text = f"no answer from {self._provider}: {error.message}"
                raise ProviderError(error.code, text) from None
            except ProviderError as error:
                raise without_secrets(error, (*proof.values(), *secrets)) from None
            return Token(answer.access_token, int(answer.expires_in)), response.body

        return await authenticated(self.credentials, self._kind, audience, time.time, attempt)


async def verified_id_token(
    body: bytes, validator: AsyncValidator, login: Login, *, sender: str, id_token: str
) -> Claims:
    """The claims of the ID token in a token response, which must belong to this login.

    Args:
        sender: who sent it, and `id_token` its ID token, as sentences begin.

    Raises:
        ProviderError: there are no keys to verify it.
        LoginError: it is not valid or belongs to another login.
    """
    token = orjson.loads(body).get("id_token")
    if not isinstance(token, str):
        raise LoginError(f"{sender} sent no ID token. Sign in again.")
    try:
        claims = await validator.validate(token)
    except InvalidToken as error:
        raise LoginError(f"{id_token} is not valid: {error.message}. Sign in again.") from None
    except KeysUnavailable as error:
        raise ProviderError(error.code, error.message, status=502) from None
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode(errors="replace"), login.nonce.encode()
    ):
        raise LoginError(f"{id_token} belongs to another sign-in. Sign in again.")
    return claims


def shown_name(claims: Claims, names: Iterable[str]) -> str:
    """The user's name: the first of these claims that has a text."""
    values = (claims.get(name) for name in names)
    name = next((value for value in values if isinstance(value, str) and value), "unknown")
    return name[:MAX_NAME_CHARACTERS]
