"""How a worker shows that it works: a number in memory that it shares with the provider process.

What belongs here: the memory, writing it and reading it. What must never be here: what counts as work
(http/), and what follows if there is none (provider_process.py).

An overloaded worker may need seconds to get to a question of the provider process. This number says that it
is busy, and not hung, even in the middle of a turn of its event loop.
"""

from __future__ import annotations

import mmap
import os
import tempfile

SIZE = 8


class Progress:
    """The worker's side.

    Args:
        file: descriptor of the shared memory, from `ProgressOfWorker`. It is closed.
    """

    def __init__(self, file: int) -> None:
        self._number = memoryview(mmap.mmap(file, SIZE)).cast("Q")
        os.close(file)

    def worked(self) -> None:
        """Some work is done."""
        self._number[0] += 1


class ProgressOfWorker:
    """The provider process's side.

    Attributes:
        file: descriptor for the worker, until `close`.
    """

    def __init__(self) -> None:
        self.file = _anonymous_file()
        os.truncate(self.file, SIZE)
        # One aligned word: it is never seen half written.
        self._number = memoryview(mmap.mmap(self.file, SIZE, access=mmap.ACCESS_READ)).cast("Q")

    def close(self) -> None:
        """Close the descriptor: the worker has its own. The memory stays."""
        os.close(self.file)

    def count(self) -> int:
        """A number that has changed if the worker has done anything."""
        return self._number[0]


def _anonymous_file() -> int:
    """A file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("progress")
    with tempfile.TemporaryFile() as file:  # pragma: no cover - other operating systems
        return os.dup(file.fileno())
