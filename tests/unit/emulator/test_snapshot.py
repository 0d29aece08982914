"""Export, import and reset: sessions go on, secrets stay, and a wrong document changes nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from entra_fast._native import unverified_header
from entra_fast.emulator.protocol.store import Store
from entra_fast.errors import ConfigurationError
from entra_fast.testing import LocalEntra
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served

from .conftest import DIRECTORY, MANIFESTS

API = "/admin/api"
A, B = "dev-gcp:team:app-a", "dev-gcp:team:app-b"
OTHER_DIRECTORY = "tenant: trygdeetaten.no\nusers: [{name: Eve, username: eve@trygdeetaten.no}]"


async def export(entra: Caller, query: str = "") -> Answer:
    answer = await entra.request("GET", f"{API}/state{query}")
    assert answer.status == 200, answer.text
    return answer


async def silent_login(entra: Caller) -> Answer:
    """By the session's cookie, without a user's help."""
    query = entra.login_parameters("app-a", prompt="none")
    return await entra.request("GET", entra.authorize_path("app-a"), params=query)


async def refresh(entra: Caller, token: str) -> Answer:
    form = {"grant_type": "refresh_token", "refresh_token": token, **entra.credentials("app-a")}
    return await entra.token(form)


async def test_a_state_moves_to_another_provider(entra: Caller, clock: Clock) -> None:
    """Users, the browser's session and refresh tokens are there again, on a provider that had none of them.
    Without secrets it keeps its own keys."""
    tokens = (await entra.login("app-a", "ada")).json
    document = (await export(entra)).json
    assert (document["version"], document["time"]) == (1, clock.now)
    other = local_entra(MANIFESTS, OTHER_DIRECTORY, clock=clock)
    async with served(other) as second:
        second.session.cookie_jar.update_cookies({c.key: c.value for c in entra.session.cookie_jar})
        assert "error" in (await silent_login(second)).location
        kids = [kid for kid, _ in other.keyring.describe()]
        answer = await second.request("PUT", f"{API}/state", json=document)
        assert answer.status == 200, answer.text
        assert (await silent_login(second)).location["code"]
        assert (await refresh(second, tokens["refresh_token"])).status == 200
        assert [kid for kid, _ in other.keyring.describe()] == kids
        assert (await export(second)).json == document | {"sessions": (await export(second)).json["sessions"]}
        assert other.registry.default_tenant.directory.find_user("eve") is None
        other.reload()  # manifests may change meanwhile
        assert other.registry.default_tenant.directory.find_user("ada") is not None
        other.reset()
        assert other.registry.default_tenant.directory.find_user("eve") is not None
        assert "error" in (await silent_login(second)).location


async def test_secrets_only_if_asked(entra: Caller, clock: Clock) -> None:
    """Neither keys, seeds, codes, tokens nor cookies are in the document. With `secrets=true` keys and seeds
    are, and the other provider signs and recognises the same."""
    tokens = (await entra.login("app-a", "ada")).json
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    entra.local.environment(A)
    text = (await export(entra)).text
    cookies = [cookie.value for cookie in entra.session.cookie_jar]
    assert cookies
    for secret in (code, tokens["refresh_token"], *cookies, entra.local.credentials.seed.hex()):
        assert secret not in text
    for member in ('"d"', '"seed"', '"jwk"', "secrets"):
        assert member not in text
    document = (await export(entra, "?secrets=true")).json
    other = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    other.keyring.rotate(announced=False)
    other.import_state(document)
    assert other.keyring.describe() == entra.local.keyring.describe()
    assert other.credentials.secret(other.registry.find(A)) == entra.credentials("app-a")["client_secret"]
    assert other.environment(A)["AZURE_APP_JWK"] == entra.local.environment(A)["AZURE_APP_JWK"]
    answer = await entra.request("GET", f"{API}/state?secrets=yes")
    assert (answer.status, "secrets: expected true or false" in answer.text) == (400, True)


async def test_a_large_directory(entra: Caller) -> None:
    """More than other bodies may have: 3,000 users."""
    users = [f"  - {{name: User {n}, username: u{n}@trygdeetaten.no}}" for n in range(3000)]
    document = local_entra([], "tenant: trygdeetaten.no\nusers:\n" + "\n".join(users)).export_state()
    assert len(json.dumps(document)) > 256 * 1024
    answer = await entra.request("PUT", f"{API}/state", json=document)
    assert answer.status == 200, answer.text
    assert (await entra.request("POST", f"{API}/reset", json=document)).status == 413
    assert entra.local.registry.default_tenant.directory.find_user("u2999") is not None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "x"}, "format: must be 'entra-fast local Entra ID'"),
        ({"version": 2}, "version: must be 1"),
        ({"extra": 1}, "extra: unknown member; there are format, version,"),
        ({"directory": []}, "directory: expected a list of 1 to 100 tenants"),
        ({"directory": [{"tenant": "x"}]}, "directory[0]: tenant: 'x' is not a domain name"),
        (
            {"directory": [{"tenant": "x.no", "users": [{"name": "x"}]}]},
            "users[0].username: required, but missing",
        ),
        ({"sessions": []}, "sessions: expected an object"),
        ({"sessions": {"others": []}}, "sessions.others: unknown member; there are sessions, codes,"),
        ({"sessions": {"codes": {}}}, "sessions.codes: expected a list"),
        ({"sessions": {"codes": [{}]}}, "sessions.codes[0]: expected an object with digest, ends and value"),
        (
            {"sessions": {"codes": [{"digest": "x", "ends": 1, "value": {}}]}},
            "sessions.codes[0].digest: must be a SHA-256 digest",
        ),
        (
            {"sessions": {"codes": [{"digest": "0" * 64, "ends": "x", "value": {}}]}},
            "sessions.codes[0].ends: must be seconds since 1970",
        ),
        (
            {"sessions": {"sessions": [{"digest": "0" * 64, "ends": 4e9, "value": {"tenant_id": 5}}]}},
            "sessions.sessions[0].value.tenant_id: cannot be used",
        ),
        (
            {
                "sessions": {
                    "idporten_sessions": [{"digest": "0" * 64, "ends": 4e9, "value": {"identity": {}}}]
                }
            },
            "sessions.idporten_sessions[0].value.identity.key: cannot be used",
        ),
        ({"secrets": {}}, "secrets: cannot be used"),
        ({"secrets": {"keys": [{"jwk": {}, "x5c": ""}], "credentials": {}}}, "secrets: cannot be used"),
    ],
)
async def test_a_wrong_document_changes_nothing(
    entra: Caller, changes: dict[str, Any], sentence: str
) -> None:
    """400 with the member that is wrong; users, sessions and keys are those of before."""
    await entra.login("app-a", "ada")
    before = entra.local.export_state(secrets=True)
    answer = await entra.request("PUT", f"{API}/state", json=copy.deepcopy(before) | changes)
    assert answer.status == 400
    assert sentence in answer.json["error_description"]
    assert entra.local.export_state(secrets=True) == before


async def test_bodies_that_are_no_documents(entra: Caller) -> None:
    """Neither JSON, nor an object."""
    answer = await entra.request("PUT", f"{API}/state", data=b"{")
    assert (answer.status, answer.json["error_description"]) == (400, "the body is not JSON")
    answer = await entra.request("PUT", f"{API}/state", json=[])
    assert (answer.status, answer.json["error_description"]) == (400, "expected a JSON object")


async def test_reset(entra: Caller, clock: Clock) -> None:
    """Everything that a test may have done is gone: sessions, tokens, faults, the clock, the journal. Keys
    and secrets stay."""
    local = entra.local
    tokens = (await entra.login("app-a", "ada")).json
    environment, keys = local.environment(A), local.keyring.describe()
    local.faults.add("status", value=500)
    local.freeze_clock(1_700_000_000)
    assert (await entra.request("POST", f"{API}/reset")).status == 204
    assert (local.faults.planned(), local.journal.entries(), local.now()) == ((), (), clock.now)
    assert "error" in (await silent_login(entra)).location
    assert (await refresh(entra, tokens["refresh_token"])).code == 70008
    assert (local.environment(A), local.keyring.describe()) == (environment, keys)
    assert (await entra.m2m("app-a", "app-b")).status == 200


def test_reset_of_the_testing_package() -> None:
    """A shared LocalEntra goes back to the start, and its validators still accept new tokens."""
    local = LocalEntra()
    validator = local.validator(B)
    local.clock.advance(1e6)
    local.emulator.faults.add("reset")
    local.reset()
    assert local.emulator.faults.planned() == ()
    assert validator.validate(local.token(A, B, user="ada")).name == "Ada"
    assert unverified_header(local.token(A, B))["kid"] == local.emulator.keyring.active.kid


def test_the_state_file_has_no_codes_and_tokens(tmp_path: Path, clock: Clock) -> None:
    """Only their digests, by which they are found again. A file of an earlier release, which has them, is
    still read."""
    local = local_entra([manifest("app")], DIRECTORY, clock=clock, state_directory=tmp_path)
    tenant = local.registry.default_tenant
    ada = tenant.directory.find_user("ada")
    assert ada is not None
    cookie, session = local.store.new_session(tenant.id, ada.id)
    local.save()
    file = tmp_path / "local-entra-id.json"
    assert cookie not in file.read_text()
    again = local_entra([manifest("app")], DIRECTORY, clock=clock, state_directory=tmp_path)
    assert again.store.sessions.get(cookie) == session
    content = json.loads(file.read_text())
    content["format"] = 1
    content["sessions"][0][0] = cookie
    file.write_text(json.dumps(content))
    old = local_entra([manifest("app")], DIRECTORY, clock=clock, state_directory=tmp_path)
    assert old.store.sessions.get(cookie) == session


def test_a_digest_opens_nothing(clock: Clock) -> None:
    """Having the document does not give the session."""
    store = Store(clock)
    cookie, _ = store.new_session("t", "u")
    ((digest, _, _),) = store.sessions.items()
    assert (store.sessions.get(digest), store.sessions.get(cookie) is not None) == (None, True)


def test_an_import_of_nonsense_in_python() -> None:
    """The same error as by HTTP."""
    with pytest.raises(ConfigurationError, match="version: must be 1"):
        local_entra([], DIRECTORY).import_state({"format": "entra-fast local Entra ID", "version": True})
