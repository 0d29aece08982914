"""Token requests to a sidecar (docs/reference/endpoints.md), in place of the provider's token endpoint.

What belongs here: one request to one of the sidecar's two token endpoints. Caching, coalescing and renewal
are those of `_provider/token_client.py`, as for the provider itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from entra_fast import _native
from entra_fast._provider.http_rules import HttpFailure, TokenTransport
from entra_fast._provider.oauth import parse_token_response
from entra_fast._provider.tokens import (
    CLIENT_CREDENTIALS,
    ON_BEHALF_OF,
    FetchedToken,
    Timing,
    WantedToken,
)
from entra_fast.errors import ProviderError

ENTRA_ID: Final = frozenset({"entra_id", "azuread"})
"""Names of the provider whose targets are scopes. Those of other providers are passed on as they are."""


@dataclass(frozen=True, slots=True)
class _OneApplication:
    """A sidecar acts for one application, so its clients need not name it in cache keys."""

    name: str = ""
    tenant_id: str = ""
    client_id: str = ""


class SidecarEndpoint:
    """Requests tokens from a sidecar: an `Endpoint` of the token client."""

    def __init__(
        self,
        token_endpoint: str,
        exchange_endpoint: str,
        identity_provider: str,
        *,
        http: TokenTransport,
        timing: Timing,
    ) -> None:
        self.provider = _OneApplication(identity_provider)
        self._token_endpoint = token_endpoint
        self._exchange_endpoint = exchange_endpoint
        self._identity_provider = identity_provider
        self._http = http
        self._timing = timing

    def would_fail_again(self, _: ProviderError) -> bool:
        """The credential is the sidecar's: a refusal of it is remembered like any other."""
        return True

    def scope_for(self, target: str) -> str:
        """See `Endpoint.scope_for`."""
        return _native.scope_for(target, rewrites=self._identity_provider in ENTRA_ID)

    def grant_for(self, *, exchange: bool, fields: Iterable[str] = ()) -> str:
        """See `Endpoint.grant_for`. What the provider supports, the sidecar knows."""
        return ON_BEHALF_OF if exchange else CLIENT_CREDENTIALS

    async def request(self, wanted: WantedToken, deadline: float, *, new: bool = False) -> FetchedToken:
        """See `Endpoint.request`."""
        document: dict[str, object] = {"identity_provider": self._identity_provider, "target": wanted.scope}
        url = self._token_endpoint
        if wanted.subject_token is not None:
            url = self._exchange_endpoint
            document["user_token"] = wanted.subject_token
        if wanted.claims is not None:
            document["claims"] = wanted.claims
        if wanted.resources:
            document["resource"] = wanted.resources[0] if len(wanted.resources) == 1 else wanted.resources
        if wanted.authorization_details is not None:
            document["authorization_details"] = wanted.authorization_details
        if new:
            document["skip_cache"] = True
        sent_at = self._timing.monotonic()
        try:
            answer = await self._http.post_json(url, document, timeout=deadline - sent_at)
        except HttpFailure as error:
            raise ProviderError(error.code, f"no token from the sidecar: {error.message}") from None
        response = parse_token_response(answer.status, answer.headers, answer.body, now=self._timing.clock())
        return FetchedToken(
            response.access_token,
            response.expires_in,
            sent_at,
            wanted.subject_expires_at,
            response.cacheable and wanted.is_cacheable,
        )
