"""A real control group with a memory limit, where the machine lets a test make one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
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

    def __init__(self, directory: Path, *, version: int) -> None:
        self._directory = directory
        self._version = version
        self.processes = directory / "cgroup.procs"
        procs = str(self.processes)
        self.program = f"import os; open({procs!r}, 'w').write(str(os.getpid())); {PROGRAM}"

    @property
    def usage(self) -> int:
        """Bytes in use."""
        return int(self._read("memory.usage_in_bytes", "memory.current"))

    @property
    def peak(self) -> int:
        """Bytes in use at most (version 2: since Linux 5.19)."""
        return int(self._read("memory.max_usage_in_bytes", "memory.peak"))

    @property
    def kills(self) -> int:
        """How many of its processes were killed for want of memory."""
        found = re.search(
            r"^oom_kill (\d+)$", self._read("memory.oom_control", "memory.events"), re.MULTILINE
        )
        assert found is not None
        return int(found[1])

    def _read(self, first: str, second: str) -> str:
        """A file, by its name in version 1 and version 2."""
        return (self._directory / (first if self._version == 1 else second)).read_text()


@contextlib.contextmanager
def limited_group(limit: int) -> Iterator[MemoryGroup]:
    """A group with this limit in bytes.

    Raises:
        OSError: none can be made, or it cannot have a limit.
    """
    own = {
        controllers: path.lstrip("/")
        for _, controllers, path in (
            line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
        )
    }
    if (GROUPS / "memory").is_dir():
        version, parent, file = 1, GROUPS / "memory" / own.get("memory", ""), "memory.limit_in_bytes"
    else:
        version, parent, file = 2, GROUPS / own.get("", ""), "memory.max"
    directory = parent / f"entra_fast_test_{os.getpid()}"
    directory.mkdir()
    try:
        (directory / file).write_text(str(limit))
        yield MemoryGroup(directory, version=version)
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    """Remove a group. Its workers may end a moment after the process that was waited for."""
    deadline = time.monotonic() + 20
    while True:
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup]:
    """The same for a test, which is skipped where no group can be made."""
    with contextlib.ExitStack() as stack:
        try:
            group = stack.enter_context(limited_group(limit))
        except OSError as error:
            pytest.skip(f"needs the right to make a control group with a memory limit: {error.strerror}")
        yield group
