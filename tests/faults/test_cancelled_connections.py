"""Connections to the provider that are cancelled while they are made.

When connecting is cancelled, uvloop closes the file descriptor, and Python's socket object closes the same
number again when it is collected. By then the number may be another connection's, and an answer reaches the
wrong caller (https://github.com/MagicStack/uvloop/pull/646). `make chaos` found it, as another user's token.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
import traceback
from collections.abc import AsyncIterator

import pytest_asyncio
from aiohttp import web

from entra_fast._provider.http_client import HttpClient

CANCELLED = 200
"""How many connections are cancelled at the moment that matters,"""
SECONDS = 15
"""unless the machine is too slow for that many in this time."""


async def test_a_cancelled_connection_closes_no_other(echo: str) -> None:
    """Requests are cancelled at any stage of their connection; other requests get their own responses, and no
    file descriptor is left."""
    client = HttpClient()
    kept: list[BaseException] = []  # with their frames, which hold the sockets
    wrong: list[object] = []
    cancelled = 0
    asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))

    async def ask(number: int) -> None:
        try:
            answer = await client.post_form(echo, {"number": str(number)})
        except BaseException as exc:
            kept.append(exc)
            raise
        if answer.body != f"number={number}".encode():
            wrong.append(f"{answer.body!r} for {number}")

    before = len(os.listdir("/proc/self/fd"))
    end = time.monotonic() + SECONDS
    for turn in itertools.count():
        if cancelled >= CANCELLED or time.monotonic() > end:
            break
        tasks = [asyncio.create_task(ask(number)) for number in range(40)]
        for _ in range(turn % 12):  # in rounds of the loop: how fast the machine is makes no difference
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
        more = [asyncio.create_task(ask(number)) for number in range(40, 60)]
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        cancelled += sum(
            any(frame.name == "create_connection" for frame in traceback.extract_tb(exc.__traceback__))
            for exc in kept
        )
        kept.clear()
        gc.collect()
        others = await asyncio.gather(*tasks[1::2], *more, return_exceptions=True)
        wrong += [result for result in others if result is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()
    kept.clear()
    await asyncio.sleep(0.2)
    gc.collect()
    assert wrong == []
    assert cancelled > 0
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the loop's own, made when first needed


@pytest_asyncio.fixture
async def echo() -> AsyncIterator[str]:
    """The address of a server that answers with what it was sent, and closes the connection."""

    async def answer(request: web.Request) -> web.Response:
        response = web.Response(body=await request.read())
        response.force_close()
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()
