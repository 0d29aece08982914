"""The side of the sidecar that talks to the provider, and its absence."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from entra_fast._metrics import Metrics
from entra_fast._native import KeySet
from entra_fast._provider.jwks import KeySource
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.provider_client import NoProvider, ProviderClient
from entra_fast.sidecar.readiness import Readiness
from entra_fast.sidecar.service import Service, new_token_cache
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
    assert settings.provider is not None
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    provider = ProviderClient(settings, settings.provider, cache=cache, metrics=metrics, clocks=clocks)
    return Service(settings, provider, cache=cache, metrics=metrics, clocks=clocks), provider


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
    assert reason.startswith("tokens of this issuer cannot be verified: ")
    assert "ENTRA_FAST_ALLOWED_TENANTS is not set" in reason
    assert vars(record)["fields"] == {"reason": reason}
    assert provider.keys is None
    assert reason.encode() in await service.introspect("any")
    await service.aclose()


async def test_before_keys_arrive_readiness_says_that_they_are_missing() -> None:
    """The endpoints are known from the settings, but the key set was not fetched yet."""
    issuer = f"https://login.microsoftonline.com/{TENANT}/v2.0"
    service, provider = service_for({**ENVIRON, "AZURE_OPENID_CONFIG_ISSUER": issuer})
    assert provider.readiness_now().reason == "validation has not started yet"
    await service.start()
    assert provider.keys is not None
    assert (await service.readiness()).reason == provider.keys.unavailable().message
    assert await provider.keys_problem() == provider.keys.unavailable().message
    service.draining = True
    assert (await service.readiness()).reason == "shutting down"
    await service.aclose()


class Nothing:
    """Ignores all changes."""

    def provider_found(self, issuer: str, keys: KeySource) -> None:
        raise AssertionError

    def keys_changed(self, keys: KeySet | None) -> None:
        raise AssertionError

    def cool_downs_changed(self, until: Mapping[Cause, float]) -> None:
        raise AssertionError


async def test_without_a_provider_there_is_nothing_to_wait_for(caplog: pytest.LogCaptureFixture) -> None:
    """A sidecar without a provider starts, is ready, and says in its log why there is none."""
    provider = NoProvider()
    await provider.start(Nothing())
    assert "AZURE_ENABLED" in caplog.text
    assert (provider.tokens, provider.keys, provider.no_keys_reason()) == (None, None, None)
    assert await provider.readiness() == Readiness(ready=True)
    assert await provider.keys_problem() is None
    assert b"entra_fast_requests_total" in await provider.exposition(Metrics())
    await provider.aclose()


async def test_a_service_without_a_provider_introspects_nothing() -> None:
    """The response names what is not enabled; there is no fast path."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
    cache, metrics = new_token_cache(settings.caches), Metrics()
    service = Service(settings, NoProvider(), cache=cache, metrics=metrics, clocks=Clocks())
    assert service.fast_path is None
    assert b"is not enabled" in await service.introspect("any")
    service.cool_downs_changed(dict.fromkeys(Cause, 0.0))
    service.keys_changed(None)
    service._sweep()  # there are no tokens to forget
    assert service.tokens is None
    await service.aclose()
