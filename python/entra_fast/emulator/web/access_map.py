"""The access map over HTTP: who may call whom, drawn; and the rule behind an arrow, in its file.

What is shown comes from model/calls.py, where it goes from drawing.py.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, urlencode

from aiohttp import web

from entra_fast._web.responses import page
from entra_fast.emulator.model import overview
from entra_fast.emulator.model.calls import Call, Calls, Place
from entra_fast.emulator.model.excerpt import excerpt
from entra_fast.emulator.protocol.journal import Entry, Journal
from entra_fast.emulator.web.drawing import BOX_HEIGHT, BOX_WIDTH, draw
from entra_fast.emulator.web.handling import LOCAL
from entra_fast.emulator.web.pages import PAGES, error_page
from entra_fast.errors import ConfigurationError

ROOT: Final = "/map"
MAX_SUGGESTIONS: Final = 100


def add_routes(app: web.Application) -> None:
    """Add the map and the page of a rule."""
    app.router.add_get(ROOT, _map)
    app.router.add_get("/applications/{name}/rules/{number:\\d{1,6}}", _rule)


def last_requests(journal: Journal) -> dict[tuple[str, str], Entry]:
    """The last request of each consumer for each target."""
    return {(entry.client, entry.target): entry for entry in reversed(journal.entries())}


async def _map(request: web.Request) -> web.Response:
    local, query = request.app[LOCAL], request.query
    application, namespace = query.get("application", "").strip(), query.get("namespace", "").strip()
    last = last_requests(local.journal)
    calls = Calls(local.registry, {pair: entry.granted for pair, entry in last.items()})
    problem, picture = "", None
    if application:
        picture = calls.of_application(application)
        problem = "" if picture else f"There is no application {application[:200]!r}."
    elif namespace:
        picture = calls.of_namespace(namespace)
        problem = "" if picture else f"There is no namespace {namespace[:200]!r}."
    picture = picture or calls.everything()
    drawing = draw(picture)
    numbers = {box.place.key: number for number, box in enumerate(drawing.boxes)}
    html = PAGES.render(
        "map.html",
        picture=picture,
        drawing=drawing,
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
        numbers=numbers,
        targets=_by_target(picture.calls),
        application=application,
        namespace=namespace,
        problem=problem,
        application_names=calls.applications()[:MAX_SUGGESTIONS],
        namespace_names=calls.namespaces()[:MAX_SUGGESTIONS],
        place_path=_place_path,
        call_path=lambda call: _call_path(call, last),
    )
    return page(html, 404 if problem else 200)


def _by_target(calls: Iterable[Call]) -> list[tuple[Place, list[Call]]]:
    return [(target, list(same)) for target, same in itertools.groupby(calls, key=lambda call: call.target)]


def _place_path(place: Place) -> str:
    """Where a box leads."""
    kind = "namespace" if place.kind == "namespace" else "application"
    return f"{ROOT}?{urlencode({kind: place.name})}"


def _call_path(call: Call, last: dict[tuple[str, str], Entry]) -> str:
    """Where an arrow leads: to its rule, to the refused request if there is no rule, or closer."""
    if call.number and call.target.kind == "application":
        return f"/applications/{quote(call.target.name, safe=':')}/rules/{call.number}"
    entry = last.get((call.consumer.name, call.target.name))
    if call.state == "none" and entry is not None:
        return f"/log/{entry.number}"
    return _place_path(call.target)


async def _rule(request: web.Request) -> web.Response:
    local, number = request.app[LOCAL], int(request.match_info["number"])
    try:
        details = overview.application(local.registry, request.match_info["name"])
    except ConfigurationError as error:
        return page(error_page("Application not found", error.message), 404)
    application = details.application
    path = f"/applications/{quote(application.name, safe=':')}"
    if not 1 <= number <= len(details.rules):
        text = f"{application.name} has {len(details.rules)} inbound rules."
        return page(error_page("Rule not found", text, actions=[("Open the application", path)]), 404)
    rule = details.rules[number - 1]
    lines = await asyncio.to_thread(excerpt, rule.location, local.loaded_files)
    entry = last_requests(local.journal).get((rule.consumer, application.name))
    return page(
        PAGES.render(
            "rule.html",
            application=application,
            path=path,
            number=number,
            rule=rule,
            lines=lines,
            entry=entry,
            question=urlencode({"consumer": rule.consumer, "target": application.name}),
        )
    )
