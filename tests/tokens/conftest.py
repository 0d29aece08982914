"""The servers that token clients talk to, in a thread of their own: a provider that records what it was sent,
a sidecar in front of it, and APIs that get the tokens."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from entra_fast.tokens import AsyncTokenClient, Token, TokenClient
from support.background import Api, ThreadLoop, started_sidecar
from support.provider import Provider, Recorded

TARGET = "dev-gcp:team-b:app-b"
SCOPE = "api://dev-gcp.team-b.app-b/.default"


@pytest.fixture
def servers() -> Iterator[ThreadLoop]:
    """The loop that servers run on."""
    loop = ThreadLoop()
    yield loop
    loop.close()


@pytest.fixture
def entra(servers: ThreadLoop) -> Iterator[Provider]:
    """A provider that records token requests."""
    provider = Provider()
    servers.run(provider.start())
    yield provider
    servers.run(provider.stop())


@pytest.fixture
def sidecar(servers: ThreadLoop, entra: Provider) -> Iterator[dict[str, str]]:
    """The variables that name a running sidecar."""
    running = servers.run(started_sidecar(entra.environment()))
    yield {
        "NAIS_TOKEN_ENDPOINT": f"{running.base_url}/api/v1/token",
        "NAIS_TOKEN_EXCHANGE_ENDPOINT": f"{running.base_url}/api/v1/token/exchange",
        "NAIS_TOKEN_INTROSPECTION_ENDPOINT": f"{running.base_url}/api/v1/introspect",
    }
    servers.run(running.stop())


def an_api(servers: ThreadLoop) -> Iterator[Api]:
    api = Api()
    servers.run(api.start())
    yield api
    servers.run(api.stop())


@pytest.fixture
def api(servers: ThreadLoop) -> Iterator[Api]:
    """The API that the tokens are for."""
    yield from an_api(servers)


@pytest.fixture
def foreign(servers: ThreadLoop) -> Iterator[Api]:
    """An API of another origin."""
    yield from an_api(servers)


@dataclass
class Tokens:
    """A token client of either kind, with one interface."""

    client: AsyncTokenClient | TokenClient
    entra: Provider
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(128))
    """asyncio's own executor has too few."""

    @property
    def requests(self) -> list[Recorded]:
        """What the provider has been asked."""
        return self.entra.requests

    async def m2m(self, target: str = TARGET, **options: Any) -> Token:
        return await self._call("client_credentials", target, **options)

    async def obo(self, subject_token: str, target: str = TARGET, **options: Any) -> Token:
        return await self._call("on_behalf_of", target, subject_token, **options)

    async def close(self) -> None:
        if isinstance(self.client, AsyncTokenClient):
            await self.client.aclose()
        else:
            await asyncio.to_thread(self.client.close)

    async def _call(self, name: str, *arguments: Any, **options: Any) -> Token:
        method: Callable[..., Any] = getattr(self.client, name)
        if isinstance(self.client, AsyncTokenClient):
            found: Token = await method(*arguments, **options)
            return found
        call = functools.partial(method, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)


@pytest.fixture(params=["asynchronous", "synchronous"])
def kind(request: pytest.FixtureRequest) -> type[AsyncTokenClient | TokenClient]:
    """The class of the client."""
    return AsyncTokenClient if request.param == "asynchronous" else TokenClient


@pytest.fixture(params=["provider", "sidecar"])
def environment(request: pytest.FixtureRequest, entra: Provider, sidecar: dict[str, str]) -> dict[str, str]:
    """An environment that configures the client to go straight to the provider, or through the sidecar."""
    return entra.environment() if request.param == "provider" else sidecar


@pytest.fixture
async def tokens(
    kind: type[AsyncTokenClient | TokenClient], environment: dict[str, str], entra: Provider
) -> Any:
    """A client of each kind, configured in each way."""
    made = Tokens(kind.from_env(environment), entra)
    yield made
    await made.close()
