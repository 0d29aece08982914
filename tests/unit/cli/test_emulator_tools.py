"""`entra-fast explain`: what the access policies of manifests decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entra_fast.cli.main import main

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "manifests"


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        (["dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"], 0, "granted"),
        (["dev-gcp:team-a:app-a", "dev-gcp:team-c:app-nobody"], 1, "AADSTS501051"),
        (["dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "--user", "ola"], 1, "AADSTS50105"),
        (["dev-gcp:team-a:app-a", "dev-gcp:team-b:app-x"], 1, "did you mean"),
    ],
)
def test_explain_says_what_the_policies_decide(
    arguments: list[str], status: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Allowed or refused, and by which line of which manifest."""
    assert main(["explain", *arguments, "--manifests", str(EXAMPLES)]) == status
    text = capsys.readouterr().out
    assert shown in text
    assert main(["explain", *arguments, "--manifests", str(EXAMPLES), "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert document["granted"] is (status == 0)
    if status:
        assert document["error"]["code"] in (501051, 50105, 500011)
        assert document["error"]["text"] in text
        assert not document["claims"]
    else:
        assert document["error"] is None
        assert document["claims"]["azp_name"] == arguments[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["dev-gcp:a:nobody", "dev-gcp:team-b:app-b"],
        ["dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "--user", "nobody"],
    ],
)
def test_explain_for_an_unknown_name_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown consumer or user is a wrong question, not a refusal."""
    assert main(["explain", *arguments, "--manifests", str(EXAMPLES)]) == 2
    assert "nobody" in capsys.readouterr().err
