"""The way out: HTTP requests to the provider, each bounded in time and size.

What belongs here: connections, TLS, web proxies, and turning every way in which a request can fail into one
`HttpFailure` with a stable code. What must never be here: knowledge of what is requested (tokens, keys), and
retries: whether a repetition is safe is for the caller to say.

aiohttp is imported on the first request and not before, so that the library can be imported without it.
"""

from __future__ import annotations

import os
import socket
import ssl
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from entra_fast._net import proxies_from, proxy_for, url_problem
from entra_fast.errors import EntraFastError

if TYPE_CHECKING:
    import aiohttp

ERROR_CODES = {
    "url_not_allowed": "the URL is neither https nor loopback http",
    "dns_failed": "the host's name could not be resolved",
    "tls_failed": "the TLS handshake failed, for instance because the certificate is not trusted",
    "connect_failed": "no connection could be made to the host or to the web proxy",
    "timed_out": "the connection, the answer or the whole request took longer than allowed",
    "redirected": "the answer was a redirect; redirects are not followed",
    "answer_too_large": "the answer was larger than allowed",
    "answer_incomplete": "the connection ended before the answer was complete",
}

MAX_CONNECTIONS = 500
"""Most connections to the outside at once; further requests wait, within their time to connect. So many, that
hundreds of users who come at once find a provider that takes a second for each no slower than it is."""


class HttpFailure(EntraFastError):
    """No HTTP answer could be had. `code` is one of `ERROR_CODES`; the message names the host, never the
    path, the query or what was sent."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer. `headers` ignores the case of names; a repeated header gives its first value."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """A pool of connections for one event loop. Safe for concurrent use within that loop.

    Args:
        connect_timeout: seconds for name look-up, connection and TLS together.
        read_timeout: seconds that the other side may be silent.
        overall_timeout: seconds for the whole request.
        max_response_bytes: a larger answer is a failure.
        ca_bundle: PEM file with authorities to trust beside the system's.
        proxies: as made by `_net.proxies_from`; by default from the process's environment.
        trace_configs: told about each request.
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 2.0,
        read_timeout: float = 3.0,
        overall_timeout: float = 5.0,
        max_response_bytes: int = 1 << 20,
        ca_bundle: str | None = None,
        proxies: Mapping[str, str] | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.overall_timeout = overall_timeout
        self.max_response_bytes = max_response_bytes
        self._ca_bundle = ca_bundle
        self._proxies = proxies_from(os.environ) if proxies is None else dict(proxies)
        self._trace_configs = list(trace_configs)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def get(
        self,
        url: str,
        *,
        accept: str = "application/json",
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> HttpResponse:
        """GET. Any status but a redirect is an answer.

        Raises:
            HttpFailure: see `ERROR_CODES`.
        """
        return await self._request("GET", url, None, {"Accept": accept}, timeout)

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """POST of `application/x-www-form-urlencoded` fields. `timeout`: seconds, where less than
        `overall_timeout` is left.

        Raises:
            HttpFailure: see `ERROR_CODES`.
        """
        body = urllib.parse.urlencode(fields).encode("ascii")
        sent = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
            **(headers or {}),
        }
        return await self._request("POST", url, body, sent, timeout)

    async def aclose(self) -> None:
        """Close all connections. The client cannot be used afterwards."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], limit: float | None
    ) -> HttpResponse:
        try:
            return await self._exchange(method, url, body, headers, limit)
        except HttpFailure as failure:
            _forget_frames(failure)
            raise

    async def _exchange(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], limit: float | None
    ) -> HttpResponse:
        problem = url_problem(url)
        if problem is not None:
            raise HttpFailure("url_not_allowed", f"the URL {problem}")
        import aiohttp  # noqa: PLC0415 - see the module's docstring

        host = urllib.parse.urlsplit(url).hostname or ""
        proxy = proxy_for(url, self._proxies)
        where = host if proxy is None else f"{host} through the proxy {urllib.parse.urlsplit(proxy).hostname}"
        overall = self.overall_timeout if limit is None else max(min(limit, self.overall_timeout), 0.001)
        try:
            async with self._open_session().request(
                method,
                url,
                data=body,
                # The provider's answers are small: no compression, so nothing can inflate.
                headers={"Accept-Encoding": "identity", "User-Agent": "entra-fast", **headers},
                allow_redirects=False,
                proxy=proxy,
                timeout=aiohttp.ClientTimeout(
                    total=overall, connect=self.connect_timeout, sock_read=self.read_timeout
                ),
            ) as response:
                if 300 <= response.status <= 399:
                    raise HttpFailure(
                        "redirected",
                        f"{host} answered with a redirect ({response.status}), which is not followed",
                    )
                answer = await self._read_body(response, host)
                return HttpResponse(response.status, response.headers, answer)
        except HttpFailure:
            raise
        except aiohttp.ClientConnectorDNSError:
            raise HttpFailure("dns_failed", f"the name of {where} could not be resolved") from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as exc:
            raise HttpFailure("tls_failed", f"no TLS connection to {where}: {_tls_reason(exc)}") from None
        except aiohttp.ClientHttpProxyError as exc:
            raise HttpFailure(
                "connect_failed", f"the proxy refused the connection to {host} with status {exc.status}"
            ) from None
        except aiohttp.ServerTimeoutError as exc:
            connecting = isinstance(exc, aiohttp.ConnectionTimeoutError)
            stage = "no connection to" if connecting else "no answer from"
            raise HttpFailure("timed_out", f"{stage} {where} in time") from None
        except TimeoutError:
            raise HttpFailure("timed_out", f"no complete answer from {where} in time") from None
        except aiohttp.ClientConnectorError as exc:
            named = isinstance(exc.errno, int) and exc.errno > 0
            reason = os.strerror(exc.errno or 0) if named else "it was closed before it was ready"
            raise HttpFailure("connect_failed", f"no connection to {where}: {reason}") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError):
            raise HttpFailure(
                "answer_incomplete", f"{where} closed the connection before its answer was complete"
            ) from None
        except aiohttp.ClientError:
            # What is left is an answer that is not HTTP. Its text may echo anything, so it is not repeated.
            raise HttpFailure("answer_incomplete", f"{where} did not answer in well-formed HTTP") from None

    async def _read_body(self, response: aiohttp.ClientResponse, host: str) -> bytes:
        body = bytearray()
        if (response.content_length or 0) <= self.max_response_bytes:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > self.max_response_bytes:
                    break
            else:
                return bytes(body)
        response.close()  # not worth reading to its end
        raise HttpFailure(
            "answer_too_large", f"{host} answered with more than {self.max_response_bytes} bytes"
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._closed:
                raise HttpFailure("connect_failed", "the HTTP client is closed")
            import aiohttp  # noqa: PLC0415 - see the module's docstring

            context: ssl.SSLContext | bool = True  # the one that aiohttp made when it was imported
            if self._ca_bundle is not None:
                context = ssl.create_default_context()
                context.load_verify_locations(cafile=self._ca_bundle)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=context, limit=MAX_CONNECTIONS, keepalive_timeout=30, socket_factory=_Socket.of
                ),
                cookie_jar=aiohttp.DummyCookieJar(),  # no state from one user's request to the next
                auto_decompress=False,
                trace_configs=self._trace_configs,
                trust_env=False,  # would also send credentials from ~/.netrc; proxies are chosen below
            )
        return self._session


class _Socket(socket.socket):
    """A socket whose file descriptor is not closed by Python's collector.

    When a connection is given up while uvloop makes it (mostly because of a timeout), uvloop closes the
    descriptor, but the socket object still has its number. Once collected, it would close that number again,
    which by then may be another connection's. The next one to get it reads the answer to somebody else's
    request, and that may be a token: https://github.com/MagicStack/uvloop/pull/646. Everybody else who has
    this object closes it explicitly.
    """

    def __del__(self) -> None:
        self.detach()

    @classmethod
    def of(cls, address: tuple[Any, ...]) -> _Socket:
        """For an entry of what `getaddrinfo` returns."""
        family, kind, protocol = address[:3]
        return cls(family, kind, protocol)


def _forget_frames(error: BaseException | None) -> None:
    """Cut an exception, and those behind it, from the frames that it came through. They hold what was sent,
    and aiohttp's refer back to the exception: such cycles would stay until Python's collector comes."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _tls_reason(exc: BaseException) -> str:
    """What OpenSSL says, without the exception's own text."""
    error: object = exc
    for name in ("certificate_error", "os_error"):
        error = getattr(error, name, None) or error
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or "the certificate is not trusted"
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).lower().replace("_", " ")
    return "the handshake failed"
