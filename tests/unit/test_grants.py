"""GrantCache, as Python sees it: what rust/py adds to rust/core, whose own tests hold the fine points."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entra_fast._native import Grant, GrantCache, grant_key

KEY = grant_key("test", ["tenant", "client", "scope"])
NOW = 1_800_000_000.0


def found(cache: GrantCache, monotonic: float, now: float = NOW) -> Grant:
    grant = cache.get(KEY, monotonic=monotonic, now=now)
    assert grant is not None
    return grant


def test_a_token_is_handed_out_with_the_time_it_has_left() -> None:
    """expires_in counts from the question, not from the answer of the provider."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=100.0)
    grant = found(cache, 110.5)
    assert (grant.access_token, grant.token_type, grant.expires_in, grant.renewal_due) == (
        "token",
        "Bearer",
        3589,
        False,
    )


def test_within_the_safety_margin_only_get_stale_answers() -> None:
    """120 s before its end a token is kept back for the time when the provider fails."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=0.0)
    assert cache.get(KEY, monotonic=3480.0, now=NOW) is None
    assert cache.render(KEY, monotonic=3480.0, now=NOW) is None
    stale = cache.get_stale(KEY, monotonic=3480.0, now=NOW)
    assert stale is not None
    assert (stale.expires_in, stale.renewal_due) == (120, False)
    assert cache.get_stale(KEY, monotonic=3600.0, now=NOW) is None


def test_an_exchanged_token_ends_with_its_subject_token() -> None:
    """By the wall clock, for both ways of asking."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, subject_expires_at=NOW + 60)
    assert found(cache, 1.0, NOW + 59).access_token == "token"
    assert cache.get_stale(KEY, monotonic=1.0, now=NOW + 60) is None


def test_renewal_is_asked_of_one_caller_until_it_fails() -> None:
    """Through get and render alike."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, renew_in=100)
    assert [found(cache, at).renewal_due for at in (99.0, 100.0, 101.0)] == [False, True, False]
    cache.renewal_failed(KEY, monotonic=101.0, retry_in=30)
    rendered = [cache.render(KEY, monotonic=at, now=NOW) for at in (130.0, 131.0, 132.0)]
    assert [answer is not None and answer[1] for answer in rendered] == [False, True, False]


def test_of_many_threads_one_is_to_renew() -> None:
    """The claim is atomic, with or without a GIL."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, renew_in=100)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: found(cache, 200.0).renewal_due, range(200)))
    assert claims.count(True) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(241, 10_000_000))
def test_the_rendered_body_holds_exactly_the_token(token: str, life: int) -> None:
    """Whatever a token is made of, the body is JSON with exactly the three members of the contract."""
    cache = GrantCache()
    cache.put(KEY, token, life, monotonic=0.0)
    answer = cache.render(KEY, monotonic=0.0, now=NOW)
    assert answer is not None
    assert json.loads(answer[0]) == {"access_token": token, "expires_in": life, "token_type": "Bearer"}
    assert found(cache, 0.0).access_token == token


@pytest.mark.parametrize("life", [0, -1, 0.5, float("nan"), float("inf"), 1e300])
def test_a_token_of_no_usable_life_is_not_kept(life: float) -> None:
    """Nor does it push out the good one that was there."""
    cache = GrantCache()
    cache.put(KEY, "bad", life, monotonic=0.0)
    assert cache.get_stale(KEY, monotonic=0.0, now=NOW) is None
    cache.put(KEY, "good", 3600, monotonic=0.0)
    cache.put(KEY, "bad", life, monotonic=0.0)
    assert found(cache, 0.0).access_token == "good"


def test_entries_and_bytes_are_bounded() -> None:
    """A million targets cannot make the cache grow."""
    cache = GrantCache(max_entries=50, max_bytes=1 << 20)
    for number in range(500):
        cache.put(grant_key("test", [str(number)]), "t" * 100, 3600, monotonic=0.0)
    assert cache.stats()["entries"] == 50
    assert cache.stats()["evictions"] == 450
    cache = GrantCache(max_entries=100_000, max_bytes=100_000)
    for number in range(500):
        cache.put(grant_key("test", [str(number)]), "t" * 1000, 3600, monotonic=0.0)
        assert cache.stats()["bytes"] <= 100_000


def test_a_removed_token_is_gone_and_its_bytes_with_it() -> None:
    """Accounting is exact."""
    cache = GrantCache()
    cache.put(KEY, "token", 3600, monotonic=0.0)
    assert cache.stats()["bytes"] > 0
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.get(KEY, monotonic=0.0, now=NOW) is None
    assert cache.stats() == {"entries": 0, "bytes": 0, "hits": 0, "misses": 1, "evictions": 0, "expired": 0}


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 31, b"x" * 33])
def test_a_key_that_is_no_digest_is_refused(key: bytes) -> None:
    """A raw token as key would be a raw token in memory; the message gives its length only."""
    cache = GrantCache()
    with pytest.raises(ValueError, match=f"key must be a digest of 32 bytes .*, not {len(key)}$"):
        cache.get(key, monotonic=0.0, now=NOW)
    with pytest.raises(ValueError, match="digest of 32 bytes"):
        cache.put(key, "token", 3600, monotonic=0.0)


def test_no_repr_shows_a_token() -> None:
    """Grants end up in debug logs."""
    cache = GrantCache()
    cache.put(KEY, "canary", 3600, monotonic=0.0, renew_in=0)
    grant = found(cache, 0.0)
    assert "canary" not in f"{grant!r} {grant} {cache!r} {cache}"
    assert "renewal due" in repr(grant)
