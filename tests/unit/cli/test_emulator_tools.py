"""`entra-fast explain`: what the access policies of manifests decide."""

from __future__ import annotations

import contextlib
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


SCOPE = "nav:helse/sykepenger/afp.read"


@pytest.mark.parametrize(
    ("arguments", "status", "shown"),
    [
        (
            ["dev-gcp:team-b:app-b", "--provider", "tokenx"],
            0,
            "dev-gcp:team-b:app-b admits dev-gcp:team-a:app-a",
        ),
        (["dev-gcp:team-a:app-a", "--provider", "tokenx"], 1, "refused: invalid_request: client '"),
        ([SCOPE, "--provider", "maskinporten"], 0, "granted to the organization 310000019"),
        ([SCOPE, "--provider", "maskinporten", "--organization", "310000027"], 0, "310000027 has delegated"),
        (["nav:x:y", "--provider", "maskinporten"], 1, "refused: MP-200 (invalid_scope): Token request"),
    ],
)
def test_explain_asks_other_providers(
    arguments: list[str], status: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TokenX and Maskinporten, by the same manifests."""
    call = ["explain", "dev-gcp:team-a:app-a", *arguments, "--manifests", str(EXAMPLES)]
    assert main(call) == status
    assert shown in capsys.readouterr().out
    assert main([*call, "--json"]) == status
    document = json.loads(capsys.readouterr().out)
    assert (document["granted"], document["provider"]) == (status == 0, arguments[2])
    assert (document["error"] is None) is (status == 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--provider", "tokenx", "--user", "ada"], "--user: the decision of tokenx does not depend"),
        (["--provider", "idporten"], "invalid choice: 'idporten'"),
        (["--organization", "310000027"], "--organization: only Maskinporten"),
        (["--provider", "tokenx", "--organization", "310000027"], "organization: only Maskinporten"),
        (["--provider", "maskinporten", "--organization", "1"], "is not an organization number"),
    ],
)
def test_options_of_explain_that_do_not_fit(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong question, not a refusal."""
    call = [
        "explain",
        "dev-gcp:team-a:app-a",
        "dev-gcp:team-b:app-b",
        "--manifests",
        str(EXAMPLES),
        *arguments,
    ]
    with contextlib.suppress(SystemExit):
        assert main(call) == 2
    assert text in capsys.readouterr().err


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


def test_an_issuer_of_subject_tokens_is_checked_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is served."""
    call = ["emulator", "--port", "0", "--level-names", "--subject-issuer", "https://issuer.example/keys"]
    assert main([*call, "--manifests", str(EXAMPLES)]) == 2
    assert "'https://issuer.example/keys' is not the URL of a discovery document" in capsys.readouterr().err
