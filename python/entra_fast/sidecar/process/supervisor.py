"""Several processes that act as one sidecar: this one starts, watches and terminates them.

What belongs here: processes, listening sockets, signals, restarts, draining. What must never be here: the
messages between the processes (provider_process.py).

All listening sockets belong to this process, one for each worker slot; the worker in the slot only borrows
it. So when a worker crashes, connections that it had not accepted wait for its replacement.
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

from entra_fast import _background, _event_loop, _native
from entra_fast._http.server import best_way
from entra_fast._settings.load import Settings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.http.listener import listen, listen_together
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.process.channel import Channel, Fields
from entra_fast.sidecar.process.progress import ProgressOfWorker
from entra_fast.sidecar.process.provider_process import ConnectedWorker, ProviderProcess
from entra_fast.sidecar.process.running import freeze_garbage_collector, host_and_port, start_probes
from entra_fast.sidecar.process.worker_settings import for_worker, share_of_each

STABLE_AFTER = 10.0
"""Seconds after which a worker counts as stable: its replacement starts at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0
"""Seconds before an unstable worker is replaced: doubled each time."""
LONG_PAUSE = 1.0
"""Seconds. During a longer pause the slot's listening socket is closed, so new connections go to the other
workers."""
MAX_FAILED_STARTS = 5
"""Failed starts in a row in one slot after which the sidecar stops, if no worker has ever served."""
START_TIMEOUT = 30.0
"""Seconds within which a worker must begin to serve."""
KILL_TIMEOUT = 2.0
"""Seconds within which a killed process must be gone."""
DRAIN_SLACK = 8.0
"""Seconds within which a worker must close its listener and connections, beyond the drain settings."""

_ENVIRONMENT = ("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "TMPDIR", "TZ")
# COVERAGE_PROCESS: `make coverage` measures workers, too.
_ENVIRONMENT_PREFIXES = ("COVERAGE_PROCESS", "LC_", "MALLOC_", "OTEL_", "PYTHON")


class Process:
    """A worker's process. Only `Supervisor._reap` notices that it has ended."""

    def __init__(
        self, number: int, channel: socket.socket, listener: socket.socket, progress: ProgressOfWorker
    ) -> None:
        files = (channel.fileno(), listener.fileno(), progress.file)
        arguments = (number, os.getpid(), *files)
        self._process = subprocess.Popen(  # noqa: S603 - this program itself
            # -P: modules in the working directory are not part of this program.
            [sys.executable, "-P", "-m", "entra_fast.sidecar.process", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env=_environment(os.environ),
        )
        self.pid = self._process.pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def has_ended(self, status: int) -> None:
        """Record that it was reaped."""
        self._process.returncode = status  # so that subprocess does not wait for it
        if not self.ended.done():
            self.ended.set_result(status)

    def kill(self) -> None:
        """Kill it, if it has not ended."""
        if not self.ended.done():
            os.kill(self.pid, signal.SIGKILL)


@dataclasses.dataclass(slots=True, eq=False)
class WorkerSlot:
    """Holds one worker at a time: the first, or its replacement.

    Attributes:
        number: from 0.
        listener: the slot's socket; closed while the slot stays empty, and once draining has begun.
        worker: the current worker.
        has_served: whether that worker has served.
        reason: why it ended, as in the metrics.
        finished: whether every request was answered when it drained, once it has reported that.
    """

    number: int
    listener: socket.socket | None
    worker: ConnectedWorker | None = None
    has_served: bool = False
    reason: str = ""
    finished: bool | None = None


class Supervisor:
    """Runs the workers of one sidecar. Belongs to one event loop."""

    def __init__(
        self, settings: Settings, provider_process: ProviderProcess, listeners: list[socket.socket]
    ) -> None:
        self._settings = settings
        self._provider_process = provider_process
        self._host, self._port = listeners[0].getsockname()[:2]
        self.address = host_and_port((self._host, self._port))
        self._slots = [WorkerSlot(number, listener) for number, listener in enumerate(listeners)]
        self._processes: dict[int, Process] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._any_has_served = False
        self.all_served = asyncio.Event()
        self.given_up = asyncio.Event()

    def start(self) -> None:
        """Start the workers, and keep them running."""
        loop = asyncio.get_running_loop()
        # Not through the event loop: uvloop keeps this signal for processes that it has started itself.
        signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))
        self._reap()  # orphans that ended before anyone was told
        self._tasks = [
            _background.start(self._keep_running(slot), f"worker {slot.number}") for slot in self._slots
        ]

    async def drain(self) -> bool:
        """Let all workers finish the requests in progress and exit. Returns whether every request was
        answered."""
        await self._provider_process.begin_draining()
        self._stopping.set()
        for slot in self._slots:
            channel = None if slot.worker is None else slot.worker.channel
            if channel is not None and channel.is_open:
                self._close_listener(slot)  # the worker closes its own when no connection waits in it
                channel.send("drain")
            elif not self._any_has_served:
                self._close_listener(slot)
            # Otherwise a worker has crashed, and `_keep_running` starts a last replacement for the
            # connections that wait in its socket.
        server = self._settings.server
        limit = server.drain_delay + server.drain_timeout + DRAIN_SLACK
        _, late = await asyncio.wait(self._tasks, timeout=limit)
        if late:
            self.kill()
            await asyncio.wait(late, timeout=KILL_TIMEOUT)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return all(slot.finished for slot in self._slots if slot.has_served)

    def kill(self) -> None:
        """Kill all workers."""
        for process in self._processes.values():
            process.kill()

    def _reap(self) -> None:
        """Collect every process that has ended. As PID 1, those include orphans of other processes."""
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

    # --- one slot ---

    async def _keep_running(self, slot: WorkerSlot) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set() or slot.listener is not None:
            started = loop.time()
            slot.has_served, slot.reason, status = False, "not_started", None
            try:
                status = await self._run_worker(slot)
            except (OSError, ConfigurationError) as exc:
                # Both concern this program's own files and addresses: nothing in them came from outside.
                fields = {"number": slot.number, "because": str(exc)}
                logger.error("worker could not be started", extra={"fields": fields})
            if self._stopping.is_set():
                continue
            failures = 0 if slot.has_served and loop.time() - started >= STABLE_AFTER else failures + 1
            pause = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE) if failures else 0.0
            self._provider_process.metrics.worker_restarts.add(slot.reason)
            if status is not None:
                fields = {"number": slot.number, "status": status, "reason": slot.reason, "pause": pause}
                logger.error("worker ended", extra={"fields": fields})
            if failures >= MAX_FAILED_STARTS and not self._any_has_served:
                self.given_up.set()
            if pause >= LONG_PAUSE:
                self._close_listener(slot)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _run_worker(self, slot: WorkerSlot) -> int:
        """Start a worker; returns its exit status when it has ended.

        Raises:
            OSError, ConfigurationError: it cannot be started now.
        """
        if slot.listener is None:
            slot.listener = listen(self._host, self._port, "BIND_ADDRESS", shared=True)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                progress = ProgressOfWorker()
                with contextlib.closing(progress):
                    process = Process(slot.number, theirs, slot.listener, progress)
            except OSError:
                ours.close()
                raise
            finally:
                if self._stopping.is_set():
                    self._close_listener(slot)  # it is the last worker here, and has its own
        # Nothing is reaped before this coroutine waits for the first time: see `_reap`.
        self._processes[process.pid] = process
        worker = ConnectedWorker(
            slot.number, lambda reason: self._end(slot, worker, process, reason), progress.count
        )
        channel = worker.channel = Channel(
            lambda name, fields: self._handle(slot, worker, name, fields),
            process.kill,
            f"worker {slot.number}",
        )
        slot.worker = worker
        late = asyncio.get_running_loop().call_later(
            START_TIMEOUT, self._kill_unless_serving, worker, process
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
            self._provider_process.left(worker)
            slot.worker = None

    def _handle(
        self, slot: WorkerSlot, worker: ConnectedWorker, name: str, fields: Fields
    ) -> Fields | Awaitable[Fields] | None:
        result = self._provider_process.handle(worker, name, fields)
        slot.finished = worker.finished
        if worker.serving and not slot.has_served:
            slot.has_served, slot.reason, self._any_has_served = True, "ended", True
            if all(each.has_served for each in self._slots):
                self.all_served.set()
        return result

    async def _end(self, slot: WorkerSlot, worker: ConnectedWorker, process: Process, reason: str) -> None:
        """Terminate a worker for a reason, unless it is already exiting. Returns when it is gone."""
        if worker.channel is not None and worker.channel.is_open and not process.ended.done():
            slot.reason = reason
            logger.error("worker does not respond", extra={"fields": {"number": slot.number}})
        process.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_TIMEOUT):
                await asyncio.shield(process.ended)

    def _kill_unless_serving(self, worker: ConnectedWorker, process: Process) -> None:
        if not worker.serving:
            process.kill()

    def _close_listener(self, slot: WorkerSlot) -> None:
        if slot.listener is not None:
            slot.listener.close()
            slot.listener = None


async def supervise(settings: Settings) -> int:
    """Serve with several processes until SIGTERM or SIGINT. Returns the exit status.

    Raises:
        ConfigurationError: the sidecar cannot listen on an address.
    """
    server = settings.server
    stop = asyncio.Event()
    listeners = listen_together(server.host, server.port, "BIND_ADDRESS", server.workers)
    probe_socket = None
    if server.probe_host is not None:
        probe_socket = listen(server.probe_host, server.probe_port, "PROBE_BIND_ADDRESS")
    way = best_way()
    own_settings = dataclasses.replace(settings, caches=share_of_each(settings.caches, server.workers))
    provider_process = ProviderProcess(own_settings)
    supervisor = Supervisor(settings, provider_process, listeners)

    def on_signal(number: int) -> None:
        if stop.is_set():
            logger.warning("second signal: stopping at once")
            supervisor.kill()
            logging.shutdown()
            os._exit(1)
        logger.info("draining", extra={"fields": {"signal": signal.Signals(number).name}})
        stop.set()

    _event_loop.on_stop_signals(on_signal)
    await provider_process.start()
    probe = None
    if probe_socket is not None:
        probe = await start_probes(server, provider_process, probe_socket, way)
    probes = supervisor.address if probe is None else host_and_port(probe.addresses[0])
    freeze_garbage_collector()  # every request for an uncached token waits for this process
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
        provider_process.start_telemetry()
    await _first(stop, supervisor.given_up)
    if not stop.is_set():
        logger.error("stopping: no worker could be started")
    finished = await supervisor.drain() and stop.is_set()
    await provider_process.aclose()
    if probe is not None:
        await probe.aclose()
    logger.info("stopped", extra={"fields": {"every_request_answered": finished}})
    return 0 if finished else 1


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """A worker's environment: that of this process without the settings, some of which are secret. It finds
    its modules where this process does."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path)}
