"""The side of the sidecar that talks to the providers.

What belongs here: one client for each enabled provider, the cache that replicas share, and what is true of
all providers together. What must never be here: what one client does (provider_client.py), requests of
clients and responses to them (service.py), and several processes (process/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from entra_fast._metrics import Metrics
from entra_fast._provider.token_client import TokenClient
from entra_fast._provider.tokens import TokenCache
from entra_fast._provider.waiting import Waiting
from entra_fast._settings.cache_sizes import processes
from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.interfaces import ProviderChanges
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.provider_client import ProviderClient
from entra_fast.sidecar.readiness import Readiness
from entra_fast.sidecar.tracing import Tracing

if TYPE_CHECKING:
    from entra_fast._provider.redis_cache import SharedCache


LEAST_ROOM: Final = 8 << 20
"""Bytes that callers may take at least, where the container has less memory than a sidecar needs."""


class ProviderClients:
    """Speaks to all enabled providers: a `Providers`. Belongs to one event loop.

    Args:
        settings: of the sidecar.
        cache: where acquired tokens are kept.
        metrics: where requests to the providers are counted.
        clocks: where time comes from.
        tracing: makes a span for each request to a provider.
        cached_bytes: what the cached tokens of one process take now.

    Attributes:
        clients: of the providers, by name. Each has HTTP clients, keys and a credential of its own, so that
            nothing that happens at one provider delays another.
        tokens: see `Providers`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        cache: TokenCache,
        metrics: Metrics,
        clocks: Clocks,
        tracing: Tracing | None = None,
        cached_bytes: Callable[[], int] = lambda: 0,
    ) -> None:
        waiting = _waiting(settings, cached_bytes)
        self._shared_cache = _shared_cache(settings, metrics, clocks)
        self.clients: Mapping[str, ProviderClient] = {
            provider.name: ProviderClient(
                settings,
                provider,
                cache=cache,
                metrics=metrics,
                clocks=clocks,
                replicas=self._shared_cache,
                tracing=tracing,
                waiting=waiting,
            )
            for provider in settings.providers
        }
        self.tokens: Mapping[str, TokenClient] = {
            name: client.tokens for name, client in self.clients.items() if client.tokens is not None
        }

    async def start(self, changes: ProviderChanges) -> None:
        """See `Providers.start`."""
        if not self.clients:
            logger.warning("no provider is enabled")
        if self._shared_cache is not None:
            self._shared_cache.start()
        for client in self.clients.values():
            await client.start(changes)

    async def aclose(self) -> None:
        """See `Providers.aclose`."""
        for client in self.clients.values():
            await client.aclose()
        if self._shared_cache is not None:
            await self._shared_cache.aclose()

    async def readiness(self) -> Readiness:
        """See `Providers.readiness`."""
        return self.readiness_now()

    def readiness_now(self) -> Readiness:
        """Like `readiness`."""
        return Readiness.of(*(client.readiness() for client in self.clients.values()))

    @property
    def have_keys(self) -> bool:
        """Whether tokens of every provider can be verified now."""
        return all(client.has_keys for client in self.clients.values())

    async def keys_problem(self, provider: str) -> str | None:
        """See `Providers.keys_problem`."""
        return self.clients[provider].no_keys_reason()

    async def exposition(self, own: Metrics) -> bytes:
        """See `Providers.exposition`: one process is the whole."""
        return await own.exposition()

    def sweep(self) -> None:
        """Forget what has ended, except for tokens."""
        for tokens in self.tokens.values():
            tokens.sweep()


def _waiting(settings: Settings, cached_bytes: Callable[[], int]) -> Waiting | None:
    """Counts the callers that wait for tokens, where the container has a memory limit: they share what idle
    processes, cached tokens and the verification cache leave. With workers, a caller takes its part in two
    processes, and each process has a copy of each cached token."""
    caches, workers = settings.caches, settings.server.workers
    if caches.memory_limit is None:
        return None
    room = caches.memory_limit - caches.idle_bytes - caches.verified_bytes
    parts = 1 if workers == 1 else 2
    return Waiting(lambda: max(LEAST_ROOM, (room - cached_bytes() * processes(workers)) / parts))


def _shared_cache(settings: Settings, metrics: Metrics, clocks: Clocks) -> SharedCache | None:
    """The cache that replicas share, if one is configured, and if there are tokens to share."""
    if settings.shared_cache is None or not any(
        provider.kind.has_credential for provider in settings.providers
    ):
        return None
    from entra_fast.sidecar.redis_import import import_redis  # noqa: PLC0415 - needs the [redis] extra

    import_redis()
    from entra_fast._provider.redis_cache import SharedCache  # noqa: PLC0415

    shared_cache = SharedCache(
        settings.shared_cache,
        ca_bundle=settings.outbound.ca_bundle,
        metrics=metrics,
        clock=clocks.wall,
        monotonic=clocks.monotonic,
    )
    metrics.shared_available.read_from(lambda: shared_cache.available)
    return shared_cache
