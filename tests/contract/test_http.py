"""The behaviour of all endpoints: bodies, methods, paths, callers, limits."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping

import pytest

from support.provider import Provider
from support.sidecars import Started, StartSidecar, eventually
from support.wire import read_answer, request_bytes

PATHS = ("/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect")
TOKEN_PATHS = PATHS[:2]
HEAD = b"POST /api/v1/token HTTP/1.1\r\nHost: localhost\r\n"
GOOD = {"identity_provider": "entra_id", "target": "api://c.n.a/.default", "user_token": "x"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity_provider": ""}, "identity_provider"),
        ({"identity_provider": "unheard_of"}, "identity_provider"),
        ({"identity_provider": 5}, "identity_provider"),
        ({"identity_provider": "Entra_id"}, "identity_provider"),
        ({"target": None}, "target"),
        ({"target": ["a"]}, "target"),
        ({"target": ""}, "target"),
        ({"user_token": None}, "user_token"),
        ({"user_token": {}}, "user_token"),
        ({"skip_cache": "true"}, "skip_cache"),
        ({"skip_cache": 1}, "skip_cache"),
    ],
)
async def test_a_missing_or_wrongly_typed_field_is_named(
    sidecar: Started, provider: Provider, changes: dict[str, object], named: str
) -> None:
    """400 invalid_request with a sentence about the field; nothing goes upstream."""
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    answer = await sidecar.call.json("/api/v1/token/exchange", fields)
    assert answer.status == 400
    assert set(answer.json) == {"error", "error_description"}
    assert answer.json["error"] == "invalid_request"
    assert answer.json["error_description"].startswith(named)
    assert answer.header("Content-Type") == "application/json"
    assert provider.requests == []


async def test_the_provider_may_be_left_out_where_one_is_enabled(
    sidecar: Started, provider: Provider
) -> None:
    """Absent or null, at all three endpoints, in JSON and in forms: the answer is the same, byte for byte, as
    with the name, from the provider and from the cache."""
    sidecar.clock.stop(float(int(time.time())))
    user = provider.mint()
    for path, fields in (
        ("/api/v1/token", {"target": "api://c.n.a/.default"}),
        ("/api/v1/token/exchange", {"target": "api://c.n.a/.default", "user_token": user}),
        ("/api/v1/introspect", {"token": user, "token_type_hint": "access_token"}),
    ):
        without = await sidecar.call.json(path, fields)
        assert without.status == 200
        assert "access_token" in without.json or without.json["active"] is True
        for other in ({"identity_provider": None}, {"identity_provider": "entra_id"}):
            assert (await sidecar.call.json(path, {**other, **fields})).body == without.body
        assert (await sidecar.call.form(path, fields)).body == without.body
    assert len(provider.requests) == 2


async def test_without_a_provider_leaving_it_out_is_no_request(start: StartSidecar) -> None:
    """It cannot mean anything: 400 that names the field, and an inactive token."""
    sidecar = await start(ready=False, environ={"BIND_ADDRESS": "127.0.0.1:0", "AZURE_ENABLED": "false"})
    answer = await sidecar.call.json("/api/v1/token", {"target": "api://c.n.a/.default"})
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert answer.json["error_description"].startswith("identity_provider")
    answer = await sidecar.call.json("/api/v1/introspect", {"token": "a.b.c"})
    assert (answer.status, answer.json["active"]) == (200, False)
    assert answer.json["error"].startswith("identity_provider")


async def test_an_empty_provider_is_wrong_at_introspection_too(sidecar: Started) -> None:
    """200, inactive, with a sentence about the field."""
    for fields in ({"identity_provider": "", "token": "a.b.c"}, {"identity_provider": 5, "token": "a.b.c"}):
        answer = await sidecar.call.json("/api/v1/introspect", fields)
        assert (answer.status, answer.json["active"]) == (200, False)
        assert answer.json["error"].startswith("identity_provider")


async def test_unknown_fields_are_ignored_and_null_is_absent(sidecar: Started) -> None:
    """Clients may send unknown fields, and serializers write null for unset ones."""
    answer = await sidecar.call.token(skip_cache=None, extra={"deep": [1]})
    assert answer.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b'{"identity_provider":"entra_id","target":"api://a/.default"} trailing',
        b'\xef\xbb\xbf{"identity_provider":"entra_id","target":"api://a/.default"}',
        b'{"identity_provider":"entra_id","target":"api://a/.default","x":NaN}',
        b'{"identity_provider":"entra_id","target":"api://a/.default","x":"\\ud800"}',
        b'{"identity_provider":"entra_id","target":"api://a/.default","x":"\xff"}',
        b'{"identity_provider":"entra_id","target":"api://a/.default","x":' + b"[" * 100_000 + b"}",
        b'{"identity_provider":"entra_id","target":"api://a/.default","target":"api://b/.default"}',
        b'{"identity_provider":"entra_id","target":"api://a/.default","x":{"y":1,"y":2}}',
    ],
)
async def test_malformed_json_is_refused(sidecar: Started, provider: Provider, body: bytes) -> None:
    """400 invalid_request for anything but one strict JSON object; duplicate members are refused, too."""
    answer = await sidecar.call.json("/api/v1/token", body)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert "api://" not in answer.json["error_description"]
    assert provider.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"identity_provider=entra_id&target=api%3A%2F%2Fa%2F.default&target=api%3A%2F%2Fb%2F.default",
        b"identity_provider=entra_id&target=%ff",
        b"identity_provider=entra_id&target",
        b"identity_provider=&target=api%3A%2F%2Fa%2F.default",
        b"identity_provider=entra_id&target=\xc3\xa6",
        b"&".join([b"target=t", *(b"f%d=1" % i for i in range(256))]),
        b"",
    ],
)
async def test_a_malformed_form_is_refused(sidecar: Started, provider: Provider, body: bytes) -> None:
    """400 invalid_request for a duplicate field, bytes that are not text, or too many fields."""
    answer = await sidecar.call.form("/api/v1/token", body)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert provider.requests == []


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/jsonx", "multipart/form-data"])
async def test_another_content_type_is_refused(sidecar: Started, content_type: str | None) -> None:
    """400 invalid_request that names the accepted ones."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await sidecar.call.request("POST", "/api/v1/token", json.dumps(GOOD).encode(), headers)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert "application/x-www-form-urlencoded" in answer.json["error_description"]


@pytest.mark.parametrize("path", TOKEN_PATHS)
async def test_a_body_that_is_too_large_is_413(sidecar: Started, path: str) -> None:
    """Over 128 KiB, whether announced or sent in chunks."""
    body = json.dumps({**GOOD, "padding": "x" * 140_000}).encode()
    announced = await sidecar.call.json(path, body)
    assert (announced.status, announced.json["error"]) == (413, "invalid_request")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    headers = "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    sent = await sidecar.call.send(f"POST {path} HTTP/1.1\r\n{headers}\r\n".encode() + chunked)
    assert (sent.status, sent.json["error"]) == (413, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
async def test_a_compressed_body_is_415(sidecar: Started, provider: Provider, path: str) -> None:
    """Nothing is inflated."""
    body = gzip.compress(json.dumps(GOOD).encode())
    answer = await sidecar.call.json(path, body, {"Content-Encoding": "gzip"})
    assert (answer.status, answer.json["error"]) == (415, "invalid_request")
    assert provider.requests == []


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_another_method_is_405(sidecar: Started, path: str, method: str) -> None:
    """405 in the error's shape, with Allow."""
    answer = await sidecar.call.request(method, path)
    assert (answer.status, answer.json["error"]) == (405, "invalid_request")
    assert answer.header("Allow") == "POST"
    assert answer.header("Content-Type") == "application/json"


@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
async def test_head_has_no_body_and_leaves_the_next_request_alone(sidecar: Started, path: str) -> None:
    """Only the headers of the refusal are sent; the connection continues with the next response."""
    reader, writer = await sidecar.call.connect()
    writer.write(request_bytes("HEAD", path) + request_bytes("GET", path))
    heads = [(await reader.readuntil(b"\r\n\r\n")).split(b"\r\nDate: ")[0] for _ in range(2)]
    writer.close()
    assert heads[0] == heads[1]


def _post(path: str, fields: Mapping[str, object]) -> bytes:
    return request_bytes("POST", path, json.dumps(fields).encode(), {"Content-Type": "application/json"})


ANSWERS: dict[str, tuple[int, Callable[[], bytes]]] = {
    "200": (200, lambda: _post(PATHS[0], GOOD)),
    "introspection": (200, lambda: _post(PATHS[2], {"identity_provider": "entra_id", "token": "a.b.c"})),
    "introspection of nothing": (200, lambda: request_bytes("POST", PATHS[2])),
    "400": (400, lambda: _post(PATHS[0], {})),
    "400, no HTTP": (400, lambda: HEAD + b"Content-Length: +5\r\n\r\nhello"),
    "403": (403, lambda: request_bytes("POST", PATHS[0], headers={"Origin": "null"})),
    "404": (404, lambda: request_bytes("GET", "/nowhere")),
    "405": (405, lambda: request_bytes("GET", PATHS[0])),
    "408": (408, lambda: HEAD),
    "413": (413, lambda: HEAD + b"Content-Type: application/json\r\nContent-Length: 131073\r\n\r\n"),
    "415": (415, lambda: request_bytes("POST", PATHS[0], b"x", {"Content-Encoding": "gzip"})),
    "417": (417, lambda: request_bytes("GET", "/nowhere", headers={"Expect": "wonders"})),
}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_every_answer_is_plain_json_that_is_not_stored(start: StartSidecar, kind: str) -> None:
    """`Content-Type` exactly, because a widely used client compares the whole value; `Cache-Control`; and no
    word about what runs here."""
    sidecar = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="1000")
    status, request = ANSWERS[kind]
    reader, writer = await sidecar.call.connect()
    writer.write(request())
    answer = await read_answer(reader)
    writer.close()
    assert answer.status == status
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Server") is None
    expected = (
        {"access_token", "expires_in", "token_type"} if kind == "200" else {"error", "error_description"}
    )
    assert set(answer.json) == ({"active", "error"} if "introspection" in kind else expected)


@pytest.mark.parametrize("path", ["/", "/api/v1", "/api/v1/token/", "/api/v2/token", "/api/v1/token/x"])
async def test_an_unknown_path_is_404(sidecar: Started, path: str) -> None:
    """404 in the form of all errors; it lists the paths of this listener."""
    answer = await sidecar.call.json(path, GOOD)
    assert (answer.status, answer.json["error"]) == (404, "invalid_request")
    assert answer.json["error_description"].startswith("no such path; expected one of /")
    assert "/api/v1/token/exchange" in answer.json["error_description"]
    assert answer.header("Content-Type") == "application/json"
    answer = await sidecar.probe.get("/nothing")
    assert answer.status == 404
    assert "/readyz" in answer.json["error_description"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:3000"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "10.0.0.1"},
        {"Host": "[::2]"},
        {"Host": "[::ffff:10.0.0.1]"},
        {"Host": "localhost."},
        {"Host": "localhost:"},
        {"Host": "localhost:123456"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "10.0.0.1"},
    ],
)
async def test_a_browser_or_a_proxy_may_not_call(
    sidecar: Started, provider: Provider, path: str, headers: dict[str, str]
) -> None:
    """A page in a browser (also after DNS rebinding) and forwarded requests get 403."""
    answer = await sidecar.call.json(path, GOOD, headers)
    assert (answer.status, answer.json["error"]) == (403, "invalid_request")
    assert provider.requests == []


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "127.0.0.1",
        "127.8.9.1:7164",
        "[::1]",
        "[::1]:80",
        "[::ffff:127.0.0.1]:80",
        "[::FFFF:7f00:1]",
    ],
)
async def test_loopback_hosts_may_call(sidecar: Started, host: str) -> None:
    """A caller that reaches the sidecar by a loopback name is in the pod."""
    answer = await sidecar.call.json("/api/v1/token", GOOD, {"Host": host, "Sec-Fetch-Site": "none"})
    assert answer.status == 200


async def test_an_allowed_host_may_call(start: StartSidecar) -> None:
    """ENTRA_FAST_ALLOWED_HOSTS admits further names, with any port."""
    sidecar = await start(ENTRA_FAST_ALLOWED_HOSTS="Sidecar.internal, other")
    for host, status in (("sidecar.internal:3000", 200), ("other", 200), ("another", 403)):
        assert (await sidecar.call.json("/api/v1/token", GOOD, {"Host": host})).status == status


async def test_a_request_for_an_absolute_url_is_refused(sidecar: Started, provider: Provider) -> None:
    """The target must be a path: otherwise it would conflict with Host."""
    answer = await sidecar.call.json("http://127.0.0.1/api/v1/token", GOOD)
    assert answer.status in (400, 404)
    assert provider.requests == []


async def test_expect_100_continue_is_met(sidecar: Started) -> None:
    """A client that asks first is told to continue, and gets its response."""
    body = json.dumps(GOOD).encode()
    request = request_bytes(
        "POST", "/api/v1/token", body, {"Content-Type": "application/json", "Expect": "100-continue"}
    )
    reader, writer = await sidecar.call.connect()
    writer.write(request[: -len(body)])
    assert (await read_answer(reader)).status == 100
    writer.write(body)
    assert (await read_answer(reader)).status == 200
    writer.close()


async def test_http_1_0_is_not_told_to_go_on(sidecar: Started) -> None:
    """RFC 9110, section 10.1.1: such a client would take the interim response for the final one."""
    request = _post("/api/v1/token", GOOD).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\nExpect: 100-continue\r\n")
    assert (await sidecar.call.send(request)).status == 200


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("path", [*PATHS, "/nowhere", "/healthz"])
async def test_another_expectation_is_417(sidecar: Started, path: str, method: str) -> None:
    """In the error's shape on every path, counted like every answer, and without repeating the header."""
    request = request_bytes(method, path, json.dumps(GOOD).encode(), {"Expect": "canary-4711"})
    reader, writer = await sidecar.call.connect()
    writer.write(request)
    answer = await read_answer(reader)
    writer.close()
    assert (answer.status, answer.json["error"]) == (417, "invalid_request")
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("Cache-Control") == "no-store"
    assert answer.header("Server") is None
    assert b"canary" not in answer.body
    endpoint = path.rpartition("/")[2] if path in PATHS and method == "POST" else "other"
    assert await sidecar.metric(f'entra_fast_requests_total{{endpoint="{endpoint}",status="417"}}') == 1


async def test_pipelined_requests_are_answered_in_order(sidecar: Started, provider: Provider) -> None:
    """Many requests in one write, among them errors and ones for the provider."""
    token = provider.mint()
    requests, expected = [], []
    for i in range(10):
        fields = {"identity_provider": "entra_id", "token": token}
        requests.append(_post("/api/v1/introspect", fields))
        expected.append(200)
        requests.append(_post("/api/v1/token", {**GOOD, "target": f"api://c.n.a{i}/.default"}))
        expected.append(200)
        requests.append(_post("/api/v1/token", {**GOOD, "target": ""}))
        expected.append(400)
    reader, writer = await sidecar.call.connect()
    writer.write(b"".join(requests))
    answers = [await read_answer(reader) for _ in requests]
    writer.close()
    assert [answer.status for answer in answers] == expected
    granted = [json.loads(a.body)["access_token"] for a in answers[1::3]]
    assert len(set(granted)) == 10


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (HEAD + b"Content-Length: +5\r\n\r\nhello", 400),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"X: a\r\n b\r\n\r\n", 400),
        (b"POST /api/v1/token HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET canary-4711 HTTP/1.1\r\nHo\x00st: canary-4711\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"canary-4711" * 3000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_not_http_is_refused_without_an_echo(
    sidecar: Started, data: bytes, status: int
) -> None:
    """400, or 431 for a header that is too long, in the error's shape; the connection closes, and the bytes
    are not repeated."""
    reader, writer = await sidecar.call.connect()
    writer.write(data)
    answer = await read_answer(reader)
    assert answer.status == status
    assert answer.json["error"] == "invalid_request"
    assert b"canary" not in answer.body
    assert answer.header("Server") is None
    assert await reader.read() == b""
    writer.close()


async def test_too_many_connections_are_refused(start: StartSidecar) -> None:
    """Above the limit a connection gets 503; below it everything works as before."""
    sidecar = await start(ENTRA_FAST_MAX_CONNECTIONS="3", PROBE_BIND_ADDRESS="127.0.0.1:0")
    held = [await sidecar.call.connect() for _ in range(3)]
    for reader, writer in held:
        writer.write(request_bytes("GET", "/nowhere"))
        assert (await read_answer(reader)).status == 404
    reader, writer = await sidecar.call.connect()
    assert (await read_answer(reader)).status == 503
    assert await reader.read() == b""
    writer.close()
    assert await sidecar.metric("entra_fast_connections_refused_total") == 1
    for _, held_writer in held:
        held_writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"P",
        HEAD,
        HEAD + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
)
async def test_a_request_that_does_not_arrive_in_time_is_408(start: StartSidecar, sent: bytes) -> None:
    """Slow headers and slow bodies end at an absolute deadline. It is counted like every answer; whether its
    endpoint is known depends on what arrived."""
    sidecar = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="150")
    reader, writer = await sidecar.call.connect()
    writer.write(sent)
    answer = await read_answer(reader)
    assert answer.status == 408
    assert await reader.read() == b""
    writer.close()
    series = [f'entra_fast_requests_total{{endpoint="{name}",status="408"}}' for name in ("token", "other")]
    assert sum([await sidecar.metric(name) for name in series]) == 1


async def test_a_trickle_does_not_move_the_deadline(start: StartSidecar) -> None:
    """A byte now and then (slowloris) does not keep a connection."""
    sidecar = await start(ENTRA_FAST_REQUEST_TIMEOUT_MILLIS="300")
    reader, writer = await sidecar.call.connect()

    async def trickle() -> None:
        writer.write(HEAD + b"X: ")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    try:
        async with asyncio.timeout(10):
            assert (await read_answer(reader)).status == 408
    finally:
        trickling.cancel()
        writer.close()


async def test_an_idle_connection_is_closed(start: StartSidecar) -> None:
    """After the idle limit, without an error."""
    sidecar = await start(ENTRA_FAST_IDLE_TIMEOUT_MILLIS="150")
    reader, writer = await sidecar.call.connect()
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


WHOLE: dict[str, Callable[[], bytes]] = {
    "cached": lambda: _post("/api/v1/token", {**GOOD, "target": "api://c.n.cached/.default"}),
    "for the provider": lambda: _post("/api/v1/token", {**GOOD, "skip_cache": True}),
    "introspection": lambda: _post("/api/v1/introspect", {"identity_provider": "entra_id", "token": "a.b.c"}),
    "nowhere": lambda: request_bytes("GET", "/nowhere"),
    "chunked": lambda: (
        request_bytes("POST", "/nowhere", headers={"Transfer-Encoding": "chunked"}).replace(
            b"Content-Length: 0\r\n", b""
        )
        + b"1\r\nx\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("last", WHOLE)
async def test_a_client_that_has_closed_its_side_gets_its_answers(sidecar: Started, last: str) -> None:
    """A client that sends its requests and closes its side at once (RFC 9293, section 3.6; `nc -N`,
    `CloseWrite`) gets responses: to one request, to several, and to those before a truncated one. Then the
    connection ends."""
    one, everything = WHOLE[last](), b"".join(request() for request in WHOLE.values())
    expected = {"nowhere": 404, "chunked": 404}.get(last, 200)
    for data, statuses in (
        (one, [expected]),
        (everything + one, [200, 200, 200, 404, 404, expected]),
        (one + HEAD, [expected]),
        (one + WHOLE["cached"]()[:-1], [expected, 400]),
    ):
        reader, writer = await sidecar.call.connect()
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(10):
            assert [(await read_answer(reader)).status for _ in statuses] == statuses
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(b"", []), (b"P", []), (HEAD, []), (WHOLE["cached"]()[:-1], [400])],
    ids=["nothing", "a byte", "half a head", "half a body"],
)
async def test_the_rest_of_a_request_is_not_waited_for_when_the_client_has_closed_its_side(
    sidecar: Started, sent: bytes, statuses: list[int]
) -> None:
    """The connection ends at once, long before the deadline; a head that was whole gets its error."""
    reader, writer = await sidecar.call.connect()
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(5):
        assert [(await read_answer(reader)).status for _ in statuses] == statuses
        assert await reader.read() == b""
    writer.close()


async def test_an_unread_body_may_be_cut_short(sidecar: Started, caplog: pytest.LogCaptureFixture) -> None:
    """The answer went out before the body came, and then the client closed its side: the connection ends, and
    nothing is logged."""
    reader, writer = await sidecar.call.connect()
    writer.write(request_bytes("POST", "/nowhere", b"x" * 50)[:-20])
    async with asyncio.timeout(5):
        assert (await read_answer(reader)).status == 404
        writer.write_eof()
        assert await reader.read() == b""
    writer.close()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_client_that_is_gone_before_its_request_is_looked_at_leaves_no_error(
    sidecar: Started, caplog: pytest.LogCaptureFixture, reset: bool
) -> None:
    """A request and the connection's end arrive together: there is no one to answer, and nothing to log."""
    for request in WHOLE.values():
        for _ in range(20):
            # Not through the event loop, which would let the sidecar run in between.
            with socket.create_connection((sidecar.call.host, sidecar.call.port)) as client:
                if reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(request())
        assert (await sidecar.call.get("/nowhere")).status == 404
    gc.collect()  # asyncio reports an exception of a task once it can no longer be retrieved
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_resets_the_connection_within_a_body_leaves_no_error(
    start: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """The handler waits for the rest of the body. There is no one to answer, and it is no defect."""
    sidecar = await start(ENTRA_FAST_FAST_PATH="false", PROBE_BIND_ADDRESS="127.0.0.1:0")

    async def gone() -> bool:
        return not sidecar.running.api.connections

    with socket.create_connection((sidecar.call.host, sidecar.call.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(WHOLE["cached"]()[:-1])
        await sidecar.received(1)
    await eventually(gone)
    assert (await sidecar.call.introspect("a")).status == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
