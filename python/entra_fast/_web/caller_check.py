"""Which requests a page of another site, open in the same browser, may cause: none that matters.

Plain values in, a sentence out; no HTTP library.
"""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass

from entra_fast._settings.load import is_loopback_host


@dataclass(frozen=True, slots=True)
class CallerCheck:
    """What a server accepts.

    Attributes:
        base_url: its origin as browsers know it, without a trailing slash.
        hosts: names that it is reached by, besides loopback; None for any.
        advice: how to add a name to `hosts`.
    """

    base_url: str
    hosts: frozenset[str] | None
    advice: str

    def refuse_host(self, host: str) -> str | None:
        """Why the `Host` header is refused, or None. A page whose name suddenly resolves to this machine has
        the same origin as its server, as far as its browser can tell (DNS rebinding).
        """
        name = host_name(host)
        if self.hosts is None or name in self.hosts or is_loopback_host(name):
            return None
        return f"the Host header does not name this server; {self.advice}"

    def refuse_origin(self, host: str, origin: str | None, fetch_site: str | None) -> str | None:
        """Why a request that changes something is refused, or None (cross-site request forgery)."""
        # Browsers send Sec-Fetch-Site to https and loopback addresses only; programs send neither header.
        if fetch_site is not None:
            own = fetch_site in {"same-origin", "none"}
        else:
            # The same server under another of its names (localhost for 127.0.0.1) is still this server.
            scheme = urllib.parse.urlsplit(self.base_url).scheme
            own = origin is None or origin in {self.base_url, f"{scheme}://{host}"}
        return None if own else "the request comes from a page of another origin"


def host_name(host: str) -> str:
    """The name in a `Host` header, without port and brackets, in lower case; empty where there is none."""
    try:
        return urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
