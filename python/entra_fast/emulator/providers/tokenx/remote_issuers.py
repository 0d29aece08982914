"""Issuers of subject tokens that the operator names by their discovery documents: their keys, over HTTP."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable
from typing import Final

from entra_fast._native import KeySet
from entra_fast._provider.http_options import HttpOptions
from entra_fast.emulator.providers.tokenx.token_endpoint import KeysUnreachable
from entra_fast.errors import ConfigurationError, EntraFastError

WELL_KNOWN: Final = "/.well-known/"
COOL_DOWN: Final = 5.0
"""Shortest time between two fetches from an issuer, in seconds."""


class RemoteIssuer:
    """An issuer whose keys are fetched when they are first needed, and again for an unknown `kid`.
    Thread-safe.

    Args:
        url: of its discovery document (OpenID Connect Discovery 1.0, section 4, or RFC 8414, section 3).
        monotonic: seconds of a clock that never jumps.

    Attributes:
        name: the issuer, without a slash at the end.

    Raises:
        ConfigurationError: that is no such URL.
    """

    def __init__(self, url: str, monotonic: Callable[[], float]) -> None:
        parts = urllib.parse.urlsplit(url)
        before, separator, after = parts.path.partition(WELL_KNOWN)
        if parts.scheme not in ("http", "https") or not parts.netloc or not separator:
            text = f"{url[:200]!r} is not the URL of a discovery document, like https://issuer.example/.well-known/..."
            raise ConfigurationError("subject_issuer_invalid", text, "subject_issuers")
        self.url = url
        path = before or "".join(f"/{step}" for step in after.split("/")[1:])
        self.name = f"{parts.scheme}://{parts.netloc}{path}".rstrip("/")
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at: float | None = None

    def keys(self, issuer: str, kid: str | None) -> KeySet:
        """Its keys, for a token with this `iss` and `kid`. Raises KeysUnreachable."""
        with self._lock:
            known = self._keys
            if known is not None and (kid is None or kid in known.kids):
                return known
            now = self._monotonic()
            if known is not None and self._fetched_at is not None and now < self._fetched_at + COOL_DOWN:
                return known
            self._fetched_at = now
            from entra_fast._arguments import fetch_discovery, key_fetcher  # noqa: PLC0415 - only where there is one

            try:
                options = HttpOptions()
                discovery = fetch_discovery(self.url, issuer, options)
                answer = key_fetcher(options)(discovery.jwks_uri)
                if answer.status != 200:
                    raise KeysUnreachable(f"{discovery.jwks_uri} answered {answer.status}")
                self._keys = KeySet(answer.body)
            except EntraFastError as error:
                raise KeysUnreachable(error.message) from None
            return self._keys
