"""`entra-fast serve` as a process of its own, with its log lines."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from support.sidecars import eventually
from support.wire import Caller

# PYTHONPATH: the process runs the modules that are tested and not others that are installed.
# COVERAGE_PROCESS_CONFIG: `make coverage` measures it, too.
INHERITED = ("PATH", "PYTHONPATH", "COVERAGE_PROCESS_CONFIG")


def inherited() -> dict[str, str]:
    """The variables that a tested process inherits from this one, in addition to its own."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def children(pid: int) -> list[int]:
    """The processes that a process has started, such as workers."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


START_LIMIT = 90.0
"""Seconds for a process to listen. With workers there are several to start, which takes long on a busy
machine, and longer when coverage is measured."""


class Process:
    """`entra-fast serve` with its log lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))

    async def listening(self) -> Caller:
        async def said_so() -> bool:
            assert self.process.returncode is None, self.lines
            return self._listening() is not None

        await eventually(said_so, START_LIMIT)
        line = self._listening()
        assert line is not None
        return Caller(line["address"])

    def probes(self) -> Caller:
        """Calls the probe listener of a sidecar that listens."""
        line = self._listening()
        assert line is not None
        return Caller(line["probes"])

    def _listening(self) -> dict[str, str] | None:
        parsed = [json.loads(line) for line in self.lines]
        return next((line for line in parsed if line["message"] == "listening"), None)

    def logged(self, text: str) -> int:
        """How many lines contain it."""
        return sum(text in line for line in self.lines)

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            status = await self.process.wait()
            await self._reading
        return status

    async def printed(self) -> bytes:
        """All that it has written to its standard output."""
        assert self.process.stdout is not None
        return await self.process.stdout.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


Serve = Callable[..., Awaitable[Process]]


PROGRAM = "import sys; from entra_fast.cli.main import main; sys.exit(main(sys.argv[1:]))"


@asynccontextmanager
async def served(program: str = PROGRAM) -> AsyncIterator[Serve]:
    """Starts `entra-fast serve` with exactly the given environment.

    Args:
        program: Python that runs `entra-fast`.
    """
    processes: list[Process] = []

    async def start(environ: dict[str, str], *arguments: str) -> Process:
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                program,
                "serve",
                *arguments,
                env={**inherited(), **environ},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            if process.process.returncode is None:
                process.process.kill()
            await process.ended()
