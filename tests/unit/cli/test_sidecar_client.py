"""`entra-fast token`, `exchange`, `introspect` and `health`: the request, and what its answer means."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import HTTPServer

import pytest

from entra_fast.cli.main import main
from support.cli import Handler, Recorder, address


@pytest.fixture
def peer() -> Iterator[Recorder]:
    with Recorder(("127.0.0.1", 0), Handler) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_token_prints_the_bare_token(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """So that `TOKEN=$(entra-fast token ...)` works."""
    peer.body = b'{"access_token":"a.b.c","expires_in":3599,"token_type":"Bearer"}'
    assert main(["token", "dev-gcp:team:app", "--skip-cache", "--url", address(peer)]) == 0
    assert capsys.readouterr().out == "a.b.c\n"
    expected = {"identity_provider": "entra_id", "target": "dev-gcp:team:app", "skip_cache": True}
    assert peer.seen == [("/api", expected)]


def test_a_claims_challenge_is_sent_as_it_is(peer: Recorder) -> None:
    """`--claims`, for both commands that fetch tokens; without it there is no such field."""
    peer.body = b'{"access_token":"a.b.c","expires_in":3599,"token_type":"Bearer"}'
    challenge = '{"access_token":{"acrs":{"value":"c1"}}}'
    for command in (["token", "t"], ["exchange", "t", "user"]):
        assert main([*command, "--claims", challenge, "--url", address(peer)]) == 0
        assert main([*command, "--url", address(peer)]) == 0
    assert [fields.get("claims") for _, fields in peer.seen] == [challenge, None] * 2


def test_the_provider_is_the_one_of_the_option(peer: Recorder) -> None:
    """`--provider`, and its older name, for all three commands; Entra ID without it."""
    peer.body = b'{"access_token":"a.b.c","active":true}'
    for command in (["token", "t"], ["exchange", "t", "user"], ["introspect", "it"]):
        for option in (["--provider", "tokenx"], ["--identity-provider", "partner"], []):
            assert main([*command, *option, "--url", address(peer)]) == 0
    assert [fields["identity_provider"] for _, fields in peer.seen] == ["tokenx", "partner", "entra_id"] * 3


def test_a_token_of_maskinporten_may_have_details(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """`--resource` and `--authorization-details`, as the sidecar reads them: arrays of objects only."""
    peer.body = b'{"access_token":"a.b.c"}'
    command = ["token", "a:scope", "--provider", "maskinporten", "--url", address(peer)]
    details = '[{"type":"urn:altinn:systemuser"}]'
    assert (
        main([*command, "--resource", "https://a", "--resource", "b", "--authorization-details", details])
        == 0
    )
    ((_, fields),) = peer.seen
    assert fields["resource"] == ["https://a", "b"]
    assert fields["authorization_details"] == json.loads(details)
    for wrong in ("{}", "[1]", "nonsense", "[" * 100_000):
        assert main([*command, "--authorization-details", wrong]) == 2
        assert "must be a JSON array" in capsys.readouterr().err
    assert len(peer.seen) == 1


@pytest.mark.parametrize(
    ("provider", "said", "to_do"),
    [
        ("tokenx", "client 'a' is not authorized to get token with aud=b", "explain --provider tokenx"),
        ("tokenx", "invalid subject_token: token verification failed: Expired+JWT", "that is valid now"),
        ("tokenx", "token verification failed: Expired+JWT", "clock"),
        ("tokenx", "token verification failed: Signed+JWT+rejected", "TOKEN_X_PRIVATE_JWK"),
        ("tokenx", "identity provider 'tokenx' does not support token requests", "exchange a user's token"),
        ("maskinporten", "identity provider 'maskinporten' is not enabled", "MASKINPORTEN_ENABLED"),
        ("partner", "identity provider 'partner' is not enabled", None),
        ("entra_id", "AADSTS1: unknown", None),
        ("idporten", "no such thing", None),
    ],
)
def test_a_refusal_says_what_to_do(
    provider: str, said: str, to_do: str | None, peer: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of the provider that refuses; nothing where nothing is known."""
    peer.status = 400
    peer.body = json.dumps({"error": "invalid_request", "error_description": said}).encode()
    assert main(["token", "t", "--provider", provider, "--url", address(peer)]) == 1
    refusal, *more = capsys.readouterr().err.splitlines()
    assert refusal == f"entra-fast: 400 invalid_request: {said}"
    assert len(more) == (to_do is not None)
    if to_do is not None:
        assert more[0].startswith("to do: ")
        assert to_do in more[0]


def test_a_code_of_maskinporten_says_what_to_do(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """It is in `error_uri`; a refused introspection says so as well, beside its JSON."""
    peer.status = 403
    uri = "https://maskinporten.no/errors/MP-250"
    peer.body = json.dumps({"error": "forbidden", "error_description": "no", "error_uri": uri}).encode()
    assert main(["token", "t", "--provider", "maskinporten", "--url", address(peer)]) == 1
    assert "let the owner of the scope grant it" in capsys.readouterr().err
    peer.status = 200
    peer.body = b'{"active":false,"error":"identity provider \'tokenx\' is not enabled"}'
    assert main(["introspect", "x", "--provider", "tokenx", "--url", address(peer)]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["active"] is False
    assert "TOKEN_X_ENABLED" in captured.err


def test_the_environment_says_where_the_sidecar_is(
    peer: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variables that NAIS gives an application, for all three commands."""
    for name, path in (
        ("NAIS_TOKEN_ENDPOINT", "/t"),
        ("NAIS_TOKEN_EXCHANGE_ENDPOINT", "/x"),
        ("NAIS_TOKEN_INTROSPECTION_ENDPOINT", "/i"),
    ):
        monkeypatch.setenv(name, address(peer, path))
    peer.body = b'{"access_token":"a.b.c","active":true}'
    assert main(["token", "t"]) == main(["exchange", "t", "user"]) == main(["introspect", "it"]) == 0
    assert [path for path, _ in peer.seen] == ["/t", "/x", "/i"]
    assert peer.seen[1][1]["user_token"] == "user"
    assert peer.seen[2][1]["token"] == "it"


def test_health_as_json_has_the_answer_parsed(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` for scripts: healthy or not, the status, and the body as JSON where it is some."""
    for status, body, parsed, exit_status in (
        (200, b"ok", "ok", 0),
        (503, b'{"ready":false}', {"ready": False}, 1),
    ):
        peer.status, peer.body = status, body
        assert main(["health", "--json", "--url", address(peer, "")]) == exit_status
        shown = json.loads(capsys.readouterr().out)
        assert shown == {"healthy": exit_status == 0, "status": status, "body": parsed}


def test_introspect_ends_with_1_for_an_inactive_token_and_with_3_without_keys(
    peer: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the JSON boolean `true` is active; without keys nothing is known about the token."""
    for body, status in (
        (b'{"active":true}', 0),
        (b'{"active":false,"error":"e"}', 1),
        (b'{"active":"true"}', 1),
        (b'{"active":false,"error":"keys of the token issuer are not available: it timed out"}', 3),
    ):
        peer.body = body
        assert main(["introspect", "x", "--url", address(peer)]) == status
        assert json.loads(capsys.readouterr().out) == json.loads(body)


def test_a_refusal_is_one_line_and_1(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """The provider's own text, made safe for a terminal."""
    peer.status, peer.body = (
        400,
        b'{"error":"invalid_grant","error_description":"AADSTS501051: no\\r\\nTrace \\u001b[2J"}',
    )
    assert main(["token", "t", "--url", address(peer)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    refusal, to_do = captured.err.splitlines()
    assert refusal == "entra-fast: 400 invalid_grant: AADSTS501051: no Trace \\x1b[2J"
    assert "accessPolicy.inbound.rules" in to_do


@pytest.mark.parametrize("status", [500, 503, 404])
def test_a_failing_provider_is_no_refusal(
    status: int, peer: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 3 for temporary failures; a provider's own 404 does not mean another server."""
    peer.status, peer.body = status, b'{"error":"server_error","error_description":"it timed out"}'
    assert main(["token", "t", "--url", address(peer)]) == (3 if status >= 500 else 1)
    assert capsys.readouterr().err == f"entra-fast: {status} server_error: it timed out\n"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"access_token":"two\\nlines"}', b'"' + b"x" * (2 << 20) + b'"']
)
def test_an_answer_that_is_none_of_a_sidecars_is_3(
    body: bytes, peer: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program listens on the port, or answers without end."""
    peer.body = body
    assert main(["token", "t", "--url", address(peer)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_another_server_is_3_and_said_to_be_none(peer: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown path is no refusal of a token: the address is wrong."""
    peer.status, peer.body = 404, b'{"error":"invalid_request","error_description":"no such path"}'
    url = f"http://127.0.0.1:{peer.server_port}/elsewhere"
    assert main(["token", "t", "--url", url]) == 3
    assert "answered 404 for /elsewhere: not a sidecar?" in capsys.readouterr().err


def test_no_sidecar_is_3_and_says_where_it_was_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """The address, and what to do about it."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
    assert main(["token", "t", "--url", f"http://127.0.0.1:{port}/"]) == 3
    error = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in error
    assert "entra-fast dev" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "url", ["127.0.0.1:7164", "ftp://x/", "http://", "http://x:port/", "http://x:99999/"]
)
def test_an_address_that_is_none_is_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Detected before anything is sent."""
    assert main(["token", "t", "--url", url]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_refusal_as_json_is_the_answer_of_the_provider(
    peer: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json, programs read the error, too; the line on standard error stays."""
    peer.status, peer.body = 400, b'{"error":"invalid_grant","error_codes":[501051]}'
    assert main(["token", "t", "--json", "--url", address(peer)]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "invalid_grant", "error_codes": [501051]}
    assert captured.err == "entra-fast: 400 invalid_grant\n"


def test_a_wrong_address_in_the_environment_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not as --url, which was not used."""
    monkeypatch.setenv("NAIS_TOKEN_ENDPOINT", "127.0.0.1:7164")
    assert main(["token", "t"]) == 2
    assert capsys.readouterr().err.startswith("entra-fast: NAIS_TOKEN_ENDPOINT must be a URL such as http://")


def test_a_server_that_does_not_speak_http_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    """A port of another program."""

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        assert main(["token", "t", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}/"]) == 3
        thread.join()
    assert capsys.readouterr().err.endswith(": not a sidecar?\n")


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_health_asks_the_probe_listener_of_the_environment(
    peer: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    expected: int,
) -> None:
    """As a container's health check does, with the sidecar's own settings, wherever it listens."""
    peer.status, peer.body = status, b"starting\n"
    monkeypatch.setenv("BIND_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("PROBE_BIND_ADDRESS", f"0.0.0.0:{peer.server_port}")
    assert main(["health"]) == expected
    assert main(["health", "--ready"]) == expected
    assert main(["health", "--ready", "--url", address(peer, "/")]) == expected
    monkeypatch.setenv("PROBE_BIND_ADDRESS", "")
    monkeypatch.setenv("BIND_ADDRESS", f"127.0.0.1:{peer.server_port}")
    assert main(["health"]) == expected
    assert [path for path, _ in peer.seen] == ["/healthz", "/readyz", "/readyz", "/healthz"]
    assert capsys.readouterr().out == "starting\n" * 4


def test_health_without_a_sidecar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and status 3; a wrong setting is status 2."""
    monkeypatch.setenv("PROBE_BIND_ADDRESS", "127.0.0.1:1")
    assert main(["health"]) == 3
    assert capsys.readouterr().err.startswith("entra-fast: no answer from a sidecar: ")
    monkeypatch.setenv("PROBE_BIND_ADDRESS", "nowhere")
    assert main(["health"]) == 2
    assert capsys.readouterr().err.startswith("entra-fast: PROBE_BIND_ADDRESS must be an address")
