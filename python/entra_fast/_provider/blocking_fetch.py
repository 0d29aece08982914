"""The library's own way out: one blocking GET with the standard library.

What belongs here: what a thread-based validator needs to fetch a key set or a discovery document, and nothing
more. The sidecar's way out is http.py, whose choice of a web proxy counts here too. Redirects are not
followed, answers are capped, https is required (http for loopback only).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from entra_fast._net import proxies_from, proxy_for, url_problem
from entra_fast.errors import ConfigurationError, KeysUnavailable

MAX_ANSWER_BYTES = 1 << 20
TIMEOUT = 5.0
"""Seconds that the other side may be silent."""

OVERALL_TIMEOUT = 10.0
"""Seconds for a whole answer, however slowly it drips."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer of any status."""

    status: int
    body: bytes
    cache_control: str


class _Deadline:
    """Cuts the connections that are made through it when their time is over, whatever they wait for then. The
    limits of sockets are for one silence each, and an answer can drip for ever, its head included."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for connected in self._sockets:
            connected.close()

    def connection(self, kind: Callable[..., T], host: str, **options: Any) -> T:
        made = kind(host, **options)
        made._create_connection = self._connect  # type: ignore[attr-defined]
        return made

    def _connect(self, *address: Any) -> socket.socket:
        connected = socket.create_connection(*address)
        self._sockets.append(connected.dup())  # TLS takes the socket itself out of the connection's hands
        if self.passed:  # while it was being made: nobody would cut it any more
            connected.close()
            raise TimeoutError
        return connected

    def _pass(self) -> None:
        self.passed = True
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._connection = functools.partial(deadline.connection, http.client.HTTPConnection)

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._connection = functools.partial(deadline.connection, http.client.HTTPSConnection)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, request)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect could lead anywhere: it is an answer of a wrong status, not an order."""


def get(url: str, *, timeout: float = TIMEOUT, overall: float = OVERALL_TIMEOUT) -> Fetched:
    """GET a document.

    Args:
        timeout: seconds that the other side may be silent. overall: seconds for all of it.

    Raises:
        ConfigurationError: the URL must not be requested.
        KeysUnavailable: no complete answer came; the sentence says why.
    """
    if (problem := url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"the URL of keys or discovery {problem}", "url")
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "entra_fast"})  # noqa: S310
    proxy = proxy_for(url, proxies_from(os.environ))
    proxies = {} if proxy is None else {request.type: proxy}
    with _Deadline(overall) as deadline:
        opener = urllib.request.build_opener(
            _NoRedirects, urllib.request.ProxyHandler(proxies), _Http(deadline), _Https(deadline)
        )
        try:
            with opener.open(request, timeout=timeout) as response:
                return _read(response, deadline)
        except urllib.error.HTTPError as answer:
            with answer:
                return Fetched(answer.code, b"", "")
        except (OSError, http.client.HTTPException) as error:
            reason = "it took too long" if deadline.passed else _reason(error)
            raise KeysUnavailable("keys_unavailable", f"fetching failed: {reason}") from None


def _read(response: http.client.HTTPResponse, deadline: _Deadline) -> Fetched:
    body = bytearray()
    while chunk := response.read1(65_536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise KeysUnavailable("keys_unavailable", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    if deadline.passed:
        raise TimeoutError
    if response.length:
        raise KeysUnavailable("keys_unavailable", "the answer ended before it was complete")
    return Fetched(response.status, bytes(body), response.headers.get("Cache-Control", ""))


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate was not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or 'no reason given'}"
    if isinstance(cause, socket.gaierror):
        return "the host's name could not be looked up"
    if isinstance(cause, TimeoutError):
        return "it timed out"
    if isinstance(cause, OSError):
        return cause.strerror or type(cause).__name__
    return type(cause).__name__
