"""One table of malformed requests for every listener: the sidecar's, its probes', the local Entra ID's (http
and https) and the token generator's.

Each is refused with a status and one sentence, the connection closes, and no byte that was sent is in the
response or in the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from entra_fast._settings.load import Settings
from entra_fast.cli.dev_system import Options, local_system
from entra_fast.emulator import RunningEmulator
from entra_fast.emulator.tls import prepare
from entra_fast.emulator.web import server as emulator_server
from entra_fast.generator import GeneratorSettings, start_generator
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar
from support.exposition import Exposition
from support.local_entra import local_entra, manifest

MARK = "c4nary"
"""In every request: in the response and in the log it must not be."""
SECONDS = 0.5
"""The deadline to receive a request, on every listener here."""
OVERALL = 3.0

T = TypeVar("T")


@dataclass(frozen=True)
class Listener:
    """Where to connect, and a path that reads a form."""

    name: str
    port: int
    path: str
    tls: ssl.SSLContext | None = None

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=OVERALL)
        return (
            connection if self.tls is None else self.tls.wrap_socket(connection, server_hostname="localhost")
        )


class Log(logging.Handler):
    """Everything that is logged, formatted with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def text(self) -> str:
        return "\n".join(self.format(record) for record in self.records)

    def assert_clean(self) -> None:
        """Nothing of a request, no traceback, no error."""
        assert MARK not in self.text
        assert "Traceback" not in self.text
        assert [r for r in self.records if r.levelno >= logging.ERROR] == []


class Servers:
    """All listeners, on one event loop of a thread of its own, so that tests connect with plain sockets."""

    def __init__(self, folder: Path) -> None:
        self.log = Log()
        self.listeners: dict[str, Listener] = {}
        self.sidecar: RunningSidecar
        self._folder = folder
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._parts: list[Any] = []
        self._generator_environment: dict[str, str] = {}

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(60)

    def __enter__(self) -> Servers:
        self._thread.start()
        self.do(self._start())
        logging.getLogger().addHandler(self.log)
        logging.getLogger("entra_fast").setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("entra_fast").setLevel(logging.NOTSET)
        logging.getLogger().removeHandler(self.log)
        self.do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        local = local_entra([manifest("app"), manifest("azure-token-generator", namespace="nais")])
        emulator = await local.start("127.0.0.1", 0)
        self._parts.append(emulator)
        tls = prepare(self._folder, [])
        other = local_entra([manifest("app")])
        https = await other.start("127.0.0.1", 0, tls=tls.context)
        self._parts.append(https)
        trust = ssl.create_default_context(cafile=str(tls.authority))
        for name, fast_path in (("sidecar", "true"), ("slow path", "false")):
            sidecar = await self._sidecar(emulator, fast_path)
            self._add(name, sidecar.address, "/api/v1/token")
            if name == "sidecar":
                self.sidecar = sidecar
                self._add("probes", sidecar.probe_address, "/healthz")
        token = f"/{local.registry.default_tenant.id}/oauth2/v2.0/token"
        self._add("emulator", emulator.base_url, token)
        self._add("emulator, https", https.base_url, token, trust)
        environment = {
            **emulator.environment("dev-gcp:nais:azure-token-generator"),
            "BIND_ADDRESS": "127.0.0.1:0",
            "ENTRA_FAST_REQUEST_TIMEOUT_MILLIS": str(int(SECONDS * 1000)),
        }
        generator = await start_generator(GeneratorSettings.from_environment(environment, Path(os.devnull)))
        self._parts.append(generator)
        self._generator_environment = environment
        self._add("generator", generator.base_url, "/api/public/m2m")

    async def limited(self, name: str) -> tuple[Any, str]:
        """Another emulator or generator, which allows one connection, and its address."""
        if name == "emulator":
            emulator = await local_entra([manifest("app")]).start("127.0.0.1", 0)
            return emulator, emulator.base_url
        environment = {**self._generator_environment, "ENTRA_FAST_MAX_CONNECTIONS": "1"}
        generator = await start_generator(GeneratorSettings.from_environment(environment, Path(os.devnull)))
        return generator, generator.base_url

    async def _sidecar(self, emulator: RunningEmulator, fast_path: str) -> RunningSidecar:
        environment = {
            **emulator.environment("dev-gcp:team:app"),
            "BIND_ADDRESS": "127.0.0.1:0",
            "PROBE_BIND_ADDRESS": "127.0.0.1:0",
            "ENTRA_FAST_FAST_PATH": fast_path,
            "ENTRA_FAST_REQUEST_TIMEOUT_MILLIS": str(int(SECONDS * 1000)),
            "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",
        }
        sidecar = await start_sidecar(Settings.from_environment(environment, Path(os.devnull)))
        self._parts.append(sidecar)
        while not (await sidecar.service.readiness()).ready:  # noqa: ASYNC110 - a question
            await asyncio.sleep(0.01)
        return sidecar

    def _add(self, name: str, address: str, path: str, tls: ssl.SSLContext | None = None) -> None:
        self.listeners[name] = Listener(name, int(address.rpartition(":")[2]), path, tls)

    async def _stop(self) -> None:
        for part in reversed(self._parts):
            await part.stop()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator_server, "REQUEST_SECONDS", SECONDS)
        with Servers(tmp_path_factory.mktemp("tls")) as started:
            yield started


LISTENERS = ("sidecar", "slow path", "probes", "emulator", "emulator, https", "generator")


@pytest.fixture(params=LISTENERS)
def listener(request: pytest.FixtureRequest, servers: Servers) -> Listener:
    servers.log.records.clear()
    return servers.listeners[request.param]


def get(
    *lines: str, target: str = "/healthz", host: str | None = "localhost", version: str = "HTTP/1.1"
) -> bytes:
    """A request without a body. A mark travels along, in a header that servers log easily."""
    head = [f"GET {target} {version}", *([] if host is None else [f"Host: {host}"]), *lines]
    return "\r\n".join([*head, f"Authorization: Bearer {MARK}", "", ""]).encode("latin-1")


def post(body: bytes, *lines: str) -> bytes:
    head = [
        "POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/x-www-form-urlencoded",
        *lines,
    ]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def chunked(body: bytes, *lines: str) -> bytes:
    return post(body, "Transfer-Encoding: chunked", *lines)


COOKIES = ("entra_fast_generator_session", "entra_fast_local_session", "anything")
HEADERS = (
    *(f"Cookie: {name}={MARK}" for name in COOKIES),
    f"Authorization: Bearer {MARK}",
    f"Authorization: Basic {MARK}",
    f"client-request-id: {MARK}",
    f"traceparent: 00-{MARK}",
    f"Accept: text/{MARK}",
    f"Origin: http://{MARK}",
    f"Referer: http://{MARK}",
    f"User-Agent: {MARK}",
    f"X-Forwarded-For: {MARK}",
    f"Content-Type: application/{MARK}",
)
CONTROLS = {"NUL": "\0", "SOH": "\x01", "CR": "\r", "LF": "\n.", "VT": "\x0b", "ESC": "\x1b", "DEL": "\x7f"}

MALFORMED: dict[str, tuple[bytes, int]] = {
    # control characters, in each header that may hold a secret and in names
    **{
        f"{name} in {line.partition('=')[0].partition(MARK)[0]!r}": (get(line + character + MARK), 400)
        for line in HEADERS
        for name, character in CONTROLS.items()
    },
    **{f"{name} in a name": (get(f"X{character}{MARK}: a"), 400) for name, character in CONTROLS.items()},
    **{f"{name} in the target": (get(target=f"/{MARK}{c}{MARK}"), 400) for name, c in CONTROLS.items()},
    "a space before the colon": (get(f"X-{MARK} : a"), 400),
    "no name": (get(f": {MARK}"), 400),
    "no colon": (get(MARK), 400),
    "a name beyond ASCII": (get(f"X-\xe9{MARK}: a"), 400),
    "a folded line": (get(f"X: a\r\n {MARK}"), 400),
    "a folded line with a tab": (get(f"X: a\r\n\t{MARK}"), 400),
    "a first line that is folded": (f"GET / HTTP/1.1\r\n {MARK}: a\r\nHost: localhost\r\n\r\n".encode(), 400),
    # the request line
    "no request line": (f"{MARK}\r\n\r\n".encode(), 400),
    "no version": (f"GET /{MARK}\r\nHost: localhost\r\n\r\n".encode(), 400),
    "another version": (get(target=f"/{MARK}", version="HTTP/3.7"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARK.encode(), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK.encode(), 400),
    "a lower-case method": (f"get /{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "an unknown method": (f"{MARK.upper()}X /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "a method with a control character": (f"G\x01T /{MARK} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    "a space in the target": (get(target=f"/a {MARK}"), 400),
    "a target beyond ASCII": (get(target=f"/\xe9{MARK}"), 400),
    "a target without a slash": (get(target=MARK), 400),
    "an absolute target": (get(target=f"http://localhost/{MARK}"), 400),
    "an absolute target elsewhere": (get(target=f"http://{MARK}.example/healthz"), 400),
    "an authority": (f"CONNECT {MARK}.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "an asterisk": (f"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nX: {MARK}\r\n\r\n".encode(), 400),
    "a fragment": (get(target=f"/healthz#{MARK}"), 400),
    "a bad escape": (get(target=f"/%zz{MARK}"), 400),
    "half an escape": (get(target=f"/{MARK}%2"), 400),
    "a bare per cent sign": (get(target=f"/{MARK}%"), 400),
    # Host
    "no Host": (get(host=None), 400),
    "two Hosts": (get("Host: localhost"), 400),
    **{
        f"Host {host!r}": (get(host=host), 400)
        for host in (
            "",
            " ",
            f"{MARK}@localhost",
            f"localhost/{MARK}",
            f"localhost?{MARK}",
            f"localhost, {MARK}",
            f"local host{MARK}",
            f"localhost:{MARK}",
            f"[{MARK}]",
            f"[::1{MARK}",
            f"http://{MARK}",
            f"%zz{MARK}",
        )
    },
    # framing
    "a length with a sign": (post(MARK.encode(), "Content-Length: +6"), 400),
    "a negative length": (post(MARK.encode(), "Content-Length: -6"), 400),
    "a hexadecimal length": (post(MARK.encode(), "Content-Length: 0x6"), 400),
    "an empty length": (post(MARK.encode(), "Content-Length:"), 400),
    "a length with a space": (post(MARK.encode(), "Content-Length: 6 6"), 400),
    "a list of lengths": (post(MARK.encode(), "Content-Length: 6, 6"), 400),
    "an endless length": (post(MARK.encode(), f"Content-Length: {'9' * 40}"), 400),
    "two lengths": (post(MARK.encode(), "Content-Length: 6", "Content-Length: 7"), 400),
    "a length beside chunks": (chunked(b"0\r\n\r\n" + get(), "Content-Length: 6"), 400),
    "chunks beside a length": (post(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
    "chunks in HTTP/1.0": (chunked(b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "an empty coding": (post(MARK.encode(), "Content-Length: 6", "Transfer-Encoding:"), 400),
    "an unknown coding": (post(b"", f"Transfer-Encoding: {MARK}"), 501),
    "an unknown coding before chunked": (post(b"0\r\n\r\n", f"Transfer-Encoding: {MARK}, chunked"), 501),
    "identity": (post(b"", "Transfer-Encoding: identity", f"X: {MARK}"), 501),
    "a parameter of chunked": (post(b"0\r\n\r\n", f"Transfer-Encoding: chunked;{MARK}=1"), 501),
    "gzip as coding": (post(b"", "Transfer-Encoding: gzip, chunked", f"X: {MARK}"), 415),
    "chunked twice": (post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400),
    "coding with a space before the colon": (post(b"0\r\n\r\n", "Transfer-Encoding : chunked"), 400),
    "bare LF": (get().replace(b"\r\n", b"\n"), 400),
    "bare CR": (get().replace(b"\r\n", b"\r"), 400),
    # sizes
    "a long request line": (get(target="/" + MARK * 1500), 431),
    "a large field": (get(f"Cookie: {MARK * 6000}"), 431),
    "a large name": (get(f"{'X' * 33_000}: {MARK}"), 431),
    "many large fields": (get(*(f"X-{i}: {MARK * 1000}" for i in range(8))), 431),
    "fields without end": (get(*(f"X-{i}: {MARK * 5000}" for i in range(20)))[:-4], 431),
    "too many fields": (get(*(f"X-{i}: {MARK}" for i in range(200))), 431),
}  # fmt: skip

BODIES: dict[str, bytes] = {
    "a chunk size that is no number": chunked(f"{MARK}\r\n".encode()),
    "a chunk size with a sign": chunked(f"+6\r\n{MARK}\r\n0\r\n\r\n".encode()),
    "a chunk size with 0x": chunked(f"0x6\r\n{MARK}\r\n0\r\n\r\n".encode()),
    "an endless chunk size": chunked(b"f" * 30 + f"\r\n{MARK}\r\n".encode()),
    "a chunk longer than its size": chunked(f"2\r\n{MARK}\r\n0\r\n\r\n".encode()),
    "a chunk that ends with LF": chunked(f"6\r\n{MARK}\n0\r\n\r\n".encode()),
    "a size that ends with LF": chunked(f"6\n{MARK}\r\n0\r\n\r\n".encode()),
    "a control character in a chunk's extension": chunked(f"6;{MARK}=\x01\r\n{MARK}\r\n0\r\n\r\n".encode()),
    "a trailer with a control character": chunked(f"6\r\n{MARK}\r\n0\r\nX: {MARK}\x01\r\n\r\n".encode()),
    "a trailer without a colon": chunked(f"6\r\n{MARK}\r\n0\r\n{MARK}\r\n\r\n".encode()),
    "a large trailer": chunked(f"6\r\n{MARK}\r\n0\r\nX: {MARK * 6000}\r\n\r\n".encode()),
}


def answer_of(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while True:
        try:
            data = connection.recv(65_536)
        except (ConnectionError, ssl.SSLError):
            return received
        if not data:
            return received
        received += data


def refused(answer: bytes) -> int:
    """The status of the one response; its body is one sentence in the form of all errors."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert MARK.encode() not in answer.lower()
    assert b"HTTP/1." not in body
    document = json.loads(body)
    assert set(document) <= {"error", "error_description"}, document
    sentence = document["error_description"]
    assert sentence.strip() == sentence != ""
    assert "\n" not in sentence
    assert len(sentence) < 200
    return status


def ask(listener: Listener, request: bytes) -> bytes:
    with listener.connect() as connection:
        connection.sendall(request.replace(b"{path}", listener.path.encode()))
        return answer_of(connection)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_request_gets_a_sentence(servers: Servers, listener: Listener, kind: str) -> None:
    """The status, one sentence, nothing of the request in it or in the log, and the connection ends."""
    request, status = MALFORMED[kind]
    assert refused(ask(listener, request)) == status
    servers.log.assert_clean()


@pytest.mark.parametrize("pieces", ["one piece", "two pieces"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_malformed_body_gets_a_sentence(
    servers: Servers, listener: Listener, kind: str, pieces: str
) -> None:
    """Whether a handler reads it, has answered before (the probes), or it arrives later."""
    request = BODIES[kind].replace(b"{path}", listener.path.encode())
    with listener.connect() as connection:
        if pieces == "two pieces":
            head, _, body = request.partition(b"\r\n\r\n")
            connection.sendall(head + b"\r\n\r\n")
            time.sleep(0.05)
            request = body
        connection.sendall(request)
        status = refused(answer_of(connection))
    assert status in ((400, 405, 431) if listener.name == "probes" else (400, 431))
    servers.log.assert_clean()


# --- slow, early and abrupt ends ---

SLOW: dict[str, tuple[bytes, int]] = {
    "one byte": (b"G", 408),
    "half a request line": (f"GET /{MARK}".encode(), 408),
    "half a head": (get()[:-2], 408),
    "half a field": (f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nCookie: {MARK}".encode(), 408),
    "no body": (post(b"", "Content-Length: 10"), 408),
    "half a body": (post(MARK.encode(), "Content-Length: 10"), 408),
    "half a chunk": (chunked(f"ff\r\n{MARK}".encode()), 408),
    "no last chunk": (chunked(f"6\r\n{MARK}\r\n".encode()), 408),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_request_that_does_not_arrive_in_time(servers: Servers, listener: Listener, kind: str) -> None:
    """408 after the deadline, which counts from the first byte. The probes answer before a body arrives."""
    request, status = SLOW[kind]
    begun = time.monotonic()
    answered = refused(ask(listener, request))
    assert answered == status or (listener.name == "probes" and answered == 405 and "POST" in str(request))
    assert time.monotonic() - begun < OVERALL
    servers.log.assert_clean()


def test_single_bytes_do_not_extend_the_deadline(servers: Servers, listener: Listener) -> None:
    """Slowloris: each byte is new, the deadline is absolute."""
    begun = time.monotonic()
    with listener.connect() as connection:
        try:
            for byte in get():
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
        except (ConnectionError, ssl.SSLError):
            pass
        assert 408 in (refused(answer) for answer in [answer_of(connection)] if answer) or listener.tls
    assert time.monotonic() - begun < len(get()) * 0.02 + 1
    servers.log.assert_clean()


ABRUPT = ("half a request line", "half a field", "no body", "half a body", "half a chunk", "no last chunk")


@pytest.mark.parametrize("end", ["FIN", "RST"])
@pytest.mark.parametrize("kind", ABRUPT)
def test_a_client_that_goes_away_in_the_middle_is_no_error(
    servers: Servers, listener: Listener, kind: str, end: str
) -> None:
    """No line at level ERROR, no traceback, and the listener serves the next client."""
    request = SLOW[kind][0].replace(b"{path}", listener.path.encode())
    with listener.connect() as connection:
        connection.sendall(request)
        time.sleep(0.05)
        if end == "FIN" and isinstance(connection, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                connection.unwrap()  # the end of TLS, which the server answers with its own
        if end == "RST":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.05)
    servers.log.assert_clean()
    assert ask(listener, get("Connection: close")).startswith(b"HTTP/1.1 ")


def test_a_reset_in_the_middle_of_a_body_counts_as_the_client_s(servers: Servers) -> None:
    """In the metric as 499; nothing has failed, so there is no 500."""
    before = exposition(servers)
    listener = servers.listeners["sidecar"]
    with listener.connect() as connection:
        connection.sendall(SLOW["half a chunk"][0].replace(b"{path}", listener.path.encode()))
        time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.1)
    after = exposition(servers)
    assert series(after, "token", 499) == series(before, "token", 499) + 1
    for endpoint in ("token", "other"):
        assert series(after, endpoint, 500) == series(before, endpoint, 500)


def exposition(servers: Servers) -> str:
    listener = servers.listeners["probes"]
    return ask(listener, get("Connection: close", target="/metrics")).decode()


def series(text: str, endpoint: str, status: int) -> float:
    wanted = f'entra_fast_requests_total{{endpoint="{endpoint}",status="{status}"}}'
    return Exposition(text).get(wanted)


def test_a_body_that_is_too_large(servers: Servers, listener: Listener) -> None:
    """413, or for the probes 405, before the body has arrived."""
    for request in (
        post(b"x", "Content-Length: 200000", f"X: {MARK}"),
        chunked(b"%x\r\n" % (len(MARK) * 34_000) + MARK.encode() * 34_000),
    ):
        assert refused(ask(listener, request)) == (405 if listener.name == "probes" else 413)
    servers.log.assert_clean()


def test_a_compressed_body(servers: Servers, listener: Listener) -> None:
    """415 in one sentence; it is never decompressed."""
    request = post(
        MARK.encode(), f"Content-Length: {len(MARK)}", "Content-Encoding: gzip", "Connection: close"
    )
    assert refused(ask(listener, request)) == (405 if listener.name == "probes" else 415)
    servers.log.assert_clean()


@pytest.mark.parametrize("expectation", [MARK, f"100-continue, {MARK}", f"100-continue\r\nExpect: {MARK}"])
def test_an_unknown_expectation(servers: Servers, listener: Listener, expectation: str) -> None:
    """417, whose sentence names the one that can be met."""
    for target in (listener.path, f"/{MARK}/{MARK}/{MARK}"):
        request = get(f"Expect: {expectation}", "Connection: close", target=target)
        assert refused(ask(listener, request)) == 417
    servers.log.assert_clean()


@pytest.mark.parametrize("path", ["/tokenx/token", "/maskinporten/token", "/idporten/token"])
def test_the_other_local_providers_refuse_as_well(servers: Servers, path: str) -> None:
    """What HTTP itself refuses is no failure of theirs."""
    servers.log.records.clear()
    listener = Listener(path, servers.listeners["emulator"].port, path)
    for request, status in (
        (chunked(b"%x\r\n" % (len(MARK) * 34_000) + MARK.encode() * 34_000), 413),
        (post(MARK.encode(), "Content-Length: 6", "Content-Encoding: gzip", "Connection: close"), 415),
        (post(MARK.encode(), "Content-Length: 10"), 408),
    ):
        assert refused(ask(listener, request)) == status
    head, _, body = (
        BODIES["a chunk longer than its size"].replace(b"{path}", path.encode()).partition(b"\r\n\r\n")
    )
    with listener.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        time.sleep(0.05)
        connection.sendall(body)
        assert refused(answer_of(connection)) == 400
    servers.log.assert_clean()


@pytest.mark.parametrize("name", ["emulator", "generator"])
def test_more_connections_than_are_allowed(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """503 in one sentence, and service again when others have gone. (tests/fast_path has the sidecar's.)"""
    monkeypatch.setattr(emulator_server, "MAX_CONNECTIONS", 1)
    servers.log.records.clear()
    part, address = servers.do(servers.limited(name))
    listener = Listener(name, int(address.rpartition(":")[2]), "/")
    with listener.connect() as first:
        first.sendall(get())
        assert first.recv(9) == b"HTTP/1.1 "
        with listener.connect() as second:
            assert refused(answer_of(second)) == 503
    time.sleep(0.05)
    assert ask(listener, get("Connection: close")).startswith(b"HTTP/1.1 ")
    servers.do(part.stop())
    servers.log.assert_clean()


async def test_the_local_system_refuses_as_well() -> None:
    """What `entra-fast dev` starts: a secret with a control character comes back from no listener of it."""
    options = Options(emulator_port=0, generator_port=0, sidecar_port=0)
    async with local_system(options) as system:
        (sidecar,) = system.sidecars
        for address in (
            system.emulator.base_url,
            system.generator.base_url,
            sidecar.running.address,
            sidecar.running.probe_address,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            writer.write(get(f"Cookie: entra_fast_generator_session={MARK}\x01"))
            assert refused(await reader.read()) == 400
            writer.close()
