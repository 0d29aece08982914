"""Clients from npm: @azure/msal-node, openid-client, jose. Skipped where there is no node, or no way to
install them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from entra_fast._native import unverified_claims
from support.idporten import APP as IDPORTEN_APP
from support.idporten import CALLBACK as IDPORTEN_CALLBACK
from support.idporten import PID
from support.local_entra import hex_of, pem_of
from support.node_packages import FOLDER, install_packages

from .conftest import APP_A, APP_B, HYBRID, SCOPE_NOBODY, WEB, Served
from .support import environment, sign_in


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    """The packages of the lock file."""
    install_packages()


def run(entra: Served, command: str, **more: str) -> dict[str, Any]:
    """One command of clients.mjs."""
    key = entra.local.credentials.key(entra.local.registry.find(APP_A))
    own = {
        "JWK": json.dumps(key.private_jwk()),
        "PEM": pem_of(key),
        "X5T_S256": hex_of(key.x5t_s256),
        "NODE_EXTRA_CA_CERTS": str(entra.authority_file),
    }
    done = subprocess.run(
        ["node", "clients.mjs", command],
        cwd=FOLDER,
        env=environment(entra, **{**own, **more}),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result


def test_msal_node_device_code(entra: Served) -> None:
    """Its own spelling of the grant type; it polls until the user has confirmed."""
    result = run(entra, "msal-device-code")
    assert result["username"] == "ada@trygdeetaten.no"
    assert unverified_claims(result["token"])["azpacr"] == "0"


@pytest.mark.parametrize("command", ["openid-client-hybrid", "openid-client-implicit"])
def test_openid_client_front_channel(entra: Served, command: str) -> None:
    """`code id_token` with its `c_hash`, and `id_token` alone, are verified by the client."""
    own = {"CLIENT_ID": entra.client_id(HYBRID), "CLIENT_SECRET": entra.secret(HYBRID)}
    claims = run(entra, command, **own)["claims"]
    assert (claims["aud"], claims["name"]) == (own["CLIENT_ID"], "Ada Lovelace")


def test_msal_node_client_credentials(entra: Served) -> None:
    """A token for the target; a refusal reaches the caller with its AADSTS number."""
    token = run(entra, "msal-client-credentials")["token"]
    assert unverified_claims(token)["azp_name"] == APP_A
    refused = run(entra, "msal-client-credentials", SCOPE=SCOPE_NOBODY)["failed"]
    assert refused["code"] == "invalid_grant"
    assert "501051" in refused["message"]


def test_msal_node_certificate(entra: Served) -> None:
    """A PS256 assertion that names its key by x5t#S256, used twice."""
    result = run(entra, "msal-certificate")
    assert unverified_claims(result["token"])["azpacr"] == "2"
    assert result["renewed"]


def test_msal_node_on_behalf_of(entra: Served) -> None:
    """The user's token becomes one for the target, and MSAL knows the account."""
    result = run(entra, "msal-on-behalf-of", USER_TOKEN=entra.user_token("ada"))
    assert unverified_claims(result["token"])["scp"] == "defaultaccess cases.read"
    assert result["username"] == "ada@trygdeetaten.no"


def test_msal_node_authorization_code(entra: Served) -> None:
    """The login with PKCE, for another application."""
    result = run(entra, "msal-auth-code")
    assert unverified_claims(result["token"])["aud"] == entra.client_id(APP_B)
    assert result["username"] == "ada@trygdeetaten.no"


def test_openid_client_login(entra: Served) -> None:
    """Discovery, login, id token, userinfo and refresh by a certified library."""
    result = run(entra, "openid-client-login")
    assert result["claims"]["preferred_username"] == "ada@trygdeetaten.no"
    assert result["info"]["name"] == "Ada Lovelace"
    assert result["refreshed"]


def test_openid_client_logs_in_at_idporten(entra: Served) -> None:
    """Pushed request, private_key_jwt, `iss` in the callback, ID token, userinfo and refresh."""
    environment = entra.local.providers.idporten.login_proxy_environment(IDPORTEN_APP)
    result = run(
        entra,
        "openid-client-idporten",
        ISSUER=environment["IDPORTEN_ISSUER"],
        CLIENT_ID=environment["IDPORTEN_CLIENT_ID"],
        JWK=environment["IDPORTEN_CLIENT_JWK"],
        REDIRECT_URI=IDPORTEN_CALLBACK,
        AUDIENCE=environment["IDPORTEN_AUDIENCE"],
        USER=PID,
    )
    assert (result["claims"]["pid"], result["claims"]["acr"]) == (PID, "idporten-loa-high")
    assert result["info"]["pid"] == PID
    assert unverified_claims(result["token"])["aud"] == environment["IDPORTEN_AUDIENCE"]
    assert result["logout"].startswith(environment["IDPORTEN_ISSUER"] + "/logout?")


def test_openid_client_private_key(entra: Served) -> None:
    """private_key_jwt, a fresh assertion for each request."""
    assert unverified_claims(run(entra, "openid-client-private-key")["token"])["azpacr"] == "2"


@pytest.mark.parametrize("command", ["azure-identity-secret", "azure-identity-assertion"])
def test_azure_identity(entra: Served, command: str) -> None:
    """Client credentials with a secret and with an assertion, as federated credentials send it."""
    assert unverified_claims(run(entra, command)["token"])["azp_name"] == APP_A
    assert "AADSTS501051" in run(entra, command, SCOPE=SCOPE_NOBODY)["failed"]["message"]


def test_azure_identity_on_behalf_of(entra: Served) -> None:
    """The user's token becomes one for the target."""
    result = run(entra, "azure-identity-on-behalf-of", USER_TOKEN=entra.user_token("ada"))
    assert unverified_claims(result["token"])["aud"] == entra.client_id(APP_B)


def test_the_graph_client_reads_the_local_graph(entra: Served) -> None:
    """microsoft-graph-client over https: selected fields, a cast, pages."""
    exchanged = run(
        entra,
        "msal-on-behalf-of",
        USER_TOKEN=entra.user_token("ada"),
        SCOPE="https://graph.microsoft.com/User.Read",
    )
    result = run(entra, "graph-client", USER_TOKEN=exchanged["token"])
    assert result["me"]["displayName"] == "Ada Lovelace"
    assert result["groups"] == 1


@pytest.fixture(params=["express-openid-connect", "passport-azure-ad"])
def service(request: pytest.FixtureRequest, entra: Served) -> Iterator[str]:
    """A service that signs users in with one of these libraries."""
    environment = {
        **os.environ,
        "ISSUER": entra.issuer,
        "CLIENT_ID": entra.client_id(WEB),
        "CLIENT_SECRET": entra.secret(WEB),
        "NODE_EXTRA_CA_CERTS": str(entra.authority_file),
        "PORT": str(entra.web_ports[1]),
    }
    with subprocess.Popen(
        ["node", "services.mjs", request.param],
        cwd=FOLDER,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield next(line.strip() for line in process.stdout if line.startswith("http"))
        process.terminate()


def test_a_node_service_signs_a_user_in(entra: Served, service: str) -> None:
    """`id_token` and `code id_token`, posted by a form; the library verifies state, nonce and `c_hash`."""
    browser = requests.Session()
    asked = browser.get(service, timeout=20)
    assert asked.url.startswith(entra.base_url)
    page = sign_in(browser, asked.url)
    assert page.url == f"{service}/", page.text
    assert page.json()["user"] == "ada@trygdeetaten.no"


def test_jose_verifies(entra: Served) -> None:
    """jose with its remote key set, though the keys have no `alg`."""
    _, token = entra.local.mint(APP_A, APP_B, "ada")
    assert token is not None
    assert run(entra, "jose-verify", USER_TOKEN=token)["payload"]["NAVident"] == "A100001"
