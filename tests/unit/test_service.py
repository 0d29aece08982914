"""The service of a sidecar and its start, where something is announced twice or is in use."""

from __future__ import annotations

import socket
import sys

import pytest

from entra_fast._metrics import Metrics
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.running import start_sidecar
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.service import Service, new_token_cache
from support.provider import Provider
from support.sidecars import StartSidecar, eventually


async def test_a_provider_that_is_found_again_changes_nothing(provider: Provider) -> None:
    """The verification cache stays, and so does the source of keys."""
    settings = Settings.from_environment(provider.environment(), None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    clients = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    client = clients.clients["entra_id"]
    service = Service(settings, clients, cache=cache, metrics=metrics, clocks=clocks)
    await service.start()
    await clients.tokens["entra_id"].acquire("api://dev-gcp.team.app/.default")  # now the endpoints are known

    async def keys_are_known() -> bool:
        return client.keys is not None and client.keys.keys is not None

    await eventually(keys_are_known)
    assert client.keys is not None
    first = service.served[0].validation
    assert first is not None
    service.provider_found("entra_id", "https://other.example", client.keys)
    assert service.served[0].validation is first
    token = provider.mint()
    assert b'"active":true' in await service.introspect(0, token)
    await service.aclose()


async def test_keys_that_come_before_the_issuer_are_used_with_it(provider: Provider) -> None:
    """Whichever is known first; until both are, there is no verification cache to count."""
    settings = Settings.from_environment(provider.environment(), None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    clients = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    started = Service(settings, clients, cache=cache, metrics=metrics, clocks=clocks)
    await started.start()
    client = clients.clients["entra_id"]

    async def keys_are_known() -> bool:
        return client.keys is not None and client.keys.keys is not None

    await eventually(keys_are_known)
    assert client.keys is not None
    own = Metrics()
    service = Service(settings, clients, cache=cache, metrics=own, clocks=clocks)
    service.keys_changed("entra_id", client.keys.keys)
    assert service.has_started()
    assert b"entra_fast_verified_cache_entries 0.0" in await own.exposition()
    service.provider_found("entra_id", provider.issuer, client.keys)
    assert b'"active":true' in await service.introspect(0, provider.mint())
    assert b"entra_fast_verified_cache_entries 1.0" in await own.exposition()
    await started.aclose()


async def test_a_probe_address_in_use_leaves_no_socket_behind(provider: Provider) -> None:
    """The start is refused, and the API's address is free again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environ = provider.environment(
            BIND_ADDRESS=address, PROBE_BIND_ADDRESS=f"127.0.0.1:{taken.getsockname()[1]}"
        )
        with pytest.raises(ConfigurationError, match="PROBE_BIND_ADDRESS"):
            await start_sidecar(Settings.from_environment(environ, None))
    with socket.socket() as again:
        again.bind(("127.0.0.1", int(address.rpartition(":")[2])))


async def test_a_start_that_fails_leaves_no_socket_behind(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module for the shared cache is not installed: both addresses are free again."""
    monkeypatch.setitem(sys.modules, "entra_fast._provider.redis_cache", None)
    with socket.socket() as api, socket.socket() as probes:
        addresses = []
        for free in (api, probes):
            free.bind(("127.0.0.1", 0))
            addresses.append(free.getsockname())
    environ = provider.environment(
        BIND_ADDRESS="{}:{}".format(*addresses[0]),
        PROBE_BIND_ADDRESS="{}:{}".format(*addresses[1]),
        ENTRA_FAST_REDIS_URL="redis://127.0.0.1:1",
        ENTRA_FAST_REDIS_KEY=bytes(range(32)).hex(),
    )
    with pytest.raises(ImportError, match="redis_cache"):
        await start_sidecar(Settings.from_environment(environ, None))
    for address in addresses:
        with socket.socket() as again:
            again.bind(address)


async def test_a_defect_is_answered_with_500_and_logged(
    start: StartSidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The response says nothing about the error, and the next request on the connection is answered."""
    sidecar = await start(ENTRA_FAST_FAST_PATH="false")

    async def defect(_: int, __: str) -> bytes:
        raise RuntimeError("canary")

    monkeypatch.setattr(sidecar.running.service, "introspect", defect)
    answer = await sidecar.call.introspect("no token")
    assert (answer.status, answer.json["error"]) == (500, "server_error")
    assert b"canary" not in answer.body
    assert "unexpected error while answering a request" in caplog.text
    assert (await sidecar.call.get("/healthz")).status == 200
