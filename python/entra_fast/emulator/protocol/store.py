"""The state of all local providers between requests: codes, refresh tokens, browser sessions, used assertion
ids and grants, device codes.

It is kept in memory, bounded in number and in time; the oldest entries are dropped first. Saving it belongs
in state.py.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from entra_fast.emulator.protocol.device_codes import DeviceCodes
from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.idporten_logins import IdPortenLogins
from entra_fast.emulator.protocol.login import Login

CODE_LIFETIME: Final = 600.0  # seconds; RFC 6749, section 4.1.2: at most 10 minutes
REFRESH_TOKEN_LIFETIME: Final = 24 * 3600.0
SESSION_LIFETIME: Final = 8 * 3600.0

MAX_CODES: Final = 10_000
MAX_REFRESH_TOKENS: Final = 50_000
MAX_SESSIONS: Final = 10_000
MAX_CLIENTS_OF_A_SESSION: Final = 100
MAX_ASSERTION_IDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which a user is signed in.

    Attributes:
        id: the claim `sid`.
        auth_time: when the user signed in, seconds since the epoch.
        clients: client ids of the applications that the user has signed in to, the latest last.
    """

    tenant_id: str
    user_id: str
    id: str
    auth_time: float = 0.0
    clients: tuple[str, ...] = ()


class Store:
    """Everything that is remembered."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.codes: ExpiringMap[Login] = ExpiringMap(MAX_CODES, clock, secret_keys=True)
        self.redeemed: ExpiringMap[str] = ExpiringMap(MAX_CODES, clock, secret_keys=True)
        """Codes that were redeemed, each with the family of its tokens (or nothing, once that is revoked)."""
        self.refresh_tokens: ExpiringMap[Login] = ExpiringMap(MAX_REFRESH_TOKENS, clock, secret_keys=True)
        self.sessions: ExpiringMap[Session] = ExpiringMap(MAX_SESSIONS, clock, secret_keys=True)
        self.assertion_ids: ExpiringMap[bool] = ExpiringMap(MAX_ASSERTION_IDS, clock)
        self.used_grants: ExpiringMap[bool] = ExpiringMap(MAX_ASSERTION_IDS, clock)
        """Grants that Maskinporten has accepted."""
        self.device_codes = DeviceCodes(clock)
        self.idporten = IdPortenLogins(clock)

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
            for name, _, login in self.refresh_tokens.items():
                if login.family == family:
                    self.refresh_tokens.discard(name)
        return family is not None

    def new_refresh_token(self, login: Login, *, fixed: bool = False) -> tuple[str, int]:
        """(refresh token, seconds until it expires). Earlier ones stay valid, as Entra ID's do.

        Args:
            fixed: whether it inherits the end of its predecessor (single-page applications).
        """
        token = "1." + secrets.token_urlsafe(64)
        # One with a fixed end is remembered for longer, so that its late use gets an error of its own.
        self.refresh_tokens.put(token, login, REFRESH_TOKEN_LIFETIME * (2 if fixed else 1))
        left = login.started + REFRESH_TOKEN_LIFETIME - self.clock() if fixed else REFRESH_TOKEN_LIFETIME
        return token, int(left)

    def new_session(self, tenant_id: str, user_id: str) -> tuple[str, Session]:
        """(cookie value, session) for a user who has just signed in."""
        cookie = secrets.token_urlsafe(32)
        session = Session(tenant_id, user_id, str(uuid.uuid4()), self.clock())
        self.sessions.put(cookie, session, SESSION_LIFETIME)
        return cookie, session

    def add_client(self, cookie: str, client_id: str) -> None:
        """A client takes part in a session from now on: it is told when that ends."""
        session = self.sessions.get(cookie)
        if session is not None:
            others = [client for client in session.clients if client != client_id]
            clients = (*others[1 - MAX_CLIENTS_OF_A_SESSION :], client_id)
            self.sessions.replace(cookie, replace(session, clients=clients))
