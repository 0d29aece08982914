"""The provider's keys change, vanish or turn into garbage while tokens are introspected."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from entra_fast.sidecar.provider_clients import ProviderClients
from support.keys import Key
from support.network import Authority, TcpProxy, reset_at_once
from support.provider import Provider, after
from support.sidecars import Started, StartSidecar, eventually, sidecars


async def refresh(sidecar: Started) -> None:
    """Do now what the schedule does every hour."""
    providers = sidecar.running.service._providers
    assert isinstance(providers, ProviderClients)
    keys = providers.clients["entra_id"].keys
    assert keys is not None
    await keys.refresh()


async def test_keys_rotate_under_load(start: StartSidecar, provider: Provider) -> None:
    """Tokens of the old key and of the new one arrive together: none is rejected, one fetch."""
    sidecar = await start()
    old, new = provider.key, Key.generate()
    fetched = provider.jwks_requests
    provider.published = [old, new]
    tokens = [provider.mint(key=key) for key in (old, new) * 50]
    answers = await asyncio.gather(*(sidecar.call.introspect(token) for token in tokens))
    assert {answer.json["active"] for answer in answers} == {True}
    assert provider.jwks_requests == fetched + 1


async def test_a_withdrawn_key_drops_its_cached_verifications(
    start: StartSidecar, provider: Provider
) -> None:
    """After the next refresh its tokens are rejected, also those that were accepted before."""
    sidecar = await start()
    old, new = provider.key, Key.generate()
    token = provider.mint()
    assert (await sidecar.call.introspect(token)).json["active"] is True
    provider.published = [new]
    await refresh(sidecar)
    assert (await sidecar.call.introspect(token)).json == {
        "active": False,
        "error": "token was signed with an unknown key",
    }
    assert (await sidecar.call.introspect(provider.mint(key=old))).json["active"] is False
    assert (await sidecar.call.introspect(provider.mint(key=new))).json["active"] is True


async def test_a_flood_of_unknown_kids_is_one_fetch(start: StartSidecar, provider: Provider) -> None:
    """Made-up key ids do not make the sidecar flood the provider, and known keys keep working."""
    sidecar = await start()
    fetched = provider.jwks_requests
    for _ in range(50):
        made_up = provider.mint(header={"kid": uuid.uuid4().hex})
        assert (await sidecar.call.introspect(made_up)).json["active"] is False
        assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert provider.jwks_requests <= fetched + 1


async def test_a_new_key_under_an_old_kid(start: StartSidecar, provider: Provider) -> None:
    """A provider that was deployed again uses the same key id: one refresh, and no token is rejected."""
    sidecar = await start()
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    old, new = provider.key, Key.generate().named(provider.key.kid)
    fetched = provider.jwks_requests
    provider.published = [new]
    tokens = [provider.mint(key=new) for _ in range(50)]
    answers = await asyncio.gather(*(sidecar.call.introspect(token) for token in tokens))
    assert {answer.json["active"] for answer in answers} == {True}
    assert provider.jwks_requests == fetched + 1
    assert (await sidecar.call.introspect(provider.mint(key=old))).json["active"] is False


async def test_a_flood_of_failed_signatures_is_one_fetch(start: StartSidecar, provider: Provider) -> None:
    """It spends its own budget: a new key id is fetched all the same, and the flood cannot prevent that."""
    sidecar = await start()
    forger = Key.generate().named(provider.key.kid)
    fetched = provider.jwks_requests
    for _ in range(30):
        answer = await sidecar.call.introspect(provider.mint(key=forger))
        assert answer.json == {"active": False, "error": "token signature is invalid"}
    assert provider.jwks_requests == fetched + 1
    new = Key.generate()
    provider.published = [provider.key, new]
    assert (await sidecar.call.introspect(provider.mint(key=new))).json["active"] is True
    assert provider.jwks_requests == fetched + 2


async def test_only_tokens_that_could_pass_cause_a_fetch(start: StartSidecar, provider: Provider) -> None:
    """A token for somebody else, of another issuer or expired spends neither budget, whatever signed it."""
    sidecar = await start()
    fetched = provider.jwks_requests
    for key in (Key.generate(), Key.generate().named(provider.key.kid)):
        for claims in ({"aud": "other"}, {"iss": "https://other"}, {"exp": 1}, {"exp": None}, {"aud": None}):
            answer = await sidecar.call.introspect(provider.mint(key=key, **claims))
            assert answer.json["active"] is False
    assert provider.jwks_requests == fetched
    provider.published = [new := Key.generate().named(provider.key.kid)]
    assert (await sidecar.call.introspect(provider.mint(key=new))).json["active"] is True


async def test_keys_do_not_wait_behind_tokens(
    start: StartSidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token endpoint hangs, and requests for tokens use all their connections: a new key is still
    fetched."""
    monkeypatch.setattr("entra_fast._provider.http_client.MAX_CONNECTIONS", 2)
    sidecar = await start()
    held = asyncio.Event()
    provider.always = after(held, provider)
    waiting = [asyncio.ensure_future(sidecar.call.token(f"api://a{i}/.default")) for i in range(6)]
    await provider.asked(2)
    new = Key.generate()
    provider.published = [provider.key, new]
    assert (await sidecar.call.introspect(provider.mint(key=new))).json["active"] is True
    assert len(provider.requests) == 2
    held.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_rotation_that_meets_a_fault_heals_soon(
    start: StartSidecar, provider: Provider, network: TcpProxy
) -> None:
    """The refresh for a new key fails: it is tried again within seconds, not after the cool-down."""
    sidecar = await start()
    new = Key.generate()
    token = provider.mint(key=new)
    provider.published = [provider.key, new]
    provider.failing = True
    assert (await sidecar.call.introspect(token)).json["active"] is False
    provider.failing = False

    async def accepted() -> bool:
        return bool((await sidecar.call.introspect(token)).json["active"])

    await eventually(accepted)


@pytest.mark.parametrize("published", ["nothing", "an error", "a reset"])
async def test_the_last_good_keys_stay(
    start: StartSidecar, provider: Provider, network: TcpProxy, published: str
) -> None:
    """A key endpoint that fails or returns an empty set removes no key."""
    sidecar = await start()
    token = provider.mint()
    if published == "nothing":
        provider.published = []
    elif published == "an error":
        provider.failing = True
    else:
        network.always = reset_at_once
        await network.stop()
        await network.start()
    await refresh(sidecar)
    assert (await sidecar.call.introspect(token)).json["active"] is True
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert (await sidecar.call.get("/readyz")).status == 200


async def test_metrics_say_how_fetching_keys_went(start: StartSidecar, provider: Provider) -> None:
    """How often by outcome, how many keys there are, and how many entries were left out."""
    sidecar = await start()
    provider.failing = True
    await refresh(sidecar)
    provider.failing = False
    entries = [
        {"kty": "oct"},
        *(json.loads(key.public_jwk()) for key in (provider.key, Key.generate())),
    ]
    provider.key_set = json.dumps({"keys": entries}).encode()
    await refresh(sidecar)
    for series, value in {
        'entra_fast_key_set_requests_total{outcome="ok"}': 2,
        'entra_fast_key_set_requests_total{outcome="keys_unavailable"}': 1,
        "entra_fast_key_set_keys": 2,
        "entra_fast_key_set_dropped": 1,
        "entra_fast_key_set_age_seconds": 0,
    }.items():
        assert await sidecar.metric(series) == value, series


async def test_a_tls_failure_of_the_key_set_is_named(authority: Authority) -> None:
    """Where the endpoints are set, as NAIS does, nothing else asks the provider before the first token. It
    has its own message and its own outcome."""
    provider = Provider()
    await provider.start(tls=authority.server("localhost"))
    async with sidecars(provider) as start:
        sidecar = await start(
            ready=False,
            AZURE_APP_WELL_KNOWN_URL=None,
            AZURE_OPENID_CONFIG_ISSUER=provider.issuer,
            AZURE_OPENID_CONFIG_JWKS_URI=provider.jwks_uri,
            AZURE_OPENID_CONFIG_TOKEN_ENDPOINT=provider.token_endpoint,
        )
        inactive = await sidecar.call.introspect(provider.mint())
        reason = f"no TLS connection to localhost:{provider.port}: unable to get local issuer certificate"
        assert reason in inactive.json["error"]
        assert reason in (await sidecar.probe.get("/readyz")).json["reason"]
        assert await sidecar.metric('entra_fast_key_set_requests_total{outcome="tls_failed"}') >= 1
        assert await sidecar.metric("entra_fast_key_set_age_seconds") == -1
    await provider.stop()
