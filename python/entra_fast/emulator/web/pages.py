"""The pages of the local Entra ID: its templates, and the values that all of them use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from entra_fast._web.paging import PAGE_ROWS
from entra_fast._web.rendering import Pages
from entra_fast.emulator.protocol.aadsts import format_time

NAVIGATION: Final = (
    ("/", "Applications"),
    ("/map", "Access map"),
    ("/users", "Users and groups"),
    ("/log", "Log"),
    ("/explain", "Explain"),
    ("/mint", "Get a token"),
    ("/forge", "Forge a token"),
    ("/inspect", "Inspect a token"),
    ("/faults", "Faults and time"),
    ("/endpoints", "Endpoints and keys"),
)

PAGES: Final = Pages(
    __name__.rpartition(".")[0],
    filters={"moment": format_time, "clock": lambda seconds: format_time(seconds)[11:19]},
    # `current`: the path of the entry of the navigation that a page belongs to; pages outside the console
    # have no navigation.
    values={"navigation": NAVIGATION, "current": None, "page_rows": PAGE_ROWS},
)


def error_page(
    title: str,
    text: str,
    *,
    advice: Sequence[str] = (),
    details: Sequence[tuple[str, str]] = (),
    actions: Sequence[tuple[str, str]] = (("Open the console", "/"),),
) -> str:
    """An error page.

    Args:
        advice: what to do about it, in sentences.
        details: names and values.
        actions: links to continue with: text and path.
    """
    return PAGES.render("error.html", title=title, text=text, advice=advice, details=details, actions=actions)
