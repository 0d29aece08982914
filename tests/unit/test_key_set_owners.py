"""The owners of key sets: their age, their threads, and forks."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time

import pytest

from entra_fast._native import KeySet
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpResponse
from entra_fast._provider.jwks import AsyncKeys, ThreadKeys
from entra_fast._provider.jwks_schedule import RefreshRules
from entra_fast.validate import AsyncValidator, Claims, Validator
from support.key_server import KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, Clock, jwks, signer

GOOD_TEXT = jwks(signer())
GOOD = HttpResponse(200, {}, GOOD_TEXT.encode())


def test_a_key_set_that_could_not_be_refreshed_for_too_long_is_discarded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise a withdrawn key would verify tokens for as long as the provider is down. One line is logged,
    the reason can be asked for, and the next good key set is used."""
    answers = [GOOD]
    accepted: list[KeySet | None] = []
    clock = Clock(0)
    rules = RefreshRules(first_retry=3600, last_retry=3600)
    keys = ThreadKeys("https://x/keys", lambda _: answers[-1], accepted.append, rules=rules, monotonic=clock)
    keys.refresh()
    answers.append(HttpResponse(500, {}, b""))
    clock.now = rules.max_age - 1
    keys.refresh()
    assert [keys.keys is None, len(accepted)] == [False, 1]
    clock.now = rules.max_age + 1
    with caplog.at_level(logging.ERROR, "entra_fast"):
        keys.refresh()
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["discarded the key set: not refreshed for 24 h"]
    assert (keys.keys, keys.text, accepted[-1]) == (None, None, None)
    assert "answered 500" in str(keys.unavailable())
    answers.append(GOOD)
    keys.refresh()
    assert keys.keys is not None
    assert accepted[-1] is keys.keys
    keys.close()


async def test_a_key_set_becomes_too_old_between_two_refreshes() -> None:
    """It is discarded then, and not with the next refresh only, which may be planned for later."""

    class Answers(HttpClient):
        async def get(self, url: str, *, accept: str = "", **_: object) -> HttpResponse:
            return GOOD

    accepted: list[KeySet | None] = []
    clock = Clock(0)
    rules = RefreshRules(interval=10_000, min_interval=10_000, max_age=5000)
    keys = AsyncKeys("https://x/keys", Answers(proxies={}), accepted.append, rules=rules, monotonic=clock)
    keys.start()
    async with asyncio.timeout(5):
        while not accepted:  # noqa: ASYNC110 - fetched in the background
            await asyncio.sleep(0)
        for now, known in ((5000, True), (5001, False)):
            clock.now = now
            keys._failed.set()  # instead of a minute that passes
            while keys._failed.is_set():  # noqa: ASYNC110 - cleared in the background
                await asyncio.sleep(0)
            assert (keys.keys is not None) is known
    assert accepted[1:] == [None]
    await keys.aclose()


def test_a_thread_that_wakes_early_fetches_nothing() -> None:
    """It looks at the clock again, and fetches when the refresh is due."""
    fetched = threading.Semaphore(0)
    looked = threading.Semaphore(0)
    now = [0.0]

    def clock() -> float:
        looked.release()
        return now[0]

    def fetch(_: str) -> HttpResponse:
        fetched.release()
        return GOOD

    keys = ThreadKeys("https://x/keys", fetch, lambda _: None, monotonic=clock)
    keys.refresh()
    assert fetched.acquire(timeout=60)
    now[0] = keys.schedule.next_refresh - 0.001  # the thread waits a millisecond at a time
    while looked.acquire(blocking=False):
        pass
    keys.start()  # so that it learns of the new time
    for _ in range(20):
        assert looked.acquire(timeout=60)
    assert keys.stats()["key_fetches"] == 1
    now[0] += 0.002
    assert fetched.acquire(timeout=60)
    keys.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_was_not_started_does_not_start_in_a_child() -> None:
    """A child process fetches for validators that its parent has used, and not for others."""
    with KeyServer(GOOD_TEXT) as server:
        one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        for starts in (False, True):
            child = os.fork()
            if child == 0:
                signal.alarm(60)  # ends this process if nothing else does
                if starts:
                    one.start()
                    while not one.stats()["keys"]:
                        time.sleep(0.001)
                else:
                    time.sleep(0.1)
                os._exit(0)
            assert os.waitpid(child, 0) == (child, 0)
            assert server.fetches() == starts
        one.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_made_during_a_fetch_makes_its_own() -> None:
    """The thread that fetches, and locks that others hold, stay in the parent."""
    parent, (began, released) = os.getpid(), (threading.Event(), threading.Event())

    def fetch(_: str) -> HttpResponse:
        if os.getpid() == parent:
            began.set()
            assert released.wait(60)
        return GOOD

    keys = ThreadKeys("https://x/keys", fetch, lambda _: None)
    keys.start()
    assert began.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends this process if nothing else does
        keys.refresh()
        os._exit(0 if keys.keys is not None else 1)
    assert os.waitpid(child, 0) == (child, 0)
    released.set()
    keys.close()


async def test_a_validator_that_is_entered_fetches_its_keys() -> None:
    """The first token need not wait for them."""
    with KeyServer(GOOD_TEXT) as server:
        with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url):
            await asyncio.to_thread(server.wait_for_fetches, 1)
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url):
            await asyncio.to_thread(server.wait_for_fetches, 2)


async def test_starting_twice_is_starting_once() -> None:
    """Keys are fetched once at the start, however often it is asked for."""
    with KeyServer(GOOD_TEXT) as server:
        http = HttpClient()
        keys = AsyncKeys(server.keys_url, http, lambda _: None)
        keys.start()
        keys.start()
        await keys.refresh()
        assert server.fetches() == 1
        await keys.aclose()
        await http.aclose()


async def test_tokens_of_known_keys_cause_no_fetch() -> None:
    """`validate_many` of good tokens asks for no keys, in threads and on a loop."""
    tokens = [signer().token() for _ in range(3)]
    with KeyServer(GOOD_TEXT) as server:
        with Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as one:
            one.validate(tokens[0])
            assert all(isinstance(result, Claims) for result in one.validate_many(tokens))
        assert server.fetches() == 1
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW) as other:
            await other.validate(tokens[0])
            assert all(isinstance(result, Claims) for result in await other.validate_many(tokens))
        assert server.fetches() == 2
