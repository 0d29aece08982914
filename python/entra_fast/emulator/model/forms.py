"""Names, addresses and choices as manifests, and the files beside them, write them."""

from __future__ import annotations

import re
from typing import Final, Literal

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Of an application, a namespace or a cluster."""

GroupMembership = Literal["None", "ApplicationGroup", "SecurityGroup", "All"]
"""`groupMembershipClaims`: which groups tokens have."""


def is_reply_url(url: str) -> bool:
    """Whether Entra ID would accept a redirect URI: https, or http on this machine."""
    return bool(
        re.fullmatch(
            r"(https://[^\s#*/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?)(/[^\s#*]*)?", url
        )
    )
