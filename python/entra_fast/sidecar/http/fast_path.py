"""The fast path below aiohttp: plain requests are answered from the caches by one native call.

What belongs here: which path handles a connection's next bytes. While aiohttp's handler is idle and every
request so far was exactly framed, arriving bytes go to native code first, without running any Python. A
request that native code does not answer goes to aiohttp unconsumed, one framed request at a time, so that
native code knows where the next one begins. Once something arrives whose end only a full parser can find,
aiohttp handles the rest of the connection. What must never be here: any decision about the bytes of a request
(rust/core/src/sidecar/http1.rs), and the content of responses.

This uses private parts of aiohttp, which _http/internals.py lists. If one is missing, every request takes the
slow path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp.web import RequestHandler, Server

from entra_fast import _native
from entra_fast._http.limits import Limits
from entra_fast._http.protocol import Observer, StrictProtocol, StrictServer
from entra_fast._native import Served, Stop
from entra_fast.sidecar.http.turns import Turns
from entra_fast.sidecar.service import FastPath

MAX_HELD_BYTES = 262_144
"""Maximum number of bytes that wait on one connection while aiohttp answers or the client does not read.
Beyond that, reading stops."""
MAX_WAITING_BYTES = 65_536
"""The same while it waits for the key of its first token. Thousands of connections may wait at once."""


class FastPathServer(StrictServer):
    """Makes a `FastPathProtocol` for each connection."""

    def __init__(self, fast_path: FastPath, plain: Server, limits: Limits, observer: Observer) -> None:
        super().__init__(plain, limits, observer)
        self.fast_path = fast_path
        self.turns = Turns(fast_path.native)

    def __call__(self) -> RequestHandler:
        return FastPathProtocol(self, self.fast_path, self.turns, loop=self._loop, **self._kwargs)

    def leave_fast_path(self) -> None:
        """From now on every request takes the slow path, which tells clients that this server is stopping."""
        self.fast_path.open = False
        for connection in self.connections:
            if isinstance(connection, FastPathProtocol):  # pragma: no branch - for the type checker
                connection.leave_fast_path()


class FastPathProtocol(StrictProtocol):
    """aiohttp's protocol with the fast path in front.

    The transport gives its bytes to `_receiver`. Its flag `at_rest` is the whole condition for the fast path,
    updated wherever a part of it changes: aiohttp's handler is idle, nothing waits, the client reads its
    responses, and the connection stays open. Everything but one plain request on a connection at rest comes
    to `_receive`.
    """

    __slots__ = (
        "_fast_path",
        "_held",
        "_idle_waiter",
        "_needed",
        "_other_requests",
        "_passing",
        "_plain",
        "_queued_since",
        "_receiver",
        "_stopped_reading",
        "_turns",
        "_waiting_since",
    )

    def __init__(
        self,
        manager: StrictServer,
        fast_path: FastPath,
        turns: Turns,
        *,
        loop: asyncio.AbstractEventLoop,
        **kwargs: Any,
    ) -> None:
        # Before aiohttp's own constructor, which assigns `_waiter` and `_request_count`: properties here.
        self._other_requests = 0
        self._receiver: _native.FastPathReceiver | None = _native.FastPathReceiver(
            fast_path.native, self._receive
        )
        self._idle_waiter: asyncio.Future[None] | None = None
        self._fast_path = fast_path
        self._turns = turns
        self._queued_since: float | None = None  # the bytes held wait for their turn
        self._plain = fast_path.open  # everything so far was exactly framed
        self._passing = 0  # bytes of a framed request that have not arrived yet and go to aiohttp
        self._held = bytearray()  # bytes that have been given neither to native code nor to aiohttp
        self._needed = 0  # with fewer bytes held than this, a native call is pointless
        self._stopped_reading = False
        self._waiting_since: float | None = None  # the bytes held wait for the key of their first token
        super().__init__(manager, loop=loop, **kwargs)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._receiver is not None:  # pragma: no branch - it is dropped when the connection is lost
            self._receiver.connect(cast("asyncio.Transport", transport).write)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._receiver = None  # the two refer to each other

    # --- whose turn it is ---

    @property
    def _waiter(self) -> asyncio.Future[None] | None:
        """The future on which aiohttp's idle handler waits. The handler sets it when it is done with a
        request."""
        return self._idle_waiter

    @_waiter.setter
    def _waiter(self, waiter: asyncio.Future[None] | None) -> None:
        self._idle_waiter = waiter
        if waiter is not None and self._held:
            self._loop.call_soon(self._try_held)
        self._update_at_rest()

    def _update_at_rest(self) -> None:
        if self._receiver is None:
            return
        waiter = self._idle_waiter
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
        self._update_at_rest()

    def force_close(self) -> None:
        super().force_close()
        self._held.clear()
        self._update_at_rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update_at_rest()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held:
            self._loop.call_soon(self._try_held)
        self._update_at_rest()

    @property
    def busy(self) -> bool:
        """Whether a request is being received or answered, or waits for that."""
        return super().busy or bool(self._held)

    def leave_fast_path(self) -> None:
        """From now on everything goes to aiohttp, including the bytes held."""
        if self._plain:
            self._plain = False
            if self._held:
                self._pass_on(self._release_held())
            self._update_at_rest()

    def eof_received(self) -> bool:  # type: ignore[override]
        # Whole requests among the bytes held are answered, and only aiohttp's handler knows when the last
        # response is sent.
        self.leave_fast_path()
        self._waiting_since = None
        return super().eof_received()

    # --- bytes ---

    @property
    def data_received(self) -> Callable[[bytes], None]:
        """Where the transport gives its bytes. aiohttp calls it too, without bytes, to make its parser
        continue with what it kept back."""
        return self._receive if self._receiver is None else self._receiver.data_received

    def _receive(self, data: bytes, served: Served | None = None) -> None:
        """Bytes that are not one plain request on a connection at rest, with the result of the native call if
        there was one."""
        if served is not None:
            self._act_on(data, served)
        elif not self._plain or not data:
            super().data_received(data)
            self._update_at_rest()
        else:
            self._wait_in_turn(data)

    @property
    def _request_count(self) -> int:
        """Number of requests, including those that aiohttp has not seen."""
        return self._other_requests + (0 if self._receiver is None else self._receiver.answered)

    @_request_count.setter
    def _request_count(self, count: int) -> None:
        self._other_requests += count - self._request_count

    def _process_keepalive(self) -> None:
        if self._receiver is not None:  # pragma: no branch - aiohttp cancels this when the connection is lost
            answered_until = self._receiver.answered_at + self._keepalive_timeout
            self._next_keepalive_close_time = max(self._next_keepalive_close_time, answered_until)
        super()._process_keepalive()

    def _wait_in_turn(self, data: bytes) -> None:
        """The fast path may not take requests now, or a request has not arrived completely."""
        if self._passing:
            part, data = data[: self._passing], data[self._passing :]
            self._passing -= len(part)
            self._pass_on(part, messages=0)
        if data and not (self._close or self._force_close):
            self._hold(data)
            if len(self._held) >= self._needed:
                self._try_held()

    def _resume_transport_reading(self) -> None:
        # aiohttp does this whenever a body is complete. It does not know of the bytes held here.
        if not self._stopped_reading:
            super()._resume_transport_reading()

    def _try_held(self) -> None:
        """Try the bytes held on the fast path, if it may take requests now."""
        if self._waiting_since is None and self._queued_since is None and self._may_try_held():
            data = self._release_held()
            self._act_on(data, self._fast_path.native.serve(data))

    def _wait_for_turn(self) -> None:
        self._queued_since = self._fast_path.monotonic()
        self._stop_reading()
        self._turns.wait(self._take_turn)

    def _take_turn(self) -> None:
        since, self._queued_since = self._queued_since, None
        if since is not None and self.transport is not None and self._may_try_held():
            data = self._release_held()
            self._act_on(data, self._fast_path.native.serve(data, self._fast_path.monotonic() - since))

    def _not_received_in_time(self) -> None:
        if self._queued_since is None:
            super()._not_received_in_time()
        else:  # whether the request has arrived is not known before it is looked at
            timeout = self._server.limits.request_timeout
            self._deadline = self._loop.call_later(timeout, self._not_received_in_time)

    def _may_try_held(self) -> bool:
        waiter = self._idle_waiter
        parked = waiter is not None and not waiter.done()
        return bool(self._held) and parked and self._plain and not self._passing and not self._paused

    def _keys_were_fetched(self) -> None:
        """Called when the key that the held bytes wait for may have arrived."""
        since, self._waiting_since = self._waiting_since, None
        if since is not None and self.transport is not None and self._may_try_held():
            data = self._release_held()
            served = self._fast_path.native.serve(data, self._fast_path.monotonic() - since)
            self._act_on(data, served, waited=True)

    def _act_on(self, data: bytes, served: Served, *, waited: bool = False) -> None:
        """Act on the result of a native call for `data`. Bytes that have `waited` for keys do not wait again
        here: the slow path limits that wait."""
        self._server.observer.worked()
        answered, stop, length = served.answered, served.stop, served.length
        if answered and self.transport is not None:
            self.transport.write(served.answers)
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            self._request_count += answered
        for renewal in served.renewals:
            self._fast_path.renew(*renewal)
        if served.turn_due:
            self._turns.due()
        rest = data[served.consumed :]
        if answered or not rest:
            self._received()  # ends the deadline of what was answered; what follows gets its own
        if stop == Stop.PARTIAL:
            self._needed = length
            self._hold(rest)
            if self._deadline is None:
                timeout = self._server.limits.request_timeout
                self._deadline = self._loop.call_later(timeout, self._not_received_in_time)
        elif (
            stop == Stop.KEY_NEEDED
            and not (waited and not answered)
            and self._fast_path.call_when_fetched(served.provider, self._keys_were_fetched)
        ):
            self._received()
            self._waiting_since = self._fast_path.monotonic()
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
            self._wait_for_turn()
        self._update_at_rest()

    def _pass_on(self, data: bytes, *, messages: int | None = None) -> None:
        """Give bytes to aiohttp. `messages`: the number of requests that must begin in them, if known."""
        count = self._request_count
        super().data_received(data)
        if messages is not None and self._request_count - count != messages:
            # Native code and aiohttp disagree about where a request ends. From here on only aiohttp decides.
            self._passing = 0
            self.leave_fast_path()
        self._update_at_rest()

    def _hold(self, data: bytes) -> None:
        self._held += data
        self._update_at_rest()
        limit = MAX_HELD_BYTES if self._waiting_since is None else MAX_WAITING_BYTES
        if len(self._held) > limit:
            self._stop_reading()

    def _stop_reading(self) -> None:
        """Read no more until the bytes held are released."""
        if not self._stopped_reading:
            self._stopped_reading = True
            self._pause_transport_reading()

    def _release_held(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        self._needed = 0
        if self._stopped_reading:
            self._stopped_reading = False
            if not (self._reading_paused or self._buffer_paused):
                self._resume_transport_reading()
        return data
