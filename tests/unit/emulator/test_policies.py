"""The access policies of NAIS manifests, one test for each rule, through the real token endpoint."""

from __future__ import annotations

import json

import pytest

from support.local_entra import Caller, Clock, local_entra, manifest, served

from .conftest import DIRECTORY, EVERYONE, GROUP_B, MANIFESTS, OTHER_GROUP


@pytest.mark.parametrize("spelling", ["name", "client id"])
async def test_both_identifier_uris_name_the_same_application(entra: Caller, spelling: str) -> None:
    """Policy 1: `api://<client id>` and `api://<cluster>.<namespace>.<name>` give a token for the client
    id.
    """
    uri = {"name": "api://dev-gcp.team.app-b", "client id": f"api://{entra.client_id('app-b')}"}[spelling]
    answer = await entra.m2m("app-a", "app-b", scope=f"{uri}/.default")
    assert answer.claims["aud"] == entra.client_id("app-b")
    assert answer.claims["azp_name"] == "dev-gcp:team:app-a"


async def test_a_consumer_in_no_rule_is_refused(entra: Caller) -> None:
    """Policy 2: an application that the target does not name gets no token."""
    answer = await entra.m2m("app-c", "app-b")
    assert (answer.status, answer.code) == (400, 501051)


async def test_an_application_may_always_call_itself(entra: Caller) -> None:
    """Policy 2: the target itself needs no rule, and gets the default role only."""
    answer = await entra.m2m("app-nobody", "app-nobody")
    assert answer.claims["roles"] == ["access_as_application"]


async def test_an_omitted_namespace_is_the_targets_own(entra: Caller) -> None:
    """Policy 3: the same name in another namespace is another application."""
    assert (await entra.m2m("app-a", "app-b")).status == 200
    assert (await entra.m2m("dev-gcp:elsewhere:outsider", "app-b")).status == 200
    assert (await entra.m2m("outsider", "app-b")).code == 501051


async def test_an_omitted_cluster_is_the_targets_own() -> None:
    """Policy 3: a rule without a cluster admits the application of the target's cluster, not its
    namesake's.
    """
    texts = [
        manifest("caller"),
        manifest("caller", cluster="prod-gcp"),
        manifest("near", rules=[{"application": "caller"}]),
        manifest("far", rules=[{"application": "caller", "namespace": "team", "cluster": "prod-gcp"}]),
    ]
    async with served(local_entra(texts)) as entra:
        assert (await entra.m2m("caller", "near")).status == 200
        assert (await entra.m2m("prod-gcp:team:caller", "near")).code == 501051
        assert (await entra.m2m("prod-gcp:team:caller", "far")).status == 200
        assert (await entra.m2m("caller", "far")).code == 501051


async def test_the_first_rule_for_a_consumer_wins() -> None:
    """Policy 3: permissions of a later rule for the same consumer are lost, and a notice says so."""
    rules = [
        {"application": "caller", "permissions": {"roles": ["first"]}},
        {"application": "caller", "namespace": "team", "permissions": {"roles": ["second"]}},
    ]
    local = local_entra([manifest("caller"), manifest("target", rules=rules)])
    assert any("the first one" in notice.text for notice in local.notices)
    async with served(local) as entra:
        assert (await entra.m2m("caller", "target")).claims["roles"] == ["access_as_application", "first"]


async def test_a_rule_waits_for_its_application(clock: Clock) -> None:
    """Policy 4: a rule for an application that does not exist grants nothing until that appears."""
    before = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    assert any("late does not exist" in notice.text for notice in before.notices)
    after = local_entra([*MANIFESTS, manifest("late")], DIRECTORY, clock=clock)
    assert not any("late does not exist" in notice.text for notice in after.notices)
    async with served(after) as entra:
        assert (await entra.m2m("late", "app-b")).status == 200


async def test_a_wildcard_grants_nothing(entra: Caller) -> None:
    """Policy 4: `*` admits no one to Entra ID, a notice says so, and so does the refusal's explanation."""
    assert any("wildcard" in notice.text for notice in entra.local.notices)
    explanation = entra.local.explain("dev-gcp:team:app-nobody", "dev-gcp:team:app-b")
    assert not explanation.granted
    assert "wildcard" in explanation.decision.reasons[-1].text
    assert (await entra.m2m("app-nobody", "app-b")).code == 501051


async def test_no_user_is_admitted_by_default(entra: Caller) -> None:
    """Policy 5: without groups and without allowAllUsers, no user may use an application."""
    decision = entra.local.explain("dev-gcp:team:app-nobody", "dev-gcp:team:app-nobody", "ada").decision
    assert decision.error is not None
    assert decision.error.code == 50105


async def test_groups_admit_their_direct_members(entra: Caller) -> None:
    """Policy 5: on behalf of a member it works, and the token has those groups only that the target has
    too.
    """
    token = await entra.user_token("app-a", "ada")
    answer = await entra.obo("app-a", "app-b", token)
    assert answer.claims["groups"] == [GROUP_B]
    assert OTHER_GROUP not in answer.text


async def test_a_user_outside_the_groups_is_refused(entra: Caller) -> None:
    """Policy 5: on behalf of any other user it is refused, although the target admits the consumer."""
    token = await entra.user_token("app-a", "ola")
    answer = await entra.obo("app-a", "app-b", token)
    assert (answer.status, answer.code) == (400, 50105)
    assert "dev-gcp:team:app-b" in answer.json["error_description"]


async def test_allow_all_users_combines_with_groups(entra: Caller) -> None:
    """Policy 5: allowAllUsers admits everyone; the "all users" group is in `groups`, in addition to assigned
    ones."""
    ola = await entra.obo("app-a", "app-c", await entra.user_token("app-a", "ola"))
    assert ola.claims["groups"] == [EVERYONE]
    ada = await entra.obo("app-a", "app-c", await entra.user_token("app-a", "ada"))
    assert sorted(ada.claims["groups"]) == sorted([EVERYONE, GROUP_B])


def test_groups_that_do_not_exist_are_skipped() -> None:
    """Policy 5: an unknown group admits no one, and a notice names file and line."""
    local = local_entra([manifest("app", groups=["99999999-0000-4000-8000-000000000000"])], DIRECTORY)
    (notice,) = local.notices
    assert notice.location == "0.yaml:1"
    assert "does not exist" in notice.text


async def test_custom_permissions_are_for_that_consumer_and_kind_only(entra: Caller) -> None:
    """Policy 6: custom roles are in machine tokens, custom scopes in users' tokens, for the named
    consumer only.
    """
    machine = (await entra.m2m("app-a", "app-b")).claims
    assert machine["roles"] == ["access_as_application", "custom-role"]
    assert "scp" not in machine
    user = (await entra.obo("app-a", "app-b", await entra.user_token("app-a", "ada"))).claims
    assert user["scp"] == "defaultaccess custom.scope"
    assert "roles" not in user
    assert (await entra.m2m("dev-gcp:elsewhere:outsider", "app-b")).claims["roles"] == [
        "access_as_application"
    ]
    assert (await entra.m2m("app-a", "app-c")).claims["roles"] == ["access_as_application"]


async def test_tenants_are_isolated(entra: Caller) -> None:
    """Policy 7: neither applications nor users of one tenant exist in the other."""
    assert (await entra.m2m("app-a", "abroad")).code == 500011
    nav = entra.tenant_id("abroad")
    assert nav != entra.tenant_id("app-a")
    form = {"grant_type": "client_credentials", "scope": entra.scope("abroad"), **entra.credentials("app-a")}
    assert (await entra.token(form, nav)).code == 700016
    answer = await entra.sign_in("abroad", "ada@trygdeetaten.no")
    assert answer.status == 400
    assert "There is no user" in answer.text
    assert any("tenants are isolated" in notice.text for notice in entra.local.notices)


def test_a_target_in_another_tenant_is_explained(clock: Clock) -> None:
    """Policy 7: the refusal is the same as for an unknown target, and the check says why."""
    local = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    explanation = local.explain("dev-gcp:team:app-a", "dev-gcp:team:abroad")
    (reason,) = explanation.decision.reasons
    assert "it is in the tenant nav.no, and tenants are isolated" in reason.text
    assert reason.remedy == "give both applications the same tenant"
    document = explanation.document()
    assert document["error"]["code"] == 500011
    assert document["claims"] == {}


def test_pre_authorized_applications(clock: Clock) -> None:
    """Policy 8: AZURE_APP_PRE_AUTHORIZED_APPS lists the rules that resolve, and the application itself."""
    local = local_entra(MANIFESTS, DIRECTORY, clock=clock)
    listed = json.loads(local.environment("dev-gcp:team:app-b")["AZURE_APP_PRE_AUTHORIZED_APPS"])
    names = ["dev-gcp:team:app-b", "dev-gcp:team:app-a", "dev-gcp:elsewhere:outsider"]
    assert listed == [{"name": name, "clientId": local.registry.find(name).client_id} for name in names]


def test_ids_follow_from_names() -> None:
    """Client ids, object ids and tenant ids are the same at every start and on every machine."""
    local = local_entra(MANIFESTS, DIRECTORY)
    found = local.registry.find("dev-gcp:team:app-a")
    assert found.client_id == "24c8247b-530f-5774-8d5e-8784ebd369cf"
    assert found.tenant_id == "d91d7185-3a31-5a0e-8ecc-bb0a3256cbf9"
    assert (
        local.registry.default_tenant.directory.usernames["ada@trygdeetaten.no"].id
        == "24a31af8-2607-5605-ae70-c040c3d7896e"
    )
