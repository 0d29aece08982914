"""The format of what replicas write to Redis. tests/faults/test_shared_cache.py has it with a server."""

from __future__ import annotations

import math
from typing import Any

import pytest

from entra_fast._provider import redis_entries
from entra_fast._provider.oauth import MAX_EXPIRES_IN
from entra_fast._provider.redis_entries import MAX_ENTRY_BYTES, MAX_SKEW, EntryCipher, EntryRejected
from entra_fast._provider.tokens import FetchedToken

NOW = 1_800_000_000.0
MONOTONIC = 5000.0
DIGEST = bytes(range(100, 132))
CIPHER = EntryCipher(bytes(range(32)))
# Computed without this package: HKDF (RFC 5869) and AES-256-GCM with a nonce of twelve times "n".
TOKEN_NAME = b"entra_fast:1:token:Pp14zP2ylzjcNaplnvAZOiOBTzx5JgA4o0-e-Z0LXiE"
ENTRY = bytes.fromhex(
    "016e6e6e6e6e6e6e6e6e6e6e6e233c8c68a7994d4ecc4e373d5efb0a82b457b291ece546835918c89fc7d45c6211d3ec4c7a8d"
    "e35306ef9be296c1effb0dab238d2ace58fe2ee6484005"
)
ANNOUNCEMENT = bytes.fromhex(
    "6e6e6e6e6e6e6e6e6e6e6e6eb8119dbff31ce39221b29dcbaac11a2e75b8f9f8bc7d4a04d2b61395f4bab4c39546f53f05620c"
    "a4328010d8f4da5c595bf1096163fdb3ccba67303c1cc50af4"
)


def test_the_format_is_that_of_other_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas of two releases run side by side during a roll-out: names, entries and announcements are the
    same, byte for byte."""
    cipher = EntryCipher(bytes(range(32)))
    token = FetchedToken("a.b.c", 3600.0, MONOTONIC - 100)
    content = redis_entries.pack(token, now=NOW, monotonic=MONOTONIC, expiry_millis=3_500_000)
    assert cipher.name(b"token", DIGEST) == TOKEN_NAME
    assert cipher.open(DIGEST, ENTRY) == content
    assert cipher.open_announcement(ANNOUNCEMENT) == (b"s" * 16, DIGEST)
    monkeypatch.setattr("os.urandom", lambda size: b"n" * size)
    assert cipher.seal(DIGEST, content) == ENTRY
    assert cipher.seal_announcement(b"s" * 16, DIGEST) == ANNOUNCEMENT
    found = redis_entries.unpack(content, now=NOW, monotonic=MONOTONIC, left_millis=3_500_000)
    assert found == token


def test_a_users_end_is_in_the_entry() -> None:
    """The replica that reads it hands the token out no longer than the user's token is valid."""
    token = FetchedToken("a.b.c", 3600.0, MONOTONIC, NOW + 50)
    content = redis_entries.pack(token, now=NOW, monotonic=MONOTONIC, expiry_millis=50_000)
    assert redis_entries.unpack(content, now=NOW, monotonic=MONOTONIC, left_millis=50_000) == token


def rejected_because(**changes: Any) -> str | None:
    """Why content with these values is rejected; None if it is not."""
    values: dict[str, Any] = {"life": 3600.0, "age": 1.0, "end": None, "token": "t.o.k", "millis": 3_599_000}
    values |= {"left": None, "ours": NOW} | changes
    token = FetchedToken(values["token"], values["life"], MONOTONIC - values["age"], values["end"])
    content = redis_entries.pack(token, now=NOW, monotonic=MONOTONIC, expiry_millis=values["millis"])
    left = values["millis"] if values["left"] is None else values["left"]
    try:
        redis_entries.unpack(content, now=values["ours"], monotonic=MONOTONIC, left_millis=left)
    except EntryRejected as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    ("last", "first", "reason"),
    [
        ({"life": MAX_EXPIRES_IN}, {"life": MAX_EXPIRES_IN + 1}, "content"),
        ({"life": 0.9, "age": 0.0, "millis": 900}, {"life": 0.0, "age": 0.0, "millis": 0}, "content"),
        ({"age": 0.0, "millis": 3_600_000}, {"age": 0.0, "millis": 3_600_001}, "content"),
        ({"age": 0.0}, {"age": -0.5}, "content"),
        ({"age": 3599.5, "millis": 500}, {"age": 3600.0, "millis": 500}, "content"),
        ({"millis": 1}, {"millis": 0}, "content"),
        ({"end": 0.5}, {"end": 0.0}, "content"),
        ({"token": "!"}, {"token": ""}, "content"),
        ({"token": "~"}, {"token": "\x7f"}, "content"),
        ({"token": "!"}, {"token": " "}, "content"),
        ({"left": 0}, {"left": -1}, "expiry"),
        ({"left": 3_599_000}, {"left": 3_599_001}, "expiry"),
        ({"age": 0.0, "ours": NOW - MAX_SKEW}, {"age": 0.0, "ours": NOW - MAX_SKEW - 0.5}, "clock"),
    ],
)
def test_the_bounds_of_each_value(last: dict[str, Any], first: dict[str, Any], reason: str) -> None:
    """The last value that a replica can have written is accepted, the next one is not."""
    assert (rejected_because(**last), rejected_because(**first)) == (None, reason)


def test_the_times_of_a_token_that_never_was_are_rejected() -> None:
    """A time that is no number says nothing about a token's age."""
    assert {rejected_because(life=math.nan), rejected_because(end=math.nan)} == {"content"}


@pytest.mark.parametrize(
    ("ours", "left", "lives"),
    [(NOW + 3598.5, 3_599_000, True), (NOW + 3599, 3_599_000, False), (NOW, 1, True), (NOW, 0, False)],
)
def test_a_token_ends_to_the_millisecond(ours: float, left: int, lives: bool) -> None:
    """By our clock, or by what Redis has counted down."""
    token = FetchedToken("t", 3600.0, MONOTONIC - 1)
    content = redis_entries.pack(token, now=NOW, monotonic=MONOTONIC, expiry_millis=3_599_000)
    found = redis_entries.unpack(content, now=ours, monotonic=MONOTONIC, left_millis=left)
    assert (found is not None) == lives


def test_a_tokens_age_is_never_negative() -> None:
    """Where the writer's clock is ahead of ours, its token is not younger than one fetched now."""
    token = FetchedToken("t", 3600.0, MONOTONIC)
    content = redis_entries.pack(token, now=NOW + 30, monotonic=MONOTONIC, expiry_millis=3_600_000)
    found = redis_entries.unpack(content, now=NOW, monotonic=MONOTONIC, left_millis=3_600_000)
    assert found is not None
    assert found.fetched_at == MONOTONIC


@pytest.mark.parametrize(
    ("size", "reason"),
    [(29, "size"), (30, "decryption"), (MAX_ENTRY_BYTES, "decryption"), (MAX_ENTRY_BYTES + 1, "size")],
)
def test_an_entry_has_a_size_that_a_replica_could_have_written(size: int, reason: str) -> None:
    """At least a version, a nonce, a tag and something between them, at most the largest token."""
    with pytest.raises(EntryRejected) as caught:
        CIPHER.open(DIGEST, b"\x01" + bytes(size - 1))
    assert caught.value.reason == reason


def test_the_largest_token_fits() -> None:
    """65,536 bytes: the largest one that is accepted from a provider."""
    token = FetchedToken("x" * 65_536, 3600.0, MONOTONIC)
    content = redis_entries.pack(token, now=NOW, monotonic=MONOTONIC, expiry_millis=3_600_000)
    entry = CIPHER.seal(DIGEST, content)
    assert len(entry) == MAX_ENTRY_BYTES
    assert CIPHER.open(DIGEST, entry) == content


@pytest.mark.parametrize("head", [b"", bytes(39), bytes(40)])
def test_content_without_a_token_is_rejected(head: bytes) -> None:
    """The times alone are no entry."""
    with pytest.raises(EntryRejected) as caught:
        redis_entries.unpack(head, now=NOW, monotonic=MONOTONIC, left_millis=1)
    assert caught.value.reason == "content"


@pytest.mark.parametrize("message", [b"", ANNOUNCEMENT[:-1], ANNOUNCEMENT + b"\0"])
def test_an_announcement_has_one_size(message: bytes) -> None:
    """Nothing else is decrypted."""
    with pytest.raises(EntryRejected, match=r"^size$") as caught:
        CIPHER.open_announcement(message)
    assert caught.value.reason == "size"


def test_an_announcement_of_another_key_is_rejected() -> None:
    """A client that may publish cannot make one up."""
    with pytest.raises(EntryRejected) as caught:
        EntryCipher(bytes(32)).open_announcement(ANNOUNCEMENT)
    assert caught.value.reason == "decryption"
