"""A token client whose surroundings a test controls: scripted HTTP, and clocks that stand still."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache, token_cache_key
from entra_fast._provider.back_off import BackOffWindows
from entra_fast._provider.credentials import Credentials
from entra_fast._provider.endpoints import EndpointFinder
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure, HttpResponse
from entra_fast._provider.replication import Replicas
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.token_endpoint import TokenEndpoint
from entra_fast._provider.tokens import Timing
from entra_fast._provider.waiting import Waiting
from entra_fast._settings.model import CredentialSettings, OutboundSettings, ProviderSettings
from entra_fast._settings.secret import Secret

Answer = HttpResponse | HttpFailure


def granted(token: str = "token", expires_in: object = 3600) -> HttpResponse:
    body = {"access_token": token, "token_type": "Bearer", "expires_in": expires_in}
    return HttpResponse(200, {"Content-Type": "application/json"}, json.dumps(body).encode())


def failed(status: int, retry_after: str | None = None) -> HttpResponse:
    return HttpResponse(status, {} if retry_after is None else {"Retry-After": retry_after}, b"")


class ScriptedHttp(HttpClient):
    """Answers from a script, otherwise with a token; records the forms and the time that was allowed."""

    def __init__(self) -> None:
        super().__init__(proxies={})
        self.script: list[Answer] = []
        self.forms: list[Mapping[str, str]] = []
        self.allowed: list[float | None] = []
        self.gate: asyncio.Event | None = None

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> HttpResponse:
        self.forms.append(fields)
        self.allowed.append(timeout)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.script.pop(0) if self.script else granted(f"token-{len(self.forms)}")
        if isinstance(answer, HttpFailure):
            raise answer
        return answer


class Later:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, delay: float, callback: Callable[[], None]) -> Later:
        self.due.append((delay, callback))
        return self

    def cancel(self) -> None:
        """Nothing fires by itself."""


class World:
    """A token client whose surroundings the test controls."""

    def __init__(
        self,
        *,
        uniform: Callable[[float, float], float] = lambda low, high: (low + high) / 2,
        finder: Callable[..., EndpointFinder] = EndpointFinder,
        replicas: Replicas | None = None,
        waiting: Waiting | None = None,
        **outbound: Any,
    ) -> None:
        self.monotonic = 1000.0
        self.wall = 1_800_000_000.0
        self.pauses: list[float] = []
        self.http = ScriptedHttp()
        self.later = Later()
        self.metrics = Metrics()
        self.cache = TokenCache()
        self.provider = provider = ProviderSettings(
            client_id="client",
            tenant_id="tenant",
            well_known_url=None,
            issuer="https://login.example/t",
            jwks_uri="https://login.example/keys",
            token_endpoint="https://login.example/token",
            credentials=CredentialSettings(client_secret=Secret("AZURE_APP_CLIENT_SECRET", "secret")),
        )
        timing = Timing(
            clock=lambda: self.wall,
            monotonic=lambda: self.monotonic,
            sleep=self._sleep,
            uniform=uniform,
            call_later=self.later,
        )
        self.endpoint = endpoint = TokenEndpoint(
            provider,
            finder=finder(provider, self.http, self.metrics),
            http=self.http,
            credentials=Credentials(provider.credentials, "client"),
            metrics=self.metrics,
            timing=timing,
        )
        self.client = TokenClient(
            endpoint,
            self.cache,
            OutboundSettings(**outbound),
            metrics=self.metrics,
            replicas=replicas,
            timing=timing,
            waiting=waiting,
        )

    def token_key(self) -> bytes:
        """Of the application's own token for `a:b:c`, as all processes and replicas compute it."""
        parts = ["entra_id", "tenant", "client", "api://a.b.c/.default", "", ""]
        return token_cache_key("client_credentials", parts)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.monotonic += seconds

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.client.in_flight == 0

    @property
    def windows(self) -> BackOffWindows:
        return self.client._retrying.windows

    def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds


TIMED_OUT = HttpFailure("timed_out", "no answer in time")
