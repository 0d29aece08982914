"""`entra-fast validate` and `inspect`: options, output, exit statuses."""

from __future__ import annotations

import json
import re
import socket
import time
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

from entra_fast.cli.main import main
from entra_fast.cli.terminal import readable_time
from support.cli import Handler, Recorder, address, feed_stdin, unsigned
from support.keys import Key
from unit.cli.test_sidecar_client import peer  # noqa: F401 - a fixture


class Issuer:
    """A key, its public half in a file, and tokens of any kind."""

    def __init__(self, folder: Path) -> None:
        self.key = Key.generate()
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(f'{{"keys":[{self.key.public_jwk()}]}}')
        self.options = ["--issuer", "https://issuer.example", "--audience", "me", "--jwks", str(self.jwks)]

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": "https://issuer.example", "aud": "me", "iat": now, "exp": now + 600, **changes}
        header = {"typ": "JWT", "alg": self.key.algorithm, "kid": self.key.kid}
        return self.key.sign(json.dumps(header).encode(), json.dumps(claims).encode())


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer"))


def test_inspect_says_loudly_that_nothing_was_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """Readable output must not look like a successful check."""
    assert main(["inspect", unsigned({"aud": "me", "exp": 0})]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("NOT VERIFIED")
    assert "1970-01-01 00:00:00 UTC" in shown
    assert "days ago" in shown


def test_inspect_as_json_says_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    """`verified` is false in the JSON output."""
    assert main(["inspect", "--json", unsigned({"aud": "me"})]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "verified": False,
        "header": {"alg": "RS256", "typ": "JWT", "kid": "k"},
        "claims": {"aud": "me"},
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_claim_cannot_take_over_the_terminal(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences, carriage returns and text direction overrides in names and values arrive escaped."""
    claims = {"name": "\x1b]0;owned\x07\x1b[2J\r\u202egnp.exe", "\x1b[31m": "\x9b1m", "navn": "Bjørn Ærlig"}
    assert main(["inspect", *options, unsigned(claims)]) == 0
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\r\u202e\x9b")
    assert "Bjørn Ærlig" in shown


@pytest.mark.parametrize(
    "value", [True, None, "1", -1, 10**400, 1.5e308, float("inf"), [1], {"a": 1}], ids=lambda v: repr(v)[:12]
)
def test_a_time_that_is_none_is_shown_as_it_is(value: object) -> None:
    """Whatever `exp` contains, showing it does not fail."""
    assert readable_time(value, 0.0) == ""


def test_the_token_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With '-' or without an argument; line ends and 'Bearer ' do not matter."""
    token = unsigned({"aud": "from-stdin"})
    for arguments, data in ((["-"], f"{token}\n"), ([], f"Bearer {token}\r\n")):
        feed_stdin(monkeypatch, data.encode())
        assert main(["inspect", *arguments]) == 0
        assert "from-stdin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "status"), [(b"", 2), (b" \n", 2), (b"a" * (2 << 20), 2), (b"not a token", 1), (b"\xff\xfe", 1)]
)
def test_what_is_no_token_is_one_line(
    data: bytes, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing, too much, and something else; no traceback, and none of the input in the message."""
    feed_stdin(monkeypatch, data)
    assert main(["inspect"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("entra-fast: ")
    assert captured.err.count("\n") == 1
    assert "not a token" not in captured.err or data != b"not a token"


def test_validate_prints_the_claims_of_a_valid_token(
    issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON on standard output; status 0."""
    assert main(["validate", *issuer.options, issuer.token(name="Bjørn")]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "Bjørn"


def test_validate_says_why_a_token_is_refused(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with both values on standard error, nothing on standard output; status 1."""
    assert main(["validate", *issuer.options, issuer.token(aud="you")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "entra-fast: token has the wrong audience (expected me, actual you)\n"


def test_validate_as_json_has_a_stable_code(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: valid, and claims or code and error."""
    assert main(["validate", "--json", *issuer.options, issuer.token(exp=1)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["code"], answer["error"]) == (False, "token_expired", "token is expired")
    assert main(["validate", "--json", *issuer.options, issuer.token()]) == 0
    assert json.loads(capsys.readouterr().out)["claims"]["aud"] == "me"


def test_validate_explains_every_check(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """All that fail, not only the first one; with the values, and times made readable."""
    assert main(["validate", "--explain", *issuer.options, issuer.token(aud="you", exp=1)]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"^ok +signature ", shown, re.MULTILINE)
    assert re.search(
        r"^FAILED +audience +token has the wrong audience\n +expected: me\n +actual: you$",
        shown,
        re.MULTILINE,
    )
    assert re.search(r"^FAILED +expiry .*1970-01-01 00:00:01 UTC", shown, re.MULTILINE)
    assert shown.splitlines()[-1].startswith("not valid: ")
    assert main(["validate", "--explain", *issuer.options, issuer.token()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "valid"


def test_the_explanation_as_json_has_every_check(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """With --explain, the JSON output also has the checks, each with its result."""
    assert main(["validate", "--json", "--explain", *issuer.options, issuer.token(aud="you")]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    results = {check["check"]: check["passed"] for check in answer["checks"]}
    assert (results["signature"], results["audience"]) == (True, False)


def test_validate_checks_tenant_and_age(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """--tenant and --max-age are checked in addition to the rest."""
    tenant, other = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
    name = f"https://issuer.example/{tenant}/v2.0"
    token = issuer.token(iss=name, tid=tenant, iat=int(time.time()) - 300)
    for options, status in (
        (["--tenant", tenant, "--max-age", "600"], 0),
        (["--tenant", other], 1),
        (["--max-age", "100"], 1),
    ):
        assert main(["validate", *issuer.options, "--issuer", name, *options, token]) == status
        capsys.readouterr()


def test_explaining_cannot_take_over_the_terminal(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """Values of a hostile token are escaped there, too."""
    main(["validate", "--explain", *issuer.options, issuer.token(aud="\x1b[2J", iss="\u202e")])
    captured = capsys.readouterr()
    assert not set(captured.out + captured.err) & set("\x1b\u202e")


def test_validate_takes_its_settings_from_the_environment(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables of NAIS; what is missing is named, with status 2."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_OPENID_CONFIG_ISSUER", "AZURE_APP_WELL_KNOWN_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["validate", issuer.token()]) == 2
    said = capsys.readouterr().err
    assert said == (
        "entra-fast: missing --issuer and --audience "
        "(or set AZURE_OPENID_CONFIG_ISSUER and AZURE_APP_CLIENT_ID)\n"
    )
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", "me")
    monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", "https://issuer.example")
    monkeypatch.setenv("AZURE_OPENID_CONFIG_JWKS_URI", f"http://127.0.0.1:{port}/keys")
    assert main(["validate", issuer.token()]) == 3  # no server there: undecided, not refused
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_a_provider_that_is_not_there_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No answer for the discovery document: undecided, in one line, whether an option or the environment
    names it."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_OPENID_CONFIG_ISSUER"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as ended:
        url = f"http://127.0.0.1:{ended.getsockname()[1]}/.well-known/openid-configuration"
    monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", url)
    for options in ([], ["--well-known", url]):
        assert main(["validate", "--audience", "me", *options, unsigned({})]) == 3
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("entra-fast: fetching failed: ")
        assert captured.err.count("\n") == 1


def test_a_missing_variable_is_named_as_a_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was left to the environment is not reported as an option; status 2."""
    for name in ("AZURE_APP_WELL_KNOWN_URL", "AZURE_OPENID_CONFIG_JWKS_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", "https://issuer.example")
    assert main(["validate", "--audience", "me", unsigned({})]) == 2
    assert capsys.readouterr().err.startswith("entra-fast: AZURE_OPENID_CONFIG_JWKS_URI is not set")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--jwks", "/nowhere.json"], "--jwks"),
        (["--jwks", "/dev/null"], "--jwks"),
        (["--algorithm", "none"], "--algorithm must be among RS256"),
        (["--algorithm", "HS256"], "--algorithm must be among RS256"),
        (["--leeway", "86400"], "--leeway must be between 0 and 600 seconds"),
        (["--jwks-uri", "http://keys.example/"], "--jwks-uri must be an https URL"),
        (
            ["--well-known", "https://x.example/"],
            "pass either --well-known, or --issuer with --jwks-uri or --jwks",
        ),
        (["--jwks-uri", "https://keys.example/", "--jwks", "x"], "pass either --jwks-uri or --jwks"),
    ],
)
def test_a_wrong_policy_is_2(
    changes: list[str], named: str, issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is detected before the token is examined, and named in one line."""
    options = issuer.options if changes[0] != "--jwks-uri" else issuer.options[:4]
    assert main(["validate", *options, *changes, issuer.token()]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert named in captured.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--audience", "me"], "missing --issuer or --well-known (or set AZURE_OPENID_CONFIG_ISSUER)"),
        (["--issuer", "https://issuer.example"], "missing --audience (or set AZURE_APP_CLIENT_ID)"),
        (["--well-known", "https://issuer.example/x"], "missing --audience (or set AZURE_APP_CLIENT_ID)"),
        (
            ["--issuer", "https://issuer.example", "--audience", "me"],
            "missing --jwks-uri or --jwks: the signing keys of --issuer",
        ),
    ],
)
def test_a_missing_option_is_named(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with the variable that can replace it; status 2."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_OPENID_CONFIG_ISSUER", "AZURE_APP_WELL_KNOWN_URL"):
        monkeypatch.delenv(name, raising=False)
    assert main(["validate", *options, unsigned({})]) == 2
    assert capsys.readouterr().err == f"entra-fast: {said}\n"


def test_the_variables_of_another_provider_say_what_is_valid(
    monkeypatch: pytest.MonkeyPatch,
    issuer: Issuer,
    peer: Recorder,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--provider`: its issuer, audience and keys; a wrong name is an error of the option."""

    peer.body = issuer.jwks.read_bytes()
    monkeypatch.setenv("TOKEN_X_CLIENT_ID", "dev-gcp:team:app")
    monkeypatch.setenv("TOKEN_X_ISSUER", "https://issuer.example")
    monkeypatch.setenv("TOKEN_X_JWKS_URI", address(peer))
    right = issuer.token(aud="dev-gcp:team:app")
    assert main(["validate", "--provider", "tokenx", right]) == 0
    assert json.loads(capsys.readouterr().out)["aud"] == "dev-gcp:team:app"
    assert main(["validate", "--provider", "tokenx", issuer.token()]) == 1
    assert main(["validate", "--provider", "tokenx", "--audience", "me", issuer.token()]) == 0
    capsys.readouterr()
    assert main(["validate", "--provider", "tokn", right]) == 2
    assert "--provider must be one of" in capsys.readouterr().err
    assert main(["validate", "--provider", "tokenx", *issuer.options, right]) == 2
    assert "pass either --provider, or" in capsys.readouterr().err
