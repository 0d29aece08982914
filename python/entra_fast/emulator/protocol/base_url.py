"""The address that clients use for the local Entra ID: checked here, because it becomes the issuer."""

from __future__ import annotations

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


def _not_an_origin(url: str) -> ConfigurationError:
    text = f"{url!r} is not an address like http://entra:8080 (scheme, host and port, no path)"
    return ConfigurationError("public_url_invalid", text, "public_url")
