"""Outbound HTTP: the client for asyncio and the one for threads follow the same rules and fail in the same
words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any, Protocol

import pytest
import pytest_asyncio

from entra_fast._provider.blocking_http_client import BlockingHttpClient, ThreadedHttpClient
from entra_fast._provider.http_client import HttpClient
from entra_fast._provider.http_rules import HttpFailure, HttpLimits, HttpResponse, Route
from entra_fast.errors import ConfigurationError, EntraFastError
from entra_fast.validate import AsyncValidator, Validator
from support.network import (
    Authority,
    ConnectProxy,
    Fault,
    TcpProxy,
    black_hole,
    reset_at_once,
    truncate_after,
)
from support.tokens import signer

NAME = "login.example.test"
"""A name that no resolver knows: only the proxy can reach it."""

TOKEN = signer().token()
PATIENT = HttpLimits(10.0, 10.0, 10.0, 1000)
HASTY = HttpLimits(connect_timeout=0.2, read_timeout=0.2, overall_timeout=10.0)


class Client(Protocol):
    async def get(self, url: str, *, accept: str = ..., timeout: float | None = ...) -> HttpResponse: ...  # noqa: ASYNC109

    async def post_form(self, url: str, fields: dict[str, str]) -> HttpResponse: ...

    async def aclose(self) -> None: ...


class InThread:
    """A blocking client, for tests on an event loop."""

    def __init__(self, *limits: HttpLimits, **options: Any) -> None:
        self.client = BlockingHttpClient(*limits, **options)

    async def get(self, url: str, **options: Any) -> HttpResponse:
        return await asyncio.to_thread(self.client.get, url, **options)

    async def post_form(self, url: str, fields: dict[str, str]) -> HttpResponse:
        return await asyncio.to_thread(self.client.post_form, url, fields)

    async def aclose(self) -> None:
        """Nothing is kept open."""


Make = Callable[..., Client]


@pytest_asyncio.fixture(params=[HttpClient, InThread], ids=["asyncio", "threads"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes clients of one kind, without a web proxy unless told."""
    made: list[Client] = []

    def one(limits: HttpLimits = PATIENT, **options: Any) -> Client:
        made.append(request.param(limits, **{"proxies": {}} | options))
        return made[-1]

    yield one
    for client in made:
        await client.aclose()


@pytest.fixture
def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Says:
    """Reads a request and responds with these bytes, whatever they are. `heard` is what was sent."""

    def __init__(self, *pieces: bytes, then: Fault | None = None, every: float = 0.0) -> None:
        self.heard = b""
        self._pieces, self._then, self._every = pieces, then, every

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self.heard = await reader.readuntil(b"\r\n\r\n")
        for piece in self._pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self._every)
        if self._then is not None:
            await self._then(reader, writer, port)


def answering(body: bytes, status: str = "200 OK", *headers: str) -> Says:
    head = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        "Content-Type: text/plain",
        *headers,
        "",
        "",
    ]
    return Says("\r\n".join(head).encode() + body)


async def failure(client: Client, url: str, **options: Any) -> HttpFailure:
    """The failure of a request. Its message repeats neither the path nor the query."""
    with pytest.raises(HttpFailure) as caught:
        await client.get(f"{url}/canary?canary=1", **options)
    assert "canary" not in caught.value.message
    assert caught.value.__traceback__ is None or "canary" not in repr(caught.value.args)
    return caught.value


def base(network: TcpProxy, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{network.port}"


# --- requests and answers --------------------------------------------------------------------------------


async def test_what_is_sent(make: Make, network: TcpProxy) -> None:
    """Both ask for an answer without compression, name themselves and send the same request."""
    network.always = says = answering(b"{}")
    client = make()
    await client.get(f"{base(network)}/keys?x=%20y", accept="application/json, application/jwk-set+json")
    request, _, head = says.heard.decode().partition("\r\n")
    headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n"))
    assert request == "GET /keys?x=%20y HTTP/1.1"
    assert headers == {
        "Host": f"127.0.0.1:{network.port}",
        "Accept": "application/json, application/jwk-set+json",
        "Accept-Encoding": "identity",
        "User-Agent": "entra-fast",
    }
    await client.get(base(network))
    assert says.heard.startswith(b"GET / HTTP/1.1\r\n")


async def test_a_form_is_sent_whole(make: Make, network: TcpProxy) -> None:
    """With its length, so that nothing is chunked; and its answer is read whatever its status is."""
    received = bytearray()

    async def record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        received.extend(await reader.readuntil(b"\r\n\r\n"))
        received.extend(await reader.readexactly(70_000 + len("a=%26&b=")))
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nX-One: 1\r\nx-one: 2\r\n\r\n{}")

    network.always = record
    answer = await make().post_form(f"{base(network)}/token", {"a": "&", "b": "x" * 70_000})
    assert (answer.status, answer.body) == (401, b"{}")
    assert (answer.headers["x-ONE"], answer.headers.get("none")) == ("1", None)
    assert {"X-One", "Content-Length"} <= set(answer.headers)
    assert len(answer.headers) >= 2
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert b"Content-Type: application/x-www-form-urlencoded" in head
    assert body == b"a=%26&b=" + b"x" * 70_000


def test_a_json_document_is_sent() -> None:
    """What the command line asks a sidecar: plain http to any host, if the caller allows it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def ask() -> tuple[HttpResponse, bytes]:
            says = answering(b'{"active":false}')
            network = TcpProxy()
            network.always = says
            await network.start()
            client = BlockingHttpClient(PATIENT, proxies={}, allow_plain_http=True)
            url = f"http://127.0.0.1:{network.port}/api"
            answer = await asyncio.to_thread(client.post_json, url, {"token": "x"})
            await network.stop()
            return answer, says.heard

        answer, heard = asyncio.run(ask())
        assert json.loads(answer.body) == {"active": False}
        assert b"Content-Type: application/json\r\n" in heard
        port = listener.getsockname()[1]
        listener.close()
        allowed = BlockingHttpClient(HASTY, proxies={}, allow_plain_http=True)
        with pytest.raises(HttpFailure) as caught:
            allowed.get(f"http://name.invalid:{port}/")
        assert caught.value.code == "dns_failed"
        with pytest.raises(HttpFailure, match="must not contain a user name"):
            allowed.get("http://user@name.invalid/")


async def test_no_answer_is_inflated(make: Make, network: TcpProxy) -> None:
    """A small compressed response cannot become a large one: it stays compressed."""
    squeezed = gzip.compress(b"x" * 100_000)
    network.always = answering(squeezed, "200 OK", "Content-Encoding: gzip")
    assert (await make().get(base(network))).body == squeezed


OK = b"HTTP/1.1 200 OK\r\n"
WHOLE = {
    "of known length": OK + b"Content-Length: 5\r\n\r\nhello",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "until the end": OK + b"\r\nhello",
    "after a provisional one": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    "in the old protocol": b"HTTP/1.0 200 OK\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
async def test_answers_of_every_framing_are_read(make: Make, network: TcpProxy, answer: bytes) -> None:
    """However the end of an answer is marked (RFC 9112, section 6.3)."""
    network.always = Says(answer)
    response = await make().get(base(network))
    assert (response.status, response.body) == (200, b"hello")


async def test_the_largest_answer(make: Make, network: TcpProxy) -> None:
    """As many bytes as the limit says are read, however they are framed."""
    network.always = answering(b"x" * 1000)
    assert len((await make().get(base(network))).body) == 1000
    network.always = Says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
    assert len((await make().get(base(network))).body) == 1000


# --- failures of the host --------------------------------------------------------------------------------

ENDLESS = [b"1"] * 100_000
REDIRECTED = ("redirected", "{} answered with a redirect (302), which is not followed")
TOO_LARGE = ("answer_too_large", "{} answered with more than 1000 bytes")
CUT_OFF = ("answer_incomplete", "{} closed the connection before its answer was complete")
NOT_HTTP = ("answer_incomplete", "{} did not answer in well-formed HTTP")
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FAILURES: dict[str, tuple[Fault, tuple[str, str]]] = {
    "redirect": (answering(b"", "302 Found", "Location: https://canary.example/"), REDIRECTED),
    "announced too large": (answering(b"x" * 1001), TOO_LARGE),
    "too large": (Says(OK + b"\r\n" + b"x" * 1001), TOO_LARGE),
    "too large in chunks": (Says(CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"), TOO_LARGE),
    "nothing": (Says(), CUT_OFF),
    "cut head": (Says(OK), CUT_OFF),
    "cut body": (Says(OK + b"Content-Length: 5\r\n\r\nhell"), CUT_OFF),
    "cut chunks": (Says(CHUNKED + b"2\r\nhe\r\n"), CUT_OFF),
    "reset": (Says(then=reset_at_once), CUT_OFF),
    "another protocol": (Says(b"SSH-2.0-canary\r\n\r\n"), NOT_HTTP),
    "a long header": (Says(OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n"), NOT_HTTP),
}


@pytest.mark.parametrize(("fault", "expected"), FAILURES.values(), ids=FAILURES)
async def test_a_bad_answer(make: Make, network: TcpProxy, fault: Fault, expected: tuple[str, str]) -> None:
    """Code and sentence are the same on both; host and port are named."""
    network.always = fault
    failed = await failure(make(), base(network))
    code, sentence = expected
    assert (failed.code, failed.message) == (code, sentence.format(f"127.0.0.1:{network.port}"))


DRIPPING = {
    "head": (OK + b"X: ", *ENDLESS),
    "body of known length": (OK + b"Content-Length: 999\r\n\r\n", *ENDLESS),
    "body of unknown length": (OK + b"\r\n", *ENDLESS),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", *ENDLESS),
}


@pytest.mark.parametrize("pieces", DRIPPING.values(), ids=DRIPPING)
async def test_an_answer_that_drips_is_bounded(make: Make, network: TcpProxy, pieces: tuple[bytes]) -> None:
    """Each byte arrives soon after the previous one, and the response would never end: the request is
    ended."""
    network.always = Says(*pieces, every=0.01)
    failed = await failure(make(), base(network), timeout=0.2)
    assert failed.code == "timed_out"
    assert failed.message == f"no complete answer from 127.0.0.1:{network.port} within 0.2 s"


async def test_silence(make: Make, network: TcpProxy) -> None:
    """The time between two reads is limited separately, before the response and within it."""
    for fault in (black_hole, Says(OK + b"Content-Length: 5\r\n\r\nhe", then=black_hole)):
        network.always = fault
        failed = await failure(make(HASTY), base(network))
        assert (failed.code, failed.message) == (
            "timed_out",
            f"no answer from 127.0.0.1:{network.port} for 0.2 s",
        )


async def test_no_time_left(network: TcpProxy) -> None:
    """Where looking up the name has used up all the time, no connection begins."""
    hurried = InThread(HttpLimits(connect_timeout=0.0, read_timeout=10.0, overall_timeout=10.0), proxies={})
    assert (await failure(hurried, base(network))).code == "timed_out"
    assert network.connections == 0


@pytest.mark.parametrize("refused", [True, False], ids=["refused", "cut off"])
async def test_a_failure_needs_no_garbage_collector(make: Make, network: TcpProxy, *, refused: bool) -> None:
    """What was sent may be a secret, and frames hold it: they are gone as soon as nobody has the failure."""
    if refused:
        await network.stop()
    else:
        network.always = Says(OK + b"Content-Length: 5\r\n\r\nhe")
    client = make(HASTY)
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with pytest.raises(HttpFailure):
            await client.get(base(network))
        await asyncio.sleep(0)
        gc.collect()
        kept = [found.f_code for found in gc.garbage if isinstance(found, FrameType)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert [code.co_qualname for code in kept if "/entra_fast/" in code.co_filename] == []


async def test_a_refused_connection(make: Make, network: TcpProxy) -> None:
    """The reason is the operating system's."""
    await network.stop()
    failed = await failure(make(), base(network))
    assert (failed.code, failed.message) == (
        "connect_failed",
        f"no connection to 127.0.0.1:{network.port}: Connection refused",
    )


async def test_a_name_that_does_not_resolve(make: Make) -> None:
    """It has its own code; so does a text that cannot be a name."""
    failed = await failure(make(), "https://nowhere.invalid")
    assert (failed.code, failed.message) == (
        "dns_failed",
        "no connection to nowhere.invalid:443: the host name could not be resolved",
    )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://example.com", "the URL must be an https URL"),
        ("file:///etc", "the URL must be an https URL"),
        ("https://a..example", "the URL must have a valid host name"),
        (f"https://{'a' * 64}.example", "the URL must have a valid host name"),
        ("https://user:canary@example.com", "the URL must not contain a user name or password"),
    ],
)
async def test_a_url_that_is_not_allowed(make: Make, url: str, sentence: str) -> None:
    """https, or http to loopback; nothing is sent anywhere else."""
    failed = await failure(make(), url)
    assert failed.code == "url_not_allowed"
    assert failed.message.startswith(sentence)


# --- TLS -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext, answer: Says) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await answer(reader, writer, 0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_tls(make: Make, authority: Authority) -> None:
    """A certificate of an authority in the CA bundle is accepted for its name, and an answer of any size
    comes through."""
    body = b"x" * 300_000
    async with tls_server(authority.server("localhost", "127.0.0.1"), answering(body)) as port:
        client = make(HttpLimits(10, 10, 10), ca_bundle=str(authority.bundle))
        assert (await client.get(f"https://localhost:{port}")).body == body
        assert (await client.get(f"https://127.0.0.1:{port}")).body == body


@pytest.mark.parametrize(
    ("names", "trusted", "reason"),
    [
        (["localhost"], False, "unable to get local issuer certificate"),
        (["other.example"], True, "Hostname mismatch, certificate is not valid for 'localhost'."),
    ],
)
async def test_a_certificate_that_is_not_trusted(
    make: Make, authority: Authority, names: list[str], trusted: bool, reason: str
) -> None:
    """The reason is OpenSSL's; nothing is sent."""
    answer = answering(b"")
    async with tls_server(authority.server(*names), answer) as port:
        client = make(ca_bundle=str(authority.bundle) if trusted else None)
        failed = await failure(client, f"https://localhost:{port}")
    assert (failed.code, failed.message) == ("tls_failed", f"no TLS connection to localhost:{port}: {reason}")
    assert answer.heard == b""


async def test_a_server_without_tls(make: Make, network: TcpProxy) -> None:
    """The error does not repeat the server's bytes."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 canary\r\n\r\n")

    network.always = plain
    failed = await failure(make(), base(network, "https"))
    assert failed.code == "tls_failed"
    where = f"127.0.0.1:{network.port}"
    assert failed.message == f"no TLS connection to {where}: wrong version number"


async def reset_when_asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """RST as soon as anything has arrived."""
    await reader.read(1)
    await reset_at_once(reader, writer, port)


@pytest.mark.parametrize("fault", [truncate_after(0), reset_when_asked], ids=["closed", "reset"])
async def test_a_tls_handshake_that_is_cut_off(make: Make, network: TcpProxy, fault: Fault) -> None:
    """For example by a firewall that accepts connections and then closes them."""
    network.always = fault
    failed = await failure(make(), base(network, "https"))
    assert (failed.code, failed.message) == (
        "connect_failed",
        f"no connection to 127.0.0.1:{network.port}: it was closed during the TLS handshake",
    )


async def test_a_tls_handshake_that_drips(make: Make, network: TcpProxy) -> None:
    """It counts as connecting, and has the same limit."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        await reader.read(1)
        for piece in (b"\x16\x03\x03\x40\x00", *ENDLESS):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    network.always = drip
    failed = await failure(make(HASTY), base(network, "https"))
    assert (failed.code, failed.message) == (
        "timed_out",
        f"no connection to 127.0.0.1:{network.port} within 0.2 s",
    )


async def test_an_answer_that_ends_with_the_connection_within_tls(make: Make, authority: Authority) -> None:
    """The server signals the end by TLS (RFC 8446, section 6.1)."""
    async with tls_server(authority.server("localhost"), Says(OK + b"\r\nhello")) as port:
        answer = await make(ca_bundle=str(authority.bundle)).get(f"https://localhost:{port}")
    assert answer.body == b"hello"


async def test_an_answer_that_is_cut_off_within_tls(make: Make, authority: Authority) -> None:
    """Anyone between client and server can end the connection, and must not be able to shorten a response."""
    async with tls_server(authority.server("localhost"), Says(OK + b"Content-Length: 5\r\n\r\nhell")) as port:
        failed = await failure(make(ca_bundle=str(authority.bundle)), f"https://localhost:{port}")
    assert failed.code == "answer_incomplete"


async def test_a_ca_bundle_without_certificates(make: Make, tmp_path: Any) -> None:
    """This is a configuration error, which names the file."""
    file = tmp_path / "ca.pem"
    for reason in ("No such file or directory", "it is not a PEM file of certificates"):
        with pytest.raises(ConfigurationError, match=reason) as caught:
            await make(ca_bundle=str(file)).get("https://127.0.0.1:1/")
        assert str(file) in caught.value.message
        file.write_text("nothing")


# --- web proxies -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def web_proxy(target: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(target, credentials="user:p@ss canary")
    await proxy.start(tls=tls)
    yield proxy
    await proxy.stop()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_web_proxy(make: Make, authority: Authority, scheme: str) -> None:
    """Through CONNECT, with a password; with an https proxy both the proxy's name and the host's are
    checked."""
    tls = authority.server("127.0.0.1") if scheme == "https" else None
    async with (
        tls_server(authority.server(NAME), answering(b"x" * 100_000)) as port,
        web_proxy(port, tls) as proxy,
    ):
        proxies = {"https": f"{scheme}://user:p%40ss%20canary@127.0.0.1:{proxy.port}"}
        client = make(HttpLimits(10, 10, 10), ca_bundle=str(authority.bundle), proxies=proxies)
        assert len((await client.get(f"https://{NAME}/")).body) == 100_000
    assert set(proxy.asked_for) == {f"CONNECT {NAME}:443"}


async def test_a_web_proxy_that_is_not_what_it_says(make: Make, authority: Authority) -> None:
    """A password for an https proxy never travels in clear text, nor to another host than the one named."""
    for names in (None, ["other.example"]):
        tls = None if names is None else authority.server(*names)
        async with web_proxy(1, tls) as proxy:
            proxies = {"https": f"https://user:canary@127.0.0.1:{proxy.port}"}
            limits = HASTY if tls is None else PATIENT
            client = make(limits, ca_bundle=str(authority.bundle), proxies=proxies)
            failed = await failure(client, f"https://{NAME}")
        assert failed.code == ("timed_out" if tls is None else "tls_failed")
        assert f"{NAME}:443 through the proxy 127.0.0.1:{proxy.port}" in failed.message
        assert proxy.asked_for == []


async def test_a_web_proxy_that_refuses(make: Make) -> None:
    """It is named with its status, and without the password."""
    async with web_proxy(1) as proxy:
        proxies = {"https": f"http://user:canary@127.0.0.1:{proxy.port}"}
        failed = await failure(make(proxies=proxies), f"https://{NAME}")
    assert (failed.code, failed.message) == (
        "connect_failed",
        f"the proxy 127.0.0.1:{proxy.port} refused the connection to {NAME}:443 with status 407 "
        "(Proxy Authentication Required)",
    )


async def test_a_web_proxy_that_does_not_answer_well(make: Make, network: TcpProxy) -> None:
    """Whatever it does instead, the request ends, and the sentence names both."""
    where = f"{NAME}:443 through the proxy 127.0.0.1:{network.port}"
    unlike_http = ("answer_incomplete", f"{where} did not answer in well-formed HTTP")
    cut = ("answer_incomplete", f"{where} closed the connection before its answer was complete")
    for fault, expected in (
        (Says(b"canary canary\r\n\r\n"), unlike_http),
        (Says(), cut),
        (Says(b"HTTP/1.1 200"), cut),
        (Says(OK + b"X: " + b"x" * 100_000), unlike_http),
        (black_hole, ("timed_out", f"no connection to {where} within 0.2 s")),
        (Says(OK + b"X: ", *ENDLESS, every=0.01), ("timed_out", f"no connection to {where} within 0.2 s")),
    ):
        network.always = fault
        limits = HASTY if expected[0] == "timed_out" else PATIENT
        failed = await failure(make(limits, proxies={"https": base(network)}), f"https://{NAME}")
        assert (failed.code, failed.message) == expected


async def test_a_web_proxy_that_speaks_first(network: TcpProxy) -> None:
    """Bytes after the proxy's response are not from the host, which was not sent anything yet."""
    network.always = Says(OK + b"\r\nHTTP/1.1 200 OK\r\n\r\n")
    client = InThread(PATIENT, proxies={"https": base(network)})
    assert (await failure(client, f"https://{NAME}")).code == "answer_incomplete"


async def test_a_web_proxy_whose_name_does_not_resolve(make: Make) -> None:
    """The sentence does not blame the host."""
    for name in ("proxy.invalid", "proxy..example"):
        failed = await failure(make(proxies={"https": f"http://{name}:8080"}), f"https://{NAME}")
        assert (failed.code, failed.message) == (
            "dns_failed",
            f"no connection to {NAME}:443 through the proxy {name}:8080: the proxy's host name could not be "
            "resolved",
        )


async def test_loopback_needs_no_proxy(
    make: Make, network: TcpProxy, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies come from the environment; loopback is direct without NO_PROXY."""
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    network.always = answering(b"{}")
    assert (await make(proxies=None).get(base(network))).status == 200
    failed = await failure(make(proxies=None), "https://198.51.100.7")
    where = f"198.51.100.7:443 through the proxy 127.0.0.1:{closed_port}"
    assert failed.message == f"no connection to {where}: Connection refused"


# --- the client for threads ------------------------------------------------------------------------------


async def test_name_resolution_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer delays a request no longer than connecting may take."""
    answers = asyncio.Event()
    loop = asyncio.get_running_loop()

    def never(*_: Any, **__: Any) -> list[Any]:
        asyncio.run_coroutine_threadsafe(answers.wait(), loop).result()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    failed = await failure(InThread(HASTY, proxies={}), "https://slow.example")
    assert (failed.code, failed.message) == ("timed_out", "no connection to slow.example:443 within 0.2 s")
    answers.set()


async def test_the_next_address_is_tried(
    network: TcpProxy, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name may have addresses that do not respond, or of a family that this machine does not support."""
    network.always = answering(b"{}")
    kind = (socket.SOCK_STREAM, 0, "")
    good = (socket.AF_INET, *kind, ("127.0.0.1", network.port))
    refusing = (socket.AF_INET, *kind, ("127.0.0.1", closed_port))
    unknown = (12_345, *kind, ("127.0.0.1", closed_port))
    addresses = [unknown, refusing, good]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    client = InThread(PATIENT, proxies={}, allow_plain_http=True)
    assert (await client.get("http://several.example")).status == 200
    for addresses[:], reason in (
        ([refusing, unknown], "Address family not supported by protocol"),
        ([], "none of its addresses accepted a connection"),
    ):
        failed = await failure(client, "http://several.example")
        assert failed.message == f"no connection to several.example:80: {reason}"


async def test_without_aiohttp_requests_run_in_threads(network: TcpProxy) -> None:
    """An `AsyncValidator` needs no aiohttp: it fetches by the standard library then."""
    network.always = answering(b'{"keys":[]}')
    client = ThreadedHttpClient()
    assert (await client.get(base(network))).body == b'{"keys":[]}'
    await client.aclose()
    program = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "import asyncio, entra_fast.validate as v\n"
        "async def main():\n"
        "    try:\n"
        f"        await v.AsyncValidator.from_discovery('{base(network)}/x', 'audience')\n"
        "    except v.KeysUnavailable as error:\n"
        "        print(error.code)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert (output.decode().strip(), errors.decode()) == ("discovery_malformed", "")


# --- the client for asyncio ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_one",
    [lambda: HttpClient(proxies={}), lambda: ThreadedHttpClient(BlockingHttpClient(proxies={}))],
    ids=["aiohttp", "threads"],
)
async def test_a_closed_client(network: TcpProxy, make_one: Callable[[], Client]) -> None:
    """It raises, and opens no connection again."""
    client = make_one()
    await client.aclose()
    failed = await failure(client, base(network))
    assert (failed.code, failed.message) == ("connect_failed", "the HTTP client is closed")
    assert network.connections == 0


async def test_a_key_set_is_asked_for_by_its_media_types(network: TcpProxy) -> None:
    """`application/jwk-set+json` is what RFC 7517 calls it, `application/json` what most providers answer
    with."""
    network.always = says = answering(b'{"keys":[]}')
    with Validator("https://issuer.example", "audience", jwks_uri=base(network)) as validator:
        await asyncio.to_thread(_rejected, validator)
    assert b"Accept: application/json, application/jwk-set+json\r\n" in says.heard
    says.heard = b""
    async with AsyncValidator("https://issuer.example", "audience", jwks_uri=base(network)) as other:
        with pytest.raises(EntraFastError):
            await other.validate(TOKEN)
    assert b"Accept: application/json, application/jwk-set+json\r\n" in says.heard


def _rejected(validator: Validator) -> None:
    with pytest.raises(EntraFastError):
        validator.validate(TOKEN)


def test_a_tls_failure_without_a_reason() -> None:
    """The error still has a sentence, without any text of the exception."""
    failed = Route.to("https://login.example/", {}).tls_failed(ssl.SSLError("canary"))
    assert failed.message == "no TLS connection to login.example:443: the handshake failed"
