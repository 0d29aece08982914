"""The server below every application, with small applications that do what the real ones should not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from entra_fast._http.limits import MAX_HEAD_BYTES, Limits
from entra_fast._http.listener import bind
from entra_fast._http.protocol import StrictProtocol
from entra_fast._http.server import HttpServer, Way, serve

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Seen:
    """What an observer is told."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.connections = 0
        self.late = 0

    def refused(self, status: int) -> None:
        self.statuses.append(status)

    def connection_refused(self) -> None:
        self.connections += 1

    def not_received_in_time(self) -> None:
        self.late += 1

    def worked(self) -> None:
        """Not looked at here."""


@asynccontextmanager
async def serving(handler: Handler, seconds: float = 10.0) -> AsyncIterator[tuple[HttpServer, Seen]]:
    app, seen = web.Application(), Seen()
    app.router.add_route("*", "/", handler)
    limits = Limits(max_connections=10, request_timeout=seconds, idle_timeout=20.0)
    server = await serve(app, [bind("127.0.0.1", 0)], limits, seen, Way.SLOW_PATH, shutdown_time=0.1)
    try:
        yield server, seen
    finally:
        await server.aclose()


async def connect(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(str(server.addresses[0][1])))


async def ask(server: HttpServer, request: bytes = GET) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await connect(server)
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_a_failing_application_is_answered_and_logged_without_the_text_of_its_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """500 in one sentence; the log has the type and the place, not what the exception quotes."""

    async def fail(_: web.Request) -> web.StreamResponse:
        raise RuntimeError("canary")

    async with serving(fail) as (server, seen):
        head, _, body = (await ask(server)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body) == {"error": "server_error", "error_description": "unexpected error"}
    assert seen.statuses == [500]
    assert "RuntimeError in test_http_serving.py" in caplog.text
    assert "canary" not in caplog.text + body.decode()
    assert "Traceback" not in caplog.text


async def test_a_timeout_of_an_application_is_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp answers 504 then; here in the same form as other failures."""

    async def wait(_: web.Request) -> web.StreamResponse:
        raise TimeoutError("canary")

    async with serving(wait) as (server, _):
        assert (await ask(server)).startswith(b"HTTP/1.1 504 ")
    assert "a timeout" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("raised", "status", "body"),
    [
        (web.HTTPFound("/elsewhere"), 302, b"Location: /elsewhere"),
        (web.HTTPBadRequest(text="canary"), 400, b'"error_description":"bad request"'),
        (web.HTTPExpectationFailed(text="canary"), 417, b"100-continue"),
    ],
)
async def test_exceptions_that_are_responses(raised: web.HTTPException, status: int, body: bytes) -> None:
    """Redirects are sent as they are; refusals in one sentence of this server."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise raised

    async with serving(refuse) as (server, _):
        answer = await ask(server, GET.replace(b"Host", b"Connection: close\r\nHost"))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert body in answer
    assert b"canary" not in answer


async def test_an_application_that_fails_in_the_middle_of_its_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection ends; no second response is written into the first one."""

    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        raise RuntimeError("canary")

    async with serving(half) as (server, _):
        answer = await ask(server)
    assert answer.endswith(b"half")
    assert answer.count(b"HTTP/1.1") == 1
    assert "RuntimeError" in caplog.text


async def test_a_head_without_end_behind_a_request(caplog: pytest.LogCaptureFixture) -> None:
    """The request is answered, then the connection closes; the head is not kept."""
    answered = asyncio.Event()

    async def wait(_: web.Request) -> web.StreamResponse:
        await answered.wait()
        return web.Response(text="done")

    async with serving(wait) as (server, _):
        reader, writer = await connect(server)
        writer.write(GET)
        await asyncio.sleep(0.05)
        (protocol,) = server.connections
        assert isinstance(protocol, StrictProtocol)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(MAX_HEAD_BYTES // 10_000 + 2):
            writer.write(b"X-%d: %b\r\n" % (number, b"x" * 10_000))
            await writer.drain()
            await asyncio.sleep(0.01)
        assert len(protocol._head) <= MAX_HEAD_BYTES
        answered.set()
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert caplog.records == []


async def test_a_malformed_end_of_a_body_that_no_one_reads(caplog: pytest.LogCaptureFixture) -> None:
    """The response has gone out; the connection ends, and nothing is logged."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="early")

    async with serving(answer) as (server, _):
        reader, writer = await connect(server)
        writer.write(CHUNKED + b"4\r\n")
        assert (await reader.readuntil(b"early")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"canary\r\n")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
    assert caplog.records == []


async def test_what_else_happens_on_a_connection_is_logged_by_its_type(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """aiohttp reports some failures of its own; their text may quote a request."""

    async def nothing(_: web.Request) -> web.StreamResponse:
        return None  # type: ignore[return-value]

    async with serving(nothing) as (server, _):
        assert (await ask(server, GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(
            b"HTTP/1.1 500 "
        )
        reader, writer = await connect(server)
        while not server.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        server.connections[0].log_exception("canary", exc_info=ValueError("canary"))
        writer.close()
        assert await reader.read() == b""
    assert "unexpected error on a connection: ValueError in no frame" in caplog.text
    assert "canary" not in caplog.text


async def test_a_socket_that_cannot_be_served_is_closed() -> None:
    """And so are the others that were given with it. The error is the one that says what was wrong."""
    good, closed = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
    closed.close()
    limits = Limits(10, 10.0, 10.0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await serve(web.Application(), [good, closed], limits, Seen(), Way.SLOW_PATH)
    assert good.fileno() == -1


async def test_plain_aiohttp_refuses_the_same_heads() -> None:
    """Where private parts of aiohttp are missing, what its parser accepts is still checked."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="fine")

    app = web.Application()
    app.router.add_get("/", answer)
    server = await serve(app, [bind("127.0.0.1", 0)], Limits(10, 10.0, 10.0), Seen(), Way.PLAIN_AIOHTTP)
    try:
        close = GET.replace(b"Host", b"Connection: close\r\nHost")
        assert (await ask(server, close)).endswith(b"fine")
        for wrong in (
            close.replace(b"localhost", b"a@localhost"),
            close.replace(b"Host", b"X: %b\r\nY: %b\r\nHost" % (b"x" * 20_000, b"y" * 20_000)),
            close.replace(b"GET /", b"GET /%zz"),
        ):
            assert (await ask(server, wrong)).split(b" ")[1] in (b"400", b"431")
    finally:
        await server.aclose()


def test_the_loggers_of_this_package_are_used() -> None:
    """Its lines obey the settings of the sidecar's log, and can be told from aiohttp's."""
    assert logging.getLogger("entra_fast.http").parent is logging.getLogger("entra_fast")
