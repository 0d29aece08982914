"""The interfaces between the parts of a sidecar.

What belongs here: what the side that answers requests (`Service`) and the side that talks to the provider
(`ProviderClient`) need from each other, and what a listener needs from its process. What must never be here:
an implementation.

A single process holds both sides. With workers, the provider process holds the `ProviderClients`, and each
worker holds a `Service` and a `ProviderChannel`, which stands for the provider process. A provider is always
meant by its name, as in `identity_provider`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._provider.token_client import Acquirer
from entra_fast.sidecar.logs import AccessLog
from entra_fast.sidecar.readiness import Readiness
from entra_fast.sidecar.tracing import Tracing


class ProviderChanges(Protocol):
    """Receives changes at the providers. Each change has been applied when the call returns, so the order of
    calls is guaranteed."""

    def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
        """The provider's endpoints are known. `keys` is asked for unknown keys from now on."""

    def keys_changed(self, provider: str, keys: KeySet | None) -> None:
        """There is a new key set; None if the last one was discarded."""

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        """No token causes a fetch of the provider's keys until then, in seconds of the monotonic clock."""


class Providers(Protocol):
    """The side that talks to the providers, as `Service` sees it.

    Attributes:
        tokens: acquires tokens, by provider. Those that issue none have no entry.
    """

    @property
    def tokens(self) -> Mapping[str, Acquirer]: ...

    async def start(self, changes: ProviderChanges) -> None:
        """Begin to fetch in the background. Does not fail when a provider is unavailable."""

    async def aclose(self) -> None:
        """Stop everything that runs in the background, and close the connections to the providers."""

    async def readiness(self) -> Readiness:
        """What works now."""

    async def keys_problem(self, provider: str) -> str | None:
        """Why no token of a provider can be verified, before `provider_found` was called for it."""

    async def exposition(self, own: Metrics) -> bytes:
        """The metrics of the whole sidecar, as Prometheus reads them. `own` are those of the process that
        asks."""


class Observed(Protocol):
    """What a listener needs from its process: metrics, the access log, and the results of probes."""

    metrics: Metrics
    access_log: AccessLog
    tracing: Tracing | None
    draining: bool

    async def readiness(self) -> Readiness:
        """What works now."""

    def has_started(self) -> bool:
        """Whether the start is over: see `StartUp`."""

    async def exposition(self) -> bytes:
        """The metrics of the whole sidecar, as Prometheus reads them."""
