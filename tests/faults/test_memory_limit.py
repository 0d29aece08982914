"""A sidecar in a real control group: its caches follow the limit, however much it is asked to remember."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections import Counter

import pytest
from aiohttp import web

from support.cgroup import memory_group
from support.process import served
from support.provider import Provider, granting

LIMIT = 80 << 20
LIMITS = {1: LIMIT, 2: 144 << 20}
"""By the number of workers: little more than what the processes take when they are idle."""
TOKENS = {1: 1500, 2: 700}
"""Of 20 KB each. If both caches kept all of them, the sidecar would need more than the limit: with workers,
each process has a copy of what was acquired."""
CALLERS = 8
WAITING = {1: 600, 2: 450}
"""Exchanges that wait, by the number of workers: more than there is memory for."""


@pytest.mark.parametrize("workers", LIMITS)
async def test_full_caches_stay_within_the_limit(provider: Provider, workers: int) -> None:
    """Hundreds of acquired and of verified tokens of 20 KB: some are evicted, and no process is killed.
    `make bench-memory` states the figures for 256 MiB."""
    limit, count = LIMITS[workers], TOKENS[workers]
    groups = [str(uuid.uuid4()) for _ in range(380)]
    tokens = [provider.mint(groups=groups, jti=str(number)) for number in range(count)]
    assert 18_000 < len(tokens[0]) < 25_000
    provider.always = granting(provider, access_token="x" * 20_000)
    with memory_group(limit) as group:
        async with served(group.program) as serve:
            environ = provider.environment(PROBE_BIND_ADDRESS="127.0.0.1:0", ENTRA_FAST_WORKERS=str(workers))
            process = await serve(environ)
            call = await process.listening()
            (line,) = (json.loads(line) for line in process.lines if "memory limit" in line)
            assert line["memory_limit"] == limit

            async def ask(number: int) -> None:
                for serial in range(number, count, CALLERS):
                    assert (await call.token(f"api://a{serial}/.default")).status == 200
                    assert (await call.introspect(tokens[serial])).json["active"]

            await asyncio.gather(*map(ask, range(CALLERS)))
            figures = (await process.probes().get("/metrics")).body.decode()
            values = dict(line.rsplit(" ", 1) for line in figures.splitlines() if not line.startswith("#"))
            assert float(values["entra_fast_memory_limit_bytes"]) == limit
            for name in ("token", "verified"):
                assert float(values[f"entra_fast_{name}_cache_evictions_total"]) > 0
                assert 0 < float(values[f"entra_fast_{name}_cache_bytes"]) <= line[f"{name}_cache_bytes"]
            assert group.peak <= limit
            assert group.kills == 0
            assert values.get("entra_fast_worker_restarts_total", 0.0) == 0
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0


@pytest.mark.parametrize("workers", LIMITS)
async def test_requests_that_wait_stay_within_the_limit(provider: Provider, workers: int) -> None:
    """The provider hangs, and more users' tokens of 20 KB wait than there is memory for: those beyond are
    refused at once, none is killed, and those that wait are served."""
    limit, count = LIMITS[workers], WAITING[workers]
    user = provider.mint(groups=[str(uuid.uuid4()) for _ in range(380)])
    answers = asyncio.Event()
    grants = granting(provider)

    async def hang(request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        await answers.wait()
        return await grants(request, form)

    provider.always = hang
    with memory_group(limit) as group:
        async with served(group.program) as serve:
            environ = provider.environment(
                ENTRA_FAST_WORKERS=str(workers),
                ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="60000",
                ENTRA_FAST_HTTP_CONNECT_TIMEOUT_MILLIS="60000",
                ENTRA_FAST_HTTP_READ_TIMEOUT_MILLIS="60000",
                ENTRA_FAST_HTTP_OVERALL_TIMEOUT_MILLIS="60000",
            )
            process = await serve(environ)
            call = await process.listening()
            asked = [
                asyncio.create_task(call.exchange(user, f"api://a{serial}/.default"))
                for serial in range(count)
            ]
            refused = 0
            while refused < count // 3:
                done, _ = await asyncio.wait(asked, timeout=0.5)
                refused = len(done)
            answers.set()
            found = Counter(answer.status for answer in await asyncio.gather(*asked))
            assert found.keys() == {200, 503}
            assert found[200] > count // 10
            answer = next(task.result() for task in asked if task.result().status == 503)
            assert answer.header("Retry-After") == "1"
            assert "too many requests wait for tokens" in answer.json["error_description"]
            assert group.kills == 0
            assert (await call.exchange(user, "api://later/.default")).status == 200
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0


async def test_sizes_that_cannot_fit_stop_the_start(provider: Provider) -> None:
    """Exit status 2, and one sentence with both numbers."""
    with memory_group(LIMIT) as group:
        async with served(group.program) as serve:
            environ = provider.environment(BIND_ADDRESS="127.0.0.1:0")
            process = await serve({**environ, "ENTRA_FAST_CACHE_MAX_BYTES": "268435456"})
            assert await process.ended() == 2
            (line,) = process.lines
            assert "ENTRA_FAST_CACHE_MAX_BYTES is 268435456 bytes" in line
            assert f"memory limit of {LIMIT} bytes" in line
