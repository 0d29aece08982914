"""A real control group with a memory limit, where the machine lets a test make one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import PROGRAM

GROUPS = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A control group.

    Attributes:
        processes: the file that takes the ids of its processes.
        program: Python that runs `entra-fast` within it.
    """

    def __init__(self, directory: Path, usage: str) -> None:
        self._directory = directory
        self._usage = directory / usage
        self.processes = directory / "cgroup.procs"
        procs = str(self.processes)
        self.program = f"import os; open({procs!r}, 'w').write(str(os.getpid())); {PROGRAM}"

    @property
    def usage(self) -> int:
        """Bytes in use."""
        return int(self._usage.read_text())


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """A group with this limit in bytes; skips the test where none can be made."""
    own = {
        controllers: path.lstrip("/")
        for _, controllers, path in (
            line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
        )
    }
    name = f"entra_fast_test_{os.getpid()}"
    if (GROUPS / "memory").is_dir():
        parent = GROUPS / "memory" / own.get("memory", "")
        limits, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
    else:
        parent, limits, usage = GROUPS / own.get("", ""), "memory.max", "memory.current"
    directory = parent / name
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"needs the right to make a control group: {error.strerror}")
    try:
        try:
            (directory / limits).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"needs the memory controller: {error.strerror}")
        yield MemoryGroup(directory, usage)
    finally:
        directory.rmdir()
