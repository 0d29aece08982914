"""Overload: more tokens to verify than there is time for. No connection keeps the others waiting for long."""

from __future__ import annotations

import asyncio

import pytest

from entra_fast.sidecar.http.fast_path import FastPathProtocol
from support.fast_path import Connection, body, connections, fast_path_answers, introspection, token_request
from support.provider import Provider
from support.sidecars import Started, StartSidecar, eventually

PER_CALL, PER_TURN = 32, 128
"""Of rust/core/src/sidecar/fast_path.rs."""


def unseen(count: int) -> bytes:
    """Requests that each need a verification. Their token is cheap to reject."""
    return introspection("not.a.token") * count


async def answers(connection: Connection, count: int) -> list[bytes]:
    return [body(await connection.answer()) for _ in range(count)]


async def test_pipelined_requests_do_not_keep_other_connections_waiting(fast: Started) -> None:
    """One connection sends hundreds of tokens at once; one that asks for a token later is answered long
    before the last of them. Every answer is right, and in order."""
    count = 40 * PER_CALL
    await fast.call.token()
    async with await Connection.to(fast) as greedy, await Connection.to(fast) as modest:
        assert body(await modest.ask(introspection("a")))
        before = fast_path_answers(fast)
        greedy.send(unseen(count))
        await greedy.answer()
        modest.send(token_request())
        await modest.answer()
        served = fast_path_answers(fast) - before
        assert served < count // 2, "it had to wait for the pipelined requests"
        rest = await answers(greedy, count - 1)
        assert {b'"active":false' in each for each in rest} == {True}
        assert fast_path_answers(fast) == before + count + 1


async def test_connections_share_a_turn(fast: Started) -> None:
    """With many connections that send hundreds of tokens each, those that sent first do not go first until
    they are done: all get on alike."""
    per_connection, crowd = 10 * PER_CALL, 12
    opened = [await Connection.to(fast) for _ in range(crowd)]
    finished: list[tuple[int, int]] = []

    async def ask(number: int, connection: Connection) -> None:
        connection.send(unseen(per_connection))
        await answers(connection, per_connection // 4)
        finished.append((number, 1))
        await answers(connection, per_connection - per_connection // 4)
        finished.append((number, 4))

    await asyncio.gather(*(ask(number, connection) for number, connection in enumerate(opened)))
    quarter_done = [position for position, (_, part) in enumerate(finished) if part == 1]
    assert max(quarter_done) < crowd + 2, f"some waited for others to finish: {finished}"
    assert fast_path_answers(fast) == crowd * per_connection
    for connection in opened:
        connection.close()


async def test_a_connection_that_waits_for_its_turn_is_not_read(
    fast: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends stays in the kernel, whose buffer is small: a thousand such connections need little
    memory. Afterwards it is read again."""
    held: list[tuple[bool, int]] = []
    wait = FastPathProtocol._wait_for_turn

    def recording(protocol: FastPathProtocol) -> None:
        wait(protocol)
        held.append((protocol._stopped_reading, len(protocol._held)))

    monkeypatch.setattr(FastPathProtocol, "_wait_for_turn", recording)
    async with await Connection.to(fast) as connection:
        connection.send(unseen(3000))
        await answers(connection, 3000)
        assert (await connection.ask(introspection("a"))).startswith(b"HTTP/1.1 200")
    assert all(stopped for stopped, _ in held)
    assert 0 < max(size for _, size in held) < 100_000


async def test_waiting_for_a_turn_is_not_receiving(start: StartSidecar, provider: Provider) -> None:
    """The deadline to receive a request does not end one that has arrived and waits for its turn."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="50")
    async with await Connection.to(fast) as connection:
        request = introspection(provider.mint())
        connection.send(request[:-1])

        async def arriving() -> bool:
            return any(each._deadline is not None for each in connections(fast))

        await eventually(arriving)
        (protocol,) = connections(fast)
        native = fast.running.service.fast_path
        assert native is not None
        # As if other connections had used up the turn, and the next one came late.
        protocol._wait_for_turn()
        taken, protocol._turns._waiting = protocol._turns._waiting, type(protocol._turns._waiting)()
        first = protocol._deadline

        async def put_off() -> bool:
            return protocol._deadline is not first

        await eventually(put_off)
        connection.send(request[-1:])
        protocol._turns._waiting = taken
        protocol._turns.due()
        assert b'"active":true' in body(await connection.answer())
    assert await fast.metric("entra_fast_receive_timeouts_total") == 0
