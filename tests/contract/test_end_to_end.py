"""The whole system end to end, over real sockets: applications ask their sidecars, a user logs in, and the
access policies decide.

Everything is what `entra-fast dev` starts: a local Entra ID, the token generator, and a sidecar for each
application.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
import pytest_asyncio

from entra_fast._settings.load import Settings
from entra_fast.cli.dev_system import LocalSystem, Options, local_system
from entra_fast.emulator import LocalEntraId
from entra_fast.sidecar.process.running import RunningSidecar, start_sidecar
from support.keys import Key
from support.pages import Form
from support.sidecars import eventually
from support.wire import Caller

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP_A, APP_B, APP_C = (f"dev-gcp:team-{x}:app-{x}" for x in "abc")
GENERATOR = {"application": "azure-token-generator", "namespace": "nais"}
GROUP = "11111111-2222-4333-8444-555555555555"
OTHER_GROUP = "99999999-2222-4333-8444-555555555555"


def _manifest(name: str, rules: list[dict[str, Any]], **azure: Any) -> str:
    # JSON is YAML.
    team = "team-" + name[-1]
    return json.dumps(
        {
            "apiVersion": "nais.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": team, "labels": {"team": team}},
            "spec": {
                "azure": {"application": {"enabled": True, **azure}},
                "accessPolicy": {"inbound": {"rules": rules}},
            },
        }
    )


MANIFESTS = {
    "app-a.yaml": _manifest("app-a", [GENERATOR], allowAllUsers=True),
    "app-b.yaml": _manifest(
        "app-b",
        [
            {
                "application": "app-a",
                "namespace": "team-a",
                "permissions": {"roles": ["reader"], "scopes": ["read"]},
            }
        ],
        claims={"groups": [{"id": GROUP}]},
    ),
    "app-c.yaml": _manifest("app-c", [GENERATOR], allowAllUsers=True),
}

DIRECTORY = f"""
tenant: trygdeetaten.no
groups:
  - {{name: team-b, id: {GROUP}}}
  - {{name: elsewhere, id: {OTHER_GROUP}}}
users:
  - {{name: Ada Lovelace, username: ada@trygdeetaten.no, navIdent: A100001, groups: [team-b, elsewhere]}}
  - {{name: Bob Outsider, username: bob@trygdeetaten.no, navIdent: B100001, groups: [elsewhere]}}
"""


class System:
    """The running system, and what its users and applications do with it."""

    def __init__(self, system: LocalSystem, client: aiohttp.ClientSession, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.emulator = system.emulator
        self.client = client
        self.sidecars = {sidecar.application.name: sidecar.running.base_url for sidecar in system.sidecars}

    async def post(self, app: str, path: str, **fields: Any) -> tuple[int, dict[str, Any]]:
        """The response of an application's own sidecar."""
        body = {"identity_provider": "entra_id", **fields}
        async with self.client.post(f"{self.sidecars[app]}/api/v1/{path}", json=body) as response:
            return response.status, await response.json()

    async def token(self, app: str, target: str, **fields: Any) -> str:
        """A token that an application gets from its sidecar."""
        status, answer = await self.post(app, "token", target=target, **fields)
        assert status == 200, answer
        assert answer["token_type"] == "Bearer"
        assert 0 < answer["expires_in"] <= 90 * 60
        return str(answer["access_token"])

    async def introspect(self, app: str, token: str) -> dict[str, Any]:
        """The result of introspection at an application's sidecar."""
        status, answer = await self.post(app, "introspect", token=token)
        assert status == 200
        return answer

    async def user_token(self, username: str, audience: str) -> str:
        """A user logs in at the token generator, as in a browser, and gets a token for an application."""
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of addresses, not only of names
        async with aiohttp.ClientSession(cookie_jar=jar) as browser:
            async with browser.get(
                f"{self.system.generator.base_url}/api/obo", params={"aud": audience}
            ) as page:
                assert page.status == 200
                form = Form(await page.text())
                action = urljoin(str(page.url), form.action)
            async with browser.post(action, data={**form.hidden, "username": username}) as answer:
                assert answer.status == 200, await answer.text()
                assert str(answer.url).startswith(f"{self.system.generator.base_url}/api/obo?aud=")
                return str((await answer.json())["access_token"])

    def provider_requests(self) -> int:
        """How many token requests the provider has had."""
        return len(self.emulator.local.journal.entries())


@contextlib.asynccontextmanager
async def _started(folder: Path) -> AsyncIterator[System]:
    manifests = folder / "manifests"
    manifests.mkdir()
    for name, text in MANIFESTS.items():
        (manifests / name).write_text(text)
    (folder / "directory.yaml").write_text(DIRECTORY)
    options = Options((str(manifests),), None, (APP_A, APP_B, APP_C), "127.0.0.1", 0, 0, 0)
    async with local_system(options) as system, aiohttp.ClientSession() as client:
        for sidecar in system.sidecars:
            await until_credential(sidecar.running, "accepted")
        yield System(system, client, folder)


async def until_credential(sidecar: RunningSidecar, status: str) -> dict[str, Any]:
    """Wait until the provider has judged a sidecar's credential; the body of /readyz."""

    async def readiness() -> dict[str, Any]:
        document = (await Caller(sidecar.probe_address).get("/readyz")).json
        assert isinstance(document, dict)
        return document

    async def judged() -> bool:
        return bool((await readiness())["providers"][0]["credential"]["status"] == status)

    await eventually(judged)
    return await readiness()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with _started(tmp_path_factory.mktemp("system")) as system:
        yield system


async def test_an_application_calls_another_one(world: System) -> None:
    """app-a's token for app-b is active at app-b's sidecar, with the roles that app-b grants to app-a."""
    claims = await world.introspect(APP_B, await world.token(APP_A, APP_B))
    assert claims["active"] is True
    assert set(claims["roles"]) == {"access_as_application", "reader"}
    assert claims["idtyp"] == "app"
    assert claims["azp_name"] == APP_A
    assert claims["oid"] == claims["sub"]
    assert "scp" not in claims


async def test_both_spellings_of_a_target_are_one_token(world: System) -> None:
    """`<cluster>:<namespace>:<app>` and its scope share a cache entry, and so do the provider's two names."""
    token = await world.token(APP_A, APP_B)
    assert await world.token(APP_A, "api://dev-gcp.team-b.app-b/.default") == token
    assert await world.token(APP_A, APP_B, identity_provider="azuread") == token


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"AZURE_APP_CLIENT_SECRET": "wrong", "AZURE_APP_JWK": ""}, "AADSTS7000215"),
        ({"AZURE_APP_JWK": Key.generate().private_jwk()}, "AADSTS700027"),
        ({"AZURE_APP_CLIENT_ID": "00000000-1111-4222-8333-444444444444"}, "AADSTS700016"),
    ],
)
async def test_a_wrong_credential_shows_at_once(world: System, changes: dict[str, str], code: str) -> None:
    """The local Entra ID rejects a sidecar's try as the real one does, before any caller needs a token."""
    environ = {**world.emulator.environment(APP_A), **changes, "BIND_ADDRESS": "127.0.0.1:0"}
    sidecar = await start_sidecar(Settings.from_environment(environ, Path(os.devnull)))
    try:
        document = await until_credential(sidecar, "rejected")
    finally:
        await sidecar.stop()
    assert document["status"] == "not ready"
    assert code in document["reason"]


async def test_a_second_request_comes_from_the_cache_unless_it_is_skipped(world: System) -> None:
    """The provider sees one request for two responses; `skip_cache` fetches a new token, for every caller."""
    first = await world.token(APP_A, APP_B)
    requests = world.provider_requests()
    assert await world.token(APP_A, APP_B) == first
    assert world.provider_requests() == requests
    fresh = await world.token(APP_A, APP_B, skip_cache=True)
    assert fresh != first
    assert world.provider_requests() == requests + 1
    assert await world.token(APP_A, APP_B) == fresh
    assert world.provider_requests() == requests + 1


async def test_a_user_logs_in_and_an_application_acts_on_her_behalf(world: System) -> None:
    """Ada's token for app-a, exchanged by app-a, is Ada's for app-b, with the one group that app-b lists."""
    user_token = await world.user_token("ada@trygdeetaten.no", APP_A)
    own = await world.introspect(APP_A, user_token)
    assert own["active"] is True
    assert own["scp"] == "defaultaccess"
    assert own["azp_name"] == "dev-gcp:nais:azure-token-generator"

    status, answer = await world.post(APP_A, "token/exchange", target=APP_B, user_token=user_token)
    assert status == 200, answer
    claims = await world.introspect(APP_B, answer["access_token"])
    assert claims["active"] is True
    assert set(claims["scp"].split()) == {"defaultaccess", "read"}
    assert claims["groups"] == [GROUP]
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["NAVident"] == "A100001"
    assert claims["azp_name"] == APP_A
    assert claims["oid"] == own["oid"]
    assert claims["sub"] != own["sub"]
    assert "roles" not in claims
    assert "idtyp" not in claims


async def test_an_application_outside_the_rules_is_refused(world: System) -> None:
    """AADSTS501051 for app-c, which no rule names, with Entra ID's own text."""
    status, answer = await world.post(APP_C, "token", target=APP_B)
    assert (status, answer["error"]) == (400, "invalid_grant")
    assert answer["error_description"].startswith("AADSTS501051: ")
    assert f"({APP_C})" in answer["error_description"]
    assert answer["error_codes"] == [501051]


async def test_an_application_outside_the_rules_cannot_act_for_a_user_either(world: System) -> None:
    """AADSTS65001: on behalf of a user, the missing rule is a missing consent."""
    user_token = await world.user_token("ada@trygdeetaten.no", APP_C)
    status, answer = await world.post(APP_C, "token/exchange", target=APP_B, user_token=user_token)
    assert (status, answer["error"], answer["error_codes"]) == (400, "invalid_grant", [65001])


async def test_a_user_outside_the_groups_is_refused(world: System) -> None:
    """AADSTS50105 for Bob, although app-a itself may call app-b."""
    user_token = await world.user_token("bob@trygdeetaten.no", APP_A)
    status, answer = await world.post(APP_A, "token/exchange", target=APP_B, user_token=user_token)
    assert (status, answer["error"], answer["error_codes"]) == (400, "invalid_grant", [50105])
    assert answer["error_description"].startswith("AADSTS50105: ")


def _mint(issuer: LocalEntraId) -> str:
    explanation, token = issuer.mint(APP_A, APP_B)
    assert token is not None, explanation.lines()
    return token


async def test_a_tampered_token_is_not_active(world: System) -> None:
    """One changed claim, with the old signature."""
    header, payload, signature = (await world.token(APP_A, APP_B)).split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["roles"].append("admin")
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    answer = await world.introspect(APP_B, f"{header}.{forged}.{signature}")
    assert answer == {"active": False, "error": "token signature is invalid"}


async def test_an_expired_token_is_not_active(world: System) -> None:
    """Correctly signed by the provider, two hours ago."""
    world.emulator.local.set_clock_offset(-7200)
    try:
        token = _mint(world.emulator.local)
    finally:
        world.emulator.local.set_clock_offset(0)
    assert await world.introspect(APP_B, token) == {"active": False, "error": "token is expired"}


async def test_a_token_of_another_issuer_is_not_active(world: System) -> None:
    """Another provider's signature, under its own name and under the right one."""
    files = [world.folder / "manifests"], world.folder / "directory.yaml"
    own_name = LocalEntraId.from_files(*files)
    assert (await world.introspect(APP_B, _mint(own_name)))["active"] is False
    same_name = LocalEntraId.from_files(*files, public_url=world.emulator.base_url)
    assert await world.introspect(APP_B, _mint(same_name)) == {
        "active": False,
        "error": "token was signed with an unknown key",
    }


async def test_a_token_for_another_audience_is_not_active(world: System) -> None:
    """app-c rejects a genuine token for app-b."""
    assert await world.introspect(APP_C, await world.token(APP_A, APP_B)) == {
        "active": False,
        "error": "token has the wrong audience",
    }


async def test_the_token_generator_is_subject_to_the_policies_too(world: System) -> None:
    """app-a allows the token generator, app-b does not; the response is a bare token, or JSON on request."""
    url = f"{world.system.generator.base_url}/api/public/m2m"
    async with world.client.post(url, data={"aud": APP_A}) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert (await world.introspect(APP_A, await response.text()))["active"] is True
    async with world.client.post(
        url, params={"aud": "dev-gcp.team-a.app-a"}, headers={"Accept": "application/json"}
    ) as response:
        answer = await response.json()
        assert set(answer) == {"access_token", "expires_in", "token_type"}
    async with world.client.post(url, data={"aud": APP_B}) as response:
        answer = await response.json()
        assert (response.status, answer["error"], answer["error_codes"]) == (400, "invalid_grant", [501051])
