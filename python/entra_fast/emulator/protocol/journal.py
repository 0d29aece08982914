"""The journal: the last requests for tokens and logins, each with the checks that decided it.

Holds decoded claims at most; never a secret, an assertion, a code or a signed token.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from entra_fast.emulator.protocol.policy import Reason

MAX_ENTRIES: Final = 500

Outcome = Literal["granted", "refused"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("granted", "refused")


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
        forged: whether the token was made to order (protocol/forge.py): it proves nothing about policies.
        provider: name of the provider that was asked: `entra_id`, or another local one, which has no tenants.
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
    forged: bool = False
    provider: str = "entra_id"

    @property
    def outcome(self) -> Outcome:
        """Granted or refused."""
        return "granted" if self.granted else "refused"

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "number": self.number,
            "time": self.time,
            "granted": self.granted,
            "forged": self.forged,
            "provider": self.provider,
            "grant": self.grant,
            "tenant": self.tenant,
            "client": self.client,
            "target": self.target,
            "user": self.user or None,
            "code": self.code,
            "message": self.message,
            "checks": [dataclasses.asdict(reason) for reason in self.reasons],
            "correlation_id": self.correlation_id,
            "claims": dict(self.claims),
        }


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are wanted: those that meet every condition that is set.

    Attributes:
        application: name of the client or the target.
        code: AADSTS number.
        since: seconds since the epoch; entries of that time or later.
        after: entries with a higher number.
        provider: name of the provider.
    """

    application: str | None = None
    outcome: Outcome | None = None
    code: int | None = None
    since: float | None = None
    after: int = 0
    provider: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        return (
            entry.number > self.after
            and self.application in (None, entry.client, entry.target)
            and self.outcome in (None, entry.outcome)
            and self.code in (None, entry.code)
            and self.provider in (None, entry.provider)
            and (self.since is None or entry.time >= self.since)
        )


class Journal:
    """The last entries, newest first. Entries may be added in any thread."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[], object]] = set()
        self._latest = 0
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """The number for the next entry."""
        return next(self._numbers)

    def add(self, entry: Entry) -> None:
        """Add an entry; the oldest one is dropped when there are too many."""
        with self._lock:
            if entry.number <= self._latest:  # another thread was faster; readers rely on the order
                entry = dataclasses.replace(entry, number=self.next_number())
            self._latest = entry.number
            self._entries.appendleft(entry)
        for call in tuple(self._watchers):
            call()

    @property
    def latest(self) -> int:
        """The highest number of an entry so far, also of one that was removed; 0 for none."""
        return self._latest

    def entries(self, wanted: Selection | None = None) -> tuple[Entry, ...]:
        """Newest first; those that are wanted, or all."""
        entries = tuple(self._entries)
        return entries if wanted is None else tuple(filter(wanted.matches, entries))

    @contextlib.contextmanager
    def watched(self, call: Callable[[], object]) -> Iterator[None]:
        """Within, `call` is called after each new entry, in the thread that adds it."""
        self._watchers.add(call)
        try:
            yield
        finally:
            self._watchers.discard(call)

    def find(self, number: int) -> Entry | None:
        """An entry by number."""
        return next((entry for entry in self._entries if entry.number == number), None)

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()
