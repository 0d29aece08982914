"""Tokens for requests of aiohttp's client.

    from entra_fast.tokens.aiohttp import AiohttpAuth

    auth = AiohttpAuth(tokens, "dev-gcp:team-b:app-b", origins=["https://app-b.example"])
    async with aiohttp.ClientSession(middlewares=[auth]) as session: ...    # aiohttp 3.12 and newer
    await session.get(url, headers=await auth.headers(url))                 # older versions

aiohttp itself is not loaded with this module.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from entra_fast.tokens._authentication import AsyncTokenSource, Authentication, claims_challenge

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
    from yarl import URL

__all__ = ["AiohttpAuth"]


class AiohttpAuth:
    """A client middleware that attaches a token.

    A 401 response with a claims challenge makes it request a new token and repeat the request, once, if the
    body can be sent again. All other responses are returned as they are. aiohttp calls it for every request
    that a redirect leads to, so each is checked.

    Args:
        tokens: an `AsyncTokenClient`; or what its `for_user` returns, for tokens on behalf of that user.
        target: `<cluster>:<namespace>:<app>`, or a scope.
        origins: the origins that get the token, such as `https://app-b.example`. Others get none, after
            redirects too. `http://host:port` is for loopback, and for networks that encrypt below HTTP.

    Raises:
        ConfigurationError: code `origin_invalid`.
    """

    def __init__(self, tokens: AsyncTokenSource, target: str, *, origins: Iterable[str]) -> None:
        self._authentication = Authentication(tokens, target, origins)

    async def headers(self, url: str | URL) -> dict[str, str]:
        """The header with the token, for passing to a request; empty if the origin gets none. Redirects are
        aiohttp's own affair then: it strips the header where the origin changes. A 401 response is not
        answered.

        Args:
            url: of the request.
        """
        from yarl import URL  # noqa: PLC0415 - loaded with aiohttp

        if not self._allows(URL(url)):
            return {}
        return {"Authorization": (await self._authentication.token_async()).authorization}

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """See aiohttp."""
        if not self._allows(request.url):
            return await handler(request)
        request.headers["Authorization"] = (await self._authentication.token_async()).authorization
        response = await handler(request)
        if response.status != 401 or getattr(request.body, "consumed", False):
            return response
        claims = claims_challenge(response.headers.getall("WWW-Authenticate", []))
        if claims is None:
            return response
        response.release()
        request.headers["Authorization"] = (await self._authentication.token_async(claims)).authorization
        return await handler(request)

    def _allows(self, url: URL) -> bool:
        return self._authentication.origins.allow(url.scheme, url.raw_host, url.port)
