"""Where a request ends: there is never a second opinion. Splits, pipelines, malformed and smuggled requests
over real connections; the recogniser against aiohttp's parser, directly.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from types import SimpleNamespace

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from entra_fast import _native
from entra_fast._http.protocol import StrictProtocol
from entra_fast._native import Stop
from entra_fast._settings.load import Settings
from entra_fast.sidecar.providers import contract_of
from support.fast_path import (
    TARGET,
    TOKEN,
    Connection,
    body,
    connections,
    fast_path_answers,
    form_request,
    introspection,
    json_request,
    status,
    token_request,
)
from support.keys import Key
from support.provider import Provider, answer
from support.sidecars import Started, StartSidecar
from support.wire import request_bytes

# --- one request in several pieces -----------------------------------------------------------------------


def whole_corpus(provider: Provider) -> dict[str, bytes]:
    return {
        "token": token_request(),
        "token, form": form_request(TOKEN, {"identity_provider": "entra_id", "target": TARGET}),
        "introspection": introspection("a.b.c"),
        "nowhere": request_bytes("GET", "/nowhere"),
        "declined by a header": token_request(Origin="null"),
        "declined by its fields": json_request(TOKEN, {"identity_provider": "entra_id"}),
        "with an unread body": request_bytes("POST", "/nowhere", b"x" * 40),
    }


@pytest.mark.parametrize("name", whole_corpus(Provider()))
async def test_a_request_may_be_cut_anywhere(fast: Started, provider: Provider, name: str) -> None:
    """In two pieces, at every offset, all on one connection while it is kept: the same response."""
    request = whole_corpus(provider)[name]
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        expected = await connection.ask(request)
        by_fast_path = fast_path_answers(fast)
        closes = b"Connection: close" in expected
        assert await connection.ask(request) == expected if not closes else True
        by_fast_path = fast_path_answers(fast) - by_fast_path
    before = fast_path_answers(fast)
    connection = await Connection.to(fast)
    for cut in range(1, len(request)):
        connection.send(request[:cut])
        await pause()
        connection.send(request[cut:])
        got = await connection.answer()
        if b"Connection: close" in got:
            # The rest of an unread body is not waited for, unless it has already arrived.
            assert await connection.closed()
            connection = await Connection.to(fast)
            got = got.replace(b"Connection: close\r\n", b"")
        assert got == expected.replace(b"Connection: close\r\n", b""), cut
    connection.close()
    assert fast_path_answers(fast) - before == by_fast_path * (len(request) - 1)


async def test_a_request_may_be_cut_twice_anywhere(fast: Started) -> None:
    """In three pieces, at every pair of offsets; each piece arrives alone, and the fast path answers."""
    request = (
        b"POST /api/v1/token HTTP/1.1\r\nHost:[::1]:1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    )
    fields = b"identity_provider=entra_id&target=c:n:a"
    request += b"Content-Length: %d\r\n\r\n%b" % (len(fields), fields)
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        expected = await connection.ask(request)
        (protocol,) = [c for c in connections(fast) if c._request_count]
        before, cuts = fast_path_answers(fast), list(itertools.combinations(range(1, len(request)), 2))
        for first, second in cuts:
            for start, end in ((0, first), (first, second)):
                connection.send(request[start:end])
                while len(protocol._held) < end:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            connection.send(request[second:])
            assert await connection.answer() == expected, (first, second)
        assert fast_path_answers(fast) - before == len(cuts)


async def pause() -> None:
    """Let what was sent arrive before the rest is sent."""
    for _ in range(3):
        await asyncio.sleep(0)


# --- many requests at once -------------------------------------------------------------------------------


async def test_a_pipeline_is_answered_in_order_whatever_takes_which_way(
    fast: Started, provider: Provider
) -> None:
    """Requests for the fast path, the slow path, the provider, and errors, in every order, in one piece and
    in random ones: each gets its response, in order, on one connection."""
    provider.always = answer(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": "granted"})
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    requests = [
        introspection("a"),
        token_request(),
        request_bytes("GET", "/nowhere", b"ignored"),
        json_request(TOKEN, {"identity_provider": "entra_id", "target": TARGET, "skip_cache": True}),
        json_request(TOKEN, {"identity_provider": "entra_id", "target": ""}),
        token_request(Origin="null"),
    ]
    async with await Connection.to(fast) as connection:
        answers = {request: await connection.ask(request) for request in requests}
        assert len(set(answers.values())) == 5  # the two tokens are the same
        assert {status(got) for got in answers.values()} == {200, 400, 403, 404}
        before, chance = fast_path_answers(fast), random.Random(4711)
        orders = list(itertools.permutations(requests))
        for number, order in enumerate(orders):
            data = b"".join(order)
            if number % 2:
                # Not within the unread body: a response before its end ends the connection.
                unread = range(data.index(b"ignored"), data.index(b"ignored") + len(b"ignored"))
                cuts = sorted(cut for cut in chance.sample(range(1, len(data)), 4) if cut not in unread)
                for start, end in itertools.pairwise([0, *cuts, len(data)]):
                    connection.send(data[start:end])
                    await asyncio.sleep(0)
            else:
                connection.send(data)
            assert [await connection.answer() for _ in order] == [answers[request] for request in order]
        assert fast_path_answers(fast) - before == 2 * len(orders)


async def test_a_long_pipeline_is_answered_whole(fast: Started) -> None:
    """More responses than one call of the native fast path gives, more requests than aiohttp queues."""
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    requests = [token_request(), request_bytes("GET", "/nowhere"), introspection("x" * 1000)] * 700
    async with await Connection.to(fast) as connection:
        expected = [await connection.ask(request) for request in requests[:3]]
        before = fast_path_answers(fast)
        connection.send(b"".join(requests))
        got = [await connection.answer() for _ in requests]
        assert got == expected * 700
        assert fast_path_answers(fast) - before == 1400


async def test_the_fast_path_goes_on_by_itself_where_a_call_stopped(fast: Started) -> None:
    """One piece with requests for the fast path only, and nothing after it."""
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        expected = await connection.ask(token_request())
        before = fast_path_answers(fast)
        connection.send(token_request() * 300)
        assert [await connection.answer() for _ in range(300)] == [expected] * 300
        assert fast_path_answers(fast) - before == 300


@pytest.mark.parametrize("last", ["close", "malformed", "unfinished"])
async def test_what_ends_a_connection_does_not_cost_earlier_answers(start: StartSidecar, last: str) -> None:
    """A request for the fast path, one for the slow path and another for the fast path, then one that ends
    the connection: three responses, one for the end, and no more."""
    fast = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="200")
    await fast.call.token()
    before = fast_path_answers(fast)
    ends = {
        "close": (token_request(Connection="close"), 200),
        "malformed": (b"POST /api/v1/token HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        "unfinished": (token_request()[:-1], 408),
    }
    end, expected = ends[last]
    behind = b"" if last == "unfinished" else token_request() * 2
    async with await Connection.to(fast) as connection:
        connection.send(
            introspection("a") + request_bytes("GET", "/nowhere") + token_request() + end + behind
        )
        assert [status(got) for got in await connection.rest()] == [200, 404, 200, expected]
    assert fast_path_answers(fast) - before == 2


# --- malformed and smuggling -----------------------------------------------------------------------------

INNER = token_request()
HEAD = b"POST /api/v1/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"identity_provider":"entra_id","target":"' + TARGET.encode() + b'"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


def lengths(*values: bytes) -> bytes:
    return HEAD + b"".join(b"Content-Length: %b\r\n" % value for value in values) + b"\r\n" + BODY


def chunked(coding: bytes = b"Transfer-Encoding: chunked\r\n", data: bytes | None = None) -> bytes:
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if data is None else data
    return HEAD + coding + b"\r\n" + data


def header(line: bytes) -> bytes:
    return HEAD + LENGTH + line + b"\r\n\r\n" + BODY


N = b"%d" % len(BODY)
MALFORMED: dict[str, bytes] = {
    # lengths
    "CL twice, equal": lengths(N, N),
    "CL twice, other": lengths(N, b"0"),
    "CL twice, other way round": lengths(b"0", N),
    "CL list": lengths(N + b"," + N),
    "CL list of others": lengths(N + b", 0"),
    "CL plus": lengths(b"+" + N),
    "CL minus": lengths(b"-1"),
    "CL spaces within": lengths(b"1 0"),
    "CL hex": lengths(b"0x10"),
    "CL underscore": lengths(b"1_0"),
    "CL leading zeros": lengths(b"000" + N),
    "CL empty": lengths(b""),
    "CL fraction": lengths(N + b".0"),
    "CL exponent": lengths(b"1e2"),
    "CL larger than any integer": lengths(b"99999999999999999999999999"),
    "CL 2^64": lengths(b"18446744073709551616"),
    "CL other digits": lengths("\N{ARABIC-INDIC DIGIT FIVE}".encode()),
    "CL tab": lengths(b"\t" + N),
    "CL form feed": lengths(b"\x0c" + N),
    "CL quoted": lengths(b'"' + N + b'"'),
    "CL trailing space": lengths(N + b" "),
    "CL missing": HEAD + b"\r\n" + BODY,
    "CL shorter than the body": lengths(b"5"),
    "CL zero, request as body": HEAD + b"Content-Length: 0\r\n\r\n" + INNER,
    "CL of GET": b"GET /api/v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    % (len(INNER), INNER),
    # transfer coding
    "chunked": chunked(),
    "chunked, request behind": chunked() + INNER,
    "CL.TE": HEAD + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE.CL": HEAD + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n" + INNER,
    "TE twice": chunked(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
    "TE identity": chunked(b"Transfer-Encoding: identity\r\n"),
    "TE identity with CL": HEAD + LENGTH + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "TE list": chunked(b"Transfer-Encoding: gzip, chunked\r\n"),
    "TE chunked not last": chunked(b"Transfer-Encoding: chunked, identity\r\n"),
    "TE xchunked": chunked(b"Transfer-Encoding: xchunked\r\n"),
    "TE with a space before the colon": chunked(b"Transfer-Encoding : chunked\r\n"),
    "TE folded": chunked(b"Transfer-Encoding:\r\n chunked\r\n"),
    "TE vertical tab": chunked(b"Transfer-Encoding: \x0bchunked\r\n"),
    "TE quoted": chunked(b'Transfer-Encoding: "chunked"\r\n'),
    "TE upper case": chunked(b"TRANSFER-ENCODING: CHUNKED\r\n"),
    "TE hidden by a null": chunked(b"Transfer-Encoding\0: chunked\r\n" + LENGTH),
    "TE behind a bare CR": HEAD + LENGTH + b"X: a\rTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "TE behind a bare LF": HEAD + LENGTH + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE empty": HEAD + LENGTH + b"Transfer-Encoding:\r\n\r\n" + BODY,
    "TE of HTTP/1.0": chunked().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "chunk extension": chunked(data=b"%x;a=b\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk extension with LF": chunked(data=b"%x;a\nb\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk size plus": chunked(data=b"+%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk size 0x": chunked(data=b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "chunk size too large": chunked(data=b"ffffffffffffffffff\r\n"),
    "chunk with bare LF": chunked(data=b"%x\n%b\n0\n\n" % (len(BODY), BODY)),
    "chunk without its end": chunked(data=b"%x\r\n%bXX0\r\n\r\n" % (len(BODY), BODY)),
    "chunk trailer": chunked(data=b"%x\r\n%b\r\n0\r\nContent-Length: 5\r\n\r\n" % (len(BODY), BODY)),
    # lines
    "bare LF": (HEAD + LENGTH).replace(b"\r\n", b"\n") + b"\n" + BODY,
    "bare CR": (HEAD + LENGTH).replace(b"\r\n", b"\r") + b"\r" + BODY,
    "LF at the end of one line": header(b"X: y").replace(b"localhost\r\n", b"localhost\n"),
    "LF LF ends the head": HEAD + LENGTH.rstrip() + b"\n\n" + BODY,
    "CR CR LF": header(b"X: y\r"),
    "folded line": header(b"X: a\r\n b"),
    "folded with a tab": header(b"X: a\r\n\tb"),
    "folded first header": header(b"X: a").replace(b"\r\nHost", b"\r\n Host"),
    "space before the colon": header(b"X : a"),
    "tab before the colon": header(b"X\t: a"),
    "no name": header(b": a"),
    "no colon": header(b"X"),
    "null in a value": header(b"X: a\0b"),
    "null in a name": header(b"X\0: a"),
    "tab in a value": header(b"X: a\tb"),
    "control character in a value": header(b"X: \x01"),
    "DEL in a value": header(b"X: \x7f"),
    "not ASCII in a value": header("X: é".encode()),
    "Latin-1 in a value": header(b"X: \xe9"),
    "not ASCII in a name": header("é: x".encode()),
    "space in a name": header(b"X Y: a"),
    "bracket in a name": header(b"X[]: a"),
    "empty line first": b"\r\n" + header(b"X: y"),
    "LF first": b"\n" + header(b"X: y"),
    "space first": b" " + header(b"X: y"),
    # request lines
    "two spaces": header(b"X: y").replace(b"POST /", b"POST  /"),
    "tab for a space": header(b"X: y").replace(b"POST /", b"POST\t/"),
    "space at the end": header(b"X: y").replace(b"HTTP/1.1\r\n", b"HTTP/1.1 \r\n"),
    "lower-case method": header(b"X: y").replace(b"POST", b"post"),
    "unknown method": header(b"X: y").replace(b"POST", b"BREW"),
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TRACE": b"TRACE /api/v1/token HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /api/v1/token\r\n",
    "HTTP/1.0": header(b"X: y").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.0 keep-alive": header(b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/1.2": header(b"X: y").replace(b"HTTP/1.1", b"HTTP/1.2"),
    "HTTP/2.0": header(b"X: y").replace(b"HTTP/1.1", b"HTTP/2.0"),
    "HTTP/01.1": header(b"X: y").replace(b"HTTP/1.1", b"HTTP/01.1"),
    "http/1.1": header(b"X: y").replace(b"HTTP/1.1", b"http/1.1"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "absolute target": header(b"X: y").replace(b" /api", b" http://localhost/api"),
    "target with authority": header(b"X: y").replace(b" /api", b" //evil.example/api"),
    "target with a fragment": header(b"X: y").replace(b"token HTTP", b"token#x HTTP"),
    "target with an escape": header(b"X: y").replace(b"/token HTTP", b"/%74oken HTTP"),
    "target with a broken escape": header(b"X: y").replace(b"/token HTTP", b"/token%zz HTTP"),
    "target with dots": header(b"X: y").replace(b"/api/v1/token", b"/api/v1/../v1/token"),
    "target not ASCII": header(b"X: y").replace(b"/token", "/tøken".encode()),
    "no target": header(b"X: y").replace(b" /api/v1/token", b""),
    "asterisk": header(b"X: y").replace(b" /api/v1/token", b" *"),
    "long target": header(b"X: y").replace(b"/api/v1/token", b"/" + b"x" * 9000),
    # headers that change what comes next
    "no Host": header(b"X: y").replace(b"Host: localhost\r\n", b""),
    "Host twice": header(b"Host: localhost"),
    "Host twice, other": header(b"Host: evil.example"),
    "Host empty": header(b"X: y").replace(b"Host: localhost", b"Host:"),
    "Host list": header(b"X: y").replace(b"Host: localhost", b"Host: localhost, evil.example"),
    "Host with a user": header(b"X: y").replace(b"Host: localhost", b"Host: evil@localhost"),
    "Host with a path": header(b"X: y").replace(b"Host: localhost", b"Host: localhost/x"),
    "content type twice": header(b"Content-Type: application/json"),
    "user agent twice": header(b"User-Agent: a\r\nUser-Agent: b"),
    "Expect": header(b"Expect: 100-continue"),
    "Expect something else": header(b"Expect: wonders"),
    "upgrade to wonders": header(b"Connection: Upgrade\r\nUpgrade: wonders"),
    "upgrade to wonders, request behind": header(b"Connection: Upgrade\r\nUpgrade: wonders") + INNER,
    "upgrade to websocket": header(
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA=="
    ),
    "old websocket": header(b"Sec-WebSocket-Key1: x"),
    "close": header(b"Connection: close"),
    "CLOSE": header(b"connection: CLOSE"),
    "close and keep-alive": header(b"Connection: close\r\nConnection: keep-alive"),
    "keep-alive and close": header(b"Connection: keep-alive, close"),
    "connection names the length": header(b"Connection: Content-Length"),
    "proxy connection": header(b"Proxy-Connection: keep-alive"),
    "trailer announced": header(b"Trailer: Content-Length"),
    "TE trailers": header(b"TE: trailers"),
    "content encoding": header(b"Content-Encoding: gzip"),
    "content encoding identity": header(b"Content-Encoding: identity"),
    # size
    "long value": header(b"X: " + b"y" * 8100),
    "longer value": header(b"X: " + b"y" * 9000),
    "long name": header(b"X" * 9000 + b": y"),
    "many headers": header(b"\r\n".join(b"X%d: y" % i for i in range(100))),
    "too many headers": header(b"\r\n".join(b"X%d: y" % i for i in range(200))),
    "endless head": HEAD + b"X: y\r\n" * 2000,
    "body announced too large": HEAD + b"Content-Length: 131073\r\n\r\n" + b"x" * 131073,
    "body announced huge": HEAD + b"Content-Length: 999999999\r\n\r\n" + b"x" * 5000,
    # no HTTP at all
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "garbage": b"\xff\xfe" * 100,
    "nulls": b"\0" * 100,
    "line noise": b"GARBAGE\r\n\r\n",
    "only a line end": b"\r\n",
    "cut head": HEAD,
    "cut body": HEAD + LENGTH + b"\r\n" + BODY[:-1],
    "plain": HEAD + LENGTH + b"\r\n" + BODY,
}


async def transcript(sidecar: Started, *parts: bytes, in_single_bytes: bool = False) -> list[bytes]:
    """Each part is sent once the response to the previous one has arrived; then all responses until the
    sidecar closes the connection, by whatever limit."""
    async with await Connection.to(sidecar) as connection:
        answers = []
        for part in parts[:-1]:
            answers.append(await connection.ask(part))
        rest = asyncio.ensure_future(connection.rest())
        for piece in [bytes([byte]) for byte in parts[-1]] if in_single_bytes else [parts[-1]]:
            if rest.done() or connection.writer.transport.is_closing():
                break
            connection.send(piece)
            await pause()
        return answers + await rest


async def test_both_ways_say_the_same_about_what_is_malformed(
    start: StartSidecar, provider: Provider
) -> None:
    """The same responses, byte for byte, until the connection ends, for each request of the corpus: alone,
    and after a request that the fast path answers."""
    limits = {"ENTRA_FAST_REQUEST_TIMEOUT_MILLIS": "400", "ENTRA_FAST_IDLE_TIMEOUT_MILLIS": "800"}
    fast, slow = await start(**limits), await start(**limits, ENTRA_FAST_FAST_PATH="false")
    prelude = introspection("a.b.c")
    for sidecar in (fast, slow):
        sidecar.clock.stop(1_800_000_000.0)
    provider.always = answer(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": "granted"})
    for sidecar in (fast, slow):
        assert (await sidecar.call.token()).status == 200
    names = list(MALFORMED)
    for parts in ((), (prelude,)):
        for first in range(0, len(names), 40):
            batch = names[first : first + 40]
            results = await asyncio.gather(
                *(transcript(sidecar, *parts, MALFORMED[name]) for name in batch for sidecar in (fast, slow))
            )
            for name, by_fast_path, whole in zip(batch, results[::2], results[1::2], strict=True):
                in_full = whole
                if by_fast_path != whole and len(by_fast_path) > len(parts) + 1:
                    # When a piece ends in what is not HTTP, aiohttp forgets the requests before it in the
                    # same piece. The fast path gives them one by one, so it is compared with pieces of one
                    # byte.
                    assert whole == by_fast_path[: len(parts)] + by_fast_path[-1:], name
                    in_full = await transcript(slow, *parts, MALFORMED[name], in_single_bytes=True)
                assert by_fast_path == in_full, name
    assert fast_path_answers(fast) > len(names)  # the preludes, and what is not that malformed


OFFER = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}


async def test_an_offer_of_http_2_costs_nothing_on_the_fast_path(fast: Started, provider: Provider) -> None:
    """Java's HTTP client makes it with every request (RFC 9110, section 7.8): it is ignored, also where the
    slow path answers, and all that follows is answered on the same connection."""
    fast.clock.stop(1_800_000_000.0)
    await fast.call.token()
    requests = [
        (introspection("a"), introspection("a", **OFFER)),
        (request_bytes("GET", "/nowhere"), request_bytes("GET", "/nowhere", headers=OFFER)),
        (token_request(), token_request(**OFFER)),
        (token_request(""), token_request("", **OFFER)),
    ]
    async with await Connection.to(fast) as connection:
        expected = [await connection.ask(plain) for plain, _ in requests]
        before = fast_path_answers(fast)
        connection.send(b"".join(offering for _, offering in requests) * 3)
        assert [await connection.answer() for _ in range(12)] == expected * 3
        assert fast_path_answers(fast) - before == 6


def offering(upgrade: str, coding: str) -> bytes:
    """An introspection that offers an upgrade."""
    request = introspection("a", **{**OFFER, "Upgrade": upgrade})
    if coding == "chunked":  # as Spring's RestClient sends it
        head, _, content = request.partition(b"\r\n\r\n")
        head = head.replace(b"Content-Length: %d" % len(content), b"Transfer-Encoding: chunked")
        return head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    return request


@pytest.mark.parametrize("coding", ["length", "chunked"])
@pytest.mark.parametrize("upgrade", ["h2c", "wonders"])
async def test_an_offered_upgrade_keeps_the_connection(
    slow: Started, fast: Started, upgrade: str, coding: str
) -> None:
    """On the slow path, when nothing stands behind the request, however it was cut."""
    request = offering(upgrade, coding)
    for sidecar in (slow, fast):
        async with await Connection.to(sidecar) as connection:
            expected = await connection.ask(introspection("a"))
            for cut in [*range(1, len(request), 7), request.index(b"\r\n\r\n") + 4, len(request)]:
                connection.send(request[:cut])
                await pause()
                connection.send(request[cut:])
                assert await connection.answer() == expected, cut


@pytest.mark.parametrize("upgrade", ["h2c", "wonders"])
async def test_nothing_is_read_after_bytes_that_the_parser_dropped(slow: Started, upgrade: str) -> None:
    """aiohttp's parser drops bytes that follow an offered upgrade in the same piece, and would continue in
    the middle of the next request. So the response says that the connection ends, and nothing more is
    sent."""
    first = offering(upgrade, "length")
    inner = json_request(TOKEN, token_request())  # a parser that starts in the middle of it finds a request
    for at in (len(first) + 1, len(first) + len(inner) - len(token_request()), len(first) + len(inner)):
        async with await Connection.to(slow) as connection:
            data = first + inner
            connection.send(data[:at])
            await pause()
            connection.send(data[at:] + introspection("b"))
            answers = await connection.rest()
            assert [status(answer) for answer in answers] == [200], at
            assert b"Connection: close" in answers[0]


@pytest.mark.parametrize("upgrade", ["h2c", "wonders"])
async def test_nothing_is_dropped_behind_an_offer_whose_end_can_be_seen(slow: Started, upgrade: str) -> None:
    """A request without a body, or with a chunked one, ends with an empty line: what follows it is read."""
    offer = {**OFFER, "Upgrade": upgrade}
    for first in (offering(upgrade, "chunked"), request_bytes("GET", "/nowhere", headers=offer)):
        async with await Connection.to(slow) as connection:
            connection.send(first * 2 + introspection("b"))
            answers = [await connection.answer() for _ in range(3)]
            assert status(answers[0]) == status(answers[1])
            assert status(answers[2]) == 200
            assert all(b"Connection: close" not in answer for answer in answers)


@pytest.mark.parametrize("of", ["a body", "nothing"])
async def test_nothing_is_read_after_a_refused_expectation_with_an_offer(
    fast: Started, slow: Started, of: str
) -> None:
    """Neither is the rest of what the parser dropped: the first bytes of the piece, all but its last."""
    headers = {**OFFER, "Expect": "something"}
    first = introspection("a", **headers) if of == "a body" else request_bytes("GET", "/", headers=headers)
    for sidecar in (fast, slow):
        async with await Connection.to(sidecar) as connection:
            connection.send(first + b"GARBAGE\n")
            await pause()
            connection.send(introspection("b"))
            answers = await connection.rest()
            assert [status(answer) for answer in answers] in ([417], [417, 400])


async def test_what_is_behind_connection_close_is_never_answered(fast: Started, slow: Started) -> None:
    """RFC 9112, section 9.6: the request itself is answered, on both paths."""
    await fast.call.token()
    data = token_request(Connection="close") + token_request()
    assert [status(got) for got in await transcript(fast, data)] == [200]
    assert [status(got) for got in await transcript(slow, data)] == [200]
    assert fast_path_answers(fast) == 0


@pytest.mark.parametrize(
    "malformed",
    [
        pytest.param(b"GARBAGE\r\n\r\n", id="no request line"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x01\r\n\r\n", id="a control character"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\n", id="a length"),
    ],
)
async def test_requests_before_a_malformed_one_are_answered(
    fast: Started, slow: Started, malformed: bytes
) -> None:
    """In their order, whether each came alone or all in one piece, on both paths: a client takes the first
    response for that of its first request."""
    chunked = (
        offering("h2c", "chunked").replace(b"Upgrade", b"X-Upgrade").replace(b"Connection", b"X-Connection")
    )
    good = [introspection("a"), chunked, request_bytes("GET", "/nowhere"), token_request("")]
    async with await Connection.to(slow) as connection:
        assert [status(await connection.ask(each)) for each in good] == [200, 200, 404, 400]
    data = b"".join(good) + malformed
    for sidecar in (fast, slow):
        for size in (len(data), 150):
            async with await Connection.to(sidecar) as connection:
                for at in range(0, len(data), size):
                    connection.send(data[at : at + size])
                    await pause()
                answers = [status(got) for got in await connection.rest()]
                assert answers == [200, 200, 404, 400, 400], size


@pytest.mark.parametrize("end", ["a malformed body", "a head without end"])
async def test_all_responses_that_are_owed_are_sent(fast: Started, slow: Started, end: str) -> None:
    """Before the connection closes because of what came behind their requests."""
    good = [introspection("a"), request_bytes("GET", "/nowhere"), token_request("")]
    head = introspection("a").partition(b"\r\n\r\n")[0]
    last = head.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ") + b"\r\n\r\nzz\r\n"
    if end == "a head without end":
        last = b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000
    for sidecar in (fast, slow):
        async with await Connection.to(sidecar) as connection:
            connection.send(b"".join(good) + last)
            answers = [status(answer) for answer in await connection.rest()]
            assert answers[:3] == [200, 404, 400]
            assert answers[3:] in ([400], [431], [])


async def test_the_queue_of_pipelined_requests_is_bounded(
    slow: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many arrive at once; all are answered."""
    parse, longest = StrictProtocol._parse, 0

    def measured(self: StrictProtocol, data: bytes) -> None:
        nonlocal longest
        parse(self, data)
        longest = max(longest, len(self._messages))

    monkeypatch.setattr(StrictProtocol, "_parse", measured)
    async with await Connection.to(slow) as connection:
        connection.send(request_bytes("GET", "/nowhere") * 500)
        assert [status(await connection.answer()) for _ in range(500)] == [404] * 500
    assert longest < 40


async def test_a_body_of_empty_lines_costs_no_more_than_another(
    slow: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces end where a head may end, and a body can look like thousands of ends."""
    parse, calls = StrictProtocol._parse, 0

    def counted(self: StrictProtocol, data: bytes) -> None:
        nonlocal calls
        calls += 1
        parse(self, data)

    monkeypatch.setattr(StrictProtocol, "_parse", counted)
    async with await Connection.to(slow) as connection:
        assert status(await connection.ask(json_request(TOKEN, b"\r\n\r\n" * 32_000))) == 400
    assert calls < 3200


async def test_a_body_that_looks_like_a_request_is_a_body(fast: Started) -> None:
    """A whole request inside a body is never answered, on either path."""
    await fast.call.token()
    before = fast_path_answers(fast)
    async with await Connection.to(fast) as connection:
        for outer in (
            json_request(TOKEN, token_request() * 3),
            request_bytes("POST", "/nowhere", token_request()),
            request_bytes("GET", "/nowhere", introspection("a")),
        ):
            assert status(await connection.ask(outer)) in (400, 404)
        assert status(await connection.ask(introspection("last"))) == 200
    assert fast_path_answers(fast) - before == 1


async def test_a_second_opinion_ends_the_fast_path(fast: Started) -> None:
    """If the recogniser were ever wrong about where a request ends, and aiohttp found another start, aiohttp
    would handle the rest of the connection: nothing is answered twice or by the wrong path."""
    await fast.call.token()
    async with await Connection.to(fast) as connection:
        assert status(await connection.ask(request_bytes("GET", "/nowhere"))) == 404
        (protocol,) = [c for c in connections(fast) if c._plain and c._request_count]
        one = request_bytes("GET", "/nowhere")
        wrong = SimpleNamespace(
            answers=b"",
            answered=0,
            consumed=0,
            stop=Stop.FRAMED,
            length=2 * len(one),
            renewals=[],
            turn_due=False,
        )
        protocol._receive(one + one + token_request(), wrong)  # type: ignore[arg-type]
        assert [status(await connection.answer()) for _ in range(3)] == [404, 404, 200]
        assert not protocol._plain
    assert fast_path_answers(fast) == 0


# --- the recogniser against aiohttp's parser -------------------------------------------------------------


def native_fast_path() -> _native.FastPath:
    """One that answers every introspection whose token has no kid, and one target."""
    cache = _native.TokenCache()
    cache.put(
        _native.token_cache_key("client_credentials", ["entra_id", "t", "c", TARGET, "", ""]),
        "x",
        3600.0,
        monotonic=0.0,
    )
    environ = {"AZURE_APP_CLIENT_ID": "c", "AZURE_APP_TENANT_ID": "t", "AZURE_APP_CLIENT_SECRET": "s"}
    settings_of_it = Settings.from_environment(environ)
    fast = _native.FastPath(
        cache,
        _native.CallerCheck([]),
        contract_of(settings_of_it.providers),
        bounds=[1.0],
        clocks=(lambda: 1_800_000_000.0, lambda: 0.0),
    )
    keys = _native.KeySet(f'{{"keys":[{Key.generate().public_jwk()}]}}')
    fast.attach(0, _native.Validator(_native.Policy(issuers=["i"], audiences=["a"]), keys))
    return fast


NATIVE = native_fast_path()
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: s\r\n\r\n"


class Parsed:
    """What aiohttp's parser reads from bytes."""

    def __init__(self, data: bytes) -> None:
        loop = asyncio.new_event_loop()
        try:
            parser = HttpRequestParser(BaseProtocol(loop), loop, 2**18, auto_decompress=False)
            self.refused = False
            try:
                self.messages, self.upgraded, _ = parser.feed_data(data)
            except HttpProcessingError:
                self.refused, self.messages, self.upgraded = True, [], False
        finally:
            loop.close()

    @property
    def whole(self) -> int:
        """How many messages are complete."""
        return sum(payload.is_eof() for _, payload in self.messages)


names = st.sampled_from(
    [
        b"Host",
        b"Content-Length",
        b"content-length",
        b"Content-Type",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"Upgrade",
        b"User-Agent",
        b"traceparent",
        b"Origin",
        b"X",
        b"X ",
        b" X",
        b"",
        b"X\0",
        b"Trailer",
        b"TE",
        b"Content-Encoding",
        b"Sec-WebSocket-Key1",
        b"Proxy-Connection",
        b"Keep-Alive",
        b"Etag",
        b"Max-Forwards",
    ]
)
values = st.one_of(
    st.sampled_from([b"localhost", b"5", b"05", b"+5", b"5, 5", b"0", b"chunked", b"identity", b"close"]),
    st.sampled_from([b"Upgrade", b"keep-alive", b"websocket", b"h2c", b"application/json", b"a\tb", b""]),
    st.sampled_from([b"100-continue", b"\x00", b"a\rb", b"a\nb", b"\x7f", b"\xe9", b"trailers", b"x" * 8000]),
    st.binary(max_size=12),
)
spaces = st.sampled_from([b"", b" ", b"  ", b"\t"])
ends = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\r\n"])
lines = st.tuples(names, st.sampled_from([b":"] * 20 + [b"", b" :"]), spaces, values, spaces, ends)
methods = st.sampled_from(
    [b"POST"] * 8
    + [b"GET", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"PATCH"]
    + [b"CONNECT", b"post", b"BREW"]
)
targets = st.sampled_from(
    [b"/api/v1/token", b"/api/v1/introspect", b"/api/v1/token/exchange"] * 3
    + [
        b"/",
        b"/?a=b#c",
        b"//x",
        b"*",
        b"http://localhost/api/v1/token",
        b"/%",
        b"/[",
        b"/\\",
        b"/\xc3\xa9",
        b"",
    ]
)
versions = st.sampled_from(
    [b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""]
)
FORM = b"identity_provider=entra_id&token=abc"
benign = st.sampled_from(
    [
        b"Accept: */*\r\n",
        b"User-Agent: x\r\n",
        b"X-Y: \r\n",
        b"traceparent: 00-1-2-01\r\n",
        b"connection:keep-alive\r\n",
        b"Cookie: a=b; c\r\n",
        b"accept-encoding: gzip\r\n",
        b"X-Request-Id: %d\r\n" % 4711,
    ]
)
bodies = st.sampled_from(
    [
        b"",
        BODY,
        FORM,
        b'{"identity_provider":"entra_id","token":"abc"}',
        b"5\r\nhello\r\n0\r\n\r\n",
        token_request(),
        b"\r\n\r\n",
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Bytes that are one or more requests, or nearly so."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        odd = draw(st.booleans())
        content = draw(bodies if odd else st.sampled_from([BODY, FORM]))
        kind = b"application/json" if content[:1] == b"{" else b"application/x-www-form-urlencoded"
        usual = [
            b"Host: localhost\r\n",
            b"Content-Length: %d\r\n" % len(content),
            b"Content-Type: %b\r\n" % kind,
        ]
        if odd:
            head = draw(methods) + b" " + draw(targets) + b" " + draw(versions) + draw(ends)
            usual = [line for line in usual if draw(st.integers(0, 15))]
            usual += [b"".join(line) for line in draw(st.lists(lines, max_size=3))]
        else:
            head = b"POST %b HTTP/1.1\r\n" % (b"/api/v1/token" if content == BODY else b"/api/v1/introspect")
            usual += draw(st.lists(benign, max_size=3, unique=True))
        data += head + b"".join(draw(st.permutations(usual))) + b"\r\n" + content
    if draw(st.integers(0, 4)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        position = draw(st.integers(0, len(data)))
        data = data[:position] + draw(st.binary(max_size=2)) + data[position + draw(st.integers(0, 2)) :]
    return data


def served(data: bytes) -> _native.Served:
    """What the fast path did, and it wrote as many answers as it says."""
    result = NATIVE.serve(data)
    assert result.answers.count(b"HTTP/1.1 200 OK\r\n") == result.answered
    return result


@settings(max_examples=3000, deadline=None)
@given(streams())
@example(INNER * 3)
@example(introspection("a") + request_bytes("GET", "/") + INNER)
def test_the_fast_path_and_aiohttp_agree_where_requests_end(data: bytes) -> None:
    """Whatever the fast path consumed is, for aiohttp, exactly as many whole requests that end there.
    Whatever it calls framed is one message that ends where it says, or is refused, which closes the
    connection."""
    result = served(data)
    answered, consumed, length = result.answered, result.consumed, result.length
    if answered:
        parsed = Parsed(data[:consumed] + SENTINEL)
        assert not parsed.refused
        assert len(parsed.messages) == parsed.whole == answered + 1
        assert parsed.messages[-1][0].path == "/sentinel"
        assert all(
            message.method == "POST" and not message.should_close for message, _ in parsed.messages[:-1]
        )
        short = Parsed(data[: consumed - 1])
        assert not short.refused
        assert short.whole == answered - 1
    rest = data[consumed:]
    if result.stop == Stop.FRAMED:
        framed = (rest + b"x" * min(length, 200_000))[:length]
        if len(framed) == length:
            parsed = Parsed(framed)
            assert parsed.refused or (len(parsed.messages) == parsed.whole == 1 and not parsed.upgraded)
            short = Parsed(framed[:-1])
            assert short.refused or short.whole == 0
            if not parsed.refused and not parsed.messages[0][0].should_close:
                both = Parsed(framed + SENTINEL)
                assert [message.path for message, _ in both.messages][1:] == ["/sentinel"]
    elif result.stop == Stop.PARTIAL:
        parsed = Parsed(rest)
        assert parsed.whole == 0
    elif result.stop == Stop.DONE:
        assert consumed == len(data)


@settings(max_examples=300, deadline=None)
@given(streams(), st.data())
def test_the_fast_path_says_the_same_however_bytes_come(data: bytes, more: st.DataObject) -> None:
    """If the fast path consumes a prefix, it also consumes it as part of the whole: later bytes do not change
    what was answered."""
    cut = more.draw(st.integers(0, len(data)))
    part, whole = served(data[:cut]), served(data)
    assert whole.answered >= part.answered
    assert whole.consumed >= part.consumed
    assert part.answered + served(data[part.consumed :]).answered == whole.answered


def test_the_generator_reaches_every_outcome() -> None:
    """The property above is meaningful: the generated input leads to all outcomes."""
    seen: set[Stop] = set()
    answers = 0

    @settings(max_examples=600, deadline=None, database=None)
    @given(streams())
    def look(data: bytes) -> None:
        nonlocal answers
        result = served(data)
        answers += result.answered
        seen.add(result.stop)

    look()
    assert seen >= {Stop.DONE, Stop.PARTIAL, Stop.FRAMED, Stop.UNKNOWN}
    assert answers > 50
    assert body(b"HTTP/1.1 200 OK\r\n\r\nx") == b"x"
