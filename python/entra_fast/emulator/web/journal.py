"""The journal for programs: as JSON, as JSON lines, and as server-sent events.

Only the forms in which entries leave belong here. Which entries there are, and which of them a selection
wants, is protocol/journal.py; the page of the log is console.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

import orjson
from aiohttp import web

from entra_fast.emulator.protocol.clock import parse_moment
from entra_fast.emulator.protocol.journal import OUTCOMES, Entry, Selection
from entra_fast.emulator.web.handling import LOCAL, NO_STORE, json_response
from entra_fast.errors import ConfigurationError, EntraFastError

ROOT: Final = "/admin/api/journal"
MAX_SUBSCRIBERS: Final = 50
HEARTBEAT_SECONDS: Final = 15.0
"""Longest silence of a stream: a comment shows that both sides are there."""
WRITE_SECONDS: Final = 30.0
"""A subscriber that does not read for so long is dropped."""
RECONNECT_MILLISECONDS: Final = 1000

_PARAMETERS: Final = ("application", "outcome", "code", "since", "after", "provider")
_MAX_NUMBER: Final = 10**15


class _Streams:
    """The open streams of a server."""

    def __init__(self) -> None:
        self.count = 0
        self.closing = False
        self.wake_ups: set[asyncio.Event] = set()

    def close(self) -> None:
        """End all streams, and let no new one begin."""
        self.closing = True
        for event in self.wake_ups:
            event.set()


_STREAMS: Final = web.AppKey("streams", _Streams)


def add_routes(app: web.Application) -> None:
    """Add the API of the journal. `/admin/api/log` is its older address."""
    app[_STREAMS] = _Streams()
    app.on_shutdown.append(_close_streams)
    for path in (ROOT, "/admin/api/log"):
        app.router.add_get(path, _entries)
        app.router.add_delete(path, _clear)
    app.router.add_get(f"{ROOT}.jsonl", _lines)
    app.router.add_get(f"{ROOT}/events", _events)


async def _close_streams(app: web.Application) -> None:
    app[_STREAMS].close()


async def _entries(request: web.Request) -> web.Response:
    found = request.app[LOCAL].journal.entries(_selection(request))
    return json_response([entry.document() for entry in found])


async def _clear(request: web.Request) -> web.Response:
    request.app[LOCAL].journal.clear()
    return web.Response(status=204)


async def _lines(request: web.Request) -> web.Response:
    """The oldest entry first, as in a log file."""
    found = request.app[LOCAL].journal.entries(_selection(request))
    lines = b"".join(orjson.dumps(entry.document()) + b"\n" for entry in reversed(found))
    return web.Response(body=lines, content_type="application/jsonl", charset="utf-8", headers=NO_STORE)


async def _events(request: web.Request) -> web.StreamResponse:
    """Each entry as an event, as it is added (HTML Standard, section 9.2)."""
    streams, journal = request.app[_STREAMS], request.app[LOCAL].journal
    wanted = _selection(request)
    sent = wanted.after if "after" in request.query or wanted.since is not None else journal.latest
    if (last := request.headers.get("Last-Event-ID")) is not None:
        sent = _whole_number("Last-Event-ID", last)
    if sent > journal.latest:
        sent = 0  # the number is another run's, whose journal is gone
    if streams.closing or streams.count >= MAX_SUBSCRIBERS:
        text = "the server stops" if streams.closing else f"{MAX_SUBSCRIBERS} streams are open already"
        return json_response({"error": "temporarily_unavailable", "error_description": text}, 503)
    headers = {**NO_STORE, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    news, loop = asyncio.Event(), asyncio.get_running_loop()
    streams.count += 1
    streams.wake_ups.add(news)
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        with journal.watched(lambda: _wake(loop, news)), contextlib.suppress(ConnectionError, TimeoutError):
            await _write(response, b"retry: %d\n\n" % RECONNECT_MILLISECONDS)
            while not streams.closing:
                news.clear()
                newer = replace(wanted, after=sent)
                sent, found = journal.latest, journal.entries(newer)
                for entry in reversed(found):
                    await _write(response, _event(entry))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), HEARTBEAT_SECONDS)
                if not news.is_set():
                    await _write(response, b": still here\n\n")
    finally:
        streams.count -= 1
        streams.wake_ups.discard(news)
    return response


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens any more
        loop.call_soon_threadsafe(news.set)


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)


def _event(entry: Entry) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (entry.number, orjson.dumps(entry.document()))


def _selection(request: web.Request) -> Selection:
    """The parameters of a request. Raises EntraFastError (code `request_invalid`)."""
    query = request.query
    for name in query:
        if name not in _PARAMETERS:
            raise _invalid(f"unknown parameter {name[:50]!r}; there are {', '.join(_PARAMETERS)}")
        if len(query.getall(name)) > 1:
            raise _invalid(f"{name}: given more than once")
    given = {name: value for name, value in query.items() if value}
    outcome = next((name for name in OUTCOMES if name == given.get("outcome")), None)
    if outcome is None and given.get("outcome", "all") != "all":
        raise _invalid(f"outcome: {given['outcome'][:50]!r} is none of: {', '.join(OUTCOMES)}, all")
    code = given.get("code")
    return Selection(
        application=_application(request, given["application"]) if "application" in given else None,
        outcome=outcome,
        code=None if code is None else _whole_number("code", code.upper().removeprefix("AADSTS")),
        since=_moment(given["since"]) if "since" in given else None,
        after=_whole_number("after", given.get("after", "0")),
        provider=given.get("provider"),
    )


def _application(request: web.Request, name: str) -> str:
    """The name by which the journal knows an application; what it does not know may still have sent
    requests."""
    try:
        return request.app[LOCAL].registry.find_workload(name).name
    except ConfigurationError:
        return name


def _whole_number(name: str, text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not 0 <= number <= _MAX_NUMBER:
        raise _invalid(f"{name}: {text[:50]!r} is not a whole number")
    return number


def _moment(text: str) -> float:
    try:
        return parse_moment(text.replace(" ", "+"))  # in a query, a blank may have been a plus
    except (ValueError, OverflowError):
        raise _invalid(
            f"since: {text[:50]!r} is neither a time such as 2026-01-31T12:00:00Z nor seconds since 1970"
        ) from None


def _invalid(text: str) -> EntraFastError:
    return EntraFastError("request_invalid", text)
