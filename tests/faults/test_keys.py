"""The provider's keys change, vanish or turn into garbage while tokens are introspected."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from entra_fast._native import SigningKey
from support.network import TcpProxy, reset_at_once
from support.provider import Provider, after
from support.sidecars import Started, StartSidecar, eventually


async def refresh(sidecar: Started) -> None:
    """Do now what happens hourly."""
    validator = sidecar.running.service.validator
    assert validator is not None
    assert validator._keys is not None
    await validator._keys.refresh()


async def test_keys_rotate_under_load(start: StartSidecar, provider: Provider) -> None:
    """Tokens of the old key and of the new one arrive together: none is rejected, one fetch."""
    sidecar = await start()
    old, new = provider.key, SigningKey.generate()
    fetched = provider.jwks_requests
    provider.published = [old, new]
    tokens = [provider.mint(key=key) for key in (old, new) * 50]
    answers = await asyncio.gather(*(sidecar.call.introspect(token) for token in tokens))
    assert {answer.json["active"] for answer in answers} == {True}
    assert provider.jwks_requests == fetched + 1


async def test_a_withdrawn_key_kills_its_cached_verdicts(start: StartSidecar, provider: Provider) -> None:
    """After the next refresh its tokens are rejected, also those that were accepted before."""
    sidecar = await start()
    old, new = provider.key, SigningKey.generate()
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
    """Made-up key ids do not make the sidecar hammer the provider, and known keys go on working."""
    sidecar = await start()
    fetched = provider.jwks_requests
    for _ in range(50):
        made_up = provider.mint(header={"kid": uuid.uuid4().hex})
        assert (await sidecar.call.introspect(made_up)).json["active"] is False
        assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert provider.jwks_requests <= fetched + 1


async def test_keys_do_not_wait_behind_tokens(
    start: StartSidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token endpoint hangs, and requests for tokens take all connections that they may: a new key is
    fetched all the same."""
    monkeypatch.setattr("entra_fast.http.MAX_CONNECTIONS", 2)
    sidecar = await start()
    held = asyncio.Event()
    provider.always = after(held, provider)
    waiting = [asyncio.ensure_future(sidecar.call.token(f"api://a{i}/.default")) for i in range(6)]
    await provider.asked(2)
    new = SigningKey.generate()
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
    new = SigningKey.generate()
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
    """A key endpoint that fails or answers with an empty set takes away nothing."""
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
