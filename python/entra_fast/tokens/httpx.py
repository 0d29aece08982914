"""Tokens for requests of HTTPX.

    from entra_fast.tokens.httpx import HttpxAuth

    auth = HttpxAuth(tokens, "dev-gcp:team-b:app-b", origins=["https://app-b.example"])
    async with httpx.AsyncClient(base_url="https://app-b.example", auth=auth) as api: ...

Needs httpx, which is loaded with this module.
"""

from __future__ import annotations

from entra_fast import _extras

with _extras.importing("httpx", "HttpxAuth"):
    import httpx

from entra_fast.tokens._httpx_flow import HttpxFlow

__all__ = ["HttpxAuth"]


class HttpxAuth(HttpxFlow, httpx.Auth):
    """Attaches a token to the requests of a client, or of one request (`auth=`).

    A 401 response with a claims challenge makes it request a new token and repeat the request, once, if the
    body can be sent again. All other responses are returned as they are.

    Args:
        tokens: an `AsyncTokenClient` for `httpx.AsyncClient`, a `TokenClient` for `httpx.Client`; or what
            `for_user` of it returns, for tokens on behalf of that user.
        target: `<cluster>:<namespace>:<app>`, or a scope.
        origins: the origins that get the token, such as `https://app-b.example`. Others get none, after
            redirects too. `http://host:port` is for loopback, and for networks that encrypt below HTTP.

    Raises:
        ConfigurationError: code `origin_invalid`.
    """

    _byte_stream = httpx.ByteStream
