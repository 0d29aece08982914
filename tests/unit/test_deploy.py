"""deploy/ and the runbook fit the product: alerts name metrics, and manifests settings, that exist.

`make check-deploy` checks the same files with the tools that read them in production.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from entra_fast._extras import EXTRAS
from entra_fast._providers import BUILT_IN, ENTRA_ID, ProviderKind
from entra_fast._settings import catalogue
from entra_fast.emulator import LocalEntraId

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
GROUPS = yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
CASES = [
    case
    for test in yaml.safe_load((DEPLOY / "monitoring" / "alerts_test.yaml").read_text())["tests"]
    for case in test["alert_rule_test"]
]
RUNBOOK = (ROOT / "docs" / "guides" / "runbook.md").read_text()
DOCUMENTED = set(
    re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs" / "reference" / "metrics.md").read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("extra", ["server", "redis", "otel"])
def test_the_image_has_every_package_of_its_extras(extra: str) -> None:
    """Both protocols of OTLP, for example: a platform sets variables, and cannot install anything."""
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "image.txt").read_text(), re.MULTILINE)
    assert set(EXTRAS[extra]) <= set(locked)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_use_metrics_that_exist(rule: dict[str, Any]) -> None:
    """A renamed metric would make an alert silent for ever."""
    used = set(re.findall(r"\b(?:entra_fast|process)[a-z0-9_:]*", rule["expr"]))
    assert used
    for name in used - RECORDED:
        assert re.sub(r"_bucket$", "", name) in DOCUMENTED


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_test_and_a_section_in_the_runbook(alert: str) -> None:
    """The section says how urgent it is, as the rule does; its link leads there."""
    rule = ALERTS[alert]
    section = RUNBOOK.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
    assert section.strip().startswith(f"**{rule['labels']['severity']}.**")
    assert rule["annotations"]["runbook_url"] == f"docs/guides/runbook.md#{alert.lower()}"
    cases = [case["exp_alerts"] for case in CASES if case["alertname"] == alert]
    assert [] in cases, "no case in which it is quiet"
    assert any(cases), "no case in which it fires"


def test_the_runbook_has_no_section_for_an_alert_that_does_not_exist() -> None:
    """Sections are found by the names of alerts."""
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize(
    "kind", [kind for kind in BUILT_IN if kind is not ENTRA_ID], ids=lambda kind: kind.name
)
def test_the_secret_of_a_provider_is_mounted_where_it_is_looked_up(kind: ProviderKind) -> None:
    """By the component for kustomize and by the chart, and both enable the provider."""
    folder = DEPLOY / "kubernetes" / "providers" / kind.name
    (patch,) = yaml.safe_load((folder / "kustomization.yaml").read_text())["patches"]
    (sidecar,) = yaml.safe_load(patch["patch"])["spec"]["template"]["spec"]["initContainers"]
    place = f"/var/run/secrets/nais.io/{kind.directory}"
    assert sidecar["volumeMounts"] == [{"name": kind.name, "mountPath": place, "readOnly": True}]
    assert sidecar["env"] == [{"name": kind.variables.enabled, "value": "true"}]
    template = (DEPLOY / "helm" / "entra-fast" / "templates" / "_sidecar.tpl").read_text()
    row = f"{kind.name}: {{switch: {kind.variables.enabled}, directory: {kind.directory}}}"
    assert row in template.splitlines()


def test_manifests_set_settings_that_exist() -> None:
    """A misspelled variable would only be a warning in the log."""
    known = {name for setting in catalogue.SETTINGS for name in (setting.name, *setting.aliases)}
    known |= {"TOKEN_GENERATOR_URL", "NAIS_TOKEN_ENDPOINT", "NAIS_TOKEN_EXCHANGE_ENDPOINT"}
    known |= {"NAIS_TOKEN_INTROSPECTION_ENDPOINT", "TOKEN_GENERATOR_AUDIENCES", "ADMIN_TOKEN"}
    named = set()
    files = [file for part in ("kubernetes", "helm", "compose") for file in (DEPLOY / part).rglob("*.*")]
    for file in files:
        if file.suffix in (".yaml", ".tpl") and not file.is_symlink():
            named |= set(re.findall(r"\b(?:name: |)([A-Z][A-Z0-9]+_[A-Z0-9_]+)\b", file.read_text()))
    assert {"ENTRA_FAST_WORKERS", "ENTRA_FAST_INSECURE_PROVIDER_HOSTS"} <= named
    named -= {"NAIS_TOKEN_", "AZURE_", "TOKEN_X_"}  # several at once, in comments
    assert named <= known


def test_every_container_is_as_the_restricted_standard_wants_it() -> None:
    """Kubernetes' Pod Security Standard `restricted`, and a read-only root, which ours can do."""
    for file in ("sidecar/sidecar.yaml", "token-generator/deployment.yaml"):
        pod = yaml.safe_load((DEPLOY / "kubernetes" / file).read_text())["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
            own = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert own["runAsNonRoot"] is own["readOnlyRootFilesystem"] is True
            assert own["runAsUser"] == own["runAsGroup"] == 65532
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["resources"]["limits"].keys() == {"memory"}


def test_the_chart_has_the_version_of_the_package() -> None:
    """And the image of that version, unless a tag says otherwise."""
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    chart = yaml.safe_load((DEPLOY / "helm" / "entra-fast" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    example = yaml.safe_load((DEPLOY / "helm" / "example" / "Chart.yaml").read_text())
    assert [each["version"] for each in example["dependencies"]] == [version]


def test_the_chart_ships_the_rules_and_the_dashboard() -> None:
    """Links to the one copy that is tested."""
    for name in ("alerts.yaml", "dashboard.json"):
        link = DEPLOY / "helm" / "entra-fast" / "files" / name
        assert link.resolve() == DEPLOY / "monitoring" / name


def test_the_example_of_the_chart_is_a_local_entra_id(tmp_path: Path) -> None:
    """Its manifests and its directory are read by the product."""
    values = yaml.safe_load((DEPLOY / "helm" / "example" / "values-development.yaml").read_text())
    emulator = values["entra-fast"]["emulator"]
    (tmp_path / "directory.yaml").write_text(emulator["directory"])
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    for name, text in emulator["manifests"].items():
        (manifests / name).write_text(text)
    local = LocalEntraId.from_files([str(manifests)], str(tmp_path / "directory.yaml"))
    generator = "dev-gcp:nais:azure-token-generator"
    assert local.explain(generator, "dev-gcp:team-a:app-a", "ada").granted


@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo")
def test_the_licences_are_those_of_the_crates_in_the_library() -> None:
    """`make licences` writes them again after a change of Cargo.lock."""
    licences = runpy.run_path(str(DEPLOY / "release" / "licences.py"))
    listed = (ROOT / "THIRD-PARTY-LICENSES.txt").read_text().partition("\n\n")[2].partition("\n\n")[0]
    assert listed.splitlines() == [licences["title"](crate) for crate in licences["crates"]()]


def test_the_image_runs_as_the_user_of_the_manifests() -> None:
    """And no layer of it runs as root at the end."""
    lines = (DEPLOY / "container" / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 65532:65532"]
    assert lines[-1] == 'CMD ["serve"]'


DASHBOARD: dict[str, Any] = runpy.run_path(str(DEPLOY / "monitoring" / "dashboard.py"))["dashboard"]()
EXPRESSIONS = [
    (panel["title"], target["expr"].replace("$__rate_interval", "5m"))
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


def test_the_dashboard_is_what_its_source_says() -> None:
    """`python deploy/monitoring/dashboard.py > deploy/monitoring/dashboard.json` writes it again."""
    assert json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text()) == DASHBOARD


@pytest.mark.parametrize(("title", "expression"), EXPRESSIONS)
def test_panels_show_metrics_that_exist_of_the_chosen_pods(title: str, expression: str) -> None:
    """A panel without data looks like a quiet night."""
    used = re.findall(r"\b((?:entra_fast|process)_[a-z0-9_]+)(.)", expression)
    assert used
    for name, follows in used:
        assert re.sub(r"_bucket$", "", name) in DOCUMENTED
        assert follows == "{"
    assert expression.count('namespace=~"$namespace", pod=~"$pod"') == len(used)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool (Debian: apt install prometheus)")
def test_prometheus_understands_every_panel(tmp_path: Path) -> None:
    """As recording rules, which promtool parses as Prometheus does."""
    rules = [{"record": f"panel:{index}", "expr": expr} for index, (_, expr) in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
