"""Requests with tokens of an unknown key wait below aiohttp for the fetch that may bring it. The request that
caused the fetch takes the slow path; the others cost next to nothing."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

import pytest

from support.fast_path import (
    Connection,
    body,
    connections,
    fast_path_answers,
    introspection,
    status,
    token_request,
)
from support.keys import Key
from support.provider import Provider
from support.sidecars import Started, StartSidecar, eventually

ANOTHER = Key.generate()


async def waiting(sidecar: Started, requests: int) -> None:
    """Wait until this many requests wait below aiohttp."""

    async def enough() -> bool:
        return sum(c._waiting_since is not None for c in connections(sidecar)) == requests

    await eventually(enough)


class Crowd:
    """Connections to a sidecar whose provider keeps keys back; the first one's request causes the fetch."""

    def __init__(self, sidecar: Started, provider: Provider, stack: AsyncExitStack) -> None:
        self._sidecar = sidecar
        self._provider = provider
        self._stack = stack
        self.connections: list[Connection] = []
        provider.keys_held = self.keys = asyncio.Event()

    async def begin(self, others: int, *then: bytes) -> None:
        """One request that causes the fetch, and this many that wait for it, with what else they send."""
        for number in range(others + 1):
            connection = await self._stack.enter_async_context(await Connection.to(self._sidecar))
            self.connections.append(connection)
            connection.send(introspection(self._provider.mint(key=ANOTHER)))
            if number == 0:
                await self._sidecar.received(1)
            else:
                for part in then:
                    connection.send(part)
        await waiting(self._sidecar, others)

    async def answers(self) -> list[bytes]:
        self.keys.set()
        return [await connection.answer() for connection in self.connections]


@pytest.mark.parametrize("published", [True, False], ids=["a rotation", "a stranger"])
async def test_those_who_wait_are_answered_by_the_fast_path(
    fast: Started, provider: Provider, *, published: bool
) -> None:
    """After one fetch each has the response of the slow path, and the metrics include how long it took."""
    if published:
        provider.published = [provider.key, ANOTHER]
    fetched = provider.jwks_requests
    async with AsyncExitStack() as stack:
        crowd = Crowd(fast, provider, stack)
        await crowd.begin(50)
        assert fast_path_answers(fast) == 0
        await asyncio.sleep(0.3)
        first, *others = await crowd.answers()
    assert fast_path_answers(fast) == 50
    assert provider.jwks_requests == fetched + 1
    for answer in (first, *others):
        assert status(answer) == 200
        assert body(answer).startswith(b'{"active":true' if published else b'{"active":false')
    if not published:
        assert set(others) == {first}, "byte for byte"
    waited = await fast.metric('entra_fast_request_duration_seconds_sum{endpoint="introspect"}')
    assert waited > 51 * 0.3


async def test_failed_signatures_wait_for_one_refresh_and_then_cost_nothing(
    fast: Started, provider: Provider
) -> None:
    """A new key under an old kid: tokens wait below aiohttp for the refresh that one of them caused. Once the
    budget is spent, the fast path answers such tokens itself, as it does for tokens that could not pass."""
    await fast.call.introspect(provider.mint())
    new = ANOTHER.named(provider.key.kid)
    answered, fetched = fast_path_answers(fast), provider.jwks_requests
    for claims in ({"aud": "other"}, {"iss": "https://other"}, {"exp": 1}):
        answer = await fast.call.introspect(provider.mint(key=new, **claims))
        assert answer.json == {"active": False, "error": "token signature is invalid"}
        unknown = await fast.call.introspect(provider.mint(key=ANOTHER, **claims))
        assert unknown.json == {"active": False, "error": "token was signed with an unknown key"}
    assert (fast_path_answers(fast), provider.jwks_requests) == (answered + 6, fetched)

    provider.keys_held = asyncio.Event()
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(await Connection.to(fast)) for _ in range(6)]
        first, *rest = others
        first.send(introspection(provider.mint(key=new)))
        await fast.received(1)
        for connection in rest:
            connection.send(introspection(provider.mint(key=new)))
        await waiting(fast, 5)
        provider.keys_held.set()
        assert {body(await connection.answer())[:15] for connection in others} == {b'{"active":false'}
    assert (fast_path_answers(fast), provider.jwks_requests) == (answered + 11, fetched + 1)
    for _ in range(5):
        await fast.call.introspect(provider.mint(key=new))
    assert (fast_path_answers(fast), provider.jwks_requests) == (answered + 16, fetched + 1)
    assert (await fast.call.introspect(provider.mint())).json["active"] is True


async def test_requests_on_a_connection_stay_in_order(fast: Started, provider: Provider) -> None:
    """Requests after a waiting one, complete or in parts, are answered after it."""
    await fast.call.token()
    provider.published = [provider.key, ANOTHER]
    async with AsyncExitStack() as stack:
        crowd = Crowd(fast, provider, stack)
        await crowd.begin(3, token_request(), token_request()[:30])
        connection = crowd.connections[1]
        connection.send(token_request()[30:])
        await asyncio.sleep(0.05)
        assert [b"active" in answer for answer in await crowd.answers()] == [True] * 4
        for _ in range(2):
            assert b"access_token" in await connection.answer()
    assert fast_path_answers(fast) == 3 + 3 + 1, "introspections, tokens behind them, and one more in parts"


async def test_a_fetch_that_fails_answers_every_waiting_request(fast: Started, provider: Provider) -> None:
    """The provider returns an error: each waiting request is told that its token's key is unknown."""
    async with AsyncExitStack() as stack:
        crowd = Crowd(fast, provider, stack)
        await crowd.begin(5)
        provider.failing = True
        for answer in await crowd.answers():
            assert status(answer) == 200
            assert body(answer).startswith(b'{"active":false')


async def test_clients_that_leave_do_not_affect_others(
    fast: Started, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    """Some waiting clients close their connections; the others are answered, and nothing is logged."""
    provider.published = [provider.key, ANOTHER]
    async with AsyncExitStack() as stack:
        crowd = Crowd(fast, provider, stack)
        await crowd.begin(6)
        for connection in crowd.connections[1:4]:
            connection.close()
        crowd.connections[1:4] = []
        await waiting(fast, 3)
        for answer in await crowd.answers():
            assert body(answer).startswith(b'{"active":true')
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_waiting_is_not_being_idle(start: StartSidecar, provider: Provider) -> None:
    """A fetch that takes longer than the idle limit does not close waiting connections."""
    sidecar = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="200")
    provider.published = [provider.key, ANOTHER]
    async with AsyncExitStack() as stack:
        crowd = Crowd(sidecar, provider, stack)
        await crowd.begin(3)
        await asyncio.sleep(1)
        for answer in await crowd.answers():
            assert body(answer).startswith(b'{"active":true')


async def test_who_waits_is_answered_before_the_sidecar_ends(start: StartSidecar, provider: Provider) -> None:
    """SIGTERM while requests wait: they go to the slow path, and none is lost."""
    sidecar = await start()
    provider.published = [provider.key, ANOTHER]
    async with AsyncExitStack() as stack:
        crowd = Crowd(sidecar, provider, stack)
        await crowd.begin(4)
        stopping = asyncio.create_task(sidecar.running.stop())
        await asyncio.sleep(0.1)
        for answer in await crowd.answers():
            assert body(answer).startswith(b'{"active":true')
        await stopping


async def test_tokens_wait_for_the_very_first_keys(start: StartSidecar, provider: Provider) -> None:
    """The key set endpoint is slow when the sidecar starts: tokens that arrive in the meantime are not
    refused."""
    provider.keys_held = keys = asyncio.Event()
    sidecar = await start(ready=False)

    async def found() -> bool:
        return sidecar.running.service.served[0].validation is not None and provider.jwks_requests == 1

    await eventually(found)
    async with await Connection.to(sidecar) as connection:
        connection.send(introspection(provider.mint()))
        await waiting(sidecar, 1)
        keys.set()
        assert body(await connection.answer()).startswith(b'{"active":true')
    assert fast_path_answers(sidecar) == 1
