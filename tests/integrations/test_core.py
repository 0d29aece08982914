"""What all integrations share, without a framework: headers, pages, log lines, metrics, validators from the
environment, missing packages."""

from __future__ import annotations

import asyncio
import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest

from entra_fast import Claims, ConfigurationError, KeysUnavailable, Require
from entra_fast.errors import InvalidToken
from entra_fast.integrations import _guard, _validators
from entra_fast.integrations._bearer import Exclusions, Incoming, MalformedHeader, token_of
from entra_fast.integrations._guard import AsyncGuard, SyncGuard
from entra_fast.integrations._refusal import Refusal, full_scope, prefers_html, refusal_for
from support.key_server import DISCOVERY_PATH, Answer, KeyServer
from support.tokens import ABSENT, AUDIENCE, NOW, jwks, signer, validator

FRAMEWORKS = ("aiohttp", "django", "drf", "fastapi", "flask", "grpc", "starlette")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bEaReR   abc  "], "abc"),
        (["Bearer\tabc"], "abc"),
        (["Basic abc"], None),
        (["Bearerabc"], None),
        (["Bearer=abc"], None),
        ([""], None),
        ([" "], None),
        (['Digest realm="a, b"'], None),
    ],
)
def test_the_token_of_a_header(values: list[str], expected: str | None) -> None:
    """The scheme has no case; what is not `Bearer` and a token is none."""
    assert token_of(values) == expected


@pytest.mark.parametrize(
    "values",
    [
        ["Bearer"],
        ["Bearer "],
        ["Bearer a b"],
        ["Bearer a\tb"],
        ["Bearer a,b"],
        ["Bearer a, Bearer b"],
        ["Basic a,Bearer b"],
        ["Basic a, bearer b"],
        ["Bearer a", "Bearer a"],
        ["Basic a", "Bearer b"],
        ["", ""],
    ],
)
def test_headers_that_cannot_be_read(values: list[str]) -> None:
    """Two credentials are refused, also where a server has joined them: which one counts would differ."""
    with pytest.raises(MalformedHeader):
        token_of(values)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a", True),
        ("/a/", False),
        ("/b/c", True),
        ("/b/", True),
        ("/b/c/d.css", True),
        ("/b", False),
        ("/bc", False),
        ("/b/../a2", False),
        ("/b/./c", False),
        ("/b//c", False),
        ("/b/..", False),
        ("/b/%2e%2e/c", False),
        ("/b/\\..\\c", False),
        ("", False),
    ],
)
def test_exclusions(path: str, expected: bool) -> None:
    """Exactly, or below a folder; nothing that another program might read as another path."""
    assert Exclusions(["/a", "/b/*"]).match("GET", path) is expected
    assert not Exclusions(["/a", "/b/*"]).match("POST", path)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("application/json, text/html", False),
        ("application/json;q=0.5, TEXT/HTML;q=0.9", True),
        ("text/html;q=x", False),
    ],
)
def test_who_gets_a_page(accept: str, expected: bool) -> None:
    """Browsers do; a client that takes anything gets JSON."""
    assert prefers_html(accept) is expected


@pytest.mark.parametrize(
    ("requirement", "scope"),
    [
        (Require(scope="a"), f"api://{AUDIENCE}/a"),
        (Require(scope="a") & Require(scope="b"), f"api://{AUDIENCE}/a api://{AUDIENCE}/b"),
        (Require(scope="a") | Require(app=True), f"api://{AUDIENCE}/a"),
        (Require(scope="a") | Require(scope="b"), None),
        (Require(scope="a", role="r"), None),
        (Require(role="r"), None),
    ],
)
def test_scopes_of_a_challenge(requirement: Require, scope: str | None) -> None:
    """Where one set of scopes suffices, it is named as clients ask for it; a role never is."""
    claims = validator().validate(signer().token(idtyp=ABSENT, roles=ABSENT, scp="x"))
    with pytest.raises(Exception, match="needs") as caught:
        requirement.check(claims)
    refusal = refusal_for(caught.value, "r", requirement, claims)  # type: ignore[arg-type]
    assert refusal.challenge is not None
    assert (
        (f'scope="{scope}"' in refusal.challenge)
        if scope
        else ("scope=" not in refusal.challenge.partition(", error_d")[2])
    )
    assert str(refusal) == refusal.description


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        ("id", "api://id/a"),
        ("api://x.y/", "api://x.y/a"),
        ("https://api.example", "https://api.example/a"),
        (["id"], "a"),
        (None, "a"),
        ('a"b', "a"),
        ("a b", "a"),
        ("å", "a"),
    ],
)
def test_full_scopes(audience: Any, expected: str) -> None:
    """An audience that cannot stand in a challenge is left out of it."""
    assert full_scope("a", audience) == expected


def test_log_lines_are_limited(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can cause refusals. What is left out is counted, and said a second later."""
    seconds = [0.0]
    monkeypatch.setattr("entra_fast.integrations._guard.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr(_guard, "_lines", _guard._Lines())
    caplog.set_level(logging.INFO)
    guard = SyncGuard("test", validator())
    for _ in range(2):
        for _ in range(25):
            with pytest.raises(Refusal):
                guard.admit(Incoming("GET", "/x" * 500, ()))
        seconds[0] += 1
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 21
    assert lines[10] == "15 further refused requests were not logged"
    assert max(map(len, lines)) < 300


def test_unavailable_keys_are_a_warning_with_their_reason(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is for us, not for the client: it names hosts."""

    class Down:
        def validate(self, token: str | bytes) -> Claims:
            raise KeysUnavailable("keys_unavailable", "no connection to proxy.internal:8080")

    with pytest.raises(Refusal) as caught:
        SyncGuard("test", Down()).admit(Incoming("GET", "/\r\nx", ["Bearer a.b.c"]))
    (record,) = [one for one in caplog.records if one.name == "entra_fast.bearer"]
    assert record.levelno == logging.WARNING
    assert "proxy.internal" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert "proxy.internal" not in str(caught.value.body) + str(caught.value.headers)


def test_decisions_are_counted() -> None:
    """By framework and outcome, if the application has prometheus-client."""

    def counted(outcome: str) -> float:
        labels = {"framework": "counting", "outcome": outcome}
        value = prometheus_client.REGISTRY.get_sample_value("entra_fast_bearer_decisions_total", labels)
        return value or 0.0

    guard = SyncGuard("counting", validator(), exclude=["/open"], optional=True)
    mine = f"Bearer {signer().token()}"
    for incoming in (
        Incoming("GET", "/", [mine]),
        Incoming("GET", "/", []),
        Incoming("GET", "/open", []),
        Incoming("OPTIONS", "/", [], preflight=True),
    ):
        guard.admit(incoming)
    for value in (f"{mine} x", f"Bearer {signer().token(exp=int(NOW) - 1000)}"):
        with pytest.raises(Refusal):
            guard.admit(Incoming("GET", "/", [value]))
    outcomes = ("accepted", "anonymous", "excluded", "preflight", "invalid_request", "token_expired")
    assert [counted(outcome) for outcome in outcomes] == [1.0] * 6


def test_what_is_not_verified_is_refused_unless_a_test_installed_it() -> None:
    """A validator that returns something else than verified claims is a mistake of the wiring."""

    class Dreaming:
        def validate(self, _: str) -> dict[str, Any]:
            return {"idtyp": "app", "azp": "x"}

    incoming = Incoming("GET", "/", ["Bearer a.b.c"])
    guard = SyncGuard("test", Dreaming())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="instead of verified claims"):
        guard.admit(incoming)
    with guard.use(Dreaming()):
        claims: Any = guard.admit(incoming)
        assert claims["azp"] == "x"


def test_a_route_that_requires_something_needs_a_token() -> None:
    """None, where a token is optional, meets no requirement."""
    with pytest.raises(Refusal) as caught:
        SyncGuard("test", validator(), optional=True).check(None, Require.any_token(), "/")
    assert caught.value.outcome == "no_token"


# --- validators from the environment ---


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyServer]:
    """A provider whose discovery document the environment names, and nothing more."""
    for name in ("AZURE_OPENID_CONFIG_ISSUER", "AZURE_OPENID_CONFIG_JWKS_URI"):
        monkeypatch.delenv(name, raising=False)
    with KeyServer(jwks(signer())) as server:
        document = f'{{"issuer":"{server.issuer}","jwks_uri":"{server.keys_url}"}}'
        server.answers[DISCOVERY_PATH] = Answer(document)
        monkeypatch.setenv("AZURE_APP_CLIENT_ID", AUDIENCE)
        monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", server.discovery_url)
        yield server


async def test_an_asynchronous_validator_is_made_once(provider: KeyServer) -> None:
    """Requests that come at once wait for the same discovery document; afterwards the validator starts
    again."""
    made = _validators.AsyncFromEnvironment()
    assert provider.requests == []
    codes = await asyncio.gather(*(made.validate("a.b.c") for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in codes} == {InvalidToken}
    assert provider.fetches(DISCOVERY_PATH) == 1
    await made.aclose()
    await made.start()
    await made.aclose()


async def test_an_unavailable_provider_does_not_stop_the_start(
    provider: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are 503 until it is there; it is asked again after a pause, not for every request."""
    path = DISCOVERY_PATH
    good = provider.answers[path]
    provider.answers[path] = Answer(status=503)
    seconds = [100.0]
    monkeypatch.setattr("entra_fast.integrations._validators.time.monotonic", lambda: seconds[0])
    made = _validators.AsyncFromEnvironment()
    await made.start()
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await made.validate("a.b.c")
    asked = provider.fetches(path)
    provider.answers[path] = good
    seconds[0] += _validators.PAUSE
    with pytest.raises(InvalidToken):
        await made.validate("a.b.c")
    assert provider.fetches(path) == asked + 1
    await made.aclose()


async def test_a_caller_that_leaves_does_not_end_what_others_wait_for(provider: KeyServer) -> None:
    """The first of two waiting requests is cancelled."""
    made = _validators.AsyncFromEnvironment()
    provider.hold()
    first, second = (asyncio.ensure_future(made.validate("a.b.c")) for _ in range(2))
    await asyncio.to_thread(provider.wait_for_fetches, 1, DISCOVERY_PATH)
    first.cancel()
    provider.release()
    with pytest.raises(InvalidToken):
        await second
    await made.aclose()


async def test_a_missing_setting_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its name."""
    for name in ("AZURE_APP_CLIENT_ID", "AZURE_APP_WELL_KNOWN_URL", "AZURE_OPENID_CONFIG_ISSUER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError):
        await AsyncGuard("test", None).validator.start()


def test_validators_of_the_wrong_kind() -> None:
    """One for threads would stop an event loop, and the other way round."""
    with pytest.raises(TypeError, match="AsyncValidator"):
        AsyncGuard("test", validator())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Validator or a SidecarClient"):
        SyncGuard("test", _validators.AsyncFromEnvironment())  # type: ignore[arg-type]


# --- packages ---


HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {hidden!r}:
            raise ModuleNotFoundError("No module named {hidden}", name={hidden!r})

sys.meta_path.insert(0, Hidden())
import entra_fast.integrations.{framework}
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_missing_framework_is_one_sentence(framework: str) -> None:
    """With the command that installs it."""
    hidden = {"drf": "rest_framework"}.get(framework, framework)
    program = HIDE.format(hidden=hidden, framework=framework)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert f"entra_fast.integrations.{framework} needs the package" in last
    assert f"pip install 'entra-fast[{framework}]'" in last


@pytest.mark.parametrize("framework", [*FRAMEWORKS, "asgi"])
def test_an_integration_loads_no_other_framework(framework: str) -> None:
    """And neither the sidecar nor the emulator."""
    own = {"drf": {"django", "rest_framework"}, "fastapi": {"fastapi", "starlette"}}.get(
        framework, {framework}
    )
    others = {
        "aiohttp",
        "django",
        "fastapi",
        "flask",
        "grpc",
        "rest_framework",
        "starlette",
        "prometheus_client",
    }
    others |= {"entra_fast.sidecar", "entra_fast.emulator"}
    program = (
        f"import sys, entra_fast.integrations.{framework}; print(sorted({others - own!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert importlib.util.find_spec(f"entra_fast.integrations.{framework}") is not None
