"""The provider process: what it remembers of announced tokens, and what it announces to workers."""

from __future__ import annotations

import asyncio
import itertools
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from entra_fast._native import TokenCache
from entra_fast._provider.jwks_schedule import Cause
from entra_fast._settings.load import Settings
from entra_fast._sweeping import LOOP_PARTS
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process import provider_process
from entra_fast.sidecar.process.channel import Channel, ChannelLost, Fields, Handler
from entra_fast.sidecar.process.provider_process import AnnouncedTokens, ConnectedWorker, ProviderProcess
from entra_fast.sidecar.readiness import START_LIMIT
from support.keys import Key
from support.provider import Provider
from support.sidecars import eventually

WANTED: Fields = {
    "provider": "entra_id",
    "target": "api://c.n.a/.default",
    "subject_token": None,
    "resources": [],
    "authorization_details": None,
}
ASKED: Fields = {**WANTED, "skip_cache": False, "claims": None}


def test_terms_of_tokens_that_have_ended_are_forgotten() -> None:
    """Most users' tokens are never requested again, and the limit is far away; valid ones stay."""
    now = 1000.0
    clocks = Clocks(wall=lambda: now, monotonic=lambda: now)
    tokens = AnnouncedTokens(TokenCache(), 100_000, clocks, lambda _: None, lambda _: None)
    keys = [bytes([number]) * 32 for number in range(100)]
    for key in keys:
        tokens.put(key, "token", 10.0, monotonic=now)
        now += 1
        assert len(tokens._terms) <= 10
    assert [key for key in keys if tokens.known(key, tokens.announced)] == keys[-9:]


async def test_when_one_worker_distrusts_rind_all_do() -> None:
    """A disagreement that one worker has seen is announced to every worker, once, and to workers that start
    later before they serve."""
    process = ProviderProcess(Settings.from_environment({"AZURE_ENABLED": "false"}, None))
    channels: list[Channel] = []

    async def connect(number: int) -> tuple[Channel, list[str]]:
        ours, theirs = socket.socketpair()
        heard: list[str] = []

        async def end(_: str) -> None:
            raise AssertionError("no worker has done anything wrong")

        worker = ConnectedWorker(number, end, lambda: 0)
        worker.channel = Channel(lambda name, fields: process.handle(worker, name, fields), lambda: None)
        channel = Channel(lambda name, _: heard.append(name), lambda: None)
        await worker.channel.open(ours)
        await channel.open(theirs)
        channels.append(channel)
        channel.send("hello")
        await channel.call("readiness")  # what was announced before the answer has been heard by then
        return channel, heard

    (first, heard_by_first), (second, heard_by_second) = await connect(1), await connect(2)
    assert "signatures_distrusted" not in heard_by_first + heard_by_second
    for channel in (first, second, first):
        channel.send("signatures_distrusted")
        await channel.call("readiness")
    assert heard_by_first.count("signatures_distrusted") == 1
    assert heard_by_second.count("signatures_distrusted") == 1
    _, heard_by_third = await connect(3)
    assert heard_by_third[-2:] == ["signatures_distrusted", "serve"]
    for channel in channels:
        channel.abort()


def test_a_start_is_over_when_there_are_keys_or_after_its_limit(provider: Provider) -> None:
    """Without keys, the startup probe passes after its limit, so that an outage restarts nothing."""
    now = 1000.0
    clocks = Clocks(wall=lambda: now, monotonic=lambda: now)
    process = ProviderProcess(Settings.from_environment(provider.environment(), None), clocks=clocks)
    assert not process.has_started()
    now += START_LIMIT
    assert process.has_started()


class Connected:
    """A provider process and the channels of workers that a test plays."""

    def __init__(self, process: ProviderProcess) -> None:
        self.process = process
        self.workers: list[ConnectedWorker] = []
        self.channels: list[Channel] = []
        self.ended: list[tuple[int, str]] = []

    async def connect(
        self, answer: Handler, *, hello: bool = True, progress: Callable[[], int] = lambda: 0
    ) -> tuple[ConnectedWorker, Channel]:
        """A worker that answers the provider process as the test says, and runs its own checks."""
        number = len(self.workers)

        def healthy(name: str, fields: Fields) -> Fields | Awaitable[Fields] | None:
            result = answer(name, fields)
            return {"figures": {}} if name == "figures" and result is None else result

        async def end(reason: str) -> None:
            self.ended.append((number, reason))
            self.process.left(worker)

        worker = ConnectedWorker(number, end, progress)
        ours, theirs = socket.socketpair()
        worker.channel = Channel(lambda name, fields: self.process.handle(worker, name, fields), lambda: None)
        channel = Channel(healthy, lambda: None)
        await worker.channel.open(ours)
        await channel.open(theirs)
        self.workers.append(worker)
        self.channels.append(channel)
        if hello:
            channel.send("hello")
            await channel.call("readiness")
        return worker, channel


@pytest_asyncio.fixture
async def connected(provider: Provider) -> AsyncIterator[Connected]:
    settings = Settings.from_environment(provider.environment(), None)
    both = Connected(ProviderProcess(settings))
    await both.process.start()
    yield both
    for channel in both.channels:
        channel.abort()
    await both.process.aclose()


async def test_a_token_is_fetched_once_and_announced_to_every_worker(
    connected: Connected, provider: Provider
) -> None:
    """The worker that asks gets the announcement before the answer; one that asks later gets what is
    cached."""
    heard: list[tuple[int, str]] = []

    def hears(number: int) -> Handler:
        return lambda name, _: heard.append((number, name))

    _, first = await connected.connect(hears(0))
    _, second = await connected.connect(hears(1))
    asked = len(provider.requests)
    fields = ASKED
    answer = await first.call("token", **fields)
    assert len(provider.requests) == asked + 1
    assert (0, "token") in heard
    again = await second.call("token", **fields)
    assert again["token"] == answer["token"]
    assert len(provider.requests) == asked + 1
    assert [number for number, name in heard if name == "token"].count(1) == 2, "it had asked before it read"
    user = provider.mint(oid="user")
    exchanged = await first.call("token", **{**fields, "subject_token": user})
    assert exchanged["token"] != answer["token"]


@pytest.mark.parametrize(
    "wanted", [{"skip_cache": True, "claims": None}, {"skip_cache": False, "claims": '{"access_token":{}}'}]
)
async def test_a_new_token_waits_for_every_worker_and_ends_one_that_hangs(
    connected: Connected, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, object]
) -> None:
    """With `skip_cache`, or a claims challenge, the answer comes after each other worker has confirmed the
    new token, or is gone."""
    monkeypatch.setattr(provider_process, "SYNC_TIMEOUT", 0.01)
    synced: list[str] = []
    never: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()

    def confirm(name: str, _: Fields) -> None:
        if name == "sync":
            synced.append(name)

    def hang(name: str, _: Fields) -> asyncio.Future[Fields] | None:
        return never if name == "sync" else None

    _, asking = await connected.connect(lambda *_: None)
    await connected.connect(confirm)
    await connected.connect(hang)
    await asking.call("token", **WANTED, **wanted)
    assert synced == ["sync"]
    assert connected.ended == [(2, "hung")]
    never.cancel()


async def test_skip_cache_waits_for_a_worker_that_is_busy(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it works, it is not ended, however late it confirms; the answer comes after that."""
    monkeypatch.setattr(provider_process, "SYNC_TIMEOUT", 0.01)
    monkeypatch.setattr(provider_process, "TICK", 0.01)
    confirmed: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    work = itertools.count()

    def progress() -> int:
        done = next(work)
        if done == 20:
            confirmed.set_result({})
        return done

    _, asking = await connected.connect(lambda *_: None)
    await connected.connect(lambda name, _: confirmed if name == "sync" else None, progress=progress)
    fields = {**WANTED, "skip_cache": True, "claims": None}
    answer = await asking.call("token", **fields)
    assert answer["token"]
    assert confirmed.done()
    assert connected.ended == []


async def test_a_renewal_that_is_not_due_is_put_off(connected: Connected, provider: Provider) -> None:
    """The same renewal is due in every worker: only the first request causes it."""
    heard: list[tuple[str, Fields]] = []

    def hear(name: str, fields: Fields) -> None:
        heard.append((name, dict(fields)))

    _, channel = await connected.connect(hear)
    await channel.call("token", **WANTED, skip_cache=False, claims=None)
    asked = len(provider.requests)
    channel.send("renew", **WANTED)
    await channel.call("readiness")
    assert [fields["retry_in"] for name, fields in heard if name == "renewal_failed"] == [20.0]
    assert len(provider.requests) == asked
    channel.send("renew", **{**WANTED, "target": "api://c.n.b/.default"})
    await provider.asked(asked + 1)


async def test_keys_readiness_and_metrics_are_answered(connected: Connected) -> None:
    """Readiness is that of the whole sidecar: no worker serves yet, one serves, draining."""
    _, channel = await connected.connect(lambda *_: None)

    async def ready_but_for_workers() -> bool:
        return bool((await channel.call("readiness"))["reason"] == "no worker is serving")

    await eventually(ready_but_for_workers)
    assert connected.process.has_started()
    assert await channel.call("keys", provider="entra_id", cause="unknown_key", kid="new", seen=1) == {
        "again": True,
        "reason": None,
    }
    channel.send("serving")
    assert (await channel.call("readiness"))["reason"] is None
    assert (await connected.process.readiness()).ready
    assert "entra_fast_workers" in (await channel.call("metrics"))["text"]
    await connected.process.begin_draining()
    assert (await channel.call("readiness"))["reason"] == "shutting down"
    channel.send("drained", finished=True)
    await channel.call("readiness")
    assert connected.workers[0].finished is True


async def test_a_signature_that_failed_with_an_older_key_set_is_verified_again(
    connected: Connected, provider: Provider
) -> None:
    """Another worker's question has brought the newer key set: nothing is fetched. A signature that failed
    with the current one costs a fetch."""
    versions: list[int] = []

    def hear(name: str, fields: Fields) -> None:
        if name == "keys":
            versions.append(fields["version"])

    _, channel = await connected.connect(hear)

    async def has_keys() -> bool:
        return bool((await channel.call("readiness"))["reason"] == "no worker is serving")

    await eventually(has_keys)
    fetched = provider.jwks_requests
    question = {"provider": "entra_id", "cause": "signature_invalid", "kid": provider.key.kid}
    again = {"again": True, "reason": None}
    assert await channel.call("keys", **question, seen=versions[-1] - 1) == again
    assert provider.jwks_requests == fetched
    assert await channel.call("keys", **question, seen=versions[-1]) == again
    assert provider.jwks_requests == fetched + 1


async def test_introspections_of_all_workers_are_judged_together(
    provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """No worker alone has rejected most of a minute's tokens often enough; together they have. A worker that
    has ended in the meantime counts as well."""
    now = 1000.0
    clocks = Clocks(wall=time.time, monotonic=lambda: now)
    process = ProviderProcess(Settings.from_environment(provider.environment(), None), clocks=clocks)
    connected = Connected(process)
    counts = {"entra_fast_introspections_total": [[["false", "entra_id"], [2]], [["true", "entra_id"], [1]]]}
    counts["entra_fast_introspections_rejected_total"] = [[["wrong_audience", "entra_id"], [2]]]
    example = {"wrong_audience": {"expected": "mine", "received": "other"}}
    answers: dict[str, Fields] = {"figures": {"figures": counts, "examples": {"entra_id": example}}}
    workers = [(await connected.connect(lambda name, _: answers.get(name)))[0] for _ in range(2)]
    for worker in workers:
        assert await process._ask_for_figures(worker, 30.0, 30.0)
    process._status_log.check()
    process.left(workers[0])
    now += 60
    caplog.clear()
    process._status_log.check()
    (fields,) = [vars(record)["fields"] for record in caplog.records if "introspections" in record.message]
    totals = {"rejected": 4, "introspections": 6}
    assert fields == {"code": "wrong_audience", **totals, **example["wrong_audience"]}
    for channel in connected.channels:
        channel.abort()
    await process.aclose()


async def test_a_worker_that_does_not_answer_checks_is_ended(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its earlier counts stay in the metrics."""
    never: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    await connected.connect(lambda name, _: never if name == "figures" else None)
    monkeypatch.setattr(provider_process, "HANG_TIMEOUT", 0.01)
    monkeypatch.setattr(provider_process, "CHECK_INTERVAL", 0.0)

    async def ended() -> bool:
        return (0, "hung") in connected.ended

    await eventually(ended)
    never.cancel()
    assert b"entra_fast_workers" in await connected.process.exposition()


async def test_a_busy_worker_may_answer_checks_late_but_not_never(
    connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that goes on shows that it does not hang; beyond any overload, only an answer does."""
    never: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
    work = itertools.count()
    monkeypatch.setattr(provider_process, "HANG_TIMEOUT", 0.01)
    monkeypatch.setattr(provider_process, "CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(provider_process, "LONGEST_SILENCE", 0.4)
    monkeypatch.setattr(provider_process, "TICK", 0.01)
    await connected.connect(lambda name, _: never if name == "figures" else None, progress=lambda: next(work))

    async def ended() -> bool:
        return (0, "hung") in connected.ended

    await eventually(ended)
    never.cancel()
    assert next(work) >= 40, "its work did not count"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("unheard of", {}),
        ("hello", {}),
        ("token", {**ASKED, "provider": 1}),
        ("token", {**ASKED, "provider": "tokenx"}),
        ("token", {**ASKED, "target": 1}),
        ("token", {**ASKED, "subject_token": 1}),
        ("token", {**ASKED, "resources": None}),
        ("token", {**ASKED, "resources": [1]}),
        ("token", {**ASKED, "authorization_details": []}),
        ("token", {**ASKED, "skip_cache": "true"}),
        ("token", {**ASKED, "claims": {}}),
        ("keys", {"provider": "tokenx", "cause": "unknown_key", "kid": None, "seen": 0}),
        ("keys", {"provider": "entra_id", "cause": "unknown_key", "kid": 1, "seen": 0}),
        ("keys", {"provider": "entra_id", "cause": "curiosity", "kid": "a", "seen": 0}),
        ("keys", {"provider": "entra_id", "cause": "unknown_key", "kid": "a", "seen": "0"}),
        ("renew", {**ASKED, "provider": "tokenx"}),
        ("drained", {"finished": None}),
        ("renew", {}),
    ],
)
async def test_a_message_that_is_not_understood_ends_the_channel(
    connected: Connected, name: str, fields: Fields
) -> None:
    """The worker runs a different program; `hello` is allowed once."""
    worker, channel = await connected.connect(lambda *_: None)
    channel.send(name, **fields)
    with pytest.raises(ChannelLost):
        await channel.call("readiness")
    assert worker.channel is not None
    assert not worker.channel.is_open


async def test_without_a_provider_nothing_is_announced_and_nothing_can_be_asked_for() -> None:
    """Workers do not ask then; one that does runs a different program."""
    process = ProviderProcess(Settings.from_environment({"AZURE_ENABLED": "false"}, None))
    connected = Connected(process)
    await process.start()
    heard: list[str] = []
    worker, channel = await connected.connect(lambda name, _: heard.append(name))
    assert heard == ["serve"]
    with pytest.raises(ChannelLost):
        await channel.call("token", **ASKED)
    worker.channel = None
    assert not await process._ask_for_figures(worker, 0.01, 0.01)
    await process.aclose()


def test_terms_of_tokens_are_bounded() -> None:
    """The oldest are forgotten; a worker that lacks such a token is not given it to keep."""
    clocks = Clocks(wall=lambda: 1000.0, monotonic=lambda: 1000.0)
    tokens = AnnouncedTokens(TokenCache(), 3, clocks, lambda _: None, lambda _: None)
    keys = [bytes([number]) * 32 for number in range(5)]
    for key in keys:
        tokens.put(key, "token", 3600.0, monotonic=1000.0)
    assert [key for key in keys if tokens.known(key, tokens.announced)] == keys[-3:]


async def test_a_worker_may_be_gone_before_its_token_comes(connected: Connected, provider: Provider) -> None:
    """The token is cached all the same, and nothing is sent to a worker without a channel."""
    worker, channel = await connected.connect(lambda *_: None)
    fields = ASKED
    asked = connected.process.handle(worker, "token", fields)
    assert isinstance(asked, Awaitable)
    channel.abort()
    worker.channel = None
    connected.process.left(worker)
    assert (await asked)["token"]
    assert len(provider.requests) == 1


async def test_a_worker_that_never_said_hello_may_leave(connected: Connected) -> None:
    """Its start has failed; the others are not affected."""
    await connected.connect(lambda *_: None)
    late, _ = await connected.connect(lambda *_: None, hello=False)
    connected.process.left(late)
    assert [worker.number for worker in connected.process.workers] == [0]


# --- what is announced, and under which terms ---


class Announcing:
    """A cache that announces, at a time that the test moves."""

    def __init__(self, limit: int = 100) -> None:
        self.now = 1000.0
        clocks = Clocks(wall=lambda: 1_800_000_000.0 + self.now, monotonic=lambda: self.now)
        self.cache = TokenCache()
        self.announced: list[Fields] = []
        self.failed: list[Fields] = []
        self.tokens = AnnouncedTokens(self.cache, limit, clocks, self.announced.append, self.failed.append)

    def put(self, number: int, **terms: object) -> bytes:
        key = bytes([number]) * 32
        self.tokens.put(key, f"token-{number}", 3600.0, monotonic=self.now, **terms)  # type: ignore[arg-type]
        return key

    def cached(self, key: bytes) -> bool:
        return self.cache.get_stale(key, monotonic=self.now, now=1_800_000_000.0 + self.now) is not None


def test_an_announcement_has_all_terms_of_its_token() -> None:
    """A worker caches it as this process does: for as long, renewed as soon, and no longer than its user's
    token."""
    here = Announcing()
    key = here.put(1, renew_in=60.0, subject_expires_at=1_800_004_000.0)
    announcement = {
        "key": key.hex(),
        "token": "token-1",
        "expires_in": 3600.0,
        "monotonic": 1000.0,
        "renew_in": 60.0,
        "subject_expires_at": 1_800_004_000.0,
    }
    assert here.announced == [announcement]
    assert here.tokens.known(key, here.tokens.announced) == announcement
    found = here.cache.get(key, monotonic=1059.9, now=1.0)
    assert found is not None
    assert (found.access_token, found.expires_in, found.renewal_due) == ("token-1", 3540, False)
    found = here.cache.get(key, monotonic=1060.0, now=1.0)
    assert found is not None
    assert found.renewal_due
    assert here.cache.get_stale(key, monotonic=1001.0, now=1_800_004_000.0) is None
    here.put(2)
    assert (here.announced[1]["renew_in"], here.announced[1]["subject_expires_at"]) == (None, None)


def test_a_renewal_that_failed_is_announced() -> None:
    """And is not due in this process either, until it may be tried again."""
    here = Announcing()
    key = here.put(1, renew_in=0.0)
    here.tokens.renewal_failed(key, monotonic=1000.0, retry_in=7.0)
    assert here.failed == [{"key": key.hex(), "monotonic": 1000.0, "retry_in": 7.0}]
    due = [here.cache.get(key, monotonic=monotonic, now=1.0) for monotonic in (1006.9, 1007.0)]
    assert [found is not None and found.renewal_due for found in due] == [False, True]


def test_only_tokens_that_were_announced_before_a_question_are_known() -> None:
    """The worker that asked reads later ones before the answer."""
    here = Announcing()
    before = here.tokens.announced
    one = here.put(1)
    between = here.tokens.announced
    two = here.put(2)
    assert (before, between) == (0, 1)
    assert [here.tokens.known(one, since) is not None for since in (before, between)] == [False, True]
    assert here.tokens.known(two, between) is None
    assert here.tokens.known(b"o" * 32, 99) is None


def test_a_token_that_has_left_the_cache_is_not_known() -> None:
    """Its terms are forgotten. One in its last seconds is still there."""
    here = Announcing()
    key = here.put(1)
    users = here.put(2, subject_expires_at=1_800_001_010.0)
    here.now += 11
    assert here.tokens.known(users, 99) is None
    assert users not in here.tokens._terms
    here.now = 1000.0 + 3599
    assert here.tokens.known(key, 99) is not None
    here.now += 1
    assert here.tokens.known(key, 99) is None


def test_the_oldest_announcement_is_forgotten_and_not_the_oldest_token() -> None:
    """One that is announced again is the newest."""
    here = Announcing(limit=2)
    one, two = here.put(1), here.put(2)
    here.put(1)
    three = here.put(3)
    assert [key for key in (one, two, three) if here.tokens.known(key, 99)] == [one, three]


def test_what_has_ended_is_swept() -> None:
    """Terms at once, and tokens a part at a time: both end at their end."""
    here = Announcing()
    key = here.put(1)
    here.now += 3599.9
    here.tokens.sweep()
    assert key in here.tokens._terms
    here.now = 4600.0
    here.tokens.sweep()
    assert here.tokens._terms == {}
    assert here.cache.stats()["entries"] == 1
    for _ in range(LOOP_PARTS):
        here.tokens.sweep_part()
    assert here.cache.stats()["entries"] == 0


async def test_an_answer_says_when_it_was_given_and_whether_it_was_cached(provider: Provider) -> None:
    """By a clock that means the same in all processes. A worker that lacks the token is told it with its
    terms before the answer; one that asked before it was announced is not told twice."""
    now = 5000.0
    clocks = Clocks(wall=time.time, monotonic=lambda: now)
    process = ProviderProcess(Settings.from_environment(provider.environment(), None), clocks=clocks)
    connected = Connected(process)
    heard: list[tuple[str, Fields]] = []
    worker, channel = await connected.connect(lambda name, fields: heard.append((name, dict(fields))))
    first = await channel.call("token", **ASKED)
    now += 7
    again = await channel.call("token", **ASKED)
    assert (first["cached"], first["at"], first["expires_in"]) == (False, 5000.0, 3600)
    assert (again["cached"], again["at"], again["expires_in"]) == (True, 5007.0, 3593)
    told = [fields for name, fields in heard if name == "token"]
    assert len(told) == 2
    assert told[0] == told[1]
    assert told[0]["monotonic"] == 5000.0
    assert told[0]["renew_in"] > 0
    assert worker.channel is not None
    for each in connected.channels:
        each.abort()
    await process.aclose()


async def test_a_worker_that_starts_is_told_everything_and_then_to_serve(connected: Connected) -> None:
    """Of each provider: its issuer, its keys or why there are none, and the cool-downs that last."""
    heard: list[tuple[str, Fields]] = []
    process = connected.process
    _, channel = await connected.connect(lambda name, fields: heard.append((name, dict(fields))))

    async def has_keys() -> bool:
        return bool((await channel.call("readiness"))["reason"] == "no worker is serving")

    await eventually(has_keys)
    process.cool_downs_changed(
        "entra_id", {Cause.UNKNOWN_KEY: 1060.0, Cause.FAILED_SIGNATURE: -math.inf, Cause.NO_KEYS: math.inf}
    )
    await channel.call("readiness")
    until = {"provider": "entra_id", "until": {"unknown_key": 1060.0}}
    assert heard[-1] == ("cool_downs", until)
    seen: list[tuple[str, Fields]] = []
    await connected.connect(lambda name, fields: seen.append((name, dict(fields))))
    names = [name for name, _ in seen]
    assert names == ["provider", "keys", "cool_downs", "serve"]
    assert seen[0][1] == {"provider": "entra_id", "issuer": process._announced["entra_id"].issuer}
    assert (seen[1][1]["provider"], seen[1][1]["reason"], seen[1][1]["version"]) == ("entra_id", None, 1)
    assert "keys" in seen[1][1]["text"]
    assert seen[2][1] == until
    assert seen[3][1] == {"began": process._start_up.began}


async def test_without_keys_a_worker_is_told_why(provider: Provider) -> None:
    """It serves all the same, and answers introspections with the reason."""
    process = ProviderProcess(Settings.from_environment(provider.environment(), None))
    connected = Connected(process)
    heard: list[tuple[str, Fields]] = []
    _, channel = await connected.connect(lambda name, fields: heard.append((name, dict(fields))))
    assert [name for name, _ in heard] == ["keys", "cool_downs", "serve"]
    keys = heard[0][1]
    assert (keys["text"], keys["version"]) == (None, 0)
    reason = process._providers.clients["entra_id"].no_keys_reason()
    assert keys["reason"] == reason
    assert await channel.call("keys", provider="entra_id", cause="unknown_key", kid=None, seen=0) == {
        "again": False,
        "reason": reason,
    }
    for each in connected.channels:
        each.abort()
    await process.aclose()


async def test_counts_of_a_worker_that_is_gone_stay_in_the_metrics(connected: Connected) -> None:
    """Its replacement has the same number, and adds to them. Counts of a worker that drains are those of its
    last message."""
    process = connected.process
    name = process.metrics.requests.name

    def figures(count: int) -> Fields:
        return {name: [[["token", "200", "entra_id"], [count]], [["exchange", "200", "entra_id"], [1]]]}

    for count in (5, 3):
        asked: Fields = {"figures": figures(count)}
        worker, channel = await connected.connect(
            lambda question, _, asked=asked: asked if question == "figures" else None  # type: ignore[misc]
        )
        worker.number = 7
        await process._ask_for_figures(worker, 30.0, 30.0)
        assert worker.figures == figures(count)
        channel.send("drained", finished=False, figures=figures(count + 1))
        await channel.call("readiness")
        assert worker.finished is False
        assert process._requests_by_worker() == {("7",): 7 if count == 5 else 12}
        process.left(worker)
        channel.send("drained", finished=True)  # without figures: those that are known stay
        await channel.call("readiness")
        assert worker.figures == figures(count + 1)
    assert process.workers == []
    text = (await process.exposition()).decode()
    assert 'entra_fast_worker_requests_total{worker="7"} 12.0' in text
    assert await process.merged()


async def test_closing_leaves_nothing_running() -> None:
    """Neither checks of workers nor sweeps."""
    before = asyncio.all_tasks()
    process = ProviderProcess(Settings.from_environment({"AZURE_ENABLED": "false"}, None))
    await process.start()
    assert process._checking is not None
    assert len(asyncio.all_tasks()) > len(before)
    await process.begin_draining()
    assert process.draining
    await process.aclose()
    assert process._checking.cancelled()
    assert asyncio.all_tasks() == before


async def test_a_key_that_a_question_has_brought_starts_no_cool_down(
    connected: Connected, provider: Provider
) -> None:
    """Only the provider can publish a key; one that it does not know starts the cool-down, for all workers.
    New keys are announced under the next number."""
    heard: list[tuple[str, Fields]] = []
    _, channel = await connected.connect(lambda name, fields: heard.append((name, dict(fields))))

    async def has_keys() -> bool:
        return bool((await channel.call("readiness"))["reason"] == "no worker is serving")

    await eventually(has_keys)
    issuers = [fields for name, fields in heard if name == "provider"]
    assert issuers == [{"provider": "entra_id", "issuer": provider.issuer}]
    new = Key.generate()
    provider.published.append(new)
    question = {"provider": "entra_id", "cause": "unknown_key"}

    def cool_down() -> object:
        return [fields["until"] for name, fields in heard if name == "cool_downs"][-1]

    assert (await channel.call("keys", **question, kid=new.kid, seen=1))["again"] is True
    assert cool_down() == {}
    versions = [
        (fields["version"], new.kid in (fields["text"] or "")) for name, fields in heard if name == "keys"
    ]
    assert versions[-1] == (2, True)
    assert (await channel.call("keys", **question, kid="stranger", seen=2))["again"] is True
    assert set(cool_down()) == {"unknown_key"}  # type: ignore[call-overload]
    assert (await channel.call("keys", **question, kid="stranger", seen=3))["again"] is False
