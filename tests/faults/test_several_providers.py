"""Trouble at one of several providers: the log of a real process says which one, and the others work on."""

from __future__ import annotations

import json

import pytest

from support.process import Serve
from support.provider import refuse
from support.several import ENTRA, MASKINPORTEN, several
from support.sidecars import eventually


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_log_names_the_provider_that_is_in_trouble(serve: Serve, workers: str) -> None:
    """Refusals, and a clock that is 8 s off: within what Entra ID accepts, but not what Maskinporten does."""
    async with several(ENTRA, MASKINPORTEN) as providers:
        providers["maskinporten"].clock_offset = 8.0
        providers["maskinporten"].then(refuse(400, "invalid_grant", "MP-020: not allowed"))
        process = await serve(providers.environment(ENTRA_FAST_WORKERS=workers))
        call = await process.listening()
        statuses = [
            (await call.json("/api/v1/token", {"identity_provider": kind.name, "target": kind.target})).status
            for kind in (MASKINPORTEN, ENTRA)
        ]
        assert statuses == [400, 200]

        async def logged() -> bool:
            return process.logged("provider failing") == 1 and process.logged("the clock is ") == 1

        await eventually(logged)
        lines = [json.loads(line) for line in process.lines]
        (failing,) = (line for line in lines if line["message"] == "provider failing")
        (clock,) = (line for line in lines if line["message"].startswith("the clock is "))
    assert failing["provider"] == clock["provider"] == "maskinporten"
    assert failing["outcomes"] == {"http_400": 1}
    assert clock["clock_skew_seconds"] == pytest.approx(-8, abs=1.5)
