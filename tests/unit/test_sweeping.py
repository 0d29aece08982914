"""What has ended leaves memory within a minute, although no one asks for it: tokens, verified tokens,
failures, sessions."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from entra_fast import _clock, _shared_threads, _sweeping
from entra_fast._metrics import Metrics
from entra_fast._native import TokenCache, token_cache_key
from entra_fast._provider.expiring import ExpiringMap
from entra_fast._provider.token_client import Acquirer, TokenClient
from entra_fast._settings.load import Settings
from entra_fast._sweeping import LIMIT, LOOP_PARTS, THREAD_PARTS, LoopSweeps
from entra_fast.errors import InvalidToken, ProviderError
from entra_fast.generator.sessions import SessionStore
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.provider_process import AnnouncedTokens, ProviderProcess
from entra_fast.sidecar.provider_clients import ProviderClients
from entra_fast.sidecar.service import Service, new_token_cache
from entra_fast.validate import AsyncValidator, Validator
from support.key_server import KeyServer
from support.provider import Provider
from support.tokens import AUDIENCE, ISSUER, NOW, Clock, jwks, signer

ROOT = Path(__file__).parents[2]
LATER = 100_000
"""Seconds after which every token here has expired."""


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can wait for."""
    monkeypatch.setattr(_sweeping, "LIMIT", 0.1)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it stays in memory"
        time.sleep(0.001)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_the_documented_limit_is_the_one_that_holds() -> None:
    """SECURITY.md promises it."""
    promise = " ".join((ROOT / "SECURITY.md").read_text().split())
    found = re.search(r"within ([0-9]+) seconds of their end", promise)
    assert found is not None
    assert float(found[1]) == LIMIT == 60


# --- the library -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quickly")
def test_a_validator_does_not_keep_expired_tokens() -> None:
    """Their claims go although the validator is not used any more. Others stay."""
    clock = Clock()
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(signer()), clock=clock)
    for serial in range(100):
        one.validate(signer().token(exp=NOW + (10 if serial % 2 else LATER), jti=str(serial)))
    assert one.stats()["cache_entries"] == 100
    clock.now = NOW + 71  # the leeway is a minute
    eventually(lambda: one.stats()["cache_entries"] == 50)
    clock.now = NOW + 2 * LATER
    eventually(lambda: one.stats()["cache_entries"] == 0)


@pytest.mark.usefixtures("quickly")
def test_tokens_verified_together_are_swept_too() -> None:
    """Whichever method has put them there."""
    clock = Clock()
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(signer()), clock=clock)
    one.validate_many([signer().token(jti=str(serial)) for serial in range(10)])
    assert one.stats()["cache_entries"] == 10
    clock.now = NOW + LATER
    eventually(lambda: one.stats()["cache_entries"] == 0)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("how", ["validate", "validate_many", "introspect"])
async def test_an_async_validator_does_not_keep_expired_tokens(how: str) -> None:
    """Also the very first one, for which the keys had to be fetched."""
    clock = Clock()
    with KeyServer(jwks(signer())) as server:
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=clock) as one:
            token = signer().token()
            if how == "validate":
                await one.validate(token)
            elif how == "validate_many":
                await one.validate_many([token])
            else:
                await one.introspect(token)
            assert one.stats()["cache_entries"] == 1
            clock.now = NOW + LATER
            await soon(lambda: one.stats()["cache_entries"] == 0)


@pytest.mark.usefixtures("quickly")
def test_tokens_of_a_withdrawn_key_are_swept() -> None:
    """They are rejected already; their claims go, too."""
    with KeyServer(jwks(signer())) as server:
        one = Validator(ISSUER, AUDIENCE, jwks_uri=server.keys_url, clock=lambda: NOW)
        one.validate(signer().token())
        server.publish(jwks(signer("key-2")))
        with pytest.raises(InvalidToken, match="unknown key"):
            one.validate(signer("key-3").token())
        eventually(lambda: one.stats()["cache_entries"] == 0)
        one.close()


def test_a_cache_that_is_off_needs_no_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread is started for it."""

    def refuse(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(_shared_threads.schedule, "look_at", refuse)
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(signer()), clock=lambda: NOW, cache_entries=0)
    one.validate(signer().token())
    one.validate(signer().token())


def test_a_large_cache_is_swept_in_parts() -> None:
    """No call looks at all of it, and a round looks at everything."""
    cache = TokenCache()
    for number in range(6000):
        cache.put(token_cache_key("test", [str(number)]), "token", 60.0, monotonic=0.0)
    removed = [cache.sweep(monotonic=61.0, now=NOW, parts=LOOP_PARTS) for _ in range(LOOP_PARTS)]
    assert sum(removed) == 6000
    assert max(removed) < 6000 / LOOP_PARTS * 2
    assert cache.stats()["expired"] == 6000
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(signer()), clock=lambda: NOW)
    one.validate(signer().token())
    native = one._parts[0].native
    assert sum(native.sweep(parts=THREAD_PARTS, now=NOW + LATER) for _ in range(THREAD_PARTS)) == 1


def test_when_the_caches_of_a_validator_are_swept() -> None:
    """From its first cached token on, a third of a round every ten seconds; to begin again puts nothing
    off."""
    clock = Clock()
    one = Validator(ISSUER, AUDIENCE, jwks=jwks(signer()), clock=clock)
    native = one._parts[0].native
    sweeps = _sweeping.ThreadSweeps([native], clock)
    assert sweeps.due_in() is None
    assert sweeps.begin() is False
    assert sweeps.due_in() is None
    one.validate(signer().token(exp=NOW + 10))
    one.validate(signer().token(exp=NOW + LATER))
    assert sweeps.begin() is True
    assert 9 < (sweeps.due_in() or 0) <= 10
    sweeps._due_at = time.monotonic() + 5
    assert sweeps.begin() is True
    assert 4 < (sweeps.due_in() or 0) <= 5
    clock.now = NOW + 71
    for _ in range(THREAD_PARTS):
        sweeps.run()
    assert native.stats()["cache_entries"] == 1
    assert 9 < (sweeps.due_in() or 0) <= 10


def test_when_the_tokens_of_a_client_are_swept() -> None:
    """As those of a validator, but from the beginning."""
    cache = TokenCache()
    sweeps = _sweeping.ThreadTokenSweeps(cache)
    assert sweeps.due_in() is None
    sweeps.begin()
    assert 9 < (sweeps.due_in() or 0) <= 10
    sweeps._due_at = time.monotonic() + 5
    sweeps.begin()
    assert 4 < (sweeps.due_in() or 0) <= 5
    now = _clock.monotonic()
    for number in range(60):
        ends = {"expires_in": 60.0, "subject_expires_at": time.time() + (-1 if number % 2 else 60)}
        cache.put(token_cache_key("test", [str(number)]), "token", monotonic=now, **ends)
    removed = []
    for _ in range(THREAD_PARTS):
        before = cache.stats()["entries"]
        sweeps.run()
        removed.append(before - cache.stats()["entries"])
    assert sum(removed) == 30
    assert max(removed) < 30
    assert 9 < (sweeps.due_in() or 0) <= 10


# --- the processes ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quickly")
async def test_parts_and_rounds_on_an_event_loop() -> None:
    """A round is `LOOP_PARTS` parts; small caches are swept once in a round; nothing after `aclose`."""
    seen: list[str] = []
    sweeps = LoopSweeps(lambda: seen.append("all"), lambda: seen.append("part"))
    sweeps.start()
    await soon(lambda: seen.count("all") == 2)
    await sweeps.aclose()
    rounds = [*["part"] * LOOP_PARTS, "all"]
    assert seen[: 2 * len(rounds)] == rounds * 2
    seen.clear()
    await asyncio.sleep(0.01)
    assert not seen


@pytest.mark.parametrize(("parts", "pause"), [(True, 0.5), (False, 30.0)])
async def test_a_round_takes_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, parts: bool, pause: float
) -> None:
    """So that an entry that is added while a cache grows is gone a minute after its end."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def passing(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", passing)
    rounds: list[int] = []
    sweeps = LoopSweeps(lambda: rounds.append(len(pauses)), (lambda: None) if parts else None)
    await sweeps.aclose()  # what has not begun can be closed
    sweeps.start()
    while not rounds:
        await sleep(0)
    await sweeps.aclose()
    assert sum(pauses[: rounds[0]]) == 30
    assert set(pauses) == {pause}


def test_the_provider_process_keeps_no_expired_tokens() -> None:
    """Neither the tokens nor the terms under which they were announced."""
    now = [1000.0]
    clocks = Clocks(wall=lambda: NOW, monotonic=lambda: now[0])
    cache = TokenCache()
    tokens = AnnouncedTokens(cache, 100_000, clocks, lambda _: None, lambda _: None)
    for number in range(1000):
        key = token_cache_key("test", [str(number)])
        tokens.put(key, "token", 60.0 if number < 700 else 3600.0, monotonic=now[0])
    now[0] += 61
    for _ in range(LOOP_PARTS):
        tokens.sweep_part()
    tokens.sweep()
    assert (cache.stats()["entries"], len(tokens._terms)) == (300, 300)


def test_what_an_expiring_map_holds_goes_at_its_end() -> None:
    """Even behind entries that end later, which `put` does not look past."""
    clock = Clock(0)
    entries: ExpiringMap[str, int] = ExpiringMap(10, clock)
    entries.put("long", 1, 100)
    entries.put("short", 2, 1)
    clock.now = 1
    assert len(entries) == 2
    entries.sweep()
    assert (len(entries), entries.get("long")) == (1, 1)


def test_sessions_of_the_token_generator_go_at_their_end() -> None:
    """A session holds the user's token, and most users never come back."""
    clock = Clock(0)
    sessions = SessionStore(clock=clock)
    ended = sessions.create("ada", "token", 60.0)
    lasting = sessions.create("bob", "token", 600.0)
    clock.now = 61
    sessions.sweep()
    assert len(sessions) == 1
    assert sessions.find(ended) is None
    assert sessions.find(lasting) is not None


@pytest.mark.usefixtures("quickly")
async def test_the_provider_process_sweeps_while_it_runs() -> None:
    """Although its workers answer all requests."""
    now = [1000.0]
    clocks = Clocks(wall=lambda: NOW, monotonic=lambda: now[0])
    process = ProviderProcess(Settings.from_environment({"AZURE_ENABLED": "false"}), clocks=clocks)
    await process.start()
    process._tokens.put(token_cache_key("test", ["1"]), "token", 60.0, monotonic=now[0])
    now[0] += 61
    await soon(lambda: process._cache.stats()["entries"] == 0 and not process._tokens._terms)
    await process.aclose()


def _provider_process(settings: Settings, clocks: Clocks) -> tuple[ProviderProcess, Acquirer | None]:
    process = ProviderProcess(settings, clocks=clocks)
    return process, process._providers.tokens["entra_id"]


def _single_process(settings: Settings, clocks: Clocks) -> tuple[Service, Acquirer | None]:
    cache, metrics = new_token_cache(settings.caches), Metrics()
    clients = ProviderClients(settings, cache=cache, metrics=metrics, clocks=clocks)
    service = Service(settings, clients, cache=cache, metrics=metrics, clocks=clocks)
    return service, clients.tokens["entra_id"]


@pytest.mark.parametrize("make", [_provider_process, _single_process])
async def test_a_sidecar_forgets_refusals_that_have_ended(
    provider: Provider, make: Callable[[Settings, Clocks], tuple[Service | ProviderProcess, Acquirer | None]]
) -> None:
    """Those that its token client remembers, in the process that has it."""
    now = [1000.0]
    clocks = Clocks(wall=lambda: NOW, monotonic=lambda: now[0])
    process, client = make(Settings.from_environment(provider.environment()), clocks)
    assert isinstance(client, TokenClient)
    client._failures.put(b"ended", ProviderError("refused", "no"), now[0] + 60)
    client._failures.put(b"lasting", ProviderError("refused", "no"), now[0] + 62)
    now[0] += 61
    process._sweep()
    assert list(client._failures._entries) == [b"lasting"]


async def test_a_sidecar_does_not_keep_expired_tokens(provider: Provider) -> None:
    """Neither verified nor acquired ones, although no one asks for them."""
    later = 0.0
    clocks = Clocks(wall=lambda: time.time() + later, monotonic=lambda: time.monotonic() + later)
    service, client = _single_process(Settings.from_environment(provider.environment()), clocks)
    await service.start()
    assert client is not None
    await client.acquire("api://dev-gcp.team.app/.default")
    await soon(lambda: service.served[0].validation is not None)
    assert b'"active":true' in await service.introspect(0, provider.mint())

    def kept() -> tuple[int, int]:
        assert service.served[0].validation is not None
        return service.cache.stats()["entries"], service.served[0].validation.native.stats()["cache_entries"]

    assert kept() == (1, 1)
    later = LATER
    for _ in range(LOOP_PARTS):
        service._sweep_part()
    assert kept() == (0, 0)
    await service.aclose()


@pytest.mark.usefixtures("quickly")
def test_a_token_client_does_not_keep_expired_tokens() -> None:
    """Although nothing is asked for any more."""
    cache = TokenCache()
    sweeps = _sweeping.ThreadTokenSweeps(cache)
    sweeps.begin()
    ended, lasting = (token_cache_key("test", [name]) for name in ("ended", "lasting"))
    cache.put(ended, "token", 60.0, monotonic=_clock.monotonic() - 61)
    cache.put(lasting, "token", 60.0, monotonic=_clock.monotonic())
    eventually(lambda: cache.stats()["entries"] == 1)
    assert cache.get_stale(lasting, monotonic=_clock.monotonic(), now=time.time()) is not None
