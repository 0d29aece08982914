"""Names and addresses as manifests write them."""

from __future__ import annotations

import re
from typing import Final

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""Of an application, a namespace or a cluster."""


def is_reply_url(url: str) -> bool:
    """Whether Entra ID would accept a redirect URI: https, or http on this machine."""
    return bool(
        re.fullmatch(
            r"(https://[^\s#*/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?)(/[^\s#*]*)?", url
        )
    )
