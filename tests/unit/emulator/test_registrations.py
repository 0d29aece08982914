# ruff: noqa: E501 - the sentences of mistakes
"""The file beside a manifest: optional claims, lifetime and groups of tokens; its mistakes; and reloading."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._native import unverified_claims
from entra_fast.emulator import LocalEntraId, SourceError
from support.local_entra import Caller, Clock, manifest, served, signing_keys

from .conftest import CALLBACK, DIRECTORY, EVERYONE, GROUP_B, OTHER_GROUP
from .test_console import text_of

APP = "app.entra.yaml"
TARGET = "target.entra.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two applications, each in a file of its own."""
    (tmp_path / "app.yaml").write_text(manifest("app", groups=[GROUP_B], replyURLs=[CALLBACK]))
    (tmp_path / "target.yaml").write_text(
        manifest("target", groups=[GROUP_B], rules=[{"application": "app"}])
    )
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "directory.txt").write_text(DIRECTORY)
    return tmp_path


def load(folder: Path, **options: Any) -> LocalEntraId:
    local = LocalEntraId.from_files([folder], folder / "users" / "directory.txt", **options)
    local.keyring.restore(signing_keys())
    return local


@pytest_asyncio.fixture
async def entra(folder: Path, clock: Clock) -> AsyncIterator[Caller]:
    """They are served."""
    async with served(load(folder, clock=clock)) as caller:
        yield caller


def write(entra: Caller, folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    entra.local.reload()


async def claims_of(entra: Caller) -> tuple[dict[str, Any], dict[str, Any]]:
    """Claims of Ada's ID token for app, and of app's token for the target on behalf of her."""
    login = (await entra.login("app", "ada")).json
    answer = await entra.obo("app", "target", login["access_token"])
    return unverified_claims(login["id_token"]), answer.claims


async def test_optional_claims(entra: Caller, folder: Path) -> None:
    """ID tokens have those of their client, access tokens those of the API; without the files, neither does."""
    plain_id, plain_access = await claims_of(entra)
    write(
        entra,
        folder,
        APP,
        "optionalClaims: {idToken: [{name: upn}, {name: acct}, {name: email}, {name: login_hint}],"
        " accessToken: [{name: given_name}], saml2Token: [{name: x}]}",
    )
    write(
        entra,
        folder,
        TARGET,
        "optionalClaims: {accessToken: [{name: email, essential: true}, {name: given_name}, {name: family_name},"
        " {name: verified_primary_email}, {name: tenant_region_scope}, {name: sid}, {name: idtyp,"
        " additionalProperties: [include_user_token]}]}",
    )
    new_id, access = await claims_of(entra)
    assert new_id["login_hint"].startswith("O.")
    assert {name: new_id[name] for name in new_id.keys() - plain_id.keys() if name != "login_hint"} == {
        "upn": "ada@trygdeetaten.no",
        "acct": 0,
        "email": "ada@trygdeetaten.no",
    }
    assert {name: access[name] for name in access.keys() - plain_access.keys() if name != "sid"} == {
        "email": "ada@trygdeetaten.no",
        "given_name": "Ada",
        "family_name": "Lovelace",
        "verified_primary_email": ["ada@trygdeetaten.no"],
        "tenant_region_scope": "EU",
        "idtyp": "user",
    }
    own = (await entra.m2m("app", "target")).claims
    assert own["idtyp"] == "app"
    assert "email" not in own
    assert entra.local.explain("dev-gcp:team:app", "dev-gcp:team:target", "ada").claims["given_name"] == "Ada"


async def test_lifetimes(entra: Caller, folder: Path) -> None:
    """Of access tokens for the API, and of the client's ID tokens; others last 60 to 90 minutes."""
    write(entra, folder, TARGET, "accessTokenLifetime: 600")
    answer = await entra.m2m("app", "target")
    assert answer.claims["exp"] == entra.local.now() + 600
    assert answer.json["expires_in"] == 599
    id_token, access = await claims_of(entra)
    assert access["exp"] == entra.local.now() + 600
    assert id_token["exp"] >= entra.local.now() + 3600
    write(entra, folder, APP, "accessTokenLifetime: 60")
    assert (await claims_of(entra))[0]["exp"] == entra.local.now() + 60


@pytest.mark.parametrize(
    ("text", "groups", "roles"),
    [
        ("", [GROUP_B], None),
        ("groupMembershipClaims: None", None, None),
        ("groupMembershipClaims: SecurityGroup", [EVERYONE, GROUP_B, OTHER_GROUP], None),
        ("groupMembershipClaims: All", [EVERYONE, GROUP_B, OTHER_GROUP], None),
        ("optionalClaims: {accessToken: [{name: groups}]}", [GROUP_B], None),
        (
            "optionalClaims: {accessToken: [{name: groups, additionalProperties: [cloud_displayname]}]}",
            ["group-b"],
            None,
        ),
        (
            "optionalClaims: {accessToken: [{name: groups, additionalProperties: [sam_account_name, emit_as_roles]}]}",
            None,
            ["group-b"],
        ),
    ],
)
async def test_groups(
    entra: Caller, folder: Path, text: str, groups: list[str] | None, roles: list[str] | None
) -> None:
    """Which groups tokens have, and whether as ids, names or roles. Policies stay as they are."""
    write(entra, folder, TARGET, text)
    claims = (await claims_of(entra))[1]
    assert (claims.get("groups"), claims.get("roles")) == (groups, roles)
    login = (await entra.login("app", "ada")).json
    assert entra.local.explain("dev-gcp:team:app", "dev-gcp:team:target", "ola").granted is False
    assert login


async def test_v1_tokens_with_the_guid_as_audience(entra: Caller, folder: Path) -> None:
    """`aud` with `use_guid`."""
    (folder / "target.yaml").write_text(
        manifest(
            "target", rules=[{"application": "app"}], annotations={"entra-fast/access-token-version": "1"}
        )
    )
    entra.local.reload()
    assert (await entra.m2m("app", "target")).claims["aud"].startswith("api://")
    text = "optionalClaims: {accessToken: [{name: aud, additionalProperties: [use_guid]}]}"
    write(entra, folder, TARGET, text)
    assert (await entra.m2m("app", "target")).claims["aud"] == entra.client_id("target")


def test_all_mistakes_at_once(folder: Path) -> None:
    """With file, line and field, together with those of manifests."""
    (folder / "app.yaml").write_text(manifest("app", nonsense=1))
    (folder / APP).write_text(
        "accessTokenLifetime: 0\n"
        "groupMembershipClaims: Some\n"
        "optionalClaims:\n"
        "  idToken:\n"
        "    - name: emial\n"
        "    - {name: groups, additionalProperties: [shout]}\n"
        "  acessToken: []\n"
        "lifetime: 5\n"
    )
    (folder / TARGET).write_text("- x\n---\naccessTokenLifetime: 1h\n---\n{")
    (folder / "alone.entra.yaml").write_text("accessTokenLifetime: 5")
    with pytest.raises(SourceError) as caught:
        load(folder)
    for sentence in (
        "app.yaml:1: spec.azure.application.nonsense: unknown field",
        "app.entra.yaml:1: accessTokenLifetime: must be seconds, from 1 to 86400",
        "app.entra.yaml:2: groupMembershipClaims: expected 'None', 'ApplicationGroup', 'SecurityGroup' or 'All'",
        "app.entra.yaml:5: optionalClaims.idToken[0].name: Entra ID has no optional claim 'emial'; did you mean 'email'?",
        "app.entra.yaml:6: optionalClaims.idToken[1]: groups has no additional property 'shout'; there are cloud_",
        "app.entra.yaml:7: optionalClaims.acessToken: unknown field; did you mean 'accessToken'?",
        "app.entra.yaml:8: lifetime: unknown field",
        "target.entra.yaml:1: expected a mapping, got a list",
        "target.entra.yaml:3: accessTokenLifetime: expected a whole number, got the text '1h'",
        "target.entra.yaml:6: is not valid YAML",
        "alone.entra.yaml:1: there is no manifest alone.yaml beside it",
    ):
        assert sentence in str(caught.value), f"{sentence}\n{caught.value}"


def test_a_manifest_with_several_applications(folder: Path) -> None:
    """Each document says whose it is; one that does not, or names none or another's, is a mistake."""
    several = "\n---\n".join([manifest("one"), manifest("two"), manifest("two", namespace="other")])
    (folder / "app.yaml").write_text(several)
    beside = folder / "app.entra.yml"
    beside.write_text(
        "{application: one, accessTokenLifetime: 1}\n---\n"
        "{application: two, namespace: other, accessTokenLifetime: 2}\n"
    )
    registry = load(folder).registry
    found = {
        name.partition(":")[2]: item.registration.access_token_lifetime
        for name, item in registry.default_tenant.applications.items()
    }
    assert {name: seconds for name, seconds in found.items() if seconds} == {"team:one": 1, "other:two": 2}
    for text, sentence in (
        (
            "accessTokenLifetime: 1",
            "'application' must say (with 'namespace') which one is meant: team:one, ",
        ),
        ("application: two", "must say (with 'namespace') which one is meant"),
        ("application: three", "application: app.yaml has no application 'three', only team:one"),
        ("application: one\n---\napplication: one", "a second registration of team:one"),
    ):
        beside.write_text(text)
        with pytest.raises(SourceError) as caught:
            load(folder)
        assert sentence in str(caught.value)
    (folder / "app.entra.yaml").write_text("")
    with pytest.raises(SourceError, match="there are two files for app"):
        load(folder)


async def test_it_is_watched(folder: Path) -> None:
    """A new, changed or removed file counts as a change; of a folder, and of a single manifest."""
    for source in (folder, folder / "app.yaml"):
        local = LocalEntraId.from_files([source])
        before = local.watched_files()
        (folder / APP).write_text("accessTokenLifetime: 77")
        assert local.watched_files() != before
        local.reload()
        assert local.registry.find("dev-gcp:team:app").registration.access_token_lifetime == 77
        (folder / APP).unlink()
        assert local.watched_files() == before


async def test_claims_without_values_are_a_notice(entra: Caller, folder: Path) -> None:
    """Entra ID knows them, so they are no mistake; and the console shows what the file says."""
    write(
        entra,
        folder,
        APP,
        "accessTokenLifetime: 600\noptionalClaims:\n  idToken: [{name: onprem_sid}, {name: upn}]",
    )
    (notice,) = [item for item in entra.local.notices if "optional claim" in item.text]
    assert notice.location.endswith("app.entra.yaml:3")
    page = text_of((await entra.request("GET", "/applications/dev-gcp:team:app")).text)
    assert "app.entra.yaml:1 Access token lifetime 600 s" in page
    assert "Optional claims of ID tokens onprem_sid, upn" in page
