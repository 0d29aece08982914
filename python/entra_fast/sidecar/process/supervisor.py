"""Several processes as one sidecar: this one starts them, watches them, and ends them.

What belongs here: processes, listening sockets, signals, restarts, draining. What must never be here: what
the processes say to each other (hub.py).

All listening sockets belong to this process, one for each place; the worker in that place only borrows its
socket. So when a worker crashes, connections that it had not accepted wait for its replacement.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Mapping

from entra_fast import _native
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.http.listener import listen, listen_together
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.provider_process import HubService, Member
from entra_fast.sidecar.process.single import listening_on, spare_the_collector, start_probes
from entra_fast.sidecar.process.worker import for_worker, shared

STEADY = 10.0
"""Seconds after which a worker has not failed at its start; its replacement comes at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before a worker is replaced that did not last: doubled each time."""
LONG_PAUSE = 1.0
"""Seconds of a pause for which nobody should have to wait: new connections go to the others meanwhile."""
MAX_FAILED_STARTS = 5
"""So many in a row in one place, before any worker has ever served, and the sidecar gives up."""
STARTS_WITHIN = 30.0
"""Seconds for a worker to begin to serve."""
GONE_WITHIN = 2.0
"""Seconds for a killed process to be gone."""
DRAIN_SLACK = 8.0
"""Seconds for a worker to close its listener and connections, beside the times that are set for draining."""

_ENVIRONMENT = ("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ")
# COVERAGE_PROCESS: `make coverage` measures workers, too.
_ENVIRONMENT_PREFIXES = ("COVERAGE_PROCESS", "LC_", "MALLOC_", "OTEL_", "PYTHON")


class Process:
    """A worker's process. Whether it has ended is known from `Supervisor._reap` alone."""

    def __init__(self, number: int, hub: socket.socket, listener: socket.socket) -> None:
        sockets = (hub.fileno(), listener.fileno())
        arguments = (number, os.getpid(), *sockets)
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            # -P: what lies in the working directory is none of this program's modules.
            [sys.executable, "-P", "-m", "entra_fast.sidecar.process.worker", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            pass_fds=sockets,
            env=_environment(os.environ),
        )
        self.pid = self._process.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def has_ended(self, status: int) -> None:
        """It has been reaped."""
        self._process.returncode = status  # so that nobody else waits for it
        if not self.ended.done():
            self.ended.set_result(status)

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


@dataclasses.dataclass(slots=True, eq=False)
class Place:
    """Where a worker is, or its replacement.

    Attributes:
        listener: open unless the place is empty for long, or draining has begun.
        has_served: whether the worker that is there has. reason: why it ended, as in metrics.
        finished: whether every request was answered when it drained, once it has said so.
    """

    number: int
    listener: socket.socket | None
    member: Member | None = None
    has_served: bool = False
    reason: str = ""
    finished: bool | None = None


class Supervisor:
    """Runs the workers of one sidecar. Belongs to one event loop."""

    def __init__(self, settings: Settings, hub: HubService, listeners: list[socket.socket]) -> None:
        self._settings = settings
        self._hub = hub
        self._host, self._port = listeners[0].getsockname()[:2]
        self.address = listening_on((self._host, self._port))
        self._places = [Place(number, listener) for number, listener in enumerate(listeners)]
        self._processes: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._any_has_served = False
        self.all_served = asyncio.Event()
        self.given_up = asyncio.Event()

    def start(self) -> None:
        """Start the workers, and keep them running."""
        loop = asyncio.get_running_loop()
        # Not the loop's own way: uvloop keeps this signal for processes that it has started itself.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))
        self._tasks = [loop.create_task(self._keep(place)) for place in self._places]

    async def drain(self) -> bool:
        """Let all workers finish what is under way, and end. Returns whether every request was answered."""
        self._hub.draining = True
        self._stopping.set()
        for place in self._places:
            channel = None if place.member is None else place.member.channel
            if channel is not None and channel.is_open:
                self._close_listener(place)  # the worker closes its own when nobody waits in it any more
                channel.send("drain")
            elif not self._any_has_served:
                self._close_listener(place)
            # Else a worker has crashed, and `_keep` starts a last one for those who wait in its socket.
        server = self._settings.server
        limit = server.drain_delay + server.drain_timeout + DRAIN_SLACK
        _, late = await asyncio.wait(self._tasks, timeout=limit)
        if late:
            self.kill()
            await asyncio.wait(late, timeout=GONE_WITHIN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return all(place.finished for place in self._places if place.has_served)

    def kill(self) -> None:
        """End all workers at once."""
        for process in self._processes.values():
            process.kill()

    def _reap(self) -> None:
        """Collect every process that has ended: as PID 1, also those of others that became this one's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._processes.pop(pid, None)
            if process is not None:
                process.has_ended(os.waitstatus_to_exitcode(status))

    # --- one place ---

    async def _keep(self, place: Place) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set() or place.listener is not None:
            started = loop.time()
            place.has_served, place.reason, status = False, "not_started", None
            try:
                status = await self._run_worker(place)
            except (OSError, ConfigurationError) as exc:
                # Both are about this program's own files and addresses: nothing in them came from outside.
                fields = {"number": place.number, "because": str(exc)}
                logger.error("worker could not be started", extra={"fields": fields})
            if self._stopping.is_set():
                continue
            failures = 0 if place.has_served and loop.time() - started >= STEADY else failures + 1
            pause = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
            self._hub.metrics.worker_restarts.add(place.reason)
            if status is not None:
                fields = {"number": place.number, "status": status, "reason": place.reason, "pause": pause}
                logger.error("worker ended", extra={"fields": fields})
            if failures >= MAX_FAILED_STARTS and not self._any_has_served:
                self.given_up.set()
            if pause >= LONG_PAUSE:
                self._close_listener(place)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _run_worker(self, place: Place) -> int:
        """Start a worker; returns its exit status when it has ended.

        Raises:
            OSError, ConfigurationError: it cannot be started now.
        """
        if place.listener is None:
            place.listener = listen(self._host, self._port, "BIND_ADDRESS", shared=True)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = Process(place.number, theirs, place.listener)
            except OSError:
                ours.close()
                raise
            finally:
                if self._stopping.is_set():
                    self._close_listener(place)  # it is the last worker here, and has its own
        # Nothing is reaped before this coroutine waits for the first time: see `_reap`.
        self._processes[process.pid] = process
        member = Member(place.number, lambda reason: self._end(place, member, process, reason))
        channel = member.channel = Channel(
            lambda name, fields: self._handle(place, member, name, fields), process.kill
        )
        place.member = member
        late = asyncio.get_running_loop().call_later(
            STARTS_WITHIN, self._kill_unless_serving, member, process
        )
        try:
            await channel.open(ours)
            channel.send("start", **for_worker(self._settings))
            if self._stopping.is_set():
                channel.send("drain")
            return await process.ended
        finally:
            late.cancel()
            channel.abort()
            self._hub.left(member)
            place.member = None

    def _handle(
        self, place: Place, member: Member, name: str, fields: Fields
    ) -> Fields | Awaitable[Fields] | None:
        result = self._hub.handle(member, name, fields)
        place.finished = member.finished
        if member.serving and not place.has_served:
            place.has_served, place.reason, self._any_has_served = True, "ended", True
            if all(each.has_served for each in self._places):
                self.all_served.set()
        return result

    async def _end(self, place: Place, member: Member, process: Process, reason: str) -> None:
        """End a worker for a reason, unless it is ending by itself. Returns when it is gone."""
        if member.channel is not None and member.channel.is_open and not process.ended.done():
            place.reason = reason
            logger.error("worker does not answer", extra={"fields": {"number": place.number}})
        process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_WITHIN):
                await asyncio.shield(process.ended)

    def _kill_unless_serving(self, member: Member, process: Process) -> None:
        if not member.serving:
            process.kill()

    def _close_listener(self, place: Place) -> None:
        if place.listener is not None:
            place.listener.close()
            place.listener = None


async def supervise(settings: Settings) -> int:
    """Serve with several processes until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        ConfigurationError: an address cannot be listened on.
    """
    server = settings.server
    stop = asyncio.Event()
    listeners = listen_together(server.host, server.port, "BIND_ADDRESS", server.workers)
    probe_socket = None
    if server.probe_host is not None:
        probe_socket = listen(server.probe_host, server.probe_port, "PROBE_BIND_ADDRESS")
    hub = HubService(dataclasses.replace(settings, caches=shared(settings.caches, server.workers)))
    supervisor = Supervisor(settings, hub, listeners)

    def on_signal(number: int) -> None:
        if stop.is_set():
            logger.warning("second signal: stopping at once")
            supervisor.kill()
            logging.shutdown()
            os._exit(1)
        logger.info("draining", extra={"fields": {"signal": signal.Signals(number).name}})
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Set explicitly: as PID 1 a process has no default action for signals.
        loop.add_signal_handler(number, on_signal, number)
    await hub.start()
    probe = None if probe_socket is None else await start_probes(server, hub, probe_socket)
    probes = supervisor.address if probe is None else listening_on(probe.addresses[0])
    spare_the_collector()  # of the hub: whoever waits for a token that is not cached waits for it
    supervisor.start()
    await _first(supervisor.all_served, stop, supervisor.given_up)
    if supervisor.all_served.is_set():
        fields = {
            "address": supervisor.address,
            "probes": probes,
            "workers": server.workers,
            "version": _native.__version__,
        }
        logger.info("listening", extra={"fields": fields})
    await _first(stop, supervisor.given_up)
    if not stop.is_set():
        logger.error("no worker can be started: giving up")
    finished = await supervisor.drain() and stop.is_set()
    await hub.aclose()
    if probe is not None:
        await probe.cleanup()
    logger.info("stopped", extra={"fields": {"every_request_answered": finished}})
    return 0 if finished else 1


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """A worker's environment: that of this process without the settings, of which some are secret. It finds
    its modules where this process does."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}
