"""One table of malformed requests for every listener: the sidecar's, its probes', the local Entra ID's (http and
https) and the token generator's.

Each is refused with a status and one sentence, the connection closes, and no byte that was sent is in the
response or in the log."""

from __future__ import annotations

import asyncio
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
from entra_fast.emulator import RunningEmulator
from entra_fast.emulator.tls import prepare
from entra_fast.emulator.web import server as emulator_server
from entra_fast.generator import GeneratorSettings, start_generator
from entra_fast.sidecar import RunningSidecar, start_sidecar
from support.local_entra import local_entra, manifest

MARK = "c4nary"
"""In every request: in the response and in the log it must not be."""
SECONDS = 0.5
"""The deadline to receive a request, on every listener here."""
OVERALL = 20.0

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
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_hostname="localhost")


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
        self._add("generator", generator.base_url, "/api/public/m2m")

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
        while await sidecar.service.readiness() is not None:
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


def get(*lines: str, target: str = "/healthz", host: str | None = "localhost", version: str = "HTTP/1.1") -> bytes:
    """A request without a body. A mark travels along, in a header that servers log easily."""
    head = [f"GET {target} {version}", *([] if host is None else [f"Host: {host}"]), *lines]
    return "\r\n".join([*head, f"Authorization: Bearer {MARK}", "", ""]).encode("latin-1")


def post(body: bytes, *lines: str) -> bytes:
    head = ["POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/x-www-form-urlencoded", *lines]
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
    "a first line that is folded": (f"GET /healthz HTTP/1.1\r\n {MARK}: a\r\nHost: localhost\r\n\r\n".encode(), 400),
    # the request line
    "no request line": (f"{MARK}\r\n\r\n".encode(), 400),
    "no version": (f"GET /{MARK}\r\nHost: localhost\r\n\r\n".encode(), 400),
    "another version": (get(target=f"/{MARK}", version="HTTP/3.7"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + MARK.encode(), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARK.encode(), 400),
    "a lower-case method": (f"get /{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "an unknown method": (f"{MARK.upper()}X /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "a method with a control character": (f"G\x01T /{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "two spaces": (f"GET  /{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "a space in the target": (get(target=f"/a {MARK}"), 400),
    "a target beyond ASCII": (get(target=f"/\xe9{MARK}"), 400),
    "a target without a slash": (get(target=MARK), 400),
    "an absolute target": (get(target=f"http://localhost/{MARK}"), 400),
    "an absolute target elsewhere": (get(target=f"http://{MARK}.example/healthz"), 400),
    "an authority": (f"CONNECT {MARK}.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    "an asterisk": (f"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nX: {MARK}\r\n\r\n".encode(), 400),
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
    "chunks beside a length": (post(b"0\r\n\r\n" + get(), "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
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
