"""Messages between the provider process and a worker, over a Unix socket that the two share.

What belongs here: framing, limits, calls that get an answer, and transferring errors. What must never be
here: the meaning of a message.

A message is its length (four bytes) and a JSON object. Messages arrive in the order in which they were sent,
and each is handled before the next is read: the answer to a call proves that everything sent before the call
has been handled. The guarantees about replaced tokens depend on that (docs/guides/workers.md).
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import orjson

from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.sidecar.logs import logger

Fields = dict[str, Any]
Handler = Callable[[str, Fields], Fields | Awaitable[Fields] | None]
"""Handles one message: its name and its fields. For a call it returns the answer's fields, now or later;
raising EntraFastError is an answer, too. Any other exception that it raises at once ends the channel."""

MAX_MESSAGE_BYTES = 4 << 20
"""A key set or a token is a megabyte at most (http.py), before JSON escapes it."""
MAX_UNSENT_BYTES = 32 << 20
"""If more bytes than this are waiting, the other side has stopped reading, and the channel ends."""
MAX_CALLS = 8192
"""Maximum number of calls that wait for their answer. Further calls are refused."""

_LENGTH = struct.Struct("!I")
_ERRORS: dict[str, type[EntraFastError]] = {
    error.__name__: error for error in (EntraFastError, ProviderError)
}


class ChannelLost(Exception):
    """The other side is gone, or is treated as if it were."""


class Channel(asyncio.Protocol):
    """One end of the socket.

    Args:
        handle: called with each message of the other side.
        lost: called once, when the other side is gone.
        peer: the other side, as log lines name it.
    """

    def __init__(self, handle: Handler, lost: Callable[[], None], peer: str = "the provider process") -> None:
        self._handle = handle
        self._lost = lost
        self._peer = peer
        self._transport: asyncio.WriteTransport | None = None
        self._received = bytearray()
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Fields]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self, end: socket.socket) -> None:
        """Start, over one end of a socket pair, which the channel owns from now on. Messages may arrive
        before this returns."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    # --- sending ---

    def send(self, name: str, **fields: object) -> None:
        """Send a message that needs no answer. Does nothing when the other side is gone."""
        self.send_frame(frame(name, fields))

    def send_frame(self, data: bytes) -> None:
        """Send the result of `frame`, for a message that goes to several processes."""
        if self._transport is None or not self.is_open:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            fields = {"process": self._peer, "unsent_bytes": self._transport.get_write_buffer_size()}
            logger.error("process stopped reading its control socket", extra={"fields": fields})
            self.abort()

    def call(self, name: str, **fields: object) -> asyncio.Future[Fields]:
        """Send a message; the future is its answer. Cancelling it forgets the answer.

        Raises, through the future:
            EntraFastError: of the other side.
            ChannelLost: there will be no answer, or too many calls wait.
        """
        answer: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        if not self.is_open or len(self._calls) >= MAX_CALLS:
            answer.set_exception(ChannelLost())
            return answer
        number = next(self._numbers)
        self._calls[number] = answer
        answer.add_done_callback(lambda _: self._calls.pop(number, None))
        self.send_frame(frame(name, {**fields, "call": number}))
        return answer

    def abort(self) -> None:
        """End the channel now."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's derives from nothing

    def data_received(self, data: bytes) -> None:
        self._received += data
        start = 0
        try:
            while len(self._received) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._received, start)
                if length > MAX_MESSAGE_BYTES:
                    raise ValueError("message too long")
                end = start + _LENGTH.size + length
                if len(self._received) < end:
                    break
                message = orjson.loads(memoryview(self._received)[start + _LENGTH.size : end])
                start = end
                self._dispatch(message)
        except Exception:  # nothing that follows can be trusted
            logger.exception("message not understood", extra={"fields": {"process": self._peer}})
            self.abort()
        del self._received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for answer in list(self._calls.values()):
            if not answer.done():
                answer.set_exception(ChannelLost())
                answer.exception()  # the caller may be gone too
        for task in self._answering:
            task.cancel()
        self._lost()

    # --- receiving ---

    def _dispatch(self, message: Fields) -> None:
        name = message.pop("name")
        if name == "answer":
            self._answered(message)
            return
        call = message.pop("call", None)
        try:
            result = self._handle(name, message)
        except EntraFastError as exc:
            self._answer(call, error=_as_message(exc))
            return
        if isinstance(result, dict) or result is None:
            self._answer(call, **(result or {}))
        else:
            if len(self._answering) >= MAX_CALLS:
                _discard(result)
                self._answer(call, error=["ProviderError", "too_many_fetches", "too many requests wait", 503])
                return
            task = asyncio.get_running_loop().create_task(self._answer_later(call, result))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer_later(self, call: int | None, result: Awaitable[Fields]) -> None:
        try:
            try:
                fields = await result
            except EntraFastError as exc:
                fields = {"error": _as_message(exc)}
            self._answer(call, **fields)
        except Exception:
            logger.exception("unexpected error while answering a worker")
            self._answer(call, error=["ProviderError", "server_error", "unexpected error"])

    def _answer(self, call: int | None, **fields: object) -> None:
        if call is not None:
            self.send("answer", to=call, **fields)

    def _answered(self, message: Fields) -> None:
        answer = self._calls.get(message.pop("to"))
        if answer is None or answer.done():
            return
        error = message.get("error")
        if error is None:
            answer.set_result(message)
        else:
            answer.set_exception(_ERRORS[error[0]](*error[1:]))


def _discard(result: Awaitable[Fields]) -> None:
    if isinstance(result, Coroutine):
        result.close()  # otherwise Python would warn that it was never awaited


def frame(name: str, fields: Fields) -> bytes:
    """A message as it is sent."""
    body = orjson.dumps({"name": name, **fields})
    return _LENGTH.pack(len(body)) + body


def _as_message(error: EntraFastError) -> list[object]:
    if isinstance(error, ProviderError):
        return [ProviderError.__name__, *error.args]
    return [EntraFastError.__name__, error.code, error.message]
