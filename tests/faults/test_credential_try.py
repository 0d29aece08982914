"""The sidecar tries its credential at start, and says what the provider answers before a caller finds out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from entra_fast._provider import credential_try
from support.exposition import Exposition
from support.process import Serve
from support.provider import CLIENT_ID, CLIENT_KEY, Provider, Script, answer, granting, raw, refuse, segment
from support.sidecars import Started, StartSidecar, eventually

REJECTIONS = [
    (401, "invalid_client", 7000215),
    (401, "invalid_client", 7000222),
    (401, "invalid_client", 700027),
    (401, "invalid_client", 700024),
    (401, "invalid_client", 70021),
    (400, "unauthorized_client", 700016),
    (400, "unauthorized_client", 7000112),
    (400, "invalid_request", 90002),
]


def aadsts(status: int, error: str, code: int, **more: object) -> Script:
    """A refusal as Entra ID writes it."""
    return refuse(status, error, f"AADSTS{code}: no. Trace ID: 1", error_codes=[code], **more)


async def readiness(sidecar: Started) -> tuple[int, str, str]:
    """Status of /readyz, and state and reason of the credential."""
    response = await sidecar.probe.get("/readyz")
    credential = response.json["providers"][0]["credential"]
    return response.status, credential["status"], credential.get("reason", "")


async def until(sidecar: Started, state: str) -> tuple[int, str]:
    """Wait for a state of the credential: status and reason with it."""
    found: list[tuple[int, str]] = []

    async def reached() -> bool:
        status, current, reason = await readiness(sidecar)
        found.append((status, reason))
        return current == state

    await eventually(reached)
    return found[-1]


async def test_the_try_is_a_token_for_the_application_itself(start: StartSidecar, provider: Provider) -> None:
    """Entra ID issues one to an application only where the resource is its GUID (AADSTS90009)."""
    await start()
    (tried,) = provider.tries
    assert tried.form["grant_type"] == "client_credentials"
    assert tried.form["client_id"] == CLIENT_ID
    assert tried.form["scope"] == f"{CLIENT_ID}/.default"
    assert segment(tried.form["client_assertion"], 0)["kid"] == CLIENT_KEY.kid


async def test_the_token_of_a_try_is_thrown_away(start: StartSidecar, provider: Provider) -> None:
    """It is in no cache: a caller that wants the same token gets another one."""
    sidecar = await start()
    assert await sidecar.metric("entra_fast_token_cache_entries") == 0
    assert (await sidecar.call.token(f"{CLIENT_ID}/.default")).status == 200
    assert len(provider.tries) == 2
    assert await sidecar.metric("entra_fast_token_cache_entries") == 1


@pytest.mark.parametrize(("status", "error", "code"), REJECTIONS)
async def test_a_rejection_keeps_the_sidecar_from_being_ready(
    start: StartSidecar, provider: Provider, status: int, error: str, code: int
) -> None:
    """The code is in readiness and metrics before any caller asks for a token. The keys are there all the
    same, and the provider is not asked again and again."""
    provider.on_try = aadsts(status, error, code)
    sidecar = await start(ready=False)
    assert await until(sidecar, "rejected") == (
        503,
        f"credential rejected (AADSTS{code})",
    )
    assert await sidecar.metric("entra_fast_credential_rejected") == 1
    assert await sidecar.metric("entra_fast_ready") == 0
    assert await sidecar.metric(f'entra_fast_provider_errors_total{{code="AADSTS{code}"}}') == 1
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    sidecar.clock.advance(290)
    await asyncio.sleep(2 * credential_try.CHECK_INTERVAL)
    assert len(provider.tries) == 1


async def test_after_a_rejection_the_credential_is_tried_again_every_five_minutes(
    start: StartSidecar, provider: Provider
) -> None:
    """Who registers the key at the provider need not restart anything. Meanwhile it counts as rejected."""
    provider.on_try = aadsts(401, "invalid_client", 700027)
    sidecar = await start(ready=False)
    await until(sidecar, "rejected")
    sidecar.clock.advance(301)

    async def tried_again() -> bool:
        assert await sidecar.metric("entra_fast_credential_rejected") == 1
        return await sidecar.metric('entra_fast_provider_errors_total{code="AADSTS700027"}') == 2

    await eventually(tried_again)
    provider.on_try = None
    sidecar.clock.advance(301)
    assert await until(sidecar, "accepted") == (200, "")
    assert len(provider.tries) == 3


async def test_after_a_rejection_a_changed_credential_is_tried_at_once(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """A secret that is a file: no caller and no restart is needed."""

    async def only_the_new_one(request: web.Request, form: dict[str, str]) -> web.StreamResponse:
        accepted = form["client_secret"] == "new"
        chosen = granting(provider) if accepted else aadsts(401, "invalid_client", 7000215)
        return await chosen(request, form)

    provider.on_try = only_the_new_one
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("old")
    sidecar = await start(ready=False, environ=provider.environment(AZURE_APP_JWK=None), directory=tmp_path)
    await until(sidecar, "rejected")
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("new")
    assert await until(sidecar, "accepted") == (200, "")
    assert [recorded.form["client_secret"] for recorded in provider.tries] == ["old", "new"]


@pytest.mark.parametrize(
    "script",
    [
        refuse(503, "temporarily_unavailable"),
        refuse(400, "temporarily_unavailable"),
        refuse(503, "invalid_client"),
        refuse(429, "invalid_client"),
        refuse(408, "invalid_request"),
        raw(400, b"<html>proxy</html>", "text/html"),
        raw(407, b"", "text/plain"),
        answer(200, {"no": "token"}),
        raw(302, b"", Location="https://login.example/"),
    ],
)
async def test_what_proves_nothing_is_tried_again_soon(
    start: StartSidecar, provider: Provider, script: Script
) -> None:
    """An overloaded provider, a proxy, a redirect: neither ready nor rejected until it has judged."""
    provider.on_try = script
    sidecar = await start(ready=False)

    async def tried_once() -> bool:
        return len(provider.tries) == 1

    await eventually(tried_once)
    status, state, reason = await readiness(sidecar)
    assert (status, state) == (503, "unknown")
    assert "neither accepted nor rejected" in reason
    assert await sidecar.metric("entra_fast_credential_rejected") == 0
    provider.on_try = None
    assert await until(sidecar, "accepted") == (200, "")


async def test_tries_that_prove_nothing_become_rarer(start: StartSidecar, provider: Provider) -> None:
    """After 1 s, 2 s, 4 s ... up to a minute, with a quarter of jitter."""
    provider.on_try = refuse(503, "server_error")
    sidecar = await start(ready=False)

    async def tried(times: int) -> None:
        async def enough() -> bool:
            return len(provider.tries) >= times

        await eventually(enough)

    for times, pause in enumerate((1, 2, 4, 8, 16, 32, 60, 60), start=1):
        await tried(times)
        await asyncio.sleep(0.1)  # the answer arrives, and the pause begins
        sidecar.clock.advance(0.7 * pause)
        await asyncio.sleep(0.05)
        assert len(provider.tries) == times or pause == 1
        sidecar.clock.advance(0.6 * pause)
    await tried(9)


async def test_retry_after_is_respected(start: StartSidecar, provider: Provider) -> None:
    """A provider that throttles says itself when to come again."""
    provider.on_try = answer(429, {"error": "temporarily_unavailable"}, Retry_After="30")
    sidecar = await start(ready=False)
    await asyncio.sleep(2)
    sidecar.clock.advance(25)
    await asyncio.sleep(1.5)
    assert len(provider.tries) == 1
    provider.on_try = None
    sidecar.clock.advance(5)
    assert await until(sidecar, "accepted") == (200, "")


@pytest.mark.parametrize(("error", "code"), [("invalid_grant", 501051), ("invalid_resource", 500011)])
async def test_a_refusal_of_something_else_means_that_the_credential_is_right(
    start: StartSidecar, provider: Provider, error: str, code: int
) -> None:
    """An application that requires an assignment gets no token for itself, but is authenticated before."""
    provider.on_try = aadsts(400, error, code)
    sidecar = await start()
    assert await readiness(sidecar) == (200, "accepted", "")
    assert len(provider.tries) == 1


async def test_a_try_delays_neither_the_keys_nor_callers(start: StartSidecar, provider: Provider) -> None:
    """A provider that does not answer the try: tokens are verified and issued. A caller's success counts."""
    never = asyncio.Event()

    async def silent(_: web.Request, __: dict[str, str]) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    provider.on_try = silent
    sidecar = await start(ready=False)

    async def started() -> bool:
        return (await sidecar.probe.get("/healthz")).status == 200

    await eventually(started)
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert (await readiness(sidecar))[:2] == (503, "unknown")
    assert (await sidecar.call.token()).status == 200
    assert await readiness(sidecar) == (200, "accepted", "")
    never.set()


async def test_a_callers_rejection_is_tried_again(start: StartSidecar, provider: Provider) -> None:
    """AADSTS700016 at a caller's request, after the application was deleted and restored."""
    sidecar = await start()
    provider.then(aadsts(400, "unauthorized_client", 700016))
    assert (await sidecar.call.token()).status == 400
    assert (await readiness(sidecar))[:2] == (200, "rejected")
    await asyncio.sleep(0.05)
    sidecar.clock.advance(301)
    assert await until(sidecar, "accepted") == (200, "")


@pytest.mark.parametrize(("setting", "status"), [(None, 200), ("latched", 200), ("live", 503)])
async def test_trouble_after_the_start_fails_readiness_only_if_asked_to(
    start: StartSidecar, provider: Provider, setting: str | None, status: int
) -> None:
    """ENTRA_FAST_READINESS=live; otherwise one provider's trouble would take all replicas out of service."""
    sidecar = await start(ENTRA_FAST_READINESS=setting)
    provider.then(aadsts(401, "invalid_client", 7000222))
    assert (await sidecar.call.token()).status == 401
    response = await sidecar.probe.get("/readyz")
    assert (response.status, response.json["providers"][0]["ready"]) == (status, status == 200)
    assert "AADSTS7000222" in response.json["reason"]
    assert await sidecar.metric("entra_fast_ready") == (status == 200)


@pytest.mark.parametrize("workers", ["1", "3"])
async def test_a_pod_tries_once(serve: Serve, provider: Provider, workers: str) -> None:
    """However many workers it has. Every listener knows the state."""
    process = await serve(provider.environment(ENTRA_FAST_WORKERS=workers, PROBE_BIND_ADDRESS="127.0.0.1:0"))
    await process.listening()
    probes = process.probes()

    async def ready() -> bool:
        return (await probes.get("/readyz")).status == 200

    await eventually(ready)
    assert [(await probes.get(path)).body for path in ("/healthz", "/")] == [b"ok", b"ok"]
    (listed,) = (await probes.get("/readyz")).json["providers"]
    assert listed["credential"] == {"status": "accepted"}
    assert len(provider.tries) == 1


async def test_workers_answer_probes_for_the_whole_sidecar(serve: Serve, provider: Provider) -> None:
    """Without a probe listener: a wrong secret shows at every worker, and /healthz is 200 all the same."""
    provider.on_try = aadsts(401, "invalid_client", 7000215)
    process = await serve(provider.environment(ENTRA_FAST_WORKERS="2"))
    caller = await process.listening()

    async def rejected() -> bool:
        document = (await caller.get("/readyz")).json
        return document["status"] == "not ready" and "AADSTS7000215" in document["reason"]

    await eventually(rejected)

    async def started() -> bool:
        return (await caller.get("/healthz")).status == 200

    await eventually(started)


@pytest.mark.parametrize(("offset", "shown"), [(-3600.0, "3600 s ahead of"), (125.0, "125 s behind")])
async def test_a_clock_that_is_off_is_reported_with_the_number(
    serve: Serve, provider: Provider, offset: float, shown: str
) -> None:
    """From the `Date` of the provider's answers: log, metric and readiness."""
    provider.clock_offset = offset
    process = await serve(provider.environment())
    caller = await process.listening()

    async def logged() -> bool:
        return process.logged("the clock is ") == 1

    await eventually(logged)
    (line,) = [line for line in process.lines if "the clock is " in line]
    assert shown in line.replace(str(int(abs(offset)) - 1), str(int(abs(offset))))
    text = (await caller.get("/metrics")).body.decode()
    assert Exposition(text)["entra_fast_clock_skew_seconds"] == pytest.approx(-offset, abs=2)
    (listed,) = (await caller.get("/readyz")).json["providers"]
    assert listed["clock_skew_seconds"] == pytest.approx(-offset, abs=2)
