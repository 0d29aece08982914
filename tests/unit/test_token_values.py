"""What follows from a token's lifetime and identity alone, and what a clock is where no test sets it."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from entra_fast import _clock, _native
from entra_fast._provider.tokens import (
    CLIENT_CREDENTIALS,
    ON_BEHALF_OF,
    AcquiredToken,
    Demand,
    Fetch,
    FetchedToken,
    Lookup,
    TimedCache,
    Timing,
    WantedToken,
    token_key,
    whole_seconds,
)
from support.token_client import World

KEY = b"k" * 32


@pytest.mark.parametrize(
    ("lifetime", "usable"), [(3600, 3480), (241, 121), (240, 120), (239, 119.5), (10, 5), (0, 0)]
)
def test_a_token_is_handed_out_until_two_minutes_before_its_end(lifetime: float, usable: float) -> None:
    """Or, if it is shorter than that twice over, for half of its lifetime; natively and here alike."""
    token = FetchedToken("token", lifetime, 1000.0)
    assert token.usable_for == usable
    assert token.end == 1000.0 + lifetime
    world = World()
    if lifetime:
        world.cache.put(KEY, "token", lifetime, monotonic=1000.0)
        assert world.cache.get(KEY, monotonic=1000.0 + usable - 0.5, now=0.0) is not None
    assert world.cache.get(KEY, monotonic=1000.0 + usable, now=0.0) is None


def test_seconds_are_rounded_down() -> None:
    """A client must not use a token for longer than it is valid; none has less than no time left."""
    assert [whole_seconds(seconds) for seconds in (3599.99, 1.0, 0.99, 0.0, -0.5)] == [3599, 1, 0, 0, 0]


def test_an_acquired_token_is_a_bearer_token() -> None:
    """RFC 6750; and its repr says how long, not which."""
    token = AcquiredToken("secret", 7)
    assert (token.token_type, token.access_token) == ("Bearer", "secret")
    assert token.cached is False
    assert repr(token) == "AcquiredToken(expires_in=7)"


def test_whose_token_may_be_cached() -> None:
    """The application's own, and that of a user whose token's end is known; a fetched one by default."""
    assert WantedToken(KEY, CLIENT_CREDENTIALS, "scope").is_cacheable
    assert WantedToken(KEY, ON_BEHALF_OF, "scope", "user", 2e9).is_cacheable
    assert not WantedToken(KEY, ON_BEHALF_OF, "scope", "user").is_cacheable
    fetched = FetchedToken("token", 1.0, 0.0)
    assert fetched.cacheable
    assert fetched.subject_expires_at is None


def test_a_challenge_makes_another_request_for_the_same_token() -> None:
    """Equal challenges are one request, different ones are not, and none is part of the token's key."""
    plain = WantedToken(KEY, CLIENT_CREDENTIALS, "scope")
    one, two = (WantedToken(KEY, CLIENT_CREDENTIALS, "scope", claims=claims) for claims in ("{}", "{ }"))
    other = WantedToken(b"o" * 32, CLIENT_CREDENTIALS, "scope", claims="{}")
    assert plain.request_key == KEY
    assert len({wanted.request_key for wanted in (plain, one, two, other)}) == 4
    assert one.request_key == WantedToken(KEY, CLIENT_CREDENTIALS, "scope", claims="{}").request_key
    assert one.without_claims() == plain
    assert plain.without_claims() is plain
    assert (plain.resources, plain.authorization_details) == ((), None)


def test_what_a_key_depends_on() -> None:
    """On provider, tenant, client, scope, user and details; and whose token it is: an empty one is not the
    application's own."""
    provider = World().provider

    class Other:
        name, tenant_id, client_id = "entra_id", "tenant", "other"

    class Elsewhere:
        name, tenant_id, client_id = "entra_id", "elsewhere", "client"

    class AtAnotherProvider:
        name, tenant_id, client_id = "maskinporten", "tenant", "client"

    keys = [
        token_key(provider, "scope"),
        token_key(provider, "other"),
        token_key(provider, "scope", ""),
        token_key(provider, "scope", "user"),
        token_key(provider, "scope", "another user"),
        token_key(Other(), "scope"),
        token_key(Elsewhere(), "scope"),
        token_key(AtAnotherProvider(), "scope"),
        token_key(provider, "scope", resources=["a"]),
        token_key(provider, "scope", resources=["a", "b"]),
        token_key(provider, "scope", authorization_details="a"),
    ]
    assert len(set(keys)) == len(keys)
    # The fast path, and other versions of the sidecar at the same shared cache, compute the same ones.
    assert keys[0] == _native.token_cache_key(
        "client_credentials", ["entra_id", "tenant", "client", "scope", "", ""]
    )
    assert keys[3] == _native.token_cache_key(
        "on_behalf_of", ["entra_id", "tenant", "client", "scope", "user", ""]
    )
    assert {len(key) for key in keys} == {32}


def test_a_shared_cache_without_the_token_has_answered() -> None:
    """So that it can be asked who fetches the token; only where it cannot be asked, it has not."""
    assert Lookup(None).answered is True


def test_a_cached_token_ends_with_the_users() -> None:
    """By the wall clock; its renewal is due when it was said to be, counted from when it was requested."""
    now, wall = 1000.0, 2e9 - 100
    cache = TimedCache(_native.TokenCache(), Timing(clock=lambda: wall, monotonic=lambda: now))
    cache.put(KEY, FetchedToken("token", 3600.0, now - 10, 2e9), renew_in=50)
    assert (token := cache.get(KEY)) is not None
    assert (token.access_token, token.expires_in, token.renewal_due) == ("token", 3590, False)
    now += 40
    assert (token := cache.get(KEY)) is not None
    assert token.renewal_due
    cache.make_renewal_due_again(KEY, retry_in=5)
    assert (token := cache.get(KEY)) is not None
    assert not token.renewal_due
    now += 5
    assert (token := cache.get(KEY)) is not None
    assert token.renewal_due
    assert cache.get_stale(KEY) is not None
    wall += 100
    assert cache.get(KEY) is None
    assert cache.get_stale(KEY) is None


def test_what_a_fetch_is_for() -> None:
    """The highest demand counts, and demands have this order."""
    assert Demand.RENEWAL < Demand.TOKEN < Demand.NEW_TOKEN
    said = []
    for demand in Demand:
        fetch = Fetch(WantedToken(KEY, CLIENT_CREDENTIALS, "scope"), demand)
        said.append((fetch.is_renewal, fetch.must_be_new))
    assert said == [(True, False), (False, False), (False, True)]


async def test_outside_of_tests_time_and_chance_are_real() -> None:
    """The defaults of `Timing`; timers are those of the running loop."""
    timing = Timing()
    assert timing.clock is time.time
    assert abs(timing.monotonic() - _clock.monotonic()) < 60  # another test may have loaded _clock again
    assert (timing.sleep, timing.uniform) == (asyncio.sleep, random.uniform)
    fired = asyncio.Event()
    timing.call_later(0.0, fired.set)
    async with asyncio.timeout(10):
        await fired.wait()
    timer = timing.call_later(3600.0, fired.clear)
    assert isinstance(timer, asyncio.TimerHandle)
    assert timer.when() > asyncio.get_running_loop().time() + 3000
    timer.cancel()
    assert timer.cancelled()
