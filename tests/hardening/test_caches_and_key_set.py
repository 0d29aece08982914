"""Attacks on the caches and on the key set, with a real key server and both front doors."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from entra_fast import _native
from entra_fast._provider.blocking_http_client import BlockingHttpClient
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.jwks import AsyncKeys, ThreadKeys
from entra_fast.validate import (
    AsyncValidator,
    Claims,
    ConfigurationError,
    EntraFastError,
    InvalidToken,
    KeysUnavailable,
    RefreshRules,
    Validator,
)
from support.key_server import DISCOVERY_PATH, Answer, KeyServer
from support.tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    Clock,
    b64,
    good_claims,
    jwks,
    refusal,
    segment,
    signer,
    validator,
)

Outcome = Claims | EntraFastError

CALM = RefreshRules(first_retry=3600.0, last_retry=3600.0)
"""No retries in the background: every request is caused by what the test does."""


class Front(Protocol):
    """A front door, from the outside."""

    def outcomes(self, tokens: Sequence[str]) -> list[Outcome]:
        """Validate them at the same time."""
        ...

    def stats(self) -> dict[str, int]: ...


class Threads:
    """`Validator`, called from eight threads."""

    def __init__(self, url: str, **options: Any) -> None:
        self.validator = Validator(ISSUER, AUDIENCE, jwks_uri=url, clock=lambda: NOW, **options)

    def outcomes(self, tokens: Sequence[str]) -> list[Outcome]:
        def attempt(token: str) -> Outcome:
            try:
                return self.validator.validate(token)
            except EntraFastError as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(attempt, tokens))

    def stats(self) -> dict[str, int]:
        return self.validator.stats()

    def close(self) -> None:
        self.validator.close()


class Loop:
    """`AsyncValidator`, called by tasks of one event loop."""

    def __init__(self, url: str, **options: Any) -> None:
        self.runner = asyncio.Runner()
        self.validator = AsyncValidator(ISSUER, AUDIENCE, jwks_uri=url, clock=lambda: NOW, **options)

    def outcomes(self, tokens: Sequence[str]) -> list[Outcome]:
        async def attempt() -> list[Any]:
            return await asyncio.gather(
                *(self.validator.validate(token) for token in tokens), return_exceptions=True
            )

        return self.runner.run(attempt())

    def stats(self) -> dict[str, int]:
        return self.validator.stats()

    def close(self) -> None:
        self.runner.run(self.validator.aclose())
        self.runner.close()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with KeyServer(jwks(signer())) as running:
        yield running


@pytest.fixture(params=[Threads, Loop])
def front(request: pytest.FixtureRequest, server: KeyServer) -> Iterator[Threads | Loop]:
    one = request.param(server.keys_url, refresh=CALM)
    yield one
    one.close()


def codes(outcomes: Sequence[Outcome]) -> set[str]:
    """The codes of all outcomes; `ok` for good ones."""
    return {outcome.code if isinstance(outcome, EntraFastError) else "ok" for outcome in outcomes}


def strangers(count: int) -> list[str]:
    """Tokens with random kids, which cost an attacker nothing."""
    payload = segment(good_claims())
    return [f"{segment(signer().header(kid=uuid.uuid4().hex))}.{payload}.AAAA" for _ in range(count)]


# --- cache keys ------------------------------------------------------------------------------------------


def test_pairs_with_the_same_concatenation() -> None:
    """Two (token, scope) pairs that concatenate to the same text must not share an entry of a cache."""
    pairs = [("abc", "def"), ("ab", "cdef"), ("", "abcdef"), ("abcdef", ""), ("abcde", "f")]
    assert len({_native.cache_key(*pair) for pair in pairs}) == 1  # the documented key, for users' own caches
    keys = {_native.token_cache_key("exchange", pair) for pair in pairs}
    assert len(keys) == len(pairs)
    assert _native.token_cache_key("exchange", ["abc", "def"]) != _native.token_cache_key(
        "token", ["abc", "def"]
    )
    assert _native.token_cache_key("exchange", ["abc", "def"]) != _native.token_cache_key(
        "exchange", ["abc", "def", ""]
    )

    cache = _native.TokenCache()
    for token, scope in pairs:
        cache.put(
            _native.token_cache_key("exchange", [token, scope]), f"for {token}|{scope}", 3600, monotonic=0
        )
    for token, scope in pairs:
        grant = cache.get(_native.token_cache_key("exchange", [token, scope]), monotonic=1, now=NOW)
        assert grant is not None
        assert grant.access_token == f"for {token}|{scope}"


# --- a cached verification outlives neither token nor key ------------------------------------------------


def test_cached_verification_after_the_token_expired() -> None:
    """A hit checks the time again: a cached token expires on time, and leaves the cache."""
    clock = Clock()
    one = validator(clock=clock, leeway=0)
    token = signer().token(exp=NOW + 100)
    one.validate(token)
    clock.now = NOW + 99.9
    one.validate(token)
    assert one.stats()["cache_hits"] == 1
    clock.now = NOW + 100
    assert refusal(one, token).code == "token_expired"
    assert one.stats()["cache_entries"] == 0


def test_cached_verification_and_a_clock_that_jumps() -> None:
    """The clock jumps back before `nbf` and `iat`, and forward again: each answer is right for its time."""
    clock = Clock()
    one = validator(clock=clock, max_age=600)
    token = signer().token(nbf=NOW, iat=NOW)
    for now, code in (
        (NOW, "ok"),
        (NOW - 3600, "token_not_yet_valid"),
        (NOW, "ok"),
        (NOW + 661, "token_too_old"),
        (NOW + 4000, "token_expired"),
        (NOW, "ok"),
        (float("nan"), "token_expired"),
        (float("-inf"), "token_not_yet_valid"),
    ):
        clock.now = now
        if code == "ok":
            one.validate(token)
        else:
            assert refusal(one, token).code == code


def test_token_that_resembles_a_cached_one() -> None:
    """A cached verification is found by a fingerprint of the whole token. A token that is nearly equal to a
    cached one, or would equal it under a polynomial hash without a secret, is verified separately each
    time."""
    one = validator()
    token, other = signer().token(uti="a" * 400), signer().token(uti="b" * 400)
    assert len(token) == len(other)
    for good in (token, other):
        one.validate(good)
    head, payload, signature = token.split(".")
    other_payload, other_signature = other.split(".")[1:]
    start = len(head) + 200  # amid the 400 equal characters, whose base64url repeats
    blocks = [token[at : at + 16] for at in range(0, len(token), 16)]
    swapped = [*blocks[:5], blocks[6], blocks[5], *blocks[7:]]
    resembling = [
        f"{head}.{other_payload}.{signature}",
        f"{head}.{payload}.{other_signature}",
        "".join(swapped),
        "".join(reversed(blocks)),
        token[:start] + token[start + 16 :],
        token[:start] + token[start : start + 16] + token[start:],
        token + "\0",
        token + "\0" * (-len(token) % 16),
        token + "A" * 16,
        token[:-1],
        token[: len(token) // 16 * 16],
    ]
    hits = one.stats()["cache_hits"]
    for _ in range(3):
        for crafted in resembling:
            assert crafted not in (token, other)
            with pytest.raises(InvalidToken):
                one.validate(crafted)
    stats = one.stats()
    assert (stats["cache_hits"], stats["cache_entries"]) == (hits, 2)


def test_cached_verification_of_another_policy() -> None:
    """A token that one validator has accepted is rejected by each validator with a stricter policy."""
    token = signer().token()
    lenient = validator()
    lenient.validate(token)
    for option, code in (
        ({"audience": "other"}, "wrong_audience"),
        ({"issuer": "https://other.example"}, "wrong_issuer"),
        ({"algorithms": ["PS256"]}, "algorithm_not_allowed"),
        ({"required_claims": ["nonce"]}, "claim_missing"),
        ({"max_token_bytes": 500}, "token_too_large"),
        ({"tenants": ["99999999-8888-7777-6666-555555555555"]}, "tenant_not_allowed"),
    ):
        assert refusal(validator(**option), token).code == code
    lenient.validate(token)


def test_withdrawn_key_drops_cached_verifications(front: Threads | Loop, server: KeyServer) -> None:
    """When a key leaves the set, its cached verifications are dropped at the next refresh."""
    old, new = signer(), signer("key-2")
    token = old.token()
    assert codes(front.outcomes([token, token])) == {"ok"}
    assert front.stats()["cache_entries"] == 1
    server.publish(jwks(new))
    assert codes(front.outcomes([token])) == {"ok"}  # no one has requested the keys since
    assert codes(front.outcomes([new.token()])) == {"ok"}  # unknown: refreshes
    assert codes(front.outcomes([token])) == {"unknown_key"}
    assert front.stats()["cache_entries"] == 1


def test_key_replaced_under_its_name(front: Threads | Loop, server: KeyServer) -> None:
    """Another key under the same `kid`: cached verifications by the old key are dropped, although the name is
    still there."""
    old, new = signer(), signer("key-2").named("key-1")
    token = old.token()
    assert codes(front.outcomes([token, token])) == {"ok"}
    server.publish(jwks(new))
    front.outcomes(strangers(1))
    assert codes(front.outcomes([token])) == {"signature_invalid"}
    assert codes(front.outcomes([new.token()])) == {"ok"}


@pytest.mark.parametrize(
    ("published", "code"),
    [
        ({"issuer": ISSUER.replace("1111", "9999", 1)}, "wrong_issuer"),
        ({"alg": "PS256"}, "algorithm_not_allowed"),
        ({"use": "enc"}, "unknown_key"),
    ],
    ids=["bound to another issuer", "for another algorithm", "for encryption"],
)
def test_key_published_for_something_else(
    front: Threads | Loop, server: KeyServer, published: dict[str, str], code: str
) -> None:
    """The same key under the same `kid`, but for another purpose: its cached verifications are dropped,
    too."""
    token = signer().token()
    assert codes(front.outcomes([token, token])) == {"ok"}
    server.publish(jwks(signer().jwk(**published), signer("key-2")))
    front.outcomes(strangers(1))
    assert codes(front.outcomes([token, token])) == {code}


# --- floods ----------------------------------------------------------------------------------------------


def test_flood_of_random_kids(front: Threads | Loop, server: KeyServer) -> None:
    """Random `kid`s cause one fetch per cool-down in total; known keys keep working in the meantime."""
    good = signer().token()
    assert codes(front.outcomes([good])) == {"ok"}
    assert server.fetches() == 1
    for _ in range(3):
        outcomes = front.outcomes([*strangers(100), good])
        assert codes(outcomes[:-1]) == {"unknown_key"}
        assert codes(outcomes[-1:]) == {"ok"}
    assert server.fetches() == 2
    assert front.stats()["cache_entries"] == 1  # rejected tokens leave nothing behind


def test_flood_before_the_first_keys(front: Threads | Loop, server: KeyServer) -> None:
    """Before there are keys, many tokens at once cause one fetch and all wait for it."""
    outcomes = front.outcomes([*strangers(50), *(signer().token(n=n) for n in range(50))])
    assert codes(outcomes[:50]) == {"unknown_key"}
    assert codes(outcomes[50:]) == {"ok"}
    assert server.fetches() <= 2  # the first one, and one for the unknown keys


def test_flood_while_the_provider_is_down(front: Threads | Loop, server: KeyServer) -> None:
    """Without any keys, a failing provider is asked once per pause, not once per token."""
    server.fail(Answer(status=503))
    for _ in range(3):
        assert codes(front.outcomes([*strangers(20), signer().token()])) == {"keys_unavailable"}
    assert server.fetches() == 1


def test_flood_of_tokens_without_kid(front: Threads | Loop, server: KeyServer) -> None:
    """A key without `kid` in a set of several: tokens without `kid` stay ambiguous, and do not lift the
    cool-down by "finding" it."""
    server.publish(jwks(signer(), signer("key-2").named(None)))
    for count in range(5):
        assert codes(front.outcomes([signer().named(None).token(count=count)])) == {"unknown_key"}
    assert server.fetches() == 2


def test_known_keys_do_not_wait_for_a_fetch(front: Threads | Loop, server: KeyServer) -> None:
    """While a fetch hangs, tokens of known keys are verified: an attacker's `kid` delays no one."""
    good = [signer().token(n=n) for n in range(5)]
    assert codes(front.outcomes(good[:1])) == {"ok"}
    server.hold()
    if isinstance(front, Threads):
        stranger = threading.Thread(target=front.outcomes, args=(strangers(1),))
        stranger.start()
        server.wait_for_fetches(2)
        assert codes(front.outcomes(good)) == {"ok"}  # would hang here, and time out
        server.release()
        stranger.join()
    else:

        async def race() -> None:
            waiting = asyncio.ensure_future(front.validator.validate(strangers(1)[0]))
            await asyncio.to_thread(server.wait_for_fetches, 2)
            for token in good:
                await front.validator.validate(token)
            assert not waiting.done()
            server.release()
            with pytest.raises(InvalidToken):
                await waiting

        front.runner.run(race())


def test_keys_rotate_under_load(front: Threads | Loop, server: KeyServer) -> None:
    """A rollover: no good token is rejected, and one fetch serves all. The next rollover is not delayed."""
    keys = [signer(), signer("key-2"), signer("key-3")]
    assert codes(front.outcomes([keys[0].token()])) == {"ok"}
    for rollover in (1, 2):
        server.publish(jwks(*keys[rollover - 1 : rollover + 1]))
        tokens = [key.token(n=n) for n in range(40) for key in keys[rollover - 1 : rollover + 1]]
        assert codes(front.outcomes(tokens)) == {"ok"}
        assert server.fetches() == 1 + rollover


# --- bad answers -----------------------------------------------------------------------------------------

BAD_ANSWERS = {
    "500": Answer(status=500),
    "503 with a good set": Answer(jwks(signer("key-2")), status=503),
    "404": Answer(b"not found", status=404),
    "204": Answer(status=204),
    "empty": Answer(b""),
    "no members": Answer(b"{}"),
    "no keys": Answer(b'{"keys":[]}'),
    "keys is no array": Answer(b'{"keys":{}}'),
    "null": Answer(b"null"),
    "a bare key": Answer(jwks(signer("key-2"))[10:-2]),
    "HTML": Answer(b"<!doctype html><title>Sign in</title>", headers={"Content-Type": "text/html"}),
    "cut JSON": Answer(jwks(signer("key-2"))[:-1]),
    "cut body": Answer(jwks(signer("key-2")), promised=5000),
    "not UTF-8": Answer(b'{"keys":"\xff"}'),
    "byte order mark": Answer(b"\xef\xbb\xbf" + jwks(signer("key-2")).encode()),
    "duplicate members": Answer(jwks(signer("key-2"))[:-1] + ',"keys":[]}'),
    "too large": Answer(jwks(signer("key-2")) + " " * (1 << 20)),
    "too many keys": Answer('{"keys":[' + ",".join(["{}"] * 513) + "]}"),
    "only symmetric": Answer(jwks({"kty": "oct", "kid": "key-2", "k": "AAAA"})),
    "only weak": Answer(jwks(signer("weak", bits=1024))),
    "only private": Answer(jwks({**signer("key-2").jwk(), "d": "AQAB"})),
    "claims gzip": Answer(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answer(name: str, front: Threads | Loop, server: KeyServer) -> None:
    """A failing, empty or garbage answer: the last good set stays, the attempt counts for the cool-down."""
    good = signer().token()
    assert codes(front.outcomes([good])) == {"ok"}
    server.fail(BAD_ANSWERS[name])
    for count in range(3):
        assert codes(front.outcomes([signer("key-2").token(), *strangers(3)])) == {"unknown_key"}
        assert codes(front.outcomes([good, signer().token(count=count)])) == {"ok"}
    assert server.fetches() == 2
    stats = front.stats()
    assert (stats["keys"], stats["key_fetches"], stats["key_fetch_failures"]) == (1, 2, 1)


async def test_last_good_set_has_a_maximum_age(server: KeyServer) -> None:
    """The last good set is not used forever: past its maximum age it is discarded, and cached verifications
    with it."""
    policy = _native.Policy(issuers=[ISSUER], audiences=[AUDIENCE])
    clock, token = Clock(), signer().token()
    rules = RefreshRules(cool_down=0, first_retry=3600, last_retry=3600, max_age=86_400)
    in_threads, on_loop = _native.Validator(policy), _native.Validator(policy)
    http = HttpClient()
    threads = ThreadKeys(
        server.keys_url, BlockingHttpClient().get, in_threads.set_keys, rules=rules, monotonic=clock
    )
    loop = AsyncKeys(server.keys_url, http, on_loop.set_keys, rules=rules, monotonic=clock)
    try:
        threads.refresh()
        await loop.refresh()
        server.fail(Answer(status=500))
        for age, code in ((0, None), (86_400, None), (86_401, "keys_unavailable")):
            clock.now = NOW + age
            threads.refresh()
            await loop.refresh()
            for one in (in_threads, on_loop):
                if code is None:
                    one.validate(token, NOW)
                else:
                    with pytest.raises(KeysUnavailable):
                        one.validate(token, NOW)
        for keys in (threads, loop):
            assert "answered 500 instead of 200" in str(keys.unavailable())
    finally:
        threads.close()
        await loop.aclose()
        await http.aclose()


@pytest.mark.parametrize("kind", [Threads, Loop])
def test_recovers_by_itself(kind: type[Threads | Loop], server: KeyServer) -> None:
    """A provider that was down at the start recovers: no restart is needed."""
    front = kind(server.keys_url, refresh=RefreshRules(first_retry=0.01, last_retry=0.01))
    try:
        server.fail(Answer(status=500))
        assert codes(front.outcomes([signer().token()])) == {"keys_unavailable"}
        server.publish(jwks(signer()))
        while codes(front.outcomes([signer().token()])) != {"ok"}:
            pass  # a retry in the background is under way
    finally:
        front.close()


# --- where keys come from --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirected_key_set(status: int, front: Threads | Loop, server: KeyServer) -> None:
    """A redirect to the attacker's keys is not followed, and no request is made there."""
    attacker = signer("attacker")
    with KeyServer(jwks(attacker)) as foreign:
        server.fail(Answer(jwks(attacker), status=status, headers={"Location": foreign.keys_url}))
        outcomes = front.outcomes([attacker.token(), signer().token()])
        assert codes(outcomes) == {"keys_unavailable"}
        assert foreign.requests == []


BAD_URLS = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "http://login.microsoftonline.com/keys",
    "http://127.0.0.1.evil.example/keys",
    "http://localhost.evil.example/keys",
    "http://evil.example#@127.0.0.1/",
    "ftp://127.0.0.1/keys",
    "data:application/json,{}",
    "javascript:alert(1)",
    "//login.microsoftonline.com/keys",
    "/etc/passwd",
    "https://user:secret@login.microsoftonline.com/keys",
    "https://",
    "https:///keys",
    "https://login.microsoftonline.com/keys\nX: y",
    "https://login.microsoftonline.com/ keys",
    "https://login.microsoftonline.com:99999/keys",
    "https://[::1/keys",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_key_set_url(url: str) -> None:
    """`file:`, clear text to another host, user information: a key set is not fetched from there."""
    for kind in (Validator, AsyncValidator):
        with pytest.raises(ConfigurationError) as caught:
            kind(ISSUER, AUDIENCE, jwks_uri=url)
        assert caught.value.setting == "jwks_uri"
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", BAD_URLS)
async def test_discovery_url(url: str) -> None:
    """The same for the discovery document."""
    with pytest.raises(ConfigurationError):
        Validator.from_discovery(url, AUDIENCE)
    with pytest.raises(ConfigurationError):
        await AsyncValidator.from_discovery(url, AUDIENCE)


def discovery(server: KeyServer, **changes: Any) -> str:
    """A discovery document."""
    good = {
        "issuer": server.issuer,
        "jwks_uri": server.keys_url,
        "token_endpoint": f"{server.base_url}/token",
    }
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"jwks_uri": "https://evil.example/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "https://127.0.0.1/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "http://127.0.0.1:1/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "http://localhost:1/keys"}, "discovery_foreign_host"),
        ({"jwks_uri": "file:///etc/passwd"}, "discovery_malformed"),
        ({"jwks_uri": "http://evil.example/keys"}, "discovery_malformed"),
        ({"jwks_uri": None}, "discovery_malformed"),
        ({"jwks_uri": ["https://evil.example/keys"]}, "discovery_malformed"),
        ({"token_endpoint": "https://evil.example/token"}, "discovery_foreign_host"),
        ({"issuer": "https://evil.example/tenant/v2.0"}, "discovery_issuer_mismatch"),
        ({"issuer": "x"}, "discovery_issuer_mismatch"),
        ({"issuer": None}, "discovery_malformed"),
    ],
    ids=repr,
)
async def test_discovery_document(changes: dict[str, Any], code: str, server: KeyServer) -> None:
    """A discovery document that names another host, another issuer or a file: refused as a whole."""
    server.answers[DISCOVERY_PATH] = Answer(discovery(server, **changes))
    with pytest.raises(KeysUnavailable) as caught:
        Validator.from_discovery(server.discovery_url, AUDIENCE)
    assert caught.value.code == code
    with pytest.raises(KeysUnavailable) as caught:
        await AsyncValidator.from_discovery(server.discovery_url, AUDIENCE)
    assert caught.value.code == code
    assert set(server.requests) == {DISCOVERY_PATH}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=404),
        Answer(b""),
        Answer(b"[]"),
        Answer(b"<html>"),
        Answer(b'{"issuer":"a","issuer":"b"}'),
        Answer(b"{}", promised=100),
        Answer(b" " * ((1 << 20) + 1)),
    ],
    ids=["500", "404", "empty", "array", "HTML", "duplicate", "cut", "too large"],
)
async def test_discovery_failure(answer: Answer, server: KeyServer) -> None:
    """A discovery document that cannot be fetched or read is an error at once, with its own sentence."""
    server.answers[DISCOVERY_PATH] = answer
    with pytest.raises(KeysUnavailable):
        Validator.from_discovery(server.discovery_url, AUDIENCE)
    with pytest.raises(KeysUnavailable):
        await AsyncValidator.from_discovery(server.discovery_url, AUDIENCE)


async def test_redirected_discovery(server: KeyServer) -> None:
    """A redirect of the discovery document is not followed."""
    with KeyServer() as foreign:
        foreign.answers[DISCOVERY_PATH] = Answer(discovery(foreign))
        server.answers[DISCOVERY_PATH] = Answer(status=302, headers={"Location": foreign.discovery_url})
        with pytest.raises(KeysUnavailable):
            Validator.from_discovery(server.discovery_url, AUDIENCE)
        with pytest.raises(KeysUnavailable):
            await AsyncValidator.from_discovery(server.discovery_url, AUDIENCE)
        assert foreign.requests == []


# --- bounds ----------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_memory_stays_flat() -> None:
    """10^5 distinct good tokens through a small cache: entries and bytes stay within their limits, and so
    does the process."""
    key = signer("ed", "EdDSA")
    assert isinstance(key.key, Ed25519PrivateKey)
    native = _native.SigningKey.from_jwk(json.dumps(key.jwk(d=b64(key.key.private_bytes_raw()))))
    header, claims = json.dumps(key.header()).encode(), json.dumps(good_claims())[:-1].encode()
    one = validator(key, algorithms=["EdDSA"], cache_entries=2000, cache_bytes=1 << 20)
    warm = 0
    for batch in range(100):
        tokens = [native.sign(header, b'%b,"n":%d}' % (claims, batch * 1000 + n)) for n in range(1000)]
        assert all(isinstance(result, Claims) for result in one.validate_many(tokens))
        stats = one.stats()
        assert 0 < stats["cache_entries"] <= 2000
        assert 0 < stats["cache_bytes"] <= 1 << 20
        if batch == 20:
            warm = resident_bytes()
    # A preempted thread may keep the others from a part of the cache: they verify without it.
    # How many do so depends on what else the machine does.
    assert 50_000 <= stats["cache_misses"] <= 100_000
    assert 50_000 <= stats["cache_evictions"] + stats["cache_entries"] <= 100_000
    assert resident_bytes() - warm < 16 << 20  # the tokens alone are 70 MB


def test_strangers_leave_nothing_behind() -> None:
    """Refused tokens, of whatever kid, header or size, take no place in any map."""
    one = validator()
    before = resident_bytes()
    for token in [*strangers(20_000), *("x" * size for size in range(0, 100_000, 1000))]:
        refusal(one, token)
    assert (one.stats()["cache_entries"], one.stats()["cache_bytes"]) == (0, 0)
    assert resident_bytes() - before < 64 << 20


def test_headers_cannot_crowd_out_others() -> None:
    """A key set remembers a few headers of good tokens, and more of them do no harm."""
    one = validator(cache_entries=0)
    for count in range(100):
        one.validate(signer().token(header={"x": count}))
    one.validate(signer().token())
    assert one.stats()["cache_entries"] == 0
