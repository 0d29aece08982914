"""The authentication flow for HTTPX and for its successor httpx2, whose classes have the same interface.

What belongs here: the flow. The two public modules give it its base class.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from typing import Any

from entra_fast.tokens._authentication import (
    AsyncTokenSource,
    Authentication,
    TokenSource,
    claims_challenge,
)


class HttpxFlow:
    """Both flows are overridden: tokens are fetched in the one way or the other."""

    _byte_stream: type
    """The class of bodies that can be sent again."""

    def __init__(
        self, tokens: TokenSource | AsyncTokenSource, target: str, *, origins: Iterable[str]
    ) -> None:
        self._authentication = Authentication(tokens, target, origins)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """See HTTPX."""
        if not self._allows(request):
            yield request
            return
        if _can_be_upgraded(request):
            before = request.extensions.get("trace")

            def trace(name: str, info: dict[str, Any]) -> None:
                self._guard_upgrade(name, info)
                if before is not None:
                    before(name, info)

            request.extensions = {**request.extensions, "trace": trace}
        request.headers["Authorization"] = self._authentication.token().authorization
        response = yield request
        claims = self._challenge(request, response)
        if claims is not None:
            request.headers["Authorization"] = self._authentication.token(claims).authorization
            yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """See HTTPX."""
        if not self._allows(request):
            yield request
            return
        if _can_be_upgraded(request):
            before = request.extensions.get("trace")

            async def trace(name: str, info: dict[str, Any]) -> None:
                self._guard_upgrade(name, info)
                if before is not None:
                    await before(name, info)

            request.extensions = {**request.extensions, "trace": trace}
        request.headers["Authorization"] = (await self._authentication.token_async()).authorization
        response = yield request
        claims = self._challenge(request, response)
        if claims is not None:
            request.headers["Authorization"] = (await self._authentication.token_async(claims)).authorization
            yield request

    def _allows(self, request: Any) -> bool:
        url = request.url
        return self._authentication.origins.allow(url.scheme, url.raw_host.decode("ascii"), url.port)

    def _guard_upgrade(self, name: str, info: dict[str, Any]) -> None:
        """HTTPX strips `Authorization` from redirects to another origin, except from http to https on the
        same host. A `trace` extension, which such a redirect inherits, is called before headers are sent: it
        removes the token there, unless that origin is named too."""
        sent = info.get("request")
        if sent is None or not name.endswith(".send_request_headers.started"):
            return
        scheme, host = sent.url.scheme.decode("ascii"), sent.url.host.decode("ascii")
        if not self._authentication.origins.allow(scheme, host, sent.url.port):
            sent.headers = [(key, value) for key, value in sent.headers if key.lower() != b"authorization"]

    def _challenge(self, request: Any, response: Any) -> str | None:
        """The claims challenge of a response, if the request can be repeated for it."""
        if response.status_code != 401 or not isinstance(request.stream, self._byte_stream):
            return None
        last = response.request  # of another origin, after redirects
        if "Authorization" not in last.headers or not self._authentication.origins.allow(
            last.url.scheme, last.url.raw_host.decode("ascii"), last.url.port
        ):
            return None
        return claims_challenge(response.headers.get_list("WWW-Authenticate"))


def _can_be_upgraded(request: Any) -> bool:
    return request.url.scheme == "http" and request.url.port is None
