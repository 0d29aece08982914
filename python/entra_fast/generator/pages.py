"""The token generator's pages, from plain values. No requests, no provider, no state."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from entra_fast._aadsts import KINDS
from entra_fast._web.rendering import Pages
from entra_fast.generator.audience import MAX_AUDIENCE_CHARACTERS

_PAGES: Final = Pages(__name__.rpartition(".")[0])


def start_page(
    *,
    issuer: str,
    base_url: str,
    audiences: Sequence[str],
    user: str | None,
    minutes_left: int,
) -> str:
    """Choose an audience and the kind of token."""
    example = audiences[0] if audiences else "<cluster>:<namespace>:<app>"
    url, form = shlex.quote(f"{base_url}/api/public/m2m"), shlex.quote(f"aud={example}")
    return _PAGES.render(
        "start.html",
        issuer=issuer,
        audiences=audiences,
        command=f"TOKEN=$(curl -sf {url} -d {form})",
        max_length=MAX_AUDIENCE_CHARACTERS,
        user=user,
        minutes_left=minutes_left,
    )


def error_page(
    *,
    title: str,
    error: str,
    description: str,
    codes: Sequence[int] = (),
    again: str | None = None,
    user: str | None = None,
    minutes_left: int = 0,
) -> str:
    """The provider's error message, and what to do about it.

    Args:
        codes: AADSTS codes of the provider.
        again: a local path that repeats what was asked.
    """
    retry = [("Try again", again)] if again else []
    return _PAGES.render(
        "error.html",
        title=title,
        text=description,
        advice=[KINDS[code].advice for code in codes if code in KINDS and KINDS[code].advice],
        details=[("Error", error)],
        actions=[*retry, ("Choose another audience", "/")],
        user=user,
        minutes_left=minutes_left,
    )
