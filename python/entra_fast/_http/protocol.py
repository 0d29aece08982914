"""The server below an aiohttp application: one protocol object per connection.

What belongs here: limits on connections, the deadline to receive a request, and when errors of HTTP itself
are answered (refusals.py has their sentences). The sidecar's fast path stands in front of it. What must never
be here: routes, tokens, and any decision about the bytes of a request: framing belongs to aiohttp's parser
alone.

This uses private parts of aiohttp, which internals.py lists. If one is missing, server.py serves without this
module.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.web import RequestHandler, Server

from entra_fast._http import refusals
from entra_fast._http.limits import MAX_HEAD_BYTES, Limits
from entra_fast._http.refusals import BodyCutShort, RequestTimedOut, head_refusal, refusal_of_malformed
from entra_fast._http.responses import closing_if_unread, describe, error_body, error_response

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_parser import RawRequestMessage


_END_OF_HEAD: Final = b"\r\n\r\n"
_MAX_PIECES_WITHIN_BODIES: Final = 16
"""Of one read, those that no head ends: a body can consist of empty lines, and each piece has a price."""
_log = logging.getLogger("entra_fast")


class Observer(Protocol):
    """Is told what happens below the application."""

    def refused(self, status: int) -> None:
        """A request got this status before an application saw it, or because an application failed."""

    def connection_refused(self) -> None:
        """A connection was refused, because the maximum number is open."""

    def not_received_in_time(self) -> None:
        """A request did not arrive in time."""

    def worked(self) -> None:
        """Bytes of a connection have been handled."""


class StrictServer(Server):
    """Makes a `StrictProtocol` for each connection."""

    def __init__(self, plain: Server, limits: Limits, observer: Observer) -> None:
        super().__init__(
            self._answer,
            request_factory=self._new_request,
            loop=plain._loop,
            **plain._kwargs,
        )
        self._application = plain.request_handler
        self._plain_request = plain.request_factory
        self.limits = limits
        self.observer = observer

    def __call__(self) -> RequestHandler:
        return StrictProtocol(self, loop=self._loop, **self._kwargs)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            refused = head_refusal(request)
            if refused is not None:
                self.observer.refused(refused.status)
                return refused
            return self._closing_if_lost(request, await self._application(request))
        except RequestTimedOut:
            return self._refused(request, *refusals.NOT_IN_TIME)
        except web.RequestPayloadError:
            return self._refused(request, *refusals.NOT_FRAMED)
        except web.HTTPException as exc:
            if exc.status < 400:
                raise
            # Raised by aiohttp itself, for an expectation. Its text repeats the header.
            expectation = exc.status == refusals.EXPECTATION[0]
            sentence = refusals.EXPECTATION[1] if expectation else HTTPStatus(exc.status).phrase.lower()
            return self._refused(request, exc.status, sentence)

    def _refused(self, request: web.BaseRequest, status: int, sentence: str) -> web.StreamResponse:
        self.observer.refused(status)
        response = closing_if_unread(request, error_response(status, sentence))
        return self._closing_if_lost(request, response)

    @staticmethod
    def _closing_if_lost(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
        """The response; it tells the client that the connection ends, and nothing more is read, if the parser
        may be in the middle of the next request."""
        protocol = request.protocol
        if isinstance(protocol, StrictProtocol) and not protocol.may_read_on():
            response.force_close()
        return response

    def _new_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if isinstance(protocol, StrictProtocol):  # pragma: no branch - for the type checker
            protocol.current_message = message
        return self._plain_request(message, payload, protocol, writer, task)

    def leave_fast_path(self) -> None:
        """From now on every request takes the slow path, as it does here anyway."""

    @property
    def busy(self) -> bool:
        """Whether any request is being received or answered."""
        return any(isinstance(c, StrictProtocol) and c.busy for c in self._connections)


class StrictProtocol(RequestHandler):
    """aiohttp's protocol, with a deadline to receive each request."""

    __slots__ = (
        "_alone",
        "_body",
        "_deadline",
        "_ends",
        "_half_closed",
        "_head",
        "_offer",
        "_server",
        "current_message",
    )

    def __init__(self, manager: StrictServer, *, loop: asyncio.AbstractEventLoop, **kwargs: Any) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self._server = manager
        self._deadline: asyncio.TimerHandle | None = None
        self._body: StreamReader | None = None
        self._half_closed = False  # the client has closed its side
        self._ends = False  # nothing more is read, and the connection closes after the owed responses
        self._head = bytearray()  # of a head that did not arrive in one piece, or is malformed
        self._offer: RawRequestMessage | None = None  # the last request, if it offers an upgrade
        self._alone: list[RawRequestMessage] = []  # of these, those with no bytes after them
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
        if len(self._server._connections) > self._server.limits.max_connections:
            self._server.observer.connection_refused()
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
        if self.ssl_context is not None:
            return False  # TLS connections cannot be half-closed here
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
        self._server.observer.worked()
        if self._messages:
            await asyncio.sleep(0)  # other connections get their turn between two pipelined requests
        if (self._half_closed or self._ends) and not self._messages:
            self.close()
        return answered

    def _end(self) -> None:
        """Read nothing more, and close after the responses that are owed. aiohttp's own `close` waits for one
        of them only."""
        self._ends = True
        if not self._messages:
            self.close()

    def data_received(self, data: bytes) -> None:
        begun = self._deadline is not None
        last_apart = begun or b"upgrade" in data.lower()  # see `may_read_on`
        # aiohttp's parser drops the requests of a piece that has something malformed behind them. So each
        # piece ends with a head: a request is handed over before anything that follows is looked at.
        at, within_bodies = 0, 0
        while True:
            # With the rest in one piece, the parser keeps back what does not fit into the queue.
            whole = self._buffer_paused or within_bodies >= _MAX_PIECES_WITHIN_BODIES
            end = -1 if whole else data.find(_END_OF_HEAD, at)
            piece = data[at:] if end < 0 else data[at : end + len(_END_OF_HEAD)]
            count = self._request_count
            if last_apart and len(piece) > 1:
                self._parse(piece[:-1])
                self._parse(piece[-1:])
            else:
                self._parse(piece)
            within_bodies += self._request_count == count
            at += len(piece)
            if at >= len(data) or self._is_malformed():
                return

    def _is_malformed(self) -> bool:
        """Whether the last request in the queue is one that the parser has refused."""
        return bool(self._messages) and hasattr(self._messages[-1][0], "exc")

    def _parse(self, data: bytes) -> None:
        if self._ends:
            return
        if data and self._deadline is None and not (self._close or self._force_close):
            timeout = self._server.limits.request_timeout
            self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
        count, nothing_waits = self._request_count, not self._buffer_paused
        super().data_received(data)
        self._server.observer.worked()
        if self._request_count == count:
            if self._body is None and not (self._close or self._force_close):
                self._head += data
                if len(self._head) > MAX_HEAD_BYTES:
                    self._head_too_large()
        elif self._body is not None and not self._body.is_eof() and hasattr(self._messages[-1][0], "exc"):
            # The rest of the body is malformed. aiohttp tells neither its reader nor its deadline, and would
            # answer a request that there is not.
            self._messages.pop()
            self._body.set_exception(web.RequestPayloadError(refusals.NOT_FRAMED[1]))
            self._received()
            self._end()
        else:
            message, self._body = self._messages[-1]
            # A malformed request is in the queue as an error, which offers nothing.
            self._offer = cast("RawRequestMessage", message) if getattr(message, "upgrade", False) else None
            if hasattr(message, "exc"):
                self._head += data  # nothing is parsed behind a malformed request
            else:
                self._head.clear()
        if self._body is not None and self._body.is_eof():
            if len(data) == 1 and nothing_waits and self._offer is not None:
                self._alone.append(self._offer)
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
        # Its position, from 1, among the requests that ended with their piece; 0 if it did not.
        alone = next((number for number, each in enumerate(self._alone, 1) if each is message), 0)
        del self._alone[:alone]  # those before it have been answered, or refused without a look at this
        return not message.upgrade or (alone > 0 and not known)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, and for an application that failed. aiohttp's own handler repeats the
        offending bytes, which may be part of a token, to the client and in the log."""
        if isinstance(exc, ConnectionError) and self._client_is_gone():
            raise exc  # there is no one to answer, and nothing has failed
        if status >= 500:
            what = "a timeout" if exc is None else describe(exc)
            _log.error("unexpected error while answering a request: %s", what)
        if request.writer.output_size > 0:
            raise ConnectionError("part of a response was sent already")
        if status < 500:
            status, sentence = refusal_of_malformed(exc, bytes(self._head))
            response = error_response(status, sentence)
        else:
            response = error_response(status, "unexpected error", error="server_error")
        response.force_close()
        self._server.observer.refused(status)
        return response

    def _client_is_gone(self) -> bool:
        return self.transport is None or self.transport.is_closing()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp has met an exception outside of a handler, such as a malformed end of a body that no
        handler reads. What it would log repeats the bytes."""
        exc = kw.get("exc_info")
        if not isinstance(exc, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            what = describe(exc) if isinstance(exc, BaseException) else "no exception"
            _log.error("unexpected error on a connection: %s", what)

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

    def _head_too_large(self) -> None:
        """Receive no more of a head that will be refused."""
        self._received()
        self._head.clear()
        if self._request_in_progress or self._messages:
            self._end()
        else:
            self._server.observer.refused(refusals.FIELDS_TOO_LARGE[0])
            self._refuse(*refusals.FIELDS_TOO_LARGE)

    def _not_received_in_time(self) -> None:
        self._deadline = None
        if self._force_close or self.transport is None:
            return
        if self._buffer_paused:
            # The server does not read now, because requests wait for their responses.
            timeout = self._server.limits.request_timeout
            self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
            return
        self._server.observer.not_received_in_time()
        body, self._body = self._body, None
        if body is not None and self._request_in_progress:
            self._lingering_time = 0.0  # otherwise aiohttp would wait for the rest of it, and log that
            body.set_exception(RequestTimedOut())  # its handler answers 408
        elif body is not None and not self._messages:
            self.force_close()  # answered before its body arrived: a second response would answer nothing
        elif self._request_in_progress or self._messages:
            self._end()
        else:
            self._server.observer.refused(refusals.NOT_IN_TIME[0])
            self._refuse(*refusals.NOT_IN_TIME)

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer without a request, and close."""
        transport = self.transport
        if transport is not None:  # pragma: no branch - for the type checker
            body = error_body("invalid_request", sentence)
            transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                "Content-Type: application/json\r\nCache-Control: no-store\r\n"
                f"Content-Length: {len(body)}\r\nDate: {email.utils.formatdate(usegmt=True)}\r\n"
                "Connection: close\r\n\r\n".encode("ascii")
                + body
            )
        self.force_close()


class StrictRunner(web.AppRunner):
    """Runs an application on a `StrictServer`.

    Args:
        server: makes it from aiohttp's own server, whose place it takes.
        options: as for `aiohttp.web.AppRunner`.
    """

    def __init__(
        self, app: web.Application, server: Callable[[Server], StrictServer], **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._new_server = server
        self.strict_server: StrictServer | None = None

    async def _make_server(self) -> Server:
        self.strict_server = self._new_server(await super()._make_server())
        return self.strict_server
