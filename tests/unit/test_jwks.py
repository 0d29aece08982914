"""When keys are fetched: the schedule with time as an argument, and the two owners that follow it."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import logging
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpResponse, shown_url
from entra_fast._provider.jwks import WOKEN_PER_ROUND, AsyncKeys, ThreadKeys, Waiters, read_key_set
from entra_fast._provider.jwks_schedule import Cause, KeySchedule, RefreshRules, max_age_of
from entra_fast.errors import ConfigurationError, KeysUnavailable
from entra_fast.validate import InvalidToken, KeySet, Validator
from support.key_server import KEYS_PATH, Answer, KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, Clock, jwks, signer

RULES = RefreshRules()
GOOD = jwks(signer())

# --- the schedule ----------------------------------------------------------------------------------------


def test_the_first_fetch_is_due_at_once() -> None:
    """A new schedule is due, and any caller that needs a key may fetch."""
    schedule = KeySchedule(RULES)
    assert schedule.next_refresh <= -1e18
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 0)
    assert not schedule.expired(1e9)


def test_the_times_of_the_schedule() -> None:
    """By default, as documented: hourly, not more often than every five minutes, retries after a second to a
    minute, a day until keys are discarded, ten seconds of waiting."""
    rules = RefreshRules()
    assert (rules.interval, rules.min_interval, rules.cool_down) == (3600, 300, 300)
    assert (rules.first_retry, rules.last_retry) == (1, 60)
    assert (rules.max_age, rules.max_wait) == (86_400, 10)


@pytest.mark.parametrize(
    ("max_age", "interval"),
    [(None, 3600), (600, 600), (300, 300), (299, 300), (0, 300), (3600, 3600), (86_400, 3600)],
)
def test_interval_after_success(max_age: float | None, interval: float) -> None:
    """Hourly; sooner where Cache-Control says so, but never more often than every five minutes."""
    schedule = KeySchedule(RULES)
    schedule.succeeded(1000, max_age, jitter=0)
    assert schedule.next_refresh == 1000 + interval
    schedule.succeeded(1000, max_age, jitter=1)
    assert schedule.next_refresh == pytest.approx(1000 + max(300, 0.9 * interval))


def test_pauses_after_failures() -> None:
    """1, 2, 4 ... 60 seconds, without end; a success resets the pause. Jitter shortens a pause to half at
    most."""
    schedule = KeySchedule(RULES)
    pauses = []
    for _ in range(2000):
        schedule.failed(500, jitter=0)
        pauses.append(schedule.next_refresh - 500)
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[7:]) == {60}
    schedule.succeeded(500, None, jitter=0)
    schedule.failed(500, jitter=1)
    assert schedule.next_refresh == 500.5


def test_age_of_the_last_good_set() -> None:
    """A set is discarded a day after it was fetched, whatever failed in between."""
    schedule = KeySchedule(RULES)
    schedule.succeeded(0, None, 0)
    for now in range(0, 86_400, 600):
        schedule.failed(now, 0)
        assert not schedule.expired(now)
    assert not schedule.expired(86_400)
    assert schedule.expired(86_400.1)
    schedule.succeeded(90_000, None, 0)
    assert not schedule.expired(90_001)


def test_cool_down_for_unknown_keys() -> None:
    """After one refresh for an unknown `kid` the next waits five minutes, unless it brought the key."""
    schedule = KeySchedule(RULES)
    schedule.succeeded(0, None, 0)
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 10)
    assert not any(schedule.claim_fetch(Cause.UNKNOWN_KEY, now) for now in (10, 11, 100, 309.9))
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 310)
    schedule.key_was_found(Cause.UNKNOWN_KEY)
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 311)
    schedule.failed(312, 0)  # an attempt counts even if it fails
    assert not schedule.claim_fetch(Cause.UNKNOWN_KEY, 313)


def test_causes_have_cool_downs_of_their_own() -> None:
    """What unknown ids have spent is still there for failed signatures, and the other way round."""
    schedule = KeySchedule(RULES)
    schedule.succeeded(0, None, 0)
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 10)
    assert schedule.claim_fetch(Cause.FAILED_SIGNATURE, 20)
    assert not any(schedule.claim_fetch(cause, 21) for cause in (Cause.UNKNOWN_KEY, Cause.FAILED_SIGNATURE))
    assert [schedule.cool_down_ends(cause) for cause in (Cause.UNKNOWN_KEY, Cause.FAILED_SIGNATURE)] == [
        310,
        320,
    ]
    schedule.key_was_found(Cause.FAILED_SIGNATURE)
    assert schedule.claim_fetch(Cause.FAILED_SIGNATURE, 22)
    assert not schedule.claim_fetch(Cause.UNKNOWN_KEY, 22)


def test_asking_without_any_keys() -> None:
    """As long as there never were keys, requests may fetch when the pause after a failure is over."""
    schedule = KeySchedule(RULES)
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 0)
    schedule.failed(0, 0)
    assert not schedule.claim_fetch(Cause.UNKNOWN_KEY, 0.9)
    assert schedule.claim_fetch(Cause.UNKNOWN_KEY, 1)


@pytest.mark.parametrize(
    ("header", "age"),
    [
        ("", None),
        ("max-age=600", 600),
        ("public, max-age=86400", 86_400),
        ("MAX-AGE=5,public", 5),
        ("private,max-age=7; x", 7),
        ("s-maxage=600", None),
        ("x-max-age=600", None),
        ("max-age=-1", None),
        ("max-age=1.5", None),
        ("max-age=abc", None),
        ("max-age=", None),
        ("max-age=9999999999999", None),
        ("max-age=\u0663", None),
        ("no-store", None),
    ],
)
def test_cache_control(header: str, age: float | None) -> None:
    """`max-age` is read strictly, and what cannot be read counts as absent (RFC 9111, section 5.2.2.1)."""
    assert max_age_of(header) == age


def test_reading_an_answer() -> None:
    """Only a 200 with a usable key is a key set."""
    url = "https://keys.example:8443/a/keys?secret=canary"

    def read(status: int, body: bytes) -> KeySet:
        return read_key_set(url, HttpResponse(status, {}, body))

    assert read(200, GOOD.encode()).kids == ("key-1",)
    for status, body, sentence in (
        (
            503,
            GOOD.encode(),
            "the key set endpoint https://keys.example:8443/a/keys answered 503 instead of 200",
        ),
        (
            400,
            b'{"error":"invalid_tenant","error_description":"AADSTS90002: Tenant \'canary\' not found."}',
            "the key set endpoint https://keys.example:8443/a/keys answered 400 instead of 200 (AADSTS90002)",
        ),
        (200, b'{"keys":[]}', "key set is empty (https://keys.example:8443/a/keys)"),
    ):
        with pytest.raises(KeysUnavailable) as caught:
            read(status, body)
        assert caught.value.message == sentence


def test_a_url_in_a_sentence_is_bounded() -> None:
    """Whatever is configured."""
    assert shown_url(f"https://keys.example/{'a' * 500}") == f"https://keys.example/{'a' * 179}..."


# --- threads ---------------------------------------------------------------------------------------------


class Source:
    """What `ThreadKeys` fetches from: a function that a test controls."""

    def __init__(self, body: str = GOOD, cache_control: str = "") -> None:
        self.answer: HttpResponse | Exception = HttpResponse(
            200, {"Cache-Control": cache_control}, body.encode()
        )
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, url: str) -> HttpResponse:
        self.calls += 1
        self.entered.release()
        assert self.gate.wait(60)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def accepted() -> list[KeySet | None]:
    return []


MakeKeys = Callable[..., ThreadKeys]


@pytest.fixture
def make_keys(source: Source, accepted: list[KeySet | None]) -> Iterator[MakeKeys]:
    made: list[ThreadKeys] = []

    def make(**options: Any) -> ThreadKeys:
        rules = RefreshRules(first_retry=3600, last_retry=3600)
        made.append(ThreadKeys("https://x/keys", source, accepted.append, **{"rules": rules, **options}))
        return made[-1]

    yield make
    source.gate.set()
    for keys in made:
        keys.close()


def test_refreshing_in_a_thread(make_keys: MakeKeys, source: Source, accepted: list[KeySet | None]) -> None:
    """A refresh hands the new set over, and each one replaces the last."""
    clock = Clock(0)
    keys = make_keys(monotonic=clock)
    assert keys.stats()["key_set_age_seconds"] == -1
    keys.refresh()
    source.answer = HttpResponse(200, {}, jwks(signer(), signer("weak", bits=1024)).encode())
    clock.now = 7
    keys.refresh()
    assert [each.kids for each in accepted if each] == [("key-1",), ("key-1",)]
    clock.now = 10
    assert keys.stats() == {
        "keys": 1,
        "keys_dropped": 1,
        "keys_ambiguous": 0,
        "key_fetches": 2,
        "key_fetch_failures": 0,
        "key_set_age_seconds": 3,
    }


def test_a_provider_may_want_its_keys_refreshed_sooner(make_keys: MakeKeys, source: Source) -> None:
    """Than hourly: the answer says for how long it is fresh (RFC 9111, section 5.2.2.1)."""
    source.answer = HttpResponse(200, {"Cache-Control": "max-age=600"}, GOOD.encode())
    keys = make_keys(monotonic=Clock(0))
    keys.refresh()
    assert 540 <= keys.schedule.next_refresh <= 600


def test_entries_that_are_ignored_are_reported(
    make_keys: MakeKeys, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """Different keys under one `kid` and unusable keys are counted apart, each in a warning of its own."""
    same = (signer("same"), signer("same", bits=3072))
    source.answer = HttpResponse(200, {}, jwks(signer(), *same, signer("weak", bits=1024)).encode())
    make_keys().refresh()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "ignored 2 entries of the key set that share their kid with a different key"),
        ("WARNING", "ignored 1 unusable entries of the key set"),
    ]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (KeysUnavailable("keys_unavailable", "fetching failed: it timed out"), "it timed out"),
        (ConfigurationError("setting_invalid", "a sentence"), "a sentence"),
        (RuntimeError("token bytes"), "fetching failed with RuntimeError"),
        (HttpResponse(500, {}, b""), "answered 500"),
    ],
    ids=repr,
)
def test_a_refresh_that_fails(
    failure: HttpResponse | Exception,
    reason: str,
    make_keys: MakeKeys,
    source: Source,
    accepted: list[KeySet | None],
) -> None:
    """It never raises; the reason is available, and known keys stay known."""
    keys = make_keys()
    assert str(keys.unavailable()).endswith("they have not been fetched yet")
    keys.refresh()
    source.answer = failure
    keys.refresh()
    assert reason in str(keys.unavailable())
    assert "token bytes" not in str(keys.unavailable())
    assert len(accepted) == 1
    assert keys.keys is not None
    assert keys.stats()["key_fetch_failures"] == 1
    source.answer = HttpResponse(200, {}, GOOD.encode())
    keys.refresh()
    assert (keys.error, len(accepted)) == (None, 2)


def test_a_long_outage_is_a_short_log(
    make_keys: MakeKeys, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    """A day of failed refreshes, one a minute: a few lines, and one when it is over."""
    caplog.set_level(logging.INFO, "entra_fast")
    keys = make_keys()
    source.answer = HttpResponse(500, {}, b"")
    for _ in range(1440):
        keys.refresh()
    assert len(caplog.records) == 11
    assert keys.stats()["key_fetch_failures"] == 1440
    source.answer = HttpResponse(200, {}, GOOD.encode())
    keys.refresh()
    keys.refresh()
    assert [record.getMessage() for record in caplog.records[11:]] == [
        "key set refreshed after 1440 failures"
    ]


def test_one_fetch_at_a_time(make_keys: MakeKeys, source: Source) -> None:
    """Every caller that asks while a fetch is in flight waits for that one."""
    keys = make_keys()
    source.gate.clear()
    keys.start()
    assert source.entered.acquire(timeout=60)
    results: list[bool] = []
    askers = [
        threading.Thread(target=lambda: results.append(keys.refresh_for(Cause.UNKNOWN_KEY, "x")))
        for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    source.gate.set()
    for asker in askers:
        asker.join(60)
    assert all(results[:1])  # callers during the fetch; later ones may get False
    assert source.calls <= 2


def test_a_key_that_came_meanwhile(make_keys: MakeKeys, source: Source) -> None:
    """A key that another fetch has just brought costs no fetch, and does not lift the cool-down."""
    keys = make_keys()
    keys.refresh()
    assert keys.refresh_for(Cause.UNKNOWN_KEY, "stranger")
    assert source.calls == 2
    for _ in range(3):
        assert keys.refresh_for(Cause.UNKNOWN_KEY, "key-1")
        assert not keys.refresh_for(Cause.UNKNOWN_KEY, "stranger")
    assert source.calls == 2


def test_a_key_that_was_published_after_a_refresh_began(accepted: list[KeySet | None]) -> None:
    """Its tokens arrive while an answer without it is under way: they are not rejected for that, and one more
    fetch serves all of them."""
    began, written = threading.Event(), threading.Event()
    calls: list[str] = []

    def fetch_keys(url: str) -> HttpResponse:
        calls.append(url)
        if len(calls) == 2:
            began.set()
            assert written.wait(60)
        known = jwks(signer(), signer("key-2")) if len(calls) > 2 else GOOD
        return HttpResponse(200, {}, known.encode())

    rules = RefreshRules(first_retry=3600, last_retry=3600)
    keys = ThreadKeys("https://x/keys", fetch_keys, accepted.append, rules=rules)
    keys.refresh()
    with ThreadPoolExecutor(9) as pool:
        hourly = pool.submit(keys.refresh)
        assert began.wait(60)

        def verifies() -> bool:
            asked_again = keys.refresh_for(Cause.UNKNOWN_KEY, "key-2")
            return asked_again and keys.keys is not None and "key-2" in keys.keys.kids

        waiting = [pool.submit(verifies) for _ in range(8)]
        written.set()
        hourly.result()
        assert all(one.result() for one in waiting)
    assert keys.keys is not None
    assert "key-2" in keys.keys.kids
    assert len(calls) == 3
    keys.close()


def test_background_refresh(source: Source, accepted: list[KeySet | None]) -> None:
    """Without any caller, the set is fetched repeatedly."""
    rules = RefreshRules(interval=0.001, min_interval=0.0)
    keys = ThreadKeys("https://x/keys", source, accepted.append, rules=rules)
    keys.start()
    for _ in range(5):
        assert source.entered.acquire(timeout=60)
    keys.close()
    assert len(accepted) >= 4


def test_closed_keys_wait_for_nothing(make_keys: MakeKeys, source: Source) -> None:
    """After `close` nothing is fetched, so no caller waits."""
    keys = make_keys(rules=RefreshRules(max_wait=1e6))
    keys.close()
    keys.start()
    assert not keys.refresh_for(Cause.UNKNOWN_KEY, "x")
    keys.refresh()
    keys.run()  # by a shared thread that `close` came too late for, as the next one
    keys._fetch()
    assert (source.calls, keys.fetches, keys.error) == (0, 0, None)


def test_nothing_is_due_while_a_fetch_is_in_flight(make_keys: MakeKeys, source: Source) -> None:
    """Its end makes the shared thread ask again; then it is due by the schedule, and never after `close`."""
    clock = Clock(1000)
    keys = make_keys(monotonic=clock)
    assert keys.due_in() == -math.inf
    source.gate.clear()
    keys.run()
    assert source.entered.acquire(timeout=60)
    assert keys.due_in() == math.inf
    keys.run()  # nothing more is fetched
    source.gate.set()
    keys.refresh()
    assert source.calls == 1
    due = keys.due_in()
    assert due is not None
    assert due == keys.schedule.next_refresh - 1000
    clock.now += 100
    assert keys.due_in() == pytest.approx(due - 100)
    keys.close()
    assert keys.due_in() is None


def test_waiting_is_bounded(make_keys: MakeKeys, source: Source) -> None:
    """A fetch that hangs does not hold its callers forever; it continues without them."""
    keys = make_keys(rules=RefreshRules(max_wait=0.01))
    source.gate.clear()
    keys.refresh()
    assert keys.keys is None
    source.gate.set()


def test_dropped_keys_are_not_fetched_any_more(source: Source) -> None:
    """The shared threads do not keep an unused object alive, and end without it."""
    keys = ThreadKeys(
        "https://x/keys", source, lambda _: None, rules=RefreshRules(interval=0.001, min_interval=0)
    )
    keys.start()
    assert source.entered.acquire(timeout=60)
    dropped = weakref.ref(keys)
    del keys
    deadline = time.monotonic() + 60
    while dropped() is not None:  # a fetch that is in flight holds it
        assert time.monotonic() < deadline
        gc.collect()
    fetched = source.calls
    time.sleep(0.01)
    assert source.calls == fetched


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork() -> None:
    """A child process has its own thread: it notices a withdrawn key without meeting an unknown one."""
    with KeyServer(GOOD) as server:
        rules = RefreshRules(interval=0.02, min_interval=0.0)
        one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW, refresh=rules)
        with one:
            token = signer().token()
            one.validate(token)
            server.hold()  # nothing reaches the child but what it fetches itself
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                outcome = b"never refused"
                signal.alarm(60)  # ends this process if nothing else does
                try:
                    one.validate(token)
                    os.write(writing, b"accepted, ")
                    while True:
                        one.validate(token)
                except InvalidToken as error:
                    outcome = error.code.encode()
                finally:
                    os.write(writing, outcome)
                    os._exit(0)
            os.close(writing)
            assert os.read(reading, 10) == b"accepted, "
            server.publish(jwks(signer("key-2")))
            server.release()
            said = os.read(reading, 100)
            os.close(reading)
            assert os.waitpid(child, 0) == (child, 0)
            assert said == b"unknown_key"


# --- an event loop ---------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(GOOD) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


@pytest.fixture
async def keys(
    server: KeyServer, http: HttpClient, accepted: list[KeySet | None]
) -> AsyncIterator[AsyncKeys]:
    rules = RefreshRules(first_retry=3600, last_retry=3600)
    one = AsyncKeys(server.keys_url, http, accepted.append, rules=rules)
    yield one
    await one.aclose()


async def test_refreshing_on_a_loop(
    keys: AsyncKeys, server: KeyServer, accepted: list[KeySet | None]
) -> None:
    """Concurrent callers share one fetch, and a failure keeps the last good set."""
    await asyncio.gather(*(keys.refresh() for _ in range(20)))
    assert (server.fetches(), len(accepted)) == (1, 1)
    server.fail(Answer(status=500))
    await keys.refresh()
    assert (len(accepted), keys.fetch_failures) == (1, 1)
    assert "answered 500" in str(keys.unavailable())


async def test_a_provider_may_want_its_keys_refreshed_sooner_on_a_loop(
    keys: AsyncKeys, server: KeyServer
) -> None:
    """As with threads; without the header, hourly."""
    await keys.refresh()
    assert 3240 <= keys.schedule.next_refresh - keys._monotonic() <= 3600
    server.answers[KEYS_PATH] = Answer(GOOD, headers={"Cache-Control": "public, max-age=600"})
    await keys.refresh()
    assert 500 <= keys.schedule.next_refresh - keys._monotonic() <= 600
    assert keys.text == GOOD.encode()
    assert keys.outcomes == {"ok": 2}


async def test_a_key_that_came_meanwhile_on_a_loop(keys: AsyncKeys, server: KeyServer) -> None:
    """As with threads."""
    await keys.refresh()
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, "stranger")
    for _ in range(3):
        assert await keys.refresh_for(Cause.UNKNOWN_KEY, "key-1")
        assert not await keys.refresh_for(Cause.UNKNOWN_KEY, "stranger")
    assert server.fetches() == 2


async def test_a_key_that_was_published_after_a_refresh_began_on_a_loop(
    keys: AsyncKeys, server: KeyServer
) -> None:
    """As with threads; and a stranger's token costs no further fetch."""
    began, written = threading.Event(), threading.Event()

    def answer() -> Answer:
        began.set()
        assert written.wait(60)
        return Answer(GOOD)

    await keys.refresh()
    server.answers[KEYS_PATH] = answer
    hourly = asyncio.ensure_future(keys.refresh())
    assert await asyncio.to_thread(began.wait, 60)
    server.publish(jwks(signer(), signer("key-2")))

    async def verifies() -> bool:
        asked_again = await keys.refresh_for(Cause.UNKNOWN_KEY, "key-2")
        return asked_again and keys.keys is not None and "key-2" in keys.keys.kids

    waiting = [asyncio.ensure_future(verifies()) for _ in range(8)]
    stranger = asyncio.ensure_future(keys.refresh_for(Cause.UNKNOWN_KEY, "stranger"))
    await asyncio.sleep(0)
    written.set()
    assert await asyncio.gather(*waiting, stranger) == [True] * 9
    await hourly
    assert keys.keys is not None
    assert "key-2" in keys.keys.kids
    assert server.fetches() == 3


async def test_joining_a_refresh_gets_around_no_cool_down_on_a_loop(
    keys: AsyncKeys, server: KeyServer
) -> None:
    """A stranger's token that arrives during a refresh may cause one fetch after it, and the next stranger's
    none: it is verified with what the refresh has brought."""
    await keys.refresh()
    for fetches in (3, 4):
        asked = server.fetches()
        server.hold()
        hourly = asyncio.ensure_future(keys.refresh())
        await asyncio.to_thread(server.wait_for_fetches, asked + 1)
        stranger = asyncio.ensure_future(keys.refresh_for(Cause.UNKNOWN_KEY, "stranger"))
        await asyncio.sleep(0)
        server.release()
        assert await stranger
        await hourly
        assert server.fetches() == fetches


def test_joining_a_refresh_gets_around_no_cool_down(make_keys: MakeKeys, source: Source) -> None:
    """As on a loop."""
    keys = make_keys()
    keys.refresh()
    with ThreadPoolExecutor(1) as pool:
        for calls in (3, 4):
            source.gate.clear()
            while source.entered.acquire(blocking=False):
                pass
            keys.run()
            assert source.entered.acquire(timeout=60)
            stranger = pool.submit(keys.refresh_for, Cause.UNKNOWN_KEY, "stranger")
            while not keys._changed._waiters:  # type: ignore[attr-defined]
                time.sleep(0.001)
            source.gate.set()
            assert stranger.result(60)
            assert source.calls == calls


def test_each_fetch_is_counted_by_its_outcome(make_keys: MakeKeys, source: Source) -> None:
    """For callers that have passed a callback, and in the figures of the object."""
    counted: list[str] = []
    keys = make_keys(counted=counted.append)
    keys.refresh()
    source.answer = ConfigurationError("setting_invalid", "a sentence")
    keys.refresh()
    source.answer = HttpResponse(500, {}, b"")
    keys.refresh()
    assert counted == ["ok", "setting_invalid", "keys_unavailable"]
    assert keys.outcomes == {"ok": 1, "setting_invalid": 1, "keys_unavailable": 1}


async def test_who_watches_hears_when_asking_is_pointless(keys: AsyncKeys, server: KeyServer) -> None:
    """Never while a fetch is in flight or may start; until the end of the cool-down when one found
    nothing."""
    told: list[float] = []
    keys.on_cool_down_change(lambda until: told.append(until[Cause.UNKNOWN_KEY]))
    await keys.refresh()
    assert set(told) == {float("-inf")}
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, "stranger")
    assert told[-2] == float("-inf"), "while it was under way"
    assert told[-1] > time.monotonic() + keys.schedule.rules.cool_down - 60
    server.publish(jwks(signer(), signer("key-2")))
    keys.schedule.key_was_found(Cause.UNKNOWN_KEY)
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, "key-2")
    assert told[-1] == float("-inf"), "a rollover ends the cool-down"


async def test_a_caller_that_goes_away(
    keys: AsyncKeys, server: KeyServer, accepted: list[KeySet | None]
) -> None:
    """A cancelled caller does not cancel the fetch that others wait for."""
    server.hold()
    impatient, patient = asyncio.create_task(keys.refresh()), asyncio.create_task(keys.refresh())
    await asyncio.to_thread(server.wait_for_fetches, 1)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    server.release()
    await patient
    assert (server.fetches(), len(accepted)) == (1, 1)


async def test_a_surprise_does_not_end_the_refreshing(accepted: list[KeySet | None]) -> None:
    """An unexpected exception is a failed fetch like any other, and the next one is made."""

    class Surprising:
        calls = 0

        async def get(self, url: str, *, accept: str = "") -> HttpResponse:
            self.calls += 1
            if self.calls >= 3:
                done.set()
            raise RuntimeError("surprise")

        async def aclose(self) -> None: ...

    done, http = asyncio.Event(), Surprising()
    keys = AsyncKeys("https://x/keys", http, accepted.append, rules=RefreshRules(first_retry=0, last_retry=0))
    keys.start()
    async with asyncio.timeout(60):
        await done.wait()
    await keys.aclose()
    assert "RuntimeError" in str(keys.unavailable())
    assert accepted == []


async def test_waiting_on_a_loop_is_bounded(server: KeyServer, http: HttpClient) -> None:
    """A fetch that hangs does not hold its callers forever."""
    server.hold()
    keys = AsyncKeys(server.keys_url, http, lambda _: None, rules=RefreshRules(max_wait=0.01))
    assert await keys.refresh_for(Cause.UNKNOWN_KEY, "x")
    assert keys.keys is None
    server.release()
    await keys.aclose()


async def test_closing_ends_all_tasks(keys: AsyncKeys, server: KeyServer) -> None:
    """Nothing of it is left on the loop, also when a fetch hangs."""
    server.hold()
    before = asyncio.all_tasks()
    keys.start()
    await asyncio.to_thread(server.wait_for_fetches, 1)
    await keys.aclose()
    assert asyncio.all_tasks() == before
    server.release()


async def test_a_key_set_that_cannot_be_handed_over_does_not_end_the_refreshing(
    server: KeyServer, http: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error of the receiver counts as a failed fetch, and is logged."""

    def refuse(_: KeySet | None) -> None:
        raise RuntimeError("surprise")

    keys = AsyncKeys(server.keys_url, http, refuse)
    await keys.refresh()
    assert keys.fetch_failures == 1
    assert "RuntimeError" in str(keys.unavailable())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "unexpected error while the key set was fetched"
    ]
    await keys.aclose()


# --- waiting callers -------------------------------------------------------------------------------------


async def test_waiters_are_woken_a_few_per_round() -> None:
    """Every caller continues exactly once, at most four in one round of the event loop."""
    waiters = Waiters()
    woken: list[int] = []
    for number in range(10):
        waiters.add(functools.partial(woken.append, number))
    waiters.wake()
    rounds = [0]
    while len(woken) < 10:
        await asyncio.sleep(0)
        rounds.append(len(woken))
    assert woken == list(range(10))
    assert max(after - before for before, after in itertools.pairwise(rounds)) == WOKEN_PER_ROUND


async def test_fetches_that_end_while_callers_of_the_last_one_are_still_being_woken() -> None:
    """1,500 callers of one fetch and 1,500 of the next: each continues once, and nothing is woken twice."""
    waiters = Waiters()
    woken: list[int] = []
    for number in range(1500):
        waiters.add(functools.partial(woken.append, number))
    waiters.wake()
    await asyncio.sleep(0)
    for number in range(1500, 3000):
        waiters.add(functools.partial(woken.append, number))
    waiters.wake()
    waiters.wake()
    late: list[str] = []
    waiters.add(lambda: late.append("late"))
    for _ in range(3000 // WOKEN_PER_ROUND + 10):
        await asyncio.sleep(0)
    assert woken == list(range(3000))
    assert late == [], "it waits for a fetch that has not ended"
    waiters.wake()
    for _ in range(3):
        await asyncio.sleep(0)
    assert late == ["late"]


async def test_a_caller_that_fails_does_not_keep_the_others_waiting() -> None:
    """Its error goes to the event loop's handler; all others continue."""
    loop, errors = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    waiters = Waiters()
    woken: list[int] = []

    def fail() -> None:
        raise RuntimeError("surprise")

    waiters.add(fail)
    for number in range(10):
        waiters.add(functools.partial(woken.append, number))
    waiters.wake()
    for _ in range(10):
        await asyncio.sleep(0)
    assert woken == list(range(10))
    assert [str(error) for error in errors] == ["surprise"]


# --- a new key under an old kid --------------------------------------------------------------------------


def test_a_failed_signature_refreshes_once_per_cool_down(make_keys: MakeKeys, source: Source) -> None:
    """Forged tokens cause one fetch per cool-down. One that brings another key under that id ends it."""
    clock = Clock(0)
    keys = make_keys(monotonic=clock)
    keys.refresh()
    clock.now = 100
    assert keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    assert source.calls == 2
    clock.now = 399
    assert not keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    assert source.calls == 2
    clock.now = 400
    source.answer = HttpResponse(200, {}, jwks(signer("other").named("key-1")).encode())
    assert keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    assert keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1"), "only the provider can have brought a key"
    assert source.calls == 4
    clock.now = 402
    assert not keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")


def test_a_token_that_a_fetch_has_overtaken_is_verified_again(make_keys: MakeKeys, source: Source) -> None:
    """Another caller's fetch brought the key while this token was verified with the old one."""
    clock = Clock(0)
    keys = make_keys(monotonic=clock)
    keys.refresh()
    assert keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    clock.now = 0.5
    assert keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1"), "the cool-down does not reject it"
    clock.now = 5
    assert not keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1")
    assert source.calls == 2


async def test_a_failed_signature_refreshes_once_per_cool_down_on_a_loop(
    keys: AsyncKeys, server: KeyServer
) -> None:
    """As above, with every caller that waits served by the same fetch."""
    await keys.refresh()
    server.publish(jwks(signer("other").named("key-1")))
    assert all(await asyncio.gather(*(keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1") for _ in range(8))))
    assert server.fetches() == 2
    assert await keys.refresh_for(Cause.FAILED_SIGNATURE, "key-1"), "a new key ended the cool-down"
    assert server.fetches() == 3
    assert keys.schedule.cool_down_ends(Cause.FAILED_SIGNATURE) > time.monotonic()
    assert keys.schedule.cool_down_ends(Cause.UNKNOWN_KEY) == float("-inf")
