"""The rules of outbound HTTP, which every transport follows: what may be requested, which web proxy is used,
what an answer is, and how a request can fail.

What belongs here: checks and sentences that must be the same for `http_client.py` (asyncio, aiohttp) and
`blocking_http_client.py` (threads, standard library). What must never be here: sockets, and knowledge of what
is requested (tokens, keys). Nothing here retries: only the caller knows whether a retry is safe.
"""

from __future__ import annotations

import os
import re
import ssl
import urllib.parse
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from entra_fast._net import is_insecure, proxy_for, url_problem
from entra_fast.errors import ConfigurationError, EntraFastError

ERROR_CODES = {
    "url_not_allowed": "the URL is neither https nor http on loopback or on a host that is named for that",
    "dns_failed": "the host's name could not be resolved",
    "tls_failed": "the TLS handshake failed, for instance because the certificate is not trusted",
    "connect_failed": "no connection could be made to the host or to the web proxy",
    "timed_out": "the connection, the answer or the whole request took longer than allowed",
    "redirected": "the answer was a redirect; redirects are not followed",
    "answer_too_large": "the answer was larger than allowed",
    "answer_incomplete": "the connection ended before the answer was complete",
}

JSON = "application/json"


class HttpFailure(EntraFastError):
    """No HTTP answer was received. `code` is one of `ERROR_CODES`; the message names host, port and web
    proxy, never the path, the query, the proxy's credentials or what was sent."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of every request. Times are seconds.

    Attributes:
        connect_timeout: name resolution, connection, web proxy and TLS together.
        read_timeout: between two reads of an answer.
        overall_timeout: the whole request.
        max_response_bytes: a larger answer is a failure.
    """

    connect_timeout: float = 2.0
    read_timeout: float = 3.0
    overall_timeout: float = 5.0
    max_response_bytes: int = 1 << 20

    def overall(self, timeout: float | None) -> float:
        """Seconds for one request, whose caller may have less time left than `overall_timeout`."""
        return self.overall_timeout if timeout is None else max(min(timeout, self.overall_timeout), 0.001)


@dataclass(frozen=True, slots=True, repr=False)
class HttpRequest:
    """A request. All ask for an answer without compression, so that nothing can inflate."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None

    def adding(self, headers: Mapping[str, str]) -> HttpRequest:
        """The same with header fields of the user's, which replace those of the same name."""
        names = {name.lower() for name in headers}
        kept = {name: value for name, value in self.headers.items() if name.lower() not in names}
        return replace(self, headers=kept | dict(headers)) if headers else self


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer. `headers` of a client ignores the case of names; a repeated header gives its first
    value."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AsyncHttpClient(Protocol):
    """The interface for callers that only fetch documents."""

    async def get(self, url: str, *, accept: str = JSON) -> HttpResponse: ...

    async def aclose(self) -> None: ...


class TokenTransport(AsyncHttpClient, Protocol):
    """The interface for callers that request tokens: `HttpClient`, or `ThreadedHttpClient` without
    aiohttp."""

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse: ...

    async def post_json(
        self,
        url: str,
        document: object,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse: ...


_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "entra-fast"}


def get_request(url: str, accept: str) -> HttpRequest:
    """`accept`: media types of the answer."""
    return HttpRequest("GET", url, _HEADERS | {"Accept": accept})


def form_request(
    url: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None
) -> HttpRequest:
    """POST of `application/x-www-form-urlencoded` fields, answered in JSON."""
    content = {"Accept": JSON, "Content-Type": "application/x-www-form-urlencoded"}
    body = urllib.parse.urlencode(fields).encode("ascii")
    return HttpRequest("POST", url, _HEADERS | content | dict(headers or {}), body)


def json_request(url: str, document: object) -> HttpRequest:
    """POST of a JSON document, answered in JSON."""
    import orjson  # noqa: PLC0415 - few programs send documents

    return HttpRequest("POST", url, _HEADERS | {"Accept": JSON, "Content-Type": JSON}, orjson.dumps(document))


@dataclass(frozen=True, slots=True)
class Proxy:
    """A web proxy. It is reached by TLS where its URL says `https`."""

    url: str = field(repr=False)
    tls: bool
    host: str
    port: int

    @classmethod
    def at(cls, url: str) -> Proxy:
        """`url`: as `proxies_from` has checked it."""
        parts = urllib.parse.urlsplit(url)
        return cls(url, parts.scheme == "https", parts.hostname or "", _port(parts))

    def __str__(self) -> str:
        return _authority(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach the host of a checked URL, and the sentence for each kind of failure."""

    tls: bool
    host: str
    port: int
    proxy: Proxy | None

    @classmethod
    def to(
        cls,
        url: str,
        proxies: Mapping[str, str],
        *,
        insecure_hosts: Collection[str] | None = None,
        allow_plain_http: bool = False,
    ) -> Route:
        """
        Args:
            proxies: as made by `proxies_from`.
            insecure_hosts: hosts that may be asked over http, too. They are reached directly, as loopback is.
            allow_plain_http: allow http for every host.

        Raises:
            HttpFailure: code `url_not_allowed`.
        """
        plain = allow_plain_http and url.startswith("http://")
        problem = url_problem(url.replace("http", "https", 1) if plain else url, insecure_hosts)
        if problem is not None:
            raise HttpFailure("url_not_allowed", f"the URL {problem}")
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        try:
            host.encode("idna")
        except UnicodeError:  # a part of the name is empty or too long
            raise HttpFailure("url_not_allowed", "the URL must have a valid host name") from None
        is_direct = parts.scheme == "http" and is_insecure(host, insecure_hosts) and "always" not in proxies
        proxy = None if is_direct else proxy_for(url, proxies)
        return cls(parts.scheme == "https", host, _port(parts), None if proxy is None else Proxy.at(proxy))

    @property
    def authority(self) -> str:
        """Host and port, as a CONNECT request names them (RFC 9110, section 9.3.6)."""
        return _authority(self.host, self.port)

    def __str__(self) -> str:
        return self.authority if self.proxy is None else f"{self.authority} through the proxy {self.proxy}"

    # --- failures ---

    def not_resolved(self) -> HttpFailure:
        whose = "the host name" if self.proxy is None else "the proxy's host name"
        return HttpFailure("dns_failed", f"no connection to {self}: {whose} could not be resolved")

    def not_connected(self, error: OSError) -> HttpFailure:
        named = isinstance(error.errno, int) and error.errno > 0
        # Without a number: connections to several addresses have failed, for different reasons.
        reason = os.strerror(error.errno or 0) if named else "none of its addresses accepted a connection"
        return HttpFailure("connect_failed", f"no connection to {self}: {reason}")

    def handshake_cut_off(self) -> HttpFailure:
        return HttpFailure(
            "connect_failed", f"no connection to {self}: it was closed during the TLS handshake"
        )

    def tls_failed(self, error: BaseException) -> HttpFailure:
        reason = _tls_reason(error) + _unreadable_certificates()
        return HttpFailure("tls_failed", f"no TLS connection to {self}: {reason}")

    def proxy_refused(self, status: int) -> HttpFailure:
        from http import HTTPStatus  # noqa: PLC0415 - for this sentence only

        phrase = f" ({HTTPStatus(status).phrase})" if status in {*HTTPStatus} else ""
        return HttpFailure(
            "connect_failed",
            f"the proxy {self.proxy} refused the connection to {self.authority} with status {status}{phrase}",
        )

    def connecting_timed_out(self, seconds: float) -> HttpFailure:
        return HttpFailure("timed_out", f"no connection to {self} within {_seconds(seconds)}")

    def silent(self, seconds: float) -> HttpFailure:
        return HttpFailure("timed_out", f"no answer from {self} for {_seconds(seconds)}")

    def timed_out(self, seconds: float) -> HttpFailure:
        return HttpFailure("timed_out", f"no complete answer from {self} within {_seconds(seconds)}")

    def redirected(self, status: int) -> HttpFailure:
        return HttpFailure("redirected", f"{self} answered with a redirect ({status}), which is not followed")

    def too_large(self, limit: int) -> HttpFailure:
        return HttpFailure("answer_too_large", f"{self} answered with more than {limit} bytes")

    def cut_off(self) -> HttpFailure:
        return HttpFailure(
            "answer_incomplete", f"{self} closed the connection before its answer was complete"
        )

    def not_http(self) -> HttpFailure:
        """The answer may echo what was sent, so nothing of it is repeated."""
        return HttpFailure("answer_incomplete", f"{self} did not answer in well-formed HTTP")


def not_ok(url: str, response: HttpResponse) -> str:
    """Which status came from where instead of 200, with Entra ID's own code if the answer has one."""
    code = _AADSTS.search(response.body)
    named = f" ({code[0].decode('ascii')})" if code is not None else ""
    return f"{shown_url(url)} answered {response.status} instead of 200{named}"


def shown_url(url: str) -> str:
    """A URL for a sentence: without its query, and bounded."""
    parts = urllib.parse.urlsplit(url)
    shown = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


_MAX_SHOWN = 200
_AADSTS = re.compile(rb"AADSTS[0-9]{1,8}")


def trusting_context(ca_bundle: str | None) -> ssl.SSLContext:
    """TLS that trusts the system's certificate authorities and those in a PEM file. The system's are those of
    OpenSSL, or of SSL_CERT_FILE and SSL_CERT_DIR.

    Raises:
        ConfigurationError: no certificate can be read from the file.
    """
    context = ssl.create_default_context()
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cafile=ca_bundle)
        except OSError as error:
            plain = isinstance(error, ssl.SSLError) or not error.strerror
            reason = "it is not a PEM file of certificates" if plain else error.strerror
            raise ConfigurationError(
                "setting_invalid", f"the CA bundle '{ca_bundle}' cannot be used: {reason}", "ca_bundle"
            ) from None
    return context


_CERT_FILE, _CERT_DIR = "SSL_CERT_FILE", "SSL_CERT_DIR"


def _unreadable_certificates() -> str:
    """What explains a certificate that is not trusted: OpenSSL ignores a file that it cannot read."""
    for name, is_there in ((_CERT_FILE, os.path.isfile), (_CERT_DIR, os.path.isdir)):
        paths = os.environ.get(name, "")
        places = [paths] if name == _CERT_FILE else paths.split(os.pathsep)
        if paths and not any(is_there(place) and os.access(place, os.R_OK) for place in places):
            return f"; {name} names nothing that can be read"
    return ""


def forget_frames(error: BaseException | None) -> None:
    """Detach an exception and its causes from their frames. The frames hold what was sent, and aiohttp's
    refer back to the exception: such cycles would stay until the garbage collector runs."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _port(parts: urllib.parse.SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s"


def _tls_reason(exc: BaseException) -> str:
    """What OpenSSL says, without the exception's own text."""
    error: object = exc
    for name in ("certificate_error", "os_error"):
        error = getattr(error, name, None) or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "the certificate is not trusted"
    reason = getattr(error, "reason", None)  # only errors that OpenSSL made have one
    if isinstance(error, ssl.SSLError) and reason:
        return str(reason).lower().replace("_", " ")
    return "the handshake failed"
