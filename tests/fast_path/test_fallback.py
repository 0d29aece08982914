"""Serving with an aiohttp that lacks a private part: without the fast path, or with plain aiohttp."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path

import pytest

from entra_fast._http import internals
from entra_fast._http.internals import OVERRIDDEN, PRIVATE_NAMES, missing_parts
from support.fast_path import Connection, fast_path_answers, introspection, status, token_request
from support.provider import Provider, after
from support.sidecars import Started, StartSidecar, eventually

FAST_PATH_ONLY = sorted(each.name for each in PRIVATE_NAMES if each.fast_path_only)
FOR_PROTOCOL = sorted(each.name for each in PRIVATE_NAMES if not each.fast_path_only)


class Bare:
    """Stands for a class of an aiohttp that has none of the private names."""


def hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Serve as if aiohttp lacked this name."""
    names = tuple(
        dataclasses.replace(each, owner=Bare) if each.name == name else each for each in PRIVATE_NAMES
    )
    assert names != PRIVATE_NAMES
    monkeypatch.setattr(internals, "PRIVATE_NAMES", names)


async def test_this_aiohttp_has_every_private_part() -> None:
    """With the version that is locked, nothing is missing."""
    assert missing_parts() == internals.Missing((), ())


@pytest.mark.parametrize("name", sorted({each.name for each in PRIVATE_NAMES}))
async def test_each_missing_name_is_noticed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The check at start names it, and knows whether only the fast path needs it."""
    hide(monkeypatch, name)
    missing = missing_parts()
    assert {*missing.for_protocol, *missing.for_fast_path} == {name}
    assert (missing.for_protocol == ()) == (name in FAST_PATH_ONLY and name not in FOR_PROTOCOL)


async def test_a_missing_public_method_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check includes the public methods that are overridden."""
    monkeypatch.setattr(internals, "OVERRIDDEN", (*OVERRIDDEN, "unheard_of"))
    assert missing_parts().for_protocol == ("unheard_of",)


@pytest.mark.parametrize("name", FAST_PATH_ONLY)
async def test_without_a_part_for_the_fast_path_every_request_takes_the_slow_path(
    start: StartSidecar, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A warning names the part, the gauge is 0, and everything is served."""
    hide(monkeypatch, name)
    sidecar = await start()
    assert await sidecar.metric("entra_fast_fast_path") == 0
    assert (await sidecar.call.token()).status == 200
    assert fast_path_answers(sidecar) == 0
    (warning,) = [r for r in caplog.records if r.getMessage() == "serving without the fast path"]
    assert warning.levelname == "WARNING"
    assert vars(warning)["fields"] == {"aiohttp_lacks": [name]}


@pytest.mark.parametrize("name", ["_request_in_progress", "_kwargs", "_make_server", "_waiter"])
async def test_without_a_part_for_the_protocol_plain_aiohttp_serves(
    start: StartSidecar,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """A warning names the part and what is lost; tokens, introspection, errors and probes are served, with
    the same statuses and bodies as otherwise."""
    usual = await start()
    hide(monkeypatch, name)
    plain = await start()
    (warning,) = [r for r in caplog.records if r.getMessage().startswith("serving with plain aiohttp")]
    assert warning.levelname == "WARNING"
    assert vars(warning)["fields"] == {"aiohttp_lacks": [name]}
    assert await plain.metric("entra_fast_fast_path") == 0
    token = provider.mint()
    for sidecar in (usual, plain):
        assert (await sidecar.call.token()).status == 200
    answers = [await sidecar.call.introspect(token) for sidecar in (usual, plain)]
    assert answers[0].json["active"] is True
    assert answers[0].json == answers[1].json
    for request in (
        introspection("a"),
        token_request(target=""),
        token_request(Origin="https://example.com"),
    ):
        received = []
        for sidecar in (usual, plain):
            async with await Connection.to(sidecar) as connection:
                answer = await connection.ask(request)
                received.append((status(answer), answer.partition(b"\r\n\r\n")[2]))
        assert received[0] == received[1]
    assert (await plain.probe.get("/readyz")).status == 200
    served = [{r.canonical for r in sidecar.running.api.app.router.resources()} for sidecar in (usual, plain)]
    assert served[0] == served[1]
    assert await plain.metric("entra_fast_connections") >= 0


async def test_plain_aiohttp_drains_without_losing_a_request(
    start: StartSidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits for the provider when draining begins is answered before the end."""
    hide(monkeypatch, "_messages")
    sidecar = await start(ENTRA_FAST_DRAIN_DELAY_MILLIS="0")
    answers = asyncio.Event()
    provider.then(after(answers, provider))
    asked = len(provider.requests)
    request = asyncio.ensure_future(sidecar.call.token())
    await provider.asked(asked + 1)
    assert len(sidecar.running.api.connections) >= 1
    assert sidecar.running.api.busy
    stopping = asyncio.ensure_future(sidecar.running.stop(drain=True))
    await eventually(lambda: _draining(sidecar))
    answers.set()
    assert (await request).status == 200
    assert await stopping


async def _draining(sidecar: Started) -> bool:
    return sidecar.running.service.draining


def test_the_private_parts_of_aiohttp_are_documented() -> None:
    """docs/explanation/fast-path.md names every part that is checked for, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "fast-path.md").read_text()
    table = text.partition("| part | used for |")[2].partition("\n\n")[0]
    named = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert named == {*(each.name for each in PRIVATE_NAMES), *OVERRIDDEN}
