"""The connection to one host: name, web proxy, connection and TLS, each on its own.

What belongs here: the stages of one connection. The sentences for their failures are those of the sidecar's
own client (`Route`). What must never be here: HTTP requests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import math
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from entra_fast._net import INSECURE_PROVIDER_HOSTS, is_loopback_host
from entra_fast._provider.http_rules import HttpFailure, Proxy, Route, trusting_context
from entra_fast._settings.kinds import HostPort
from entra_fast._settings.model import OutboundSettings
from entra_fast.cli.doctor.results import TIME_LIMIT, Examination, Outcome, Result

DOCS = "docs/guides/troubleshooting.md#find-out-what-is-wrong"
EXPIRES_SOON = 7.0
"""Days before the end of a certificate at which it is a warning."""

# OpenSSL's x509_vfy.h; the module ssl has no names for them.
_NOT_YET_VALID, _HAS_EXPIRED, _HOST_MISMATCH = 9, 10, 62
_NO_CHECK_TIME = 0x200000

_T = TypeVar("_T")
_MAX_SHOWN_ADDRESSES = 4
_MAX_PROXY_HEAD = 16_384
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")


class Way:
    """The way to a host, as the sidecar would take it.

    Args:
        url: on that host, as the settings have it.
        outbound: the settings of outbound HTTP.

    Raises:
        HttpFailure: the sidecar does not request this URL.
    """

    def __init__(self, url: str, outbound: OutboundSettings) -> None:
        self.route = Route.to(url, outbound.proxies, insecure_hosts=outbound.insecure_hosts)
        self._ca_bundle = outbound.ca_bundle
        self._addresses: list[Any] = []
        self._socket: socket.socket | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def check(self, examination: Examination) -> Result:
        """Check each stage. The result is that of the last one."""
        route, proxy = self.route, self.route.proxy
        first = str(proxy) if proxy is not None else route.authority
        whose = "the web proxy's port" if proxy is not None else "this port"
        try:
            dns = await examination.check("dns", self._resolve, docs=DOCS, late=self._no_dns())
            tcp = await examination.check(
                "tcp",
                self._connect,
                docs=DOCS,
                needs=(dns,),
                late=Outcome(
                    "fail",
                    f"no connection to {first} within {TIME_LIMIT:g} s",
                    f"a connection to {first}",
                    f"allow outbound connections to {whose}: network policy, firewall"
                    + ("" if proxy is not None else "; or set HTTPS_PROXY where there is a web proxy"),
                ),
            )
            tunnel = await examination.check(
                "proxy",
                self._tunnel,
                docs=DOCS,
                needs=(tcp,),
                late=Outcome(
                    "fail",
                    f"no answer from the proxy {proxy} within {TIME_LIMIT:g} s",
                    f"a connection to {route.authority} through the proxy",
                    _PROXY_REMEDY,
                ),
            )
            return await examination.check(
                "tls",
                self._handshake,
                docs=DOCS,
                needs=(tunnel,),
                late=Outcome(
                    "fail",
                    f"no TLS connection to {route.authority} within {TIME_LIMIT:g} s",
                    "a TLS handshake",
                    "check that the port speaks TLS, and that no proxy or firewall on the way delays it",
                ),
            )
        finally:
            self._close()

    # --- stages ---

    async def _resolve(self) -> Outcome:
        host, port = (self.route.host, self.route.port) if self.route.proxy is None else self._proxy_address()
        try:
            self._addresses = await in_thread(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return self._no_dns()
        shown = list(dict.fromkeys(entry[4][0] for entry in self._addresses))
        if shown == [host]:
            return Outcome("ok", f"{host} is an address")
        more = f" and {len(shown) - _MAX_SHOWN_ADDRESSES} more" if len(shown) > _MAX_SHOWN_ADDRESSES else ""
        return Outcome("ok", f"{host} is {', '.join(shown[:_MAX_SHOWN_ADDRESSES])}{more}")

    def _no_dns(self) -> Outcome:
        if self.route.proxy is not None:
            remedy = "check the host name in HTTPS_PROXY"
        else:
            remedy = "check the spelling of the host in the provider's URLs"
        remedy += ", and that this machine can resolve names (in a pod: its dnsPolicy, and network policies)"
        return Outcome("fail", self.route.not_resolved().message, "a host name with an address", remedy)

    async def _connect(self) -> Outcome:
        failure = OSError()
        started = time.monotonic()
        for tried, (family, kind, protocol, _, address) in enumerate(self._addresses):
            left = 0.9 * TIME_LIMIT - (time.monotonic() - started)
            try:
                self._socket = socket.socket(family, kind, protocol)
                self._socket.setblocking(False)
                # Each address gets a share of the time, so that one that is silent leaves some for the next.
                async with asyncio.timeout(max(left, 0.0) / (len(self._addresses) - tried)):
                    await asyncio.get_running_loop().sock_connect(self._socket, address)
            except OSError as error:
                self._close()
                failure = error
            else:
                return Outcome("ok", f"connected to {_shown(address)}")
        if isinstance(failure, TimeoutError) and not failure.errno:
            raise failure
        return Outcome(
            "fail",
            self.route.not_connected(failure).message,
            "a connection",
            "check host and port, and that nothing forbids the connection: network policy, firewall",
        )

    async def _tunnel(self) -> Outcome:
        route, proxy = self.route, self.route.proxy
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=_MAX_PROXY_HEAD)
        self._socket = None
        if proxy is None:
            return Outcome("ok", f"{route.host} is reached directly")
        if proxy.tls:
            try:
                await self._writer.start_tls(trusting_context(self._ca_bundle), server_hostname=proxy.host)
            except (OSError, ssl.SSLError) as error:
                return _failed(_tls_failure(route, error), "a TLS connection to the proxy", _PROXY_REMEDY)
        if not route.tls:
            return Outcome("ok", f"requests to {route.host} go through {proxy}")
        self._writer.write(_connect_request(route, proxy))
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = b""
        status = _STATUS_LINE.match(head)
        if status is None:
            found = f"the proxy {proxy} did not answer in well-formed HTTP"
            return Outcome("fail", found, "a web proxy that answers CONNECT", _PROXY_REMEDY)
        if not 200 <= int(status[1]) <= 299:
            failure = route.proxy_refused(int(status[1]))
            remedy = _PROXY_REMEDY
            if int(status[1]) == 407:
                remedy = "put the right user name and password into HTTPS_PROXY"
            return _failed(failure, f"a connection to {route.authority} through the proxy", remedy)
        return Outcome("ok", f"{proxy} connects to {route.authority}")

    async def _handshake(self) -> Outcome:
        if not self.route.tls:
            if not is_loopback_host(self.route.host):
                return Outcome(
                    "warn",
                    f"{self.route.host} is asked over plain http: anyone on the network can read credentials "
                    "and tokens, and replace the keys that tokens are verified with",
                    "TLS",
                    f"use https, and remove the host from {INSECURE_PROVIDER_HOSTS}: it is for development",
                )
            return Outcome("ok", f"{self.route.host} is loopback, where plain http is allowed")
        context = trusting_context(self._ca_bundle)
        try:
            version, end = await self._shake_hands(context)
        except (OSError, ssl.SSLError) as error:
            found = _tls_failure(self.route, error).message
            if getattr(error, "verify_code", None) == _HAS_EXPIRED:
                found += await self._end_of_expired(context)
            expected = "a certificate that is valid, for this host, and trusted"
            return Outcome("fail", found, expected, _tls_remedy(error))
        days = (end - time.time()) / 86400
        found = f"{version}; the certificate of {self.route.host} ends at {_moment(end)}, in {_span(days)}"
        if days < EXPIRES_SOON:
            return Outcome(
                "warn",
                found,
                f"an end in more than {EXPIRES_SOON:g} days",
                "ask the operator of this host whether the certificate is renewed automatically",
            )
        return Outcome("ok", found)

    async def _shake_hands(self, context: ssl.SSLContext) -> tuple[str, int]:
        """The version of TLS, and the end of the certificate in seconds since the epoch."""
        assert self._writer is not None  # noqa: S101 - `_tunnel` has opened it
        await self._writer.start_tls(context, server_hostname=self.route.host)
        tls = self._writer.get_extra_info("ssl_object")
        return tls.version(), ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])

    async def _end_of_expired(self, context: ssl.SSLContext) -> str:
        """When the certificate ended, from a second handshake that verifies everything else. Nothing is sent
        over that connection."""
        self._close()
        context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        await self._connect()
        await self._tunnel()
        try:
            _, end = await self._shake_hands(context)
        except (OSError, ssl.SSLError):
            return ""
        return f"; that of {self.route.host} ends at {_moment(end)}"

    def _proxy_address(self) -> tuple[str, int]:
        assert self.route.proxy is not None  # noqa: S101 - the caller has looked
        return self.route.proxy.host, self.route.proxy.port

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


_PROXY_REMEDY = (
    "check HTTPS_PROXY; allow this host on the proxy, or name it in NO_PROXY if it can be reached without one"
)


async def in_thread(call: Callable[[], _T]) -> _T:
    """The result of a blocking call, in a thread that can be abandoned: the program may end before it."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_T] = loop.create_future()

    def deliver(set_result: Callable[[Any], None], value: object) -> None:
        if not result.done():
            set_result(value)

    def work() -> None:
        try:
            answer: tuple[Callable[[Any], None], object] = (result.set_result, call())
        except (OSError, UnicodeError) as error:
            answer = (result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the program ends
            loop.call_soon_threadsafe(deliver, *answer)

    threading.Thread(target=work, name="entra_fast-resolver", daemon=True).start()
    return await result


def _connect_request(route: Route, proxy: Proxy) -> bytes:
    """RFC 9110, section 9.3.6."""
    lines = [f"CONNECT {route.authority} HTTP/1.1", f"Host: {route.authority}"]
    parts = urllib.parse.urlsplit(proxy.url)
    if parts.username is not None:
        user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _failed(failure: HttpFailure, expected: str, remedy: str) -> Outcome:
    return Outcome("fail", failure.message, expected, remedy)


def _tls_failure(route: Route, error: OSError) -> HttpFailure:
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return route.tls_failed(error)
    return route.handshake_cut_off()


def _tls_remedy(error: OSError) -> str:
    code = getattr(error, "verify_code", None)
    if code in (_NOT_YET_VALID, _HAS_EXPIRED):
        return (
            "check this machine's clock; if it is right, the operator of the host must renew the certificate"
        )
    if code == _HOST_MISMATCH:
        return "use the host name that is in the certificate"
    if code is not None:
        return (
            "put the authority that signed the certificate (such as that of a web proxy that intercepts TLS) "
            "into a PEM file, and name the file in ENTRA_FAST_CA_BUNDLE"
        )
    return "check that the port speaks TLS, and that no proxy or firewall on the way ends the connection"


def _shown(address: tuple[Any, ...]) -> str:
    return str(HostPort(*address[:2]))


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(days: float) -> str:
    return f"{math.floor(days)} days" if days >= 2 else f"{math.floor(24 * days)} h"
