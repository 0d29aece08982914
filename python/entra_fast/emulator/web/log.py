"""The log over HTTP: the journal as pages, with filters. It changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from entra_fast._web.paging import window
from entra_fast._web.responses import page
from entra_fast._web.token_contents import claim_members
from entra_fast.emulator.model import overview
from entra_fast.emulator.protocol.journal import MAX_ENTRIES, Entry
from entra_fast.emulator.web import journal
from entra_fast.emulator.web.handling import LOCAL
from entra_fast.emulator.web.pages import PAGES, error_page

OUTCOMES: Final = (("all", "all"), ("granted", "granted"), ("refused", "refused"))


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are shown. `application`: part of the consumer's or the target's name; `code`: AADSTS."""

    application: str = ""
    outcome: str = "all"
    code: str = ""

    def admits(self, entry: Entry) -> bool:
        """Whether an entry is shown."""
        if self.outcome in ("granted", "refused") and entry.granted != (self.outcome == "granted"):
            return False
        if self.code and self.code != str(entry.code):
            return False
        return self.application.lower() in f"{entry.client}\n{entry.target}".lower()


def add_routes(app: web.Application) -> None:
    """Add the log."""
    app.router.add_get("/log", _log)
    app.router.add_get("/log/{number:\\d{1,11}}", _log_entry)


def _filter(query: Iterable[tuple[str, str]]) -> Filter:
    given = dict(query)
    code = given.get("code", "").strip()
    return Filter(
        given.get("application", "").strip()[:200],
        given.get("outcome", "all"),
        code.upper().removeprefix("AADSTS")[:20],
    )


async def _log(request: web.Request) -> web.Response:
    local, query = request.app[LOCAL], request.query
    wanted = _filter(query.items())
    entries = local.journal.entries()
    codes = sorted({entry.code for entry in entries if entry.code is not None})
    live = query.get("live") == "1"
    chosen = {name: value for name, value in asdict(wanted).items() if value not in ("", "all")}
    return page(
        PAGES.render(
            "log.html",
            window=window([entry for entry in entries if wanted.admits(entry)], query.get("page", "1")),
            filter=wanted,
            filtered=bool(chosen),
            outcomes=OUTCOMES,
            codes=codes,
            application_names=overview.application_names(local.registry),
            live=live,
            events=f"{journal.ROOT}/events",
            other=urlencode(chosen if live else {**chosen, "live": "1"}),
            here=urlencode({**chosen, "live": "1"} if live else chosen),
        )
    )


async def _log_entry(request: web.Request) -> web.Response:
    local = request.app[LOCAL]
    entry = local.journal.find(int(request.match_info["number"]))
    if entry is None:
        text = f"The log keeps the last {MAX_ENTRIES} requests."
        return page(error_page("Log entry not found", text, actions=[("Open the log", "/log")]), 404)
    return page(PAGES.render("log_entry.html", entry=entry, claims=claim_members(entry.claims, local.now())))
