"""Responses with pages: one set of headers for all of them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from entra_fast._web.rendering import CONTENT_SECURITY_POLICY

PAGE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that, browsers send `Origin: null` with the forms of our own pages.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# An application may open the sign-in in a window of its own and watch it (`loginPopup` of MSAL.js). An opener
# policy would make that window look closed.
POPUP_HEADERS: Final = {
    name: value for name, value in PAGE_HEADERS.items() if name != "Cross-Origin-Opener-Policy"
}


def page(html: str, status: int = 200, *, popup: bool = False) -> web.Response:
    """A response with a page. `popup`: another origin may have opened its window, and needs to watch it."""
    headers = POPUP_HEADERS if popup else PAGE_HEADERS
    return web.Response(text=html, status=status, content_type="text/html", charset="utf-8", headers=headers)


def see_other(location: str) -> web.Response:
    """A redirect that is followed with GET, whatever the request was (RFC 9110, section 15.4.4)."""
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})
