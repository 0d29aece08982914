"""deploy/ and the runbook fit the product: alerts name metrics, and manifests settings, that exist.

`make check-deploy` checks the same files with the tools that read them in production.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from entra_fast._settings import catalogue
from entra_fast._settings.kinds import Setting

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
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
DOCUMENTED = set(re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))


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
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    cases = [case["exp_alerts"] for case in CASES if case["alertname"] == alert]
    assert [] in cases, "no case in which it is quiet"
    assert any(cases), "no case in which it fires"


def test_the_runbook_has_no_section_for_an_alert_that_does_not_exist() -> None:
    """Sections are found by the names of alerts."""
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


def test_manifests_set_settings_that_exist() -> None:
    """A misspelled variable would only be a warning in the log."""
    settings = [value for value in vars(catalogue).values() if isinstance(value, Setting)]
    known = {name for setting in settings for name in (setting.name, *setting.aliases)}
    known |= {"TOKEN_GENERATOR_URL", "NAIS_TOKEN_ENDPOINT", "NAIS_TOKEN_EXCHANGE_ENDPOINT"}
    known |= {"NAIS_TOKEN_INTROSPECTION_ENDPOINT"}
    named = set()
    for file in DEPLOY.glob("kubernetes/**/*.yaml"):
        named |= set(re.findall(r"\b(?:name: |)([A-Z][A-Z0-9]+_[A-Z0-9_]+)\b", file.read_text()))
    assert "ENTRA_FAST_WORKERS" in named
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


def test_the_image_runs_as_the_user_of_the_manifests() -> None:
    """And no layer of it runs as root at the end."""
    lines = (DEPLOY / "container" / "Containerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 65532:65532"]
    assert lines[-1] == 'CMD ["serve"]'
