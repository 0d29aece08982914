"""A bounded map whose entries expire.

What belongs here: the map. What must never be here: what its entries mean.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ExpiringMap(Generic[K, V]):
    """Entries are readable until their end. Where there are too many, the one that was put first is dropped.

    Args:
        max_entries: maximum number of entries, expired ones included.
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(self, max_entries: int, monotonic: Callable[[], float]) -> None:
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        """The number of entries, expired ones included."""
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, unless its end has passed."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        end, value = entry
        if end <= self._monotonic():
            del self._entries[key]
            return None
        return value

    def put(self, key: K, value: V, end: float) -> None:
        """Remember the value until `end`, a time of the monotonic clock."""
        # Most keys are never looked up again. Where ends are in order, this removes all that have expired.
        now = self._monotonic()
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)
        self._entries[key] = (end, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def sweep(self) -> None:
        """Forget all values whose end has passed."""
        now = self._monotonic()
        for key in [key for key, (end, _) in self._entries.items() if end <= now]:
            del self._entries[key]

    def discard(self, key: K) -> None:
        """Forget the value, if there is one."""
        self._entries.pop(key, None)
