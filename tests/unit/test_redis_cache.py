"""Calls to the cache that replicas share, one at a time, at a real server. tests/faults/test_shared_cache.py
has whole sidecars, and the ways in which a server fails."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis.exceptions
from redis.asyncio import ConnectionPool

from entra_fast._metrics import Metrics
from entra_fast._provider import redis_cache
from entra_fast._provider.redis_cache import Breaker, SharedCache
from entra_fast._provider.redis_entries import CHANNEL, EntryCipher
from entra_fast._provider.tokens import FetchedToken, Leader, Lookup
from entra_fast._settings.model import SharedCacheSettings
from entra_fast._settings.secret import Secret
from support.network import TcpProxy, black_hole
from support.redis_server import RedisServer
from support.sidecars import eventually

KEY = base64.b64encode(bytes(range(32))).decode()
CIPHER = EntryCipher(bytes(range(32)))
NOW, MONOTONIC = 1_800_000_000.0, 5000.0
DIGEST = b"d" * 32
FETCH = CIPHER.name(b"fetch", DIGEST)
TOKEN = FetchedToken("t.o.k", 3600.0, MONOTONIC)


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    started = RedisServer(tmp_path)
    await started.start()
    yield started
    await started.stop()


class Sleeping:
    """What waits between two steps of a background task goes on when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.steps = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.steps.acquire()


class Replica(SharedCache):
    """A replica whose clocks stand still."""

    def __init__(self, port: int, **changes: Any) -> None:
        self.counts = Metrics()
        self.sleeping = Sleeping()
        self.now = MONOTONIC
        settings = SharedCacheSettings(
            url=Secret("ENTRA_FAST_REDIS_URL", f"redis://localhost:{port}/0"),
            key=Secret("ENTRA_FAST_REDIS_KEY", KEY),
            **{"timeout": 20.0, "connect_timeout": 20.0, **changes},
        )
        super().__init__(
            settings,
            ca_bundle=None,
            metrics=self.counts,
            clock=lambda: NOW + self.now - MONOTONIC,
            monotonic=lambda: self.now,
            sleep=self.sleeping,
            uniform=lambda low, high: high,
        )

    def counted(self) -> dict[tuple[str, ...], float]:
        """Operations and outcomes so far."""
        return {labels: value for labels, (value,) in self.counts.shared.figures().items() if value}

    async def written(self) -> None:
        """Until nothing is being written, and no lead ends any more."""
        while waiting := {*self._writes.values(), *self._ends}:
            await asyncio.wait(waiting)


MakeReplica = Callable[..., Replica]


@pytest_asyncio.fixture
async def replica(server: RedisServer) -> AsyncIterator[MakeReplica]:
    made: list[Replica] = []

    def make(**changes: Any) -> Replica:
        made.append(Replica(changes.pop("port", server.port), **changes))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


# --- tokens ---


async def test_a_token_is_read_as_it_was_written(replica: MakeReplica, server: RedisServer) -> None:
    """By another replica; it expires with the token, and both operations are counted and timed."""
    one, two = replica(), replica()
    assert await two.get(DIGEST) == Lookup(None)
    one.put(DIGEST, TOKEN, announce=False)
    assert one.is_writing(DIGEST)
    assert not one.is_writing(b"o" * 32)
    await one.written()
    assert not one.is_writing(DIGEST)
    found = await two.get(DIGEST)
    assert found.answered
    assert found.token is not None
    assert (found.token.access_token, found.token.lifetime) == ("t.o.k", 3600)
    # Redis counts while the clocks here stand still.
    assert MONOTONIC - 30 < found.token.fetched_at <= MONOTONIC
    assert one.counted() == {("put", "ok"): 1}
    assert two.counted() == {("get", "miss"): 1, ("get", "hit"): 1}
    assert sum(two.counts.shared_seconds.figures()[("get",)][:-1]) == 2
    name = CIPHER.name(b"token", DIGEST)
    assert 3_590_000 < await server.client.pttl(name) <= 3_600_000


@pytest.mark.parametrize(
    ("age", "end", "millis"),
    [(100.0, None, 3_500_000), (0.0, NOW + 50.5, 50_500), (3599.0, None, 1000), (3599.5, None, None)],
)
async def test_an_entry_lives_as_long_as_its_token(
    replica: MakeReplica, server: RedisServer, age: float, end: float | None, millis: int | None
) -> None:
    """Or as long as the user's token; one that ends within a second is not written."""
    one = replica()
    one.put(DIGEST, FetchedToken("t", 3600.0, MONOTONIC - age, end), announce=False)
    await one.written()
    assert one.counted() == {("put", "ok"): 1}
    if millis is None:
        assert await server.names("token") == []
    else:
        left = await server.client.pttl(CIPHER.name(b"token", DIGEST))
        # Whether or not the shortest one has ended in the meantime.
        assert left == -2 if millis == 1000 and left < 0 else millis - 2000 < left <= millis


async def test_the_later_of_two_writes_wins(
    replica: MakeReplica, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its connection may be faster: it waits for the first one. The token counts as being written
    until the last one has been."""
    one = replica()
    first_may_go = asyncio.Event()
    ask, asked = one._ask, []

    async def slow_at_first(operation: str, command: Any, **options: Any) -> Any:
        asked.append(operation)
        if len(asked) == 1:
            await first_may_go.wait()
        return await ask(operation, command, **options)

    monkeypatch.setattr(one, "_ask", slow_at_first)
    one.put(DIGEST, TOKEN, announce=False)
    one.put(DIGEST, FetchedToken("new", 3600.0, MONOTONIC), announce=False)
    await asyncio.sleep(0.05)
    assert asked == ["put"]
    assert one.is_writing(DIGEST)
    first_may_go.set()
    await one.written()
    assert asked == ["put", "put"]
    assert not one.is_writing(DIGEST)
    found = (await one.get(DIGEST)).token
    assert found is not None
    assert found.access_token == "new"


async def test_only_a_token_that_was_replaced_is_announced(replica: MakeReplica, server: RedisServer) -> None:
    """To other replicas: none listens to itself."""
    one, two = replica(), replica()
    told: list[tuple[str, bytes]] = []

    class Member:
        def __init__(self, name: str) -> None:
            self.name = name

        def take_over_later(self, digest: bytes) -> None:
            told.append((self.name, digest))

    for each, name in ((one, "one"), (two, "two")):
        each.members = [Member(name), Member("never asked")]  # type: ignore[list-item]
        each.start()

    async def listening() -> bool:
        return dict(await server.client.pubsub_numsub(CHANNEL)).get(CHANNEL) == 2

    await eventually(listening)
    one.put(b"q" * 32, TOKEN, announce=False)
    one.put(DIGEST, TOKEN, announce=True)
    await one.written()

    async def heard() -> bool:
        return len(told) == 1

    await eventually(heard)
    two.put(DIGEST, TOKEN, announce=True)
    await two.written()

    async def answered() -> bool:
        return len(told) == 2

    await eventually(answered)
    assert told == [("two", DIGEST), ("one", DIGEST)]
    assert one.sleeping.pauses == []


async def test_an_announcement_of_another_type_is_rejected(replica: MakeReplica) -> None:
    """And counted; so is one that was not sealed with the key."""
    one = replica()
    for data in (7, "text", None, b"", bytes(92)):
        one._announced(data)
    assert one.counts.shared_announcements.value("rejected") == 5


async def test_calls_beyond_the_limit_are_not_made(
    replica: MakeReplica, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count as busy. A write that is left out ends the lead of its fetch, as a failure: no replica
    waits for this token in vain."""
    one = replica()
    assert await one.lead_fetch(DIGEST) == (Leader.THIS, None)
    monkeypatch.setattr(redis_cache, "MAX_CALLS", 0)
    assert await one.get(DIGEST) == Lookup(None, answered=False)
    assert await one.lead(DIGEST, 5)
    one.put(DIGEST, TOKEN, announce=False)
    await one.written()
    assert one.counted() == {("lock", "ok"): 1, ("get", "busy"): 1, ("lead", "busy"): 1, ("put", "busy"): 1}
    assert await server.client.get(FETCH) == redis_cache.FAILED
    monkeypatch.setattr(redis_cache, "MAX_CALLS", 1)
    assert (await one.get(DIGEST)).answered


# --- who renews, who fetches ---


async def test_one_replica_renews_a_token(replica: MakeReplica, server: RedisServer) -> None:
    """Until the time that it has reserved is over."""
    one, two = replica(), replica()
    assert [await one.lead(DIGEST, 6.5), await two.lead(DIGEST, 6.5)] == [True, False]
    assert 5000 < await server.client.pttl(CIPHER.name(b"renewal", DIGEST)) <= 6500
    assert await two.lead(b"o" * 32, 0)  # no expiry is too short for Redis
    assert one.counted() == {("lead", "ok"): 1}
    assert two.counted() == {("lead", "taken"): 1, ("lead", "ok"): 1}


async def test_one_replica_fetches_a_token(
    replica: MakeReplica, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others learn that it does, that it has stored the token, that it has failed, or that it has
    stopped."""
    monkeypatch.setattr(redis_cache, "LEASE", 50.0)
    monkeypatch.setattr(redis_cache, "FAILURE_MEMORY", 70.0)
    one, two = replica(), replica()
    assert await one.lead_fetch(DIGEST) == (Leader.THIS, None)
    assert 40_000 < await server.client.pttl(FETCH) <= 50_000
    assert await two.lead_fetch(DIGEST) == (Leader.ANOTHER, None)
    one.end_lead(DIGEST, failed=True)
    await one.written()
    assert 60_000 < await server.client.pttl(FETCH) <= 70_000
    assert await two.lead_fetch(DIGEST) == (Leader.NONE, None)
    await server.client.delete(FETCH)
    assert await two.lead_fetch(DIGEST) == (Leader.THIS, None)
    one.end_lead(DIGEST, failed=False)  # it has none any more
    await one.written()
    assert await server.client.exists(FETCH)
    two.end_lead(DIGEST, failed=False)
    await two.written()
    assert not await server.client.exists(FETCH)
    assert await one.lead_fetch(DIGEST) == (Leader.THIS, None)
    one.put(DIGEST, TOKEN, announce=False)
    await one.written()
    assert not await server.client.exists(FETCH)
    for each, expected in ((two, Leader.THIS), (one, Leader.ANOTHER)):
        leader, token = await each.lead_fetch(DIGEST)
        assert leader is expected
        assert token is not None
        assert token.access_token == "t.o.k"
    assert one.counted() == {("lock", "ok"): 2, ("put", "ok"): 1, ("lock", "hit"): 1}
    assert two.counted() == {("lock", "taken"): 1, ("lock", "miss"): 1, ("lock", "ok"): 1, ("lock", "hit"): 1}


async def test_a_leader_that_lives_extends_its_lead(replica: MakeReplica, server: RedisServer) -> None:
    """Three times within its term, for as long as it leads; without that it would expire."""
    one = replica()
    await one.lead_fetch(DIGEST)
    await server.client.pexpire(FETCH, 100_000)

    async def extended() -> bool:
        return 0 < await server.client.pttl(FETCH) <= 1000

    one.sleeping.steps.release()
    await eventually(extended)
    assert set(one.sleeping.pauses) == {redis_cache.LEASE / 3}
    await server.client.delete(FETCH)
    one.sleeping.steps.release()
    await eventually(lambda: _true(len(one.sleeping.pauses) == 3))
    assert not await server.client.exists(FETCH)  # it has lost the lead, and does not take it again
    (lead,) = one._leads.values()
    assert lead.extending is not None
    one.end_lead(DIGEST, failed=False)
    await one.written()
    assert lead.extending.cancelled()
    assert one._leads == {}


async def _true(condition: bool) -> bool:
    return condition


@pytest.mark.parametrize("failed", [True, False])
async def test_a_lead_that_another_replica_has_taken_over_is_left_alone(
    replica: MakeReplica, server: RedisServer, failed: bool
) -> None:
    """The one that was too slow neither ends nor extends it, nor does its write."""
    one = replica()
    await one.lead_fetch(DIGEST)
    await server.client.set(FETCH, b"another")
    one.sleeping.steps.release()
    await eventually(lambda: _true(len(one.sleeping.pauses) == 2))
    if failed:
        one.end_lead(DIGEST, failed=True)
    else:
        one.put(DIGEST, TOKEN, announce=False)
    await one.written()
    assert (await server.client.get(FETCH), await server.client.pttl(FETCH)) == (b"another", -1)


async def test_a_lead_that_was_never_taken_needs_no_call(replica: MakeReplica, server: RedisServer) -> None:
    """Ending it asks nobody."""
    one = replica()
    one.end_lead(DIGEST, failed=True)
    assert one._ends == set()


@pytest.mark.parametrize(
    ("value", "leader", "outcome"),
    [(b"text that is no lead", Leader.ANOTHER, "taken"), (redis_cache.FAILED, Leader.NONE, "miss")],
)
async def test_what_the_entry_of_a_lead_says(
    replica: MakeReplica, server: RedisServer, value: bytes, leader: Leader, outcome: str
) -> None:
    """Any value is a lead, except that of one that has failed."""
    await server.client.set(FETCH, value)
    one = replica()
    assert await one.lead_fetch(DIGEST) == (leader, None)
    assert one.counted() == {("lock", outcome): 1}


async def test_a_wrong_entry_is_counted_once(replica: MakeReplica, server: RedisServer) -> None:
    """When it is read; not again when the lead in replacing it is taken."""
    one = replica()
    await server.client.set(CIPHER.name(b"token", DIGEST), b"x" * 50, px=9000)
    assert await one.get(DIGEST) == Lookup(None)
    assert await one.lead_fetch(DIGEST) == (Leader.THIS, None)
    assert one.counts.shared_rejected.figures() == {("version",): [1]}
    assert one.counted() == {("get", "rejected"): 1, ("lock", "ok"): 1}


async def test_an_entry_of_another_type_is_rejected(replica: MakeReplica, server: RedisServer) -> None:
    """That Redis cannot read it is no refusal of the command."""
    await server.client.rpush(CIPHER.name(b"token", DIGEST), b"x")
    one = replica()
    assert await one.get(DIGEST) == Lookup(None)
    assert one.counts.shared_rejected.figures() == {("type",): [1]}
    assert await one.lead_fetch(DIGEST) == (Leader.THIS, None)
    assert one.counted() == {("get", "rejected"): 1, ("lock", "ok"): 1}


@pytest.mark.parametrize(
    ("rights", "get", "lock"),
    [
        ("-getrange", Lookup(None, answered=False), (Leader.THIS, None)),
        ("-pttl", Lookup(None, answered=False), (Leader.THIS, None)),
        ("-set", Lookup(None), (Leader.NONE, None)),
    ],
)
async def test_a_refused_command_is_no_answer(
    replica: MakeReplica,
    server: RedisServer,
    rights: str,
    get: Lookup,
    lock: tuple[Leader, None],
) -> None:
    """The replica asks the provider itself. Where no lead can be taken, it waits for nobody."""
    rules = ["on", ">word", "~*", "&*", "+@all", rights]
    await server.client.execute_command("ACL", "SETUSER", "someone", *rules)
    one = replica(username="someone", password=Secret("ENTRA_FAST_REDIS_PASSWORD", "word"))
    assert await one.get(DIGEST) == get
    assert await one.lead_fetch(DIGEST) == lock
    assert one.counted().get(("get", "refused"), 0) == (not get.answered)
    assert one.counted().get(("lock", "refused"), 0) == (lock[0] is Leader.NONE)
    assert one.available


# --- the server fails ---


async def test_a_server_that_recovers_is_used_again(
    replica: MakeReplica, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Five failures in a row pause it, with one warning. After the pause, a ping finds out, and no caller
    waits for it."""
    caplog.set_level(logging.INFO, "entra_fast")
    await server.stop()
    one = replica()
    for _ in range(5):
        assert one.available
        assert await one.get(DIGEST) == Lookup(None, answered=False)
    assert not one.available
    assert one.counts.shared_interruptions.value() == 1
    assert await one.get(DIGEST) == Lookup(None, answered=False)
    assert one._probing is None
    one.now += 1.2
    assert await one.lead(DIGEST, 5)  # begins the probe
    assert one._probing is not None
    await one._probing
    assert not one.available
    assert [record.message for record in caplog.records] == ["shared cache paused after failures"]
    assert caplog.records[0].__dict__["fields"] == {"because": "connect_failed"}
    await server.start()
    one.now += 2.4
    await one.get(DIGEST)
    await one._probing
    assert one.available
    assert await one.get(DIGEST) == Lookup(None)
    assert [record.message for record in caplog.records][1:] == ["shared cache recovered"]
    assert one.counted() == {
        ("get", "connect_failed"): 5,
        ("get", "paused"): 2,
        ("lead", "paused"): 1,
        ("ping", "connect_failed"): 1,
        ("ping", "ok"): 1,
        ("get", "miss"): 1,
    }


async def test_a_call_that_is_late_is_a_miss_and_goes_on(replica: MakeReplica, server: RedisServer) -> None:
    """Its connection serves the next call. A write may take as long as connecting and one answer."""
    way = TcpProxy(server.port)
    way.always = black_hole
    await way.start()
    try:
        one = replica(port=way.port, timeout=0.05, connect_timeout=20.0)
        assert await one.get(DIGEST) == Lookup(None, answered=False)
        assert one.counted() == {("get", "timed_out"): 1}
        assert len(one._calls) == 1
        one.put(DIGEST, TOKEN, announce=False)
        await asyncio.sleep(0.2)
        assert one.is_writing(DIGEST)
    finally:
        await way.stop()


async def test_a_server_that_turned_read_only_is_left(replica: MakeReplica, server: RedisServer) -> None:
    """Its connections are closed, so that the next call finds the new primary; that is no outage."""
    one = replica()
    await one.get(DIGEST)
    (connection,) = one._pool._available_connections
    await server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    for _ in range(6):
        assert await one.lead(DIGEST, 5)
    assert one.counted() == {("get", "miss"): 1, ("lead", "refused"): 6}
    assert not connection.is_connected
    assert one.available


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TimeoutError(), "timed_out"),
        (redis.exceptions.TimeoutError(), "timed_out"),
        (redis.exceptions.AuthenticationError(), "auth_failed"),
        (redis.exceptions.AuthorizationError(), "auth_failed"),
        (ssl.SSLError(), "tls_failed"),
        (redis.exceptions.ConnectionError(), "connect_failed"),
        (ConnectionResetError(), "connect_failed"),
        (redis.exceptions.ResponseError(), "refused"),
        (redis.exceptions.InvalidResponse(), "malformed"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "malformed"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_how_a_server_fails(error: Exception, outcome: str) -> None:
    """Each kind of failure has a name in metrics; never the exception's text."""
    assert redis_cache._outcome_of(error) == outcome


@pytest.mark.parametrize("how", ["cause", "context"])
def test_a_failure_of_tls_behind_a_failed_connection(how: str) -> None:
    """The client wraps it."""
    wrapped = redis.exceptions.ConnectionError()
    setattr(wrapped, f"__{how}__", ssl.SSLError())
    assert redis_cache._outcome_of(wrapped) == "tls_failed"


# --- connecting ---


async def test_connections_are_made_as_configured(replica: MakeReplica) -> None:
    """Without a second attempt, as nobody waits for it, and without announcing the client's version."""
    one = replica(timeout=2.0, connect_timeout=3.0)
    assert isinstance(one._pool, ConnectionPool)
    assert one._pool.max_connections == redis_cache.MAX_CONNECTIONS + 1
    options = one._pool.connection_kwargs
    assert (options["host"], options["db"], options["protocol"]) == ("localhost", 0, 2)
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (5.0, 3.0)
    assert options["driver_info"] is None
    assert "credential_provider" not in options
    connection = one._pool.make_connection()
    assert connection.retry.get_retries() == 0


@pytest.mark.parametrize(
    ("username", "password", "sent"),
    [(None, "p", ("p",)), ("u", "p", ("u", "p")), ("u", None, ("u", ""))],
)
async def test_what_is_sent_to_log_in(
    replica: MakeReplica, username: str | None, password: str | None, sent: tuple[str, ...]
) -> None:
    """A user name only where there is one."""
    secret = None if password is None else Secret("ENTRA_FAST_REDIS_PASSWORD", password)
    one = replica(username=username, password=secret)
    login = one._pool.connection_kwargs["credential_provider"]
    assert login.get_credentials() == sent
    assert await login.get_credentials_async() == sent


async def test_a_listener_that_cannot_connect_waits_longer_each_time(replica: MakeReplica) -> None:
    """Up to half a minute, with jitter."""
    way = TcpProxy(1)
    await way.start()
    await way.stop()
    one = replica(port=way.port)
    one.start()
    for count in range(1, 8):
        await eventually(lambda count=count: _true(len(one.sleeping.pauses) == count))  # type: ignore[misc]
        one.sleeping.steps.release()
    assert one.sleeping.pauses[:7] == [pytest.approx(1.2 * pause) for pause in (1, 2, 4, 8, 16, 30, 30)]


async def test_closing_waits_for_the_last_writes(replica: MakeReplica, server: RedisServer) -> None:
    """A token that was just fetched, and the end of a lead, still reach the server; then nothing is left."""
    one = replica()
    one.start()
    await one.lead_fetch(DIGEST)
    await one.lead_fetch(b"o" * 32)
    one.end_lead(DIGEST, failed=False)
    one.put(DIGEST, TOKEN, announce=False)
    await one.aclose()
    assert len(await server.names("token")) == 1
    assert not await server.client.exists(FETCH)
    assert await server.client.exists(CIPHER.name(b"fetch", b"o" * 32))
    (lead,) = one._leads.values()
    assert lead.extending is not None
    assert lead.extending.done()
    assert one._listening is not None
    assert one._listening.done()
    assert one._calls == set()


# --- the breaker ---


class Time:
    """Seconds of a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(time: Time, jitter: Callable[[float, float], float]) -> Breaker:
    breaker = Breaker(time, jitter)
    for _ in range(4):
        assert not breaker.failed()
    assert breaker.failed()
    return breaker


def test_replicas_do_not_probe_at_the_same_moment() -> None:
    """The pause is a fifth shorter to a fifth longer."""
    for jitter, pause in ((min, 0.8), (max, 1.2)):
        time = Time()
        breaker = opened(time, jitter)
        time.now = pause - 0.001
        assert not breaker.begin_probe()
        time.now = pause
        assert breaker.begin_probe()


def test_a_closed_breaker_is_not_probed() -> None:
    """Nobody has to find out anything."""
    assert not Breaker(Time(), max).begin_probe()


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    """Five further failures open it again. The pause is then as long as the last one was meant to be, until
    a call has succeeded."""
    time = Time()
    breaker = opened(time, lambda low, high: 1.0)
    for pause in (1.0, 2.0):
        time.now += pause
        assert breaker.begin_probe()
        breaker.end_probe(recovered=False)
    time.now += 4
    assert breaker.begin_probe()
    breaker.end_probe(recovered=True)
    assert breaker.closed
    assert [breaker.failed() for _ in range(5)] == [False] * 4 + [True]
    time.now += 7.9
    assert not breaker.begin_probe()
    time.now += 0.1
    assert breaker.begin_probe()
    breaker.end_probe(recovered=True)
    breaker.succeeded()
    assert [breaker.failed() for _ in range(5)] == [False] * 4 + [True]
    time.now += 1
    assert breaker.begin_probe()


def test_a_success_begins_the_count_anew() -> None:
    """Only failures in a row open the breaker."""
    breaker = Breaker(Time(), max)
    for _ in range(3):
        for _ in range(4):
            assert not breaker.failed()
        breaker.succeeded()
    assert breaker.closed
