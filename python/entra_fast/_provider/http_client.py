"""Outbound HTTP on an event loop, with aiohttp.

What belongs here: aiohttp's connections, and the translation of its exceptions into the failures of
`http_rules.py`. Whatever must also hold for `blocking_http_client.py` belongs there instead.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Self

import aiohttp

from entra_fast._net import insecure_provider_hosts, proxies_from
from entra_fast._provider.http_options import HttpOptions
from entra_fast._provider.http_rules import (
    JSON,
    HttpFailure,
    HttpLimits,
    HttpRequest,
    HttpResponse,
    Route,
    forget_frames,
    form_request,
    get_request,
    json_request,
    trusting_context,
)
from entra_fast._settings.model import OutboundSettings

MAX_CONNECTIONS = 500
"""Maximum number of open connections; further requests wait, within their time to connect. It is large enough
that hundreds of simultaneous users of a provider that takes a second per request do not wait for each
other."""


class HttpClient:
    """A pool of connections for one event loop. Safe for concurrent use within that loop.

    Args:
        ca_bundle: PEM file with certificate authorities to trust in addition to the system's.
        proxies: as made by `proxies_from`; by default from the process's environment.
        headers: header fields to add to each request.
        insecure_hosts: hosts that may be asked over plain http, besides loopback.
        trace_configs: notified of each request.
        answered: called with the headers of each answer, and the seconds that it took.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        ca_bundle: str | None = None,
        proxies: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        insecure_hosts: Collection[str] | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        answered: Callable[[Mapping[str, str], float], None] | None = None,
    ) -> None:
        self._limits = limits or HttpLimits()
        self._ca_bundle = ca_bundle
        self._proxies = proxies_from(os.environ) if proxies is None else dict(proxies)
        self._headers = headers or {}
        self._insecure_hosts = insecure_hosts
        self._trace_configs = list(trace_configs)
        self._answered = answered
        self._context: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @classmethod
    def from_settings(
        cls,
        settings: OutboundSettings,
        *,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        answered: Callable[[Mapping[str, str], float], None] | None = None,
    ) -> Self:
        return cls(
            HttpLimits(settings.connect_timeout, settings.read_timeout, settings.overall_timeout),
            ca_bundle=settings.ca_bundle,
            proxies=settings.proxies,
            insecure_hosts=settings.insecure_hosts,
            trace_configs=trace_configs,
            answered=answered,
        )

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

    async def get(
        self,
        url: str,
        *,
        accept: str = JSON,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """GET. Any status but a redirect is an answer.

        Args:
            accept: media types of the answer.
            timeout: seconds, where less than `overall_timeout` is left.

        Raises:
            HttpFailure: see `http_rules.ERROR_CODES`.
        """
        return await self._request(get_request(url, accept), timeout)

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """POST of form fields; otherwise like `get`."""
        return await self._request(form_request(url, fields, headers), timeout)

    async def post_json(
        self,
        url: str,
        document: object,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - lowers the client's own limit
    ) -> HttpResponse:
        """POST of a JSON document; otherwise like `get`."""
        return await self._request(json_request(url, document), timeout)

    async def aclose(self) -> None:
        """Close all connections. The client cannot be used afterwards."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, request: HttpRequest, limit: float | None) -> HttpResponse:
        began = time.monotonic()
        request = request.adding(self._headers)
        try:
            route = Route.to(request.url, self._proxies, insecure_hosts=self._insecure_hosts)
            response = await self._exchange(request, route, limit)
        except HttpFailure as failure:
            forget_frames(failure)
            raise
        if self._answered is not None:
            self._answered(response.headers, time.monotonic() - began)
        return response

    async def _exchange(self, request: HttpRequest, route: Route, limit: float | None) -> HttpResponse:
        limits, overall = self._limits, self._limits.overall(limit)
        try:
            async with self._open_session().request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                proxy=route.proxy.url if route.proxy is not None else None,
                ssl=self._trusting(route),
                timeout=aiohttp.ClientTimeout(
                    total=overall, connect=limits.connect_timeout, sock_read=limits.read_timeout
                ),
            ) as response:
                if 300 <= response.status <= 399:
                    raise route.redirected(response.status)
                return HttpResponse(response.status, response.headers, await self._read(response, route))
        except HttpFailure:
            raise
        except UnicodeError:  # a part of the name is empty or too long
            raise route.not_resolved() from None
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise route.tls_failed(error) from None
        except aiohttp.ClientHttpProxyError as error:
            raise route.proxy_refused(error.status) from None
        except aiohttp.ServerTimeoutError as error:
            if _is_of_connecting(error):
                raise route.connecting_timed_out(min(limits.connect_timeout, overall)) from None
            raise route.silent(limits.read_timeout) from None
        except TimeoutError:
            raise route.timed_out(overall) from None
        except aiohttp.ClientConnectorError as error:
            cause = error.os_error
            if isinstance(cause, socket.gaierror):
                raise route.not_resolved() from None
            # A reset: closed with our first message unread. A port that is closed refuses instead.
            if (isinstance(cause, ConnectionError) and cause.errno is None) or (
                route.tls and isinstance(cause, ConnectionResetError)
            ):
                raise route.handshake_cut_off() from None
            raise route.not_connected(cause) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError):
            raise route.cut_off() from None
        except aiohttp.ClientError:
            raise route.not_http() from None

    async def _read(self, response: aiohttp.ClientResponse, route: Route) -> bytes:
        limit = self._limits.max_response_bytes
        body = bytearray()
        if (response.content_length or 0) <= limit:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > limit:
                    break
            else:
                return bytes(body)
        response.close()  # not worth reading to its end
        raise route.too_large(limit)

    def _trusting(self, route: Route) -> ssl.SSLContext | bool:
        """TLS of our own: never the context that aiohttp made when it was imported, which trusts nobody in a
        sidecar (sidecar/process/aiohttp_import.py). Made when it is first needed, or to check the CA bundle:
        it reads a file of many authorities."""
        if self._context is None and (
            self._ca_bundle is not None or route.tls or (route.proxy is not None and route.proxy.tls)
        ):
            self._context = trusting_context(self._ca_bundle)
        return True if self._context is None else self._context

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._closed:
                raise HttpFailure("connect_failed", "the HTTP client is closed")
            options: dict[str, Any] = {"socket_factory": _Socket.of} if _VERSION >= (3, 12) else {}
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=30, **options),
                cookie_jar=aiohttp.DummyCookieJar(),  # no state from one user's request to the next
                auto_decompress=False,
                trace_configs=self._trace_configs,
                trust_env=False,  # would also send credentials from ~/.netrc; `Route` chooses the proxy
            )
        return self._session


_VERSION = tuple(int(part) for part in aiohttp.__version__.split(".")[:2])
"""Of aiohttp. The library works with 3.9 to 3.14, and this client does without what is newer than 3.9."""


def _is_of_connecting(error: aiohttp.ServerTimeoutError) -> bool:
    """Whether the time to connect was over, rather than the time between two reads."""
    if _VERSION >= (3, 10):
        return isinstance(error, aiohttp.ConnectionTimeoutError)
    return str(error).startswith("Connection timeout")  # pragma: no cover - aiohttp 3.9


class _Socket(socket.socket):
    """A socket whose file descriptor is not closed by the garbage collector.

    When a connection is cancelled while uvloop makes it (mostly because of a timeout), uvloop closes the
    descriptor, but the socket object still has its number. Once collected, it would close that number again,
    which by then may be another connection's. The next one to get it reads the answer to another request, and
    that may be a token: https://github.com/MagicStack/uvloop/pull/646. Every other holder of this object
    closes it explicitly.
    """

    def __del__(self) -> None:
        self.detach()

    @classmethod
    def of(cls, address: tuple[Any, ...]) -> _Socket:
        """For an entry of what `getaddrinfo` returns."""
        family, kind, protocol = address[:3]
        return cls(family, kind, protocol)
