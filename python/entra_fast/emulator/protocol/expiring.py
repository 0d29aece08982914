"""A bounded map whose values expire: what the provider remembers between requests is kept in these."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class ExpiringMap(Generic[V]):
    """A bounded number of values, each for a limited time."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def put(self, key: str, value: V, lifetime: float) -> None:
        """Remember a value for `lifetime` seconds."""
        self._entries.pop(key, None)
        while len(self._entries) >= self._limit:
            self._entries.popitem(last=False)
        self._entries[key] = (self._clock() + lifetime, value)

    def get(self, key: str) -> V | None:
        """The value, unless it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[key]
            return None
        return entry[1]

    def replace(self, key: str, value: V) -> None:
        """Another value for a key that is remembered, for the time that is left."""
        if self.get(key) is not None:
            self._entries[key] = (self._entries[key][0], value)

    def remove(self, key: str) -> None:
        """Forget a value."""
        self._entries.pop(key, None)

    def items(self) -> list[tuple[str, float, V]]:
        """(key, end, value) of everything that has not expired."""
        now = self._clock()
        return [(key, end, value) for key, (end, value) in self._entries.items() if end > now]
