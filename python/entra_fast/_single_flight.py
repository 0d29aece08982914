"""Coalesced requests in flight on an event loop.

What belongs here: a request is made once, however many callers want its response, and a caller that is
cancelled does not cancel it for the others. What must never be here: what is requested, and whether a failed
request is retried.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from entra_fast import _background
from entra_fast.errors import EntraFastError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.waiting = 0


class SingleFlight(Generic[K, T]):
    """At most one request per key is in flight. Belongs to one event loop.

    Args:
        name: of what is requested, for the log.
        expected: failures that are not logged if no caller waits for the response.
    """

    def __init__(self, name: str, *, expected: tuple[type[BaseException], ...] = (EntraFastError,)) -> None:
        self._name = name
        self._expected = expected
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    def in_flight(self, key: K) -> asyncio.Task[T] | None:
        """The request in flight for this key. Await it shielded, or not at all."""
        flight = self._flights.get(key)
        return None if flight is None else flight.task

    def start(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The request in flight for this key, or a new one. Callers need not wait for it."""
        return self._flight(key, request).task

    async def join(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer to the request in flight for this key, or to a new one."""
        flight = self._flight(key, request)
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            del flight  # a failure refers to this frame, which must not refer back to it: such cycles stay

    async def aclose(self) -> None:
        """Cancel all requests. Callers that still wait are cancelled too."""
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        await _background.cancel(*tasks)

    def _flight(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = self._flights.get(key)
        if flight is None:
            task = asyncio.get_running_loop().create_task(self._run(key, request), name=self._name)
            flight = _Flight(task)
            flight.task.add_done_callback(lambda task: self._ended(task, flight.waiting))
            self._flights[key] = flight
        return flight

    async def _run(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await request()
        finally:
            self._flights.pop(key, None)  # before any caller continues: the next one makes a new request

    def _ended(self, task: asyncio.Task[T], waiting: int) -> None:
        # A caller that waits gets the failure.
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not waiting and not isinstance(failure, self._expected):
            _background.log_failure(task)
