"""The threads that all blocking validators of a process share, however many validators there are.

What belongs here: one thread that runs recurring work when it is due, and a few that run requests. What must
never be here: what the work is.

All work is held weakly: it ends with the object that needs it. A thread runs only while there is work, and is
a daemon.
"""

from __future__ import annotations

import atexit
import collections
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

logger = logging.getLogger("entra_fast.threads")

MAX_REQUESTS = 3
"""Maximum number of requests to one server at once; further ones wait. So a server that hangs delays no
other."""
MAX_THREADS = 16
"""Maximum number of requests at once."""
LINGER = 0.1
"""Seconds for which a thread waits for another request before it ends: under load, threads that are still
ending would otherwise add up."""
MAX_PAUSE = 30.0
"""Maximum number of seconds after which work is asked again when it is due: a clock may have jumped ahead of
the one that threads wait by, which stands still while the machine is suspended."""

T = TypeVar("T")


class Recurring(Protocol):
    """Work that is repeated. Both methods are called by one thread at a time, and return at once."""

    def due_in(self) -> float | None:
        """Seconds until it is due; None if it will never be again."""

    def run(self) -> None:
        """Do it. It is due later then."""


class Schedule:
    """Runs recurring work when it is due, in one thread."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Recurring] = weakref.WeakSet()
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Weak references are put here from their callbacks, so at any point of any thread, one that holds a
        # lock included: `SimpleQueue.put` allows that.
        self._changed: queue.SimpleQueue[weakref.ref[Recurring] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def look_at(self, work: Recurring) -> None:
        """Ask the work when it is due: it is new, or its answer has changed."""
        self._changed.put(_reference(work, self._changed.put))
        with self._lock:
            self._known.add(work)
            if self._thread is None and not self._stopped:
                thread = threading.Thread(target=self._run, name="entra_fast-schedule", daemon=True)
                thread.start()
                self._thread = thread

    def forget(self, work: Recurring) -> None:
        """Let go of work that will never be due again."""
        with self._lock:
            if self._thread is not None:
                self._changed.put(_reference(work))

    def stop(self) -> None:
        """Run nothing more, and wait until the thread has ended. For the end of the interpreter: the process
        would be aborted if a daemon thread were still there when a sub-interpreter ends."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is not None:
            self._changed.put(None)
            thread.join(5.0)

    def restart_in_child(self) -> None:
        """The thread of a parent process does not exist in its child."""
        works, running = list(self._known), self._thread is not None
        self._reset()
        if running:
            for work in works:
                self.look_at(work)

    def _run(self) -> None:
        due: dict[weakref.ref[Recurring], float] = {}
        while due or not self._ends():
            try:
                timeout = max(0.0, min(due.values()) - time.monotonic()) if due else None
                changed = self._changed.get(timeout=timeout)
                if changed is None:
                    return
                references = [changed]
            except queue.Empty:
                now = time.monotonic()
                references = [reference for reference, at in due.items() if at <= now]
            for reference in references:
                pause = _attend(reference)
                if pause is None:
                    due.pop(reference, None)
                else:
                    due[reference] = time.monotonic() + min(pause, MAX_PAUSE)

    def _ends(self) -> bool:
        with self._lock:
            if not self._changed.empty():
                return False
            self._thread = None
            return True


def _reference(
    work: Recurring, dropped: Callable[[weakref.ref[Recurring]], None] | None = None
) -> weakref.ref[Recurring]:
    reference = weakref.ref(work, dropped)
    hash(reference)  # which it keeps: it must be a key even when its object is gone
    return reference


def _attend(reference: weakref.ref[Recurring]) -> float | None:
    """Run the work if it is due. Returns the seconds until it is due again; None if it is gone or done."""
    work = reference()
    if work is None:
        return None
    try:
        pause = work.due_in()
        if pause is not None and pause <= 0:
            work.run()
            pause = work.due_in()
    except Exception:
        logger.exception("background work failed")
        return MAX_PAUSE
    return pause


class Requests:
    """Runs requests, a few at once, in threads that exist only while there are any."""

    def __init__(self) -> None:
        self.reset_in_child()

    def reset_in_child(self) -> None:
        """The threads of a parent process do not exist in its child."""
        self._changed = threading.Condition()
        self._waiting: dict[str, collections.deque[Callable[[], None]]] = {}  # by server; none is empty
        self._running: collections.Counter[str] = collections.Counter()  # by server
        self._threads = 0
        self._idle = 0  # of the threads

    def start(self, server: str, owner: T, request: Callable[[T], None]) -> None:
        """Call `request(owner)` in a thread, unless nothing else needs the owner when its turn comes. It must
        not raise.

        Args:
            server: which is asked.
            owner: for whom.
            request: the request.
        """
        reference = weakref.ref(owner)

        def run() -> None:
            if (owner := reference()) is not None:
                request(owner)

        with self._changed:
            waiting = self._waiting.setdefault(server, collections.deque())
            waiting.append(run)
            if self._running[server] + len(waiting) > MAX_REQUESTS:
                return  # the thread of one of them will run it
            if self._ready() <= self._idle:
                self._changed.notify()
                return
            if self._threads >= MAX_THREADS:
                return
            self._threads += 1
        try:
            threading.Thread(target=self._run, name="entra_fast-request", daemon=True).start()
        except RuntimeError:  # pragma: no cover - the process is ending, or may start no more threads
            with self._changed:
                self._threads -= 1
                waiting.remove(run)
                if not waiting:
                    self._waiting.pop(server, None)
            raise

    def _ready(self) -> int:
        """How many requests can be run now."""
        return sum(
            min(len(waiting), MAX_REQUESTS - self._running[server])
            for server, waiting in self._waiting.items()
        )

    def _run(self) -> None:
        while (found := self._next()) is not None:
            server, request = found
            request()
            with self._changed:
                self._running[server] -= 1
                if not self._running[server]:
                    del self._running[server]

    def _next(self) -> tuple[str, Callable[[], None]] | None:
        with self._changed:
            if not self._ready():
                self._idle += 1
                self._changed.wait(LINGER)
                self._idle -= 1
            for server, waiting in self._waiting.items():
                if self._running[server] < MAX_REQUESTS:
                    request = waiting.popleft()
                    del self._waiting[server]
                    if waiting:
                        self._waiting[server] = waiting  # behind those of other servers
                    self._running[server] += 1
                    return server, request
            self._threads -= 1
            return None


schedule = Schedule()
requests = Requests()
atexit.register(schedule.stop)
