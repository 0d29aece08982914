"""Messages between replicas stay bounded. tests/faults/test_shared_cache.py has the same with a real
server."""

from __future__ import annotations

import asyncio

import pytest

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._provider import replication
from entra_fast._provider.renewal import RENEWAL_SPREAD, Renewals
from entra_fast._provider.replication import Replication
from entra_fast._provider.tokens import (
    CLIENT_CREDENTIALS,
    Demand,
    Fetch,
    FetchedToken,
    Leader,
    Lookup,
    TimedCache,
    Timing,
    WantedToken,
)
from entra_fast._single_flight import SingleFlight
from entra_fast.errors import ProviderError
from support import token_client


class Others:
    """Other replicas, which answer when the test says so."""

    def __init__(self) -> None:
        self.members: list[Replication] = []
        self.gate = asyncio.Event()
        self.tokens: dict[bytes, FetchedToken] = {}
        self.announced: list[bytes] = []
        self.leaders: list[Leader] = []
        self.ended: list[bool] = []
        self.stored: list[tuple[str, bool]] = []
        self.leads = True
        self.asked: set[bytes] = set()
        self.answers = True
        self.writing = False

    async def get(self, digest: bytes) -> Lookup:
        self.asked.add(digest)
        await self.gate.wait()
        return Lookup(self.tokens.get(digest), self.answers)

    def put(self, digest: bytes, token: FetchedToken, *, announce: bool) -> None:
        self.asked.add(digest)
        self.stored.append((token.access_token, announce))
        if announce:
            self.announced.append(digest)

    def is_writing(self, digest: bytes) -> bool:
        self.asked.add(digest)
        return self.writing

    async def lead(self, digest: bytes, seconds: float) -> bool:
        self.asked.add(digest)
        self.lead_seconds = seconds
        return self.leads

    async def lead_fetch(self, digest: bytes) -> tuple[Leader, FetchedToken | None]:
        self.asked.add(digest)
        return self.leaders.pop(0), self.tokens.get(digest)

    def end_lead(self, digest: bytes, *, failed: bool) -> None:
        self.asked.add(digest)
        self.ended.append(failed)


class World:
    """The second of two providers of a process: announcements are told to the first one."""

    def __init__(self) -> None:
        self.now = 1000.0
        timing = Timing(clock=lambda: 1_800_000_000.0, monotonic=lambda: self.now)
        self.others, self.metrics = Others(), Metrics()
        self.cache = TimedCache(_native.TokenCache(), timing)
        self.renewals = Renewals(self.cache, timing, lambda wanted: None)
        self.fetches: SingleFlight[bytes, FetchedToken] = SingleFlight("test")
        of_others: SingleFlight[bytes, FetchedToken] = SingleFlight("another provider")
        _, self.replication = (
            Replication(
                self.others,
                cache=self.cache,
                renewals=self.renewals,
                fetches=fetches,
                overall_timeout=5.0,
                timing=timing,
                metrics=self.metrics,
            )
            for fetches in (of_others, self.fetches)
        )

    def replace(self, number: int, lifetime: float = 3600.0) -> bytes:
        """Publish a token that was fetched with `skip_cache`."""
        key = number.to_bytes(32, "big")
        wanted = WantedToken(key, CLIENT_CREDENTIALS, "scope")
        token = FetchedToken(f"token-{number}", lifetime, self.now)
        self.replication.publish(Fetch(wanted, Demand.NEW_TOKEN), token)
        return key

    async def takes_over(self, key: bytes, age: float) -> bool:
        """Whether another replica's token replaces the cached one."""
        self.renewals.cache(key, FetchedToken("cached", 3600.0, self.now))
        self.others.tokens[key] = FetchedToken("theirs", 3600.0, self.now - age)
        self.others.gate.set()
        self.others.members[0].take_over_later(key)
        for _ in range(5):
            await asyncio.sleep(0)
        cached = self.cache.get(key)
        assert cached is not None
        return cached.access_token == "theirs"


async def test_announcements_are_followed_up_a_few_at_a_time() -> None:
    """A flood of them starts no more tasks than the limit; the others are counted as ignored."""
    world = World()
    for number in range(replication.MAX_REPLACEMENTS + 3):
        key = number.to_bytes(32, "big")
        world.renewals.cache(key, FetchedToken("cached", 3600.0, world.now))
        world.others.members[0].take_over_later(key)
    assert world.metrics.shared_announcements.value("ignored") == 3
    for member in world.others.members:
        await member.aclose()


async def test_replacements_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as an older token could return, and for a limited number of tokens."""
    monkeypatch.setattr(replication, "MAX_REPLACED", 2)
    world = World()
    first, second, third = (world.replace(number) for number in range(3))
    assert world.others.announced == [first, second, third]
    assert [await world.takes_over(key, age=60.0) for key in (first, second, third)] == [True, False, False]
    world.now += 3600
    fourth = world.replace(4)
    assert len(world.replication._replaced) == 1  # the others' tokens have ended
    assert not await world.takes_over(fourth, age=60.0)
    assert await world.takes_over(fourth, age=0.0)


async def test_a_token_that_has_ended_is_not_published() -> None:
    """An answer of the provider may arrive later than that; replicas that wait for it ask themselves."""
    world = World()
    world.replace(1, lifetime=0.0)
    assert (world.others.announced, world.others.stored, world.others.ended) == ([], [], [True])


async def test_a_users_renewal_may_be_left_to_another() -> None:
    """It is due again soon; it is not renewed unasked."""
    world = World()
    key = b"k" * 32
    world.renewals.cache(key, FetchedToken("cached", 3600.0, world.now))
    world.now += 2900
    assert (found := world.cache.get(key)) is not None
    assert found.renewal_due
    world.renewals.left_to_another(WantedToken(key, "on_behalf_of", "scope", "user", 2e9))
    assert (found := world.cache.get(key)) is not None
    assert not found.renewal_due
    assert len(world.renewals) == 0
    world.now += 5
    assert (found := world.cache.get(key)) is not None
    assert found.renewal_due


async def test_a_replacement_waits_for_a_fetch_in_flight() -> None:
    """What is being fetched may be the old token, and is replaced then."""
    world = World()
    key = world.replace(1)
    brought = asyncio.Event()

    async def fetch() -> FetchedToken:
        await brought.wait()
        return FetchedToken("old", 3600.0, world.now)

    world.fetches.start(key, fetch)
    world.renewals.cache(key, FetchedToken("cached", 3600.0, world.now))
    world.others.tokens[key] = FetchedToken("theirs", 3600.0, world.now)
    world.others.gate.set()
    world.others.members[0].take_over_later(key)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (found := world.cache.get(key)) is not None
    assert found.access_token == "cached"
    brought.set()
    for _ in range(9):
        await asyncio.sleep(0)
    assert (found := world.cache.get(key)) is not None
    assert found.access_token == "theirs"


# --- a token client with replicas ---


def client_with(others: Others) -> token_client.World:
    others.gate.set()
    return token_client.World(replicas=others)


async def test_a_token_that_was_fetched_is_offered_to_the_others() -> None:
    """It replaces theirs if it was asked for as a new one, with or without a challenge."""
    others = Others()
    others.leaders = [Leader.THIS]
    world = client_with(others)
    await world.client.acquire("a:b:c")
    await world.client.acquire("a:b:c", skip_cache=True)
    await world.client.acquire("a:b:c", claims="{}")
    assert others.stored == [("token-1", False), ("token-2", True), ("token-3", True)]
    assert others.ended == []


async def test_a_fetch_that_fails_ends_its_lead() -> None:
    """The others are told so if the provider has refused, and not if this replica was just stopped; a
    challenge has no lead to end."""
    others = Others()
    others.leaders = [Leader.THIS, Leader.THIS]
    world = client_with(others)
    world.http.script = [token_client.failed(400), token_client.failed(400)]
    for claims in (None, "{}"):
        with pytest.raises(ProviderError):
            await world.client.acquire("a:b:c", claims=claims)
    assert others.ended == [True]
    world.http.gate = asyncio.Event()
    caller = asyncio.ensure_future(world.client.acquire("a:b:other"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(world.http.forms) == 3
    await world.client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert others.ended == [True, False]


async def test_a_token_that_must_not_be_kept_is_not_offered() -> None:
    """That of a user whose token's end is unknown: replicas that wait for it ask for themselves."""
    others = Others()
    world = client_with(others)
    await world.client.exchange("a:b:c", "opaque")
    assert (others.stored, others.ended) == ([], [True])


async def test_a_token_that_was_overtaken_is_not_offered() -> None:
    """One that meets a challenge was requested later and came earlier; another replica may lead now."""
    others = Others()
    others.leaders = [Leader.THIS]
    world = client_with(others)
    world.http.gate = slow = asyncio.Event()
    plain = asyncio.ensure_future(world.client.acquire("a:b:c"))
    for _ in range(10):
        await asyncio.sleep(0)
    world.pass_time(1)
    world.http.gate = None
    await world.client.acquire("a:b:c", claims="{}")
    slow.set()
    await plain
    assert others.stored == [("token-2", True)]
    assert others.ended == [False]


async def test_a_renewal_that_is_left_to_another_is_neither_counted_nor_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is checked soon whether the other one has made it, and this replica asks nobody meanwhile."""
    others = Others()
    others.leaders = [Leader.THIS]
    world = client_with(others)
    await world.client.acquire("a:b:c")
    others.leads = False
    world.client.renew("a:b:c")
    await world.settle()
    assert len(world.http.forms) == 1
    assert others.lead_seconds == 6.0  # what the provider may take, and a reserve
    assert [world.metrics.renewals.value(outcome, "entra_id") for outcome in ("ok", "failed")] == [0, 0]
    assert caplog.records == []
    assert world.later.due[-1][0] == 3.5
    others.leads = True
    world.client.renew("a:b:c")
    await world.settle()
    assert world.metrics.renewals.value("ok", "entra_id") == 1
    world.http.script = [token_client.failed(400)]
    world.client.renew("a:b:c")
    await world.settle()
    assert world.metrics.renewals.value("failed", "entra_id") == 1


async def test_another_replicas_token_answers_but_not_where_a_new_one_is_asked_for() -> None:
    """Without a request to the provider; `skip_cache` and challenges look at nobody's tokens."""
    others = Others()
    world = client_with(others)
    others.tokens[world.token_key()] = FetchedToken("theirs", 3600.0, world.monotonic - 60)
    token = await world.client.acquire("a:b:c")
    assert (token.access_token, token.expires_in, world.http.forms) == ("theirs", 3540, [])
    assert (await world.client.acquire("a:b:c", claims="{}")).access_token == "token-1"
    assert (await world.client.acquire("a:b:c", skip_cache=True)).access_token == "token-2"


async def test_a_caller_that_joins_raises_what_is_asked_for() -> None:
    """The shared cache is being asked for any token when a new one is wanted: what it has does not do then,
    for either of them."""
    others = Others()
    world = token_client.World(replicas=others)
    others.tokens[world.token_key()] = FetchedToken("theirs", 3600.0, world.monotonic - 60)
    calls = []
    for skip_cache in (False, True, False):
        calls.append(asyncio.ensure_future(world.client.acquire("a:b:c", skip_cache=skip_cache)))
        await asyncio.sleep(0)
    others.gate.set()
    assert {token.access_token for token in await asyncio.gather(*calls)} == {"token-1"}
    assert len(world.http.forms) == 1
    assert others.stored == [("token-1", True)]


async def test_closing_ends_what_replicas_have_announced() -> None:
    """No task is left behind."""
    others = Others()
    world = token_client.World(replicas=others)
    world.cache.put(b"k" * 32, "token", 3600, monotonic=world.monotonic)
    others.members[0].take_over_later(b"k" * 32)
    await asyncio.sleep(0)
    assert world.client._replication is not None
    assert len(world.client._replication._replacements) == 1
    await world.client.aclose()
    await asyncio.sleep(0)
    assert len(world.client._replication._replacements) == 0


async def test_the_clients_cached_token_is_replaced_by_another_replicas() -> None:
    """After what this one is fetching itself has come, which may be the older token."""
    others = Others()
    others.leaders = [Leader.THIS]
    world = client_with(others)
    await world.client.acquire("a:b:c")
    world.http.gate = asyncio.Event()
    fetching = asyncio.ensure_future(world.client.acquire("a:b:c", skip_cache=True))
    for _ in range(5):
        await asyncio.sleep(0)
    world.pass_time(1)
    others.tokens[world.token_key()] = FetchedToken("theirs", 3600.0, world.monotonic)
    others.members[0].take_over_later(world.token_key())
    for _ in range(5):
        await asyncio.sleep(0)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    world.http.gate.set()
    assert (await fetching).access_token == "token-2"
    for _ in range(9):
        await asyncio.sleep(0)
    assert (await world.client.acquire("a:b:c")).access_token == "theirs"
    assert world.metrics.shared_announcements.value("adopted") == 1


# --- following another replica ---


async def test_a_follower_looks_again_and_again_until_it_is_to_lead() -> None:
    """After pauses that are doubled to a fifth of a second; everything is about one token."""
    others = Others()
    others.leaders = [Leader.ANOTHER] * 6 + [Leader.THIS]
    world = client_with(others)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert world.pauses == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.2, 0.2])
    assert others.asked == {world.token_key()}
    world.http.script = [token_client.failed(400)]
    others.leaders = [Leader.THIS]
    with pytest.raises(ProviderError):
        await world.client.acquire("a:b:d")
    assert (others.ended, len(others.asked)) == ([True], 2)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (1.0, 1.5)])
async def test_followers_do_not_look_in_step(chance: float, share: float) -> None:
    """Each pause is up to a half shorter or longer."""
    others = Others()
    others.gate.set()
    others.leaders = [Leader.ANOTHER, Leader.NONE]
    world = token_client.World(replicas=others, uniform=lambda low, high: low + chance * (high - low))
    await world.client.acquire("a:b:c")
    assert world.pauses == pytest.approx([0.02 * share])


async def test_a_follower_waits_two_seconds_and_then_asks_itself() -> None:
    """A leader that is slower may be stuck."""
    others = Others()
    others.leaders = [Leader.ANOTHER] * 100
    world = client_with(others)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert 1.8 < sum(world.pauses) <= 2.0
    assert others.ended == []


@pytest.mark.parametrize(
    ("leader", "ended"), [(Leader.ANOTHER, []), (Leader.THIS, [False]), (Leader.NONE, [])]
)
async def test_the_token_of_the_leader_is_taken(leader: Leader, ended: list[bool]) -> None:
    """As soon as it is there. A lead that this replica has just got then ends at once, for the others."""
    others = Others()
    others.leaders = [leader]
    world = client_with(others)
    get = others.get

    async def stored_meanwhile(digest: bytes) -> Lookup:
        found = await get(digest)
        others.tokens[digest] = FetchedToken("theirs", 3600.0, world.monotonic)
        return found

    others.get = stored_meanwhile  # type: ignore[method-assign]
    assert (await world.client.acquire("a:b:c")).access_token == "theirs"
    assert (world.http.forms, others.ended, world.pauses) == ([], ended, [])


async def test_a_follower_of_whom_a_new_token_is_asked_asks_itself() -> None:
    """What the leader fetches may be older than the request. A lead that comes meanwhile is given up."""
    others = Others()
    world = client_with(others)
    joined: list[asyncio.Future[object]] = []

    async def lead_fetch(digest: bytes) -> tuple[Leader, FetchedToken | None]:
        joined.append(asyncio.ensure_future(world.client.acquire("a:b:c", skip_cache=True)))
        await asyncio.sleep(0)
        return Leader.THIS, FetchedToken("theirs", 3600.0, world.monotonic)

    others.lead_fetch = lead_fetch  # type: ignore[method-assign]
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert others.ended == [False]
    assert others.stored == [("token-1", True)]
    await asyncio.gather(*joined)
    assert len(world.http.forms) == 1


async def test_where_the_server_cannot_be_asked_nobody_is_followed() -> None:
    """The replica asks the provider at once."""
    others = Others()
    others.answers = False
    world = client_with(others)
    assert (await world.client.acquire("a:b:c")).access_token == "token-1"
    assert world.pauses == []


# --- which tokens of others will do ---


@pytest.mark.parametrize(
    ("age", "answers"), [(0.0, True), (3479.0, True), (3480.0, False), (3599.0, False), (3600.0, False)]
)
async def test_a_token_in_its_last_minutes_is_only_a_reserve(age: float, answers: bool) -> None:
    """Another replica's token answers as long as this one would use its own; later only if the provider
    fails."""
    others = Others()
    others.leaders = [Leader.NONE] * 2
    world = client_with(others)
    others.tokens[world.token_key()] = FetchedToken("theirs", 3600.0, world.monotonic - age)
    world.http.script = [token_client.failed(400)] * 4
    if age < 3600:
        token = await world.client.acquire("a:b:c")
        assert (token.access_token, token.cached) == ("theirs", not answers)
        assert (world.http.forms == []) is answers
    else:
        with pytest.raises(ProviderError):
            await world.client.acquire("a:b:c")


async def test_a_renewal_wants_a_token_that_is_younger_than_the_due_one() -> None:
    """One whose renewal would be due here as well is no renewal."""
    for age, renewed in ((RENEWAL_SPREAD[0] * 3480 - 1, True), (RENEWAL_SPREAD[0] * 3480, False)):
        others = Others()
        others.leaders = [Leader.THIS]
        world = client_with(others)
        await world.client.acquire("a:b:c")
        world.pass_time(3000)
        others.tokens[world.token_key()] = FetchedToken("theirs", 3600.0, world.monotonic - age)
        world.client.renew("a:b:c")
        await world.settle()
        assert (len(world.http.forms) == 1) is renewed
        found = (await world.client.acquire("a:b:c")).access_token
        assert found == ("theirs" if renewed else "token-2")


async def test_what_is_being_written_here_is_newer_than_an_announcement() -> None:
    """Nothing is read then, or what was read is not taken."""
    world = World()
    world.others.writing = True
    assert not await world.takes_over(b"k" * 32, age=0.0)
    assert world.metrics.shared_announcements.value("ignored") == 1
    world.others.writing = False
    assert not await world.takes_over(world.replace(1), age=1.0)
    assert await world.takes_over(b"o" * 32, age=0.0)
    assert world.metrics.shared_announcements.value("adopted") == 1


async def test_an_announcement_of_a_token_that_is_not_here_is_ignored() -> None:
    """It is read when it is needed."""
    world = World()
    world.others.gate.set()
    world.others.members[0].take_over_later(b"k" * 32)
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.metrics.shared_announcements.value("ignored") == 1
    assert b"k" * 32 not in {*world.others.tokens}
    assert world.others.members[0]._replacements == set()
