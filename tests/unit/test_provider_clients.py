"""All providers together: the shared cache that they have or not, and what is true of each of them."""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import ssl
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.redis_import import import_redis
from entra_fast.sidecar.service import new_token_cache
from entra_fast.sidecar.tracing import Tracing
from support.network import Authority
from support.several import ENTRA, IDPORTEN, KINDS, MASKINPORTEN, TOKENX, several

REDIS = {"ENTRA_FAST_REDIS_URL": "redis://127.0.0.1:1", "ENTRA_FAST_REDIS_KEY": bytes(range(32)).hex()}
HELD_BACK = "opentelemetry.sdk.metrics"


class Recorded:
    """Changes at the providers: which of them have keys."""

    def __init__(self) -> None:
        self._with_keys: dict[str, asyncio.Event] = {}

    async def until(self, provider: str) -> None:
        """Wait until a provider has keys."""
        async with asyncio.timeout(30):
            await self._with_keys.setdefault(provider, asyncio.Event()).wait()

    def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
        """Nothing here depends on it."""

    def keys_changed(self, provider: str, keys: KeySet | None) -> None:
        if keys is not None:
            self._with_keys.setdefault(provider, asyncio.Event()).set()

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        """Nothing here depends on it."""


def clients_for(
    environ: dict[str, str],
    *,
    metrics: Metrics | None = None,
    clocks: Clocks | None = None,
    tracing: Tracing | None = None,
) -> ProviderClients:
    settings = Settings.from_environment(environ, None)
    return ProviderClients(
        settings,
        cache=new_token_cache(settings.caches),
        metrics=metrics or Metrics(),
        clocks=clocks or Clocks(),
        tracing=tracing,
    )


async def test_each_provider_has_a_client_and_only_those_that_issue_have_tokens() -> None:
    """ID-porten and its likes issue none to applications."""
    async with several() as running:
        clients = clients_for(running.environment())
    names = [kind.name for kind in KINDS]
    assert sorted(clients.clients) == sorted(names)
    assert set(clients.tokens) == {kind.name for kind in KINDS if kind.issues or kind.exchanges}
    for name, tokens in clients.tokens.items():
        assert tokens is clients.clients[name].tokens
    assert not clients.have_keys
    for name in names:
        assert await clients.keys_problem(name) == "validation has not started yet"
    await clients.aclose()


async def test_all_providers_must_have_keys() -> None:
    """One that has none is named, and is reason enough for the whole sidecar not to be ready."""
    async with several(ENTRA, MASKINPORTEN) as running:
        running["maskinporten"].failing = True
        sidecar = clients_for(running.environment())
        changes = Recorded()
        await sidecar.start(changes)
        await changes.until("entra_id")
        assert sidecar.clients["entra_id"].has_keys
        assert not sidecar.have_keys
        assert await sidecar.keys_problem("entra_id") is None
        readiness = await sidecar.readiness()
        assert not readiness.ready
        assert (readiness.reason or "").startswith("maskinporten: ")
        assert [each.name for each in readiness.providers] == ["entra_id", "maskinporten"]
        await sidecar.aclose()


# --- the shared cache ---


async def test_replicas_share_the_tokens_of_every_provider_that_issues_any() -> None:
    """One connection to Redis for all; its state is a metric."""
    metrics = Metrics()
    now = Clocks(lambda: 1_000.0, lambda: 10.0)
    async with several() as running:
        clients = clients_for(running.environment(**REDIS), metrics=metrics, clocks=now)
    shared = clients._shared_cache
    assert shared is not None
    assert len(shared.members) == len(clients.tokens)
    assert (shared._clock(), shared._monotonic()) == (1_000.0, 10.0)
    assert shared._metrics is metrics
    assert metrics.shared_available.read() == 1
    await clients.aclose()


async def test_the_shared_cache_lives_as_long_as_the_clients() -> None:
    """It listens to other replicas from the start to the end; an unreachable server delays nothing."""
    async with several(TOKENX) as running:
        clients = clients_for(running.environment(**REDIS))
        shared = clients._shared_cache
        assert shared is not None
        assert shared._listening is None
        await clients.start(Recorded())
        assert shared._listening is not None
        assert not shared._listening.done()
        await clients.aclose()
        assert shared._listening is None or shared._listening.done()


async def test_redis_over_tls_is_trusted_by_the_same_authorities(tmp_path: Path) -> None:
    """The bundle of the settings holds for Redis, too."""
    bundle = Authority(tmp_path).bundle
    async with several(TOKENX) as running:
        redis_url = {**REDIS, "ENTRA_FAST_REDIS_URL": "rediss://127.0.0.1:1"}
        clients = clients_for(running.environment(**redis_url, ENTRA_FAST_CA_BUNDLE=str(bundle)))
    shared = clients._shared_cache
    assert shared is not None
    connection: Any = shared._pool.make_connection()
    trusted = connection.ssl_context.context.get_ca_certs(binary_form=True)
    assert ssl.PEM_cert_to_DER_cert(bundle.read_text()) in trusted
    await clients.aclose()


@pytest.mark.parametrize("kinds", [(IDPORTEN,), ()], ids=["none issues tokens", "none"])
async def test_without_tokens_there_is_nothing_to_share(kinds: Sequence[object]) -> None:
    """Redis is not even imported."""
    async with several(IDPORTEN) as running:
        environ = running.environment(**REDIS) if kinds else {"AZURE_ENABLED": "false", **REDIS}
        clients = clients_for(environ)
    assert clients._shared_cache is None
    await clients.aclose()


async def test_without_redis_nothing_is_shared() -> None:
    """Although there are tokens."""
    metrics = Metrics()
    async with several(TOKENX) as running:
        clients = clients_for(running.environment(), metrics=metrics)
    assert clients._shared_cache is None
    assert metrics.shared_available.read() == 0
    await clients.aclose()


# --- importing the client of Redis ---


class Importing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Sees what is held back while the client is imported, and gives an empty module for it."""

    def __init__(self, *, absent: bool = False) -> None:
        self.held_back: list[bool] = []
        self._absent = absent

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "redis.asyncio":
            return None
        self.held_back.append(sys.modules.get(HELD_BACK, self) is None)
        if self._absent:
            raise ImportError("it is not installed")
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The usual one."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is in it."""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has imported neither the client nor OpenTelemetry's SDK, and sends no telemetry."""
    monkeypatch.setattr(redis, "asyncio", redis.asyncio)  # put back afterwards
    monkeypatch.delitem(sys.modules, "redis.asyncio")
    for name in [name for name in sys.modules if name == HELD_BACK or name.startswith(f"{HELD_BACK}.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", raising=False)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("absent", [False, True], ids=["installed", "not installed"])
def test_redis_is_imported_without_opentelemetry_s_metrics(
    monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    """They cost 20 MiB, and nobody asks for them. Afterwards they can be imported, whatever happened."""
    importing = Importing(absent=absent)
    monkeypatch.setattr(sys, "meta_path", [importing, *sys.meta_path])
    if absent:
        with pytest.raises(ImportError, match="not installed"):
            import_redis()
    else:
        import_redis()
    assert importing.held_back == [True]
    assert HELD_BACK not in sys.modules


@pytest.mark.usefixtures("fresh")
async def test_so_is_the_shared_cache_of_a_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything else of it imports the client."""
    importing = Importing()
    monkeypatch.setattr(sys, "meta_path", [importing, *sys.meta_path])
    async with several(TOKENX) as running:
        clients = clients_for(running.environment(**REDIS))
    assert importing.held_back == [True]
    await clients.aclose()


@pytest.mark.usefixtures("fresh")
def test_nothing_is_held_back_where_telemetry_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may be importing the SDK at this moment."""
    importing = Importing()
    monkeypatch.setattr(sys, "meta_path", [importing, *sys.meta_path])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    import_redis()
    assert importing.held_back == [False]


@pytest.mark.usefixtures("fresh")
def test_nothing_is_held_back_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays loaded."""
    importing = Importing()
    loaded = types.ModuleType(HELD_BACK)
    monkeypatch.setattr(sys, "meta_path", [importing, *sys.meta_path])
    monkeypatch.setitem(sys.modules, HELD_BACK, loaded)
    import_redis()
    assert importing.held_back == [False]
    assert sys.modules[HELD_BACK] is loaded
