"""Callers that wait for tokens: as many as there is memory for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from entra_fast._provider.waiting import CALLER_BYTES, COPIES, Waiting
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CacheSettings
from entra_fast.errors import ProviderError
from entra_fast.sidecar.provider_clients import LEAST_ROOM, _waiting
from support.token_client import World

MIB = 1 << 20


def most_callers(waiting: Waiting | None) -> int:
    """How many callers without a token may wait at the same time; 0 for any number."""
    return 0 if waiting is None else int(waiting._room() // CALLER_BYTES)


def test_what_a_caller_takes_is_given_back() -> None:
    """Also where it fails; one that does not fit is told when to come back."""
    waiting = Waiting(lambda: 2 * CALLER_BYTES + COPIES * 100)
    with waiting.caller(100):
        with waiting.caller(0):
            pass
        with pytest.raises(ProviderError) as caught, waiting.caller(1):
            pass
    error = caught.value
    assert (error.code, error.status, error.retry_after) == ("too_many_fetches", 503, 1)
    assert "memory limit" in error.message
    with pytest.raises(ValueError, match="mine"), waiting.caller(100):
        raise ValueError("mine")
    with waiting.caller(100), waiting.caller(0):
        pass


async def test_callers_of_one_token_count_each() -> None:
    """They have a request each. Cached tokens need no room, and one that is still valid answers in place of a
    refusal."""
    room = 2 * CALLER_BYTES
    world = World(waiting=Waiting(lambda: room))
    world.http.gate = asyncio.Event()
    waiting = [asyncio.ensure_future(world.client.acquire("a:b:c")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ProviderError) as caught:
        await world.client.acquire("a:b:c")
    assert caught.value.code == "too_many_fetches"
    world.http.gate.set()
    await asyncio.gather(*waiting)
    room = 0
    assert (await world.client.acquire("a:b:c")).cached
    assert (await world.client.acquire("a:b:c", skip_cache=True)).cached
    with pytest.raises(ProviderError):
        await world.client.exchange("a:b:c", "opaque")


@pytest.mark.parametrize(
    ("workers", "cached", "room"),
    [
        (1, 0, 256 - 48 - 52),
        (1, 104, 256 - 48 - 52 - 104),
        (2, 0, (256 - 48 - 52) // 2),
        (2, 16, (256 - 48 - 52 - 3 * 16) // 2),
        (1, 200, LEAST_ROOM // MIB),
    ],
)
def test_callers_get_what_the_caches_leave(workers: int, cached: int, room: int) -> None:
    """Of the container's limit, as the caches are now; but always something. With workers, each caller takes
    its part twice."""
    caches = CacheSettings(memory_limit=256 * MIB, idle_bytes=48 * MIB, verified_bytes=52 * MIB)
    settings = Settings.from_environment({"AZURE_ENABLED": "false"}, None)
    settings = replace(settings, server=replace(settings.server, workers=workers), caches=caches)
    assert most_callers(_waiting(settings, lambda: cached * MIB)) == room * MIB // CALLER_BYTES
    assert most_callers(_waiting(replace(settings, caches=CacheSettings()), lambda: 0)) == 0
