"""The side of the sidecar that talks to the provider, and its absence."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping

import pytest

from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError, ProviderError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.provider_client import ProviderClient
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.readiness import Part, ProviderReadiness, Readiness
from entra_fast.sidecar.service import Service, new_token_cache
from support.provider import Provider, after, refuse
from support.several import ENTRA, IDPORTEN, MASKINPORTEN, TOKENX, Kind, several
from support.sidecars import eventually
from support.tokens import AUDIENCE, TENANT

ENVIRON = {
    "AZURE_APP_CLIENT_ID": AUDIENCE,
    "AZURE_APP_TENANT_ID": TENANT,
    "AZURE_APP_CLIENT_SECRET": "not asked for",
    "AZURE_OPENID_CONFIG_JWKS_URI": "http://127.0.0.1:9/keys",
    "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "http://127.0.0.1:9/token",
}


def service_for(environ: dict[str, str]) -> tuple[Service, ProviderClient]:
    settings = Settings.from_environment(environ, None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    providers = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    service = Service(settings, providers, cache=cache, metrics=metrics, clocks=clocks)
    return service, providers.clients["entra_id"]


async def test_an_issuer_that_cannot_be_verified_is_reported_and_not_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An issuer with a placeholder: one log line with the reason, which readiness and introspection
    repeat."""
    issuer = "https://login.microsoftonline.com/{tenantid}/v2.0"
    service, provider = service_for({**ENVIRON, "AZURE_OPENID_CONFIG_ISSUER": issuer})
    with caplog.at_level(logging.ERROR, "entra_fast"):
        await service.start()
    (record,) = caplog.records
    assert record.getMessage() == "introspection is not possible"
    readiness = await service.readiness()
    reason = readiness.reason
    assert reason is not None
    assert not readiness.ready
    assert reason.startswith("entra_id: tokens of this issuer cannot be verified: ")
    problem = reason.removeprefix("entra_id: ")
    assert "ENTRA_FAST_ALLOWED_TENANTS is not set" in reason
    assert vars(record)["fields"] == {"provider": "entra_id", "reason": problem}
    assert provider.keys is None
    assert problem.encode() in await service.introspect(0, "any")
    await service.aclose()


async def test_a_generic_provider_is_told_its_own_setting() -> None:
    """The setting for tenants belongs to one provider: that of another would change nothing."""
    prefix = "ENTRA_FAST_PROVIDER_PARTNER_"
    settings = Settings.from_environment(
        {
            "ENTRA_FAST_PROVIDERS": "partner",
            f"{prefix}ISSUER": "https://login.example/{tenantid}/v2.0",
            f"{prefix}JWKS_URI": "http://127.0.0.1:9/keys",
            f"{prefix}AUDIENCE": AUDIENCE,
        },
        None,
    )
    (provider,) = settings.providers
    assert provider.issuer is not None
    with pytest.raises(ConfigurationError, match=f"set {prefix}ALLOWED_TENANTS to the ids") as caught:
        policy_for(provider.issuer, provider)
    assert caught.value.setting == f"{prefix}ALLOWED_TENANTS"


async def test_before_keys_arrive_readiness_says_that_they_are_missing() -> None:
    """The endpoints are known from the settings, but the key set was not fetched yet."""
    issuer = f"https://login.microsoftonline.com/{TENANT}/v2.0"
    service, provider = service_for({**ENVIRON, "AZURE_OPENID_CONFIG_ISSUER": issuer})
    assert provider.readiness().reason == "entra_id: validation has not started yet"
    await service.start()
    assert provider.keys is not None
    assert (await service.readiness()).reason == f"entra_id: {provider.keys.unavailable().message}"
    assert provider.no_keys_reason() == provider.keys.unavailable().message
    service.draining = True
    assert (await service.readiness()).reason == "shutting down"
    await service.aclose()


class Kept:
    """The last key set that was announced, and how often there was one."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.keys: list[KeySet | None] = []
        self.cool_downs: list[Mapping[Cause, float]] = []

    def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
        self.found.append((provider, issuer))

    def keys_changed(self, provider: str, keys: KeySet | None) -> None:
        assert provider == self.found[0][0]
        self.keys.append(keys)

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        assert provider == self.found[0][0]
        self.cool_downs.append(until)


def client_of(
    environ: dict[str, str], name: str = "entra_id", clocks: Clocks | None = None
) -> tuple[ProviderClient, Metrics]:
    settings = Settings.from_environment(environ, None)
    metrics = Metrics()
    (provider,) = (each for each in settings.providers if each.name == name)
    cache = new_token_cache(settings.caches)
    return ProviderClient(
        settings, provider, cache=cache, metrics=metrics, clocks=clocks or Clocks()
    ), metrics


async def with_keys(client: ProviderClient, changes: Kept) -> None:
    await client.start(changes)

    async def fetched() -> bool:
        return client.has_keys

    await eventually(fetched)


async def tried(client: ProviderClient, status: str) -> None:
    async def known() -> bool:
        credential = client.readiness().credential
        return credential is not None and credential.status == status

    await eventually(known)


async def test_a_client_announces_its_provider_and_its_keys(provider: Provider) -> None:
    """Once each; it is ready when the credential has been tried as well."""
    client, metrics = client_of(provider.environment())
    begun = client.readiness()
    assert (begun.name, begun.ready) == ("entra_id", False)
    assert begun.keys == Part("missing", "the discovery document has not been fetched yet")
    assert begun.credential is not None
    assert begun.credential.status == "unknown"
    assert (begun.credential.reason or "").endswith(": it has not been tried yet")
    changes = Kept()
    await with_keys(client, changes)
    assert changes.found == [("entra_id", provider.issuer)]
    assert [None if keys is None else keys.kids for keys in changes.keys] == [(provider.key.kid,)]
    await tried(client, "accepted")
    expected = ProviderReadiness("entra_id", True, Part("available"), Part("accepted"))
    assert client.readiness() == expected
    assert metrics.figures()["entra_fast_key_set_keys"] == [(("entra_id",), [1])]
    await client.aclose()


@pytest.mark.parametrize("kind", [TOKENX, IDPORTEN, MASKINPORTEN])
async def test_what_a_provider_needs_depends_on_its_kind(kind: Kind) -> None:
    """TokenX has no try, so that the first request of a caller judges the credential; ID-porten has none;
    Maskinporten has no scope to try with here."""
    async with several(kind) as running:
        client, metrics = client_of(running.environment(), kind.name)
        changes = Kept()
        assert (client.tokens is None) is (kind is IDPORTEN)
        await with_keys(client, changes)
        readiness = client.readiness()
        assert (readiness.ready, readiness.reason) == (True, None)
        assert readiness.credential == (None if kind is IDPORTEN else Part("unknown", None))
        figures = metrics.figures()
        for name in ("entra_fast_credential_rejected", "entra_fast_stale_tokens_served_total"):
            assert bool(figures[name]) is (kind is not IDPORTEN), name
        if client.tokens is not None:
            running[kind.name].always = refuse(401, "invalid_client")
            user = running.mint(kind.name, exp=4_000_000_000)
            tokens = client.tokens
            asked = tokens.exchange("c:n:a", user) if kind is TOKENX else tokens.acquire(kind.target)
            with pytest.raises(ProviderError):
                await asked
            assert client.readiness().credential == Part("rejected", "credential rejected (invalid_client)")
            assert metrics.credential_rejected.read(kind.name) == 1
        await client.aclose()


@pytest.mark.parametrize("mode", ["live", "latched"])
async def test_trouble_after_the_start_counts_where_readiness_is_live(provider: Provider, mode: str) -> None:
    """A rejected credential, and keys that were discarded: in the reason in either case."""
    environ = provider.environment(**({"ENTRA_FAST_READINESS": "live"} if mode == "live" else {}))
    client, _ = client_of(environ)
    await with_keys(client, Kept())
    await tried(client, "accepted")
    assert client.readiness().ready
    provider.always = refuse(401, "invalid_client", error_codes=[7000222])
    assert client.tokens is not None
    with pytest.raises(ProviderError):
        await client.tokens.acquire("api://c.n.a/.default")
    readiness = client.readiness()
    assert readiness.credential == Part("rejected", "credential rejected (AADSTS7000222)")
    assert readiness.ready is (mode == "latched")
    assert readiness.reason == "entra_id: credential rejected (AADSTS7000222)"
    client._credentials.accepted()
    assert client.readiness().ready
    assert client.keys is not None
    client.keys.discard_when_too_old(math.inf)
    readiness = client.readiness()
    assert readiness.keys.status == "missing"
    assert readiness.ready is (mode == "latched")
    assert readiness.reason == f"entra_id: {client.no_keys_reason()}"
    await client.aclose()


async def test_requests_under_way_are_counted(provider: Provider) -> None:
    """Of each provider, as they are now."""
    client, metrics = client_of(provider.environment())
    await with_keys(client, Kept())
    assert client.tokens is not None
    assert metrics.flights.read("entra_id") == 0
    release = asyncio.Event()
    provider.then(after(release, provider))
    asking = asyncio.create_task(client.tokens.acquire("api://c.n.a/.default"))
    await provider.asked(1)
    assert metrics.flights.read("entra_id") == 1
    release.set()
    await asking
    assert metrics.flights.read("entra_id") == 0
    await client.aclose()


async def test_a_rejected_credential_stays_rejected(provider: Provider) -> None:
    """Until it changes or is accepted, however long that takes: nobody has to repeat the request for the
    state to be known."""
    now = 5_000.0
    client, _ = client_of(provider.environment(), clocks=Clocks(time.time, lambda: now))
    await with_keys(client, Kept())
    await tried(client, "accepted")
    provider.on_try = provider.always = refuse(401, "invalid_client", error_codes=[7000222])
    assert client.tokens is not None
    with pytest.raises(ProviderError):
        await client.tokens.acquire("api://c.n.a/.default")
    for _ in range(3):
        now += 7 * 86_400
        assert client.readiness().credential == Part("rejected", "credential rejected (AADSTS7000222)")
    await client.aclose()


async def test_a_client_asks_with_connections_for_keys_of_their_own(provider: Provider) -> None:
    """Requests for tokens that hang do not delay them."""
    client, _ = client_of(provider.environment())
    assert client._token_http is not client._key_http
    await with_keys(client, Kept())
    await client.aclose()


@pytest.mark.parametrize(("kind", "cool_down"), [(ENTRA, 300.0), (TOKENX, 30.0)])
async def test_how_soon_keys_are_asked_for_again_depends_on_the_provider(
    kind: Kind, cool_down: float
) -> None:
    """TokenX rotates its keys unannounced."""
    now = 5_000.0
    async with several(kind) as running:
        client, _ = client_of(running.environment(), kind.name, Clocks(time.time, lambda: now))
        changes = Kept()
        await with_keys(client, changes)
        assert client.keys is not None
        keys = client.keys

        async def fetched() -> bool:
            return not keys._fetching

        await eventually(fetched)
        now += 1_000
        for time_since, requests in ((0.0, 2), (cool_down - 1, 2), (2.0, 3)):
            now += time_since
            await keys.refresh_for(Cause.UNKNOWN_KEY, "unheard of")
            await eventually(fetched)
            assert running[kind.name].jwks_requests == requests
        await asyncio.sleep(0)  # it is announced behind the fetch
        assert changes.cool_downs[-1][Cause.UNKNOWN_KEY] == now + cool_down
        await client.aclose()


async def test_the_clock_s_difference_is_measured_at_each_answer(provider: Provider) -> None:
    """In metrics exactly, in readiness to a tenth of a second."""
    provider.clock_offset = -100.0
    client, metrics = client_of(provider.environment())
    await with_keys(client, Kept())
    skew = metrics.clock_skew.read("entra_id")
    assert skew == pytest.approx(100.0, abs=2.5)
    client._clock_skew.seconds = -12.36
    assert metrics.clock_skew.read("entra_id") == -12.36
    assert client.readiness().clock_skew_seconds == -12.4
    await client.aclose()


class Nothing:
    """Ignores all changes."""

    def provider_found(self, provider: str, issuer: str, keys: KeySource) -> None:
        raise AssertionError

    def keys_changed(self, provider: str, keys: KeySet | None) -> None:
        raise AssertionError

    def cool_downs_changed(self, provider: str, until: Mapping[Cause, float]) -> None:
        raise AssertionError


async def test_without_a_provider_there_is_nothing_to_wait_for(caplog: pytest.LogCaptureFixture) -> None:
    """A sidecar without a provider starts, is ready, and says in its log why there is none."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
    providers = ProviderClients(
        settings, cache=new_token_cache(settings.caches), metrics=Metrics(), clocks=Clocks()
    )
    await providers.start(Nothing())
    assert "no provider is enabled" in caplog.text
    assert (providers.tokens, providers.clients, providers.have_keys) == ({}, {}, True)
    assert await providers.readiness() == Readiness(ready=True)
    assert b"entra_fast_requests_total" in await providers.exposition(Metrics())
    providers.sweep()  # there are no tokens to forget
    await providers.aclose()


async def test_a_service_without_a_provider_has_no_fast_path() -> None:
    """It answers that no provider is enabled, and has nothing to sweep."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    providers = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    service = Service(settings, providers, cache=cache, metrics=metrics, clocks=clocks)
    assert service.fast_path is None
    assert service.served == ()
    service._sweep()
    service._sweep_part()
    await service.aclose()
