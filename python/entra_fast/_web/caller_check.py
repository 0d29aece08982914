"""Refuse requests that a page of another site could send from the same browser; for servers that have pages.

The rules are the core's (`rust/core/src/sidecar/contract.rs`); here they become one check and its sentences.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from entra_fast import _native


class CallerCheck:
    """The caller check of a server.

    Args:
        base_url: the server's origin as browsers know it, without a trailing slash.
        hosts: names that it is reached by, besides loopback; None for any.
        advice: how to add a name, for people.
    """

    def __init__(self, base_url: str, hosts: Collection[str] | None, advice: str) -> None:
        self._base_url = base_url
        self._hosts = None if hosts is None else _native.CallerCheck(hosts)
        self._advice = advice

    def refusal(self, request: web.Request, *, changes: bool) -> str | None:
        """Why a request is refused, or None.

        Args:
            changes: whether it does something, so that no page of another origin may send it.
        """
        headers = request.headers
        hosts = headers.getall("Host", [])
        # DNS rebinding: a page whose name suddenly resolves to this machine has, to its browser, the origin
        # of this server.
        if self._hosts is not None and not (len(hosts) == 1 and self._hosts.allows_host(hosts[0])):
            return f"the Host header does not name this server; {self._advice}"
        # Cross-site request forgery.
        if changes and not _native.is_own_page(
            fetch_site=headers.get("Sec-Fetch-Site"),
            origin=headers.get("Origin"),
            own_origin=self._base_url,
            host=hosts[0] if hosts else "",
        ):
            return "the request comes from a page of another origin"
        return None
