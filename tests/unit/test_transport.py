"""Which HTTP client requests are made with, and that each is made with all options."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from entra_fast._provider import transport
from entra_fast._provider.blocking_http_client import (
    BlockingHttpClient,
    ThreadedHttpClient,
    _Headers,
    _HttpConnection,
    _Patience,
)
from entra_fast._provider.http_client import HttpClient
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
    """Many, without cookies, without decompression, and without what the environment says; whoever wants to
    is told of each request and answer."""
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
