"""The ordinals of attempts at a request."""

from __future__ import annotations

import asyncio
from typing import Any

from entra_fast._provider import attempts
from entra_fast._provider.http_rules import HttpResponse
from support.token_client import World, failed, granted


def test_what_is_not_counted_is_a_first_attempt() -> None:
    """Nothing repeats it."""
    assert [attempts.ordinal(), attempts.ordinal()] == [0, 0]


def test_attempts_are_numbered_in_the_code_that_repeats_them() -> None:
    """Each time from the beginning; code that repeats the same further in goes on, and anything else that is
    asked in between is counted apart."""
    for _ in range(2):
        with attempts.counted("token"):
            assert attempts.ordinal() == 0
            with attempts.counted("token"):
                assert attempts.ordinal() == 1
            with attempts.counted("document"):
                assert [attempts.ordinal(), attempts.ordinal()] == [0, 1]
            assert attempts.ordinal() == 2
    assert attempts.ordinal() == 0


async def test_each_task_counts_its_own() -> None:
    """Requests that are made at the same time are no attempts at one."""

    async def twice() -> list[int]:
        with attempts.counted("token"):
            first = attempts.ordinal()
            await asyncio.sleep(0)
            return [first, attempts.ordinal()]

    assert list(await asyncio.gather(twice(), twice())) == [[0, 1], [0, 1]]


async def test_a_retry_goes_on_with_the_count_of_its_request() -> None:
    """However deep in the code each is made; the next request begins a new count."""
    world = World()
    ordinals: list[int] = []

    async def post_form(*_: Any, **__: Any) -> HttpResponse:
        ordinals.append(attempts.ordinal())
        return failed(503) if len(ordinals) == 1 else granted()

    world.http.post_form = post_form  # type: ignore[method-assign]
    await world.client.acquire("a:b:c")
    await world.client.acquire("a:b:d")
    assert ordinals == [0, 1, 0]
