"""The lines of a manifest around a place in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from entra_fast.emulator.model.yaml_source import label

CONTEXT: Final = 8
"""Lines before and after the place."""
MAX_LINE_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file. `here`: whether it is the place itself."""

    number: int
    text: str
    here: bool


def excerpt(location: str, files: Iterable[str]) -> tuple[Line, ...]:
    """The lines around a location; empty if there is no such file.

    Args:
        location: `<file>:<line>`.
        files: paths of those that may be read.
    """
    found = re.fullmatch(r"(.+):(\d+)", location)
    path = (
        None if found is None else next((path for path in map(Path, files) if label(path) == found[1]), None)
    )
    if found is None or path is None:
        return ()
    wanted = int(found[2])
    first = max(1, wanted - CONTEXT)
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\r\n") for line in islice(file, first - 1, wanted + CONTEXT)]
    except OSError:
        return ()
    return tuple(
        Line(number, line[:MAX_LINE_CHARACTERS], number == wanted) for number, line in enumerate(lines, first)
    )
