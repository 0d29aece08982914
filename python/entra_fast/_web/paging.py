"""A long list in pages, so that no page of HTML grows with the data. No HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

PAGE_ROWS: Final = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Window(Generic[T]):
    """One page of a list. `number` counts from 1 to `last`; `total`: rows of the whole list."""

    rows: tuple[T, ...]
    number: int
    last: int
    total: int


def window(items: Sequence[T], number: str, rows: int = PAGE_ROWS) -> Window[T]:
    """The page that a query parameter asks for; the nearest one if there is no such page."""
    last = max(1, -(-len(items) // rows))
    wanted = int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 1
    wanted = min(max(1, wanted), last)
    return Window(tuple(items[(wanted - 1) * rows : wanted * rows]), wanted, last, len(items))
