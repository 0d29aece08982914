"""`entra_fast.testing`: the pytest plugin in real runs of pytest, the same for unittest, and unverified
claims."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import tomllib
import unittest
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from entra_fast import Claims, testing
from entra_fast.errors import ConfigurationError, EntraFastError, Forbidden, InvalidToken, KeysUnavailable
from entra_fast.testing import Clock, EntraTestCase, LocalEntra, UnverifiedClaims
from entra_fast.testing._bad import BAD
from entra_fast.tokens import TokenClient
from entra_fast.validate import Validator
from support.idporten import PID
from support.local_entra import EXAMPLES
from support.process import inherited

ROOT = Path(__file__).resolve().parents[2]
APP_A, APP_B = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"

PROJECT = """
import socket
import pytest
from entra_fast import Forbidden, InvalidToken, KeysUnavailable

A, B = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a test without a network has used one")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("number", range(5))
def test_good_tokens(local_entra, entra_token, number):
    validator = local_entra.validator(B)
    assert validator.validate(entra_token(A, B)).is_app
    claims = validator.validate(entra_token(A, B, user="ada", NAVident=f"A{number}"))
    assert (claims.is_app, claims["NAVident"], claims.scopes[0]) == (False, f"A{number}", "defaultaccess")


@pytest.mark.parametrize("kind, code", [
    ("expired", "token_expired"), ("wrong_audience", "wrong_audience"), ("wrong_key", "unknown_key"),
    ("not_yet_valid", "token_not_yet_valid"), ("wrong_issuer", "wrong_issuer"), ("malformed", "not_a_jwt"),
    ("wrong_signature", "signature_invalid"),
])
def test_bad_tokens(local_entra, entra_token, kind, code):
    with pytest.raises(InvalidToken) as caught:
        local_entra.validator(B).validate(getattr(entra_token, kind)(A, B, user="ada"))
    assert caught.value.code == code


def test_time(local_entra, entra_token, entra_clock):
    validator, token = local_entra.validator(B), entra_token(A, B)
    validator.validate(token)
    entra_clock.advance(2 * 3600)
    with pytest.raises(InvalidToken, match="expired"):
        validator.validate(token)
    validator.validate(entra_token(A, B))


async def test_asynchronously(local_entra, entra_token):
    assert (await local_entra.async_validator(B).validate(entra_token(A, B))).is_app


def test_no_keys(local_entra, entra_token, entra_keys_down):
    with pytest.raises(KeysUnavailable):
        local_entra.validator(B).validate(entra_token(A, B))


def test_other_providers(
    local_entra, local_tokenx, local_maskinporten, local_idporten, local_ansattporten, entra_clock
):
    entra_clock.freeze()
    assert local_tokenx.validator(B).validate(local_tokenx.token(A, B)).authorized_party == A
    assert local_maskinporten.validator().validate(local_maskinporten.token("a:b")).scopes == ("a:b",)
    for provider in (local_idporten, local_ansattporten):
        assert provider.validator(B).validate(provider.token(B)).issued_at == int(entra_clock.now)
"""

SERVED = """
from entra_fast.tokens import TokenClient
from entra_fast.validate import Validator

A, B = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"


def test_served(entra_server, entra_token, monkeypatch):
    for name, value in entra_server.environment(A).items():
        monkeypatch.setenv(name, value)
    user = Validator().validate(entra_token("dev-gcp:team-c:front", A, user="ada"))
    assert user.name == "Ada"
    entra_server.application(B)
"""

REPORT = """
import sys
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    names = ("entra_fast.emulator", "pydantic", "yaml", "cryptography", "aiohttp", "entra_fast.validate")
    print("LOADED", sorted(name for name in names if name in sys.modules))
"""


def run(folder: Path, *arguments: str, **files: str) -> str:
    """The output of pytest in a project of its own, in which all tests must pass."""
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n" + files.pop("settings", ""))
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:entra_fast",
        "-p",
        "entra_fast.testing._pytest_plugin",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        env=inherited(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_project_without_manifests(tmp_path: Path) -> None:
    """Every application may call every other one, and no test opens a connection."""
    assert "16 passed" in run(tmp_path, test_project=PROJECT)


def test_several_processes(tmp_path: Path) -> None:
    """Tests can run in parallel (pytest-xdist)."""
    assert "16 passed" in run(tmp_path, "-n", "2", test_project=PROJECT)


def test_a_project_with_manifests(tmp_path: Path) -> None:
    """Their access policies decide, relative to the project's folder."""
    os.symlink(EXAMPLES, tmp_path / "nais")
    settings = "entra_manifests = nais/manifests\nentra_directory = nais/directory.yaml\n"
    refused = """
import pytest
from entra_fast import EntraFastError

def test_refused(entra_token):
    with pytest.raises(EntraFastError) as caught:
        entra_token("dev-gcp:team-b:app-b", "dev-gcp:team-a:app-nobody")
    assert caught.value.code in ("token_refused", "application_unknown")
"""
    assert "17 passed" in run(tmp_path, test_project=PROJECT, test_refused=refused, settings=settings)


def test_code_that_fetches_keys_itself(tmp_path: Path) -> None:
    """The local Entra ID is served on loopback."""
    assert "1 passed" in run(tmp_path, test_served=SERVED)


def test_the_plugin_costs_other_projects_nothing(tmp_path: Path) -> None:
    """Where no test uses it, neither the local Entra ID nor a library that it needs is loaded."""
    output = run(tmp_path, "-s", "-p", "report", report=REPORT, test_other="def test_other(): pass")
    assert "LOADED []" in output


def test_the_first_test_loads_only_what_it_needs(tmp_path: Path) -> None:
    """Without manifests: neither YAML nor pydantic nor cryptography nor a web server."""
    output = run(tmp_path, "-s", "-p", "report", "-k", "test_time", report=REPORT, test_project=PROJECT)
    assert "LOADED ['entra_fast.emulator', 'entra_fast.validate']" in output


def test_the_plugin_is_an_entry_point() -> None:
    """So it is active where the package is installed."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert document["project"]["entry-points"]["pytest11"] == {
        "entra_fast": "entra_fast.testing._pytest_plugin"
    }


# --- the objects behind the fixtures ---


@pytest.fixture
def local() -> LocalEntra:
    """Without manifests."""
    return LocalEntra()


def test_each_bad_token_is_rejected(local: LocalEntra) -> None:
    """With a good one beside it; the list is complete."""
    validator = local.validator(APP_B)
    found = local.token.each_bad()
    assert set(found) == set(BAD)
    assert {name for name in vars(type(local.token)) if not name.startswith("_")} - {"each_bad"} == set(BAD)
    for make in found.values():
        with pytest.raises(InvalidToken):
            validator.validate(make(APP_A, APP_B, "ada"))
        validator.validate(local.token(APP_A, APP_B, "ada"))


def test_claims_replace_others(local: LocalEntra) -> None:
    """And None leaves one out."""
    validator = local.validator(APP_B, required_claims=())
    claims = validator.validate(
        local.token(APP_A, APP_B, roles=["reader"], idtyp=None, scp="cases.read", extra={"a": [1]})
    )
    assert (claims.roles, claims.is_app, claims.scopes) == (("reader",), False, ("cases.read",))
    assert claims["extra"] == {"a": [1]}
    assert "idtyp" not in claims


def test_policies_of_manifests() -> None:
    """A refusal shows every check; unknown names are errors with a suggestion."""
    local = LocalEntra([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml")
    claims = local.validator(APP_B).validate(local.token(APP_A, APP_B, "ada"))
    assert claims.scopes == ("defaultaccess", "cases.read")
    with pytest.raises(EntraFastError) as refused:
        local.token(APP_B, "dev-gcp:team-a:app-nobody")
    assert refused.value.code in ("token_refused", "application_unknown")
    nobody = next(
        name for name in local.emulator.registry.default_tenant.applications if name.endswith("app-nobody")
    )
    with pytest.raises(EntraFastError) as refused:
        local.token(APP_B, nobody)
    assert refused.value.code == "token_refused"
    assert "no token:" in refused.value.message
    with pytest.raises(ConfigurationError):
        local.token(APP_A, APP_B, "no-such-user")
    with pytest.raises(ConfigurationError):
        local.validator("dev-gcp:team-b:app-bb")


def test_users_keep_their_identity(local: LocalEntra) -> None:
    """However they are called, and whatever else exists in the meantime."""
    validator = local.validator(APP_B)
    first = validator.validate(local.token(APP_A, APP_B, "ada"))
    local.token("dev-gcp:team-c:app-c", APP_B, "grace@trygdeetaten.no")
    again = validator.validate(local.token("dev-gcp:team-c:app-c", APP_B, "ada"))
    assert first.object_id == again.object_id
    assert first["preferred_username"] == "ada@trygdeetaten.no"


def test_keys_come_back(local: LocalEntra) -> None:
    """Also for validators that were made while they were away."""
    before = local.validator(APP_B)
    with local.keys_down():
        meanwhile = local.validator(APP_B)
        for validator in (before, meanwhile):
            with pytest.raises(KeysUnavailable):
                validator.validate(local.token(APP_A, APP_B))
    for validator in (before, meanwhile):
        validator.validate(local.token(APP_A, APP_B))


async def test_keys_come_back_to_asynchronous_validators(local: LocalEntra) -> None:
    """As to the others."""
    validator = local.async_validator(APP_B)
    token = local.token(APP_A, APP_B)
    await validator.validate(token)
    with local.keys_down(), pytest.raises(KeysUnavailable):
        await validator.validate(token)
    await validator.validate(token)


def test_served_over_http(local: LocalEntra, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validators fetch keys, and token clients get tokens, from the variables alone; afterwards it is
    gone."""
    local.token(APP_A, APP_B)
    with local.serve() as url:
        for name, value in local.environment(APP_A).items():
            monkeypatch.setenv(name, value)
        assert os.environ["AZURE_OPENID_CONFIG_ISSUER"].startswith(url)
        with TokenClient() as tokens:
            token = tokens.client_credentials(APP_B)
        assert local.validator(APP_B).validate(token.access_token).is_app
        with Validator() as validator:
            assert not validator.validate(local.token(APP_B, APP_A, "ada")).is_app
    assert not local.environment(APP_A)["AZURE_OPENID_CONFIG_ISSUER"].startswith(url)


def test_the_other_local_providers_are_served_as_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the manifests: a validator finds ID-porten by the variables alone, and accepts its token. An
    application without an identity in Entra ID has variables, too."""
    manifest = tmp_path / "exchanging.yaml"
    manifest.write_text(
        "{apiVersion: nais.io/v1alpha1, kind: Application, metadata: {name: exchanging, namespace: team-a}, "
        "spec: {image: image, tokenx: {enabled: true}}}"
    )
    local = LocalEntra([EXAMPLES / "manifests", manifest], EXAMPLES / "directory.yaml")
    with local.serve() as url:
        for name, value in local.environment(APP_A).items():
            monkeypatch.setenv(name, value)
        issuer = local.emulator.issuers["idporten"]
        assert issuer == f"{url}/idporten"
        query = urllib.parse.urlencode({"pid": PID, "resource": os.environ["IDPORTEN_AUDIENCE"]})
        with urllib.request.urlopen(f"{issuer}/fake?{query}") as response:
            token = response.read().decode()
        with Validator.from_env("idporten") as validator:
            assert validator.validate(token).pid == PID
    exchanging = local.environment("dev-gcp:team-a:exchanging")
    assert (exchanging["AZURE_ENABLED"], exchanging["TOKEN_X_ENABLED"]) == ("false", "true")
    with pytest.raises(ConfigurationError):
        local.environment("dev-gcp:team-a:nothing")


def test_the_clock() -> None:
    """Runs with the system's, moves, stops, and runs again."""
    clock = Clock()
    assert abs(clock.now - time.time()) < 60
    clock.advance(3600)
    assert clock.now - time.time() > 3500
    clock.set(1000.0)
    clock.advance(-1)
    assert clock() == clock.now == 999.0
    clock.freeze()
    assert clock() == 999.0
    clock.reset()
    assert abs(clock.now - time.time()) < 60


class Cases(EntraTestCase):
    """Run by `test_unittest`."""

    entra_manifests = (EXAMPLES / "manifests",)
    entra_directory = EXAMPLES / "directory.yaml"

    def setUp(self) -> None:
        """Without calling the base class."""
        self.validator = self.local_entra.validator(APP_B)

    def test_tokens(self) -> None:
        """Good ones and bad ones."""
        assert self.validator.validate(self.entra_token(APP_A, APP_B)).is_app
        with pytest.raises(InvalidToken):
            self.validator.validate(self.entra_token.expired(APP_A, APP_B))

    def test_time(self) -> None:
        """The clock is the validator's."""
        token = self.entra_token(APP_A, APP_B)
        self.entra_clock.advance(7200)
        with pytest.raises(InvalidToken):
            self.validator.validate(token)

    def test_keys(self) -> None:
        """Until the end of the test."""
        self.take_keys_down()
        with pytest.raises(KeysUnavailable):
            self.validator.validate(self.entra_token(APP_A, APP_B))


def test_unittest() -> None:
    """Each test has a local Entra ID of its own."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Cases).run(result)
    assert result.testsRun == 3
    assert result.failures == result.errors == []


# --- claims without a token ---


def test_unverified_claims() -> None:
    """Have the interface of `Claims`, and are visibly something else."""
    claims = testing.claims(oid="user", roles=["reader"], scp="a b", groups=["g"], iss=None, azp="consumer")
    assert type(claims) is UnverifiedClaims
    assert not isinstance(claims, Claims)
    assert repr(claims).startswith("<UnverifiedClaims, for tests only: ")
    assert (claims.roles, claims.scopes, claims.groups) == (("reader",), ("a", "b"), ("g",))
    assert "iss" not in claims
    assert claims.expires_at > time.time()
    assert [name for name in dir(Claims) if not name.startswith("_") and not hasattr(claims, name)] == []
    claims.require(role="reader")
    with pytest.raises(Forbidden):
        claims.require(role="writer")
    with pytest.raises(TypeError):
        pickle.dumps(claims)
    assert testing.claims(appid="old").authorized_party == "old"
    assert testing.claims(iat=None).issued_at is None
    with pytest.raises(TypeError):
        UnverifiedClaims("[]")


def test_names_that_do_not_exist() -> None:
    """Are an AttributeError, as in any module."""
    unknown: Any = testing
    with pytest.raises(AttributeError):
        _ = unknown.nothing
