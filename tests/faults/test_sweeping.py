"""A sidecar that no one calls any more: what has ended leaves its memory."""

from __future__ import annotations

import pytest

from entra_fast import _sweeping
from support.provider import Provider, refuse
from support.sidecars import StartSidecar, eventually

TARGET = "api://dev-gcp.team.app/.default"


async def test_nothing_that_has_ended_stays_in_an_idle_sidecar(
    start: StartSidecar, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acquired tokens, exchanged ones, verified ones, and remembered failures."""
    monkeypatch.setattr(_sweeping, "LIMIT", 0.2)
    sidecar = await start()
    user = provider.mint()
    for number in range(20):
        await sidecar.call.token(f"api://dev-gcp.team.app{number}/.default")
        await sidecar.call.exchange(user, f"api://dev-gcp.team.app{number}/.default")
    assert (await sidecar.call.introspect(user)).json["active"]
    provider.then(refuse(400, "invalid_grant"))
    assert (await sidecar.call.exchange(user, TARGET)).status == 400
    client = sidecar.running.service.served[0].tokens
    assert await sidecar.metric("entra_fast_token_cache_entries") == 40
    assert await sidecar.metric("entra_fast_verified_cache_entries") == 1

    sidecar.clock.advance(90_000)

    async def gone() -> bool:
        return (
            await sidecar.metric("entra_fast_token_cache_entries") == 0
            and await sidecar.metric("entra_fast_verified_cache_entries") == 0
            and len(client._failures) == 0  # type: ignore[union-attr]
        )

    await eventually(gone)
    assert await sidecar.metric("entra_fast_token_cache_expired_total") == 40
    assert await sidecar.metric("entra_fast_token_cache_evictions_total") == 0
