"""A bounded map whose values expire: what the provider remembers between requests is kept in these."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class ExpiringMap(Generic[V]):
    """A bounded number of values, each for a limited time.

    Args:
        limit: maximum number of values; the oldest ones are dropped.
        clock: seconds since the epoch.
        secret_keys: whether keys are secrets that clients hold. Only their digests are kept then, so that
            what is saved or exported opens nothing.
    """

    def __init__(self, limit: int, clock: Callable[[], float], *, secret_keys: bool = False) -> None:
        self._limit = limit
        self._clock = clock
        self._secret_keys = secret_keys
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def put(self, key: str, value: V, lifetime: float) -> None:
        """Remember a value for `lifetime` seconds."""
        self.restore(self._name(key), value, lifetime)

    def get(self, key: str) -> V | None:
        """The value, unless it has expired."""
        name = self._name(key)
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[name]
            return None
        return entry[1]

    def replace(self, key: str, value: V) -> None:
        """Another value for a key that is remembered, for the time that is left."""
        if self.get(key) is not None:
            name = self._name(key)
            self._entries[name] = (self._entries[name][0], value)

    def remove(self, key: str) -> None:
        """Forget a value."""
        self.discard(self._name(key))

    def items(self) -> list[tuple[str, float, V]]:
        """(name, end, value) of everything that has not expired. The name is the key, or its digest."""
        now = self._clock()
        return [(name, end, value) for name, (end, value) in self._entries.items() if end > now]

    def restore(self, name: str, value: V, lifetime: float) -> None:
        """Remember a value under a name that `items` has returned."""
        self._entries.pop(name, None)
        while len(self._entries) >= self._limit:
            self._entries.popitem(last=False)
        self._entries[name] = (self._clock() + lifetime, value)

    def discard(self, name: str) -> None:
        """Forget a value by a name that `items` has returned."""
        self._entries.pop(name, None)

    def _name(self, key: str) -> str:
        # Surrogates: a header can have bytes that are not UTF-8.
        return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest() if self._secret_keys else key
