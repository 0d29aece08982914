"""The cache that replicas share, with a real Redis server, and every way in which it can fail or return false
data."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidTag

from entra_fast._provider.redis_cache import PAUSE, Breaker
from entra_fast._provider.redis_entries import CHANNEL, MAX_SKEW, EntryCipher, EntryRejected, pack, unpack
from entra_fast._provider.tokens import FetchedToken, token_key
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.provider_clients import ProviderClients
from support.network import Authority, Fault, TcpProxy, black_hole, forward, reset_after, reset_at_once
from support.process import Serve
from support.provider import CLIENT_ID, Provider, after, refuse
from support.redis_server import RedisServer
from support.several import ENTRA, MASKINPORTEN, Kind, Several, several
from support.sidecars import Started, StartSidecar, eventually

TARGET = "api://dev-gcp.team.app/.default"
OTHER = "api://dev-gcp.team.other/.default"
KEY = base64.b64encode(os.urandom(32)).decode()
PATIENT = {"ENTRA_FAST_REDIS_TIMEOUT_MILLIS": "5000", "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS": "5000"}
"""For tests of what Redis does when it is there: on a busy machine 100 ms are not always enough."""
HASTY = {"ENTRA_FAST_REDIS_TIMEOUT_MILLIS": "60", "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS": "200"}


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A Redis server."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def way(redis: RedisServer) -> AsyncIterator[TcpProxy]:
    """The network between sidecars and the Redis server."""
    proxy = TcpProxy(redis.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


@pytest.fixture
def replica(start: StartSidecar, way: TcpProxy) -> Callable[..., Awaitable[Started]]:
    """Starts a sidecar that uses the Redis server."""

    async def started(**changes: str | None) -> Started:
        return await start(**{**shared(way.port), **PATIENT, **changes})

    return started


Replica = Callable[..., Awaitable[Started]]


def shared(port: int, scheme: str = "redis", login: str = "") -> dict[str, str]:
    return {"ENTRA_FAST_REDIS_URL": f"{scheme}://{login}localhost:{port}/0", "ENTRA_FAST_REDIS_KEY": KEY}


async def outcomes(sidecar: Started, operation: str, outcome: str) -> float:
    series = f'operation="{operation}",outcome="{outcome}"'
    return await sidecar.metric(f"entra_fast_shared_cache_requests_total{{{series}}}")


async def until(sidecar: Started, operation: str, outcome: str, times: int = 1) -> None:
    """Wait until this has happened this many times."""

    async def enough() -> bool:
        return await outcomes(sidecar, operation, outcome) >= times

    await eventually(enough)


async def available(sidecar: Started, expected: bool) -> None:
    async def so() -> bool:
        return await sidecar.metric("entra_fast_shared_cache_available") == expected

    await eventually(so)


async def cut(way: TcpProxy) -> None:
    await way.stop()
    await way.start()


async def listening(redis: RedisServer, sidecars: int) -> None:
    """Wait until this many sidecars listen to announcements."""

    async def enough() -> bool:
        return dict(await redis.client.pubsub_numsub(CHANNEL)).get(CHANNEL) == sidecars

    await eventually(enough)


# --- sharing ---------------------------------------------------------------------------------------------


async def test_two_sidecars_share_a_token(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """One fetches it, the other hands it out: one request to the provider."""
    one, two = await replica(), await replica()
    first = await one.call.token(TARGET)
    await until(one, "put", "ok")
    second = await two.call.token(TARGET)
    assert second.json["access_token"] == first.json["access_token"]
    assert 3590 <= second.json["expires_in"] <= first.json["expires_in"]
    assert len(provider.requests) == 1
    assert await outcomes(two, "get", "hit") == 1
    # From then on it is in the sidecar's own cache.
    await two.call.token(TARGET)
    assert await outcomes(two, "get", "hit") == 1


async def test_other_targets_users_and_applications_share_nothing(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """An entry belongs to one tenant, client, scope and user."""
    one, two = await replica(), await replica(AZURE_APP_CLIENT_ID="another")
    user, stranger = provider.mint(oid="user"), provider.mint(oid="stranger")
    answers = [
        await one.call.token(TARGET),
        await one.call.token(OTHER),
        await one.call.exchange(user, TARGET),
        await one.call.exchange(stranger, TARGET),
        await two.call.token(TARGET),
        await two.call.exchange(user, TARGET),
    ]
    tokens = [answer.json["access_token"] for answer in answers]
    assert len(set(tokens)) == 6
    await until(one, "put", "ok", 4)
    await until(two, "put", "ok", 2)
    assert len(await redis.names("token")) == 6


async def test_the_expiry_in_redis_is_that_of_the_token(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """Redis drops a token no later than it expires."""
    provider.lifetime = 600
    await (await replica()).call.token(TARGET)
    name, _ = await redis.entry()
    assert 590_000 < await redis.client.pttl(name) <= 600_000


async def test_an_exchanged_token_never_outlives_the_users_token(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """Neither in Redis nor in the replica that took it from there."""
    one, two = await replica(), await replica()
    user = provider.mint(oid="user", exp=int(one.clock.clocks().wall()) + 100)
    first = await one.call.exchange(user, TARGET)
    name, _ = await redis.entry()
    assert 90_000 < await redis.client.pttl(name) <= 100_000
    second = await two.call.exchange(user, TARGET)
    assert second.json["access_token"] == first.json["access_token"]
    assert len(provider.requests) == 1
    two.clock.advance(101)
    refused = await two.call.exchange(user, TARGET)
    assert (refused.status, refused.json["error"]) == (400, "invalid_grant")
    # Even if Redis did not expire it.
    await redis.client.persist(name)
    one.clock.advance(101)
    assert (await one.call.exchange(user, TARGET)).status == 400
    assert len(provider.requests) == 1


async def test_a_users_token_without_an_end_is_not_shared(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """If a user's token has no known expiry, nothing is stored for it."""
    sidecar = await replica()
    assert (await sidecar.call.exchange(provider.mint(exp=None), TARGET)).status == 200
    assert (await sidecar.call.exchange("opaque", TARGET)).status == 200
    assert await sidecar.metric('entra_fast_shared_cache_duration_seconds_count{operation="get"}') == 0
    assert await redis.everything() == {}


@pytest.mark.parametrize("listens", [True, False], ids=["at the announcement", "at the next look"])
async def test_skip_cache_replaces_the_token_for_all_replicas(
    replica: Replica, redis: RedisServer, provider: Provider, listens: bool
) -> None:
    """The new token is in Redis, and replicas that have the old one take over the new one."""
    one = await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    two = await replica()
    if listens:
        assert (await two.call.token(TARGET)).json["access_token"] == old
    await listening(redis, 2)
    new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]
    assert new != old
    await until(one, "put", "ok", 2)

    async def replaced() -> bool:
        return bool((await two.call.token(TARGET)).json["access_token"] == new)

    await eventually(replaced)
    assert (await one.call.token(TARGET)).json["access_token"] == new
    assert len(provider.requests) == 2
    # Replicas that were notified did not read from Redis, and no replica listens to itself.
    assert (await outcomes(one, "get", "miss"), await outcomes(one, "get", "hit")) == (1, 0)
    series = "entra_fast_shared_cache_announcements_total"
    assert [await one.metric(f'{series}{{outcome="{o}"}}') for o in ("adopted", "ignored")] == [0, 0]
    assert not listens or await two.metric(f'{series}{{outcome="adopted"}}') == 1


async def test_skip_cache_is_not_answered_from_redis_when_it_joins_a_look_there(
    replica: Replica, way: TcpProxy, provider: Provider
) -> None:
    """A caller who wants a new token joins one who wants any, while Redis is being asked for it."""
    one, two = await replica(), await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    held = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        await held.wait()
        await forward(reader, writer, port)

    way.always = hold
    await cut(way)
    any_token = asyncio.create_task(two.call.token(TARGET))
    await two.received(1)
    new_token = asyncio.create_task(two.call.token(TARGET, skip_cache=True))
    await two.received(2)
    held.set()
    assert (await new_token).json["access_token"] != old
    assert (await any_token).json["access_token"] == (await new_token).json["access_token"]
    assert len(provider.requests) == 2


async def test_an_older_token_never_comes_back_after_skip_cache(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """The new token did not reach Redis; another replica's late announcement is older, and is not adopted."""
    one = await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    await redis.client.config_set("maxmemory", "1")
    new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]
    assert new != old
    await until(one, "put", "refused")
    service = one.running.service
    providers = service._providers
    assert isinstance(providers, ProviderClients)
    assert providers._shared_cache is not None
    providers._shared_cache.members[0].take_over_later(token_key(service.settings.providers[0], TARGET))
    await until(one, "get", "hit")
    assert (await one.call.token(TARGET)).json["access_token"] == new
    series = "entra_fast_shared_cache_announcements_total"
    assert [await one.metric(f'{series}{{outcome="{o}"}}') for o in ("adopted", "ignored")] == [0, 1]


async def test_one_replica_renews_and_the_others_take_over(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """Renewal is due for all at about the same time: one asks the provider, and no caller waits."""
    sidecars = [await replica() for _ in range(3)]
    old = (await sidecars[0].call.token(TARGET)).json["access_token"]
    await until(sidecars[0], "put", "ok")
    for sidecar in sidecars:
        assert (await sidecar.call.token(TARGET)).json["access_token"] == old
        sidecar.clock.advance(2900)
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    assert (await sidecars[0].call.token(TARGET)).json["access_token"] == old
    await provider.asked(2)
    for sidecar in sidecars[1:]:
        assert (await sidecar.call.token(TARGET)).json["access_token"] == old
        await until(sidecar, "lead", "taken")
    assert 0 < await redis.client.pttl((await redis.names("renewal"))[0]) <= 6000
    answers.set()
    await until(sidecars[0], "put", "ok", 2)
    new = (await sidecars[0].call.token(TARGET)).json["access_token"]
    assert new != old
    for sidecar in sidecars[1:]:
        sidecar.clock.advance(10)

        async def renewed(sidecar: Started = sidecar) -> bool:
            return bool((await sidecar.call.token(TARGET)).json["access_token"] == new)

        await eventually(renewed)
        assert await sidecar.metric('entra_fast_renewals_total{outcome="ok"}') == 1
    assert len(provider.requests) == 2


async def test_a_caller_never_waits_for_another_replica(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """If a token has expired and the replica that would renew it does not, the others fetch one."""
    one, two = await replica(), await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    await two.call.token(TARGET)
    provider.then(after(asyncio.Event(), provider))
    one.clock.advance(2900)
    two.clock.advance(2900)
    await one.call.token(TARGET)
    await provider.asked(2)  # and the answer never comes
    two.clock.advance(700)
    answered = await two.call.token(TARGET)
    assert answered.status == 200
    assert answered.json["access_token"] != old


async def test_a_renewal_that_a_caller_joins_is_not_left_to_another(
    replica: Replica, redis: RedisServer, way: TcpProxy, provider: Provider
) -> None:
    """The token expires while the replicas agree on which one renews: then the one with a caller fetches
    it."""
    one, two = await replica(), await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    await two.call.token(TARGET)
    asked, held = asyncio.Event(), asyncio.Event()

    async def hold_locks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        while data := await reader.read(65_536):
            if b"NX" in data:
                asked.set()
                await held.wait()
                writer.write(b"$-1\r\n")  # another replica has it
                continue
            upstream_writer.write(data)
            writer.write(await upstream_reader.read(65_536))
        upstream_writer.close()

    way.always = hold_locks
    await cut(way)
    two.clock.advance(2900)
    assert (await two.call.token(TARGET)).json["access_token"] == old
    await asked.wait()
    two.clock.advance(701)
    waiting = asyncio.create_task(two.call.token(TARGET))
    await two.received(1)
    held.set()
    answered = await waiting
    assert answered.status == 200, answered.json
    assert answered.json["access_token"] != old
    assert await outcomes(two, "lead", "taken") == 1


async def test_a_token_in_its_last_minutes_beats_an_error(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """When the provider fails, a replica without a token uses one that is still valid."""
    one, two = await replica(), await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    provider.always = refuse(503, "temporarily_unavailable")
    two.clock.advance(3540)
    answered = await two.call.token(TARGET)
    assert (answered.status, answered.json.get("access_token")) == (200, old)
    assert 0 < answered.json["expires_in"] <= 60
    two.clock.advance(61)
    assert (await two.call.token(TARGET)).status == 503


async def test_several_workers_are_one_replica(
    replica: Replica, redis: RedisServer, way: TcpProxy, provider: Provider, serve: Serve
) -> None:
    """With ENTRA_FAST_WORKERS, one process talks to Redis, and all workers share its results."""
    one = await replica()
    token = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    process = await serve(
        provider.environment(**shared(way.port), **PATIENT, ENTRA_FAST_WORKERS="2", PYTHONDEVMODE="1")
    )
    call = await process.listening()
    await listening(redis, 2)
    for _ in range(20):  # each on a new connection, so that both workers are asked
        assert (await call.token(TARGET)).json["access_token"] == token
    assert len(provider.requests) == 1
    assert b"entra_fast_shared_cache_available 1.0\n" in (await call.get("/metrics")).body
    new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]

    async def replaced() -> bool:
        return {(await call.token(TARGET)).json["access_token"] for _ in range(20)} == {new}

    await eventually(replaced)
    assert len(provider.requests) == 2
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


# --- several providers -----------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Several]:
    async with several(ENTRA, MASKINPORTEN) as running:
        yield running


kinds = pytest.mark.parametrize("kind", [ENTRA, MASKINPORTEN], ids=lambda kind: kind.name)


async def token_of(sidecar: Started, kind: Kind, target: str, *, skip_cache: bool = False) -> str:
    fields = {"identity_provider": kind.name, "target": target, "skip_cache": skip_cache}
    answer = await sidecar.call.json("/api/v1/token", fields)
    assert answer.status == 200, answer.body
    found: str = answer.json["access_token"]
    return found


async def test_providers_share_nothing_in_redis(start: StartSidecar, both: Several, way: TcpProxy) -> None:
    """Two replicas share the tokens of each provider; the same target of both is two tokens."""
    environ = both.environment(**shared(way.port), **PATIENT)
    one, two = await start(environ=environ), await start(environ=environ)
    first = [await token_of(one, kind, TARGET) for kind in (ENTRA, MASKINPORTEN)]
    await until(one, "put", "ok", 2)
    assert [await token_of(two, kind, TARGET) for kind in (ENTRA, MASKINPORTEN)] == first
    assert len(set(first)) == 2
    assert [len(provider.requests) for provider in both.providers.values()] == [1, 1]


@kinds
async def test_skip_cache_replaces_the_token_of_its_provider_in_all_replicas(
    start: StartSidecar, both: Several, redis: RedisServer, way: TcpProxy, kind: Kind
) -> None:
    """Whichever provider it is of; the token of the other provider stays, although its target is the same."""
    environ = both.environment(**shared(way.port), **PATIENT)
    one, two = await start(environ=environ), await start(environ=environ)
    (other,) = {ENTRA, MASKINPORTEN} - {kind}
    old, stays = [await token_of(one, each, TARGET) for each in (kind, other)]
    await until(one, "put", "ok", 2)
    assert [await token_of(two, each, TARGET) for each in (kind, other)] == [old, stays]
    await listening(redis, 2)
    new = await token_of(one, kind, TARGET, skip_cache=True)
    assert new != old

    async def replaced() -> bool:
        return await token_of(two, kind, TARGET) == new

    await eventually(replaced)
    assert [await token_of(each, other, TARGET) for each in (one, two)] == [stays, stays]
    assert await two.metric('entra_fast_shared_cache_announcements_total{outcome="adopted"}') == 1
    asked = {name: len(provider.requests) for name, provider in both.providers.items()}
    assert asked == {kind.name: 2, other.name: 1}


@kinds
async def test_the_client_of_its_provider_judges_a_replaced_token(
    start: StartSidecar, both: Several, redis: RedisServer, way: TcpProxy, kind: Kind
) -> None:
    """This replica has replaced a token of either provider, and the new one did not reach Redis: the late
    announcement of another replica, whose token is older, is not adopted."""
    one = await start(environ=both.environment(**shared(way.port), **PATIENT))
    old = await token_of(one, kind, TARGET)
    await until(one, "put", "ok")
    await redis.client.config_set("maxmemory", "1")
    new = await token_of(one, kind, TARGET, skip_cache=True)
    assert new != old
    await until(one, "put", "refused")
    await redis.client.config_set("maxmemory", "0")
    await listening(redis, 1)
    (settings,) = (each for each in one.running.service.settings.providers if each.name == kind.name)
    key = token_key(settings, TARGET)
    await redis.client.publish(CHANNEL, EntryCipher(base64.b64decode(KEY)).seal_announcement(b"s" * 16, key))
    series = "entra_fast_shared_cache_announcements_total"

    async def judged() -> bool:
        return await one.metric(series) == 1

    await eventually(judged)
    assert await outcomes(one, "get", "hit") == 1
    assert await one.metric(f'{series}{{outcome="ignored"}}') == 1
    assert await token_of(one, kind, TARGET) == new


# --- what Redis sees -------------------------------------------------------------------------------------


def pieces(secret: bytes, size: int = 10) -> list[bytes]:
    return [secret[i : i + size] for i in range(len(secret) - size + 1)]


async def test_redis_sees_no_token_and_no_name(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """Entries and announcements contain no piece of a token, a key or an identity."""
    sidecar = await replica()
    user = provider.mint(oid="user")
    announced = redis.client.pubsub()
    await announced.subscribe(CHANNEL)
    await announced.get_message(timeout=5)
    answers = [await sidecar.call.token(TARGET), await sidecar.call.exchange(user, TARGET)]
    answers.append(await sidecar.call.token(TARGET, skip_cache=True))
    await until(sidecar, "put", "ok", 3)
    message = await announced.get_message(timeout=5)
    await announced.aclose()
    seen = b"\n".join(name + b"=" + value for name, value in (await redis.everything()).items())
    seen += message["data"]
    assert len(await redis.names("token")) == 2
    from entra_fast._native import token_cache_key
    from support.provider import TENANT

    digests = [
        token_cache_key("client_credentials", ["entra_id", TENANT, CLIENT_ID, TARGET, "", ""]),
        token_cache_key("on_behalf_of", ["entra_id", TENANT, CLIENT_ID, TARGET, user, ""]),
    ]
    secrets = [answer.json["access_token"].encode() for answer in answers]
    secrets += [user.encode(), base64.b64decode(KEY), KEY.encode(), TARGET.encode(), CLIENT_ID.encode()]
    for digest in digests:
        secrets += [digest, digest.hex().encode(), base64.b64encode(digest)]
        secrets.append(base64.urlsafe_b64encode(digest))
    assert [secret for secret in secrets if any(piece in seen for piece in pieces(secret))] == []


async def test_equal_tokens_look_different(replica: Replica, redis: RedisServer) -> None:
    """A nonce is never used twice: the same token, sealed a thousand times, never looks the same."""
    cipher = EntryCipher(base64.b64decode(KEY))
    sealed = {cipher.seal(b"d" * 32, b"content") for _ in range(1000)}
    assert len({entry[1:13] for entry in sealed}) == 1000


def test_an_entry_is_bound_to_its_token_twice() -> None:
    """By its key and by its associated data: each alone must refuse the entry of another token, so that a
    mistake in one is not the whole protection."""
    cipher = EntryCipher(base64.b64decode(KEY))
    mine, other = b"m" * 32, b"o" * 32
    entry = cipher.seal(mine, b"content")
    nonce, sealed = entry[1:13], entry[13:]
    assert cipher._entry(mine).decrypt(nonce, sealed, cipher._bound_to(mine)) == b"content"
    for key, bound_to in ((other, mine), (mine, other)):
        with pytest.raises(InvalidTag):
            cipher._entry(key).decrypt(nonce, sealed, cipher._bound_to(bound_to))


# --- what Redis says -------------------------------------------------------------------------------------


async def tampered(redis: RedisServer, name: bytes, entry: bytes, how: str) -> None:
    """Change the entry, as anyone who can write to Redis could."""
    client, millis = redis.client, 600_000
    flipped = bytes([entry[-20] ^ 1])
    changes: dict[str, bytes] = {
        "bit flipped": entry[:-20] + flipped + entry[-19:],
        "nonce changed": entry[:1] + bytes(12) + entry[13:],
        "tag cut": entry[:-1],
        "truncated": entry[:20],
        "extended": entry + b"\0",
        "other version": b"\x02" + entry[1:],
        "text": b'{"access_token":"mine"}' + b" " * 40,
        "huge": entry + bytes(1 << 20),
    }
    if how in changes:
        await client.set(name, changes[how], px=millis)
    elif how == "list":
        await client.delete(name)
        await client.rpush(name, entry)
        await client.pexpire(name, millis)
    elif how == "kept forever":
        await client.persist(name)
    elif how == "kept for longer":
        await client.pexpire(name, 4_000_000)
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("bit flipped", "decryption"),
        ("nonce changed", "decryption"),
        ("tag cut", "decryption"),
        ("extended", "decryption"),
        ("truncated", "size"),
        ("huge", "size"),
        ("other version", "version"),
        ("text", "version"),
        ("list", "type"),
        ("kept forever", "expiry"),
        ("kept for longer", "expiry"),
    ],
)
async def test_a_wrong_entry_is_a_miss(
    replica: Replica, redis: RedisServer, provider: Provider, how: str, reason: str
) -> None:
    """It is counted, the provider is asked, and the entry is replaced by a good one."""
    one, two, three = await replica(), await replica(), await replica()
    first = await one.call.token(TARGET)
    name, entry = await redis.entry()
    await tampered(redis, name, entry, how)
    second = await two.call.token(TARGET)
    assert second.status == 200
    assert second.json["access_token"] != first.json["access_token"]
    assert await two.metric(f'entra_fast_shared_cache_rejected_total{{reason="{reason}"}}') == 1
    assert await outcomes(two, "get", "rejected") == 1
    assert len(provider.requests) == 2
    await until(two, "put", "ok")
    third = await three.call.token(TARGET)
    assert third.json["access_token"] == second.json["access_token"]
    assert len(provider.requests) == 2
    assert await two.metric("entra_fast_shared_cache_available") == 1


async def test_entries_cannot_be_swapped(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """Write access to Redis is not enough to give one user the token of another."""
    one, two = await replica(), await replica()
    alice, bob = provider.mint(oid="alice"), provider.mint(oid="bob")
    tokens = [(await one.call.exchange(user, TARGET)).json["access_token"] for user in (alice, bob)]
    await until(one, "put", "ok", 2)
    (left, a), (right, b) = (await redis.everything()).items()
    await redis.client.set(left, b, px=600_000)
    await redis.client.set(right, a, px=600_000)
    for user in (alice, bob):
        assert (await two.call.exchange(user, TARGET)).json["access_token"] not in tokens
    assert await two.metric('entra_fast_shared_cache_rejected_total{reason="decryption"}') == 2


async def test_another_key_is_a_miss(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """Replicas with different keys do not even find one another's entries; and cannot read them."""
    one = await replica()
    two = await replica(ENTRA_FAST_REDIS_KEY=os.urandom(32).hex())
    first = await one.call.token(TARGET)
    theirs, entry = await redis.entry()
    assert (await two.call.token(TARGET)).json["access_token"] != first.json["access_token"]
    await until(two, "put", "ok")
    assert await outcomes(two, "get", "miss") == 1
    (ours,) = set(await redis.names("token")) - {theirs}
    await redis.client.set(ours, entry, px=600_000)
    three = await replica(ENTRA_FAST_REDIS_KEY=two_key(two))
    assert (await three.call.token(TARGET)).json["access_token"] != first.json["access_token"]
    assert await three.metric('entra_fast_shared_cache_rejected_total{reason="decryption"}') == 1


def two_key(sidecar: Started) -> str:
    settings = sidecar.running.service.settings.shared_cache
    assert settings is not None
    return settings.key.reveal()


async def test_false_announcements_cost_no_token(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """The right to publish is not enough to make a replica drop a token, or take an older one for a newer
    one."""
    one, two = await replica(), await replica()
    token = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    await two.call.token(TARGET)
    await listening(redis, 2)
    recorded = redis.client.pubsub()
    await recorded.subscribe(CHANNEL)
    await recorded.get_message(timeout=5)
    new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]
    replay = (await recorded.get_message(timeout=5))["data"]
    await recorded.aclose()
    series = "entra_fast_shared_cache_announcements_total"

    async def adopted() -> bool:
        return await two.metric(f'{series}{{outcome="adopted"}}') == 1

    await eventually(adopted)
    for message in (b"", b"x" * 92, os.urandom(92), replay[:-1], replay + b"\0", b"\xff" * 100_000):
        await redis.client.publish(CHANNEL, message)
    await redis.client.delete(*(await redis.names("token")))
    await redis.client.publish(CHANNEL, replay)

    async def heard() -> bool:
        rejected = await two.metric(f'{series}{{outcome="rejected"}}')
        return rejected == 6 and await two.metric(f'{series}{{outcome="ignored"}}') == 1

    await eventually(heard)
    assert token != new
    assert (await two.call.token(TARGET)).json["access_token"] == new
    assert len(provider.requests) == 2


NOW = 1_800_000_000.0
MONOTONIC = 5000.0


def content(**changes: Any) -> bytes:
    values: dict[str, Any] = {"life": 3600.0, "age": 1.0, "end": None, "token": "t.o.k", "millis": 3_599_000}
    values |= changes
    token = FetchedToken(values["token"], values["life"], MONOTONIC - values["age"], values["end"])
    now = values.get("now", NOW)
    return pack(token, now=now, monotonic=MONOTONIC, expiry_millis=values["millis"])


def unpacked(entry: bytes, now: float, left: int) -> FetchedToken | None:
    return unpack(entry, now=now, monotonic=MONOTONIC, left_millis=left)


@pytest.mark.parametrize(
    ("ours", "left", "age"),
    [
        (NOW, 3_599_000, 1),
        (NOW + 100, 3_499_000, 101),
        (NOW + 100, 3_599_000, 101),  # Redis was asleep
        (NOW - 50, 3_499_000, 101),  # our clock is behind: Redis has counted down more
        (NOW - 50, 3_599_000, 1),
        (NOW + 1800, 3_599_000, 1801),  # our clock is ahead: too old is safer than too young
    ],
)
def test_the_greater_of_two_measures_is_a_tokens_age(ours: float, left: int, age: float) -> None:
    """A wrong clock makes a token look older, and never younger than Redis knows it to be."""
    token = unpacked(content(), ours, left)
    assert token is not None
    assert MONOTONIC - token.fetched_at == pytest.approx(age)
    assert token.lifetime == 3600


@pytest.mark.parametrize(("ours", "left"), [(NOW + 3599, 3_599_000), (NOW, 0), (NOW + 3700, 10)])
def test_a_token_that_has_ended_is_a_miss(ours: float, left: int) -> None:
    """By either measure of its age."""
    aged = content(life=3599.0) if left == 0 else content()
    assert left == 0 or unpacked(aged, ours, left) is None
    if left == 0:
        assert unpacked(content(millis=3_599_000, age=1.0), ours, 0) is None


def test_a_token_whose_subject_has_ended_is_a_miss() -> None:
    """The user's token expires by the wall clock."""
    entry = content(end=NOW + 50, millis=50_000)
    assert unpacked(entry, NOW + 49, 1000) is not None
    assert unpacked(entry, NOW + 50, 1) is None


@pytest.mark.parametrize(
    ("entry", "ours", "left", "reason"),
    [
        (content(), NOW - MAX_SKEW - 2, 3_599_000, "clock"),
        (content(), NOW, 3_599_001, "expiry"),
        (content(), NOW, -1, "expiry"),
        (content(life=math.nan), NOW, 1000, "content"),
        (content(life=math.inf), NOW, 1000, "content"),
        (content(life=-1.0), NOW, 1000, "content"),
        (content(life=1e12), NOW, 1000, "content"),
        (content(age=math.nan), NOW, 1000, "content"),
        (content(age=-1.0), NOW, 1000, "content"),
        (content(age=3600.0), NOW, 1000, "content"),
        (content(now=math.inf), NOW, 1000, "content"),
        (content(end=math.nan), NOW, 1000, "content"),
        (content(end=-1.0), NOW, 1000, "content"),
        (content(millis=0), NOW, 0, "content"),
        (content(millis=3_700_000), NOW, 1000, "content"),
        (content(token=""), NOW, 1000, "content"),
        (content(token="a b"), NOW, 1000, "content"),
        (content(token="a\n"), NOW, 1000, "content"),
        (b"", NOW, 1000, "content"),
    ],
)
def test_content_is_validated_although_it_was_encrypted(
    entry: bytes, ours: float, left: int, reason: str
) -> None:
    """A replica with a defect or a wrong clock has the key, too."""
    with pytest.raises(EntryRejected) as caught:
        unpacked(entry, ours, left)
    assert caught.value.reason == reason


# --- Redis fails -----------------------------------------------------------------------------------------


def delayed(seconds: float) -> Fault:
    """Everything arrives, but late."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while data := await reader.read(65_536):
                upstream_writer.write(data)
                answer = await upstream_reader.read(65_536)
                await asyncio.sleep(seconds)
                writer.write(answer)
        finally:
            upstream_writer.close()

    return fault


def saying(data: bytes) -> Fault:
    """Answers everything with the same bytes."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        while await reader.read(65_536):
            writer.write(data)
            await writer.drain()

    return fault


FAULTS: dict[str, tuple[Fault, str]] = {
    "black hole": (black_hole, "timed_out"),
    "slow": (delayed(0.12), "timed_out"),
    "reset": (reset_at_once, "connect_failed"),
    "reset in mid-answer": (reset_after(1), "connect_failed"),
    "speaks HTTP": (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "malformed"),
    "garbage": (saying(b"\xff\x00\x80garbage\r\n"), "malformed"),
    "binary garbage": (saying(bytes(range(256)) * 4), "connect_failed"),
    "endless line": (saying(b"+" + b"x" * 300_000), "malformed"),
    "promises more": (saying(b"$65536\r\nabc"), "timed_out"),
    "nested without end": (saying(b"*1\r\n" * 5000), "malformed"),
    "loading": (saying(b"-LOADING Redis is loading the dataset in memory\r\n"), "connect_failed"),
    "too many clients": (saying(b"-ERR max number of clients reached\r\n"), "connect_failed"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_outage_only_costs_speed(
    replica: Replica, way: TcpProxy, provider: Provider, name: str
) -> None:
    """Every request is answered; after some failures the server gets no requests, until it has recovered."""
    fault, outcome = FAULTS[name]
    way.always = fault
    sidecar = await replica(**HASTY)
    user = provider.mint(oid="user")
    for i in range(5):
        assert (await sidecar.call.token(f"api://a{i}/.default")).status == 200
        assert (await sidecar.call.exchange(user, f"api://b{i}/.default")).status == 200
        assert (await sidecar.call.token(f"api://a{i}/.default", skip_cache=True)).status == 200
    assert len(provider.requests) == 15
    await available(sidecar, False)
    assert await sidecar.metric("entra_fast_shared_cache_interruptions_total") == 1
    failed = await outcomes(sidecar, "get", outcome) + await outcomes(sidecar, "put", outcome)
    assert failed > 0, (await sidecar.probe.get("/metrics")).body.decode()
    paused = await outcomes(sidecar, "get", "paused")
    assert (await sidecar.call.token("api://c/.default")).status == 200
    assert await outcomes(sidecar, "get", "paused") == paused + 1
    way.always = None
    await cut(way)
    await recovered(sidecar)
    assert (await sidecar.call.token("api://d/.default")).status == 200
    await until(sidecar, "put", "ok")


async def recovered(sidecar: Started) -> None:
    """Let time pass and requests arrive, until the server is used again."""

    async def again() -> bool:
        sidecar.clock.advance(2 * PAUSE[1])
        assert (await sidecar.call.token(f"api://{os.urandom(4).hex()}/.default")).status == 200
        return await sidecar.metric("entra_fast_shared_cache_available") == 1

    await eventually(again)


async def test_a_failed_probe_leaves_it_paused(replica: Replica, way: TcpProxy) -> None:
    """When the pause is over and the server is still down, no request waits for it: only the probe fails."""
    await way.stop()
    sidecar = await replica(**HASTY)
    for i in range(5):
        assert (await sidecar.call.token(f"api://a{i}/.default")).status == 200
    await available(sidecar, False)
    tried = await outcomes(sidecar, "get", "connect_failed")
    sidecar.clock.advance(2 * PAUSE[1])
    assert (await sidecar.call.token("api://b/.default")).status == 200
    await until(sidecar, "ping", "connect_failed")
    assert await sidecar.metric("entra_fast_shared_cache_available") == 0
    assert await outcomes(sidecar, "get", "connect_failed") == tried


async def test_it_starts_while_redis_is_down_and_uses_it_later(
    replica: Replica, redis: RedisServer, way: TcpProxy, provider: Provider
) -> None:
    """Readiness does not depend on it either."""
    await way.stop()
    one = await replica(**HASTY)
    assert (await one.probe.get("/readyz")).status == 200
    for i in range(6):
        assert (await one.call.token(f"api://a{i}/.default")).status == 200
    await available(one, False)
    assert await outcomes(one, "get", "connect_failed") > 0
    await way.start()
    await recovered(one)
    token = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    two = await replica()
    two.clock.advance(one.clock.wall_offset)
    assert (await two.call.token(TARGET)).json["access_token"] == token


async def test_the_server_restarts(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """Idle connections that ended are not an outage, and announcements arrive again."""
    one = await replica()
    await one.call.token(TARGET)
    await until(one, "put", "ok")
    await listening(redis, 1)
    await redis.stop()
    await redis.start()
    assert (await one.call.token(OTHER)).status == 200
    await until(one, "put", "ok", 2)
    assert await one.metric("entra_fast_shared_cache_available") == 1
    await listening(redis, 1)


async def test_a_failing_renewal_lock_delays_no_caller(
    replica: Replica, way: TcpProxy, provider: Provider
) -> None:
    """Where Redis cannot be asked who renews, every replica does."""
    sidecar = await replica(**HASTY)
    old = (await sidecar.call.token(TARGET)).json["access_token"]
    await until(sidecar, "put", "ok")
    way.always = black_hole
    await cut(way)
    sidecar.clock.advance(2900)
    assert (await sidecar.call.token(TARGET)).json["access_token"] == old

    async def renewed() -> bool:
        return bool((await sidecar.call.token(TARGET)).json["access_token"] != old)

    await eventually(renewed)
    assert len(provider.requests) == 2


async def test_a_full_server_is_still_read(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """OOM: stored tokens are used; writes that fail are counted."""
    one, two = await replica(), await replica()
    first = await one.call.token(TARGET)
    await until(one, "put", "ok")
    await redis.client.config_set("maxmemory-policy", "noeviction")
    await redis.client.config_set("maxmemory", "1")
    for i in range(7):
        assert (await one.call.token(f"api://a{i}/.default")).status == 200
    await until(one, "put", "refused", 7)
    assert (await two.call.token(TARGET)).json["access_token"] == first.json["access_token"]
    assert await one.metric("entra_fast_shared_cache_available") == 1
    await redis.client.config_set("maxmemory", "0")
    await one.call.token(OTHER)
    await until(one, "put", "ok", 2)


@pytest.mark.parametrize(
    ("right", "operation"), [("getrange", "get"), ("pttl", "get"), ("set", "put"), ("set", "lead")]
)
async def test_missing_rights_only_cost_speed(
    start: StartSidecar, redis: RedisServer, provider: Provider, right: str, operation: str
) -> None:
    """NOPERM: counted as `refused`; every request is answered, and the server is still used for the rest."""
    one = await start(**shared(redis.port), **PATIENT)
    await one.call.token(TARGET)
    await until(one, "put", "ok")
    rule = acl_rule().replace("<password>", "password").split()[2:]
    await redis.client.execute_command("ACL", "SETUSER", "entra_fast", *rule, f"-{right}")
    two = await start(**shared(redis.port, login="entra_fast:password@"), **PATIENT)
    assert (await two.call.token(TARGET)).status == 200
    assert len(provider.requests) == (1 if right == "set" else 2)
    if operation == "put":
        assert (await two.call.token(OTHER)).status == 200
    elif operation == "lead":
        two.clock.advance(2900)
        assert (await two.call.token(TARGET)).status == 200
    await until(two, operation, "refused")
    assert await two.metric("entra_fast_shared_cache_available") == 1


def acl_rule() -> str:
    """The rights that the documentation asks for, as a line of an ACL file."""
    page = (Path(__file__).parents[2] / "docs" / "guides" / "shared-cache.md").read_text()
    return next(line for line in page.splitlines() if line.startswith("user entra_fast "))


async def test_a_primary_that_became_a_replica_is_left(
    replica: Replica, redis: RedisServer, way: TcpProxy, provider: Provider
) -> None:
    """READONLY after a failover: the connection is closed, so that the next one finds the new primary."""
    one = await replica()
    await one.call.token(TARGET)
    await until(one, "put", "ok")
    await redis.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    connections = way.connections
    assert (await one.call.token(OTHER)).status == 200
    await until(one, "put", "refused")
    await redis.client.execute_command("REPLICAOF", "NO", "ONE")
    assert (await one.call.token("api://a/.default")).status == 200
    await until(one, "put", "ok", 2)
    assert way.connections > connections
    assert await one.metric("entra_fast_shared_cache_available") == 1


async def test_connections_are_bounded(replica: Replica, redis: RedisServer, provider: Provider) -> None:
    """Two hundred tokens at once need no more connections than the limit."""
    sidecar = await replica()
    answers = await asyncio.gather(*(sidecar.call.token(f"api://a{i}/.default") for i in range(200)))
    assert {answer.status for answer in answers} == {200}
    await until(sidecar, "put", "ok", 200)
    assert len(await redis.client.client_list()) <= 16 + 1 + 2


async def test_calls_in_progress_do_not_delay_the_end(
    replica: Replica, way: TcpProxy, provider: Provider
) -> None:
    """A sidecar stops although Redis answers nothing."""
    way.always = black_hole
    sidecar = await replica(**HASTY)
    assert (await sidecar.call.token(TARGET)).status == 200
    async with asyncio.timeout(10):
        await sidecar.running.stop()


class Time:
    """A clock for the breaker."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_waits_longer_each_time() -> None:
    """Five failures in a row open it; each failed probe doubles the pause; one probe at a time."""
    time = Time()
    breaker = Breaker(time, lambda low, high: (low + high) / 2)
    for _ in range(4):
        assert not breaker.failed()
    breaker.succeeded()
    assert [breaker.failed() for _ in range(5)] == [False] * 4 + [True]
    assert not breaker.closed
    assert not breaker.failed()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        time.now += pause - 0.01
        assert not breaker.begin_probe()
        time.now += 0.02
        assert breaker.begin_probe()
        assert not breaker.begin_probe()
        breaker.end_probe(recovered=False)
    time.now += 31
    assert breaker.begin_probe()
    breaker.end_probe(recovered=True)
    assert breaker.closed


# --- logging in, TLS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["url", "setting", "file"])
async def test_user_name_and_password(
    start: StartSidecar, provider: Provider, tmp_path: Path, where: str
) -> None:
    """In the URL, in settings, in a file; with only the rights at the server that the documentation lists."""
    server = RedisServer(tmp_path)
    await server.start()
    rules = acl_rule().replace("<password>", "p%w/d").split()[2:]
    await server.client.execute_command("ACL", "SETUSER", "entra_fast", *rules)
    await server.client.execute_command("ACL", "SETUSER", "default", "off")
    settings: dict[str, str] = shared(server.port) | PATIENT
    directory = None
    if where == "url":
        settings |= shared(server.port, login="entra_fast:p%25w%2Fd@")
    else:
        settings["ENTRA_FAST_REDIS_USERNAME"] = "entra_fast"
        if where == "setting":
            settings["ENTRA_FAST_REDIS_PASSWORD"] = "p%w/d"
        else:
            directory = tmp_path
            (directory / "ENTRA_FAST_REDIS_PASSWORD").write_text("p%w/d\n")
    try:
        one, two = [await start(directory=directory, **settings) for _ in range(2)]
        await one.call.token(TARGET)
        await until(one, "put", "ok")
        await two.call.token(TARGET)
        assert len(provider.requests) == 1
        new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]

        async def replaced() -> bool:
            return bool((await two.call.token(TARGET)).json["access_token"] == new)

        await eventually(replaced)
        two.clock.advance(2900)
        await two.call.token(TARGET)
        await until(two, "lead", "ok")
    finally:
        await server.stop()


async def test_a_wrong_password_costs_speed_until_the_file_has_the_right_one(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """A rotated password is read from its file for each new connection."""
    server = RedisServer(tmp_path, password="right")
    await server.start()
    (tmp_path / "ENTRA_FAST_REDIS_PASSWORD").write_text("wrong")
    try:
        sidecar = await start(directory=tmp_path, **shared(server.port), **PATIENT)
        for i in range(6):
            assert (await sidecar.call.token(f"api://a{i}/.default")).status == 200
        await available(sidecar, False)
        assert await outcomes(sidecar, "get", "auth_failed") > 0
        (tmp_path / "ENTRA_FAST_REDIS_PASSWORD").write_text("right")
        await recovered(sidecar)
        await sidecar.call.token(TARGET)
        await until(sidecar, "put", "ok")
    finally:
        await server.stop()


async def tls_server(tmp_path: Path, authority: Authority, name: str) -> tuple[RedisServer, int]:
    from support.redis_server import _free_port

    authority.server(name)
    port, certificate = _free_port(), str(tmp_path / "server.pem")
    server = RedisServer(
        tmp_path, "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", certificate,
        "--tls-auth-clients", "no",
    )  # fmt: skip
    await server.start()
    return server, port


async def test_tls_with_the_ca_bundle(
    start: StartSidecar, provider: Provider, tmp_path: Path, authority: Authority
) -> None:
    """rediss:// trusts the authorities in ENTRA_FAST_CA_BUNDLE."""
    server, port = await tls_server(tmp_path, authority, "localhost")
    try:
        settings = {**shared(port, "rediss"), **PATIENT, "ENTRA_FAST_CA_BUNDLE": str(authority.bundle)}
        one, two = [await start(**settings) for _ in range(2)]
        await one.call.token(TARGET)
        await until(one, "put", "ok")
        await two.call.token(TARGET)
        assert len(provider.requests) == 1
    finally:
        await server.stop()


@pytest.mark.parametrize("trouble", ["unknown authority", "other name", "no TLS there"])
async def test_a_tls_failure_only_costs_speed(
    start: StartSidecar, provider: Provider, tmp_path: Path, authority: Authority, trouble: str
) -> None:
    """The certificate is verified, and no connection is made if it is wrong."""
    name = "redis.example" if trouble == "other name" else "localhost"
    server, port = await tls_server(tmp_path, authority, name)
    way = TcpProxy(port)
    await way.start()
    if trouble == "no TLS there":
        way.always = saying(b"-ERR unknown command\r\n")
    settings = {**shared(way.port, "rediss"), **PATIENT}
    if trouble == "other name":
        settings["ENTRA_FAST_CA_BUNDLE"] = str(authority.bundle)
    try:
        sidecar = await start(**settings)
        for i in range(6):
            assert (await sidecar.call.token(f"api://a{i}/.default")).status == 200
        await available(sidecar, False)
        assert await outcomes(sidecar, "get", "tls_failed") > 0
        assert await server.everything() == {}
    finally:
        await way.stop()
        await server.stop()


# --- settings and secrets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"ENTRA_FAST_REDIS_KEY": None}, "ENTRA_FAST_REDIS_KEY"),
        ({"ENTRA_FAST_REDIS_KEY": "hunter2"}, "ENTRA_FAST_REDIS_KEY"),
        ({"ENTRA_FAST_REDIS_KEY": "00" * 32}, "ENTRA_FAST_REDIS_KEY"),
        ({"ENTRA_FAST_REDIS_KEY": KEY[:-4]}, "ENTRA_FAST_REDIS_KEY"),
        ({"ENTRA_FAST_REDIS_KEY": "zz" * 32}, "ENTRA_FAST_REDIS_KEY"),
        ({"ENTRA_FAST_REDIS_KEY": None, "ENTRA_FAST_REDIS_KEY_FILE": "/no"}, "ENTRA_FAST_REDIS_KEY_FILE"),
        ({"ENTRA_FAST_REDIS_URL": "http://hunter2@x"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_URL": "redis://u:hunter2@"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_URL": "redis://u:hunter2@h:x"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_URL": "redis://u:hunter2@h/name"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_URL": "rediss://u:hunter2@h?ssl_cert_reqs=none"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_URL": "unix:///run/hunter2"}, "ENTRA_FAST_REDIS_URL"),
        ({"ENTRA_FAST_REDIS_TIMEOUT_MILLIS": "0"}, "ENTRA_FAST_REDIS_TIMEOUT_MILLIS"),
    ],
)
def test_wrong_settings_are_named_and_not_shown(changes: dict[str, str | None], setting: str) -> None:
    """One line that names the setting, without its value."""
    provider = Provider(base_url="https://login.example")
    environ = provider.environment(**{**shared(6379), **changes})
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(environ)
    assert caught.value.setting == setting
    assert setting in caught.value.message
    assert "\n" not in caught.value.message
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", ("h", 6379, 0, False, None, None)),
        ("rediss://h:1/2", ("h", 1, 2, True, None, None)),
        ("valkey://h/", ("h", 6379, 0, False, None, None)),
        ("valkeys://u:p%40@[::1]:7/0", ("::1", 7, 0, True, "u", "p@")),
        ("redis://:p@h", ("h", 6379, 0, False, None, "p")),
    ],
)
def test_urls_of_redis_and_valkey(url: str, expected: tuple[object, ...]) -> None:
    """Both names of the scheme, with and without TLS."""
    settings = read(ENTRA_FAST_REDIS_URL=url)
    place = settings.location()
    found = (place.host, place.port, place.database, place.tls, place.username, place.password)
    assert found == expected
    assert repr(settings).count("Secret(") == 2


def read(**changes: str | None) -> Any:
    environ = Provider(base_url="https://login.example").environment(**{**shared(6379), **changes})
    return Settings.from_environment(environ).shared_cache


def test_the_key_may_be_in_hex_in_either_base64_or_in_a_file(tmp_path: Path) -> None:
    """All spellings of the same bytes are the same key."""
    key = b"\xfb\xff" + bytes(range(30))
    (tmp_path / "key").write_bytes(base64.b64encode(key) + b"\n")
    spellings = [
        key.hex(),
        base64.b64encode(key).decode(),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
    ]
    for spelling in spellings:
        assert read(ENTRA_FAST_REDIS_KEY=spelling).encryption_key() == key
    file = read(ENTRA_FAST_REDIS_KEY=None, ENTRA_FAST_REDIS_KEY_FILE=str(tmp_path / "key"))
    assert file.encryption_key() == key


def test_without_a_url_there_is_no_shared_cache() -> None:
    """A key alone configures no shared cache."""
    assert read(ENTRA_FAST_REDIS_URL=None) is None


def test_a_missing_extra_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install; a configured cache is never silently missing."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "redis" else find_spec(name)
    )
    with pytest.raises(ConfigurationError, match=r"entra-fast\[redis\]") as caught:
        read()
    assert caught.value.setting == "ENTRA_FAST_REDIS_URL"


def test_a_sidecar_without_a_shared_cache_does_not_load_the_extra() -> None:
    """Its start stays as fast, and its memory as small."""
    code = "import sys, entra_fast.sidecar.process.single; print({'redis', 'cryptography'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


async def test_no_secret_is_logged_however_redis_fails(
    serve: Serve, provider: Provider, tmp_path: Path
) -> None:
    """At debug level, with every outage: no piece of a password, the key or a token in logs and metrics."""
    server = RedisServer(tmp_path, password="right-password-0123456789")
    await server.start()
    way = TcpProxy(server.port)
    await way.start()
    key = os.urandom(32).hex()
    wrong = "wrong-password-abcdefghijk"
    user = provider.mint(oid="user")
    lines: list[str] = []
    tokens = [user.rpartition(".")[2]]
    try:
        for password in ("right-password-0123456789", wrong):
            process = await serve(
                provider.environment(
                    **{**shared(way.port, login=f":{password}@"), "ENTRA_FAST_REDIS_KEY": key, **HASTY},
                    ENTRA_FAST_LOG_LEVEL="debug",
                    ENTRA_FAST_ACCESS_LOG="true",
                    PYTHONASYNCIODEBUG="1",
                    PYTHONDEVMODE="1",
                    PYTHONWARNINGS="ignore::DeprecationWarning",
                )
            )
            call = await process.listening()
            for name in ("", *FAULTS):
                way.always = FAULTS[name][0] if name else None
                await cut(way)
                for target in (TARGET, f"api://{os.urandom(4).hex()}/.default"):
                    answers = [await call.exchange(user, target), await call.token(target, skip_cache=True)]
                    tokens += [answer.json["access_token"].rpartition(".")[2] for answer in answers]
            lines.append((await call.get("/metrics")).body.decode())
            process.signal(signal.SIGTERM)
            await process.ended()
            lines += process.lines
    finally:
        await way.stop()
        await server.stop()
    said = "\n".join(lines)
    assert "shared cache paused after failures" in said
    assert [json.loads(line)["level"] for line in lines if "Traceback" in line] == []
    secrets = [key, wrong, "right-password-0123456789", *tokens]
    assert [
        secret[:6] for secret in secrets if any(secret[i : i + 12] in said for i in range(len(secret) - 11))
    ] == []


async def test_calls_are_bounded(
    replica: Replica, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls beyond the limit continue without Redis."""
    monkeypatch.setattr("entra_fast._provider.redis_cache.MAX_CALLS", 0)
    sidecar = await replica()
    assert (await sidecar.call.token(TARGET)).status == 200
    await until(sidecar, "get", "busy")
    await until(sidecar, "put", "busy")


async def pings(redis: RedisServer) -> int:
    """How many PING commands the server has answered, except those of this test's own client."""
    statistics = await redis.client.info("commandstats")
    return int(statistics.get("cmdstat_ping", {}).get("calls", 0))


async def test_a_silent_connection_is_checked(
    replica: Replica, redis: RedisServer, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announcements still arrive after a silence that was longer than the interval of the checks."""
    monkeypatch.setattr("entra_fast._provider.redis_cache.HEARTBEAT", 0.01)
    one, two = await replica(), await replica()
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    assert (await two.call.token(TARGET)).json["access_token"] == old
    before = await pings(redis)

    async def checked() -> bool:
        return await pings(redis) >= before + 4

    await eventually(checked)
    new = (await one.call.token(TARGET, skip_cache=True)).json["access_token"]

    async def taken_over() -> bool:
        return bool((await two.call.token(TARGET)).json["access_token"] == new)

    await eventually(taken_over)


async def test_a_connection_that_stopped_answering_is_replaced(
    replica: Replica, redis: RedisServer, way: TcpProxy, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener whose connection does not answer the check opens another one, and hears announcements on
    it."""
    monkeypatch.setattr("entra_fast._provider.redis_cache.HEARTBEAT", 0.01)
    monkeypatch.setattr("entra_fast._provider.redis_cache.LISTENER_PAUSE", (0.01, 0.01))
    unanswered = asyncio.Event()

    async def subscribe_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        upstream_writer.write(await reader.read(65_536))
        writer.write(await upstream_reader.read(65_536))
        assert b"PING" in await reader.read(65_536)
        upstream_writer.close()  # so that the server counts only the connection that takes its place
        await upstream_writer.wait_closed()
        unanswered.set()
        while await reader.read(65_536):
            pass

    way.faults.append(subscribe_only)
    one = await replica(**HASTY)
    await unanswered.wait()
    two = await replica()
    await listening(redis, 2)
    old = (await one.call.token(TARGET)).json["access_token"]
    await until(one, "put", "ok")
    new = (await two.call.token(TARGET, skip_cache=True)).json["access_token"]
    assert new != old

    async def taken_over() -> bool:
        return bool((await one.call.token(TARGET)).json["access_token"] == new)

    await eventually(taken_over)


async def test_an_announcement_that_is_no_text_is_rejected(
    replica: Replica, way: TcpProxy, provider: Provider
) -> None:
    """The server is not trusted: it may send a number where the content of an announcement belongs."""
    channel = b"$%d\r\n%b\r\n" % (len(CHANNEL), CHANNEL)

    async def announce_a_number(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        assert b"SUBSCRIBE" in await reader.read(65_536)
        writer.write(b"*3\r\n$9\r\nsubscribe\r\n" + channel + b":1\r\n")
        writer.write(b"*3\r\n$7\r\nmessage\r\n" + channel + b":7\r\n")
        while await reader.read(65_536):
            pass

    way.faults.append(announce_a_number)
    sidecar = await replica()

    async def rejected() -> bool:
        series = 'entra_fast_shared_cache_announcements_total{outcome="rejected"}'
        return await sidecar.metric(series) == 1

    await eventually(rejected)
    assert (await sidecar.call.token(TARGET)).status == 200


async def test_a_token_that_is_about_to_end_is_not_stored(
    replica: Replica, redis: RedisServer, provider: Provider
) -> None:
    """It would be gone before another replica could use it."""
    provider.lifetime = 1
    sidecar = await replica()
    assert (await sidecar.call.token(TARGET)).status == 200
    await until(sidecar, "put", "ok")
    assert await redis.names("token") == []


def test_a_late_success_does_not_close_the_breaker() -> None:
    """A call that began before the outage says nothing about now."""
    breaker = Breaker(lambda: 1000.0, lambda low, high: low)
    while not breaker.failed():
        pass
    breaker.succeeded()
    assert not breaker.closed
