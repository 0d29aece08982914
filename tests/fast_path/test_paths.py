"""Which path answers: the fast path from the first request on, the slow path where it must, the fast path
again after that; and the metrics are the same with either."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import signal
from collections.abc import Callable

import pytest

from entra_fast.sidecar.logs import JsonLines
from support.fast_path import (
    EXCHANGE,
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
from support.process import served
from support.provider import Provider, after, reset
from support.sidecars import Started, StartSidecar, eventually
from support.wire import Caller, request_bytes

SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_the_first_request_of_a_connection_takes_the_fast_path(fast: Started) -> None:
    """On each of several new connections."""
    await fast.call.token()
    for number in range(1, 6):
        async with await Connection.to(fast) as connection:
            await connection.ask(token_request())
        assert fast_path_answers(fast) == number


@pytest.mark.parametrize(
    "slow_path",
    [
        request_bytes("GET", "/nowhere"),
        request_bytes("POST", "/nowhere", b"some body"),
        json_request(TOKEN, {"identity_provider": "entra_id"}),
        token_request("api://c.n.missing/.default"),
        token_request(Origin="null"),
        json_request(TOKEN, b'{"x":"' + b"x" * 131_000 + b'"}'),
    ],
    ids=["unknown path", "with a body", "an error", "a miss", "refused", "a large one"],
)
async def test_a_connection_comes_back_to_the_fast_path(fast: Started, slow_path: bytes) -> None:
    """After each request of the slow path the next plain one takes the fast path, on the same connection."""
    async with await Connection.to(fast) as connection:
        await connection.ask(token_request())
        for number in range(1, 6):
            before = fast_path_answers(fast)
            await connection.ask(slow_path)
            counted = fast_path_answers(fast) - before  # a miss is a hit the second time
            assert counted == (1 if number > 1 and b"missing" in slow_path else 0)
            await connection.ask(introspection("a"))
            assert fast_path_answers(fast) - before == counted + 1
        (protocol,) = [c for c in connections(fast) if c._request_count]
        assert protocol._request_count == 11


async def test_a_body_larger_than_aiohttp_buffers_is_read_to_its_end(fast: Started) -> None:
    """aiohttp pauses its own parser when a body is not read, here right at the end, and resumes it by giving
    it no bytes at all: the fast path allows that. So a request after an ignored body of any size is
    answered."""
    async with await Connection.to(fast) as connection:
        for number, size in enumerate((300_000, 530_000, 600_000, 770_000, 5_000_000), 1):
            connection.send(request_bytes("GET", "/healthz", b"x" * size))
            assert status(await connection.answer()) == 200
            assert status(await connection.ask(introspection("a"))) == 200
            assert fast_path_answers(fast) == number


async def test_what_only_a_parser_can_frame_is_aiohttps_for_good(fast: Started) -> None:
    """After a chunked request nothing on that connection takes the fast path; new connections do."""
    await fast.call.token()
    head = b"POST /api/v1/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = json.dumps({"identity_provider": "entra_id", "target": TARGET}).encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with await Connection.to(fast) as connection:
        for request in (chunked, token_request(), chunked, introspection("a")):
            assert status(await connection.ask(request)) == 200
        assert fast_path_answers(fast) == 0
        async with await Connection.to(fast) as another:
            await another.ask(token_request())
        assert fast_path_answers(fast) == 1


async def test_the_fast_path_waits_while_the_slow_path_answers(fast: Started, provider: Provider) -> None:
    """A request that the fast path could answer at once does not overtake one that waits for the provider."""
    await fast.call.token()
    release = asyncio.Event()
    provider.then(after(release, provider))
    async with await Connection.to(fast) as connection:
        connection.send(token_request("api://c.n.slow/.default"))
        await provider.asked(2)
        for part in (token_request()[:20], token_request()[20:], introspection("a")):
            connection.send(part)
            await asyncio.sleep(0.01)
        assert fast_path_answers(fast) == 0
        release.set()
        answers = [await connection.answer() for _ in range(3)]
        assert [b"access_token" in got for got in answers] == [True, True, False]
    assert fast_path_answers(fast) == 2


async def test_renewal_is_triggered_from_the_fast_path_without_delay(
    fast: Started, provider: Provider
) -> None:
    """The caller that finds a token due gets the cached one while the provider has not answered yet; later
    ones get the new one. One request to the provider."""
    first = (await fast.call.token()).json["access_token"]
    release = asyncio.Event()
    provider.then(after(release, provider))
    fast.clock.advance(3400)
    before = fast_path_answers(fast)
    for _ in range(3):
        assert (await fast.call.token()).json["access_token"] == first
    assert fast_path_answers(fast) - before == 3
    await provider.asked(2)
    release.set()
    await eventually(lambda: _renewed(fast))
    assert (await fast.call.token()).json["access_token"] != first
    assert fast_path_answers(fast) - before == 4
    assert len(provider.requests) == 2


async def test_renewal_of_an_exchanged_token_is_triggered_from_the_fast_path(
    fast: Started, provider: Provider
) -> None:
    """On behalf of the same user, with that user's token."""
    user = provider.mint(exp=4_000_000_000)
    first = (await fast.call.exchange(user)).json["access_token"]
    fast.clock.advance(3400)
    before = fast_path_answers(fast)
    assert (await fast.call.exchange(user)).json["access_token"] == first
    assert fast_path_answers(fast) - before == 1
    await eventually(lambda: _renewed(fast))
    assert provider.requests[-1].form["assertion"] == user
    assert (await fast.call.exchange(user)).json["access_token"] != first


async def test_a_renewal_that_fails_costs_no_answer(fast: Started, provider: Provider) -> None:
    """The fast path keeps returning the cached token."""
    first = (await fast.call.token()).json["access_token"]
    provider.always = reset()
    fast.clock.advance(3400)
    before = fast_path_answers(fast)
    for _ in range(5):
        assert (await fast.call.token()).json["access_token"] == first
        await asyncio.sleep(0.01)
    assert fast_path_answers(fast) - before == 5


async def _renewed(sidecar: Started) -> bool:
    return await sidecar.metric('entra_fast_renewals_total{outcome="ok"}') > 0


async def test_metrics_count_what_the_fast_path_answers(start: StartSidecar, provider: Provider) -> None:
    """The same traffic gives the same counts with the fast path and without, cache statistics included."""
    series = [
        *(
            f'entra_fast_requests_total{{endpoint="{name}",status="200"}}'
            for name in ("token", "exchange", "introspect")
        ),
        'entra_fast_requests_total{endpoint="token",status="400"}',
        'entra_fast_requests_total{endpoint="other",status="404"}',
        'entra_fast_introspections_total{active="true"}',
        'entra_fast_introspections_total{active="false"}',
        *(
            f'entra_fast_request_duration_seconds_count{{endpoint="{name}"}}'
            for name in ("token", "exchange", "introspect")
        ),
        'entra_fast_request_duration_seconds_bucket{endpoint="token",le="+Inf"}',
        *(f"entra_fast_token_cache_{name}" for name in ("entries", "hits_total", "misses_total")),
        *(f"entra_fast_verified_cache_{name}" for name in ("entries", "hits_total", "misses_total")),
        'entra_fast_upstream_requests_total{grant="client_credentials",outcome="ok"}',
    ]
    token, user, figures = provider.mint(), provider.mint(exp=4_000_000_000), []
    for on in ("true", "false"):
        sidecar = await start(ENTRA_FAST_FAST_PATH=on, PROBE_BIND_ADDRESS="127.0.0.1:0")
        async with await Connection.to(sidecar) as connection:
            for _ in range(4):
                await connection.ask(token_request())
                await connection.ask(introspection(token))
                await connection.ask(introspection("junk"))
                fields = {"identity_provider": "entra_id", "target": TARGET, "user_token": user}
                await connection.ask(json_request(EXCHANGE, fields))
            await connection.ask(json_request(TOKEN, {"identity_provider": "entra_id", "target": ""}))
            await connection.ask(request_bytes("GET", "/nowhere"))
            connection.send(token_request() * 3)
            for _ in range(3):
                await connection.answer()
            (protocol,) = sidecar.running.api.connections
            assert protocol._request_count == 21
        assert fast_path_answers(sidecar) == (17 if on == "true" else 0)
        figures.append({name: await sidecar.metric(name) for name in series})
    assert figures[0] == figures[1]
    assert figures[0][series[0]] == 7
    assert figures[0]["entra_fast_token_cache_misses_total"] == 2


async def test_the_access_log_has_a_line_for_each(
    start: StartSidecar, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same lines, except for time and duration, with the fast path and without, in the form of all log
    lines; they are written soon without further requests."""
    seen = []
    form = json.loads(
        JsonLines().format(
            logging.makeLogRecord({"name": "entra_fast", "levelname": "INFO", "msg": "request"})
        )
    )
    for on in ("true", "false"):
        sidecar = await start(
            ENTRA_FAST_FAST_PATH=on, ENTRA_FAST_ACCESS_LOG="true", PROBE_BIND_ADDRESS="127.0.0.1:0"
        )
        await sidecar.call.token()
        await _access_lines(capfd, lambda lines: any(TOKEN in line for line in lines))
        async with await Connection.to(sidecar) as connection:
            connection.send(
                token_request() + introspection("canary") + request_bytes("GET", "/canary?canary")
            )
            connection.send(token_request())
            for _ in range(4):
                await connection.answer()
        lines = await _access_lines(capfd, lambda lines: len(lines) >= 4)
        assert fast_path_answers(sidecar) == (3 if on == "true" else 0)
        assert not any("canary" in line for line in lines)
        records = [json.loads(line) for line in lines]
        for record in records:
            assert 0 <= record.pop("milliseconds") < 60_000
            when = datetime.datetime.fromisoformat(record.pop("time"))
            assert abs(when - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=1)
            assert record.items() >= {name: form[name] for name in ("level", "logger", "message")}.items()
        seen.append(sorted(json.dumps(record) for record in records))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 4


async def _access_lines(capfd: pytest.CaptureFixture[str], enough: Callable[[list[str]], bool]) -> list[str]:
    """The lines, once there are enough."""
    text = ""

    async def written() -> bool:
        nonlocal text
        text += capfd.readouterr().err
        return enough(text.splitlines())

    await eventually(written)
    return text.splitlines()


async def test_a_sampled_trace_costs_nothing_while_tracing_is_off(fast: Started) -> None:
    """No one would create the spans, so the fast path answers."""
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        await connection.ask(token_request(traceparent=SAMPLED))
    assert fast_path_answers(fast) == 1


# --- on and off ------------------------------------------------------------------------------------------


async def test_the_gauge_says_whether_there_is_a_fast_path(fast: Started, slow: Started) -> None:
    """1 with, 0 without; and without it nothing is counted there."""
    for sidecar, expected in ((fast, 1), (slow, 0)):
        assert await sidecar.metric("entra_fast_fast_path") == expected
        assert (await sidecar.call.introspect("a")).status == 200
        assert fast_path_answers(sidecar) == expected


async def test_no_fast_path_on_the_command_line(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """`entra-fast serve --no-fast-path` serves the same API."""
    async with served() as serve:
        for arguments, expected in ((("--no-fast-path",), 0.0), ((), 1.0)):
            process = await serve(provider.environment(), *arguments)
            caller = await process.listening()
            assert (await caller.introspect("a")).status == 200
            assert await _gauge(caller) == expected
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0


async def _gauge(caller: Caller) -> float:
    text = (await caller.get("/metrics")).body.decode()
    return float(
        next(line.split()[1] for line in text.splitlines() if line.startswith("entra_fast_fast_path "))
    )


async def test_while_draining_everything_takes_the_slow_path(fast: Started) -> None:
    """Responses say that the connection ends, so that clients go elsewhere; a request that had begun to
    arrive is also answered."""
    await fast.call.token()
    begun, idle = await Connection.to(fast), await Connection.to(fast)
    for connection in (begun, idle):
        await connection.ask(token_request())
    begun.send(token_request()[:50])
    before = fast_path_answers(fast)
    await eventually(lambda: _holding(fast, 50))
    fast.running.service.draining = True
    fast.running.api.leave_fast_path()
    assert await fast.metric("entra_fast_fast_path") == 0
    begun.send(token_request()[50:])
    idle.send(token_request())
    for connection in (begun, idle, await Connection.to(fast)):
        if connection not in (begun, idle):
            connection.send(introspection("a"))
        answer = await connection.answer()
        assert status(answer) == 200
        assert b"Connection: close\r\n" in answer
        assert await connection.closed()
    assert fast_path_answers(fast) == before


async def _holding(sidecar: Started, size: int) -> bool:
    return any(len(connection._held) == size for connection in connections(sidecar))
