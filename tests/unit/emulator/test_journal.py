"""The journal for programs: JSON, JSON lines, server-sent events; with filters, bounds and an orderly end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from entra_fast.emulator.protocol.journal import MAX_ENTRIES
from entra_fast.emulator.web import journal
from support.local_entra import Caller, Clock, local_entra, served

from .conftest import DIRECTORY, MANIFESTS

API = "/admin/api/journal"
A, B, C = "dev-gcp:team:app-a", "dev-gcp:team:app-b", "dev-gcp:team:app-c"


class Stream:
    """The events of a stream."""

    def __init__(self, content: Any) -> None:
        self._content = content

    async def block(self) -> dict[str, str]:
        """The fields up to the next empty line; a comment has no name."""
        fields: dict[str, str] = {}
        while line := (await asyncio.wait_for(self._content.readline(), 10)).decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name.rstrip(":")] = value
        return fields

    async def event(self) -> dict[str, Any]:
        """The next entry, whose id is its number."""
        while "data" not in (fields := await self.block()):
            pass
        entry: dict[str, Any] = json.loads(fields["data"])
        assert fields["id"] == str(entry["number"])
        return entry


@asynccontextmanager
async def stream(entra: Caller, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    url = f"{entra.base_url}{API}/events{query}"
    async with entra.session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        events = Stream(response.content)
        assert await events.block() == {"retry": "1000"}
        yield events


async def numbers(entra: Caller, query: str = "") -> list[int]:
    return [entry["number"] for entry in (await entra.request("GET", API + query)).json]


async def test_filters_select_entries(entra: Caller, clock: Clock) -> None:
    """By application (client or target, by any of its names), outcome, code, time and number; all hold."""
    await entra.m2m("app-a", "app-b")  # 1
    clock.now += 100
    await entra.m2m("app-c", "app-b")  # 2: refused, AADSTS501051
    clock.now += 100
    await entra.m2m("app-a", "app-a", client_secret="wrong")  # 3: refused, AADSTS7000215
    assert await numbers(entra) == [3, 2, 1]
    assert await numbers(entra, f"?application={A}") == [3, 1]
    assert await numbers(entra, f"?application={entra.client_id('app-b')}") == [2, 1]
    assert await numbers(entra, "?application=unknown") == []
    assert await numbers(entra, "?outcome=granted") == [1]
    assert await numbers(entra, "?outcome=refused") == [3, 2]
    assert await numbers(entra, "?outcome=all&code=") == [3, 2, 1]
    assert await numbers(entra, "?code=AADSTS501051") == [2]
    assert await numbers(entra, f"?code=7000215&application={B}") == []
    assert await numbers(entra, f"?since={clock.now - 100:.0f}") == [3, 2]
    assert await numbers(entra, "?since=2027-01-15T08:03:20Z") == [3]
    assert await numbers(entra, "?after=2") == [3]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("outcome=maybe", "outcome: 'maybe' is none of: granted, refused, all"),
        ("code=many", "code: 'MANY' is not a whole number"),
        ("since=yesterday", "since: 'yesterday' is neither a time such as"),
        ("since=2026-01-31T12:00:00", "since: '2026-01-31T12:00:00' is neither"),
        ("after=-1", "after: '-1' is not a whole number"),
        ("client=app-a", "unknown parameter 'client'; there are application, outcome, code, since, after"),
        ("code=1&code=2", "code: given more than once"),
    ],
)
@pytest.mark.parametrize("path", ["", ".jsonl", "/events"])
async def test_wrong_filters_are_refused(entra: Caller, path: str, query: str, sentence: str) -> None:
    """With a sentence, at each of the three."""
    answer = await entra.request("GET", f"{API}{path}?{query}")
    assert answer.status == 400
    assert sentence in answer.json["error_description"]


async def test_json_lines_are_in_the_order_of_a_log(entra: Caller) -> None:
    """The oldest entry first, each the same object as in the list."""
    await entra.m2m("app-a", "app-b")
    await entra.m2m("app-c", "app-b")
    answer = await entra.request("GET", f"{API}.jsonl")
    assert answer.headers["Content-Type"] == "application/jsonl; charset=utf-8"
    assert answer.text.endswith("}\n")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == list(reversed((await entra.request("GET", API)).json))
    assert [(line["number"], line["granted"], line["forged"]) for line in lines] == [
        (1, True, False),
        (2, False, False),
    ]
    assert (await entra.request("GET", f"{API}.jsonl?outcome=granted")).text.count("\n") == 1


async def test_the_journal_is_bounded(entra: Caller) -> None:
    """The oldest entries are dropped, and the numbers go on after it is cleared."""
    for _ in range(MAX_ENTRIES + 2):
        entra.local.mint(A, B)
    assert len(await numbers(entra)) == MAX_ENTRIES
    assert (await entra.request("DELETE", API)).status == 204
    assert await numbers(entra) == []
    entra.local.mint(A, B)
    assert await numbers(entra) == [MAX_ENTRIES + 3]


async def test_a_stream_has_new_entries_only(entra: Caller) -> None:
    """It begins with the next entry, and its filter holds."""
    await entra.m2m("app-a", "app-b")
    async with stream(entra, "?outcome=refused") as events:
        await entra.m2m("app-a", "app-b")
        await entra.m2m("app-c", "app-b")
        entry = await events.event()
    assert (entry["number"], entry["code"], entry["client"]) == (3, 501051, C)


async def test_a_stream_continues_where_it_was_cut(entra: Caller) -> None:
    """`Last-Event-ID` (and `after`, for the first connection) brings what was missed; the id of another run
    brings everything."""
    for _ in range(3):
        await entra.m2m("app-a", "app-b")
    async with stream(entra, **{"Last-Event-ID": "1"}) as events:
        assert [(await events.event())["number"] for _ in range(2)] == [2, 3]
        await entra.m2m("app-a", "app-b")
        assert (await events.event())["number"] == 4
    async with stream(entra, "?after=1", **{"Last-Event-ID": "3"}) as events:
        assert (await events.event())["number"] == 4
    async with stream(entra, "?after=3") as events:
        assert (await events.event())["number"] == 4
    async with stream(entra, **{"Last-Event-ID": "77"}) as events:
        assert (await events.event())["number"] == 1
    answer = await entra.request("GET", f"{API}/events", headers={"Last-Event-ID": "x"})
    assert (answer.status, "Last-Event-ID: 'x'" in answer.text) == (400, True)


async def test_entries_of_other_threads_arrive(entra: Caller) -> None:
    """Tokens made in Python, in any thread, are in the stream too."""
    async with stream(entra) as events:
        await asyncio.to_thread(entra.local.mint, A, B)
        assert (await events.event())["grant"] == "console"


async def test_a_silent_stream_has_a_heartbeat(entra: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment, so that proxies and clients see that it is open."""
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.02)
    async with stream(entra) as events:
        assert await events.block() == {"": "still here"}


async def test_streams_are_bounded(entra: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many are refused with a sentence, and one that ends makes room. HEAD opens none."""
    monkeypatch.setattr(journal, "MAX_SUBSCRIBERS", 1)
    assert (await entra.request("HEAD", f"{API}/events")).status == 200
    async with stream(entra):
        answer = await entra.request("GET", f"{API}/events")
        assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")
    for _ in range(100):  # the server notices the closed connection with its next write
        await entra.m2m("app-a", "app-b")
        if (await entra.request("HEAD", f"{API}/events")).status == 200:
            break
    async with stream(entra) as events:
        await entra.m2m("app-a", "app-b")
        await events.event()


async def test_a_stop_ends_all_streams(clock: Clock) -> None:
    """At once and in order: the client sees the end of the body, and the server does not wait."""
    local = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    async with served(local) as entra, stream(entra) as events:
        before = asyncio.get_running_loop().time()
        await entra.running.stop()
        assert asyncio.get_running_loop().time() - before < 1.5
        assert await events.block() == {}


async def test_pages_of_other_sites_cannot_read_it(entra: Caller) -> None:
    """As everything below /admin."""
    for path in ("", ".jsonl", "/events"):
        headers = {"Origin": "https://elsewhere.example"}
        assert (await entra.request("GET", API + path, headers=headers)).status == 403
