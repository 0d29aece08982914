"""The address that clients use for the local Entra ID, and other issuers of its tokens: checked here, because
no token may look like one of a real provider."""

from __future__ import annotations

import re
import unicodedata
import urllib.parse

from entra_fast._net import is_real_provider
from entra_fast.errors import ConfigurationError


def check_base_url(url: str) -> str:
    """The origin of a provider's address. Those of real providers are refused: tokens with such an issuer
    could be mistaken for real ones.

    Raises:
        ConfigurationError: it is not an origin, or belongs to a real provider.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:  # brackets that are no IPv6 address, a port that is no number
        raise _not_an_origin(url) from None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not host or port == 0 or rest:
        raise _not_an_origin(url)
    if is_real_provider(host):
        text = f"{host} belongs to a real provider; the local one never signs in its name"
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
            if is_real_provider(host.strip("[]").replace("\u3002", ".")):
                raise ConfigurationError(
                    "issuer_is_real",
                    f"issuer: {issuer[:200]!r} is on a host of a real provider, and no token is ever issued "
                    "in its name here",
                    "issuer",
                )


def _not_an_origin(url: str) -> ConfigurationError:
    text = f"{url!r} is not an address like http://entra:8080 (scheme, host and port, no path)"
    return ConfigurationError("public_url_invalid", text, "public_url")
