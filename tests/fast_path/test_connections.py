"""One connection over its life: what is counted while it works, and what is left when it ends at a bad
moment."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

import pytest

from entra_fast._native import Served
from entra_fast.sidecar.http.fast_path import FastPathProtocol
from support.fast_path import (
    TOKEN,
    Connection,
    body,
    connections,
    fast_path_answers,
    introspection,
    json_request,
    status,
    token_request,
)
from support.provider import Provider
from support.sidecars import Started, StartSidecar, eventually

PER_TURN = 128
"""Of rust/core/src/sidecar/fast_path.rs."""


async def test_a_connection_is_idle_after_several_answers_at_once(
    start: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests in one piece are answered together, and put off the idle limit together; then it holds."""
    fast = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="300")
    async with await Connection.to(fast) as connection:
        connection.send(introspection("a") * 3)
        assert [status(await connection.answer()) for _ in range(3)] == [200] * 3
        assert fast_path_answers(fast) == 3
        assert await connection.closed()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_connections_that_verify_one_token_at_a_time_never_wait_for_a_turn(
    fast: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass of the event loop may verify as many as fit into a turn: what earlier passes have verified
    does not count."""
    waits: list[object] = []
    monkeypatch.setattr(FastPathProtocol, "_wait_for_turn", waits.append)
    async with await Connection.to(fast) as connection:
        for number in range(2 * PER_TURN):
            assert status(await connection.ask(introspection(f"not.a.token{number}"))) == 200
    assert waits == []
    assert fast_path_answers(fast) == 2 * PER_TURN


async def test_a_connection_that_is_lost_before_its_turn_is_not_answered(
    fast: Started, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would read it, and nothing is logged."""
    connection = await Connection.to(fast)
    assert status(await connection.ask(introspection("a"))) == 200
    (protocol,) = connections(fast)
    turns = protocol._turns
    protocol._hold(introspection("b"))
    protocol._wait_for_turn()
    waiting, turns._waiting = turns._waiting, type(turns._waiting)()  # as if other connections came first
    before = fast_path_answers(fast)
    assert protocol.transport is not None
    protocol.transport.abort()  # as after a reset: what is not read is not seen to end

    async def lost() -> bool:
        return protocol.transport is None

    await eventually(lost)
    turns._waiting = waiting
    turns.due()

    async def begun() -> bool:
        return turns._next is None and not turns._waiting

    await eventually(begun)
    assert fast_path_answers(fast) == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    connection.close()


async def test_a_client_that_does_not_read_is_not_answered_at_its_turn(fast: Started) -> None:
    """What waits for its turn stays where it is until the client has read the answers before."""
    async with await Connection.to(fast) as connection:
        assert status(await connection.ask(introspection("a"))) == 200
        (protocol,) = connections(fast)
        protocol._hold(introspection("b"))
        protocol._wait_for_turn()
        protocol.pause_writing()  # as the transport does when its buffer is full
        before = fast_path_answers(fast)

        async def over() -> bool:
            return protocol._queued_since is None

        await eventually(over)
        await asyncio.sleep(0.01)
        assert fast_path_answers(fast) == before
        protocol.resume_writing()
        assert status(await connection.answer()) == 200
        assert fast_path_answers(fast) == before + 1


@pytest.mark.parametrize("wake", [FastPathProtocol._keys_were_fetched, FastPathProtocol._take_turn])
async def test_a_wake_up_that_nobody_waits_for_changes_nothing(
    fast: Started, wake: Callable[[FastPathProtocol], None]
) -> None:
    """The beginning of a request stays what it is; the rest completes it."""
    request = introspection("a")
    async with await Connection.to(fast) as connection:
        connection.send(request[:-1])
        await eventually(functools.partial(_holding, fast, len(request) - 1))
        (protocol,) = connections(fast)
        wake(protocol)
        assert len(protocol._held) == len(request) - 1
        connection.send(request[-1:])
        assert status(await connection.answer()) == 200
    assert fast_path_answers(fast) == 1


@pytest.mark.parametrize("wake", [FastPathProtocol._keys_were_fetched, FastPathProtocol._take_turn])
async def test_a_wake_up_of_a_lost_connection_changes_nothing(
    fast: Started, wake: Callable[[FastPathProtocol], None]
) -> None:
    """What it holds is not tried: nobody would read the answer."""
    connection = await Connection.to(fast)
    request = introspection("a")
    connection.send(request[:-1])
    await eventually(functools.partial(_holding, fast, len(request) - 1))
    (protocol,) = connections(fast)
    protocol.transport, transport = None, protocol.transport
    protocol._held += request[-1:]
    protocol._waiting_since = protocol._queued_since = 1.0
    wake(protocol)
    assert fast_path_answers(fast) == 0
    protocol.transport = transport
    connection.close()


async def test_requests_are_counted_wherever_they_are_answered(fast: Started, provider: Provider) -> None:
    """On one connection: alone, together, and by aiohttp."""
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        await connection.ask(token_request())
        (protocol,) = [each for each in connections(fast) if each._request_count]
        assert protocol._request_count == 1
        connection.send(token_request() * 3)
        for _ in range(3):
            await connection.answer()
        assert protocol._request_count == 4
        other = {"identity_provider": "entra_id", "target": "c:n:new"}
        assert status(await connection.ask(json_request(TOKEN, other))) == 200
        assert protocol._request_count == 5
        assert body(await connection.ask(token_request())) != b""
        assert protocol._request_count == 6


async def test_a_request_in_pieces_is_tried_when_it_is_whole(
    fast: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its head says how long it is: a large body in hundreds of pieces is not looked at for each of them."""
    calls: list[int] = []
    try_held = FastPathProtocol._try_held

    def counted(protocol: FastPathProtocol) -> None:
        calls.append(len(protocol._held))
        try_held(protocol)

    monkeypatch.setattr(FastPathProtocol, "_try_held", counted)
    request = introspection("a." + "b" * 20_000)
    async with await Connection.to(fast) as connection:
        begun = 300
        connection.send(request[:begun])
        for start in range(begun, len(request), 200):
            connection.send(request[start : start + 200])
            await connection.writer.drain()
            size = min(start + 200, len(request))
            await eventually(functools.partial(_arrived, fast, size, len(request)))
        assert status(await connection.answer()) == 200
    assert [size for size in calls if size < len(request)][1:] == []
    assert fast_path_answers(fast) == 1


async def _arrived(sidecar: Started, size: int, whole: int) -> bool:
    return size == whole or any(len(each._held) == size for each in connections(sidecar))


async def test_a_plain_request_is_answered_without_any_python(
    start: StartSidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first byte to its answer: the transport and native code talk to each other."""
    received: list[bytes] = []
    receive = FastPathProtocol._receive

    def recording(protocol: FastPathProtocol, data: bytes, served: Served | None = None) -> None:
        received.append(data)
        receive(protocol, data, served)

    monkeypatch.setattr(FastPathProtocol, "_receive", recording)
    fast = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    async with await Connection.to(fast) as connection:
        for _ in range(3):
            assert status(await connection.ask(introspection("a"))) == 200
        assert received == []
        connection.send(introspection("a") * 2)
        assert [status(await connection.answer()) for _ in range(2)] == [200, 200]
        assert len(received) == 1
        assert status(await connection.ask(introspection("a"))) == 200
        assert len(received) == 1


async def test_the_deadline_of_a_request_ends_with_its_answer(start: StartSidecar) -> None:
    """One that arrived in pieces leaves none behind for the connection that waits for the next."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="200")
    request = introspection("a")
    async with await Connection.to(fast) as connection:
        for _ in range(2):
            connection.send(request[:-1])
            await eventually(functools.partial(_holding, fast, len(request) - 1))
            connection.send(request[-1:])
            assert status(await connection.answer()) == 200
            await asyncio.sleep(0.3)
    assert await fast.metric("entra_fast_receive_timeouts_total") == 0


async def test_waiting_for_keys_is_not_receiving(start: StartSidecar, provider: Provider) -> None:
    """A request that arrived in pieces, and whose key takes longer than requests may take to arrive, is
    answered."""
    provider.keys_held = held = asyncio.Event()
    fast = await start(ready=False, ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="200")

    async def asking() -> bool:
        return fast.running.service.served[0].validation is not None and provider.jwks_requests == 1

    await eventually(asking)
    request = introspection(provider.mint())
    async with await Connection.to(fast) as connection:
        connection.send(request[:-1])
        await eventually(functools.partial(_holding, fast, len(request) - 1))
        connection.send(request[-1:])
        await eventually(functools.partial(_holding, fast, len(request)))
        await asyncio.sleep(0.3)
        held.set()
        assert b'"active":true' in body(await connection.answer())
    assert await fast.metric("entra_fast_receive_timeouts_total") == 0


async def _holding(sidecar: Started, size: int) -> bool:
    return any(len(each._held) == size for each in connections(sidecar))
