"""A network that fails on demand: TCP-level faults, web proxies, certificates."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Fault = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]


class TcpProxy:
    """Forwards TCP to a port of this machine. `faults` are applied to the next connections, one each, or to
    all while `always` is set."""

    def __init__(self, target_port: int = 0) -> None:
        self.target_port = target_port
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port: connections are refused from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            fault = self.faults.pop(0) if self.faults else self.always
            await (fault or forward)(reader, writer, self.target_port)
        except (ConnectionError, RuntimeError, asyncio.CancelledError):
            pass  # uvloop raises RuntimeError for writing to what was reset
        finally:
            self._tasks.discard(task)
            writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """No fault."""
    await _relay(reader, writer, port, limit=None)


async def black_hole(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: int) -> None:
    """Take what is sent and never answer."""
    while await reader.read(65_536):
        pass


async def reset_at_once(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: int) -> None:
    """RST instead of an answer."""
    _abort(writer)


def reset_after(sent: int) -> Fault:
    """RST in the middle of the response, after this many bytes of it."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        await _relay(reader, writer, port, limit=sent)
        _abort(writer)

    return fault


def truncate_after(sent: int) -> Fault:
    """An orderly end of the connection in the middle of the answer."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        await _relay(reader, writer, port, limit=sent)

    return fault


def slow(seconds: float) -> Fault:
    """Every piece of a response arrives late."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        await _relay(reader, writer, port, limit=None, delay=seconds)

    return fault


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    port: int,
    limit: int | None,
    delay: float = 0.0,
) -> None:
    upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
    there = asyncio.create_task(_copy(reader, upstream_writer, None))
    try:
        await _copy(upstream_reader, writer, limit, delay)
    finally:
        there.cancel()
        upstream_writer.close()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, delay: float = 0.0
) -> None:
    left = limit
    while data := await reader.read(65_536):
        if delay:
            await asyncio.sleep(delay)
        piece = data if left is None else data[:left]
        writer.write(piece)
        await writer.drain()
        if left is not None:
            left -= len(piece)
            if left <= 0:
                return


def _abort(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ConnectProxy:
    """A web proxy (RFC 9110, section 9.3.6: CONNECT) that reaches every name at one port of this machine."""

    def __init__(self, target_port: int, *, credentials: str | None = None) -> None:
        self.target_port = target_port
        self.asked_for: list[str] = []
        self.port = 0
        self._credentials = credentials
        self._server: asyncio.Server | None = None

    async def start(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, authority, _ = head.split(" ", 2)
        self.asked_for.append(f"{method} {authority}")
        wanted = self._credentials and "Basic " + base64.b64encode(self._credentials.encode()).decode()
        if wanted and f"Proxy-Authorization: {wanted}" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        elif method != "CONNECT":
            writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _relay(reader, writer, self.target_port, limit=None)


class Authority:
    """The test's own certificate authority."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = self._sign(self._name, self._key.public_key(), None, ca=True)
        self.bundle = directory / "ca.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, days: float = 1 / 24) -> ssl.SSLContext:
        """The server's side of TLS, with a certificate for these names that ends in so many days; negative
        for one that has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
            key.public_key(),
            names,
            ca=False,
            days=days,
        )
        file = self._directory / "server.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: tuple[str, ...] | None,
        *,
        ca: bool,
        days: float = 365,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        if ca:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
