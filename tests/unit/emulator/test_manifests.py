"""Reading manifests and directories: what is accepted, and what is said about the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entra_fast.emulator import LocalEntraId, Source, SourceError
from entra_fast.emulator.model import directory as directories
from entra_fast.emulator.model import manifests as manifest_files
from entra_fast.emulator.model import yaml_source
from entra_fast.emulator.model.documents import Document
from support.local_entra import EXAMPLES, manifest

HEAD = """\
apiVersion: nais.io/v1alpha1
kind: Application
metadata:
  name: app
  namespace: team
"""

MAX = (
    HEAD
    + """\
  labels: {team: team}
  annotations: {nais.io/deploymentCorrelationID: x}
spec:
  image: {{image}}
  port: 8080
  ingresses: [https://app.example]
  replicas: {min: 1, max: 2, cpuThresholdPercentage: 50}
  env:
    - name: A
      value: "b"
    - name: EMPTY
  liveness: {path: isalive, port: http}
  readiness: {path: isready}
  startup: {path: started}
  prometheus: {enabled: true, path: /metrics}
  resources: {limits: {cpu: 500m, memory: 512Mi}}
  strategy: {type: RollingUpdate}
  gcp: {sqlInstances: [{type: POSTGRES_14, databases: [{name: x}]}]}
  kafka: {pool: nav-dev}
  tokenx: {enabled: true}
  idporten: {enabled: false, sidecar: {enabled: false, level: Level4, resources: {limits: {cpu: 1}}}}
  maskinporten: {enabled: false}
  observability: {logging: {destinations: [{id: loki}]}}
  vault:
  webproxy: false
  azure:
    application:
      enabled: true
      tenant: nav.no
      allowAllUsers: yes
      claims: {extra: [NAVident], groups: [{id: 00000000-0000-4000-8000-0000000000b1}]}
    sidecar: {enabled: true, autoLogin: true, resources: {limits: {cpu: 1}}}
  accessPolicy:
    inbound:
      rules:
        - {application: a, namespace: b, cluster: c, permissions: {roles: [r], scopes: [s]}}
    outbound: {external: [{host: example.com}]}
"""
)


def read(text: str) -> manifest_files.Manifest:
    (document,) = yaml_source.documents(text, "app.yaml")
    return manifest_files.parse(document)


def attempt(text: str, use: Callable[[Document], object]) -> SourceError | None:
    """The only error that reading a text may raise; any other fails the test."""
    try:
        for document in yaml_source.documents(text, "x.yaml"):
            use(document)
    except SourceError as error:
        return error
    return None


def test_a_full_manifest_is_accepted() -> None:
    """The known fields of the real resource are accepted, unrendered placeholders in unimportant ones
    included.
    """
    parsed = read(MAX)
    assert parsed.application == "dev-gcp:team:app"
    azure = parsed.spec.azure.application
    assert azure is not None
    assert azure.allow_all_users
    assert azure.tenant == "nav.no"
    assert parsed.spec.access_policy.inbound.rules[0].permissions.roles == ("r",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec:\n  iamge: x\n", "app.yaml:7: spec.iamge: unknown field; did you mean 'image'?"),
        ("spec:\n  azure:\n    application:\n      enabled: maybe\n",
         "app.yaml:9: spec.azure.application.enabled: expected true or false, got the text 'maybe'"),
        ("spec:\n  azure:\n    application: {}\n",
         "app.yaml:8: spec.azure.application.enabled: required, but missing"),
        ("spec:\n  azure:\n    application:\n      enabled: true\n      alowAllUsers: true\n",
         "app.yaml:10: spec.azure.application.alowAllUsers: unknown field; did you mean 'allowAllUsers'?"),
        ("spec:\n  accessPolicy:\n    inbound:\n      rules:\n        - application: a\n          role: x\n",
         "app.yaml:11: spec.accessPolicy.inbound.rules[0].role: unknown field"),
        ("spec:\n  accessPolicy:\n    inbound:\n      rules:\n        - namespace: a\n",
         "app.yaml:10: spec.accessPolicy.inbound.rules[0].application: required, but missing"),
        ("spec:\n  accessPolicy:\n    inbound:\n      rules:\n        - application: a\n"
         "          permissions: {roles: [Not Good]}\n",
         "app.yaml:11: spec.accessPolicy.inbound.rules[0].permissions.roles[0]: 'Not Good' does not match"),
        ("spec:\n  accessPolicy:\n    inbound:\n      rules: none\n",
         "app.yaml:9: spec.accessPolicy.inbound.rules: expected a list, got the text 'none'"),
        ("spec:\n  port: 1\n  port: 2\n", "app.yaml:8: spec.port: is defined twice (first on line 7)"),
        ("spec:\n  azure:\n    application:\n      enabled: true\n      tenant: {{tenant}}\n",
         "app.yaml:10: spec.azure.application.tenant: '{{tenant}}' is not a domain name"),
        ("spec:\n  azure:\n    application:\n      enabled: true\n      claims: {groups: [{id: my-group}]}\n",
         "app.yaml:10: spec.azure.application.claims.groups[0].id: 'my-group' is not a GUID"),
        ("spec:\n  azure:\n    application:\n      enabled: true\n      replyURLs: ['http://evil.example/']\n",
         "app.yaml:10: spec.azure.application.replyURLs[0]: 'http://evil.example/' is not a reply URL"),
        ("  clutser: x\nspec: {}\n", "app.yaml:6: metadata.clutser: unknown field"),
        ("  labels: {version: 1.5}\n",
         "app.yaml:6: metadata.labels.version: expected text, got the number 1.5; put it in quotes"),
        ("  labels: {team: true}\n",
         "app.yaml:6: metadata.labels.team: expected text, got true; put it in quotes"),
        ("  annotations: {entra-fast/access-token-version: '3'}\n",
         "entra-fast/access-token-version: expected '1' or '2', got the text '3'"),
        ("  annotations: {entra-fast/cluster: Prod}\n",
         "app.yaml:6: metadata.annotations.entra-fast/cluster: 'Prod' is not a name"),
        ("  annotations: {other: {}}\n",
         "app.yaml:6: metadata.annotations.other: expected text, got a mapping"),
        ("spec:\n  ingresses: [null]\n", "app.yaml:7: spec.ingresses[0]: expected text, got nothing"),
        ("spec: []\n", "app.yaml:6: spec: expected a mapping, got a list"),
        ("specs: {}\n", "app.yaml:6: specs: unknown field; did you mean 'spec'?"),
        ("spec: {<<: {}}\n", "app.yaml:6: spec.<<: merge keys"),
        ("spec:\n\tport: 1\n", "app.yaml:7: is not valid YAML"),
        ("{{#if x}}\nspec: {}\n", "is not valid YAML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_file_line_and_field(text: str, message: str) -> None:
    """Unknown fields, wrong types, missing fields, duplicates, bad values: where, what, and what was
    expected.
    """
    with pytest.raises(SourceError) as caught:
        read(HEAD + text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["App", "a_b", "-a", "a" * 64, "{{app}}", "*"])
def test_names_are_kubernetes_names(name: str) -> None:
    """An application's name is what Kubernetes would accept."""
    with pytest.raises(SourceError, match=r"metadata\.name"):
        read(manifest(name))


def test_duplicate_applications_are_an_error(tmp_path: Path) -> None:
    """Both places are named."""
    (tmp_path / "one.yaml").write_text(manifest("app"))
    (tmp_path / "two.yaml").write_text(manifest("other") + "\n---\n" + manifest("app"))
    with pytest.raises(SourceError) as caught:
        LocalEntraId.from_files([tmp_path])
    assert f"{tmp_path}/two.yaml:3: metadata.name" in str(caught.value)
    assert f"already defined at {tmp_path}/one.yaml:1" in str(caught.value)


def test_all_mistakes_of_a_manifest_are_reported_at_once() -> None:
    """One line for each mistake, in the order of the file; the error's attributes are the first one's."""
    text = (
        HEAD.replace("name: app", "name: App")
        + """\
  labels: {team: 1}
spec:
  iamge: x
  ingresses: none
  azure:
    application:
      enabled: maybe
      claims: {groups: [{id: a}, {id: b}]}
  accessPolicy:
    inbound:
      rules:
        - {namespace: other, role: x}
        - 5
"""
    )
    with pytest.raises(SourceError) as caught:
        read(text)
    assert str(caught.value).splitlines() == [
        "app.yaml:4: metadata.name: 'App' is not a name: lower-case letters, digits and '-', "
        "at most 63 characters",
        "app.yaml:6: metadata.labels.team: expected text, got the number 1; put it in quotes",
        "app.yaml:8: spec.iamge: unknown field; did you mean 'image'?",
        "app.yaml:9: spec.ingresses: expected a list, got the text 'none'",
        "app.yaml:12: spec.azure.application.enabled: expected true or false, got the text 'maybe'",
        "app.yaml:13: spec.azure.application.claims.groups[0].id: 'a' is not a GUID; "
        "groups are named by their object id",
        "app.yaml:13: spec.azure.application.claims.groups[1].id: 'b' is not a GUID; "
        "groups are named by their object id",
        "app.yaml:17: spec.accessPolicy.inbound.rules[0].application: required, but missing",
        "app.yaml:17: spec.accessPolicy.inbound.rules[0].role: unknown field",
        "app.yaml:18: spec.accessPolicy.inbound.rules[1]: expected a mapping, got the number 5",
    ]
    error = caught.value
    assert (error.code, error.file, error.line, error.field) == (
        "manifest_invalid",
        "app.yaml",
        4,
        "metadata.name",
    )
    assert error.total == len(error.mistakes) == 10


def test_mistakes_of_all_files_are_reported_at_once(tmp_path: Path) -> None:
    """Several files, several documents in a file, invalid YAML, duplicates, and the directory: one error."""
    (tmp_path / "a.yaml").write_text(HEAD + "spec: {nonsense: 1}\n---\n" + HEAD + "spec: {nonsense: 2}\n")
    (tmp_path / "b.yaml").write_text(HEAD + "---\nkind: 5\n---\nspec: [\n")
    (tmp_path / "c.yaml").write_text(HEAD)
    (tmp_path / "d.yaml").write_text("[]")
    directory = tmp_path / "directory" / "users.txt"
    directory.parent.mkdir()
    directory.write_text(
        "tenant: t.no\nusers: [{name: A}, {name: B, username: b, groups: 1}]\n---\ntenant: T\n"
    )
    with pytest.raises(SourceError) as caught:
        LocalEntraId.from_files([tmp_path], directory)
    lines = [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]
    assert lines == [
        "a.yaml:6: spec.nonsense: unknown field",
        "a.yaml:13: spec.nonsense: unknown field",
        "b.yaml:7: apiVersion: required, but missing",
        "b.yaml:7: kind: expected text, got the number 5",
        lines[4],
        "c.yaml:4: metadata.name: the application dev-gcp:team:app is already defined at "
        f"{tmp_path}/b.yaml:4",
        "d.yaml:1: expected a mapping, got a list",
        "directory/users.txt:2: users[0].username: required, but missing",
        "directory/users.txt:2: users[1].username: 'b' is not of the form name@domain",
        "directory/users.txt:2: users[1].groups: expected a list, got the number 1",
        "directory/users.txt:4: tenant: 'T' is not a domain name in lower case",
    ]
    assert lines[4].startswith("b.yaml:10: is not valid YAML")


def test_many_mistakes_do_not_flood_the_terminal(tmp_path: Path) -> None:
    """The first 50, and how many more there are."""
    (tmp_path / "a.yaml").write_text(HEAD + f"spec: {{ingresses: {[0] * 40}}}\n")
    (tmp_path / "b.yaml").write_text(HEAD + f"spec: {{ingresses: {[0] * 30}}}\n")
    with pytest.raises(SourceError) as caught:
        LocalEntraId.from_files([tmp_path])
    lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[49].startswith(f"{tmp_path}/b.yaml:6: spec.ingresses[9]: expected text")
    assert lines[50] == "and 20 more"
    assert (len(caught.value.mistakes), caught.value.total) == (50, 70)


def test_a_file_that_is_wrong_throughout_is_one_mistake() -> None:
    """Thousands of mistakes are counted rather than listed, so that they take no memory."""
    with pytest.raises(SourceError) as caught:
        read(HEAD + f"spec: {{ingresses: {[0] * 10_001}}}\n")
    assert str(caught.value) == "app.yaml:1: has 10001 mistakes, too many to list them"


def test_a_long_value_is_cut_in_the_message() -> None:
    """A mistake takes one line of bounded length, whatever the file holds."""
    with pytest.raises(SourceError) as caught:
        read(HEAD.replace("name: app", f"name: {'A' * 100_000}") + f"spec: {{{'b' * 1000}: 1}}\n")
    first, second = str(caught.value).splitlines()
    assert len(first) < 250
    assert len(second) < 250


def test_other_resources_are_skipped_with_a_notice(tmp_path: Path) -> None:
    """Folders may contain other kinds; a misspelt kind is still an error."""
    (tmp_path / "topic.yaml").write_text("apiVersion: kafka.nais.io/v1\nkind: Topic\nmetadata: {name: x}\n")
    local = LocalEntraId.from_files([tmp_path])
    assert "neither Application nor Naisjob" in local.notices[0].text
    (tmp_path / "topic.yaml").write_text(manifest("app").replace("Application", "Aplication"))
    with pytest.raises(SourceError, match="did you mean 'Application'"):
        LocalEntraId.from_files([tmp_path])


def test_clusters_come_from_source_or_annotation(tmp_path: Path) -> None:
    """`<cluster>=<path>`, or the annotation; else dev-gcp."""
    (tmp_path / "a.yaml").write_text(manifest("a"))
    (tmp_path / "b.yaml").write_text(manifest("b", cluster="prod-fss"))
    local = LocalEntraId.from_files([f"prod-gcp={tmp_path}"])
    assert {"prod-gcp:team:a", "prod-fss:team:b"} <= set(local.registry.default_tenant.applications)
    assert Source.parse("x.yaml").cluster == "dev-gcp"


def test_applications_without_identity() -> None:
    """Without azure.application.enabled there is no client, and the error says where to enable it."""
    from support.local_entra import local_entra

    text = manifest("app").replace('"enabled": true', '"enabled": false')
    local = local_entra([text])
    with pytest.raises(Exception, match=r"azure\.application\.enabled to true at 0\.yaml:1"):
        local.registry.find("dev-gcp:team:app")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tenant: t.no\nusers:\n  - {name: A}\n", "d.yaml:3: users[0].username: required, but missing"),
        ("tenant: t.no\nusers:\n  - {name: A, username: nobody}\n", "users[0].username: 'nobody' is not of"),
        ("tenant: t.no\nusers:\n  - {name: A, username: a@t.no, groups: [x]}\n", "there is no group 'x'"),
        ("tenant: t.no\nusers:\n  - {name: A, username: a@t.no}\n  - {name: B, username: A@t.no}\n",
         "d.yaml:4: users[1].username: the user 'A@t.no' is defined twice"),
        ("tenant: t.no\ngroups:\n  - {name: g, id: x}\n", "d.yaml:3: groups[0].id: 'x' is not a GUID"),
        ("tenant: t.no\ngroups: [{name: g}, {name: g}]\n", "groups[1].name: the group 'g' is defined twice"),
        ("tenant: t.no\n---\ntenant: t.no\n", "d.yaml:3: tenant: the tenant 't.no' is defined twice"),
        ("tenant: T\n", "d.yaml:1: tenant: 'T' is not a domain name"),
        ("tenant: t.no\nuser: []\n", "d.yaml:2: user: unknown field; did you mean 'users'?"),
        ("- tenant\n", "d.yaml:1: expected a mapping, got a list"),
        ("tenant: t.no\nid: 7\n", "d.yaml:2: id: expected text, got the number 7; put it in quotes"),
        ("tenant: t.no\n---\ntenant: [", "d.yaml:4: is not valid YAML"),
        ("tenant: t.no\ngroups:\n  - {name: g, id: 00000000-0000-4000-8000-000000000001}\n"
         "  - {name: h, id: 00000000-0000-4000-8000-000000000001}\n",
         "d.yaml:4: groups[1].id: the id already belongs to the group 'g'"),
        ("tenant: t.no\nusers:\n  - {name: A, username: a@t.no, id: 00000000-0000-4000-8000-000000000001}\n"
         "  - {name: B, username: b@t.no, id: 00000000-0000-4000-8000-000000000001}\n",
         "d.yaml:4: users[1].id: the id already belongs to 'a@t.no'"),
    ],
)  # fmt: skip
def test_mistakes_in_the_directory(text: str, message: str) -> None:
    """The same for users and groups."""
    with pytest.raises(SourceError) as caught:
        directories.parse(yaml_source.documents(text, "d.yaml"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (None, "file_unreadable", ":1: cannot be read: No such file or directory"),
        (b"a: 1\nb: \xff\n", "file_not_utf8", ":2: is not UTF-8 text"),
        (b"a: !!set {}\n", "yaml_tag", ":1: a: has the tag"),
        (b"a: *b\n", "yaml_alias", ":1: a: refers to the unknown anchor 'b'"),
        (b"? [a]\n: 1\n", "yaml_key", ":1: has a key that is not a string"),
        (b"a: {<<: {}}\n", "yaml_merge_key", ":1: a.<<: merge keys"),
        (b"a: " + b"[" * 70 + b"]" * 70, "yaml_too_deep", "is nested deeper than 64 levels"),
        (b"a: [" + b"1," * 100 + b"]", "yaml_too_large", "has more than 50 values"),
        (b"a: &a [1,2,3,4,5,6,7,8,9]\nb: [*a,*a,*a,*a,*a]", "yaml_too_large", "aliases expanded"),
        (b"#" * 2000, "file_too_large", ":1: is larger than 1000 bytes"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, code: str, message: str
) -> None:
    """Each reason has its code, and the message names the line where there is one."""
    monkeypatch.setattr(yaml_source, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(yaml_source, "MAX_NODES", 50 if code == "yaml_too_large" else 1000)
    if data is not None:
        (tmp_path / "a.yaml").write_bytes(data)
    with pytest.raises(SourceError) as caught:
        LocalEntraId.from_files([tmp_path / "a.yaml"])
    assert caught.value.code == code
    assert message in str(caught.value)


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of files is bounded, and the message names the folder."""
    monkeypatch.setattr(manifest_files, "MAX_FILES", 1)
    for name in ("a.yaml", "b.yml"):
        (tmp_path / name).write_text(manifest(name[0]))
    with pytest.raises(SourceError, match="holds more than 1 YAML files") as caught:
        LocalEntraId.from_files([tmp_path])
    assert caught.value.code == "too_many_files"


def test_the_cluster_of_a_source_is_checked(tmp_path: Path) -> None:
    """A cluster that is no name would make applications that no rule can name."""
    (tmp_path / "a.yaml").write_text(manifest("a"))
    for cluster in ("Bad", "a:b", ""):
        with pytest.raises(SourceError, match="is not the name of a cluster"):
            LocalEntraId.from_files([Source(tmp_path, cluster)])


def test_numbers_in_old_notations_stay_text() -> None:
    """YAML 1.1 has octal and base 60 numbers; they are read as text, as they are written."""
    (document,) = yaml_source.documents("[0128, 1:30.5, 0o9, 10, 1.5]", "a.yaml")
    assert document.value == ["0128", "1:30.5", "0o9", 10, 1.5]


def test_a_tenant_without_directory_is_a_notice() -> None:
    """It has no users and no groups, which is probably not intended."""
    from support.local_entra import local_entra

    local = local_entra([manifest("app", tenant="other.no")], "tenant: t.no\n")
    (notice,) = local.notices
    assert str(notice) == "0.yaml:1: the directory has no tenant 'other.no': it has no users and groups"
    assert local.registry.find("dev-gcp:team:app").tenant == "other.no"


def test_an_unknown_application_without_a_similar_name_says_what_names_look_like() -> None:
    """The message has the form of a name, and examples."""
    from support.local_entra import local_entra

    with pytest.raises(Exception, match="expected <cluster>:<namespace>:<name>, such as dev-gcp:team:app"):
        local_entra([manifest("app")]).registry.find("x")


@pytest.mark.parametrize(
    ("manifests", "directory"),
    [("manifests", "directory.yaml"), ("services/nais", "services/directory.yaml")],
)
def test_the_examples_load_without_notices(manifests: str, directory: str) -> None:
    """The examples for newcomers have no mistakes."""
    local = LocalEntraId.from_files([EXAMPLES / manifests], EXAMPLES / directory)
    assert local.notices == ()
    assert len(local.registry.default_tenant.applications) == 5


def test_a_thousand_applications_need_no_key(tmp_path: Path) -> None:
    """Loading generates no key, because that would take minutes."""
    texts = "\n---\n".join(
        manifest(f"app-{number}", rules=[{"application": "app-0"}]) for number in range(1000)
    )
    (tmp_path / "all.yaml").write_text(texts)
    local = LocalEntraId.from_files([tmp_path])
    assert len(local.registry.default_tenant.applications) == 1001
    assert local.credentials.export()["keys"] == {}


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "- " * 10_000,
        "? " * 10_000,
        "a: " + "{a: " * 5_000,
        "a: &a [" + "1," * 1000 + "]\nb: &b [" + "*a," * 1000 + "]\nc: &c [" + "*b," * 1000 + "]",
        "a: &a [*a]",
        "a: !!python/object/apply:os.system [id]",
        "\x00",
        "\ud800",
        "a: 1\n---\na: {",
        "%YAML 3.0\n---\na: 1",
        "a: 99999999-99-99T99:99:99Z",
        "0o9: 1e999999",
    ],
)
def test_hostile_yaml_is_refused_or_harmless(text: str) -> None:
    """Depth, alias bombs, tags, broken characters: an error of ours or a value, never a crash."""
    refusal = attempt(text, lambda document: None)
    assert refusal is None or refusal.line >= 1


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_refused_or_read(text: str) -> None:
    """Fuzz: whatever the text, the only error is ours."""
    refusal = attempt(text, manifest_files.parse)
    assert refusal is None or refusal.line >= 1


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.sampled_from(["metadata", "spec", "azure", "application", "accessPolicy", "inbound", "rules"]),
    JSON_VALUES,
)
def test_any_value_in_any_place_is_refused_or_read(place: str, value: object) -> None:
    """Fuzz the structure: a value of any shape anywhere in the manifest gives an error of ours or a
    manifest.
    """
    document = json.loads(manifest("app", rules=[{"application": "x"}]))
    spots = {
        "metadata": document,
        "spec": document,
        "azure": document["spec"],
        "application": document["spec"]["azure"],
        "accessPolicy": document["spec"],
        "inbound": document["spec"]["accessPolicy"],
        "rules": document["spec"]["accessPolicy"]["inbound"],
    }
    spots[place][place] = value
    refusal = attempt(json.dumps(document), manifest_files.parse)
    assert refusal is None or refusal.line >= 1
