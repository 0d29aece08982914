"""What token clients return: `Token`, and the tuple that clients of azure-core expect."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from entra_fast._native import CachedToken
from entra_fast._provider.tokens import AcquiredToken


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """An access token. Its text is in `access_token` only, never in `repr`.

    Attributes:
        access_token: the token, without `Bearer `.
        expires_at: when it expires, in seconds since the epoch.
        token_type: always `Bearer`.
    """

    access_token: str
    expires_at: float
    token_type: str = "Bearer"

    @property
    def expires_in(self) -> int:
        """Whole seconds until it expires; 0 if it has."""
        return max(0, int(self.expires_at - time.time()))

    @property
    def authorization(self) -> str:
        """The value of an `Authorization` header (RFC 6750, section 2.1)."""
        return f"Bearer {self.access_token}"

    @property
    def token(self) -> str:
        """`access_token`, under the name that azure-core has for it."""
        return self.access_token

    @property
    def expires_on(self) -> int:
        """`expires_at` in whole seconds, under the name that azure-core has for it."""
        return int(self.expires_at)

    @property
    def refresh_on(self) -> int:
        """When azure-core should ask again, in seconds since the epoch: after half of the time that is left.
        The client answers from its cache, and renews the token itself."""
        return int((time.time() + self.expires_at) / 2)

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at:.0f})"


def public(acquired: AcquiredToken | CachedToken) -> Token:
    """The token that the token client of `_provider` has acquired, or has in its cache."""
    return Token(acquired.access_token, time.time() + acquired.expires_in)


class AccessToken(NamedTuple):
    """A token in the form of azure-core's `AccessToken`.

    Attributes:
        token: the token, without `Bearer `.
        expires_on: when it expires, in seconds since the epoch.
    """

    token: str
    expires_on: int

    def __repr__(self) -> str:
        return f"AccessToken(expires_on={self.expires_on})"
