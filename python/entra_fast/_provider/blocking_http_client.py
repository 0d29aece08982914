"""Outbound HTTP in a thread, with the standard library.

What belongs here: a connection for one request, over TCP, a web proxy and TLS, and the translation of its
errors into the failures of `http_rules.py`. Rules that also apply to `http_client.py` belong in
`http_rules.py`.

`http.client` writes requests and parses responses. Connecting is done here, because `http.client` limits each
wait but not the whole request: name resolution has no limit there, and a response may trickle in forever.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import encodings.idna  # noqa: F401 - so that no thread imports it for the first name that it looks up
import functools
import http.client
import io
import math
import os
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from entra_fast._net import insecure_provider_hosts, proxies_from
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.http_rules import (
    JSON,
    HttpFailure,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    Proxy,
    Route,
    forget_frames,
    form_request,
    get_request,
    json_request,
    trusting_context,
)

if TYPE_CHECKING:
    from entra_fast._settings.model import OutboundSettings  # not needed for validating tokens

T = TypeVar("T")

MAX_THREADS = 64
"""Maximum number of simultaneous requests of a `ThreadedHttpClient`; further ones wait for a thread."""

_PIECE = 65_536
_MAX_PROXY_HEAD = 16_384
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")


class BlockingHttpClient:
    """Makes a connection for each request. Safe for concurrent use by threads.

    Args:
        ca_bundle: PEM file with certificate authorities to trust in addition to the system's.
        proxies: as made by `proxies_from`; by default from the process's environment at each request.
        headers: header fields to add to each request.
        insecure_hosts: hosts that may be asked over plain http, besides loopback.
        allow_plain_http: allow http for hosts other than loopback, too; only for a server named by the user.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        ca_bundle: str | None = None,
        proxies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        insecure_hosts: Collection[str] | None = None,
        allow_plain_http: bool = False,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._ca_bundle = ca_bundle
        self._proxies = proxies
        self._headers = headers or {}
        self._insecure_hosts = insecure_hosts
        self._allow_plain_http = allow_plain_http

    @classmethod
    def from_options(cls, options: HttpOptions) -> Self:
        """A client as a caller of the library wants it.

        Raises:
            ConfigurationError: a web proxy of the environment cannot be used.
        """
        return cls(
            HttpLimits(*options.seconds()),
            ca_bundle=options.trusted(),
            proxies=options.proxies(),
            headers=options.headers,
            insecure_hosts=insecure_provider_hosts(),
        )

    @classmethod
    def from_settings(cls, settings: OutboundSettings) -> Self:
        """See `HttpClient.from_settings`."""
        limits = HttpLimits(settings.connect_timeout, settings.read_timeout, settings.overall_timeout)
        return cls(
            limits,
            ca_bundle=settings.ca_bundle,
            proxies=settings.proxies,
            insecure_hosts=settings.insecure_hosts,
        )

    def get(self, url: str, *, accept: str = JSON, timeout: float | None = None) -> HttpResponse:
        """GET. Any status but a redirect is an answer.

        Args:
            accept: media types of the answer.
            timeout: seconds, where less than `overall_timeout` is left.

        Raises:
            HttpFailure: see `http_rules.ERROR_CODES`.
            ConfigurationError: the CA bundle or a web proxy of the environment cannot be used.
        """
        return self._request(get_request(url, accept), timeout)

    def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> HttpResponse:
        """POST of form fields; otherwise like `get`."""
        return self._request(form_request(url, fields, headers), timeout)

    def post_json(self, url: str, document: object, *, timeout: float | None = None) -> HttpResponse:
        """POST of a JSON document; otherwise like `get`."""
        return self._request(json_request(url, document), timeout)

    def _request(self, request: HttpRequest, limit: float | None) -> HttpResponse:
        request = request.adding(self._headers)
        proxies = proxies_from(os.environ) if self._proxies is None else self._proxies
        try:
            route = Route.to(
                request.url,
                proxies,
                insecure_hosts=self._insecure_hosts,
                allow_plain_http=self._allow_plain_http,
            )
            if route.tls or (route.proxy is not None and route.proxy.tls):
                _ = self._tls  # an unusable CA bundle is an error before any connection is made
            patience = _Patience(self._limits, self._limits.overall(limit))
            connection = self._connect(route, patience)
            try:
                patience.connected()
                return self._exchange(request, route, connection, patience)
            finally:
                connection.close()
        except HttpFailure as failure:
            forget_frames(failure)
            raise

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        return trusting_context(self._ca_bundle)

    def _connect(self, route: Route, patience: _Patience) -> _Connection:
        try:
            connection = self._open(route, patience)
        except TimeoutError:
            raise route.connecting_timed_out(patience.seconds) from None
        except (socket.gaierror, UnicodeError):  # a part of the name is empty or too long
            raise route.not_resolved() from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise route.handshake_cut_off() from None
        except ssl.SSLError as error:
            raise route.tls_failed(error) from None
        except OSError as error:
            raise route.not_connected(error) from None
        return connection

    def _open(self, route: Route, patience: _Patience) -> _Connection:
        proxy = route.proxy
        first = route if proxy is None else proxy
        connection: _Connection = _TcpConnection(first.host, first.port, patience)
        try:
            if proxy is not None:
                if proxy.tls:
                    connection = self._secured(connection, proxy.host, route)
                _open_tunnel(connection, proxy, route)
            if route.tls:
                connection = self._secured(connection, route.host, route)
        except BaseException:
            connection.close()
            raise
        return connection

    def _secured(self, under: _Connection, host: str, route: Route) -> _Connection:
        try:
            return _TlsConnection(under, self._tls, host)
        except ConnectionResetError:  # closed with our first message unread
            raise route.handshake_cut_off() from None

    def _exchange(
        self, request: HttpRequest, route: Route, connection: _Connection, patience: _Patience
    ) -> HttpResponse:
        exchange = _HttpConnection(route, connection)
        try:
            parts = urllib.parse.urlsplit(request.url)
            target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            exchange.request(request.method, target, request.body, dict(request.headers))
            with exchange.getresponse() as response:
                if 300 <= response.status <= 399:
                    raise route.redirected(response.status)
                body = self._read(response, route)
                return HttpResponse(response.status, _Headers(response.getheaders()), body)
        except TimeoutError:
            raise (
                route.timed_out(patience.seconds) if patience.is_over else route.silent(patience.silence)
            ) from None
        except (OSError, http.client.IncompleteRead):
            raise route.cut_off() from None
        except http.client.HTTPException:
            raise route.not_http() from None

    def _read(self, response: http.client.HTTPResponse, route: Route) -> bytes:
        limit = self._limits.max_response_bytes
        body = b"" if (response.length or 0) > limit else response.read(limit + 1)
        if (response.length or 0) + len(body) > limit:
            raise route.too_large(limit)
        if response.length:  # what was promised and has not come
            raise route.cut_off()
        return body


class ThreadedHttpClient:
    """`HttpClient` where aiohttp is not installed: each request runs in a thread of its own pool."""

    def __init__(self, client: BlockingHttpClient | None = None) -> None:
        self._client = client or BlockingHttpClient()
        # Threads are started when they are needed. asyncio's own executor has a handful of them, which slow
        # requests would occupy.
        self._threads = concurrent.futures.ThreadPoolExecutor(
            MAX_THREADS, thread_name_prefix="entra_fast-http"
        )

    async def get(self, url: str, *, accept: str = JSON) -> HttpResponse:
        """See `BlockingHttpClient.get`."""
        return await self._run(functools.partial(self._client.get, url, accept=accept))

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """See `BlockingHttpClient.post_form`."""
        return await self._run(
            functools.partial(self._client.post_form, url, fields, headers=headers, timeout=timeout)
        )

    async def post_json(
        self,
        url: str,
        document: object,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """See `BlockingHttpClient.post_json`."""
        return await self._run(functools.partial(self._client.post_json, url, document, timeout=timeout))

    async def aclose(self) -> None:
        """Let the threads end. Requests in progress are bounded, and are not waited for."""
        self._threads.shutdown(wait=False)

    async def _run(self, request: Callable[[], HttpResponse]) -> HttpResponse:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, request)
        except RuntimeError:  # of the executor, after `aclose`
            raise HttpFailure("connect_failed", "the HTTP client is closed") from None


class _Patience:
    """The maximum time of the next wait for the other side. One object limits a whole request."""

    def __init__(self, limits: HttpLimits, overall: float) -> None:
        self._limits = limits
        self._overall = overall
        self._started = time.monotonic()
        self.seconds = min(limits.connect_timeout, overall)
        """The limit of the current stage, counted from the start of the request."""
        self.silence = math.inf

    def connected(self) -> None:
        """The connection is ready: from here on, the limits for the response apply."""
        self.seconds, self.silence = self._overall, self._limits.read_timeout

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._started >= self.seconds

    def left(self) -> float:
        """
        Raises:
            TimeoutError: nothing is left.
        """
        left = self.seconds - (time.monotonic() - self._started)
        if left <= 0:
            raise TimeoutError
        return min(left, self.silence)


class _Connection(Protocol):
    """A connection that is ready. `receive` returns nothing at its end."""

    def receive(self) -> bytes: ...

    def send(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class _TcpConnection:
    def __init__(self, host: str, port: int, patience: _Patience) -> None:
        self._patience = patience
        self._socket = _connected_socket(_resolved(host, port, patience), patience)

    def receive(self) -> bytes:
        self._socket.settimeout(self._patience.left())
        return self._socket.recv(_PIECE)

    def send(self, data: bytes) -> None:
        self._socket.settimeout(self._patience.left())
        self._socket.sendall(data)

    def close(self) -> None:
        self._socket.close()


def _resolved(host: str, port: int, patience: _Patience) -> list[Any]:
    """The result of `getaddrinfo`. It has no time limit of its own, so it runs in a thread that can be
    abandoned."""
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name="entra_fast-resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=patience.left())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _connected_socket(addresses: list[Any], patience: _Patience) -> socket.socket:
    """A connection to the first address that accepts one. Each address gets a share of the time, so that one
    that does not answer leaves some for the next."""
    failure = OSError()
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            connecting = socket.socket(family, kind, protocol)
        except OSError as error:  # no more file descriptors, or no IPv6
            failure = error
            continue
        try:
            connecting.settimeout(patience.left() / (len(addresses) - tried))
            connecting.connect(address)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connecting.close()
            failure = error
        else:
            return connecting
    raise failure


class _TlsConnection:
    """TLS over another connection, which may itself use TLS: the one to a web proxy."""

    def __init__(self, under: _Connection, context: ssl.SSLContext, host: str) -> None:
        self._under = under
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=host)
        self._run(self._tls.do_handshake)

    def receive(self) -> bytes:
        return self._run(lambda: self._tls.read(_PIECE))

    def send(self, data: bytes) -> None:
        self._run(lambda: self._tls.write(data))  # into memory, where there is room for all of it

    def close(self) -> None:
        self._under.close()

    def _run(self, step: Callable[[], T]) -> T:
        """Repeat a step of TLS until it has received the bytes it needs; send the bytes it has produced."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._send_pending()
            else:
                self._send_pending()
                return result
            if received := self._under.receive():
                self._received.write(received)
            else:
                self._received.write_eof()  # the step fails: without this it would wait forever

    def _send_pending(self) -> None:
        if pending := self._to_send.read():
            self._under.send(pending)


def _open_tunnel(connection: _Connection, proxy: Proxy, route: Route) -> None:
    """Have a web proxy connect to the host (RFC 9110, section 9.3.6)."""
    head = [f"CONNECT {route.authority} HTTP/1.1", f"Host: {route.authority}"]
    parts = urllib.parse.urlsplit(proxy.url)
    if parts.username is not None:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        head.append(f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode('ascii')}")
    connection.send("\r\n".join([*head, "", ""]).encode("ascii"))
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = connection.receive()
        if not received:
            raise route.cut_off()
        answer += received
        if len(answer) > _MAX_PROXY_HEAD:
            raise route.not_http()
    status = _STATUS_LINE.match(answer)
    if status is None:
        raise route.not_http()
    if not 200 <= int(status[1]) <= 299:
        raise route.proxy_refused(int(status[1]))
    if answer.partition(b"\r\n\r\n")[2]:
        raise route.not_http()  # in TLS and in HTTP the host sends second, so these bytes are not from it


class _HttpConnection(http.client.HTTPConnection):
    """HTTP over a connection that is ready."""

    def __init__(self, route: Route, connection: _Connection) -> None:
        super().__init__(route.host, route.port)
        self.default_port = 443 if route.tls else 80  # which the Host header leaves out
        self._ready = connection

    def connect(self) -> None:
        self.sock = _SocketLike(self._ready)


class _SocketLike:
    """The part of a socket's interface that `http.client` uses. `http.client` would close it before the body
    is read, so the client itself closes it."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def makefile(self, _mode: str) -> io.BufferedReader:
        return _Lines(_Received(self._connection))

    def sendall(self, data: bytes) -> None:
        self._connection.send(data)

    def close(self) -> None:
        """Left to `BlockingHttpClient`."""


class _Lines(io.BufferedReader):
    """A file that returns complete lines only: `http.client` takes a truncated head for a complete one."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size:
            raise ConnectionResetError
        return line


class _Received(io.RawIOBase):
    """What a connection receives, as a file."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._unread = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._unread or self._connection.receive()
        taken = min(len(buffer), len(piece))
        buffer[:taken], self._unread = piece[:taken], piece[taken:]
        return taken


class _Headers(Mapping[str, str]):
    """Headers whose names ignore case; of a repeated one, the first value."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._first: dict[str, tuple[str, str]] = {}
        for name, value in headers:
            self._first.setdefault(name.lower(), (name, value))

    def __getitem__(self, name: str) -> str:
        return self._first[name.lower()][1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._first.values())

    def __len__(self) -> int:
        return len(self._first)
