"""Names, numbers, addresses and choices as manifests, and the files beside them, write them."""

from __future__ import annotations

import re
from typing import Final, Literal

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Of an application, a namespace or a cluster."""

GroupMembership = Literal["None", "ApplicationGroup", "SecurityGroup", "All"]
"""`groupMembershipClaims`: which groups tokens have."""


def is_nine_digits(text: str) -> bool:
    """Whether a text has the form of an organization number."""
    return len(text) == 9 and text.isascii() and text.isdigit()


def is_organization_number(text: str) -> bool:
    """Whether a text is an organization number: nine digits, the last of which checks the others."""
    if not is_nine_digits(text):
        return False
    weighted = sum(int(digit) * weight for digit, weight in zip(text, (3, 2, 7, 6, 5, 4, 3, 2), strict=False))
    return -weighted % 11 == int(text[8])  # a check of 10 has no digit: such numbers do not exist


def is_reply_url(url: str) -> bool:
    """Whether Entra ID would accept a redirect URI: https, or http on this machine."""
    return bool(
        re.fullmatch(
            r"(https://[^\s#*/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?)(/[^\s#*]*)?", url
        )
    )
