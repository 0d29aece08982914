"""The address that clients use for the local Entra ID, and other issuers of its tokens: checked here, because
no token may look like one of a real provider."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse
from typing import Final

from entra_fast.errors import ConfigurationError

# Tokens with an issuer of the real Entra ID could be mistaken for real ones.
_REAL_HOSTS: Final = (
    "microsoftonline.com",
    "microsoftonline.us",
    "microsoftonline.cn",
    "microsoftonline-p.com",
    "microsoft.com",
    "microsoft.us",
    "windows.net",
    "chinacloudapi.cn",
    "ciamlogin.com",
    "b2clogin.com",
    "microsoftonline.de",
)


def check_base_url(url: str) -> str:
    """The origin of a provider's address; the real Entra ID's are refused.

    Raises:
        ConfigurationError: it is not an origin, or belongs to the real Entra ID.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # brackets that are no IPv6 address, a port that is no number
        raise _not_an_origin(url) from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not host or port == 0 or rest:
        raise _not_an_origin(url)
    if _is_real(host):
        text = f"{host} belongs to the real Entra ID; the local one never signs in its name"
        raise ConfigurationError("issuer_is_real", text, "public_url")
    return f"{parts.scheme}://{parts.netloc}".rstrip("/")


def check_issuer(issuer: str) -> None:
    """Refuse an issuer on a host of a real provider, however it is written.

    Programs read addresses differently, so every host that one of them could find there counts.

    Raises:
        ConfigurationError: it names such a host.
    """
    text = unicodedata.normalize("NFKC", issuer)
    for _ in range(3):  # also what is escaped more than once
        text = urllib.parse.unquote(text)
    text = "".join(character for character in text if character.isprintable() and character != " ")
    text = text.casefold().replace("\\", "/")
    authority = re.split(r"[/?#]", re.sub(r"^([a-z][a-z0-9+.-]*:)?/*", "", text, count=1), maxsplit=1)[0]
    # Without a scheme, what looks like one may be the host: `login.example:443`.
    start = re.split(r"[/?#]", text.lstrip("/"), maxsplit=1)[0]
    for part in (authority, start):
        for host in re.split("[@:,;]", part):
            if _is_real(host.strip("[]").replace("\u3002", ".")):
                raise ConfigurationError(
                    "issuer_is_real",
                    f"issuer: {issuer[:200]!r} is on a host of a real provider, and no token is ever issued "
                    "in its name here",
                    "issuer",
                )


def _is_real(host: str) -> bool:
    name = host.strip(".").lower()
    return any(name == real or name.endswith("." + real) for real in _REAL_HOSTS)


def _not_an_origin(url: str) -> ConfigurationError:
    text = f"{url!r} is not an address like http://entra:8080 (scheme, host and port, no path)"
    return ConfigurationError("public_url_invalid", text, "public_url")
