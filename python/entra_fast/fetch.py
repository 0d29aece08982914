"""The library's own way out: one blocking GET with the standard library.

What belongs here: what a thread-based validator needs to fetch a key set or a discovery document, and nothing
more. The sidecar's way out is http.py, whose choice of a web proxy counts here too. Redirects are not
followed, answers are capped, https is required (http for loopback only).
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from entra_fast.config import proxies_from, url_problem
from entra_fast.errors import ConfigurationError, KeysUnavailable
from entra_fast.http import proxy_for

MAX_ANSWER_BYTES = 1 << 20
TIMEOUT = 5.0
"""Seconds that the other side may be silent."""

OVERALL_TIMEOUT = 10.0
"""Seconds for a whole answer, however slowly it drips."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer of any status."""

    status: int
    body: bytes
    cache_control: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """A redirect could lead anywhere: it is an answer of a wrong status, not an order."""


def get(url: str, *, timeout: float = TIMEOUT) -> Fetched:
    """GET a document.

    Raises:
        ConfigurationError: the URL must not be requested.
        KeysUnavailable: no complete answer came; the sentence says why.
    """
    if (problem := url_problem(url)) is not None:
        raise ConfigurationError("setting_invalid", f"the URL of keys or discovery {problem}", "url")
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "entra_fast"})  # noqa: S310
    proxy = proxy_for(url, proxies_from(os.environ))
    proxies = {} if proxy is None else {request.type: proxy}
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(request, timeout=timeout) as response:
            return _read(response, time.monotonic() + OVERALL_TIMEOUT)
    except urllib.error.HTTPError as answer:
        with answer:
            return Fetched(answer.code, b"", "")
    except (OSError, http.client.HTTPException) as error:
        raise KeysUnavailable("keys_unavailable", f"fetching failed: {_reason(error)}") from None


def _read(response: http.client.HTTPResponse, deadline: float) -> Fetched:
    body = bytearray()
    while chunk := response.read1(65_536):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise KeysUnavailable("keys_unavailable", f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise KeysUnavailable("keys_unavailable", f"the answer took longer than {OVERALL_TIMEOUT:g} s")
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
