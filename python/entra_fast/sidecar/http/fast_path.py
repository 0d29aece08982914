"""The fast lane below aiohttp: plain requests are answered from the caches by one native call.

What belongs here: whose turn it is on a connection. While aiohttp's handler rests and everything that came
so far was exactly framed, arriving bytes go to the native lane first, without a step of Python; what it
declines goes to aiohttp unconsumed, one framed request at a time, so that the lane knows where the next one
begins. Once something arrives whose end only a full parser can find, the connection is aiohttp's for good.
What must never be here: an opinion about the bytes of a request (rust/core/src/http1.rs), and what is
answered.

This uses attributes of aiohttp's RequestHandler that are not public. `missing_parts` checks at start that
they are there; without them the sidecar serves without the lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from entra_fast import _native
from entra_fast._metrics import Metrics
from entra_fast._native import Served, Stop
from entra_fast.sidecar.http.protocol import Limits, SidecarProtocol, SidecarServer

MAX_HELD_BYTES = 262_144
"""Bytes that wait on one connection, while aiohttp answers or the client does not read; with more, reading
stops."""

_FIELDS = (
    "_buffer_paused",
    "_close",
    "_force_close",
    "_keepalive_timeout",
    "_messages",
    "_next_keepalive_close_time",
    "_paused",
    "_reading_paused",
    "_request_count",
    "_waiter",
)
_METHODS = (
    "_pause_transport_reading",
    "_process_keepalive",
    "_resume_transport_reading",
    "close",
    "data_received",
    "force_close",
    "pause_writing",
    "resume_writing",
    "start",
)


def missing_parts() -> list[str]:
    """The parts of aiohttp that the lane needs and this aiohttp does not have."""
    slots = {name for kind in RequestHandler.__mro__ for name in getattr(kind, "__slots__", ())}
    missing = [name for name in _FIELDS if name not in slots]
    return missing + [name for name in _METHODS if not hasattr(RequestHandler, name)]


class Lane:
    """What all connections of one sidecar share.

    Args:
        native: answers requests.
        monotonic: a clock, in seconds.
        renew: asked to renew a token in the background: (target, subject token or None).
    """

    __slots__ = ("call_when_fetched", "monotonic", "native", "open", "renew")

    def __init__(
        self,
        native: _native.FastPath,
        *,
        monotonic: Callable[[], float],
        renew: Callable[[str, str | None], None],
    ) -> None:
        self.native = native
        self.monotonic = monotonic
        self.renew = renew
        self.open = True
        self.call_when_fetched: Callable[[Callable[[], None]], bool] = lambda _: False
        """Has somebody called after the fetch of keys that is under way; false where there is none."""


class FastLaneServer(SidecarServer):
    """Makes a `FastLaneProtocol` for each connection."""

    def __init__(self, lane: Lane, plain: Server, limits: Limits, metrics: Metrics) -> None:
        super().__init__(plain, limits, metrics)
        self.lane = lane

    def __call__(self) -> RequestHandler:
        return FastLaneProtocol(self, self.lane, loop=self._loop, **self._kwargs)

    def close_lane(self) -> None:
        """From now on every request takes the full way, which tells clients that this server is leaving."""
        self.lane.open = False
        for connection in self.connections:
            if isinstance(connection, FastLaneProtocol):
                connection.leave_lane()


class FastLaneProtocol(SidecarProtocol):
    """aiohttp's protocol with the fast lane in front.

    The transport gives its bytes to `_receiver`. Its `at_rest` is the whole condition for the lane in one
    flag, kept up to date where one of its parts changes: aiohttp's handler is parked, nothing waits, the
    client reads its answers, and the connection stays open. What is not one plain request on a connection at
    rest comes to `_take`.
    """

    __slots__ = (
        "_held",
        "_lane",
        "_lane_waiter",
        "_needed",
        "_other_requests",
        "_passing",
        "_plain",
        "_receiver",
        "_stopped_reading",
        "_waiting_since",
    )

    def __init__(
        self, manager: SidecarServer, lane: Lane, *, loop: asyncio.AbstractEventLoop, **kwargs: Any
    ) -> None:
        self._other_requests = 0
        self._receiver: _native.FastPathReceiver | None = _native.FastPathReceiver(lane.native, self._take)
        self._lane_waiter: asyncio.Future[None] | None = None
        self._lane = lane
        self._plain = lane.open  # everything so far was exactly framed
        self._passing = 0  # bytes of a framed request that are still to come and go to aiohttp
        self._held = bytearray()  # bytes that nobody has seen yet
        self._needed = 0  # with fewer bytes held than this, the lane need not look
        self._stopped_reading = False
        self._waiting_since: float | None = None  # what is held waits for the key of its first token
        super().__init__(manager, loop=loop, **kwargs)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._receiver is not None:
            self._receiver.connect(cast("asyncio.Transport", transport).write)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._receiver = None  # each holds the other

    # --- whose turn it is ---

    @property
    def _waiter(self) -> asyncio.Future[None] | None:
        """aiohttp's handler rests on this future. Setting it is how the handler says that it is done."""
        return self._lane_waiter

    @_waiter.setter
    def _waiter(self, waiter: asyncio.Future[None] | None) -> None:
        self._lane_waiter = waiter
        if waiter is not None and self._held:
            self._loop.call_soon(self._go_on)
        self._settle()

    def _settle(self) -> None:
        if self._receiver is None:
            return
        waiter = self._lane_waiter
        self._receiver.at_rest = (
            waiter is not None
            and not waiter.done()
            and self._plain
            and not self._passing
            and not self._held
            and not self._paused
            and not self._close
            and not self._force_close
        )

    def close(self) -> None:
        super().close()
        self._settle()

    def force_close(self) -> None:
        super().force_close()
        self._held.clear()
        self._settle()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held:
            self._loop.call_soon(self._go_on)
        self._settle()

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered, or waits for that."""
        return super().busy or bool(self._held)

    def leave_lane(self) -> None:
        """From now on everything is aiohttp's, also what waits."""
        if self._plain:
            self._plain = False
            if self._held:
                self._pass_on(self._take_held())
            self._settle()

    def eof_received(self) -> bool:  # type: ignore[override]
        # What is held whole shall be answered, and only aiohttp's handler knows when the last answer is out.
        self.leave_lane()
        self._waiting_since = None
        return super().eof_received()

    # --- bytes ---

    @property
    def data_received(self) -> Callable[[bytes], None]:
        """Where the transport gives its bytes to, and aiohttp itself, when its parser shall go on with what
        it kept back: then there are none."""
        return self._take if self._receiver is None else self._receiver.data_received

    def _take(self, data: bytes, served: Served | None = None) -> None:
        """Bytes that are not one plain request on a connection at rest; and what the lane said, if it was its
        turn."""
        if served is not None:
            self._continue(data, served)
        elif not self._plain or not data:
            super().data_received(data)
            self._settle()
        else:
            self._wait_in_turn(data)

    @property
    def _request_count(self) -> int:
        """How many requests there were, those that aiohttp has not seen included."""
        return self._other_requests + (0 if self._receiver is None else self._receiver.answered)

    @_request_count.setter
    def _request_count(self, count: int) -> None:
        self._other_requests += count - self._request_count

    def _process_keepalive(self) -> None:
        if self._receiver is not None:
            answered_until = self._receiver.answered_at + self._keepalive_timeout
            self._next_keepalive_close_time = max(self._next_keepalive_close_time, answered_until)
        super()._process_keepalive()

    def _wait_in_turn(self, data: bytes) -> None:
        """It is not the lane's turn, or the lane waits for the rest of a request."""
        if self._passing:
            part, data = data[: self._passing], data[self._passing :]
            self._passing -= len(part)
            self._pass_on(part, messages=0)
        if data and not (self._close or self._force_close):
            self._hold(data)
            if len(self._held) >= self._needed:
                self._go_on()

    def _resume_transport_reading(self) -> None:
        # aiohttp does this whenever a body is complete; it does not know that something waits here.
        if not self._stopped_reading:
            super()._resume_transport_reading()

    def _go_on(self) -> None:
        """Let the lane look at what is held, if it is its turn."""
        if self._waiting_since is None and self._may_go_on():
            data = self._take_held()
            self._continue(data, self._lane.native.serve(data))

    def _may_go_on(self) -> bool:
        waiter = self._lane_waiter
        parked = waiter is not None and not waiter.done()
        return bool(self._held) and parked and self._plain and not self._passing and not self._paused

    def _keys_were_fetched(self) -> None:
        """The key that was waited for may have come."""
        since, self._waiting_since = self._waiting_since, None
        if since is not None and self.transport is not None and self._may_go_on():
            data = self._take_held()
            served = self._lane.native.serve(data, self._lane.monotonic() - since)
            self._continue(data, served, waited=True)

    def _continue(self, data: bytes, served: Served, *, waited: bool = False) -> None:
        """Do what the lane says about `data`. What has `waited` for keys does not wait here again: the full
        way knows when to give up."""
        answered, stop, length = served.answered, served.stop, served.length
        if answered and self.transport is not None:
            self.transport.write(served.answers)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            self._request_count += answered
        for target, subject_token in served.renewals:
            self._lane.renew(target, subject_token)
        rest = data[served.consumed :]
        if answered or not rest:
            self._received()  # the deadline of what was answered; what follows gets its own
        if stop == Stop.PARTIAL:
            self._needed = length
            self._hold(rest)
            if self._deadline is None:
                timeout = self._sidecar.limits.request_timeout
                self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
        elif (
            stop == Stop.KEY_NEEDED
            and not (waited and not answered)
            and self._lane.call_when_fetched(self._keys_were_fetched)
        ):
            self._received()
            self._waiting_since = self._lane.monotonic()
            self._hold(rest)
        elif stop in (Stop.FRAMED, Stop.KEY_NEEDED):
            self._passing = max(0, length - len(rest))
            self._hold(rest[length:])
            self._pass_on(rest[:length], messages=1)
        elif stop == Stop.UNKNOWN:
            self._plain = False
            self._pass_on(rest)
        elif stop == Stop.FULL:
            self._hold(rest)
            self._loop.call_soon(self._go_on)
        self._settle()

    def _pass_on(self, data: bytes, *, messages: int | None = None) -> None:
        """Give bytes to aiohttp, which must find so many messages beginning in them where that is known."""
        count = self._request_count
        super().data_received(data)
        if messages is not None and self._request_count - count != messages:
            # Two opinions about where a request ends: from here on there shall be one only, aiohttp's.
            self._passing = 0
            self.leave_lane()
        self._settle()

    def _hold(self, data: bytes) -> None:
        self._held += data
        self._settle()
        if len(self._held) > MAX_HELD_BYTES and not self._stopped_reading:
            self._stopped_reading = True
            self._pause_transport_reading()

    def _take_held(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        self._needed = 0
        if self._stopped_reading:
            self._stopped_reading = False
            if not (self._reading_paused or self._buffer_paused):
                self._resume_transport_reading()
        return data
