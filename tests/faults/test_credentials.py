"""Credentials rotate, expire and are rejected while the sidecar runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from support.keys import Key
from support.provider import CLIENT_ID, CLIENT_KEY, TENANT, Provider, Script, refuse, segment
from support.sidecars import StartSidecar, eventually


def files(directory: Path, provider: Provider, **more: str) -> None:
    """Settings as NAIS mounts them."""
    settings = {
        "AZURE_APP_CLIENT_ID": CLIENT_ID,
        "AZURE_APP_TENANT_ID": TENANT,
        "AZURE_APP_WELL_KNOWN_URL": provider.well_known_url,
        **more,
    }
    for name, value in settings.items():
        (directory / name).write_text(value)


ENVIRON = {"BIND_ADDRESS": "127.0.0.1:0"}


async def test_a_key_file_that_changes_is_used_at_once(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """AZURE_APP_JWK rotates without a restart."""
    files(tmp_path, provider, AZURE_APP_JWK=CLIENT_KEY.private_jwk())
    sidecar = await start(environ=ENVIRON, directory=tmp_path)
    await sidecar.call.token()
    new = Key.generate()
    (tmp_path / "AZURE_APP_JWK").write_text(new.private_jwk())
    await sidecar.call.token(skip_cache=True)
    kids = [segment(recorded.form["client_assertion"], 0)["kid"] for recorded in provider.requests]
    assert kids == [CLIENT_KEY.kid, new.kid]


async def test_a_secret_file_that_changes_is_used_at_once(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """So does AZURE_APP_CLIENT_SECRET."""
    files(tmp_path, provider, AZURE_APP_CLIENT_SECRET="first-secret")
    sidecar = await start(environ=ENVIRON, directory=tmp_path)
    await sidecar.call.token()
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("second-secret\n")
    await sidecar.call.token(skip_cache=True)
    assert [r.form["client_secret"] for r in provider.requests] == ["first-secret", "second-secret"]


@pytest.mark.parametrize("content", ["", "canary, not a key", '{"kty":"RSA","n":"canary"}'])
async def test_a_key_file_that_breaks_is_an_error_without_its_content(
    start: StartSidecar, provider: Provider, tmp_path: Path, content: str
) -> None:
    """500, and the reason in readiness, both naming the setting; a good file restores service. A cached token
    is still served."""
    files(tmp_path, provider, AZURE_APP_JWK=CLIENT_KEY.private_jwk())
    sidecar = await start(environ=ENVIRON, directory=tmp_path)
    cached = await sidecar.call.token("api://cached/.default")
    (tmp_path / "AZURE_APP_JWK").write_text(content)
    answered = await sidecar.call.token()
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    unready = await sidecar.call.get("/readyz")
    assert unready.json["providers"][0]["credential"]["status"] == "unreadable"
    for text in (answered.json["error_description"], unready.json["reason"]):
        assert "AZURE_APP_JWK" in text
        assert "canary" not in text
    again = await sidecar.call.token("api://cached/.default", skip_cache=True)
    assert again.json["access_token"] == cached.json["access_token"]
    (tmp_path / "AZURE_APP_JWK").write_text(CLIENT_KEY.private_jwk())
    assert (await sidecar.call.token()).status == 200
    assert (await sidecar.call.get("/readyz")).status == 200


async def test_a_federated_token_that_vanishes(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """With ENTRA_FAST_READINESS=live: not ready with the reason while the file is not there, ready again when
    it is."""
    file = tmp_path / "federated"
    file.write_text("a.b.c")
    sidecar = await start(
        AZURE_APP_JWK=None, AZURE_FEDERATED_TOKEN_FILE=str(file), ENTRA_FAST_READINESS="live"
    )
    file.unlink()
    assert (await sidecar.call.token()).status == 500
    unready = await sidecar.call.get("/readyz")
    assert unready.status == 503
    assert "AZURE_FEDERATED_TOKEN_FILE" in unready.json["reason"]
    file.write_text("d.e.f")
    assert (await sidecar.call.token()).status == 200
    assert (await sidecar.call.get("/readyz")).status == 200


def only(field: str, accepted: str, provider: Provider) -> Script:
    """A token endpoint that accepts one credential only, like a provider that no longer knows the old one."""

    async def script(_: web.Request, form: dict[str, str]) -> web.StreamResponse:
        sent = form.get(field, "")
        value = segment(sent, 0)["kid"] if field == "client_assertion" else sent
        if value == accepted:
            return web.json_response(provider.grant(form))
        return web.json_response(
            {"error": "invalid_client", "error_description": "AADSTS700027: no", "error_codes": [700027]},
            status=401,
        )

    return script


async def test_the_next_key_is_used_when_the_current_one_is_rejected(
    start: StartSidecar, provider: Provider
) -> None:
    """AZURE_APP_NEXT_JWK: the application notices nothing; the accepted key is tried first from then on."""
    new = Key.generate()
    sidecar = await start(AZURE_APP_NEXT_JWK=new.private_jwk())
    provider.then(*[only("client_assertion", new.kid or "", provider)] * 10)
    assert (await sidecar.call.token()).status == 200
    assert (await sidecar.call.token(skip_cache=True)).status == 200
    kids = [segment(recorded.form["client_assertion"], 0)["kid"] for recorded in provider.requests]
    assert kids == [CLIENT_KEY.kid, new.kid, new.kid]
    assert (await sidecar.call.get("/readyz")).status == 200


async def test_the_next_secret_may_appear_while_the_sidecar_runs(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """If secrets are files, AZURE_APP_NEXT_CLIENT_SECRET is read when it is needed."""
    files(tmp_path, provider, AZURE_APP_CLIENT_SECRET="old-secret")
    sidecar = await start(environ=ENVIRON, directory=tmp_path)
    provider.then(*[only("client_secret", "new-secret", provider)] * 10)
    rejected = await sidecar.call.token()
    assert (rejected.status, rejected.json["error"]) == (401, "invalid_client")
    assert "AADSTS700027" in (await sidecar.call.get("/readyz")).json["reason"]
    (tmp_path / "AZURE_APP_NEXT_CLIENT_SECRET").write_text("new-secret")
    assert (await sidecar.call.token()).status == 200
    assert (await sidecar.call.get("/readyz")).status == 200


async def test_a_refusal_that_is_not_about_the_credential_tries_no_other(
    start: StartSidecar, provider: Provider
) -> None:
    """invalid_grant is about the user or the policy: no second request."""
    sidecar = await start(AZURE_APP_NEXT_JWK=Key.generate().private_jwk())
    provider.then(refuse(400, "invalid_grant"))
    assert (await sidecar.call.token()).status == 400
    assert len(provider.requests) == 1
    assert (await sidecar.call.get("/readyz")).status == 200


async def test_a_rejection_does_not_count_forever(start: StartSidecar, provider: Provider) -> None:
    """A pod without traffic makes no attempt that could clear it: after five minutes the sidecar does."""
    sidecar = await start()
    provider.then(refuse(401, "invalid_client", "AADSTS7000222: expired", error_codes=[7000222]))
    assert (await sidecar.call.token()).status == 401
    assert "AADSTS7000222" in (await sidecar.call.get("/readyz")).json["reason"]
    sidecar.clock.advance(301)

    async def accepted() -> bool:
        return await sidecar.metric("entra_fast_credential_rejected") == 0

    await eventually(accepted)
    assert "reason" not in (await sidecar.call.get("/readyz")).json
    assert (len(provider.requests), len(provider.tries)) == (1, 2)


async def test_a_new_credential_is_not_the_one_that_was_rejected(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """Ready again as soon as the file has another secret: without traffic nothing else could show that it is
    good."""
    files(tmp_path, provider, AZURE_APP_CLIENT_SECRET="old-secret")
    sidecar = await start(environ=ENVIRON, directory=tmp_path)
    provider.then(only("client_secret", "new-secret", provider))
    assert (await sidecar.call.token()).status == 401
    for _ in range(2):
        assert "AADSTS700027" in (await sidecar.call.get("/readyz")).json["reason"]
    assert await sidecar.metric("entra_fast_credential_rejected") == 1
    (tmp_path / "AZURE_APP_CLIENT_SECRET").write_text("new-secret")
    assert (await sidecar.call.get("/readyz")).status == 200
    assert await sidecar.metric("entra_fast_credential_rejected") == 0
    assert len(provider.requests) == 1


async def test_settings_files_are_as_good_as_variables(
    start: StartSidecar, provider: Provider, tmp_path: Path
) -> None:
    """A sidecar whose settings are all mounted files."""
    files(
        tmp_path,
        provider,
        AZURE_APP_JWK=json.dumps(json.loads(CLIENT_KEY.private_jwk()), indent=2),
        BIND_ADDRESS="127.0.0.1:0\n",
    )
    sidecar = await start(environ={"PATH": "/"}, directory=tmp_path)
    assert (await sidecar.call.token()).status == 200
