"""The sidecars' processes. What belongs here: starting and ending them, and who is who: which processes a
sidecar consists of, and which connections belong to which of them (Linux, from /proc)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from benches.chaos.truth import Known, Truth
from support.exposition import Exposition
from support.process import Process, Serve
from support.wire import Caller

ESTABLISHED = "01"  # linux/include/net/tcp_states.h
REPLACED_WITHIN = 20.0
"""Seconds in which a worker that is gone has a successor; pauses before it double up to 10 s."""


class Sidecar:
    """`entra-fast serve`, and what the checker knows about it."""

    def __init__(self, process: Process, call: Caller, probe: Caller, workers: int) -> None:
        self.process = process
        self.call = call
        self.probe = probe
        self.known = Known()
        self._workers = workers

    @property
    def pid(self) -> int:
        return self.process.process.pid

    def workers(self) -> list[int]:
        """The workers' process ids."""
        try:
            return children(self.pid)
        except OSError:
            return []

    def pids(self) -> list[int]:
        """All processes."""
        return [self.pid, *self.workers()]

    async def metric(self, series: str) -> float:
        """The sum of all series with this name and these labels."""
        return Exposition((await self.probe.get("/metrics")).body.decode()).get(series)

    async def is_whole(self) -> bool:
        """Wait until all workers serve; False when that takes too long."""
        deadline = time.monotonic() + REPLACED_WITHIN
        while self._workers > 1 and await self.metric("entra_fast_workers") < self._workers:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


class Pod:
    """The sidecars that clients call. Each is replaced by a new one when it is restarted."""

    def __init__(
        self, serve: Serve, truth: Truth, environments: list[dict[str, str]], workers: int = 1
    ) -> None:
        self._serve = serve
        self._truth = truth
        self._environments = environments
        self._workers = workers
        self.sidecars: list[Sidecar] = []

    async def start(self) -> None:
        for environment in self._environments:
            self.sidecars.append(await self._start(environment))

    async def _start(self, environment: dict[str, str]) -> Sidecar:
        arguments = () if self._workers == 1 else ("--workers", str(self._workers))
        process = await self._serve(environment, *arguments)
        call = await process.listening()
        return Sidecar(process, call, process.probes(), self._workers)

    async def restart(self, number: int) -> None:
        """As a deployment does: SIGTERM, and another one."""
        await self._end(self.sidecars[number])
        self.sidecars[number] = await self._start(self._environments[number])

    async def stop(self) -> None:
        await asyncio.gather(*(self._end(sidecar) for sidecar in self.sidecars))

    async def _end(self, sidecar: Sidecar) -> None:
        # Clients with a connection keep using it, and others connect: draining must handle both.
        sidecar.process.signal(signal.SIGTERM)
        status = await sidecar.process.ended()
        if status != 0:
            self._truth.wrong(f"a sidecar ended with {status} after SIGTERM")
        for line in sidecar.process.lines:
            if "unexpected error" in line:  # whatever else went on
                self._truth.wrong(f"logged: {line}")

    def resident(self) -> dict[int, int]:
        """KiB of each process."""
        found = {}
        for sidecar in self.sidecars:
            for pid in sidecar.pids():
                try:
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                except OSError:
                    continue  # it has just ended
                if pages:
                    found[pid] = pages * os.sysconf("SC_PAGE_SIZE") // 1024
        return found


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid: int) -> str:
    """As in proc(5); `X` for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


async def freeze(pid: int) -> None:
    """SIGSTOP; returns when the process does nothing any more."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    while state(pid) not in "TZX":  # noqa: ASYNC110
        await asyncio.sleep(0)


def peers(pid: int) -> set[int]:
    """The clients' ports of the connections that a process has accepted. Those that wait to be accepted
    belong to the listening socket, which is another process's."""
    sockets, found = set(), set()
    with contextlib.suppress(OSError):  # it is gone, and so are its connections
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(file))
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == ESTABLISHED and f"socket:[{fields[9]}]" in sockets:
                found.add(int(fields[2].rpartition(":")[2], 16))
    return found
