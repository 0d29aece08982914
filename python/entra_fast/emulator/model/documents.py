"""Documents whose values have lines, and mistakes in them.

What belongs here: what readers of documents share. YAML is read in yaml_source.py, which is imported with the
first file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from entra_fast.errors import ConfigurationError

MAX_KEY_SHOWN: Final = 100
MAX_MISTAKES: Final = 50
"""Mistakes that are shown; a folder of unrelated YAML must not flood the terminal."""


class SourceError(ConfigurationError):
    """A file cannot be used: `<file>:<line>: <field>: <what was wrong and what was expected>`.

    Where several mistakes were found, the message has a line for each of them, and the attributes are those
    of the first.

    Attributes:
        file: path as it was given.
        line: line number, counted from 1.
        field: path of the field in dotted form, empty for the file as a whole.
        mistakes: one sentence for each mistake, at most `MAX_MISTAKES`.
        total: how many mistakes there are.
    """

    file: str
    line: int
    field: str
    mistakes: tuple[str, ...]
    total: int

    def __init__(self, code: str, text: str, file: str, line: int, field: str = "") -> None:
        where = f"{file}:{line}: {field}: " if field else f"{file}:{line}: "
        super().__init__(code, where + text, file)
        self.args = (code, text, file, line, field)
        self.file = file
        self.line = line
        self.field = field
        self.mistakes = (self.message,)
        self.total = 1


class Mistakes:
    """Collects the mistakes of many files, so that they are all reported at once. Keeps a bounded number."""

    def __init__(self) -> None:
        self._first: SourceError | None = None
        self._kept: list[str] = []
        self._total = 0

    def add(self, error: SourceError) -> None:
        """Add a mistake, or all mistakes of an error that reports several."""
        self._first = self._first or error
        self._kept += error.mistakes[: MAX_MISTAKES - len(self._kept)]
        self._total += error.total

    @property
    def total(self) -> int:
        """How many there are so far."""
        return self._total

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Add the SourceError that the block raises, and continue after the block."""
        try:
            yield
        except SourceError as error:
            self.add(error)

    def raise_if_any(self) -> None:
        """Raise one SourceError for everything that was added, if there is anything."""
        if self._first is None:
            return
        error = self._first
        error.mistakes, error.total = tuple(self._kept), self._total
        lines = list(self._kept)
        if self._total > len(self._kept):
            lines.append(f"and {self._total - len(self._kept)} more")
        error.message = "\n".join(lines)
        raise error


Place = tuple[str | int, ...]
"""Where a value is in a document: keys of mappings and indexes of lists, from the outside in."""


def dotted(place: Place) -> str:
    """A place as people write it: `spec.accessPolicy.inbound.rules[0].application`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step[:MAX_KEY_SHOWN]}" for step in place)
    return "".join(steps).lstrip(".")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Attributes:
        file: path as it was given.
        value: dicts with string keys, lists and scalars. Entries whose value is null are left out, as
            Kubernetes does.
        lines: line (from 1) of each value, by its place.
    """

    file: str
    value: Any
    lines: dict[Place, int]

    def line(self, place: Place) -> int:
        """Line of a place, or of the closest value around it that exists."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)
