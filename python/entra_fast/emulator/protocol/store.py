"""The provider's state between requests: codes, refresh tokens, browser sessions, used assertion ids.

It is kept in memory, bounded in number and in time; the oldest entries are dropped first. Saving it belongs
in state.py.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

CODE_LIFETIME: Final = 600.0  # seconds; RFC 6749, section 4.1.2: at most 10 minutes
REFRESH_TOKEN_LIFETIME: Final = 24 * 3600.0
SESSION_LIFETIME: Final = 8 * 3600.0

MAX_CODES: Final = 10_000
MAX_REFRESH_TOKENS: Final = 50_000
MAX_SESSIONS: Final = 10_000
MAX_ASSERTION_IDS: Final = 100_000

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

    def remove(self, key: str) -> None:
        """Forget a value."""
        self._entries.pop(key, None)

    def items(self) -> list[tuple[str, float, V]]:
        """(key, end, value) of everything that has not expired."""
        now = self._clock()
        return [(key, end, value) for key, (end, value) in self._entries.items() if end > now]


@dataclass(frozen=True, slots=True)
class Login:
    """What a user has agreed to when signing in: the content of codes and refresh tokens.

    Attributes:
        scope: as requested at the authorization endpoint.
        family: of the code and of all refresh tokens that descend from it; empty where there was no code.
        challenge: PKCE `code_challenge`, with its method.
    """

    tenant_id: str
    client_id: str
    user_id: str
    scope: str
    session: str
    redirect_uri: str = ""
    nonce: str = ""
    challenge: str = ""
    challenge_method: str = ""
    amr: str = "pwd"
    family: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which a user is signed in."""

    tenant_id: str
    user_id: str
    id: str


class Store:
    """Everything that is remembered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.codes: ExpiringMap[Login] = ExpiringMap(MAX_CODES, clock)
        self.redeemed: ExpiringMap[str] = ExpiringMap(MAX_CODES, clock)
        """Codes that were redeemed, each with the family of its tokens (or nothing, once that is revoked)."""
        self.refresh_tokens: ExpiringMap[Login] = ExpiringMap(MAX_REFRESH_TOKENS, clock)
        self.sessions: ExpiringMap[Session] = ExpiringMap(MAX_SESSIONS, clock)
        self.assertion_ids: ExpiringMap[bool] = ExpiringMap(MAX_ASSERTION_IDS, clock)

    def new_code(self, login: Login) -> str:
        """An authorization code."""
        code = "1." + secrets.token_urlsafe(48)
        self.codes.put(code, replace(login, family=secrets.token_hex(16)), CODE_LIFETIME)
        return code

    def redeem(self, code: str, login: Login) -> None:
        """A code is used up: it can be redeemed once (RFC 6749, section 4.1.2)."""
        self.codes.remove(code)
        self.redeemed.put(code, login.family, CODE_LIFETIME)

    def was_redeemed(self, code: str) -> bool:
        """Whether a code is used up. If so it has leaked, and every refresh token that descends from it is
        revoked (RFC 6749, section 4.1.2; RFC 9700, section 4.14.2)."""
        family = self.redeemed.get(code)
        if family:
            self.redeemed.put(code, "", CODE_LIFETIME)
            for token, _, login in self.refresh_tokens.items():
                if login.family == family:
                    self.refresh_tokens.remove(token)
        return family is not None

    def new_refresh_token(self, login: Login) -> str:
        """A refresh token. Earlier ones stay valid, as Entra ID's do."""
        token = "1." + secrets.token_urlsafe(64)
        self.refresh_tokens.put(token, login, REFRESH_TOKEN_LIFETIME)
        return token

    def new_session(self, tenant_id: str, user_id: str) -> tuple[str, Session]:
        """(cookie value, session) for a user who has just signed in."""
        cookie = secrets.token_urlsafe(32)
        session = Session(tenant_id, user_id, secrets.token_hex(16))
        self.sessions.put(cookie, session, SESSION_LIFETIME)
        return cookie, session
