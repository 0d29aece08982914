"""A provider that was not written here: NAV's mock-oauth2-server, with this project's sidecar and library.

Skipped where there is no Java or Maven, or no way to fetch it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from entra_fast._settings.load import Settings
from entra_fast.errors import InvalidToken
from entra_fast.sidecar.process.running import start_sidecar
from entra_fast.validate import Validator
from support.sidecars import eventually
from support.wire import Caller

POM = Path(__file__).parent / "java" / "pom.xml"
CLIENT_ID = "7f3c1f6e-4a39-4d0a-9a52-7d4f5f0c2b11"
CONFIGURATION = {
    "interactiveLogin": False,
    "tokenCallbacks": [
        {
            "issuerId": "azuread",
            "requestMappings": [
                {
                    "requestParam": "grant_type",
                    "match": "*",
                    "claims": {"aud": [CLIENT_ID], "azp_name": "dev-gcp:team:app", "sub": "${clientId}"},
                }
            ],
        }
    ],
}


def class_path(folder: Path) -> str:
    """The server and its dependencies, fetched by Maven once."""
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        pytest.skip("Java or Maven is not installed")
    found = folder / "class-path"
    goal = ["dependency:build-classpath", f"-Dmdep.outputFile={found}"]
    try:
        command = [maven, "-q", "-B", "-f", str(POM), *goal]
        done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("mock-oauth2-server could not be fetched in time")
    if done.returncode != 0:
        pytest.skip("mock-oauth2-server could not be fetched: no way to a package registry")
    return found.read_text().strip()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's issuer `azuread`, as a URL."""
    jars = class_path(tmp_path_factory.mktemp("java"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "SERVER_PORT": str(port),
        "SERVER_HOSTNAME": "127.0.0.1",
        "JSON_CONFIG": json.dumps(CONFIGURATION),
    }
    main = "no.nav.security.mock.oauth2.StandaloneMockOAuth2ServerKt"
    with subprocess.Popen(
        ["java", "-cp", jars, main], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        base = f"http://127.0.0.1:{port}/azuread"
        try:
            _until_up(process, f"{base}/.well-known/openid-configuration")
            yield base
        finally:
            process.terminate()


def _until_up(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "mock-oauth2-server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("mock-oauth2-server did not start")


@pytest_asyncio.fixture
async def sidecar(issuer: str) -> AsyncIterator[Caller]:
    """A sidecar that is configured only with the discovery document."""
    settings = Settings.from_environment(
        {
            "BIND_ADDRESS": "127.0.0.1:0",
            "AZURE_APP_CLIENT_ID": CLIENT_ID,
            "AZURE_APP_TENANT_ID": "azuread",
            "AZURE_APP_CLIENT_SECRET": "some secret",
            "AZURE_APP_WELL_KNOWN_URL": f"{issuer}/.well-known/openid-configuration",
        }
    )
    running = await start_sidecar(settings)
    caller = Caller(running.address)

    async def ready() -> bool:
        return (await caller.get("/readyz")).status == 200

    await eventually(ready)
    yield caller
    await running.stop()


async def test_the_sidecar_acquires_exchanges_and_introspects(sidecar: Caller) -> None:
    """Discovery, client credentials, on behalf of, and introspection, at a provider of another kind."""
    answer = await sidecar.token("api://dev-gcp.team.app/.default")
    assert answer.status == 200, answer.body
    token = answer.json["access_token"]
    introspected = (await sidecar.introspect(token)).json
    assert introspected["active"] is True
    assert introspected["azp_name"] == "dev-gcp:team:app"
    exchanged = await sidecar.exchange(token, "api://dev-gcp.team.other/.default")
    assert exchanged.status == 200, exchanged.body
    assert (await sidecar.introspect(exchanged.json["access_token"])).json["active"] is True
    tampered = (await sidecar.introspect(token[:-8] + "AAAAAAAA")).json
    assert tampered == {"active": False, "error": "token signature is invalid"}


async def test_the_library_validates_its_tokens(sidecar: Caller, issuer: str) -> None:
    """The validator finds issuer and keys by discovery, and refuses a token for another audience."""
    token = (await sidecar.token("api://dev-gcp.team.app/.default")).json["access_token"]
    url = f"{issuer}/.well-known/openid-configuration"
    with Validator.from_discovery(url, CLIENT_ID) as validator:
        assert validator.validate(token)["iss"] == issuer
    with Validator.from_discovery(url, "somebody else") as validator:
        with pytest.raises(InvalidToken) as refused:
            validator.validate(token)
        assert refused.value.code == "wrong_audience"
