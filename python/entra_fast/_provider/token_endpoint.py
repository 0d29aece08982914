"""One request to the provider's token endpoint.

What belongs here: finding the endpoint, authenticating the application, and removing what was sent from the
provider's errors. What must never be here: whether to send a request, and whether to retry it (retry.py,
token_client.py).
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable

from entra_fast._metrics import Metrics
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder, Endpoints
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.kinds import ProviderKind
from entra_fast._provider.oauth import (
    ANSWERED,
    JWT_BEARER_ASSERTION,
    TokenResponse,
    aadsts_code,
    client_credentials_form,
    on_behalf_of_form,
    parse_token_response,
)
from entra_fast._provider.tokens import FetchedToken, Timing, WantedToken
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import ConfigurationError, ProviderError

ERROR_CODES = {"credential_unusable": "the application's credential cannot be read"}


class TokenEndpoint:
    """Requests tokens from the provider. Belongs to one event loop."""

    def __init__(
        self,
        provider: ProviderSettings,
        *,
        kind: ProviderKind,
        finder: EndpointFinder,
        http: HttpClient,
        credentials: Credentials,
        metrics: Metrics,
        timing: Timing,
    ) -> None:
        self.provider = provider
        self._kind = kind
        self._finder = finder
        self._http = http
        self._credentials = credentials
        self._metrics = metrics
        self._timing = timing

    @property
    def credential_rejected(self) -> bool:
        """Whether the provider rejects the present credential, as far as is known."""
        return self._credentials.rejection is not None

    async def request(self, wanted: WantedToken, deadline: float) -> FetchedToken:
        """One attempt, with a new assertion; during a rotation of credentials, one for each of them.

        Args:
            deadline: a time of the monotonic clock.

        Raises:
            ProviderError: no token was issued.
        """
        endpoints = await self._endpoints(deadline)
        failure: ProviderError | None = None
        for credential in self._credentials.in_order():
            try:
                fields = self._credentials.fields(credential, endpoints.token_endpoint, self._timing.clock())
            except ConfigurationError as error:
                # A missing successor must not hide why the current credential was rejected.
                failure = failure or ProviderError("credential_unusable", error.message)
                continue
            sent_at = self._timing.monotonic()
            try:
                response = await self._post(wanted, endpoints.token_endpoint, fields, deadline - sent_at)
            except ProviderError as error:
                if error.error != "invalid_client":
                    if self._kind.rejects(error):
                        self._credentials.rejected(error)
                    raise
                failure = ProviderError(*error.args)
                continue
            self._credentials.accepted(credential)
            # The lifetime is counted from before the request: too short is better than too long.
            return FetchedToken(
                response.access_token,
                response.expires_in,
                sent_at,
                wanted.subject_expires_at,
                response.cacheable and wanted.is_cacheable,
            )
        assert failure is not None, "there is always a credential"  # noqa: S101
        if self._kind.rejects(failure):
            self._credentials.rejected(failure)
        # A copy again: what is raised refers to this frame, which must not refer back to it. Such cycles keep
        # the user's token until the garbage collector runs.
        raise ProviderError(*failure.args)

    async def _endpoints(self, deadline: float) -> Endpoints:
        try:
            async with asyncio.timeout(deadline - self._timing.monotonic()):
                return await self._finder.find()
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
            raise _without_secrets(error, (*credential.values(), wanted.subject_token or "")) from None
        finally:
            self._metrics.upstream.add(wanted.grant, outcome)
            self._metrics.upstream_seconds.observe(self._timing.monotonic() - started, wanted.grant)
        return response


def _without_secrets(error: ProviderError, sent: Iterable[str]) -> ProviderError:
    """The error without anything that was sent: a provider, or a proxy before it, may echo the request."""
    secrets = {
        part
        for text in sent
        for part in (text, urllib.parse.quote_plus(text), *text.split("."))
        if len(part) >= 8
    }
    # The assertion type is no secret, and stays readable.
    secrets -= {JWT_BEARER_ASSERTION, urllib.parse.quote_plus(JWT_BEARER_ASSERTION)}

    def clean(value: object) -> object:
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, "[removed]")
        return value

    return ProviderError(
        error.code,
        str(clean(error.message)),
        error.status,
        str(clean(error.error)),
        error.retry_after,
        {name: clean(value) for name, value in error.details.items()},
    )
