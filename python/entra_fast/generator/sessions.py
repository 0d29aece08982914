"""Sessions of signed-in users: a bounded store in memory. No HTTP, no provider; the clock is an argument.

The browser holds only a random name, so that no token leaves this process in a cookie.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from entra_fast import _clock

MAX_SESSIONS = 4096
"""Maximum number of sessions; beyond it, the oldest one ends and its user signs in again."""

MAX_SESSION_SECONDS = 12 * 3600.0
"""Maximum lifetime of a session, even if the provider's tokens live longer."""


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in user. `expires` is monotonic seconds."""

    name: str
    access_token: str = field(repr=False)
    expires: float
    logout_hint: str = ""


class SessionStore:
    """Sessions by the digest of their cookie: a look-up takes no longer for a cookie that is nearly right."""

    def __init__(
        self, *, clock: Callable[[], float] = _clock.monotonic, max_sessions: int = MAX_SESSIONS
    ) -> None:
        self._clock = clock
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def create(self, name: str, access_token: str, lifetime: float, *, logout_hint: str = "") -> str:
        """Remember a user for `lifetime` seconds at most; returns the cookie's value."""
        while len(self._sessions) >= self._max_sessions:
            self._sessions.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        expires = self._clock() + min(lifetime, MAX_SESSION_SECONDS)
        self._sessions[_digest(cookie)] = Session(name, access_token, expires, logout_hint)
        return cookie

    def find(self, cookie: str | None) -> Session | None:
        """The live session of a cookie, if there is one."""
        if not cookie:
            return None
        key = _digest(cookie)
        session = self._sessions.get(key)
        if session is not None and session.expires <= self._clock():
            del self._sessions[key]
            return None
        return session

    def seconds_left(self, session: Session) -> float:
        """Seconds until a session ends; never negative."""
        return max(0.0, session.expires - self._clock())

    def sweep(self) -> None:
        """Forget sessions that have ended: their tokens must not stay because no one comes back."""
        now = self._clock()
        for key in [key for key, session in self._sessions.items() if session.expires <= now]:
            del self._sessions[key]

    def remove(self, cookie: str | None) -> None:
        """Forget a session; unknown ones are no error."""
        if cookie:
            self._sessions.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).digest()
