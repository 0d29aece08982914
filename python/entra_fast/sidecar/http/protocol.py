"""The server below aiohttp's application: one protocol object per connection.

What belongs here: limits on connections, the deadline to receive a request, and errors of HTTP itself in the
shape of the API. The fast path stands in front of it (fast_path.py). What must never be here: routes, tokens,
and any decision about the bytes of a request: framing belongs to aiohttp's parser alone.

This uses private parts of aiohttp, which internals.py lists. If one is missing, server.py serves without this
module.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import orjson
from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web import RequestHandler, Server

from entra_fast import _native
from entra_fast._metrics import Metrics

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage


MAX_FIELD_BYTES, MAX_HEADER_FIELDS = 8190, 128
"""The limits of aiohttp's parser: for the request line and for one header field, and for their number."""
NOT_HTTP = "the request is not well-formed HTTP"


class RequestTimedOut(Exception):
    """The request's body did not arrive in time."""


class BodyCutShort(web.RequestPayloadError, TimeoutError):
    """The client closed its side in the middle of a body. Also a TimeoutError, because aiohttp may be waiting
    for a body that no handler reads, and treats that error as its end."""


class JsonResponse(web.Response):
    """A response with the few headers that all responses have. The fast path sends the same."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(
            status=status,
            body=body,
            # Exactly this type: a widely used client compares the whole value.
            headers={"Content-Type": "application/json", "Cache-Control": "no-store", **(headers or {})},
        )

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)  # do not reveal the version of the server


def error_response(status: int, description: str, *, error: str = "invalid_request") -> JsonResponse:
    """An error that the sidecar itself reports (RFC 6749, section 5.2)."""
    return JsonResponse(status, orjson.dumps({"error": error, "error_description": description}))


MAX_KEPT_HEAD_BYTES = 32_768
"""With this many bytes of an incomplete head, no more are kept for choosing the sentence of a refusal."""


def refusal_of_malformed(exc: BaseException | None, head: bytes) -> tuple[int, str]:
    """Status and sentence for what aiohttp's parser refuses. Its own text repeats the offending bytes, so
    only the beginning of that is looked at.

    Args:
        exc: the parser's error.
        head: the bytes of the request, as far as they were kept.
    """
    reason = exc.message if isinstance(exc, HttpProcessingError) else ""
    if isinstance(exc, LineTooLong):
        return 431, f"the request line, or a header field, is larger than {MAX_FIELD_BYTES} bytes"
    if reason.startswith("Too many headers"):
        return 431, f"the request has more than {MAX_HEADER_FIELDS} header fields"
    if reason.startswith(("Missing 'Host'", "Duplicate 'Host'")):
        several = _native.head_refusal(hosts=["", ""], transfer_encodings=[])
        return several or (400, NOT_HTTP)
    if reason.startswith(("Request has invalid `Transfer-Encoding`", "Invalid `Transfer-Encoding`")):
        return _native.transfer_coding_refusal(head) or (400, NOT_HTTP)
    return 400, NOT_HTTP


def head_refusal(request: web.BaseRequest) -> JsonResponse | None:
    """The answer to a request whose head aiohttp accepts and RFC 9112 forbids, or None. It closes the
    connection: where the body ends is in doubt."""
    headers = request.headers
    refusal = _native.head_refusal(
        hosts=headers.getall(hdrs.HOST, []),
        transfer_encodings=headers.getall(hdrs.TRANSFER_ENCODING, []),
    )
    if refusal is None:
        return None
    response = error_response(*refusal)
    response.force_close()
    return response


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a listener.

    Attributes:
        max_connections: maximum number of open connections.
        request_timeout: maximum time from the first byte of a request to its last, in seconds.
        idle_timeout: maximum time between two requests of a connection, in seconds.
    """

    max_connections: int
    request_timeout: float
    idle_timeout: float


def unobserved() -> None:
    """No one has to know that a connection has been worked on."""


class SidecarServer(Server):
    """Makes a `SidecarProtocol` for each connection.

    Args:
        plain: aiohttp's own server, whose place this one takes.
        limits: of the listener.
        metrics: where refused connections and the like are counted.
        worked: called whenever bytes of a connection have been handled.
    """

    def __init__(
        self, plain: Server, limits: Limits, metrics: Metrics, worked: Callable[[], None] = unobserved
    ) -> None:
        super().__init__(
            self._answer,
            request_factory=self._new_request,
            loop=plain._loop,
            **plain._kwargs,
        )
        self._application = plain.request_handler
        self._plain_request = plain.request_factory
        self.limits = limits
        self.metrics = metrics
        self.worked = worked

    def __call__(self) -> RequestHandler:
        return SidecarProtocol(self, loop=self._loop, **self._kwargs)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            refused = head_refusal(request)
            if refused is not None:
                self.metrics.requests.add("other", str(refused.status))
                return refused
            response = await self._application(request)
            protocol = request.protocol
            if isinstance(protocol, SidecarProtocol) and not protocol.may_read_on():
                response.force_close()  # the response tells the client, and nothing more is read
            return response
        except web.HTTPException as exc:
            # Raised by aiohttp itself, for an expectation at an unknown path. Its text repeats the header.
            self.metrics.requests.add("other", str(exc.status))
            return error_response(exc.status, HTTPStatus(exc.status).phrase.lower())

    def _new_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, SidecarProtocol):  # pragma: no branch - for the type checker
            protocol.current_message = message
        return self._plain_request(message, payload, protocol, writer, task)

    def leave_fast_path(self) -> None:
        """From now on every request takes the slow path, as it does here anyway."""

    @property
    def busy(self) -> bool:
        """Whether any request is being received or answered."""
        return any(isinstance(c, SidecarProtocol) and c.busy for c in self._connections)


class SidecarProtocol(RequestHandler):
    """aiohttp's protocol, with a deadline to receive each request."""

    __slots__ = (
        "_alone",
        "_body",
        "_deadline",
        "_half_closed",
        "_head",
        "_offer",
        "_sidecar",
        "current_message",
    )

    def __init__(self, manager: SidecarServer, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self._sidecar = manager
        self._deadline: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None
        self._half_closed = False  # the client has closed its side
        self._head = bytearray()  # of a head that did not arrive in one piece, or is malformed
        self._offer: RawRequestMessage | None = None  # the last request, if it offers an upgrade
        self._alone: RawRequestMessage | None = None  # one that arrived with no bytes after it
        self.current_message: RawRequestMessage | None = None  # the request that is being answered

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered."""
        return self._request_in_progress or bool(self._messages) or self._deadline is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
        if connection is not None and user_timeout is not None:  # pragma: no branch - other operating systems
            # A client that never reads would keep its connection and its responses forever: aiohttp waits for
            # such a client, and so does a transport that is being closed. The kernel drops the connection
            # (RFC 5482) when it cannot send for this long.
            with contextlib.suppress(OSError):
                milliseconds = max(1, int(self._keepalive_timeout * 1000))
                connection.setsockopt(socket.IPPROTO_TCP, user_timeout, milliseconds)
        if len(self._sidecar._connections) > self._sidecar.limits.max_connections:
            self._sidecar.metrics.connections_refused.add()
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._received()
        if self._task_handler is not None and not self._request_in_progress:
            # It may be about to start a request, and would have no connection to answer on.
            self._task_handler.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more, but may still read (RFC 9293, section 3.6). Its requests are
        answered, then the connection closes. True keeps it open until then."""
        self._half_closed = True
        body, self._body = self._body, None
        if body is not None:
            body.set_exception(BodyCutShort())
        rests = self._waiter is not None and not self._waiter.done()
        if rests or not self._request_count:
            return False
        if not self._messages:
            self.close()  # after the response to the last request
        return True

    async def _handle_request(self, *args: Any) -> tuple[web.StreamResponse, bool]:
        answered = await super()._handle_request(*args)
        self._sidecar.worked()
        if self._messages:
            await asyncio.sleep(0)  # other connections get their turn between two pipelined requests
        if self._half_closed and not self._messages:
            self.close()
        return answered

    def data_received(self, data: bytes) -> None:
        begun = self._deadline is not None
        if len(data) > 1 and (begun or b"upgrade" in data.lower()):
            self._parse(data[:-1])  # see `may_read_on`
            data = data[-1:]
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if data and self._deadline is None and not (self._close or self._force_close):
            timeout = self._sidecar.limits.request_timeout
            self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
        count, nothing_waits = self._request_count, not self._buffer_paused
        super().data_received(data)
        self._sidecar.worked()
        if self._request_count == count:
            if self._body is None and len(self._head) < MAX_KEPT_HEAD_BYTES:
                self._head += data
        else:
            message, self._body = self._messages[-1]
            # A malformed request is in the queue as an error, which offers nothing.
            self._offer = cast("RawRequestMessage", message) if getattr(message, "upgrade", False) else None
            if hasattr(message, "exc"):
                self._head += data  # nothing is parsed behind a malformed request
            else:
                self._head.clear()
        if self._body is not None and self._body.is_eof():
            if len(data) == 1 and nothing_waits:
                self._alone = self._offer
            self._received()

    def may_read_on(self) -> bool:
        """Whether aiohttp's parser is at the end of the request that is being answered, and continues from
        there.

        When a request offers an upgrade that aiohttp does not know, its parser drops what follows the request
        in the same piece, and would continue in the middle of the next one. So the last byte of a piece is
        parsed separately: a request that ends with it has no bytes after it. For an upgrade that aiohttp
        knows, it sets aside the bytes that follow, where no deadline applies.
        """
        message = self.current_message
        assert message is not None  # noqa: S101 - a request is being answered
        known = (
            message.method == hdrs.METH_CONNECT
            or message.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
        )
        return not message.upgrade or (message is self._alone and not known)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP. aiohttp's own handler repeats the offending bytes, which may be part of a
        token, to the client and in the log."""
        if request.writer.output_size > 0:  # pragma: no cover - responses here are sent in one piece
            raise ConnectionError("part of a response was sent already")
        if status < 500:
            status, sentence = refusal_of_malformed(exc, bytes(self._head))
            response = error_response(status, sentence)
        else:
            response = error_response(status, "unexpected error", error="server_error")
        response.force_close()
        self._sidecar.metrics.requests.add("other", str(status))
        return response

    def _process_keepalive(self) -> None:
        if self.busy:
            # Not idle: a request is arriving, and has its own deadline; or it waits for the fast path.
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _received(self) -> None:
        """A whole request has arrived. The next byte starts the next deadline."""
        self._body = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _not_received_in_time(self) -> None:
        self._deadline = None
        if self._force_close or self.transport is None:
            return
        if self._buffer_paused:
            # The server does not read now, because requests wait for their responses.
            timeout = self._sidecar.limits.request_timeout
            self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
            return
        self._sidecar.metrics.receive_timeouts.add()
        body, self._body = self._body, None
        if body is not None and self._request_in_progress:
            self._lingering_time = 0.0  # otherwise aiohttp would wait for the rest of it, and log that
            body.set_exception(RequestTimedOut())  # its handler answers 408
        elif body is not None and not self._messages:
            self.force_close()  # answered before its body arrived: a second response would answer nothing
        elif self._request_in_progress or self._messages:
            self.close()  # after the responses that are owed
        else:
            self._sidecar.metrics.requests.add("other", "408")
            self._refuse(408, "the request did not arrive in time")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without a request, and close."""
        transport = self.transport
        if transport is not None:  # pragma: no branch - for the type checker
            body = orjson.dumps({"error": "invalid_request", "error_description": sentence})
            reason = {408: "Request Timeout", 503: "Service Unavailable"}[status]
            transport.write(
                f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
                f"Content-Length: {len(body)}\r\nDate: {email.utils.formatdate(usegmt=True)}\r\n"
                "Connection: close\r\n\r\n".encode("ascii")
                + body
            )
        self.force_close()


class SidecarRunner(web.AppRunner):
    """Runs an application on a `SidecarServer`.

    Args:
        server: makes it from aiohttp's own server, whose place it takes.
        options: as for `aiohttp.web.AppRunner`.
    """

    def __init__(
        self, app: web.Application, server: Callable[[Server], SidecarServer], **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._new_server = server
        self.sidecar_server: SidecarServer | None = None

    async def _make_server(self) -> Server:
        self.sidecar_server = self._new_server(await super()._make_server())
        return self.sidecar_server
