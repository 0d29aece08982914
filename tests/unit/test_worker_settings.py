"""The settings of a worker, as they are sent to it."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from entra_fast._settings.load import Settings
from entra_fast.errors import EntraFastError
from entra_fast.sidecar.process.worker_settings import for_worker, settings_from, share_of_each
from entra_fast.sidecar.providers import contract_of
from support.tokens import AUDIENCE, TENANT

ENVIRON = {
    "AZURE_APP_CLIENT_ID": AUDIENCE,
    "AZURE_APP_TENANT_ID": TENANT,
    "AZURE_APP_CLIENT_SECRET": "canary-canary",
    "ENTRA_FAST_WORKERS": "3",
    "ENTRA_FAST_MAX_CONNECTIONS": "1000",
    "ENTRA_FAST_ALLOWED_HOSTS": "b.example,a.example",
    "ENTRA_FAST_ALLOWED_TENANTS": TENANT,
    "ENTRA_FAST_ALGORITHMS": "PS256,RS256",
}


def test_a_worker_gets_its_part_and_no_secret() -> None:
    """Limits of the whole are divided and rounded up; what arrives as JSON is what was meant."""
    settings = Settings.from_environment(ENVIRON, None)
    sent = orjson.dumps(for_worker(settings))
    assert b"canary" not in sent
    received = settings_from(orjson.loads(sent))
    assert received.server.max_connections == 334
    assert received.server.allowed_hosts == settings.server.allowed_hosts
    assert received.caches.max_bytes == settings.caches.max_bytes // 4
    assert received.caches.verified_entries == -(-settings.caches.verified_entries // 3)
    assert received.caches.max_entries == settings.caches.max_entries
    (one,), (other,) = received.providers, settings.providers
    assert one.client_id == other.client_id
    assert one.tenant_id == other.tenant_id
    assert one.allowed_tenants == other.allowed_tenants == (TENANT,)
    assert one.algorithms == other.algorithms == ("PS256", "RS256")


def test_a_worker_lists_each_known_provider_once() -> None:
    """The sentence about an unknown provider is that of a sidecar without workers, also with a provider that
    the operator has named."""
    environ = {
        **ENVIRON,
        "ENTRA_FAST_PROVIDERS": "partner",
        "ENTRA_FAST_PROVIDER_PARTNER_WELL_KNOWN_URL": "https://partner.example/.well-known/openid-configuration",
        "ENTRA_FAST_PROVIDER_PARTNER_AUDIENCE": "api",
    }
    settings = Settings.from_environment(environ, None)
    worker = settings_from(orjson.loads(orjson.dumps(for_worker(settings))))
    body = b'{"identity_provider":"unheard of","target":"t"}'
    sentences = []
    for each in (settings, worker):
        with pytest.raises(EntraFastError) as refused:
            contract_of(each.providers).parse_token_request(body, form=False, exchange=False)
        sentences.append(refused.value.message)
    assert sentences[0] == sentences[1]
    assert sentences[1].count("'entra_id'") == sentences[1].count("'partner'") == 1


def test_a_worker_without_a_provider() -> None:
    """None is sent as none."""
    settings = Settings.from_environment({"AZURE_ENABLED": "false", "ENTRA_FAST_WORKERS": "2"}, None)
    assert settings_from(orjson.loads(orjson.dumps(for_worker(settings)))).providers == ()


def test_no_process_is_left_without_a_cache() -> None:
    """However many share it, each has at least one byte."""
    caches = Settings.from_environment(ENVIRON, None).caches
    assert share_of_each(dataclasses.replace(caches, max_bytes=1), 64).max_bytes == 1
