"""What the local ID-porten remembers between requests: in memory, bounded in number and in time.

What is kept across restarts, and exported, has its form in protocol/idporten_logins.py.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from entra_fast.emulator.protocol.expiring import ExpiringMap
from entra_fast.emulator.protocol.idporten_logins import Grant, Identity, IdPortenLogins, Session
from entra_fast.emulator.providers.idporten.authorize import LoginRequest

PUSHED_LIFETIME: Final = 120.0
LOGIN_LIFETIME: Final = 1800.0
"""How long a login page may stay open."""
CODE_LIFETIME: Final = 120.0
IDLE_LIFETIME: Final = 30 * 60.0
SESSION_LIFETIME: Final = 120 * 60.0
"""Of a browser's session, however much it is used."""
AUTHORIZATION_LIFETIME: Final = 7200.0
"""From a login on, for which its refresh tokens work (digdirator registers this)."""

MAX_PUSHED: Final = 10_000
MAX_LOGINS: Final = 10_000
MAX_CLIENTS_OF_A_SESSION: Final = 100

REQUEST_URI_PREFIX: Final = "urn:ietf:params:oauth:request_uri:"


class Store:
    """Everything that is remembered.

    Args:
        clock: seconds since the epoch.
        kept: what is saved and exported with the rest of the local Entra ID: an import replaces it.
    """

    def __init__(self, clock: Callable[[], float], kept: Callable[[], IdPortenLogins]) -> None:
        self.clock = clock
        self._kept = kept
        self.pushed: ExpiringMap[LoginRequest] = ExpiringMap(MAX_PUSHED, clock, secret_keys=True)
        self.logins: ExpiringMap[LoginRequest] = ExpiringMap(MAX_LOGINS, clock, secret_keys=True)

    @property
    def codes(self) -> ExpiringMap[Grant]:
        """What the codes that are not used yet stand for."""
        return self._kept().codes

    @property
    def refresh_tokens(self) -> ExpiringMap[Grant]:
        """What the refresh tokens that are not used yet stand for."""
        return self._kept().refresh_tokens

    @property
    def used(self) -> ExpiringMap[str]:
        """Codes and refresh tokens that were used, each with the family of its tokens."""
        return self._kept().used

    @property
    def sessions(self) -> ExpiringMap[Session]:
        """Browsers in which a person is logged in, by their cookies."""
        return self._kept().sessions

    @property
    def assertion_ids(self) -> ExpiringMap[bool]:
        """The `jti` of assertions that were used."""
        return self._kept().assertion_ids

    def push(self, request: LoginRequest) -> str:
        """Remember a pushed request; its `request_uri` (RFC 9126, section 2.2)."""
        uri = REQUEST_URI_PREFIX + secrets.token_urlsafe(32)
        self.pushed.put(uri, request, PUSHED_LIFETIME)
        return uri

    def begin_login(self, request: LoginRequest) -> str:
        """Remember a request while its login page is open; the page's name for it."""
        name = secrets.token_urlsafe(32)
        self.logins.put(name, request, LOGIN_LIFETIME)
        return name

    def log_in(self, identity: Identity, earlier: str) -> tuple[str, Session]:
        """(cookie value, session) for a person who has just logged in.

        Args:
            earlier: the cookie that the browser had before. If it is of a session of the same person, that
                goes on, with the clients that take part in it.
        """
        cookie, now = secrets.token_urlsafe(32), self.clock()
        before = self.sessions.get(earlier)
        session = Session(identity, str(uuid.uuid4()), now, now + SESSION_LIFETIME)
        if before is not None and before.identity.key == identity.key:
            session = replace(session, id=before.id, clients=before.clients)
            self.sessions.remove(earlier)
        elif before is not None:
            self.end_session(earlier, before)
        self.sessions.put(cookie, session, IDLE_LIFETIME)
        return cookie, session

    def use_session(self, cookie: str, client_id: str, redirect_uri: str) -> None:
        """A session is used for a login to a client, which takes part in it from now on."""
        session = self.sessions.get(cookie)
        if session is not None:
            others = [client for client in session.clients if client != (client_id, redirect_uri)]
            clients = (*others[1 - MAX_CLIENTS_OF_A_SESSION :], (client_id, redirect_uri))
            left = session.ends - self.clock()
            self.sessions.put(cookie, replace(session, clients=clients), min(IDLE_LIFETIME, left))

    def new_code(self, grant: Grant) -> str:
        """An authorization code."""
        code = secrets.token_urlsafe(32)
        self.codes.put(code, grant, CODE_LIFETIME)
        return code

    def new_refresh_token(self, grant: Grant) -> str:
        """A refresh token. It is used once, and works for as long as the login's authorization does."""
        token = secrets.token_urlsafe(48)
        self.refresh_tokens.put(token, grant, self._authorized_for(grant))
        return token

    def take(self, entries: ExpiringMap[Grant], secret: str) -> Grant | None:
        """What a code or refresh token stands for; it is used up by that. None if it is unknown or was used
        before: then it has leaked, and all that descends from the same login is revoked (RFC 9700, sections
        4.13 and 4.14.2)."""
        grant = entries.get(secret)
        if grant is None:
            family = self.used.get(secret)
            if family is not None:
                self._revoke(lambda other: other.family == family)
            return None
        entries.remove(secret)
        self.used.put(secret, grant.family, max(1.0, self._authorized_for(grant)))
        return grant

    def end_session(self, cookie: str, session: Session) -> None:
        """Forget a session and what was issued in it."""
        self.sessions.remove(cookie)
        self._revoke(lambda grant: grant.session == session.id)

    def _authorized_for(self, grant: Grant) -> float:
        return grant.auth_time + AUTHORIZATION_LIFETIME - self.clock()

    def _revoke(self, concerned: Callable[[Grant], bool]) -> None:
        for entries in (self.codes, self.refresh_tokens):
            for name, _, grant in entries.items():
                if concerned(grant):
                    entries.discard(name)
