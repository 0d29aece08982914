"""How each fault is made. What belongs here: from its beginning to its end, everything that is broken and
mended. What must never be here: when it comes (plan.py) and whether it excuses an answer (part.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from benches.chaos.pod import Pod, Sidecar, freeze, peers, state
from benches.chaos.truth import KnownProvider, Truth
from support.network import Fault, TcpProxy, black_hole, reset_after, reset_at_once, slow, truncate_after
from support.provider import granting, raw
from support.redis_server import RedisServer

Making = Callable[[float, float], Awaitable[None]]
"""Makes a fault: (seconds, dice)."""
HUNG_FOR_GOOD = 15.0
"""Seconds after which a hung worker must have been terminated."""


class UpstreamFaults:
    """Of the provider and of the way to it."""

    def __init__(self, provider: KnownProvider, network: TcpProxy) -> None:
        self._provider = provider
        self._network = network

    def all(self) -> dict[str, Making]:
        past: dict[str, Any] = {"iat": int(time.time()) - 7200, "exp": int(time.time()) - 3600, "nbf": None}
        provider = self._provider
        return {
            "reset": lambda s, _: broken(s, reset_at_once, self._network),
            "reset in mid-answer": lambda s, d: broken(s, reset_after(1 + int(d * 1500)), self._network),
            "truncated": lambda s, d: broken(s, truncate_after(int(d * 1500)), self._network),
            "black hole": lambda s, _: broken(s, black_hole, self._network),
            "connection refused": lambda s, _: broken(s, None, self._network),
            "429 with Retry-After": self._answers(raw(429, b"slow down", "text/plain", Retry_After="1")),
            "503": self._answers(raw(503, b"<h1>sorry</h1>", "text/html")),
            "500 with garbage": self._answers(raw(500, b"\xff\x00{")),
            "html instead of JSON": self._answers(raw(200, b"<html>", "text/html")),
            "cut JSON": self._answers(raw(200, b'{"access_token":"x"')),
            "redirect": self._answers(raw(302, b"", Location="https://evil.example/")),
            "oversized answer": self._answers(raw(200, b'{"x":"' + b"x" * 2_000_000 + b'"}')),
            "expired tokens": self._answers(granting(provider, access_token=provider.mint(**past))),
            "expires_in nonsense": self._answers(self._uncacheable),
            "slow": self._answers(self._slow),
            "no keys": lambda s, _: self._keys(s, b'{"keys":[]}'),
            "garbage keys": lambda s, _: self._keys(s, b"\x00garbage"),
        }

    def _answers(self, script: Any) -> Making:
        async def making(seconds: float, _: float) -> None:
            self._provider.always = script
            await asyncio.sleep(seconds)
            self._provider.always = None

        return making

    async def _keys(self, seconds: float, key_set: bytes) -> None:
        self._provider.key_set = key_set
        await asyncio.sleep(seconds)
        self._provider.key_set = None

    async def _uncacheable(self, _: web.Request, form: dict[str, str]) -> web.StreamResponse:
        document = self._provider.grant(form)
        self._provider.truth.must_not_be_cached(document["access_token"])
        return web.json_response({**document, "expires_in": "soon"})

    async def _slow(self, _: web.Request, form: dict[str, str]) -> web.StreamResponse:
        await asyncio.sleep(0.3)
        return web.json_response(self._provider.grant(form))


class RedisFaults:
    """Of the Redis server and of the replicas' ways to it."""

    NAMES = (
        "Redis away",
        "Redis away for one",
        "Redis slow",
        "Redis slow for one",
        "Redis black hole",
        "Redis resets",
        "Redis resets in mid-answer",
        "Redis restarted",
        "Redis paused",
        "Redis full",
        "Redis emptied",
    )

    def __init__(self, server: RedisServer, ways: list[TcpProxy]) -> None:
        self._server = server
        self._ways = ways

    def all(self) -> dict[str, Making]:
        return {
            "Redis away": lambda s, _: broken(s, None, *self._ways),
            "Redis away for one": lambda s, d: broken(s, None, self._ways[int(d * len(self._ways))]),
            "Redis slow": lambda s, d: broken(s, slow(0.05 + d / 4), *self._ways),
            "Redis slow for one": lambda s, d: broken(
                s, slow(0.15 + d / 4), self._ways[int(d * len(self._ways))]
            ),
            "Redis black hole": lambda s, _: broken(s, black_hole, *self._ways),
            "Redis resets": lambda s, _: broken(s, reset_at_once, *self._ways),
            "Redis resets in mid-answer": lambda s, d: broken(s, reset_after(1 + int(d * 900)), *self._ways),
            "Redis restarted": self._restarted,
            "Redis paused": self._paused,
            "Redis full": self._full,
            "Redis emptied": self._emptied,
        }

    async def _restarted(self, seconds: float, _: float) -> None:
        await self._server.stop()
        await asyncio.sleep(seconds)
        await self._server.start()

    async def _paused(self, seconds: float, _: float) -> None:
        await self._server.client.client_pause(int(seconds * 1000))
        await asyncio.sleep(seconds)

    async def _full(self, seconds: float, _: float) -> None:
        await self._server.client.config_set("maxmemory", "1")
        await asyncio.sleep(seconds)
        await self._server.client.config_set("maxmemory", "0")

    async def _emptied(self, _: float, __: float) -> None:
        await self._server.client.flushall()


class ProcessFaults:
    """Of the sidecars' own processes. `cut`: where the ports of connections are put that belong to a process
    which is killed."""

    def __init__(self, pod: Pod, truth: Truth, cut: set[int]) -> None:
        self._pod = pod
        self._truth = truth
        self._cut = cut

    def all(self) -> dict[str, Making]:
        return {
            "worker killed": self._killed,
            "worker hangs": self._hangs,
            "worker stalls": self._stalls,
            "provider process hangs": lambda s, d: self._frozen(s, [self._sidecar(d).pid]),
            "throttled": lambda s, d: self._frozen(s, self._sidecar(d).pids()),
        }

    def _sidecar(self, dice: float) -> Sidecar:
        return self._pod.sidecars[int(dice * len(self._pod.sidecars))]

    async def _stop_worker(self, dice: float) -> int | None:
        """Freezes a worker, so that it is certain which connections it has, and gives these up."""
        workers = self._pod.sidecars[0].workers()
        if not workers:
            return None  # all were killed a moment ago
        pid = workers[int(dice * len(workers))]
        await freeze(pid)
        self._cut |= peers(pid)
        return pid

    async def _killed(self, _: float, dice: float) -> None:
        pid = await self._stop_worker(dice)
        if pid is not None:
            _send(pid, signal.SIGKILL)

    async def _hangs(self, _: float, dice: float) -> None:
        pid = await self._stop_worker(dice)
        deadline = time.monotonic() + HUNG_FOR_GOOD
        while pid is not None and state(pid) not in "ZX":
            if time.monotonic() > deadline:
                self._truth.wrong("a worker that hangs was not ended")
                _send(pid, signal.SIGKILL)
            await asyncio.sleep(0.05)

    async def _stalls(self, seconds: float, dice: float) -> None:
        """Not long enough to be terminated. Afterwards it must not hand out tokens that were replaced."""
        pid = await self._stop_worker(dice)
        await asyncio.sleep(seconds / 3)
        if pid is not None and state(pid) not in "ZX":
            self._cut -= peers(pid)
            _send(pid, signal.SIGCONT)

    async def _frozen(self, seconds: float, pids: list[int]) -> None:
        """A pod, or a part of it, that gets no CPU time."""
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has already ended
        os.kill(pid, number)


async def broken(seconds: float, fault: Fault | None, *ways: TcpProxy) -> None:
    """The ways fail like this, connections that exist are cut; without a fault the ports are closed."""
    for way in ways:
        await way.stop()
        if fault is not None:
            way.always = fault
            await way.start()
    await asyncio.sleep(seconds)
    for way in ways:
        await way.stop()
        way.always = None
        await way.start()
