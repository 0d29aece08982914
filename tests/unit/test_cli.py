"""The command line: arguments, exit statuses, what reaches the terminal."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from entra_fast._settings.load import Settings
from entra_fast.cli import main as cli
from support.keys import Key
from support.process import inherited

COMMANDS = (
    "dev",
    "serve",
    "emulator",
    "token-generator",
    "validate",
    "inspect",
    "token",
    "exchange",
    "introspect",
    "explain",
    "env",
)


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _unsigned(claims: dict[str, Any]) -> str:
    return f"{_segment({'alg': 'RS256', 'typ': 'JWT', 'kid': 'k'})}.{_segment(claims)}.{_segment('sig')}"


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


class _Recorder(HTTPServer):
    """A peer that answers what a test says; what the sidecar really answers, the contract tests show."""

    status, body = 200, b"{}"
    seen: list[tuple[str, dict[str, Any]]]


class _Handler(BaseHTTPRequestHandler):
    server: _Recorder

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, request))
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def peer() -> Iterator[_Recorder]:
    with _Recorder(("127.0.0.1", 0), _Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _address(peer: _Recorder, path: str = "/api") -> str:
    return f"http://127.0.0.1:{peer.server_port}{path}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`entra-fast COMMAND --help` describes the command, fits a terminal, and ends with status 0."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: entra-fast " + command in shown
    assert "example" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_help_lists_every_command_and_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """`entra-fast --help` is where people begin."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {command} " in shown or f"\n    {command}\n" in shown for command in COMMANDS)
    assert "exit status:" in shown


def test_the_version_is_that_of_the_native_module(capsys: pytest.CaptureFixture[str]) -> None:
    """What runs says what it is."""
    from entra_fast import _native

    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"entra-fast {_native.__version__} ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["token"], ["dev", "--emulator-port", "70000"], ["inspect", "--jso"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command, a missing argument, no port number, an abbreviated option."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_no_command_shows_the_whole_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever types `entra-fast` alone wants to know what there is; status 2."""
    monkeypatch.setattr(sys, "argv", ["entra-fast"])
    assert cli.main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "start here:" in captured.err


def test_inspecting_loads_neither_a_web_server_nor_the_emulator() -> None:
    """Each command imports its own part only."""
    program = (
        "import sys; from entra_fast import cli; cli.main(['inspect', sys.argv[1]]);"
        "heavy = {'aiohttp', 'uvloop', 'yaml', 'pydantic', 'entra_fast.emulator', 'entra_fast.sidecar'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, _unsigned({"aud": "x"})],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_inspect_says_loudly_that_nothing_was_verified(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody may take a pretty picture of a token for a judgement about it."""
    assert cli.main(["inspect", _unsigned({"aud": "me", "exp": 0})]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("NOT VERIFIED")
    assert "1970-01-01 00:00:00 UTC" in shown
    assert "days ago" in shown


def test_inspect_as_json_says_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs."""
    assert cli.main(["inspect", "--json", _unsigned({"aud": "me"})]) == 0
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
    assert cli.main(["inspect", *options, _unsigned(claims)]) == 0
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\r\u202e\x9b")
    assert "Bjørn Ærlig" in shown


@pytest.mark.parametrize(
    "value", [True, None, "1", -1, 10**400, 1.5e308, float("inf"), [1], {"a": 1}], ids=lambda v: repr(v)[:12]
)
def test_a_time_that_is_none_is_shown_as_it_is(value: object) -> None:
    """Whatever stands in `exp`, showing it does not fail."""
    assert cli._readable_time(value, 0.0) == ""


def test_the_token_may_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With '-' or without an argument; line ends and 'Bearer ' do not matter."""
    token = _unsigned({"aud": "from-stdin"})
    for arguments, data in ((["-"], f"{token}\n"), ([], f"Bearer {token}\r\n")):
        _stdin(monkeypatch, data.encode())
        assert cli.main(["inspect", *arguments]) == 0
        assert "from-stdin" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "status"), [(b"", 2), (b" \n", 2), (b"a" * (2 << 20), 2), (b"not a token", 1), (b"\xff\xfe", 1)]
)
def test_what_is_no_token_is_one_line(
    data: bytes, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing, too much, and something else; no traceback, and none of the input in the message."""
    _stdin(monkeypatch, data)
    assert cli.main(["inspect"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("entra-fast: ")
    assert captured.err.count("\n") == 1
    assert "not a token" not in captured.err or data != b"not a token"


def test_token_prints_the_bare_token(peer: _Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """So that `TOKEN=$(entra-fast token ...)` works."""
    peer.body = b'{"access_token":"a.b.c","expires_in":3599,"token_type":"Bearer"}'
    assert cli.main(["token", "dev-gcp:team:app", "--skip-cache", "--url", _address(peer)]) == 0
    assert capsys.readouterr().out == "a.b.c\n"
    expected = {"identity_provider": "entra_id", "target": "dev-gcp:team:app", "skip_cache": True}
    assert peer.seen == [("/api", expected)]


def test_the_environment_says_where_the_sidecar_is(
    peer: _Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables that NAIS gives an application, for all three commands."""
    for name, path in (
        ("NAIS_TOKEN_ENDPOINT", "/t"),
        ("NAIS_TOKEN_EXCHANGE_ENDPOINT", "/x"),
        ("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "/i"),
    ):
        monkeypatch.setenv(name, _address(peer, path))
    peer.body = b'{"access_token":"a.b.c","active":true}'
    assert (
        cli.main(["token", "t"]) == cli.main(["exchange", "t", "user"]) == cli.main(["introspect", "it"]) == 0
    )
    assert [path for path, _ in peer.seen] == ["/t", "/x", "/i"]
    assert peer.seen[1][1]["user_token"] == "user"
    assert peer.seen[2][1]["token"] == "it"


def test_introspect_ends_with_1_for_an_inactive_token_and_with_3_without_keys(
    peer: _Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the JSON boolean `true` is active; without keys nothing is known about the token."""
    for body, status in (
        (b'{"active":true}', 0),
        (b'{"active":false,"error":"e"}', 1),
        (b'{"active":"true"}', 1),
        (b'{"active":false,"error":"keys of the token issuer are not available: it timed out"}', 3),
    ):
        peer.body = body
        assert cli.main(["introspect", "x", "--url", _address(peer)]) == status
        assert json.loads(capsys.readouterr().out) == json.loads(body)


def test_a_refusal_is_one_line_and_1(peer: _Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """The provider's own words, made safe for a terminal."""
    peer.status, peer.body = (
        400,
        b'{"error":"invalid_grant","error_description":"AADSTS501051: no\\r\\nTrace \\u001b[2J"}',
    )
    assert cli.main(["token", "t", "--url", _address(peer)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "entra-fast: 400 invalid_grant: AADSTS501051: no Trace \\x1b[2J\n"


@pytest.mark.parametrize("status", [500, 503, 404])
def test_a_failing_provider_is_no_refusal(
    status: int, peer: _Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 3 for what may be tried again; a provider's own 404 is not taken for another server."""
    peer.status, peer.body = status, b'{"error":"server_error","error_description":"it timed out"}'
    assert cli.main(["token", "t", "--url", _address(peer)]) == (3 if status >= 500 else 1)
    assert capsys.readouterr().err == f"entra-fast: {status} server_error: it timed out\n"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"access_token":"two\\nlines"}', b'"' + b"x" * (2 << 20) + b'"']
)
def test_an_answer_that_is_none_of_a_sidecars_is_3(
    body: bytes, peer: _Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program listens on the port, or answers without end."""
    peer.body = body
    assert cli.main(["token", "t", "--url", _address(peer)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_another_server_is_3_and_said_to_be_none(peer: _Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown path is no refusal of a token: the address is wrong."""
    peer.status, peer.body = 404, b'{"error":"invalid_request","error_description":"no such path"}'
    url = f"http://127.0.0.1:{peer.server_port}/elsewhere"
    assert cli.main(["token", "t", "--url", url]) == 3
    assert "answered 404 for /elsewhere: not a sidecar?" in capsys.readouterr().err


def test_no_sidecar_is_3_and_says_where_it_was_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The address, and what to do about it."""
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        port = server.server_port
    assert cli.main(["token", "t", "--url", f"http://127.0.0.1:{port}/"]) == 3
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert "entra-fast dev" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["127.0.0.1:7164", "ftp://x/", "http://", "http://x:port/", "http://x:99999/"]
)
def test_an_address_that_is_none_is_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Found out before anything is sent."""
    assert cli.main(["token", "t", "--url", url]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_leaves_early_is_no_crash() -> None:
    """`entra-fast inspect ... | head -0`: no traceback."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from entra_fast.cli.main import main; sys.exit(main())",
             "inspect", _unsigned({"name": "x" * 40_000})],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">/dev/full", ">&-", "2>&-"])
def test_streams_that_are_closed_or_full_are_no_crash(closed: str) -> None:
    """No traceback, wherever it would go; and a failed write is not status 0."""
    program = "import sys; from entra_fast.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" inspect {"" if closed == "<&-" else "$2"} {closed}',
         sys.executable, program, _unsigned({"name": "x"})],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    assert done.returncode == (2 if closed in {"<&-", ">/dev/full"} else 0)


@pytest.mark.parametrize("command", ["serve", "token-generator"])
def test_a_server_without_settings_names_the_first_one(command: str, tmp_path: Any) -> None:
    """One line on standard error, status 2, nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from entra_fast.cli.main import main; sys.exit(main())", command,
         "--settings", str(tmp_path)],
        env={**inherited(), "PYTHONPATH": os.pathsep.join(sys.path), "AZURE_ENABLED": "true"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "AZURE_APP_CLIENT_ID" in done.stderr


def test_a_token_generator_says_once_which_address_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the address, the reason, and what to do."""
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", "me")
    monkeypatch.setenv("AZURE_APP_CLIENT_SECRET", "secret")
    monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", "http://127.0.0.1:9/.well-known/openid-configuration")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert cli.main(["token-generator", "--settings", str(tmp_path), "--bind", address]) == 2
    assert capsys.readouterr().err == (
        f"entra-fast: cannot listen on {address} (Address already in use); "
        "choose another address with --bind or BIND_ADDRESS\n"
    )


def test_the_options_of_serve_win_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--bind, --probe-bind, --no-fast-lane, and a folder with settings."""
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("entra_fast.sidecar.process.single", run)
    monkeypatch.setenv("BIND_ADDRESS", "127.0.0.1:1")
    for name, value in {
        "AZURE_APP_CLIENT_ID": "me",
        "AZURE_APP_TENANT_ID": "tenant",
        "AZURE_APP_CLIENT_SECRET": "s",
    }.items():
        monkeypatch.delenv(name, raising=False)
        (tmp_path / name).write_text(value)
    options = ["--bind", "127.0.0.1:2", "--probe-bind", "127.0.0.1:3", "--no-fast-lane"]
    assert cli.main(["serve", *options, "--settings", str(tmp_path)]) == 0
    assert cli.main(["serve", "--settings", str(tmp_path)]) == 0
    given, default = (settings.server for settings in seen)
    assert (given.port, given.probe_port, given.fast_lane) == (2, 3, False)
    assert (default.port, default.probe_host, default.fast_lane) == (1, None, True)
    assert seen[0].provider is not None
    assert seen[0].provider.client_id == "me"


# --- validate ----------------------------------------------------------------------------------------------


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


def test_validate_prints_the_claims_of_a_valid_token(
    issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As JSON on standard output; status 0."""
    assert cli.main(["validate", *issuer.options, issuer.token(name="Bjørn")]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "Bjørn"


def test_validate_says_why_a_token_is_refused(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line with both values on standard error, nothing on standard output; status 1."""
    assert cli.main(["validate", *issuer.options, issuer.token(aud="you")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "entra-fast: token has the wrong audience (expected me, actual you)\n"


def test_validate_as_json_has_a_stable_code(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs: valid, and claims or code and error."""
    assert cli.main(["validate", "--json", *issuer.options, issuer.token(exp=1)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["valid"], answer["code"], answer["error"]) == (False, "token_expired", "token is expired")
    assert cli.main(["validate", "--json", *issuer.options, issuer.token()]) == 0
    assert json.loads(capsys.readouterr().out)["claims"]["aud"] == "me"


def test_validate_explains_every_check(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """All that fail, not only the first one; with the values, and times made readable."""
    assert cli.main(["validate", "--explain", *issuer.options, issuer.token(aud="you", exp=1)]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"^ok +signature ", shown, re.MULTILINE)
    assert re.search(
        r"^FAILED +audience +token has the wrong audience\n +expected: me\n +actual: you$",
        shown,
        re.MULTILINE,
    )
    assert re.search(r"^FAILED +expiry .*1970-01-01 00:00:01 UTC", shown, re.MULTILINE)
    assert shown.splitlines()[-1].startswith("not valid: ")
    assert cli.main(["validate", "--explain", *issuer.options, issuer.token()]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "valid"


def test_explaining_cannot_take_over_the_terminal(issuer: Issuer, capsys: pytest.CaptureFixture[str]) -> None:
    """Values of a hostile token are escaped there, too."""
    cli.main(["validate", "--explain", *issuer.options, issuer.token(aud="\x1b[2J", iss="\u202e")])
    captured = capsys.readouterr()
    assert not set(captured.out + captured.err) & set("\x1b\u202e")


def test_validate_takes_its_settings_from_the_environment(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables of NAIS; what is missing is named, with status 2."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_OPENID_CONFIG_ISSUER", "AZURE_APP_WELL_KNOWN_URL"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["validate", issuer.token()]) == 2
    said = capsys.readouterr().err
    assert "--issuer, --audience and --jwks-uri" in said
    assert "AZURE_*" in said
    with HTTPServer(("127.0.0.1", 0), _Handler) as server:
        port = server.server_port
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", "me")
    monkeypatch.setenv("AZURE_OPENID_CONFIG_ISSUER", "https://issuer.example")
    monkeypatch.setenv("AZURE_OPENID_CONFIG_JWKS_URI", f"http://127.0.0.1:{port}/keys")
    assert cli.main(["validate", issuer.token()]) == 3  # nobody answers there: undecided, not refused
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--jwks", "/nowhere.json"], "--jwks"),
        (["--jwks", "/dev/null"], "--jwks"),
        (["--algorithm", "none"], "algorithms"),
        (["--algorithm", "HS256"], "algorithms"),
        (["--leeway", "86400"], "leeway"),
        (["--jwks-uri", "http://keys.example/"], "https"),
        (["--well-known", "https://x.example/"], "--well-known"),
    ],
)
def test_a_wrong_policy_is_2(
    changes: list[str], named: str, issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is found before the token is looked at, and named in one line."""
    options = issuer.options if "--jwks-uri" not in changes else issuer.options[:4]
    assert cli.main(["validate", *options, *changes, issuer.token()]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert named in captured.err


# --- serve -------------------------------------------------------------------------------------------------

EARLY = """
import os, signal, sys, time
from entra_fast import cli, sidecar
def run(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
sidecar.run = run
sys.exit(cli.main(["serve", "--settings", "/"]))
"""


def test_sigterm_before_the_sidecar_serves_ends_it_at_once() -> None:
    """While modules load and settings are read nobody handles signals, and to PID 1 an unhandled SIGTERM
    means nothing: so there is a handler from the first moment. Nobody has to be waited for."""
    ended = subprocess.run(
        [sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# --- explain -----------------------------------------------------------------------------------------------

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "manifests"


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
    """Granted or refused, and by which line of which manifest."""
    assert cli.main(["explain", *arguments, "--manifests", str(EXAMPLES)]) == status
    text = capsys.readouterr().out
    assert shown in text
    assert cli.main(["explain", *arguments, "--manifests", str(EXAMPLES), "--json"]) == status
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
def test_explain_for_somebody_who_does_not_exist_is_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A consumer or a user that is not there is a wrong question, not a refusal."""
    assert cli.main(["explain", *arguments, "--manifests", str(EXAMPLES)]) == 2
    assert "nobody" in capsys.readouterr().err
