"""What the logins at Entra ID and at ID-porten have in common, as OpenID Connect defines it.

What belongs here: endpoints and keys from a discovery document, and the requests of the authorization code
flow with PKCE. What must never be here: what only one of the two providers takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from entra_fast._provider.endpoints import fetch_document
from entra_fast._provider.http_client import HttpClient
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ProviderError
from entra_fast.generator.login import Login
from entra_fast.validate import AsyncValidator


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """Where users log in, from a discovery document and from settings, which take precedence.

    Attributes:
        end_session_endpoint: None if the provider has none.
        validator: for ID tokens.
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    end_session_endpoint: str | None
    validator: AsyncValidator

    async def aclose(self) -> None:
        """Stop fetching keys."""
        await self.validator.aclose()

    def logout_url(self, query: Mapping[str, str]) -> str | None:
        """Where a browser ends its session (OpenID Connect RP-Initiated Logout 1.0), or None."""
        return None if self.end_session_endpoint is None else with_query(self.end_session_endpoint, query)


async def discover(http: HttpClient, settings: ProviderSettings) -> LoginEndpoints:
    """Fetch the discovery document, and let the validator begin to fetch its keys.

    Raises:
        EntraFastError: the document cannot be fetched or used.
    """
    found = await fetch_document(http, settings.well_known_url or "", settings.issuer)
    if found.authorization_endpoint is None:
        raise ProviderError("discovery_malformed", "the discovery document has no authorization_endpoint")
    issuer = settings.issuer or found.issuer
    validator = AsyncValidator(
        issuer, settings.client_id, jwks_uri=settings.jwks_uri or found.jwks_uri, http=http
    )
    await validator.start()
    return LoginEndpoints(
        issuer,
        found.authorization_endpoint,
        settings.token_endpoint or found.token_endpoint,
        found.end_session_endpoint,
        validator,
    )


def authorization_query(
    login: Login, client_id: str, redirect_uri: str, scope: str, prompt: str | None
) -> dict[str, str]:
    """The parameters of an authorization request (OpenID Connect Core, section 3.1.2.1; RFC 7636)."""
    query = {
        "client_id": client_id,
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": login.challenge,
        "code_challenge_method": "S256",
    }
    return query if prompt is None else {**query, "prompt": prompt}


def code_form(login: Login, client_id: str, redirect_uri: str, code: str) -> dict[str, str]:
    """The form that redeems an authorization code (RFC 6749, section 4.1.3), without the credential."""
    return {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": login.verifier,
    }


def with_query(endpoint: str, query: Mapping[str, str]) -> str:
    """A URL with further parameters; the endpoint may have some already (RFC 6749, section 3.1)."""
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"
