"""The memory that this process may use: the limit of its container, as Linux's control groups state it.

What belongs here: finding the limit. What must never be here: what is done with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

NO_LIMIT = 1 << 60
"""Bytes. Version 1 of control groups has no word for "no limit", only a number that no machine has."""
_MAX_FILE_BYTES = 65_536
_ROOT = Path("/")


def memory_limit(root: Path = _ROOT) -> int | None:
    """The limit in bytes, or None if there is none.

    A group's limit holds for all groups below it, so the smallest one up to the root counts. In a container,
    the group's own directory may be what is mounted as the root.

    Args:
        root: where `proc` and `sys` are; for tests.
    """
    return min(_limits(root), default=None)


def _limits(root: Path) -> Iterator[int]:
    groups = root / "sys/fs/cgroup"
    for hierarchy, controllers, path in _memberships(root / "proc/self/cgroup"):
        if hierarchy == "0":  # version 2 (cgroups(7)); beside version 1, it is mounted in `unified`
            for mount in (groups, groups / "unified"):
                yield from _limits_above(mount, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits_above(groups / "memory", path, "memory.limit_in_bytes")


def _memberships(file: Path) -> Iterator[tuple[str, str, str]]:
    for line in _read(file).splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]


def _limits_above(mount: Path, path: str, name: str) -> Iterator[int]:
    parts = PurePosixPath(path).parts[1:]
    if ".." in parts:  # the group is outside of what is mounted
        parts = ()
    for depth in range(len(parts) + 1):
        text = _read(mount.joinpath(*parts[:depth], name)).strip()
        if text.isascii() and text.isdigit() and 0 < int(text) < NO_LIMIT:
            yield int(text)


def _read(file: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        return opened.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    return ""
