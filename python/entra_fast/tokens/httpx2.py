"""Tokens for requests of httpx2.

    from entra_fast.tokens.httpx2 import Httpx2Auth

    auth = Httpx2Auth(tokens, "dev-gcp:team-b:app-b", origins=["https://app-b.example"])
    async with httpx2.AsyncClient(base_url="https://app-b.example", auth=auth) as api: ...

Needs httpx2, which is loaded with this module.
"""

from __future__ import annotations

from entra_fast import _extras

with _extras.importing("httpx2", "Httpx2Auth"):
    import httpx2

from entra_fast.tokens._httpx_flow import HttpxFlow

__all__ = ["Httpx2Auth"]


class Httpx2Auth(HttpxFlow, httpx2.Auth):
    """Attaches a token to the requests of a client, or of one request (`auth=`).

    A 401 response with a claims challenge makes it request a new token and repeat the request, once, if the
    body can be sent again. All other responses are returned as they are.

    Args:
        tokens: an `AsyncTokenClient` for `httpx2.AsyncClient`, a `TokenClient` for `httpx2.Client`; or what
            `for_user` of it returns, for tokens on behalf of that user.
        target: `<cluster>:<namespace>:<app>`, or a scope.
        origins: the origins that get the token, such as `https://app-b.example`. Others get none, after
            redirects too. `http://host:port` is for loopback, and for networks that encrypt below HTTP.

    Raises:
        ConfigurationError: code `origin_invalid`.
    """

    _byte_stream = httpx2.ByteStream
