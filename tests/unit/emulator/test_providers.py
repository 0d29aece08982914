"""What the local providers share: manifests, the directory, the console, keys across restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from entra_fast.emulator import LocalEntraId, SourceError
from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model import manifests as manifest_files
from entra_fast.emulator.model import overview, yaml_source
from entra_fast.emulator.model.calls import Calls
from entra_fast.emulator.model.forms import is_organization_number
from entra_fast.emulator.protocol.provider_keys import ProviderKeys
from entra_fast.errors import ConfigurationError, EntraFastError
from support.local_entra import EXAMPLES, Clock, local_entra, manifest, served
from support.local_providers import (
    CUSTOMER,
    OWN,
    MaskinportenCaller,
    TokenXCaller,
    full,
    local_providers,
    workload,
)

AFP = "nav:helse/sykepenger/afp.read"


def read(spec: dict[str, Any], annotations: dict[str, str] | None = None) -> manifest_files.Manifest:
    """A manifest with this `spec`."""
    text = json.dumps(
        {
            "apiVersion": "nais.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": "app", "namespace": "team", "annotations": annotations or {}},
            "spec": spec,
        },
        indent=1,
    )
    (document,) = yaml_source.documents(text, "app.yaml")
    return manifest_files.parse(document)


def scope(**fields: Any) -> dict[str, Any]:
    """`spec.maskinporten` with one exposed scope."""
    entry = {"enabled": True, "product": "helse", "name": "afp", **fields}
    kept = {name: value for name, value in entry.items() if value is not None}
    return {"maskinporten": {"enabled": True, "scopes": {"exposes": [kept]}}}


# Manifests


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "nav:helse:afp"),
        ({"name": "a/b.read"}, "nav:helse/a/b.read"),
        ({"name": "a/b", "separator": ":"}, "nav:helse:a/b"),
        ({"separator": "."}, "nav:helse.afp"),
        ({"separator": "/", "delegationSource": "altinn"}, "nav:helse/afp"),
        ({"name": "a/b", "delegationSource": "altinn"}, "nav:helse/a/b"),
    ],
)
def test_names_of_exposed_scopes(fields: dict[str, Any], name: str) -> None:
    """Prefix, product, separator and name; the separator is `:`, or `/` if the name has one."""
    text = json.dumps(
        {
            "apiVersion": "nais.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": "app", "namespace": "team"},
            "spec": scope(**fields),
        }
    )
    (found,) = local_entra([text]).registry.workloads.scopes.values()
    assert (found.name, found.lifetime, found.owner) == (name, 30, full("app"))


@pytest.mark.parametrize(
    ("spec", "field", "sentence"),
    [
        ({"tokenx": {}}, "spec.tokenx.enabled", "required, but missing"),
        (
            {"tokenx": {"enabled": "true"}},
            "spec.tokenx.enabled",
            "expected true or false, got the text 'true'",
        ),
        ({"tokenx": {"enabled": True, "enabeld": True}}, "tokenx.enabeld", "; did you mean 'enabled'?"),
        ({"tokenx": True}, "spec.tokenx", "expected a mapping, got true"),
        ({"maskinporten": {"scopes": {}}}, "spec.maskinporten.enabled", "required, but missing"),
        (
            {"maskinporten": {"enabled": True, "scopes": {"consume": []}}},
            "spec.maskinporten.scopes.consume",
            "unknown field; did you mean 'consumes'?",
        ),
        (
            {"maskinporten": {"enabled": True, "scopes": {"consumes": [{"name": "a b"}]}}},
            "spec.maskinporten.scopes.consumes[0].name",
            "'a b' is not a scope",
        ),
        (
            {"maskinporten": {"enabled": True, "scopes": {"consumes": ["nav:a"]}}},
            "spec.maskinporten.scopes.consumes[0]",
            "expected a mapping",
        ),
        (scope(enabled=None), "exposes[0].enabled", "required, but missing"),
        (scope(product=None), "exposes[0].product", "required, but missing"),
        (scope(name=None), "exposes[0].name", "required, but missing"),
        (scope(product="Helse"), "exposes[0].product", "does not match ^[a-z0-9]+$"),
        (scope(product="he-lse"), "exposes[0].product", "does not match ^[a-z0-9]+$"),
        (scope(name="A b"), "exposes[0].name", "is not the name of a scope"),
        (scope(separator=";"), "exposes[0].separator", "expected '/', ':' or '.'"),
        (scope(atMaxAge=29), "exposes[0].atMaxAge", "must be seconds, from 30 to 680"),
        (scope(atMaxAge=681), "exposes[0].atMaxAge", "must be seconds, from 30 to 680"),
        (scope(atMaxAge="30"), "exposes[0].atMaxAge", "expected a whole number"),
        (scope(delegationSource="altinn"), "exposes[0]", "delegationSource needs the separator '/'"),
        (scope(delegationSource="brreg", separator="/"), "exposes[0].delegationSource", "expected 'altinn'"),
        (scope(visibility="secret"), "exposes[0].visibility", "expected 'public' or 'private'"),
        (scope(accessibleForAll="yes"), "exposes[0].accessibleForAll", "expected true or false"),
        (scope(consumers=[{"name": "x"}]), "exposes[0].consumers[0].orgno", "required, but missing"),
        (scope(consumers=[{"orgno": "12345678"}]), "exposes[0].consumers[0].orgno", "nine digits"),
        (scope(consumers=[{"orgno": 123456789}]), "exposes[0].consumers[0].orgno", "put it in quotes"),
        (
            scope(consumers=[{"orgno": "123456789", "orgnr": ""}]),
            "exposes[0].consumers[0].orgnr",
            "did you mean 'orgno'?",
        ),
    ],
)
def test_mistakes_in_manifests(spec: dict[str, Any], field: str, sentence: str) -> None:
    """Each names file, line and field, and says what was expected."""
    with pytest.raises(SourceError) as caught:
        read(spec)
    assert caught.value.total == 1, caught.value.message
    assert (caught.value.file, caught.value.field.endswith(field)) == ("app.yaml", True), caught.value.field
    assert sentence in caught.value.message
    assert caught.value.line > 1


def test_fields_that_real_manifests_have() -> None:
    """All of NAIS's are accepted."""
    entry = scope(
        allowedIntegrations=["maskinporten"],
        consumers=[{"name": "NAV", "orgno": "889640782"}],
        visibility="private",
        accessibleForAll=False,
        atMaxAge=680,
    )
    found = read({**entry, "tokenx": {"enabled": True, "mountSecretsAsFilesOnly": True}})
    assert found.spec.tokenx.enabled
    assert not read({}).spec.tokenx.enabled
    assert not read({}).spec.maskinporten.enabled


@pytest.mark.parametrize("number", ["310000018", "31000001", "x10000019", "310000019 "])
def test_the_organization_of_an_application(number: str) -> None:
    """An annotation names it; its last digit is checked."""
    annotation = "entra-fast/organization-number"
    assert read({}, {annotation: OWN}).metadata.annotations.organization == OWN
    with pytest.raises(SourceError, match="is not an organization number"):
        read({}, {annotation: number})


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("310000019", True),
        ("310000027", True),
        ("889640782", True),
        ("974760673", True),
        ("310000017", False),
        ("123456789", False),
        ("000000060", False),  # the check would be 10
        ("٣10000019", False),
        ("", False),
    ],
)
def test_organization_numbers(number: str, expected: bool) -> None:
    """The last of nine digits checks the others (modulo 11)."""
    assert is_organization_number(number) is expected


def test_a_rule_for_tokenx_alone_is_no_mistake_in_entra_id() -> None:
    """Consumer and target are registered in TokenX: neither list, map nor page says that the rule names
    nothing."""
    rules = [{"application": "web"}, {"application": "gone"}]
    local = local_entra([workload("web"), workload("both", rules=rules, azure=True)])
    registry = local.registry
    (group,) = overview.applications(registry)
    row = next(row for row in group.rows if row.name == full("both"))
    assert row.unresolved == 1
    states = [rule.state for rule in overview.application(registry, full("both")).rules]
    assert states == ["for TokenX", "unknown consumer"]
    assert {call.consumer.label for call in Calls(registry, {}).everything().calls} == {"gone"}


def test_notices_about_rules() -> None:
    """Rules of an application that only TokenX knows, and rules that grant something in TokenX only."""
    rules = [{"application": name} for name in ("*", "nobody", "off", "web")]
    local = local_entra(
        [
            workload("api", rules=rules),
            workload("web"),
            workload("off", tokenx=False),
            workload("both", rules=[{"application": "web"}, {"application": "off"}], azure=True),
        ]
    )
    found = [notice.text for notice in local.notices if "allUsers" not in notice.text]
    assert sorted(found) == sorted(
        [
            "a rule with a wildcard grants no access in TokenX: name the application",
            "dev-gcp:team:nobody does not exist, so the rule grants nothing until it appears",
            "dev-gcp:team:off is not registered in TokenX, so the rule grants nothing until its tokenx is "
            "enabled",
            "dev-gcp:team:off has no identity in Entra ID (2.yaml:1), so the rule grants nothing until its "
            "azure.application is enabled",
        ]
    )


# The directory


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("scopes: [{name: 'a b'}]", "scopes[0].name: 'a b' is not a scope"),
        (
            "scopes: [{name: a, consumers: ['1']}]",
            "scopes[0].consumers[0]: '1' is not an organization number",
        ),
        ("scopes: [{name: a, atMaxAge: 3601}]", "scopes[0].atMaxAge: must be seconds, from 1 to 3600"),
        (
            "delegations: [{scope: a, consumer: '310000019'}]",
            "delegations[0].supplier: required, but missing",
        ),
    ],
)
def test_mistakes_in_the_directory(line: str, sentence: str) -> None:
    """As for users and groups."""
    with pytest.raises(SourceError) as caught:
        directories.parse(yaml_source.documents(f"tenant: nav.no\n{line}\n", "directory.yaml"))
    assert sentence in caught.value.message


# State


async def test_keys_and_used_grants_survive_a_restart(clock: Clock, tmp_path: Path) -> None:
    """With a state directory, like everything else."""
    texts = [workload("web"), workload("client", consumes=["a:b"])]
    directory = "tenant: nav.no\nscopes: [{name: 'a:b', accessibleForAll: true}]\n"
    local = local_providers(texts, directory, clock=clock, state_directory=tmp_path)
    async with served(local) as caller:
        environment = local.environment(full("client"))
        grant = MaskinportenCaller(caller).grant("client", "a:b")
        assert (await MaskinportenCaller(caller).send(grant)).status == 200
        kids = [keys.active.kid for keys in local.provider_keys.signing.values()]
    again = local_entra(texts, directory, clock=clock, state_directory=tmp_path)
    assert [keys.active.kid for keys in again.provider_keys.signing.values()] == kids
    assert (
        again.environment(full("client"))["MASKINPORTEN_CLIENT_JWK"] == environment["MASKINPORTEN_CLIENT_JWK"]
    )
    assert len(again.store.used_grants.items()) == 1


async def test_snapshots_have_what_the_providers_keep(clock: Clock) -> None:
    """Directory, used grants, and keys if they are asked for; a snapshot without them leaves keys alone."""
    texts = [workload("client", consumes=["a:b", AFP])]
    directory = (
        "tenant: nav.no\n"
        f"scopes: [{{name: 'a:b', consumers: ['{OWN}'], atMaxAge: 7, delegationSource: altinn}}]\n"
        f"delegations: [{{scope: 'a:b', consumer: '{CUSTOMER}', supplier: '{OWN}'}}]\n"
    )
    local = local_providers(texts, directory, clock=clock)
    async with served(local) as caller:
        maskinporten = MaskinportenCaller(caller)
        grant = maskinporten.grant("client", "a:b")
        assert (await maskinporten.send(grant)).json["expires_in"] == 7
        document = json.loads(json.dumps(local.export_state(secrets=True)))
        secret = document["secrets"]["providers"]
        assert full("client") in secret["clients"]["maskinporten"]
        other = local_entra(texts, clock=clock)
        other.import_state(document)
        assert other.registry.workloads.scopes["a:b"].lifetime == 7
        assert other.registry.workloads.delegations == local.registry.workloads.delegations
        assert other.provider_keys.export() == local.provider_keys.export()
        assert len(other.store.used_grants.items()) == 1
        del document["secrets"]
        local.import_state(document)
        assert "used before" in (await maskinporten.send(grant)).text
        older = local.export_state(secrets=True)
        del older["secrets"]["providers"]
        other.import_state(older)
        assert other.provider_keys.export() == local.provider_keys.export()
        older["secrets"]["providers"] = {"signing": {"tokenx": {}}, "clients": {}}
        with pytest.raises(ConfigurationError, match="secrets: cannot be used"):
            other.import_state(older)


def test_keys_are_generated_when_they_are_needed(clock: Clock) -> None:
    """A thousand applications load at no cost: nothing is generated at the start."""
    local = local_entra([workload("web", consumes=[])], clock=clock)
    empty = {"since": 0.0, "keys": []}
    assert local.provider_keys.export() == {
        "signing": {"tokenx": empty, "maskinporten": empty, "idporten": empty},
        "clients": {"tokenx": {}, "maskinporten": {}, "idporten": {}},
    }
    assert not local.provider_keys.signing["tokenx"].ready


def test_keys_of_unknown_providers() -> None:
    """An error that names the known ones."""
    with pytest.raises(EntraFastError, match="only tokenx, maskinporten"):
        ProviderKeys(Clock()).rotate("entra_id")


# Console and examples


async def test_the_console_shows_the_providers_of_an_application(clock: Clock) -> None:
    """With their issuers; an application that Entra ID does not know has a page, too."""
    texts = [
        workload("both", consumes=["a:b"], azure=True),
        workload("web", rules=[{"application": "both"}]),
        workload("alone", tokenx=None, consumes=[]),
        manifest("entra-only"),
    ]
    async with served(local_providers(texts, clock=clock)) as caller:
        overview = await caller.request("GET", "/")
        assert f'<a href="/applications/{quote(full("web"), safe="")}">' in overview.text
        assert "Applications of other providers only" in overview.text
        assert "Applications of other providers only" not in (await caller.request("GET", "/?q=both")).text
        for name, shown in (
            (
                "both",
                ["TokenX", "Maskinporten", f"{caller.base_url}/tokenx", "a:b", OWN, "TOKEN_X_CLIENT_ID"],
            ),
            ("web", ["does not know it", f"{caller.base_url}/tokenx", full("both"), "TOKEN_X_CLIENT_ID"]),
            ("alone", [f"{caller.base_url}/maskinporten/", "MASKINPORTEN_SCOPES", "none"]),
        ):
            page = await caller.request("GET", f"/applications/{full(name)}")
            assert page.status == 200
            assert [text for text in shown if text not in page.text] == []
        assert (
            "<h2>TokenX</h2>" not in (await caller.request("GET", f"/applications/{full('entra-only')}")).text
        )
        assert (await caller.request("GET", "/applications/dev-gcp:team:nobody")).status == 404


async def test_the_console_explains_other_providers(clock: Clock) -> None:
    """The page asks the provider that is chosen."""
    texts = [workload("web", consumes=["a:b"]), workload("api", rules=[{"application": "web"}])]
    async with served(local_providers(texts, clock=clock)) as caller:
        for provider, consumer, target, shown in (
            ("tokenx", "web", full("api"), "✓ granted"),
            ("tokenx", "api", full("web"), "✗ refused: invalid_request"),
            ("maskinporten", "web", "a:b", "✗ refused: MP-250"),
            ("entra_id", "web", full("api"), "has no identity in Entra ID"),
            ("other", "web", full("api"), "is none of entra_id, tokenx and maskinporten"),
        ):
            query = {"provider": provider, "consumer": full(consumer), "target": target}
            page = await caller.request("GET", "/explain", params=query)
            assert (page.status, shown in page.text) == (200, True), (query, page.text)


async def test_the_examples_have_a_chain_and_a_scope(clock: Clock) -> None:
    """web -> api -> api2 at TokenX, and a Maskinporten token for a scope that an example exposes."""
    local = LocalEntraId.from_files([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml", clock=clock)
    assert not local.notices
    async with served(local) as caller:
        tokenx, maskinporten = TokenXCaller(caller), MaskinportenCaller(caller)
        a, b, c = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "dev-gcp:team-b:app-c"
        first = await tokenx.exchange(a, b, tokenx.login())
        second = await tokenx.exchange(b, c, first.json["access_token"])
        assert second.claims["aud"] == c
        assert (await maskinporten.token(a, AFP)).claims["exp"] == int(clock.now) + 120
        delegated = await maskinporten.token(a, AFP, consumer_org=CUSTOMER)
        assert delegated.claims["supplier"]["ID"] == f"0192:{OWN}"
        entry = (await caller.request("GET", "/log")).text
        assert "JWT grant" in entry
        number = local.journal.entries()[0].number
        assert "maskinporten" in (await caller.request("GET", f"/log/{number}")).text
