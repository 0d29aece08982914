"""Heads that are not as RFC 9112 wants them: the status, one sentence, and not a byte of what was sent."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.provider import Provider
from support.sidecars import Started, StartSidecar
from support.wire import Answer, read_answer, request_bytes

BODY = json.dumps({"identity_provider": "entra_id", "target": "api://c.n.a/.default"}).encode()
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
PATHS = ("/api/v1/token", "/api/v1/introspect", "/healthz", "/nowhere")


def refused(answer: Answer, status: int, named: str, *canaries: str) -> None:
    """The one sentence names what is wrong and repeats nothing."""
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error", "error_description"}
    assert answer.json["error"] == "invalid_request"
    assert named in answer.json["error_description"]
    assert answer.header("Content-Type") == "application/json"
    assert not any(canary in answer.body.decode() for canary in canaries)


@pytest.mark.parametrize(
    ("value", "status", "named"),
    [
        ("canary, chunked", 501, "chunked"),
        ("canary", 501, "chunked"),
        ("identity", 501, "chunked"),
        ("chunked;canary=1", 501, "chunked"),
        ("gzip", 415, "compressed"),
        ("gzip, chunked", 415, "compressed"),
        ("Deflate, chunked", 415, "compressed"),
        ("chunked, gzip", 415, "compressed"),
        ("x-gzip", 415, "compressed"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
async def test_a_transfer_coding_other_than_chunked_is_refused(
    sidecar: Started, provider: Provider, path: str, value: str, status: int, named: str
) -> None:
    """501, or 415 for compression (RFC 9112, section 6.1): it is never ignored."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Transfer-Encoding: {value}\r\n\r\n".encode() + CHUNKS
    refused(await sidecar.call.send(request), status, named, "canary")
    assert provider.requests == []


@pytest.mark.parametrize("value", ["", " ", "\t", ",", " , "])
async def test_an_empty_transfer_encoding_is_refused(
    sidecar: Started, provider: Provider, value: str
) -> None:
    """400, although Content-Length says where the body ends."""
    headers = {"Content-Type": "application/json", "Transfer-Encoding": value}
    answer = await sidecar.call.request("POST", "/api/v1/token", BODY, headers)
    assert (answer.status, answer.json["error"]) == (400, "invalid_request")
    assert provider.requests == []


async def test_chunked_is_the_one_accepted_transfer_coding(sidecar: Started) -> None:
    """In any case of letters."""
    for value in ("chunked", "CHUNKED"):
        head = "POST /api/v1/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        request = f"{head}Transfer-Encoding: {value}\r\n\r\n".encode() + CHUNKS
        assert (await sidecar.call.send(request)).status == 200


MALFORMED_HOSTS = (
    "",
    ":80",
    "canary@localhost",
    "localhost@canary.example",
    "localhost:80@canary.example",
    "localhost/",
    "localhost/canary",
    "localhost?canary",
    "http://localhost",
    "localhost, canary.example",
    "localhost,localhost",
    "localhost canary",
    "localhost:x",
    "localhost:8:0",
    "::1",
    "[::1",
    "[127.0.0.1]",
    "[localhost]",
    "loc\xe6lhost",
)


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_malformed_host_is_400(sidecar: Started, provider: Provider, path: str, host: str) -> None:
    """RFC 9112, section 3.2; on every path, those for the kubelet included."""
    request = request_bytes("POST", path, BODY, {"Content-Type": "application/json", "Host": host})
    refused(await sidecar.call.send(request), 400, "Host header", "canary")
    assert provider.requests == []


@pytest.mark.parametrize(
    "lines", ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nHost: canary.example\r\n"]
)
async def test_a_missing_or_repeated_host_is_400(sidecar: Started, provider: Provider, lines: str) -> None:
    """RFC 9112, section 3.2: in HTTP/1.1 there is exactly one."""
    request = request_bytes("POST", "/api/v1/token", BODY, {"Content-Type": "application/json"})
    request = request.replace(b"Host: 127.0.0.1\r\n", lines.encode())
    refused(await sidecar.call.send(request), 400, "Host header", "canary")
    assert provider.requests == []


async def test_the_probe_listener_wants_a_well_formed_host_as_well(start: StartSidecar) -> None:
    """Any host is right there, but it must be one."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    assert (await sidecar.probe.get("/readyz", {"Host": "10.1.2.3:7165"})).status == 200
    refused(await sidecar.probe.get("/readyz", {"Host": "canary@10.1.2.3"}), 400, "Host header", "canary")


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/readyz", "/openapi.json"])
@pytest.mark.parametrize("headers", [{"Origin": "http://10.1.2.3"}, {"Sec-Fetch-Site": "cross-site"}])
async def test_no_probe_of_the_probe_listener_is_for_pages(
    start: StartSidecar, path: str, headers: dict[str, str]
) -> None:
    """The kubelet and Prometheus are no browsers: not even /healthz is an exception."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    assert (await sidecar.probe.get(path, {"Host": "10.1.2.3:7165"})).status == 200
    answer = await sidecar.probe.get(path, {"Host": "10.1.2.3:7165", **headers})
    assert (answer.status, answer.json["error"]) == (403, "invalid_request")


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/openapi.json"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Forwarded-For": "10.0.0.1"},
    ],
)
async def test_probes_on_the_main_listener_obey_the_caller_check(
    sidecar: Started, path: str, headers: dict[str, str]
) -> None:
    """Metrics, readiness and description are not for pages in a browser either; /healthz is for all."""
    assert (await sidecar.call.get(path)).status == 200
    answer = await sidecar.call.get(path, headers)
    assert (answer.status, answer.json["error"]) == (403, "invalid_request")
    assert (await sidecar.call.get("/healthz", headers)).status == 200


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("Cookie: canary=" + "x" * 32_768 + "\r\n", "32768 bytes"),
        ("X" * 32_769 + ": canary\r\n", "32768 bytes"),
        ("".join(f"X-{i}: {'x' * 8_000} canary\r\n" for i in range(5)), "32768 bytes"),
        ("Cookie: canary=" + "x" * 400_000 + "\r\n", "32768 bytes"),
        ("".join(f"X-{i}: {'x' * 30_000} canary\r\n" for i in range(10)), "32768 bytes"),
        ("".join(f"X-{i}: canary\r\n" for i in range(130)), "128 header fields"),
    ],
    ids=["value", "name", "sum", "huge value", "huge sum", "number"],
)
async def test_too_large_header_fields_are_431(sidecar: Started, lines: str, named: str) -> None:
    """RFC 6585, section 5: the sentence says the limit."""
    request = request_bytes("POST", "/api/v1/token", BODY, {"Content-Type": "application/json"})
    request = request.replace(b"Host: ", lines.encode() + b"Host: ")
    refused(await sidecar.call.send(request), 431, named, "canary", "xxxx")


@pytest.mark.parametrize("pieces", [1, 7])
async def test_header_fields_up_to_32_kib_together_are_accepted(sidecar: Started, pieces: int) -> None:
    """Applications forward cookies and baggage: in one field or in several, up to the last byte."""
    bare = request_bytes("POST", "/api/v1/token", BODY, {"Content-Type": "application/json"})
    fields = bare.partition(b"\r\n")[2].partition(b"\r\n\r\n")[0] + b"\r\n"
    size = sum(len(line.replace(b": ", b":")) for line in fields.splitlines(keepends=True))
    for count in (1, 4):
        left = 32_768 - size
        lines = b""
        for i in range(count):
            length = left if i == count - 1 else left // 2
            lines += b"X-%d:%b\r\n" % (i, b"c" * (length - len("X-0:\r\n")))
            left -= length
        for extra, status in ((b"", 200), (b"c", 431)):
            request = bare.replace(b"Host: ", lines.replace(b"X-0:", b"X-0:" + extra) + b"Host: ")
            reader, writer = await sidecar.call.connect()
            step = len(request) // pieces + 1
            for at in range(0, len(request), step):
                writer.write(request[at : at + step])
                await writer.drain()
                await asyncio.sleep(0.001)
            answer = await read_answer(reader)
            writer.close()
            assert answer.status == status, answer.body


async def test_a_request_line_is_limited(sidecar: Started) -> None:
    """431 with the limit, and nothing of the line."""
    refused(await sidecar.call.get("/" + "canary" * 1500), 431, "8190 bytes", "canary")


async def test_refused_heads_are_counted(sidecar: Started) -> None:
    """By status, as requests to no endpoint."""
    for headers, status in (
        ({"Host": "a@b"}, "400"),
        ({"Transfer-Encoding": "gzip"}, "415"),
        ({"Cookie": "x" * 33_000}, "431"),
    ):
        series = f'entra_fast_requests_total{{endpoint="other",status="{status}"}}'
        before = await sidecar.metric(series)
        request = request_bytes("POST", "/api/v1/token", headers=headers).replace(
            b"Content-Length: 0\r\n", b""
        )
        assert (await sidecar.call.send(request)).status == int(status)
        assert await sidecar.metric(series) == before + 1
