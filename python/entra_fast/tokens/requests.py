"""Tokens for requests of Requests.

    from entra_fast.tokens.requests import RequestsAuth

    session.auth = RequestsAuth(tokens, "dev-gcp:team-b:app-b", origins=["https://app-b.example"])

Needs requests, which is loaded with this module.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterable
from typing import Any

from entra_fast import _extras

with _extras.importing("requests", "RequestsAuth"):
    from requests import PreparedRequest, Response
    from requests.auth import AuthBase
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

from entra_fast.tokens._authentication import Authentication, TokenSource, claims_challenge

__all__ = ["RequestsAuth"]


class RequestsAuth(AuthBase):
    """Attaches a token to the requests of a session, or to one request (`auth=`).

    A 401 response with a claims challenge makes it request a new token and repeat the request, once, if the
    body can be sent again. All other responses are returned as they are.

    Args:
        tokens: a `TokenClient`; or what its `for_user` returns, for tokens on behalf of that user.
        target: `<cluster>:<namespace>:<app>`, or a scope.
        origins: the origins that get the token, such as `https://app-b.example`. Others get none, after
            redirects too. `http://host:port` is for loopback, and for networks that encrypt below HTTP.

    Raises:
        ConfigurationError: code `origin_invalid`.
    """

    def __init__(self, tokens: TokenSource, target: str, *, origins: Iterable[str]) -> None:
        self._authentication = Authentication(tokens, target, origins)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """See Requests."""
        if _allows(self._authentication, request.url):
            request.headers["Authorization"] = self._authentication.token().authorization
            request.register_hook(  # type: ignore[no-untyped-call]
                "response", _Exchange(self._authentication, request).respond
            )
        return request


class _Exchange:
    """One request with its redirects: hooks are called for every response on the way."""

    def __init__(self, authentication: Authentication, request: PreparedRequest) -> None:
        self._authentication = authentication
        self._position = _position(request.body)
        self._renewed = False

    def respond(self, response: Response, **options: Any) -> Response:
        request = response.request
        if response.status_code == 401 and "Authorization" in request.headers and not self._renewed:
            response = self._repeat(response, options)
        if response.is_redirect:
            # The next request gets the headers of this one. Requests strips `Authorization` where the origin
            # changes, except from http to https on the same host.
            url = urllib.parse.urljoin(response.url, response.headers["Location"])
            if not _allows(self._authentication, url):
                request.headers.pop("Authorization", None)
        return response

    def _repeat(self, response: Response, options: dict[str, Any]) -> Response:
        """The response to the repeated request; the same one if there is nothing to repeat."""
        request = response.request
        if not _allows(self._authentication, request.url) or self._position is None:
            return response
        fields = response.raw.headers.getlist("WWW-Authenticate") if response.raw is not None else []
        claims = claims_challenge(fields)
        if claims is None:
            return response
        self._renewed = True
        request.headers["Authorization"] = self._authentication.token(claims).authorization
        if not isinstance(request.body, bytes | str | None):
            request.body.seek(self._position)
        _ = response.content  # so that the connection can be used again
        response.close()
        again: Response = response.connection.send(request, **options)
        again.history.append(response)
        again.request = request
        return again


def _allows(authentication: Authentication, url: str | None) -> bool:
    try:
        parts = parse_url(url or "")  # as Requests itself reads URLs
    except LocationParseError:
        return False
    return authentication.origins.allow(parts.scheme or "", parts.host, parts.port)


def _position(body: Any) -> int | None:
    """Where a body begins; None if it cannot be sent again."""
    if body is None or isinstance(body, bytes | str):
        return 0
    with contextlib.suppress(AttributeError, OSError):
        return int(body.tell()) if body.seekable() else None
    return None
