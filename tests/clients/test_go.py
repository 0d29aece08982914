"""Clients from Go: MSAL, azidentity, go-oidc. Skipped where there is no Go, or no way to fetch modules."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from entra_fast._native import unverified_claims
from support.local_entra import pem_of

from .conftest import APP_A, APP_B, SCOPE_NOBODY, Served
from .support import environment, fetching

FOLDER = Path(__file__).parent / "go"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clients, built once."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed")
    built = tmp_path_factory.mktemp("go") / "clients"
    with fetching("the Go modules"):
        subprocess.run(
            [go, "build", "-o", built, "."], cwd=FOLDER, capture_output=True, timeout=900, check=True
        )
    return built


def go_environment(entra: Served, **more: str) -> dict[str, str]:
    application = entra.local.registry.find(APP_A)
    pem = pem_of(entra.local.credentials.key(application))
    own = {"PEM_WITH_CERTIFICATE": pem, "SSL_CERT_FILE": str(entra.authority_file)}
    return environment(entra, **{**own, **more})


def run(program: Path, entra: Served, command: str, **more: str) -> dict[str, Any]:
    """One command of main.go."""
    done = subprocess.run(
        [program, command], env=go_environment(entra, **more), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result


def succeed(program: Path, entra: Served, command: str, **more: str) -> dict[str, Any]:
    """The result of a command that must not fail."""
    result = run(program, entra, command, **more)
    assert "failed" not in result, result
    return result


@pytest.mark.parametrize("client", ["msal-client-credentials", "azidentity-secret", "azidentity-assertion"])
def test_an_application_gets_its_token(program: Path, entra: Served, client: str) -> None:
    """Client credentials with a secret and an assertion; a refusal reaches the caller with its number."""
    result = succeed(program, entra, client)
    assert unverified_claims(result["token"])["azp_name"] == APP_A
    assert result.get("cached", True)
    assert "AADSTS501051" in run(program, entra, client, SCOPE=SCOPE_NOBODY)["failed"]["message"]


@pytest.mark.parametrize("client", ["msal-on-behalf-of", "azidentity-on-behalf-of"])
def test_an_application_acts_on_behalf_of_a_user(program: Path, entra: Served, client: str) -> None:
    """The user's token is exchanged for one of the target."""
    result = succeed(program, entra, client, USER_TOKEN=entra.user_token("ada"))
    claims = unverified_claims(result["token"])
    assert (claims["aud"], claims["preferred_username"]) == (entra.client_id(APP_B), "ada@trygdeetaten.no")


def test_msal_logs_in_and_stays_logged_in(program: Path, entra: Served) -> None:
    """Authorization code with PKCE; MSAL for Go compares the scopes in the answer with those it asked for."""
    result = succeed(program, entra, "msal-auth-code")
    assert result["username"] == "ada@trygdeetaten.no"
    assert result["silent"] is True
    assert not result["declined"]


def test_go_oidc_logs_in_and_verifies(program: Path, entra: Served) -> None:
    """Discovery, PKCE, nonce, ID token, userinfo, refresh; and a verifier for an API's tokens."""
    result = succeed(program, entra, "oidc-login")
    assert result["email"] == "ada@trygdeetaten.no"
    assert all(result[name] for name in ("state", "nonce", "refreshed"))
    _, token = entra.local.mint(APP_A, APP_B, "ada")
    assert token is not None
    assert succeed(program, entra, "oidc-verify", USER_TOKEN=token)["issuer"] == entra.issuer
    other = run(program, entra, "oidc-verify", USER_TOKEN=entra.user_token("ada"))
    assert "audience" in other["failed"]["message"]


def test_msal_polls_for_a_device(program: Path, entra: Served) -> None:
    """The user enters the code on the page, and the waiting client gets the token."""
    with subprocess.Popen(
        [program, "msal-device-code"],
        env=go_environment(entra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        url, code = process.stderr.readline().split()
        assert url == f"{entra.base_url}/devicelogin"
        entra.enter_device_code(code)
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(out)["username"] == "ada@trygdeetaten.no"
