"""What the local ID-porten remembers of logins: sessions, and what codes and refresh tokens stand for.

It is kept in memory, bounded in number and in time, and is saved and exported with the rest (state.py,
snapshot.py). What is done with it belongs in providers/idporten/store.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.protocol.expiring import ExpiringMap

MAX_CODES: Final = 10_000
MAX_REFRESH_TOKENS: Final = 50_000
MAX_SESSIONS: Final = 10_000
MAX_ASSERTION_IDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has logged in, and how.

    Attributes:
        key: names the person for pairwise subjects: number, or what stands in its place.
        pid: number; None for logins without one (eIDAS, e-mail).
        acr: level of assurance that the login has reached.
        amr: method of the login.
        email: of logins by e-mail.
    """

    key: str
    pid: str | None
    acr: str
    amr: str
    email: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which a person is logged in.

    Attributes:
        id: the claim `sid`.
        auth_time: when the person logged in, seconds since the epoch.
        ends: when it ends at the latest, seconds since the epoch.
        clients: client id and redirect URI of each login of the session, the latest last.
    """

    identity: Identity
    id: str
    auth_time: float
    ends: float
    clients: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """What a person agreed to by logging in to a client: what a code or a refresh token stands for.

    Attributes:
        scope: as requested.
        resource: the audience of the access token; empty for none.
        family: names the codes and tokens that descend from one login.
    """

    client_id: str
    redirect_uri: str
    scope: str
    resource: str
    nonce: str
    challenge: str
    locale: str
    identity: Identity
    session: str
    auth_time: float
    family: str


class IdPortenLogins:
    """All of it. Codes, tokens and cookies are kept as digests."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.codes: ExpiringMap[Grant] = ExpiringMap(MAX_CODES, clock, secret_keys=True)
        self.refresh_tokens: ExpiringMap[Grant] = ExpiringMap(MAX_REFRESH_TOKENS, clock, secret_keys=True)
        self.used: ExpiringMap[str] = ExpiringMap(MAX_CODES + MAX_REFRESH_TOKENS, clock, secret_keys=True)
        """Codes and refresh tokens that were used, each with the family of its tokens."""
        self.sessions: ExpiringMap[Session] = ExpiringMap(MAX_SESSIONS, clock, secret_keys=True)
        self.assertion_ids: ExpiringMap[bool] = ExpiringMap(MAX_ASSERTION_IDS, clock)
