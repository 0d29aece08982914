"""Clients from Java: MSAL4J, Spring Security, token-validation. Skipped where there is no JDK or Maven, or no
way to fetch the libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from entra_fast._native import unverified_claims

from .conftest import APP_A, APP_B, SCOPE_NOBODY, WEB, Served
from .support import environment, fetching, sign_in, until_it_answers

FOLDER = Path(__file__).parent / "java"
START_SECONDS = 90


@dataclass(frozen=True)
class Program:
    """The compiled clients, with the libraries beside them and the provider's authority trusted."""

    class_path: str
    trust_store: Path

    def command(self, name: str, *arguments: str) -> list[str]:
        trust = [
            f"-Djavax.net.ssl.trustStore={self.trust_store}",
            "-Djavax.net.ssl.trustStorePassword=changeit",
        ]
        return ["java", "-XX:TieredStopAtLevel=1", *trust, "-cp", self.class_path, name, *arguments]


@pytest.fixture(scope="session")
def program(entra: Served, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The clients, compiled once."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("javac") is None:
        pytest.skip("a JDK or Maven is not installed")
    folder = tmp_path_factory.mktemp("java")
    listed, classes, trust_store = folder / "class-path", folder / "classes", folder / "trust.p12"
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={listed}"]
    fetch = [maven, "-q", "-B", "-f", str(FOLDER / "clients.xml"), *goal]
    with fetching("the libraries"):
        subprocess.run(fetch, capture_output=True, timeout=600, check=True)
    class_path = os.pathsep.join([str(classes), listed.read_text().strip()])
    sources = sorted((FOLDER / "src").rglob("*.java"))
    subprocess.run(
        ["javac", "-parameters", "-d", classes, "-cp", class_path, *sources], timeout=300, check=True
    )
    trusted = ["-importcert", "-noprompt", "-alias", "local", "-file", str(entra.authority_file)]
    store = ["-keystore", str(trust_store), "-storetype", "PKCS12", "-storepass", "changeit"]
    subprocess.run(["keytool", *trusted, *store], timeout=60, check=True, capture_output=True)
    return Program(class_path, trust_store)


def run(program: Program, entra: Served, command: str, **more: str) -> dict[str, Any]:
    """One command of Clients.java."""
    done = subprocess.run(
        program.command("clients.Clients", command),
        env=environment(entra, **more),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result


def succeed(program: Program, entra: Served, command: str, **more: str) -> dict[str, Any]:
    """The result of a command that must not fail."""
    result = run(program, entra, command, **more)
    assert "failed" not in result, result
    return result


def api_token(entra: Served, user: str = "ada") -> str:
    _, token = entra.local.mint(APP_A, APP_B, user)
    assert token is not None
    return token


def test_msal4j_client_credentials(program: Program, entra: Served) -> None:
    """A token for the target, cached; a refusal reaches the caller with its AADSTS number."""
    result = succeed(program, entra, "msal-client-credentials")
    assert unverified_claims(result["token"])["azp_name"] == APP_A

    refused = run(program, entra, "msal-client-credentials", SCOPE=SCOPE_NOBODY)
    assert "AADSTS501051" in refused["failed"]["message"]


def test_msal4j_on_behalf_of(program: Program, entra: Served) -> None:
    """The user's token becomes one for the target, and MSAL knows the account."""
    result = succeed(program, entra, "msal-on-behalf-of", USER_TOKEN=entra.user_token("ada"))
    assert unverified_claims(result["token"])["aud"] == entra.client_id(APP_B)
    assert result["username"] == "ada@trygdeetaten.no"


def test_msal4j_logs_in(program: Program, entra: Served) -> None:
    """Authorization code, then silently from the cache."""
    result = succeed(program, entra, "msal-auth-code")
    assert (result["username"], result["silent"]) == ("ada@trygdeetaten.no", True)


def test_msal4j_polls_for_a_device(program: Program, entra: Served) -> None:
    """The user enters the code on the page, and the waiting client gets the token."""
    with subprocess.Popen(
        program.command("clients.Clients", "msal-device-code"),
        env=environment(entra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        # Libraries write lines of their own first.
        address = next(line for line in process.stderr if line.startswith(entra.base_url))
        entra.enter_device_code(address.split()[1])
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(out.splitlines()[-1])["username"] == "ada@trygdeetaten.no"


def test_spring_security_and_token_validation_verify(program: Program, entra: Served) -> None:
    """By the issuer's URL alone; a token for another API is not valid."""
    decoded = succeed(program, entra, "spring-verify", USER_TOKEN=api_token(entra))
    assert decoded == {"issuer": entra.issuer, "audience": [entra.client_id(APP_B)]}
    assert succeed(program, entra, "token-validation", USER_TOKEN=api_token(entra))["valid"] is True
    other = succeed(program, entra, "token-validation", USER_TOKEN=entra.user_token("ada"))
    assert other["valid"] is False


@pytest.fixture(scope="session")
def service(program: Program, entra: Served) -> Iterator[str]:
    """The Spring Boot service, as its documentation configures it: issuer, audience, client."""
    port = entra.web_ports[0]
    process = subprocess.Popen(
        program.command(
            "clients.SpringService",
            f"--server.port={port}",
            "--server.address=127.0.0.1",
            f"--spring.security.oauth2.resourceserver.jwt.issuer-uri={entra.issuer}",
            f"--spring.security.oauth2.resourceserver.jwt.audiences={entra.client_id(APP_B)}",
            f"--spring.security.oauth2.client.provider.entra.issuer-uri={entra.issuer}",
            "--spring.security.oauth2.client.provider.entra.user-name-attribute=preferred_username",
            f"--spring.security.oauth2.client.registration.entra.client-id={entra.client_id(WEB)}",
            f"--spring.security.oauth2.client.registration.entra.client-secret={entra.secret(WEB)}",
            "--spring.security.oauth2.client.registration.entra.scope=openid,profile,email",
            f"--spring.security.oauth2.client.registration.entra.redirect-uri=http://localhost:{port}/login/oauth2/code/entra",
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until_it_answers(process, f"http://127.0.0.1:{port}/api", START_SECONDS)
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_a_spring_resource_server_takes_our_tokens(service: str, entra: Served) -> None:
    """Valid and sufficient, for another audience, without a token."""
    token = {"Authorization": f"Bearer {api_token(entra)}"}
    assert requests.get(f"{service}/api", headers=token, timeout=20).json() == {"user": "ada@trygdeetaten.no"}
    other = {"Authorization": f"Bearer {entra.user_token('ada')}"}
    assert requests.get(f"{service}/api", headers=other, timeout=20).status_code == 401
    assert requests.get(f"{service}/api", timeout=20).status_code == 401


def test_spring_security_logs_in(service: str, entra: Served) -> None:
    """Discovery, redirect, code, ID token with its nonce: a page for the user."""
    browser = requests.Session()
    asked = browser.get(f"{service}/", timeout=20)
    assert asked.url.startswith(entra.base_url)
    page = sign_in(browser, asked.url)
    assert page.ok, page.url
    assert page.json() == {"user": "ada@trygdeetaten.no", "email": "ada@trygdeetaten.no"}
