"""Clients that are slow, idle, unresponsive or too many: every wait and every buffer of the fast path is
bounded."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest
from aiohttp.web_protocol import MAX_MSG_QUEUE_SIZE

from entra_fast import _native
from entra_fast._http import server
from entra_fast._http.protocol import StrictProtocol
from entra_fast.sidecar.http.fast_path import MAX_HELD_BYTES, FastPathProtocol
from support.fast_path import (
    TARGET,
    TOKEN,
    Connection,
    connections,
    fast_path_answers,
    introspection,
    json_request,
    status,
    token_request,
)
from support.provider import Provider, after
from support.sidecars import Started, StartSidecar, eventually
from support.wire import Caller, read_answer, request_bytes

READ_AT_ONCE = 256_000
"""The most that uvloop reads at a time."""

# --- slow requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["nothing", "an answer of the fast path", "an answer of the slow path"])
@pytest.mark.parametrize("arrived", [1, 60, -1], ids=["a byte", "half a head", "all but a byte"])
async def test_a_request_that_stays_unfinished_is_408(start: StartSidecar, before: str, arrived: int) -> None:
    """After the deadline, the connection ends with 408; also after earlier requests on the connection."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="150")
    async with await Connection.to(fast) as connection:
        if before != "nothing":
            await connection.ask(introspection("a") if "fast" in before else request_bytes("GET", "/nowhere"))
        connection.send(token_request()[:arrived])
        assert status(await connection.answer()) == 408
        assert await connection.closed()
    assert await fast.metric("entra_fast_receive_timeouts_total") == 1


@pytest.mark.parametrize("cut", [False, True], ids=["one piece", "two pieces"])
async def test_nothing_hides_behind_an_upgrade(start: StartSidecar, cut: bool) -> None:
    """aiohttp keeps aside what follows an offer of web sockets, and the beginning of a request there would
    have no deadline: the connection ends with the answer."""
    upgrade = request_bytes("GET", "/nowhere", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    connect = b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for way in ("true", "false"):
        sidecar = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="300", ENTRA_FAST_FAST_PATH=way)
        for request, expected in ((upgrade, 404), (connect, 400)):
            async with await Connection.to(sidecar) as connection:
                connection.send(request)
                if cut:
                    await asyncio.sleep(0)
                connection.send(token_request()[:-1])
                assert [status(answer) for answer in await connection.rest()] == [expected]


async def test_the_deadline_counts_from_the_first_byte(start: StartSidecar) -> None:
    """Neither further bytes nor an earlier complete request move it: a trickle ends."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="300")
    request = json_request(TOKEN, b'{"x":"' + b"x" * 100_000 + b'"}')
    async with await Connection.to(fast) as connection:

        async def trickle() -> None:
            connection.send(introspection("a") + request[:300])
            for position in range(300, len(request)):
                connection.send(request[position : position + 1])
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        try:
            assert [status(answer) for answer in await connection.rest()] == [200, 408]
        finally:
            trickling.cancel()


async def test_a_request_in_pieces_is_not_idle(start: StartSidecar) -> None:
    """The idle limit does not cut a request that is arriving; the request's own deadline decides."""
    fast = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="100", ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="20000")
    request = introspection("a")
    async with await Connection.to(fast) as connection:
        for start_at in range(0, len(request), 30):
            connection.send(request[start_at : start_at + 30])
            await asyncio.sleep(0.06)
        assert status(await connection.answer()) == 200
        assert await connection.closed()  # idle after that
    assert fast_path_answers(fast) == 1


async def test_a_slow_request_does_not_cost_the_answer_before_it(
    start: StartSidecar, provider: Provider
) -> None:
    """When the deadline of a request ends while an earlier one waits for the provider, the earlier one is
    answered. Then the connection ends without a 408, which would be taken for that answer."""
    slow = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="150", ENTRA_FAST_FAST_PATH="false")
    release = asyncio.Event()
    provider.then(after(release, provider))
    async with await Connection.to(slow) as connection:
        connection.send(token_request())
        await slow.received(1)
        connection.send(token_request()[:20])
        await eventually(lambda: _timed_out(slow))
        release.set()
        assert [status(answer) for answer in await connection.rest()] == [200]


async def _timed_out(sidecar: Started) -> bool:
    return await sidecar.metric("entra_fast_receive_timeouts_total") == 1


async def test_the_deadline_does_not_end_a_request_that_the_sidecar_does_not_read(
    start: StartSidecar, provider: Provider
) -> None:
    """Behind so many requests that the sidecar stops reading, the rest of a body cannot arrive: it is waited
    for until it is read, and every request is answered."""
    slow = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="500", ENTRA_FAST_FAST_PATH="false")
    release = asyncio.Event()
    provider.then(after(release, provider))
    between = [request_bytes("GET", "/nowhere")] * (MAX_MSG_QUEUE_SIZE - 1)
    async with await Connection.to(slow) as connection:
        connection.send(token_request())
        await slow.received(1)
        (protocol,) = [c for c in slow.running.api.connections if c._request_in_progress]
        assert isinstance(protocol, StrictProtocol)
        connection.send(b"".join(between) + introspection("a")[:-1])
        await eventually(lambda: _not_read(protocol))
        first = protocol._deadline
        await eventually(lambda: _has_another_deadline(protocol, first))
        connection.send(introspection("a")[-1:])
        release.set()
        answers = [await connection.answer() for _ in range(len(between) + 2)]
        assert [status(answer) for answer in answers] == [200, *(404 for _ in between), 200]
    assert await slow.metric("entra_fast_receive_timeouts_total") == 0


async def _not_read(protocol: StrictProtocol) -> bool:
    return protocol._buffer_paused and protocol._deadline is not None


async def _has_another_deadline(protocol: StrictProtocol, first: asyncio.TimerHandle | None) -> bool:
    return protocol._deadline not in (None, first)


async def test_a_deadline_means_nothing_on_a_connection_that_is_closing(
    start: StartSidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sidecar that stops waits for the answer of the provider, and for no further request: the beginning
    of one does not count as received too late."""
    monkeypatch.setattr(server, "SHUTDOWN_TIME", 20.0)
    slow = await start(
        ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="1000",
        ENTRA_FAST_FAST_PATH="false",
        PROBE_BIND_ADDRESS="127.0.0.1:0",
    )
    release = asyncio.Event()
    provider.then(after(release, provider))
    async with await Connection.to(slow) as connection:
        connection.send(token_request())
        await slow.received(1)
        (protocol,) = [c for c in slow.running.api.connections if c._request_in_progress]
        assert isinstance(protocol, StrictProtocol)
        connection.send(token_request()[:20])
        await eventually(lambda: _has_another_deadline(protocol, None))
        stopping = asyncio.create_task(slow.running.stop())
        await eventually(lambda: _deadline_is_over(protocol))
        assert await slow.metric("entra_fast_receive_timeouts_total") == 0
        assert not stopping.done()
        release.set()
        await stopping


async def _deadline_is_over(protocol: StrictProtocol) -> bool:
    return protocol._deadline is None


async def test_an_early_answer_is_not_followed_by_another(start: StartSidecar) -> None:
    """If a body never arrives after its request was answered, the connection ends without a 408, which the
    client would take for the response to its next request."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="150")
    async with await Connection.to(fast) as connection:
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nbegun")
        assert [status(answer) for answer in await connection.rest()] == [200]


async def test_a_slow_body_leaves_no_error_in_the_log(
    start: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that sends half a body must not fill the log, on the slow path either."""
    slow = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="100", ENTRA_FAST_FAST_PATH="false")
    async with await Connection.to(slow) as connection:
        connection.send(token_request()[:-1])
        assert [status(answer) for answer in await connection.rest()] == [408]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("last", ["fast", "slow path", "none"])
async def test_an_idle_connection_is_closed(start: StartSidecar, last: str) -> None:
    """Whatever it did before, silently."""
    fast = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="150")
    async with await Connection.to(fast) as connection:
        if last != "none":
            await connection.ask(introspection("a") if last == "fast" else request_bytes("GET", "/nowhere"))
        assert await connection.closed()


async def test_answers_of_the_fast_path_put_off_the_idle_limit(start: StartSidecar) -> None:
    """A connection in use is not idle, although aiohttp sees none of its requests."""
    fast = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="400")
    async with await Connection.to(fast) as connection:
        for _ in range(30):
            assert status(await connection.ask(introspection("a"))) == 200
            await asyncio.sleep(0.03)
    assert fast_path_answers(fast) == 30


# --- clients that do not read, or send without end -------------------------------------------------------


async def flood(sidecar: Started, data: bytes) -> tuple[socket.socket, int]:
    """Send until the sidecar takes no more. The connection, and how many bytes went out."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, (sidecar.call.host, sidecar.call.port))
    sent = 0
    while True:
        try:
            async with asyncio.timeout(0.5):
                await loop.sock_sendall(client, data)
        except TimeoutError:
            return client, sent
        sent += len(data)
        assert sent < 200_000_000, "the sidecar reads without end"


async def test_a_client_that_never_reads_is_not_read_from(fast: Started, provider: Provider) -> None:
    """What waits is bounded on every side: bytes of requests, and answers. When it reads at last, it gets an
    answer to each request, in order."""
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    one = token_request()
    batch = one * 500
    client, sent = await flood(fast, batch)
    (protocol,) = [c for c in connections(fast) if c._held]
    assert len(protocol._held) <= MAX_HELD_BYTES + READ_AT_ONCE
    assert protocol._stopped_reading
    assert protocol.transport is not None
    assert protocol.transport.get_write_buffer_size() < 300_000
    answered = fast_path_answers(fast)
    await asyncio.sleep(0.05)
    assert fast_path_answers(fast) == answered, "it keeps answering"
    # The last piece went out in part: read until all whole requests are answered.
    reader, writer = await asyncio.open_connection(sock=client)
    expected = (await fast.call.send(one)).body
    for _ in range(sent // len(one)):
        assert (await read_answer(reader)).body == expected
    writer.close()


async def test_requests_behind_one_that_waits_are_bounded(fast: Started, provider: Provider) -> None:
    """While the provider is asked, a client can send only a limited amount, although aiohttp allows reading
    again each time a body is complete."""
    release = asyncio.Event()
    provider.then(after(release, provider))
    client, _ = await flood(fast, token_request("api://c.n.slow/.default") * 200)
    (protocol,) = [c for c in connections(fast) if c._held]
    assert protocol._stopped_reading
    assert len(protocol._held) <= MAX_HELD_BYTES + READ_AT_ONCE
    client.close()
    release.set()
    await eventually(lambda: _alone(fast))


async def test_aiohttp_does_not_undo_that_the_fast_path_stopped_reading(fast: Started) -> None:
    """The transport stays paused until the fast path has processed the bytes it holds, even if aiohttp
    resumes reading."""
    async with await Connection.to(fast) as connection:
        await connection.ask(introspection("a"))
        (protocol,) = [c for c in connections(fast) if c._request_count]
        assert protocol.transport is not None
        protocol._hold(b"x" * (MAX_HELD_BYTES + 1))
        assert not protocol.transport.is_reading()
        protocol.resume_reading(resume_parser=False)  # as at the end of every body
        assert not protocol.transport.is_reading()
        protocol._release_held()
        assert protocol.transport.is_reading()


async def test_the_fast_path_does_not_undo_that_aiohttp_stopped_reading(fast: Started) -> None:
    """If both have stopped reading, the transport stays paused until aiohttp has room, too."""
    async with await Connection.to(fast) as connection:
        await connection.ask(introspection("a"))
        (protocol,) = [c for c in connections(fast) if c._request_count]
        assert protocol.transport is not None
        protocol._hold(b"x" * (MAX_HELD_BYTES + 1))
        protocol._pause_reading_for_buffer()  # as for a full queue of requests
        protocol._release_held()
        assert not protocol.transport.is_reading()
        protocol._resume_reading_for_buffer()
        assert protocol.transport.is_reading()


async def test_a_closed_connection_is_freed_at_once(fast: Started) -> None:
    """Its objects do not refer to one another in a circle, so that memory under churn does not wait for the
    cyclic collector, which the sidecar makes come seldom."""

    def alive() -> int:
        # By type(): isinstance() asks lazy objects of other libraries for their class, and they may refuse.
        counted = {FastPathProtocol, _native.FastPathReceiver}
        return sum(type(thing) in counted for thing in gc.get_objects())

    async def freed() -> bool:
        return alive() <= before

    gc.collect()
    before = alive()
    gc.disable()
    try:
        for _ in range(3):
            async with await Connection.to(fast) as connection:
                await connection.ask(introspection("a"))
                assert alive() > before
        await eventually(freed)
    finally:
        gc.enable()


async def test_a_client_that_never_reads_is_cut_off(start: StartSidecar) -> None:
    """After the idle limit, on both ways, so that it cannot keep connections forever."""
    for on in ("true", "false"):
        sidecar = await start(
            ENTRA_FAST_FAST_PATH=on, ENTRA_FAST_IDLE_TIMEOUT_MILLIS="500", PROBE_BIND_ADDRESS="127.0.0.1:0"
        )
        await sidecar.call.token()
        try:
            client, _ = await flood(sidecar, token_request() * 500)
        except ConnectionError:
            pass  # so quick
        else:
            await eventually(lambda sidecar=sidecar: _alone(sidecar))  # type: ignore[misc]
            client.close()


async def _alone(sidecar: Started) -> bool:
    return not sidecar.running.api.connections


async def test_a_client_that_reads_late_gets_all(fast: Started) -> None:
    """Writing pauses and resumes many times; answers stay whole and in order."""
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    kinds = [token_request(), introspection("b" * 3000), request_bytes("GET", "/nowhere")]
    reader, writer = await asyncio.open_connection(fast.call.host, fast.call.port, limit=2048)
    async with await Connection.to(fast) as connection:
        expected = [(await connection.ask(kind)).partition(b"\r\n\r\n")[2] for kind in kinds]
    rounds = 3000

    async def send() -> None:
        for _ in range(rounds):
            writer.write(b"".join(kinds))
            await writer.drain()

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.2)
    for number in range(rounds):
        for body in expected:
            assert (await read_answer(reader)).body == body, number
    await sending
    writer.close()


async def test_a_client_that_reads_again_comes_back_to_the_fast_path(fast: Started) -> None:
    """Writing pauses while no request waits. Once the client reads, the next request takes the fast path."""
    await fast.call.token()
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (fast.call.host, fast.call.port))
        before = fast_path_answers(fast)
        sent = 0
        protocol: FastPathProtocol | None = None
        while protocol is None or not protocol._paused:
            await loop.sock_sendall(client, token_request())
            sent += 1
            await eventually(lambda: _answered(fast, before + sent))  # noqa: B023
            (protocol,) = [c for c in connections(fast) if c._request_count]
            assert protocol.transport is not None
            if sent == 1:  # the kernel would buffer several megabytes
                held_by = protocol.transport.get_extra_info("socket")
                held_by.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        assert not protocol._held
        reader, writer = await asyncio.open_connection(sock=client)
        for _ in range(sent):
            assert (await read_answer(reader)).status == 200
        writer.write(token_request())
        assert (await read_answer(reader)).status == 200
        assert fast_path_answers(fast) == before + sent + 1
        writer.close()


async def _answered(sidecar: Started, requests: int) -> bool:
    return fast_path_answers(sidecar) == requests


# --- connections -----------------------------------------------------------------------------------------


async def test_a_refused_connection_gets_no_answer_from_the_fast_path(start: StartSidecar) -> None:
    """Above the limit: 503, and what the client sent is not looked at."""
    fast = await start(ENTRA_FAST_MAX_CONNECTIONS="2", PROBE_BIND_ADDRESS="127.0.0.1:0")
    await fast.call.token()
    await eventually(lambda: _alone(fast))
    held = [await Connection.to(fast) for _ in range(2)]
    for connection in held:
        await connection.ask(token_request())
    before = fast_path_answers(fast)
    for _ in range(10):
        async with await Connection.to(fast) as refused:
            refused.send(token_request())
            assert [status(answer) for answer in await refused.rest()] in ([503], [])
    assert fast_path_answers(fast) == before
    for connection in held:
        assert status(await connection.ask(token_request())) == 200
        connection.close()
    assert fast_path_answers(fast) == before + 2


@pytest.mark.parametrize("sent", [1, 60, -1, None], ids=["a byte", "half a head", "nearly all", "all"])
async def test_a_client_that_goes_away_leaves_nothing(
    fast: Started, sent: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a request, or without waiting for the answer, with a FIN or a RST."""
    for reset in (False, True):
        connection = await Connection.to(fast)
        connection.send(token_request()[:sent] if sent else introspection("a"))
        await asyncio.sleep(0.01)
        if reset:
            connection.writer.transport.abort()
        connection.close()
    await eventually(lambda: _alone(fast))
    assert (await fast.call.introspect("a")).status == 200
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


async def test_what_follows_the_end_is_not_read(fast: Started) -> None:
    """After a response that ends the connection, later requests are not answered."""
    await fast.call.token()
    before = fast_path_answers(fast)
    async with await Connection.to(fast) as connection:
        connection.send(
            request_bytes("GET", "/nowhere", headers={"Connection": "close"}) + token_request() * 50
        )
        assert [status(answer) for answer in await connection.rest()] == [404]
    assert fast_path_answers(fast) == before


async def test_many_connections_do_not_mix(fast: Started) -> None:
    """A hundred at once, each with different requests: each gets its own responses."""

    async def one(number: int) -> None:
        caller = Caller(fast.running.address)
        reader, writer = await caller.connect()
        for round_ in range(20):
            target = f"api://c.n.a{number % 5}/.default"
            fields = {"identity_provider": "entra_id", "target": target, "mark": f"{number}-{round_}"}
            writer.write(json_request(TOKEN, fields) + introspection("x." * (number % 7)))
            token, inactive = await read_answer(reader), await read_answer(reader)
            assert tokens.setdefault(target, token.json["access_token"]) == token.json["access_token"]
            assert inactive.json["active"] is False
        writer.close()

    tokens: dict[str, str] = {}
    await asyncio.gather(*(one(number) for number in range(100)))
    assert len(set(tokens.values())) == 5
    assert fast_path_answers(fast) > 3000
    assert TARGET not in tokens
