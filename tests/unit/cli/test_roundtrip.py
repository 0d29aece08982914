"""`entra-fast roundtrip`: what each step asks, how its answers are judged, and what is shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

from entra_fast.cli.main import main
from support.cli import Handler, Recorder, feed_stdin, unsigned

STEPS = ("entra-id", "entra-id-obo", "idporten", "maskinporten", "maskinporten-details", "tokenx")
USER = unsigned({"pid": "17858549949"})
OPTIONS = ("--entra-id-target", "a:b:c", "--maskinporten-scope", "nav:x", "--tokenx-target", "d:e:f")
DETAILS = [{"type": "urn:altinn:systemuser"}]

Answer = tuple[int, dict[str, Any]]


class Sidecar(Recorder):
    """Answers as a sidecar with all providers; `changed` answers some requests otherwise."""

    changed: Callable[[str, dict[str, Any]], Answer | None]

    def answer(self, path: str, request: dict[str, Any]) -> Answer:
        changed = self.changed(path, request)
        if changed is not None:
            return changed
        provider, target = request["identity_provider"], request.get("target")
        if path != "/api/v1/introspect":
            claims = {"iss": provider, "aud": target, "scope": target}
            claims |= {name: request[name] for name in ("authorization_details",) if name in request}
            return 200, {"access_token": unsigned(claims), "expires_in": 60, "token_type": "Bearer"}
        if request["token"] == "none":
            return 200, {"active": False, "error": "token is not a JWT"}
        if provider in ("tokenx", "entra_id"):
            return 200, {"active": False, "error": "token has the wrong audience"}
        granted = {"scope": "nav:x", "authorization_details": DETAILS} if provider == "maskinporten" else {}
        person = {"pid": "17858549949"} if provider == "idporten" else {}
        return 200, {"active": True, "iss": provider, **person, **granted}


class Answering(Handler):
    def _answer(self, request: dict[str, Any]) -> None:
        assert isinstance(self.server, Sidecar)
        status, content = self.server.answer(self.path, request)
        self.server.status, self.server.body = status, json.dumps(content).encode()
        super()._answer(request)


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    with Sidecar(("127.0.0.1", 0), Answering) as server:
        server.seen, server.changed = [], lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def users(tmp_path: Path) -> tuple[str, ...]:
    """Options with both users' tokens."""
    file = tmp_path / "user.txt"
    file.write_text(f"{USER}\n")
    return ("--entra-id-user", str(file), "--idporten-user", str(file))


def made(
    capsys: pytest.CaptureFixture[str], server: HTTPServer, *options: str, status: int = 0
) -> dict[str, dict[str, Any]]:
    """The steps by name, as JSON."""
    capsys.readouterr()
    assert main(["roundtrip", "--url", url(server), "--json", *options]) == status
    document = json.loads(capsys.readouterr().out)
    return {step["name"]: step for step in document["steps"]}


def test_all_six_round_trips(
    sidecar: Sidecar, users: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each asks for what the options say, and introspects what it gets."""
    steps = made(capsys, sidecar, *OPTIONS, *users)
    assert {name: step["outcome"] for name, step in steps.items()} == dict.fromkeys(STEPS, "ok")
    asked = [
        (path.rpartition("/v1/")[2], {**fields, "token": ""} if "token" in fields else fields)
        for path, fields in sidecar.seen
        if fields.get("token") != "none"
    ]

    def introspected(provider: str) -> tuple[str, dict[str, str]]:
        return "introspect", {"identity_provider": provider, "token": ""}

    masked = {"identity_provider": "maskinporten", "target": "nav:x"}
    system_user = {
        "type": "urn:altinn:systemuser",
        "systemuser_org": {"authority": "iso6523-actorid-upis", "ID": "0192:310000019"},
    }
    assert asked == [
        ("token", {"identity_provider": "entra_id", "target": "a:b:c"}),
        introspected("entra_id"),
        ("token/exchange", {"identity_provider": "entra_id", "target": "a:b:c", "user_token": USER}),
        introspected("entra_id"),
        introspected("idporten"),
        ("token", masked),
        introspected("maskinporten"),
        ("token", {**masked, "authorization_details": [system_user]}),
        introspected("maskinporten"),
        ("token/exchange", {"identity_provider": "tokenx", "target": "d:e:f", "user_token": USER}),
        introspected("tokenx"),
    ]


def test_neither_tokens_nor_persons_are_shown(
    sidecar: Sidecar, users: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """In both forms of the output, unless tokens are wanted."""
    for options in ((), ("--json",)):
        assert main(["roundtrip", "--url", url(sidecar), *OPTIONS, *users, *options]) == 0
        out = capsys.readouterr().out
        assert "pid" in out
        assert not [secret for secret in (USER, "17858549949", "eyJ") if secret in out]
        assert main(["roundtrip", "--url", url(sidecar), *OPTIONS, *users, *options, "--show-tokens"]) == 0
        out = capsys.readouterr().out
        assert USER in out
        assert unsigned({"iss": "tokenx", "aud": "d:e:f", "scope": "d:e:f"}) in out


def test_the_text_says_what_was_asked_and_what_came_back(
    sidecar: Sidecar, users: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the time of each step, and a summary."""
    assert main(["roundtrip", "--url", url(sidecar), *OPTIONS, *users]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Round trips at {url(sidecar)}\n")
    assert "ok      ID-porten: introspection  " in out
    assert "  POST /api/v1/token  identity_provider=maskinporten target=nav:x\n" in out
    assert '  authorization_details: [{"type": "urn:altinn:systemuser"}]\n' in out
    assert out.endswith("\n6 ok, 0 failed, 0 skipped\n")


def test_what_is_not_enabled_or_not_given_is_skipped_with_the_reason(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sidecar's own sentence, also where it is an error (Texas); `--all` makes it a failure."""
    sentence = "identity provider 'maskinporten' is not enabled"

    def changed(_: str, request: dict[str, Any]) -> Answer | None:
        if request["identity_provider"] == "maskinporten":
            return 200, {"active": False, "error": sentence}
        if request["identity_provider"] == "tokenx":
            return 400, {"error": "invalid_request", "error_description": "tokenx is not enabled"}
        return None

    sidecar.changed = changed
    steps = made(capsys, sidecar, *OPTIONS)
    assert {name: step["outcome"] for name, step in steps.items()} == {
        **dict.fromkeys(STEPS, "skipped"),
        "entra-id": "ok",
    }
    assert steps["maskinporten"]["reason"] == sentence
    assert steps["tokenx"]["reason"] == "400 invalid_request: tokenx is not enabled"
    assert "--idporten-user" in steps["idporten"]["reason"]
    assert made(capsys, sidecar, *OPTIONS, "--all", status=1)
    assert made(capsys, sidecar, "--only", "tokenx", status=3)["tokenx"]["outcome"] == "skipped"


@pytest.mark.parametrize(
    ("step", "path", "answer", "reason"),
    [
        (
            "entra-id",
            "token",
            (400, {"error": "invalid_grant", "error_description": "AADSTS501051: not assigned"}),
            "400 invalid_grant: AADSTS501051: not assigned",
        ),
        ("entra-id", "token", (502, {"error": "server_error"}), "502 server_error"),
        ("entra-id", "token", (200, {"expires_in": 1}), "the response has no 'access_token'"),
        (
            "entra-id-obo",
            "introspect",
            (200, {"active": False, "error": "token is expired"}),
            "token is expired",
        ),
        ("idporten", "introspect", (200, {"active": False}), "the token is not active"),
        (
            "idporten",
            "introspect",
            (200, {"active": False, "error": "token has the wrong audience"}),
            "token has the wrong audience",
        ),
        ("maskinporten", "introspect", (200, {"active": True}), "the token lacks the scope nav:x"),
        (
            "maskinporten-details",
            "introspect",
            (200, {"active": True, "scope": "nav:x"}),
            "the token has no authorization_details of type urn:altinn:systemuser",
        ),
        (
            "tokenx",
            "introspect",
            (200, {"active": True, "aud": "another"}),
            "the token is not for the target",
        ),
        ("tokenx", "token/exchange", (200, {"access_token": "opaque"}), "the token is not for the target"),
    ],
)
def test_a_step_fails_with_the_reason(
    sidecar: Sidecar,
    users: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    step: str,
    path: str,
    answer: Answer,
    reason: str,
) -> None:
    """The others are made all the same, and the exit status is 1."""

    def changed(asked: str, request: dict[str, Any]) -> Answer | None:
        return answer if asked == f"/api/v1/{path}" and request.get("token") != "none" else None

    sidecar.changed = changed
    steps = made(capsys, sidecar, *OPTIONS, *users, "--only", step, status=1)
    assert (steps[step]["outcome"], steps[step]["reason"]) == ("failed", reason)


def test_inputs_of_the_environment(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NAIS gives an application, where the options do not say otherwise; a trip fetches new tokens on
    request."""
    monkeypatch.setenv("NAIS_TOKEN_ENDPOINT", f"{url(sidecar)}/api/v1/token")
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", "own")
    monkeypatch.setenv("MASKINPORTEN_SCOPES", "nav:x nav:y")
    monkeypatch.setenv("TOKEN_X_CLIENT_ID", "own:app:x")
    monkeypatch.setenv("ENTRA_ID_USER_TOKEN", f" {USER} ")
    monkeypatch.setenv("IDPORTEN_USER_TOKEN", USER)
    assert main(["roundtrip", "--skip-cache"]) == 0
    assert "6 ok" in capsys.readouterr().out
    targets = [fields["target"] for _, fields in sidecar.seen if "target" in fields]
    assert targets == ["api://own/.default", "api://own/.default", "nav:x", "nav:x", "own:app:x"]
    assert all(fields["skip_cache"] for _, fields in sidecar.seen if "target" in fields)
    assert all(fields["user_token"] == USER for _, fields in sidecar.seen if "user_token" in fields)


def test_details_and_tokens_may_be_given(
    sidecar: Sidecar, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--authorization-details` as JSON, and a token on standard input."""
    feed_stdin(monkeypatch, USER.encode())
    options = ("--authorization-details", json.dumps(DETAILS), "--idporten-user", "-")
    steps = made(capsys, sidecar, *OPTIONS, *options)
    assert [steps[name]["outcome"] for name in ("maskinporten-details", "idporten")] == ["ok", "ok"]
    assert [
        fields["authorization_details"] for _, fields in sidecar.seen if "authorization_details" in fields
    ] == [DETAILS]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--url", "http://127.0.0.1:1", "--local"), "pass either --url or --local"),
        (("--authorization-details", "{}"), "--authorization-details must be a JSON array of objects"),
        (("--authorization-details", "[1]"), "--authorization-details must be a JSON array of objects"),
        (("--authorization-details", "["), "--authorization-details must be a JSON array of objects"),
        (("--only", "token"), "--only: 'token' is none of entra-id, entra-id-obo, idporten,"),
        (("--idporten-user", "/nowhere/token"), "--idporten-user: '/nowhere/token' cannot be read"),
        (("--entra-id-user", "-"), "--entra-id-user: '-' does not hold a token"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With one line, and exit status 2."""
    feed_stdin(monkeypatch, b" \n")
    assert main(["roundtrip", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_sidecar_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 3, once, whatever the number of steps."""
    assert main(["roundtrip", "--url", "http://127.0.0.1:1"]) == 3
    assert capsys.readouterr().err.count("no answer from a sidecar") == 1


def test_a_local_system_makes_all_without_any_input(capsys: pytest.CaptureFixture[str]) -> None:
    """It is started and stopped, with all providers; tokens of its users are exchanged and introspected."""
    assert main(["roundtrip", "--local", "--json", "--all"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {step["name"]: step["outcome"] for step in document["steps"]} == dict.fromkeys(STEPS, "ok")
    claims = {step["name"]: step["claims"] for step in document["steps"]}
    assert claims["idporten"]["acr"] == "idporten-loa-high"
    assert claims["maskinporten-details"]["authorization_details"][0]["system_id"]
    assert claims["tokenx"]["idp"] == claims["idporten"]["iss"]


def test_options_take_precedence_over_the_local_system(capsys: pytest.CaptureFixture[str]) -> None:
    """A scope that the application does not consume is refused, with Maskinporten's own words."""
    options = ("--local", "--json", "--only", "maskinporten", "--maskinporten-scope", "nav:other")
    assert main(["roundtrip", *options]) == 1
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert "invalid_scope" in step["reason"]
