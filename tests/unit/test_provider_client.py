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
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.policy import policy_for
from entra_fast.sidecar.provider_client import ProviderClient
from entra_fast.sidecar.provider_clients import ProviderClients
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
