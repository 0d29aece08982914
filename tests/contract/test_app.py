"""The application behind the fast path: what it says of requests that only it sees, and when."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

import pytest

from entra_fast.sidecar.http.requests import MAX_BODY_BYTES
from support.fast_path import fast_path_answers
from support.provider import Provider
from support.sidecars import Started, StartSidecar, eventually
from support.wire import Caller, read_answer, request_bytes

PATHS = ("/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect")
PROBES = ("/healthz", "/readyz", "/metrics", "/openapi.json")


@pytest.fixture(params=["fast_path", "slow_path"])
def way(request: pytest.FixtureRequest) -> str:
    """In one piece: what these tests send never depends on its pieces."""
    return str(request.param)


async def test_http_1_0_without_a_host_may_not_call(sidecar: Started) -> None:
    """HTTP/1.0 allows it (RFC 9112, section 3.2), but then nobody knows whom the caller meant."""
    body = json.dumps({"identity_provider": "entra_id", "token": "a.b.c"}).encode()
    head = (
        f"POST {PATHS[2]} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer = await sidecar.call.send(head.encode() + body)
    assert (answer.status, answer.json["error"]) == (403, "invalid_request")
    assert "Host" in answer.json["error_description"]


@pytest.mark.parametrize("path", ["/", *PROBES])
async def test_an_expectation_of_a_probe_is_met_or_refused(start: StartSidecar, path: str) -> None:
    """On a listener of their own, too: 100-continue is met, and any other is 417 in our own words."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    answer = await sidecar.probe.request("GET", path, b"x", {"Expect": "wonders"})
    assert answer.status == 417
    assert answer.json == {
        "error": "invalid_request",
        "error_description": "the only expectation that can be met is 100-continue",
    }
    reader, writer = await sidecar.probe.connect()
    writer.write(request_bytes("GET", path, b"x", {"Expect": "100-continue"})[:-1])
    assert (await read_answer(reader)).status == 100
    writer.write(b"x")
    assert (await read_answer(reader)).status == 200
    writer.close()
    headers = {"Expect": "100-continue", "Content-Length": str(MAX_BODY_BYTES + 1)}
    answer = await sidecar.probe.request("GET", path, headers=headers)
    assert answer.status == 200  # and not told to go on


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ],
)
async def test_each_probe_says_what_its_body_is(sidecar: Started, path: str, content_type: str) -> None:
    """Prometheus reads the version of the format from it; nothing is stored."""
    answer = await sidecar.probe.get(path)
    assert (answer.status, answer.header("Content-Type")) == (200, content_type)
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_too_large_is_refused_before_it_arrives(sidecar: Started, path: str) -> None:
    """By its Content-Length alone: nothing of it is read, and a client that waits to be told to go on is
    not."""
    sentence = f"request body is larger than {MAX_BODY_BYTES} bytes"
    for expect in ({}, {"Expect": "100-continue"}):
        headers = {"Content-Type": "application/json", "Content-Length": str(MAX_BODY_BYTES + 1), **expect}
        answer = await sidecar.call.send(request_bytes("POST", path, headers=headers))
        if path == PATHS[2]:
            assert (answer.status, answer.json) == (200, {"active": False, "error": sentence})
        else:
            assert answer.status == 413
            assert answer.json == {"error": "invalid_request", "error_description": sentence}
        assert answer.header("Connection") == "close"


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_of_the_largest_size_is_read(sidecar: Started, path: str) -> None:
    """With and without waiting to be told to go on; and one that is larger than it says in chunks is not."""
    body = b'{"x":"' + b"x" * (MAX_BODY_BYTES - 8) + b'"}'
    assert len(body) == MAX_BODY_BYTES
    answer = await sidecar.call.json(path, body)
    assert answer.status == (200 if path == PATHS[2] else 400)
    text = answer.json["error" if path == PATHS[2] else "error_description"]
    assert "larger than" not in text
    reader, writer = await sidecar.call.connect()
    headers = {"Content-Type": "application/json", "Expect": "100-continue"}
    request = request_bytes("POST", path, body, headers)
    writer.write(request[: -len(body)])
    assert (await read_answer(reader)).status == 100
    writer.write(body)
    assert (await read_answer(reader)).body == answer.body
    writer.close()
    chunked = request_bytes(
        "POST", path, headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    ).replace(b"Content-Length: 0\r\n", b"")
    size = MAX_BODY_BYTES + 1
    answer = await sidecar.call.send(chunked + f"{size:x}\r\n".encode() + b"x" * size + b"\r\n0\r\n\r\n")
    assert answer.status == (200 if path == PATHS[2] else 413)
    assert f"request body is larger than {MAX_BODY_BYTES} bytes" in answer.body.decode()


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_not_framed_is_refused(sidecar: Started, path: str) -> None:
    """With 400 at introspection, too: what the client meant to send is not known."""
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    head = request_bytes("POST", path, headers=headers).replace(b"Content-Length: 0\r\n", b"")
    reader, writer = await sidecar.call.connect()
    writer.write(head + b"2\r\n{}\r\n")
    await sidecar.received(1)
    writer.write(b"canary\r\n")
    answer = await read_answer(reader)
    assert (answer.status, answer.header("Connection")) == (400, "close")
    assert answer.json == {
        "error": "invalid_request",
        "error_description": "request body is not framed as its headers say",
    }
    writer.close()


async def test_an_unknown_path_is_told_which_there_are(start: StartSidecar) -> None:
    """Each listener names its own: perhaps the request was for the other one."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    for caller, paths in ((sidecar.call, PATHS), (sidecar.probe, ("/", *PROBES))):
        answer = await caller.get("/nowhere")
        assert answer.status == 404
        assert answer.json["error_description"] == f"no such path; expected one of {', '.join(paths)}"
    sidecar = await start()
    answer = await sidecar.call.get("/nowhere")
    expected = ", ".join((*PATHS, *PROBES))
    assert answer.json["error_description"] == f"no such path; expected one of {expected}"


@pytest.mark.parametrize("path", [*PATHS, *PROBES])
async def test_another_method_is_told_which_there_are(sidecar: Started, path: str) -> None:
    """In `Allow`, in the order of the alphabet, and in the sentence."""
    answer = await sidecar.call.request("PATCH", path)
    allowed = "POST" if path in PATHS else "GET, HEAD"
    assert (answer.status, answer.header("Allow")) == (405, allowed)
    assert answer.json == {
        "error": "invalid_request",
        "error_description": f"method not allowed: expected {allowed}",
    }


async def test_while_draining_a_new_connection_takes_the_slow_path(start: StartSidecar) -> None:
    """The answer ends the connection, so that the client opens its next one elsewhere."""
    sidecar = await start(ENTRA_FAST_DRAIN_DELAY_MILLIS="60000", PROBE_BIND_ADDRESS="127.0.0.1:0")
    stopping = asyncio.create_task(sidecar.running.stop(drain=True))

    async def no_fast_path() -> bool:
        return await sidecar.metric("entra_fast_fast_path") == 0

    await eventually(no_fast_path)
    before = fast_path_answers(sidecar)
    for _ in range(2):
        answer = await Caller(sidecar.running.address).introspect("a.b.c")
        assert (answer.status, answer.header("Connection")) == (200, "close")
    assert fast_path_answers(sidecar) == before
    assert await sidecar.metric("entra_fast_fast_path") == 0
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    sidecar.running._stopped = False


async def test_tokens_and_errors_are_counted_with_their_provider(
    sidecar: Started, provider: Provider
) -> None:
    """By endpoint, status and provider; a token from the cache once more; times by endpoint."""
    token = provider.mint()
    await sidecar.call.token()
    await sidecar.call.token()
    await sidecar.call.introspect(token)
    await sidecar.call.json(PATHS[0], {"identity_provider": "tokenx", "target": "x"})
    await sidecar.call.json(PATHS[0], b"{")
    for status, name, endpoint, count in (
        (200, "entra_id", "token", 2),
        (200, "entra_id", "introspect", 1),
        (400, "none", "token", 2),
    ):
        labels = f'endpoint="{endpoint}",identity_provider="{name}",status="{status}"'
        assert await sidecar.metric(f"entra_fast_requests_total{{{labels}}}") == count
    cached = 'entra_fast_tokens_from_cache_total{endpoint="token",identity_provider="entra_id"}'
    assert await sidecar.metric(cached) == 1
    seconds = 'entra_fast_request_duration_seconds_sum{endpoint="token"}'
    assert 0 < await sidecar.metric(seconds) < 60
    assert await sidecar.metric('entra_fast_request_duration_seconds_count{endpoint="token"}') == 4


async def test_introspections_without_a_token_are_counted_as_such(sidecar: Started) -> None:
    """By the code of a request that has none, and without a provider that is not known."""
    known = {"identity_provider": "entra_id"}
    for body in (b"{", json.dumps(known).encode(), json.dumps({**known, "token": 5}).encode()):
        assert (await sidecar.call.json(PATHS[2], body)).json["active"] is False
    rejected = "entra_fast_introspections_rejected_total"
    assert await sidecar.metric(f'{rejected}{{code="invalid_request"}}') == 3
    assert await sidecar.metric(rejected) == 3
    assert await sidecar.metric('entra_fast_introspections_total{active="false"}') == 3


async def test_the_access_log_names_method_path_and_status(
    start: StartSidecar, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the endpoints and the probes; any other path is `other`, and a query is left out."""
    sidecar = await start(ENTRA_FAST_ACCESS_LOG="true")
    log = sidecar.running.service.access_log
    assert log.native is not None
    log.native.flush()
    capfd.readouterr()
    await sidecar.call.introspect("a.b.c")
    await sidecar.call.get("/healthz?canary")
    await sidecar.call.request("PUT", "/canary")
    await sidecar.call.request("PUT", PATHS[0])
    log.native.flush()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if '"path"' in line]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("POST", PATHS[2], 200),
        ("GET", "/healthz", 200),
        ("PUT", "other", 404),
        ("PUT", PATHS[0], 405),
    ]


async def test_a_client_that_leaves_within_its_body_is_counted_as_such(
    start: StartSidecar, caplog: pytest.LogCaptureFixture
) -> None:
    """With 499, which no client sees, and without a line in the log: nothing has failed."""
    sidecar = await start(ENTRA_FAST_FAST_PATH="false", PROBE_BIND_ADDRESS="127.0.0.1:0")

    async def counted() -> bool:
        return await sidecar.metric('entra_fast_requests_total{endpoint="token",status="499"}') == 1

    with socket.create_connection((sidecar.call.host, sidecar.call.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        headers = {"Content-Type": "application/json"}
        client.sendall(request_bytes("POST", PATHS[0], b"x" * 100, headers)[:-1])
        await sidecar.received(1)
    await eventually(counted)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
