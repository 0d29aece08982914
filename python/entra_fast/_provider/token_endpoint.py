"""One request to the provider's token endpoint.

What belongs here: finding the endpoint, authenticating the application, and counting. What must never be
here: whether to send a request, and whether to retry it (retry.py, token_client.py).
"""

from __future__ import annotations

import asyncio

from entra_fast._metrics import Metrics
from entra_fast._provider.credentials import Credentials, authenticated
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_rules import HttpFailure, TokenTransport
from entra_fast._provider.oauth import (
    ANSWERED,
    TokenResponse,
    aadsts_code,
    claims_field,
    client_credentials_form,
    on_behalf_of_form,
    parse_token_response,
    scope_for,
    without_secrets,
)
from entra_fast._provider.tokens import CREDENTIAL_TRY, FetchedToken, Timing, WantedToken
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ProviderError


class TokenEndpoint:
    """Requests tokens from the provider. Belongs to one event loop."""

    def __init__(
        self,
        provider: ProviderSettings,
        *,
        finder: EndpointFinder,
        http: TokenTransport,
        credentials: Credentials,
        metrics: Metrics,
        timing: Timing,
    ) -> None:
        self.provider = provider
        self._finder = finder
        self._http = http
        self._credentials = credentials
        self._metrics = metrics
        self._timing = timing

    def scope_for(self, target: str) -> str:
        """See `oauth.scope_for`."""
        return scope_for(target, self.provider.kind)

    @property
    def credential_rejected(self) -> bool:
        """Whether the provider rejects the present credential, as far as is known."""
        return self._credentials.rejection is not None

    async def request(self, wanted: WantedToken, deadline: float, *, new: bool = True) -> FetchedToken:
        """One attempt, with a new assertion; during a rotation of credentials, one for each of them.

        Args:
            deadline: a time of the monotonic clock.
            new: has no effect: the provider issues new tokens only.

        Raises:
            ProviderError: no token was issued.
        """
        token_endpoint = await self._url(deadline)

        async def attempt(fields: dict[str, str]) -> FetchedToken:
            # The lifetime is counted from before the request: too short is better than too long.
            sent_at = self._timing.monotonic()
            response = await self._post(wanted, token_endpoint, fields, deadline - sent_at)
            return FetchedToken(
                response.access_token,
                response.expires_in,
                sent_at,
                wanted.subject_expires_at,
                response.cacheable and wanted.is_cacheable,
            )

        return await authenticated(
            self._credentials, self.provider.kind, token_endpoint, self._timing.clock, attempt
        )

    async def _url(self, deadline: float) -> str:
        try:
            async with asyncio.timeout(deadline - self._timing.monotonic()):
                return await self._finder.token_endpoint()
        except TimeoutError:  # the request for them continues for other callers
            raise ProviderError(
                "endpoints_unknown", "the provider's endpoints are not known: no discovery document in time"
            ) from None

    async def _post(
        self, wanted: WantedToken, token_endpoint: str, credential: dict[str, str], time_left: float
    ) -> TokenResponse:
        client_id, scope = self.provider.client_id, wanted.scope
        if wanted.subject_token is None:
            form = client_credentials_form(client_id, scope, credential)
        else:
            form = on_behalf_of_form(client_id, scope, wanted.subject_token, credential)
        form |= claims_field(wanted.claims, self.provider.client_capabilities)
        started = self._timing.monotonic()
        outcome = "cancelled"
        try:
            answer = await self._http.post_form(token_endpoint, form, timeout=time_left)
            response = parse_token_response(
                answer.status, answer.headers, answer.body, now=self._timing.clock()
            )
            outcome = "ok"
        except HttpFailure as error:
            outcome = error.code
            raise ProviderError(error.code, f"no token from the provider: {error.message}") from None
        except ProviderError as error:
            outcome = f"http_{error.status}" if error.code in ANSWERED else error.code
            self._metrics.provider_errors.add(aadsts_code(error) or error.error)
            raise without_secrets(error, (*credential.values(), wanted.subject_token or "")) from None
        finally:
            self._metrics.upstream.add(wanted.grant, outcome)
            seconds = self._timing.monotonic() - started
            self._metrics.upstream_seconds.observe(seconds, wanted.grant)
            if wanted.grant != CREDENTIAL_TRY:
                self._metrics.texas_provider_seconds.observe(seconds, self.provider.kind.name)
        return response
