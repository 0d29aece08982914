"""Finds the provider's endpoints: from settings, or from its discovery document.

What belongs here: when the document is fetched, and its result. At most one request is in flight, failed
requests are spaced out, and settings take precedence over the document. What must never be here: how the
document is read (discovery_document.py), and requests to the endpoints that it names.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from entra_fast import _background, _clock
from entra_fast._metrics import Metrics
from entra_fast._provider import attempts
from entra_fast._provider.discovery_document import (
    Discovery,
    DiscoveryError,
    parse_discovery,
    parse_endpoints,
)
from entra_fast._provider.http_rules import AsyncHttpClient, HttpFailure, not_ok
from entra_fast._settings.model import ProviderSettings
from entra_fast._single_flight import SingleFlight
from entra_fast.errors import EntraFastError, ProviderError

logger = logging.getLogger("entra_fast._provider.endpoints")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts in the background: doubled after each failure, with jitter."""

RETRY_PAUSE = (0.05, 0.25)
"""Seconds before the single retry of a request that got no answer at all."""

COOL_DOWN = 1.0
"""Seconds after a failure within which callers get that failure instead of a new attempt."""


ERROR_CODES = {"endpoints_unknown": "the provider's endpoints are not known, because discovery failed"}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the application needs to know about its provider."""

    issuer: str
    jwks_uri: str
    token_endpoint: str
    """Empty if no token is requested from this provider."""


async def fetch_document(http: AsyncHttpClient, url: str, issuer: str | None) -> Discovery:
    """The discovery document, in one attempt.

    Args:
        issuer: according to the settings; None for that of the document.

    Raises:
        HttpFailure: there was no answer.
        DiscoveryError: the answer is no usable document.
    """
    return parse_discovery(await _document_at(http, url), url, issuer=issuer)


async def _document_at(http: AsyncHttpClient, url: str) -> bytes:
    response = await http.get(url)
    if response.status != 200:
        # Entra ID says here that a tenant does not exist (AADSTS90002).
        raise DiscoveryError("discovery_failed", f"the discovery document's URL {not_ok(url, response)}")
    return response.body


class EndpointFinder:
    """Knows the provider's endpoints, or why they are not known. Belongs to one event loop."""

    def __init__(
        self,
        settings: ProviderSettings,
        http: AsyncHttpClient,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = _clock.monotonic,
    ) -> None:
        self._settings = settings
        self._http = http
        self._metrics = metrics
        self._monotonic = monotonic
        self._failure: ProviderError | None = None
        self._failed_at = 0.0
        self._requests: SingleFlight[str, Endpoints] = SingleFlight("discovery document fetch")
        self._until_known: asyncio.Task[None] | None = None
        self.endpoints: Endpoints | None = None
        if settings.issuer and settings.jwks_uri and not settings.needs_discovery:
            self.endpoints = Endpoints(settings.issuer, settings.jwks_uri, settings.token_endpoint or "")

    @property
    def problem(self) -> str | None:
        """Why the endpoints are not known (yet), or None when they are."""
        if self.endpoints is not None:
            return None
        return str(self._failure) if self._failure else "the discovery document has not been fetched yet"

    def start(self, found: Callable[[Endpoints], None]) -> None:
        """Call `found` as soon as the endpoints are known; fetch the document in the background until
        then."""
        self._until_known = _background.start(self._until_found(found), "search for the endpoints")

    async def aclose(self) -> None:
        await _background.cancel(self._until_known)
        await self._requests.aclose()

    async def find(self) -> Endpoints:
        """The endpoints.

        Raises:
            ProviderError: they are not known, and an attempt to fetch them has just failed.
        """
        if self.endpoints is not None:
            return self.endpoints
        if self._failure is not None and self._monotonic() - self._failed_at < COOL_DOWN:
            raise ProviderError(*self._failure.args)  # a new one for each caller: tracebacks would add up
        return await self._ask()

    async def token_endpoint(self) -> str:
        """The token endpoint, which needs no discovery where it is set.

        Raises:
            ProviderError: as `find`.
        """
        return self._settings.token_endpoint or (await self.find()).token_endpoint

    async def issuer(self) -> str:
        """The issuer, which needs no discovery where it is set.

        Raises:
            ProviderError: as `find`.
        """
        return self._settings.issuer or (await self.find()).issuer

    async def _ask(self) -> Endpoints:
        return await self._requests.join("document", self._fetch)

    async def _fetch(self) -> Endpoints:
        try:
            endpoints = await self._document(self._settings.well_known_url or "")
        except Exception as error:
            raise self._failed(error) from None
        self.endpoints = endpoints
        return endpoints

    def _failed(self, error: Exception) -> ProviderError:
        """Remember the reason, under a separate code: the fetch is retried, so the token request is not."""
        expected = isinstance(error, EntraFastError)
        reason = str(error) if expected else f"fetching failed with {type(error).__name__}"
        message = f"the provider's endpoints are not known: {reason}"
        if not expected and (self._failure is None or self._failure.message != message):
            logger.error("discovery document could not be fetched", exc_info=error)
        self._failed_at = self._monotonic()
        self._failure = ProviderError("endpoints_unknown", message)
        return ProviderError(*self._failure.args)

    async def _document(self, url: str) -> Endpoints:
        with attempts.counted("discovery document"):
            try:
                return await self._attempt(url)
            except HttpFailure:
                await asyncio.sleep(random.uniform(*RETRY_PAUSE))  # noqa: S311 - spreads load, guards nothing
                return await self._attempt(url)

    async def _attempt(self, url: str) -> Endpoints:
        try:
            body = await _document_at(self._http, url)
            issuer, found = parse_endpoints(body, url, self._missing(), issuer=self._settings.issuer)
        except EntraFastError as error:
            self._metrics.discovery.add(error.code, self._settings.name)
            raise
        self._metrics.discovery.add("ok", self._settings.name)
        own = self._settings
        return Endpoints(
            issuer,
            own.jwks_uri or found["jwks_uri"],
            own.token_endpoint or found.get("token_endpoint", ""),
        )

    def _missing(self) -> Iterator[str]:
        """The endpoints that are called and not set."""
        if self._settings.jwks_uri is None:
            yield "jwks_uri"
        if self._settings.token_endpoint is None and self._settings.kind.has_credential:
            yield "token_endpoint"

    async def _until_found(self, found: Callable[[Endpoints], None]) -> None:
        pause = FIRST_PAUSE
        while self.endpoints is None:
            try:
                await self._ask()
            except ProviderError:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - as above
                pause = min(pause * 2, LONGEST_PAUSE)
        found(self.endpoints)
