"""Proof Key for Code Exchange (RFC 7636): does a code verifier belong to the code?"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.login import Login

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}")  # RFC 7636, section 4.1


def check_verifier(login: Login, verifier: str, *, required: bool) -> None:
    """Compare the verifier of a token request with the challenge of the login.

    Args:
        verifier: as sent; empty if none was sent.
        required: whether the client must use PKCE.

    Raises:
        EntraError: 501481, or 9002325 where PKCE is required and was not used.
    """
    if not login.challenge:
        if required:
            raise EntraError(9002325)
        if verifier:
            # RFC 9700, section 4.8.2: a verifier without a challenge is a sign of a downgrade.
            raise EntraError(501481)
        return
    if not _VERIFIER.fullmatch(verifier):
        raise EntraError(501481)
    computed = _s256(verifier) if login.challenge_method == "S256" else verifier
    if not hmac.compare_digest(computed, login.challenge):
        raise EntraError(501481)


def _s256(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
