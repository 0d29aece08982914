"""The journal: the last requests for tokens and logins, each with the checks that decided it.

Holds decoded claims at most; never a secret, an assertion, a code or a signed token.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from entra_fast.emulator.protocol.policy import Reason

MAX_ENTRIES: Final = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One request.

    Attributes:
        number: counts up from 1.
        time: seconds since the epoch.
        grant: the kind of request: "client credentials", "on behalf of", "login"...
        client: `<cluster>:<namespace>:<name>`, or what was sent where that is unknown.
        granted: whether it was granted.
        code: AADSTS number of a refusal; None when granted, and for planned faults without one.
        message: the refusal's sentence.
        claims: of the access token that was issued.
    """

    number: int
    time: float
    tenant: str
    grant: str
    client: str
    target: str
    user: str
    granted: bool
    code: int | None
    message: str
    reasons: tuple[Reason, ...]
    correlation_id: str
    claims: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The last entries, newest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """The number for the next entry."""
        return next(self._numbers)

    def add(self, entry: Entry) -> None:
        """Add an entry; the oldest one is dropped when there are too many."""
        self._entries.appendleft(entry)

    def entries(self) -> tuple[Entry, ...]:
        """Newest first."""
        return tuple(self._entries)

    def find(self, number: int) -> Entry | None:
        """An entry by number."""
        return next((entry for entry in self._entries if entry.number == number), None)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()
