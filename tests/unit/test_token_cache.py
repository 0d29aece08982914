"""TokenCache in Python: the additions of rust/py to rust/core, whose own tests cover the details."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from entra_fast._native import CachedToken, TokenCache, token_cache_key

KEY = token_cache_key("test", ["tenant", "client", "scope"])
NOW = 1_800_000_000.0


def found(cache: TokenCache, monotonic: float, now: float = NOW) -> CachedToken:
    token = cache.get(KEY, monotonic=monotonic, now=now)
    assert token is not None
    return token


def test_a_token_is_handed_out_with_the_time_it_has_left() -> None:
    """expires_in counts from the request, not from the provider's response."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=100.0)
    token = found(cache, 110.5)
    assert (token.access_token, token.token_type, token.expires_in, token.renewal_due) == (
        "token",
        "Bearer",
        3589,
        False,
    )


def test_within_the_safety_margin_only_get_stale_answers() -> None:
    """120 s before a token expires, it is kept only for use when the provider fails."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=0.0)
    assert cache.get(KEY, monotonic=3480.0, now=NOW) is None
    stale = cache.get_stale(KEY, monotonic=3480.0, now=NOW)
    assert stale is not None
    assert (stale.expires_in, stale.renewal_due) == (120, False)
    assert cache.get_stale(KEY, monotonic=3600.0, now=NOW) is None


def test_an_exchanged_token_ends_with_its_subject_token() -> None:
    """By the wall clock, for both ways of asking."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, subject_expires_at=NOW + 60)
    assert found(cache, 1.0, NOW + 59).access_token == "token"
    assert cache.get_stale(KEY, monotonic=1.0, now=NOW + 60) is None


def test_renewal_is_asked_of_one_caller_until_it_fails() -> None:
    """A renewal that failed is due again after its pause, for one caller."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, renew_in=100)
    assert [found(cache, at).renewal_due for at in (99.0, 100.0, 101.0)] == [False, True, False]
    cache.renewal_failed(KEY, monotonic=101.0, retry_in=30)
    assert [found(cache, at).renewal_due for at in (130.0, 131.0, 132.0)] == [False, True, False]


def test_of_many_threads_one_is_to_renew() -> None:
    """The claim is atomic, with or without a GIL."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=0.0, renew_in=100)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: found(cache, 200.0).renewal_due, range(200)))
    assert claims.count(True) == 1


@pytest.mark.parametrize("life", [0, -1, 0.5, float("nan"), float("inf"), 1e300])
def test_a_token_of_no_usable_life_is_not_kept(life: float) -> None:
    """Nor does it replace a good one."""
    cache = TokenCache()
    cache.put(KEY, "bad", life, monotonic=0.0)
    assert cache.get_stale(KEY, monotonic=0.0, now=NOW) is None
    cache.put(KEY, "good", 3600, monotonic=0.0)
    cache.put(KEY, "bad", life, monotonic=0.0)
    assert found(cache, 0.0).access_token == "good"


def test_entries_and_bytes_are_bounded() -> None:
    """A million targets cannot make the cache grow."""
    cache = TokenCache(max_entries=50, max_bytes=1 << 20)
    for number in range(500):
        cache.put(token_cache_key("test", [str(number)]), "t" * 100, 3600, monotonic=0.0)
    assert cache.stats()["entries"] == 50
    assert cache.stats()["evictions"] == 450
    cache = TokenCache(max_entries=100_000, max_bytes=100_000)
    for number in range(500):
        cache.put(token_cache_key("test", [str(number)]), "t" * 1000, 3600, monotonic=0.0)
        assert cache.stats()["bytes"] <= 100_000


def test_a_removed_token_is_gone_and_its_bytes_with_it() -> None:
    """Accounting is exact."""
    cache = TokenCache()
    cache.put(KEY, "token", 3600, monotonic=0.0)
    assert cache.stats()["bytes"] > 0
    cache.remove(KEY)
    cache.remove(KEY)
    assert cache.get(KEY, monotonic=0.0, now=NOW) is None
    empty = dict.fromkeys(("entries", "bytes", "hits", "evictions", "expired", "exchanged"), 0)
    assert cache.stats() == {**empty, "misses": 1}


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 31, b"x" * 33])
def test_a_key_that_is_no_digest_is_refused(key: bytes) -> None:
    """A raw token as a key would stay in memory; the message gives only its length."""
    cache = TokenCache()
    with pytest.raises(ValueError, match=f"key must be a digest of 32 bytes .*, not {len(key)}$"):
        cache.get(key, monotonic=0.0, now=NOW)
    with pytest.raises(ValueError, match="digest of 32 bytes"):
        cache.put(key, "token", 3600, monotonic=0.0)


def test_no_repr_shows_a_token() -> None:
    """Cached tokens end up in debug logs."""
    cache = TokenCache()
    cache.put(KEY, "canary", 3600, monotonic=0.0, renew_in=0)
    token = found(cache, 0.0)
    assert "canary" not in f"{token!r} {token} {cache!r} {cache}"
    assert "renewal due" in repr(token)
