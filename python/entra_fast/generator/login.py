"""One login by authorization code with PKCE, as data: the values for the redirect and the cookie, and the
check that a callback belongs to them. No HTTP, no provider; the clock is an argument.

Nothing is stored here between the redirect and the callback, so logins that never come back cannot fill a
store. The browser keeps a *ticket* in a cookie: a random id, when it ends, and what to do
afterwards. `state` (RFC 6749, section 10.12), `nonce` (OpenID Connect Core, section 3.1.2.1) and the code
verifier (RFC 7636) are derived from the ticket with a key that never leaves the process. A changed ticket
therefore no longer fits its `state`, and reading the ticket reveals neither.

The destination after the login is a name from a closed set and an audience, never an address, so an open
redirect is impossible.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Destination = Literal["start", "obo", "m2m"]
"""The request that the login interrupted."""

TICKET_SECONDS = 600.0
"""How long a user may take at the provider's pages."""

_DESTINATIONS: frozenset[str] = frozenset(get_args(Destination))


class LoginError(Exception):
    """A callback that does not belong to a login begun in this browser. The text is for the user."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login in progress."""

    ticket: str
    state: str
    nonce: str
    verifier: str
    destination: Destination
    audience: str

    @property
    def challenge(self) -> str:
        """The S256 code challenge (RFC 7636, section 4.2)."""
        return _b64(hashlib.sha256(self.verifier.encode("ascii")).digest())


class Logins:
    """Begins logins and recognizes their callbacks.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._key = secrets.token_bytes(32)  # never stored: after a restart, users begin their login again
        self._clock = clock

    def begin(self, destination: Destination, audience: str = "") -> Login:
        """A new login that leads to `destination` when it is done."""
        content = [secrets.token_urlsafe(16), int(self._clock() + TICKET_SECONDS), destination, audience]
        ticket = _b64(json.dumps(content, separators=(",", ":")).encode())
        return self._login(ticket, destination, audience)

    def resume(self, ticket: str | None, state: str | None) -> Login:
        """The login that a callback belongs to.

        Raises:
            LoginError: no ticket, another ticket's state, or too late.
        """
        if not ticket:
            raise LoginError(
                "This browser has no sign-in in progress: it has already finished, it took longer than "
                f"{TICKET_SECONDS / 60:.0f} minutes, or cookies are blocked. Sign in again."
            )
        if not state or not hmac.compare_digest(
            self._derive("state", ticket).encode(), state.encode(errors="replace")
        ):
            raise LoginError(
                "The response does not belong to the last sign-in begun in this browser, or this server was "
                "restarted in the meantime. Sign in again."
            )
        # Only this process has the key, so a ticket that fits its state is its own.
        try:
            _, expires, destination, audience = json.loads(
                base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
            )
        except (binascii.Error, ValueError, TypeError):  # pragma: no cover - see above
            raise LoginError("The sign-in cannot be read. Sign in again.") from None
        if destination not in _DESTINATIONS or expires < self._clock():
            raise LoginError(
                f"The sign-in took longer than {TICKET_SECONDS / 60:.0f} minutes. Sign in again."
            )
        return self._login(ticket, destination, audience)

    def _login(self, ticket: str, destination: Destination, audience: str) -> Login:
        return Login(
            ticket=ticket,
            state=self._derive("state", ticket),
            nonce=self._derive("nonce", ticket),
            verifier=self._derive("verifier", ticket),
            destination=destination,
            audience=audience,
        )

    def _derive(self, purpose: str, ticket: str) -> str:
        return _b64(
            hmac.digest(self._key, f"{purpose}\0{ticket}".encode("utf-8", "surrogateescape"), "sha256")
        )


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
