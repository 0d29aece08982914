"""One request to the provider's token endpoint.

What belongs here: finding the endpoint, authenticating the application, and counting. What must never be
here: whether to send a request, and whether to retry it (retry.py, token_client.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from entra_fast._metrics import Metrics
from entra_fast._provider import attempts
from entra_fast._provider.credentials import Credentials, authenticated
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_rules import HttpFailure, TokenTransport
from entra_fast._provider.oauth import (
    ANSWERED,
    TokenResponse,
    claims_field,
    client_credentials_form,
    grant_claims,
    jwt_bearer_form,
    on_behalf_of_form,
    parse_token_response,
    provider_code,
    scope_for,
    token_exchange_form,
    without_secrets,
)
from entra_fast._provider.rejections import rejects
from entra_fast._provider.tokens import CREDENTIAL_TRY, FetchedToken, Timing, WantedToken
from entra_fast._providers import Grant
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import EntraFastError, ProviderError

ERROR_CODES = {
    "grant_unsupported": "the identity provider issues no such tokens",
    "field_unsupported": "the identity provider does not support a field of the request",
}


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

    def grant_for(self, *, exchange: bool, fields: Iterable[str] = ()) -> str:
        """See `Endpoint.grant_for`."""
        kind = self.provider.kind
        grant = kind.exchange_grant if exchange else kind.token_grant
        if grant is None:
            requests = "token exchange" if exchange else "token requests"
            raise EntraFastError(
                "grant_unsupported", f"identity provider '{kind.name}' does not support {requests}"
            )
        for field in fields:
            if not (kind.accepts_claims if field == "claims" else kind.accepts_details):
                # Without it, the token would allow something else than the caller believes.
                raise EntraFastError(
                    "field_unsupported",
                    f"identity provider '{kind.name}' does not support the field '{field}'",
                )
        return grant.value

    @property
    def credential_rejected(self) -> bool:
        """Whether the provider rejects the present credential, as far as is known."""
        return self._credentials.rejection is not None

    def would_fail_again(self, failure: ProviderError) -> bool:
        """See `Endpoint.would_fail_again`."""
        return self.credential_rejected or not rejects(self.provider.kind, failure)

    async def request(self, wanted: WantedToken, deadline: float, *, new: bool = True) -> FetchedToken:
        """One attempt, with a new assertion; during a rotation of credentials, one for each of them.

        Args:
            deadline: a time of the monotonic clock.
            new: has no effect: the provider issues new tokens only.

        Raises:
            ProviderError: no token was issued.
        """
        token_endpoint, audience = await self._addresses(deadline)

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

        grant = None
        if self._grant(wanted) is Grant.JWT_BEARER:
            grant = grant_claims(wanted.scope, wanted.resources, wanted.authorization_details)
        with attempts.counted("token"):
            return await authenticated(
                self._credentials, self.provider.kind, audience, self._timing.clock, attempt, grant
            )

    def _grant(self, wanted: WantedToken) -> Grant | None:
        kind = self.provider.kind
        return kind.token_grant if wanted.subject_token is None else kind.exchange_grant

    async def _addresses(self, deadline: float) -> tuple[str, str]:
        """The token endpoint, and the audience of assertions."""
        try:
            async with asyncio.timeout(deadline - self._timing.monotonic()):
                token_endpoint = await self._finder.token_endpoint()
                if self._signs and self.provider.kind.assertion_audience_is_issuer:
                    return token_endpoint, await self._finder.issuer()
                return token_endpoint, token_endpoint
        except TimeoutError:  # the request for them continues for other callers
            raise ProviderError(
                "endpoints_unknown", "the provider's endpoints are not known: no discovery document in time"
            ) from None

    @property
    def _signs(self) -> bool:
        """Whether the application signs assertions."""
        return self.provider.credentials.jwk is not None

    def _form(self, wanted: WantedToken, credential: dict[str, str]) -> dict[str, str]:
        client_id, scope, subject_token = self.provider.client_id, wanted.scope, wanted.subject_token or ""
        match self._grant(wanted):
            case Grant.JWT_BEARER:
                return jwt_bearer_form(credential)
            case Grant.TOKEN_EXCHANGE:
                # An assertion of the application names it; TokenX wants nothing else.
                named = None if self._signs else client_id
                return token_exchange_form(scope, subject_token, credential, client_id=named)
            case Grant.ON_BEHALF_OF:
                return on_behalf_of_form(client_id, scope, subject_token, credential)
            case _:
                return client_credentials_form(client_id, scope, credential)

    async def _post(
        self, wanted: WantedToken, token_endpoint: str, credential: dict[str, str], time_left: float
    ) -> TokenResponse:
        form = self._form(wanted, credential)
        form |= claims_field(wanted.claims, self.provider.client_capabilities)
        started = self._timing.monotonic()
        outcome, name = "cancelled", self.provider.name
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
            self._metrics.provider_errors.add(provider_code(error), name)
            raise without_secrets(error, (*credential.values(), wanted.subject_token or "")) from None
        finally:
            self._metrics.upstream.add(wanted.grant, outcome, name)
            seconds = self._timing.monotonic() - started
            self._metrics.upstream_seconds.observe(seconds, wanted.grant, name)
            if wanted.grant != CREDENTIAL_TRY:
                self._metrics.texas_provider_seconds.observe(seconds, name)
        return response
