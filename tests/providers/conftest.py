"""A sidecar with all built-in providers, as NAIS configures it, and a generic one; mock-oauth2-server is all
of them.

Sidecars are processes of their own: with and without the fast path, and with workers. mock-oauth2-server is
an issuer for each path. It checks grants and assertions, enforces no policy, and copies what it was sent into
tokens, so that tests see what reached it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.parse
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from support.keys import Key
from support.mock_oauth2_server import mock_oauth2_server
from support.process import PROGRAM, START_LIMIT, inherited

ENTRA_CLIENT = "7f3c1f6e-4a39-4d0a-9a52-7d4f5f0c2b11"
MASKINPORTEN_CLIENT = "0b9f5a2c-6a2e-4a0f-8f3b-6d5f7a1c9e10"
APPLICATION = "dev-gcp:team:app"
"""The application that the sidecar belongs to: its client id at TokenX."""
SCOPE = "nav:helse/sykepenger/afp.read"
PROVIDERS = ("entra_id", "maskinporten", "tokenx", "idporten", "ansattporten")
GENERIC, GENERIC_AUDIENCE = "partner", "https://app.example"
"""A provider that only the settings describe."""
CONFIGURATION = {
    "interactiveLogin": False,
    "tokenCallbacks": [
        {
            "issuerId": "entra_id",
            "requestMappings": [
                {
                    "requestParam": "grant_type",
                    "match": "*",
                    # So that its own sidecar can introspect a token.
                    "claims": {"aud": [ENTRA_CLIENT], "asked": "${scope}", "azp_name": APPLICATION},
                }
            ],
        }
    ],
}
MODES = {
    "fast path": {"ENTRA_FAST_FAST_PATH": "true"},
    "slow path": {"ENTRA_FAST_FAST_PATH": "false"},
    "workers": {"ENTRA_FAST_WORKERS": "2"},
}
JSON, FORM = "json", "form"
TOKEN, EXCHANGE, INTROSPECT = "token", "token/exchange", "introspect"


@dataclass
class Sidecar:
    """A running `entra-fast serve`."""

    address: str
    probes: str
    lines: list[str] = field(default_factory=list)

    def call(self, endpoint: str, encoding: str = JSON, /, **fields: object) -> requests.Response:
        """Call one of the three endpoints. In a form, values that are no text are written as JSON."""
        url = f"http://{self.address}/api/v1/{endpoint}"
        if encoding == JSON:
            return requests.post(url, json=fields, timeout=30)
        texts = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()
        }
        return requests.post(url, data=texts, timeout=30)

    def acquired(self, endpoint: str, encoding: str = JSON, /, **fields: object) -> str:
        """The token of a response that must have one, in the form that is documented."""
        answer = self.call(endpoint, encoding, **fields)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["Cache-Control"] == "no-store"
        content = answer.json()
        assert set(content) == {"access_token", "expires_in", "token_type"}
        assert content["token_type"] == "Bearer"
        assert isinstance(content["expires_in"], int)
        assert 0 < content["expires_in"] <= 3600
        return str(content["access_token"])

    def introspected(self, provider: str, token: str, encoding: str = JSON) -> dict[str, Any]:
        """The content of an introspection response, which is always 200."""
        answer = self.call(INTROSPECT, encoding, identity_provider=provider, token=token)
        assert answer.status_code == 200
        content: dict[str, Any] = answer.json()
        return content

    def probe(self, path: str) -> requests.Response:
        return requests.get(f"http://{self.probes}{path}", timeout=30)


@contextmanager
def serving(environ: Mapping[str, str]) -> Iterator[Sidecar]:
    """A sidecar with exactly these settings, once it is ready; it must end well."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "serve"],
        env={**inherited(), "ENTRA_FAST_SETTINGS_DIRECTORY": "/", **environ},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        kill = threading.Timer(START_LIMIT, process.kill)
        kill.start()
        lines: list[str] = []
        listening = None
        for line in process.stderr:
            lines.append(line)
            if '"listening"' in line:
                listening = json.loads(line)
                break
        kill.cancel()
        assert listening is not None, lines
        reading = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reading.start()
        sidecar = Sidecar(listening["address"], listening["probes"], lines)
        try:
            _until_ready(sidecar)
            yield sidecar
        finally:
            process.terminate()
            process.wait(30)
            reading.join(30)
    assert process.returncode == 0, lines


def _until_ready(sidecar: Sidecar) -> None:
    for _ in range(300):
        answer = sidecar.probe("/readyz")
        if answer.status_code == 200:
            return
        threading.Event().wait(0.1)
    raise AssertionError(answer.text)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """mock-oauth2-server's URL."""
    with mock_oauth2_server(tmp_path_factory.mktemp("java"), CONFIGURATION) as base:
        yield base


@pytest.fixture(scope="session")
def keys() -> dict[str, Key]:
    """The private keys of the application, one for each provider that knows it by one."""
    return {name: Key.generate() for name in ("entra_id", "maskinporten", "tokenx")}


@pytest.fixture(scope="session")
def settings(server: str, keys: dict[str, Key]) -> dict[str, str]:
    """What NAIS injects for an application that uses all of them, and a generic provider."""
    environ = {
        "BIND_ADDRESS": "127.0.0.1:0",
        "PROBE_BIND_ADDRESS": "127.0.0.1:0",
        "ENTRA_FAST_DRAIN_DELAY_MILLIS": "0",
        "AZURE_ENABLED": "true",
        "AZURE_APP_CLIENT_ID": ENTRA_CLIENT,
        "AZURE_APP_TENANT_ID": "62366534-1ec3-4962-8869-9b5535279d0b",
        "AZURE_APP_JWK": keys["entra_id"].private_jwk(),
        "AZURE_APP_WELL_KNOWN_URL": f"{server}/entra_id/.well-known/openid-configuration",
        "AZURE_OPENID_CONFIG_ISSUER": f"{server}/entra_id",
        "AZURE_OPENID_CONFIG_JWKS_URI": f"{server}/entra_id/jwks",
        "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": f"{server}/entra_id/token",
        "MASKINPORTEN_CLIENT_ID": MASKINPORTEN_CLIENT,
        "MASKINPORTEN_CLIENT_JWK": keys["maskinporten"].private_jwk(),
        "MASKINPORTEN_SCOPES": SCOPE,
        "TOKEN_X_CLIENT_ID": APPLICATION,
        "TOKEN_X_PRIVATE_JWK": keys["tokenx"].private_jwk(),
        "IDPORTEN_AUDIENCE": "default",
        "ANSATTPORTEN_AUDIENCE": "default",
        "ENTRA_FAST_PROVIDERS": GENERIC,
        "ENTRA_FAST_PROVIDER_PARTNER_ISSUER": f"{server}/{GENERIC}",
        "ENTRA_FAST_PROVIDER_PARTNER_CLIENT_ID": "partner-client",
        "ENTRA_FAST_PROVIDER_PARTNER_JWK": keys["tokenx"].private_jwk(),
        "ENTRA_FAST_PROVIDER_PARTNER_AUDIENCE": GENERIC_AUDIENCE,
        "ENTRA_FAST_PROVIDER_PARTNER_TOKEN_GRANT": "client_credentials",
        "ENTRA_FAST_PROVIDER_PARTNER_EXCHANGE_GRANT": "token_exchange",
    }
    for prefix, name in (
        ("MASKINPORTEN", "maskinporten"),
        ("TOKEN_X", "tokenx"),
        ("IDPORTEN", "idporten"),
        ("ANSATTPORTEN", "ansattporten"),
    ):
        base = f"{server}/{name}"
        environ |= {
            f"{prefix}_ENABLED": "true",
            f"{prefix}_WELL_KNOWN_URL": f"{base}/.well-known/oauth-authorization-server",
            f"{prefix}_ISSUER": base,
            f"{prefix}_JWKS_URI": f"{base}/jwks",
            f"{prefix}_TOKEN_ENDPOINT": f"{base}/token",
        }
    del environ["IDPORTEN_TOKEN_ENDPOINT"], environ["ANSATTPORTEN_TOKEN_ENDPOINT"]
    return environ


@pytest.fixture(scope="session", params=MODES)
def sidecar(request: pytest.FixtureRequest, settings: dict[str, str]) -> Iterator[Sidecar]:
    """A sidecar with all providers, in each mode."""
    with serving(settings | MODES[request.param]) as running:
        yield running


def signed_in(server: str, issuer: str, **claims: str) -> str:
    """The access token of a user who has signed in at an issuer: a real authorization code, redeemed."""
    client = {"client_id": "wonderwall", "redirect_uri": "http://127.0.0.1/callback"}
    asked = {**client, "response_type": "code", "scope": "openid", "state": "s", "nonce": os.urandom(8).hex()}
    page = requests.get(f"{server}/{issuer}/authorize", asked, allow_redirects=False, timeout=30)
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(page.headers["Location"]).query)["code"][0]
    form = {**client, "grant_type": "authorization_code", "code": code, "client_secret": "secret", **claims}
    answer = requests.post(f"{server}/{issuer}/token", form, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture
def citizen(server: str) -> str:
    """The token of a user who has signed in at ID-porten."""
    return signed_in(server, "idporten")


@pytest.fixture
def employee(server: str) -> str:
    """The token of a user who has signed in at Entra ID."""
    return signed_in(server, "entra_id")


def payload(token: str) -> bytes:
    """The claims of a token, byte for byte."""
    part = token.split(".")[1]
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
