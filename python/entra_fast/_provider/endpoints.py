"""Finding the provider's endpoints: from settings, or from its discovery document.

What belongs here: when to ask, and what is known. At most one request is under way, failed requests are
spaced out, and the settings always win over the document. What must never be here: how to read the document
(oauth.py) or use what it names.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from entra_fast._metrics import Metrics
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure
from entra_fast._provider.oauth import Discovery, DiscoveryError, parse_discovery
from entra_fast._settings.model import ProviderSettings
from entra_fast.errors import EntraFastError, ProviderError

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between attempts in the background: doubled after each failure, with jitter."""

RETRY_PAUSE = (0.05, 0.25)
"""Seconds before the one repetition of a request that got no answer at all."""

COOL_DOWN = 1.0
"""Seconds after a failure within which requests get the failure instead of a new attempt."""


ERROR_CODES = {"endpoints_unknown": "the provider's endpoints are not known, because discovery failed"}


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the provider is."""

    issuer: str
    jwks_uri: str
    token_endpoint: str


class EndpointFinder:
    """Knows the provider's endpoints, or the reason why not. Belongs to one event loop."""

    def __init__(
        self,
        settings: ProviderSettings,
        http: HttpClient,
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._http = http
        self._metrics = metrics
        self._monotonic = monotonic
        self._failure: ProviderError | None = None
        self._failed_at = 0.0
        self._fetching: asyncio.Task[Endpoints] | None = None
        self._background: asyncio.Task[None] | None = None
        self.endpoints: Endpoints | None = None
        if settings.issuer and settings.jwks_uri and settings.token_endpoint:
            self.endpoints = Endpoints(settings.issuer, settings.jwks_uri, settings.token_endpoint)

    @property
    def problem(self) -> str | None:
        """Why the endpoints are not known (yet), or None when they are."""
        if self.endpoints is not None:
            return None
        return str(self._failure) if self._failure else "the discovery document has not been fetched yet"

    def start(self, found: Callable[[Endpoints], None]) -> None:
        """Call `found` as soon as the endpoints are known; ask for them in the background until then."""
        self._background = asyncio.get_running_loop().create_task(self._until_found(found))

    async def aclose(self) -> None:
        for task in (self._background, self._fetching):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def find(self) -> Endpoints:
        """The endpoints.

        Raises:
            ProviderError: they are not known, and asking just failed.
        """
        if self.endpoints is not None:
            return self.endpoints
        if self._failure is not None and self._monotonic() - self._failed_at < COOL_DOWN:
            raise ProviderError(*self._failure.args)  # each its own: tracebacks would add up
        return await self._ask()

    async def _ask(self) -> Endpoints:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        # A caller that goes away must not cancel the request for the others.
        return await asyncio.shield(self._fetching)

    async def _fetch(self) -> Endpoints:
        settings = self._settings
        try:
            document = await self._document(settings.well_known_url or "")
        except EntraFastError as exc:
            self._failed_at = self._monotonic()
            # A code of its own: asking again has its own pace here, whoever wants a token need not try.
            message = f"the provider's endpoints are not known: {exc.message}"
            self._failure = ProviderError("endpoints_unknown", message)
            raise ProviderError(*self._failure.args) from None
        self.endpoints = Endpoints(
            settings.issuer or document.issuer,
            settings.jwks_uri or document.jwks_uri,
            settings.token_endpoint or document.token_endpoint,
        )
        return self.endpoints

    async def _document(self, url: str) -> Discovery:
        try:
            return await self._attempt(url)
        except HttpFailure:
            await asyncio.sleep(random.uniform(*RETRY_PAUSE))  # noqa: S311 - spreading, no secret
            return await self._attempt(url)

    async def _attempt(self, url: str) -> Discovery:
        try:
            response = await self._http.get(url)
            if response.status != 200:
                raise DiscoveryError(
                    "discovery_failed",
                    f"the provider answered {response.status} when asked for its discovery document",
                )
            document = parse_discovery(response.body, url)
        except EntraFastError as exc:
            self._metrics.discovery.add(exc.code)
            raise
        self._metrics.discovery.add("ok")
        return document

    async def _until_found(self, found: Callable[[Endpoints], None]) -> None:
        pause = FIRST_PAUSE
        while self.endpoints is None:
            try:
                await self._ask()
            except ProviderError:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreading, no secret
                pause = min(pause * 2, LONGEST_PAUSE)
        found(self.endpoints)
