"""A fleet that starts with an empty Redis: one replica asks the provider for a token, and the others wait for
it. With a real Redis server, and a provider over a real socket."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from entra_fast._metrics import Metrics
from entra_fast._provider import redis_cache, replication
from entra_fast._provider.redis_cache import FAILED, LEASE
from entra_fast._provider.replication import FOLLOWERS_PATIENCE
from entra_fast._provider.token_client import TokenClient
from entra_fast._settings.load import Settings
from entra_fast.errors import ProviderError
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.service import new_token_cache
from support.network import TcpProxy, black_hole
from support.process import Serve
from support.provider import Provider, after, granting, refuse
from support.redis_server import RedisServer
from support.sidecars import Started, StartSidecar, eventually

TARGET = "api://dev-gcp.team.app/.default"
KEY = base64.b64encode(os.urandom(32)).decode()
REPLICAS = 60
PATIENT = {
    "ENTRA_FAST_REDIS_TIMEOUT_MILLIS": "5000",
    "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS": "5000",
    "ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS": "60000",
    "ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS": "60000",
    "ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS": "60000",
}
"""For tests of what servers do that are there: on a busy machine, the defaults are not always enough."""


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    await server.stop()


def shared(port: int) -> dict[str, str]:
    return {"ENTRA_FAST_REDIS_URL": f"redis://localhost:{port}/0", "ENTRA_FAST_REDIS_KEY": KEY, **PATIENT}


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no one's patience may end, and nothing in Redis, however busy the machine."""
    monkeypatch.setattr(replication, "FOLLOWERS_PATIENCE", 100.0)
    monkeypatch.setattr(redis_cache, "LEASE", 100.0)
    monkeypatch.setattr(redis_cache, "FAILURE_MEMORY", 100.0)


MakeReplica = Callable[..., TokenClient]


@pytest_asyncio.fixture
async def replica(redis: RedisServer, provider: Provider) -> AsyncIterator[MakeReplica]:
    """Makes a replica: everything of a sidecar that talks to the provider and to Redis."""
    made: list[ProviderClients] = []

    def make(**changes: str) -> TokenClient:
        settings = Settings.from_environment(provider.environment(**{**shared(redis.port), **changes}))
        cache = new_token_cache(settings.caches)
        one = ProviderClients(settings, cache=cache, metrics=Metrics(), clocks=Clocks())
        made.append(one)
        return one.tokens["entra_id"]

    yield make
    for one in made:
        await one.aclose()


async def locks(redis: RedisServer) -> list[bytes]:
    """The names of the leads that are held."""
    return await redis.names("fetch")


async def no_locks(redis: RedisServer) -> None:
    async def none() -> bool:
        return not await locks(redis)

    await eventually(none)


async def timed(work: Awaitable[object]) -> tuple[object, float]:
    """The result, or the error, and the seconds that it took."""
    started = time.monotonic()
    result = (await asyncio.gather(work, return_exceptions=True))[0]
    return result, time.monotonic() - started


@pytest.mark.usefixtures("unhurried")
async def test_sixty_replicas_that_start_together_make_one_request(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """All of them get the token that the leader has fetched, and no lead is left behind."""
    replicas = [replica() for _ in range(REPLICAS)]
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    asking = [asyncio.create_task(one.acquire(TARGET)) for one in replicas]
    await provider.asked(1)
    await asyncio.sleep(0.3)
    answers.set()
    tokens = await asyncio.gather(*asking)
    assert len({token.access_token for token in tokens}) == 1
    assert len(provider.requests) == 1
    await no_locks(redis)


@pytest.mark.usefixtures("unhurried")
async def test_each_token_has_a_leader_of_its_own(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """Ten replicas ask for ten tokens each, some of them on behalf of users: ten requests."""
    replicas = [replica() for _ in range(10)]
    users = [provider.mint(oid=str(number)) for number in range(5)]
    asking = [
        work
        for one in replicas
        for work in (
            *(one.acquire(f"api://a{number}/.default") for number in range(5)),
            *(one.exchange(TARGET, user) for user in users),
        )
    ]
    await asyncio.gather(*asking)
    assert len(provider.requests) == 10


@pytest.mark.usefixtures("unhurried")
async def test_followers_do_not_wait_for_a_leader_that_fails(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """The provider refuses: each replica hears that for itself, at once. None waits for its patience to end,
    and none for one that failed a moment ago."""
    provider.always = refuse(400, "invalid_grant")
    replicas = [replica() for _ in range(20)]
    user = provider.mint()
    results = await asyncio.gather(*(timed(one.exchange(TARGET, user)) for one in replicas))
    assert {getattr(error, "error", error) for error, _ in results} == {"invalid_grant"}
    assert max(took for _, took in results) < 50
    assert len(provider.requests) == 20
    (name,) = await locks(redis)
    assert await redis.client.get(name) == FAILED
    assert await redis.client.pttl(name) > 0


async def test_a_leader_that_is_killed_is_replaced(
    serve: Serve,
    replica: MakeReplica,
    redis: RedisServer,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lead expires, one follower takes it over, and the others get that one's token."""
    # The leader is another process, with a lease of a second.
    monkeypatch.setattr(replication, "FOLLOWERS_PATIENCE", 100.0)
    leader = await serve(provider.environment(**shared(redis.port), BIND_ADDRESS="127.0.0.1:0"))
    call = await leader.listening()
    provider.then(after(asyncio.Event(), provider))  # never
    abandoned = asyncio.create_task(call.token(TARGET))
    await provider.asked(1)
    assert len(await locks(redis)) == 1
    followers = [replica() for _ in range(20)]
    asking = [asyncio.create_task(timed(one.acquire(TARGET))) for one in followers]
    await asyncio.sleep(0.1)
    assert len(provider.requests) == 1
    leader.signal(signal.SIGKILL)
    results = await asyncio.gather(*asking)
    assert len({token.access_token for token, _ in results}) == 1  # type: ignore[attr-defined]
    assert len(provider.requests) == 2
    await asyncio.gather(abandoned, return_exceptions=True)


@pytest.mark.usefixtures("unhurried")
async def test_a_leader_that_is_stopped_leaves_its_lead_to_another(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """It ends the lead itself, long before that would expire."""
    leader, follower = replica(), replica()
    provider.then(after(asyncio.Event(), provider))
    first = asyncio.create_task(leader.acquire(TARGET))
    await provider.asked(1)
    waiting = asyncio.create_task(follower.acquire(TARGET))
    await asyncio.sleep(0.05)
    await leader.aclose()
    assert (await waiting).access_token
    assert len(provider.requests) == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_followers_of_a_slow_leader_ask_themselves(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """After two seconds. The leader keeps its lead for as long as it needs."""
    leader, follower, late = replica(), replica(), replica()
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    first = asyncio.create_task(leader.acquire(TARGET))
    await provider.asked(1)
    _, took = await timed(follower.acquire(TARGET))
    assert FOLLOWERS_PATIENCE - 0.5 < took < 50
    assert took > LEASE
    assert len(provider.requests) == 2
    # The follower has stored its token, so no one else needs the leader.
    await late.acquire(TARGET)
    assert len(provider.requests) == 2
    answers.set()
    assert (await first).access_token
    await no_locks(redis)


@pytest.mark.parametrize("failed", [False, True])
async def test_only_its_holder_ends_a_lead(
    replica: MakeReplica, redis: RedisServer, provider: Provider, failed: bool
) -> None:
    """A leader that was too slow does not end, extend or mark the lead of the one that followed it."""
    leader, answers = replica(), asyncio.Event()
    if failed:
        provider.then(after(answers, provider, refuse(400, "invalid_grant")))
    else:
        provider.then(after(answers, provider))
    asking = asyncio.create_task(timed(leader.acquire(TARGET)))
    await provider.asked(1)
    (name,) = await locks(redis)
    await redis.client.set(name, b"another")
    answers.set()
    result, _ = await asking
    assert isinstance(result, ProviderError) == failed
    await asyncio.sleep(LEASE / 2)  # longer than an extension takes
    assert await redis.client.get(name) == b"another"
    assert await redis.client.pttl(name) == -1


async def test_without_the_right_to_run_scripts_a_fast_provider_is_still_asked_once(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """As with the rights that earlier releases asked for. Leads end when they expire."""
    rights = ["+getrange", "+pttl", "+set", "+publish", "+subscribe", "+ping", "+select"]
    rules = ["on", ">password", "resetkeys", "resetchannels", "~entra_fast:*", "&entra_fast:*", "-@all"]
    await redis.client.execute_command("ACL", "SETUSER", "entra_fast", *rules, *rights)
    url = f"redis://entra_fast:password@localhost:{redis.port}/0"
    replicas = [replica(ENTRA_FAST_REDIS_URL=url) for _ in range(10)]
    tokens = await asyncio.gather(*(one.acquire(TARGET) for one in replicas))
    assert len({token.access_token for token in tokens}) == 1
    assert len(provider.requests) == 1
    await no_locks(redis)


async def test_a_redis_that_hangs_costs_one_timeout(
    start: StartSidecar, redis: RedisServer, provider: Provider
) -> None:
    """There is no leader to find, so no one looks for it."""
    way = TcpProxy(redis.port)
    await way.start()
    way.always = black_hole
    changes = {"ENTRA_FAST_REDIS_TIMEOUT_MILLIS": "300", "ENTRA_FAST_REDIS_CONNECT_TIMEOUT_MILLIS": "300"}
    sidecars: list[Started] = [await start(**{**shared(way.port), **changes}) for _ in range(3)]
    results = await asyncio.gather(*(timed(sidecar.call.token(TARGET)) for sidecar in sidecars))
    assert all(answer.status == 200 for answer, _ in results)  # type: ignore[attr-defined]
    assert len(provider.requests) == 3
    for sidecar in sidecars:
        series = 'entra_fast_shared_cache_requests_total{operation="lock",outcome="timed_out"}'
        assert await sidecar.metric(series) == 0
    await way.stop()


@pytest.mark.usefixtures("unhurried")
async def test_a_new_token_does_not_wait_for_a_leader(
    start: StartSidecar, redis: RedisServer, provider: Provider
) -> None:
    """`skip_cache` never waits, also where it joins a caller that does."""
    leader = await start(**shared(redis.port))
    follower = await start(**shared(redis.port))
    provider.then(after(asyncio.Event(), provider))
    abandoned = asyncio.create_task(leader.call.token(TARGET))
    await provider.asked(1)
    waiting = asyncio.create_task(timed(follower.call.token(TARGET)))
    await follower.received(1)
    new, took = await timed(follower.call.token(TARGET, skip_cache=True))
    assert took < 50
    any_token, _ = await waiting
    assert any_token.json["access_token"] == new.json["access_token"]  # type: ignore[attr-defined]
    abandoned.cancel()


async def test_the_lead_tells_redis_nothing(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """Its name is a keyed digest like that of the token, and its value is random."""
    leader = replica()
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    asking = asyncio.create_task(leader.acquire(TARGET))
    await provider.asked(1)
    (name,) = await locks(redis)
    value = await redis.client.get(name)
    assert isinstance(value, bytes)
    assert len(bytes.fromhex(value.decode())) == 16
    assert b"app" not in name
    assert 0 < await redis.client.pttl(name) <= LEASE * 1000
    answers.set()
    await asking


@pytest.mark.usefixtures("unhurried")
async def test_a_token_that_cannot_be_shared_keeps_no_one_waiting(
    replica: MakeReplica, redis: RedisServer, provider: Provider
) -> None:
    """The provider names no lifetime: each replica gets a token of its own, at once."""

    provider.always = granting(provider, expires_in=None)
    results = await asyncio.gather(*(timed(replica().acquire(TARGET)) for _ in range(5)))
    assert all(not isinstance(token, Exception) for token, _ in results)
    assert max(took for _, took in results) < 50
