"""Who may use the console and the admin API: everyone on this machine or, where others can reach the server,
clients that send the token printed at start.

They hand out secrets of applications and forge tokens. What must not be here: the check of origins, which
holds for every request (server.py).
"""

from __future__ import annotations

import hmac
from typing import Final

from aiohttp import web

from entra_fast._web.negotiation import preferred
from entra_fast._web.responses import page, see_other
from entra_fast.emulator.web.handling import NO_STORE, json_response
from entra_fast.emulator.web.pages import error_page

COOKIE: Final = "entra_fast_admin"
PARAMETER: Final = "token"

_TEXT: Final = "the console and the admin API need the token that the local Entra ID printed at its start"
_ADVICE: Final = "Open the address with ?token=... that was printed at the start."


class AdminAccess:
    """The check of a server.

    Args:
        token: what callers have to show; None for nothing.
        secure: whether the server is reached over https, so that its cookie may require that.
    """

    def __init__(self, token: str | None, *, secure: bool) -> None:
        self._token = token
        self._secure = secure

    def answer(self, request: web.Request) -> web.Response | None:
        """The response to a request that may not go on, or None."""
        if self._token is None:
            return None
        if self._is_right(request.cookies.get(COOKIE)):
            return None
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_right(sent.strip()):
            return None
        if request.method == "GET" and self._is_right(request.query.get(PARAMETER)):
            return self._admitted(request)
        return _refused(request)

    def _is_right(self, sent: str | None) -> bool:
        # Bytes of a header that are not UTF-8 come as lone surrogates.
        wanted, shown = (self._token or "").encode(), (sent or "").encode(errors="surrogatepass")
        return bool(sent) and hmac.compare_digest(shown, wanted)

    def _admitted(self, request: web.Request) -> web.Response:
        """The same page without the token in its address, which ends up in histories."""
        response = see_other(str(request.rel_url.without_query_params(PARAMETER)))
        response.set_cookie(
            COOKIE, self._token or "", httponly=True, samesite="Strict", secure=self._secure, path="/"
        )
        return response


def _refused(request: web.Request) -> web.Response:
    challenge = {"WWW-Authenticate": 'Bearer realm="local Entra ID"'}
    if preferred(request.headers.get("Accept"), ("application/json", "text/html")) == "text/html":
        response = page(error_page("Token required", _TEXT, advice=[_ADVICE], actions=()), 401)
        response.headers.update(challenge)
        return response
    answer = {"error": "invalid_token", "error_description": f"{_TEXT}: Authorization: Bearer <token>"}
    return json_response(answer, 401, {**NO_STORE, **challenge})
