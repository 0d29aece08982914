"""Which HTTP client requests are made with, and that each is made with all options."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from entra_fast._provider import transport
from entra_fast._provider.blocking_http_client import (
    BlockingHttpClient,
    ThreadedHttpClient,
    _Headers,
    _HttpConnection,
    _Patience,
)
from entra_fast._provider.http_client import _VERSION, HttpClient, _Socket
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.http_rules import HttpFailure, HttpLimits, Route
from entra_fast._settings.model import OutboundSettings
from support.network import Authority

PROXY = "http://proxy.example:3128"
HOSTS = frozenset({"idp.invalid"})


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def options(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> HttpOptions:
    """None of them as it is by default."""
    monkeypatch.setenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", "idp.invalid")
    return HttpOptions(
        ca_bundle=Path(authority.bundle),
        proxy=PROXY,
        headers={"X-Key": "k"},
        timeout=9,
        connect_timeout=4,
        read_timeout=6,
    )


@pytest.fixture
def settings(authority: Authority) -> OutboundSettings:
    """None of them as it is by default."""
    return OutboundSettings(
        ca_bundle=str(authority.bundle),
        proxies={"https": PROXY},
        connect_timeout=4,
        read_timeout=6,
        overall_timeout=9,
        insecure_hosts=HOSTS,
    )


def made_with(client: Any) -> tuple[HttpLimits, str, Mapping[str, str], Mapping[str, str], frozenset[str]]:
    return (
        client._limits,
        client._ca_bundle,
        dict(client._proxies),
        dict(client._headers),
        frozenset(client._insecure_hosts),
    )


async def test_the_choice_of_a_client(options: HttpOptions, settings: OutboundSettings) -> None:
    """aiohttp's on an event loop, the standard library's in threads; either with what a caller of the library
    says, or the sidecar's settings say."""
    bundle, limits = str(options.ca_bundle), HttpLimits(4, 6, 9)
    of_options: tuple[object, ...] = (limits, bundle, {"always": PROXY}, {"X-Key": "k"}, HOSTS)
    of_settings: tuple[object, ...] = (limits, bundle, {"https": PROXY}, {}, HOSTS)
    for given, expected in ((options, of_options), (settings, of_settings)):
        client = transport.asynchronous(given)
        assert isinstance(client, HttpClient)
        assert made_with(client) == expected
        blocking = transport.blocking(given)
        assert isinstance(blocking, BlockingHttpClient)
        assert made_with(blocking) == expected
        threaded = transport.threaded(given)
        assert isinstance(threaded, ThreadedHttpClient)
        assert made_with(threaded._client) == expected
        await threaded.aclose()


async def test_without_aiohttp_the_standard_library_does(
    options: HttpOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library needs no extra for fetching keys."""
    monkeypatch.setitem(sys.modules, "entra_fast._provider.http_client", None)
    client = transport.asynchronous(options)
    assert isinstance(client, ThreadedHttpClient)
    assert made_with(client._client)[3] == {"X-Key": "k"}
    await client.aclose()


async def test_hosts_that_are_named_are_asked_over_plain_http() -> None:
    """And no other: that is refused before a name is looked up."""
    client = HttpClient(proxies={}, insecure_hosts=HOSTS)
    blocking = BlockingHttpClient(proxies={}, insecure_hosts=HOSTS)
    for url, code in (("http://idp.invalid/", "dns_failed"), ("http://other.invalid/", "url_not_allowed")):
        with pytest.raises(HttpFailure) as caught:
            await client.get(url)
        assert caught.value.code == code
        with pytest.raises(HttpFailure) as caught:
            blocking.get(url)
        assert caught.value.code == code
    await client.aclose()


async def test_connections_of_an_event_loop(settings: OutboundSettings) -> None:
    """Many, without cookies, without decompression, and without what the environment says; callbacks are
    told of each request and answer."""
    trace = aiohttp.TraceConfig()
    client = HttpClient.from_settings(settings, trace_configs=[trace], answered=print)
    assert made_with(client)[0] == HttpLimits(4, 6, 9)
    assert client._answered is print
    session = client._open_session()
    assert session is client._open_session()
    assert session.trace_configs == [trace]
    assert (session.auto_decompress, session.trust_env) == (False, False)
    assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
    assert isinstance(session.connector, aiohttp.TCPConnector)
    assert session.connector.limit == 500
    assert session.connector._keepalive_timeout == 30
    if _VERSION >= (3, 12):
        assert session.connector._socket_factory == _Socket.of
    await client.aclose()
    assert session.closed
    with pytest.raises(HttpFailure) as caught:
        client._open_session()
    assert (caught.value.code, caught.value.message) == ("connect_failed", "the HTTP client is closed")


class Recording:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = b""

    def receive(self) -> bytes:
        return b""

    def send(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("tls", "host", "port", "named"),
    [
        (True, "h.example", 443, b"h.example"),
        (True, "h.example", 80, b"h.example:80"),
        (False, "h.example", 80, b"h.example"),
        (False, "h.example", 443, b"h.example:443"),
        (True, "::1", 8443, b"[::1]:8443"),
    ],
)
def test_the_host_header_leaves_out_the_usual_port(tls: bool, host: str, port: int, named: bytes) -> None:
    """Of the scheme (RFC 9110, section 4.2)."""
    connection = Recording()
    _HttpConnection(Route(tls, host, port, None), connection).request("GET", "/x?y", None, {})
    assert connection.sent.startswith(b"GET /x?y HTTP/1.1\r\nHost: " + named + b"\r\n")


def test_headers_of_an_answer() -> None:
    """Whatever the case of their names; of a repeated one, the first value."""
    headers = _Headers([("Date", "one"), ("X-A", "a"), ("date", "two")])
    assert (headers["DATE"], headers.get("x-a"), headers.get("none")) == ("one", "a", None)
    assert (list(headers), len(headers)) == (["Date", "X-A"], 2)


def test_what_is_left_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For connecting first; then of the whole, and never longer than the longest silence."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    patience = _Patience(HttpLimits(2, 3, 5), 5)
    assert (patience.seconds, patience.left(), patience.is_over) == (2, 2, False)
    assert _Patience(HttpLimits(2, 3, 5), 1).seconds == 1
    now[0] += 1.5
    assert patience.left() == 0.5
    now[0] += 0.5
    assert patience.is_over
    with pytest.raises(TimeoutError):
        patience.left()
    patience.connected()
    assert (patience.seconds, patience.silence, patience.left(), patience.is_over) == (5, 3, 3, False)
    now[0] += 1
    assert patience.left() == 2
    now[0] += 2
    assert patience.is_over


class Host:
    """A server on loopback that answers every request with nothing, or is silent."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.silent = False
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: ([0-9]+)", head.lower())
        self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
        if not self.silent:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        else:
            await reader.read()
        writer.close()


@pytest_asyncio.fixture
async def host() -> AsyncIterator[Host]:
    one = Host()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    yield one
    server.close()


@pytest.mark.parametrize("threaded", [True, False])
async def test_each_method_sends_what_it_was_given(host: Host, threaded: bool) -> None:
    """The standard library's client and aiohttp's alike."""
    client = ThreadedHttpClient(BlockingHttpClient(proxies={})) if threaded else HttpClient(proxies={})
    assert (await client.get(host.url, accept="text/x")).body == b"{}"
    await client.post_form(host.url, {"a": "b"}, headers={"X-Key": "k"})
    await client.post_json(host.url, {"a": 1})
    get, form, document = host.requests
    assert b"accept: text/x\r\n" in get.lower()
    assert form.endswith(b"\r\n\r\na=b")
    assert b"x-key: k\r\n" in form.lower()
    assert document.endswith(b'\r\n\r\n{"a":1}')
    await client.aclose()


@pytest.mark.parametrize("threaded", [True, False])
async def test_each_method_has_the_time_that_is_left(host: Host, threaded: bool) -> None:
    """Where it is less than the client's own limit; silence has a limit of its own."""
    host.silent = True
    limits = HttpLimits(20, 20, 20)
    client = (
        ThreadedHttpClient(BlockingHttpClient(limits, proxies={}))
        if threaded
        else HttpClient(limits, proxies={})
    )
    for request in (
        client.post_form(host.url, {}, timeout=0.05),
        client.post_json(host.url, {}, timeout=0.05),
    ):
        with pytest.raises(HttpFailure) as caught:
            await request
        assert caught.value.code == "timed_out"
        assert "no complete answer" in caught.value.message
        assert caught.value.message.endswith("within 0.05 s")
    await client.aclose()
    hasty = HttpClient(HttpLimits(20, 0.05, 20), proxies={})
    with pytest.raises(HttpFailure) as caught:
        await hasty.get(host.url)
    assert "no answer from" in caught.value.message
    await hasty.aclose()


async def test_a_callback_learns_how_long_an_answer_took(host: Host) -> None:
    """With its headers, for the difference of the clocks."""
    told: list[tuple[str | None, float]] = []
    client = HttpClient(
        proxies={}, answered=lambda headers, took: told.append((headers.get("content-length"), took))
    )
    await client.get(host.url)
    ((length, took),) = told
    assert length == "2"
    assert 0 <= took < 60
    await client.aclose()
