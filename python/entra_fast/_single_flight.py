"""Tasks of an event loop that no caller owns: coalesced in-flight requests, and work in the background.

What belongs here: that a request is made once however many callers want its answer, that a caller that goes
away does not cancel it for the others, and that no failure of a task is lost. What must never be here: what
is requested, and whether a failed request is repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from entra_fast.errors import EntraFastError

logger = logging.getLogger("entra_fast._single_flight")

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
        expected: failures that are not logged where no caller waits for the answer.
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
        """The request in flight for this key, or a new one, which no caller has to wait for."""
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
        await cancel(*tasks)

    def _flight(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> _Flight[T]:
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.get_running_loop().create_task(self._run(key, request)))
            flight.task.add_done_callback(lambda task: self._ended(task, flight.waiting))
            self._flights[key] = flight
        return flight

    async def _run(self, key: K, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await request()
        finally:
            self._flights.pop(key, None)  # before any caller goes on: the next one makes a new request

    def _ended(self, task: asyncio.Task[T], waiting: int) -> None:
        if not waiting:
            log_failure(task, self._name, self._expected)


class BackgroundTasks:
    """Tasks that nothing waits for. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """`name`: of the work, for the log."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda task: log_failure(task, name))

    async def aclose(self) -> None:
        """Cancel all of them."""
        await cancel(*self._tasks)


def log_failure(task: asyncio.Task[Any], name: str, expected: tuple[type[BaseException], ...] = ()) -> None:
    """Log the failure of a task that has ended, unless it is an expected one."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None and not isinstance(failure, expected):
        logger.error("unexpected error: %s", name, exc_info=failure)


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
