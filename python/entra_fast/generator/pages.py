"""The token generator's pages, from plain values. No requests, no provider, no state."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from entra_fast import _native
from entra_fast._aadsts import KINDS
from entra_fast._web import commands
from entra_fast._web.paging import window
from entra_fast._web.rendering import Pages
from entra_fast._web.token_contents import claim_members, readable_time
from entra_fast.errors import InvalidToken
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS

MAX_SUGGESTIONS: Final = 200
EXAMPLE_PID: Final = "17858549949"
"""A synthetic person."""

_PAGES: Final = Pages(__name__.rpartition(".")[0])


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        user: the name of the signed-in user, if any.
        return_to: query of `/oauth2/login` that leads back to what is asked for; empty, or begins with `?`.
        product: name of the token generator.
    """

    user: str | None
    minutes_left: int
    return_to: str = ""
    product: str = "Token generator"

    def values(self) -> dict[str, object]:
        """What the frame of every page shows."""
        return {
            "user": self.user,
            "minutes_left": self.minutes_left,
            "return_to": self.return_to,
            "product_name": self.product,
        }


def start_page(
    visitor: Visitor,
    *,
    issuer: str,
    base_url: str,
    audiences: Sequence[str],
    audience: str = "",
    search: str = "",
    number: str = "1",
) -> str:
    """Choose an audience and the kind of token.

    Args:
        audience: what the field has at first.
        search, number: which of the known audiences to list: those with this text, and which page of them.
    """
    return _PAGES.render(
        "start.html",
        **visitor.values(),
        **_choice(audiences, audience, search, number),
        issuer=issuer,
        command=_public_command(base_url, _example(audiences, audience)),
    )


def tokenx_start_page(
    visitor: Visitor,
    *,
    client: str,
    base_url: str,
    audiences: Sequence[str],
    audience: str = "",
    search: str = "",
    number: str = "1",
    without_login: bool = False,
) -> str:
    """Choose a target for a token of TokenX.

    Args:
        client: the name by which targets admit the token generator.
        audience, search, number: as for `start_page`.
        without_login: whether there are tokens without a login.
    """
    shown = _example(audiences, audience)
    url = shlex.quote(f"{base_url}/api/public/obo")
    form = " ".join(f"-d {shlex.quote(field)}" for field in (f"aud={shown}", f"pid={EXAMPLE_PID}"))
    return _PAGES.render(
        "tokenx_start.html",
        **visitor.values(),
        **_choice(audiences, audience, search, number),
        client=client,
        command=f"TOKEN=$(curl -sf {url} {form})" if without_login else "",
    )


def _choice(audiences: Sequence[str], audience: str, search: str, number: str) -> dict[str, Any]:
    """What the field for the audience and the list of known ones need."""
    found = [name for name in audiences if search.strip().lower() in name.lower()]
    return {
        "audiences": audiences[:MAX_SUGGESTIONS],
        "window": window(found, number),
        "audience": audience[:MAX_AUDIENCE_CHARACTERS],
        "search": search,
        "here": urlencode({"q": search} if search else {}),
        "max_length": MAX_AUDIENCE_CHARACTERS,
    }


def _example(audiences: Sequence[str], audience: str) -> str:
    """The audience in the command."""
    return audience or (audiences[0] if audiences else "<cluster>:<namespace>:<app>")


def token_page(
    visitor: Visitor,
    *,
    base_url: str,
    audience: str,
    on_behalf: bool,
    token: str,
    expires_in: int,
    now: float,
) -> str:
    """A token, what it says, and how to use it. `now`: seconds since the epoch."""
    claims: dict[str, Any] | None
    try:
        claims = _native.unverified_claims(token)
    except InvalidToken:
        claims = None  # some APIs have tokens that only they can read
    return _PAGES.render(
        "token.html",
        **visitor.values(),
        audience=audience,
        on_behalf=on_behalf,
        token=token,
        expires=readable_time(now + expires_in, now),
        claims=None if claims is None else claim_members(claims, now),
        unverified_claims=claims,
        call=commands.call_api(token),
        again="/api/obo" if on_behalf else "/api/m2m",
        command=_public_command(base_url, audience),
    )


def error_page(
    visitor: Visitor,
    *,
    title: str,
    error: str,
    description: str,
    codes: Sequence[int] = (),
    again: str | None = None,
    audience: str = "",
) -> str:
    """The provider's error message, and what to do about it.

    Args:
        codes: AADSTS codes of the provider.
        again: a local path that repeats what was asked.
        audience: what was asked for, if anything.
    """
    retry = [("Try again", again)] if again else []
    start = f"/?{urlencode({'aud': audience})}" if audience else "/"
    return _PAGES.render(
        "error.html",
        **visitor.values(),
        title=title,
        text=description,
        advice=[KINDS[code].advice for code in codes if code in KINDS and KINDS[code].advice],
        details=[("Error", error)],
        actions=[*retry, ("Choose another audience", start)],
    )


def _public_command(base_url: str, audience: str) -> str:
    url, form = shlex.quote(f"{base_url}/api/public/m2m"), shlex.quote(f"aud={audience}")
    return f"TOKEN=$(curl -sf {url} -d {form})"
