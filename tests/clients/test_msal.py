"""Microsoft's MSAL for Python: client credentials with secret and certificate, on behalf of,
authorization code.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

import msal
import pytest
import requests

from entra_fast._native import unverified_claims
from support.local_entra import hex_of, pem_of

from .conftest import APP_A, CALLBACK, SCOPE_A, SCOPE_B, SCOPE_NOBODY, Served


def client(entra: Served, credential: Any = None, **options: Any) -> msal.ConfidentialClientApplication:
    options.setdefault("instance_discovery", False)
    return msal.ConfidentialClientApplication(
        entra.client_id(APP_A),
        authority=entra.authority,
        client_credential=credential or entra.secret(APP_A),
        **options,
    )


def certificate_of(entra: Served, *, sha256: bool) -> dict[str, str]:
    """The application's key in the form that MSAL expects: PEM and the thumbprint of its certificate."""
    key = entra.local.credentials.key(entra.local.registry.find(APP_A))
    credential = {"private_key": pem_of(key), "thumbprint": hex_of(key.x5t)}
    return credential | ({"sha256_thumbprint": hex_of(key.x5t_s256)} if sha256 else {})


def test_client_credentials(entra: Served) -> None:
    """A token for the target, and the second one from MSAL's own cache."""
    app = client(entra)
    result = app.acquire_token_for_client([SCOPE_B])
    assert "error" not in result, result
    assert unverified_claims(result["access_token"])["roles"] == ["access_as_application", "read-cases"]
    again = app.acquire_token_for_client([SCOPE_B])
    assert again["token_source"] == "cache"


def test_instance_discovery(entra: Served) -> None:
    """With the provider's own instance discovery endpoint instead of none."""
    app = client(entra, instance_discovery=f"{entra.base_url}/common/discovery/instance")
    assert "access_token" in app.acquire_token_for_client([SCOPE_B])


@pytest.mark.parametrize("sha256", [False, True], ids=["x5t RS256", "x5t#S256 PS256"])
def test_certificates(entra: Served, sha256: bool) -> None:
    """MSAL's certificate assertions are accepted, although it uses one for several requests."""
    app = client(entra, certificate_of(entra, sha256=sha256))
    for scope in (SCOPE_B, SCOPE_A):
        result = app.acquire_token_for_client([scope])
        assert "error" not in result, result
        assert unverified_claims(result["access_token"])["azpacr"] == "2"


def test_refusals(entra: Served) -> None:
    """MSAL passes the error, its AADSTS number and its correlation id to the caller."""
    result = client(entra).acquire_token_for_client([SCOPE_NOBODY])
    assert result["error"] == "invalid_grant"
    assert result["error_codes"] == [501051]
    wrong = client(entra, "wrong").acquire_token_for_client([SCOPE_B])
    assert (wrong["error"], wrong["error_codes"]) == ("invalid_client", [7000215])


def test_on_behalf_of(entra: Served) -> None:
    """The user's token becomes one for the target; MSAL finds it in its cache for that user."""
    app = client(entra)
    token = entra.user_token("ada")
    result = app.acquire_token_on_behalf_of(token, [SCOPE_B])
    assert "error" not in result, result
    claims = unverified_claims(result["access_token"])
    assert claims["scp"] == "defaultaccess cases.read"
    assert result["id_token_claims"]["preferred_username"] == "ada@trygdeetaten.no"
    (account,) = app.get_accounts()
    silent = app.acquire_token_silent([SCOPE_B], account)
    assert silent is not None
    assert silent["token_source"] == "cache"


@pytest.mark.parametrize("scope", ["User.Read", "user.read", "https://graph.microsoft.com/.default"])
def test_microsoft_graph(entra: Served, scope: str) -> None:
    """A token for Graph on behalf of the user works there; MSAL finds it in its cache in any spelling."""
    app = client(entra)
    result = app.acquire_token_on_behalf_of(entra.user_token("ada"), [scope])
    assert "error" not in result, result
    bearer = {"Authorization": f"Bearer {result['access_token']}"}
    me = requests.get(f"{entra.base_url}/v1.0/me", headers=bearer, timeout=10).json()
    assert me["userPrincipalName"] == "ada@trygdeetaten.no"
    (account,) = app.get_accounts()
    silent = app.acquire_token_silent([scope], account)
    assert silent is not None
    assert silent["token_source"] == "cache"


def test_on_behalf_of_a_user_who_is_not_admitted(entra: Served) -> None:
    """AADSTS50105."""
    result = client(entra).acquire_token_on_behalf_of(entra.user_token("ola"), [SCOPE_B])
    assert result["error_codes"] == [50105]


def test_a_claims_challenge_reaches_the_caller(entra: Served) -> None:
    """MSAL passes `claims` and the suberror on."""
    entra.local.faults.add("aadsts", value=50076, count=1)
    result = client(entra).acquire_token_on_behalf_of(entra.user_token("ada"), [SCOPE_B])
    assert result["error_codes"] == [50076]
    assert "access_token" in result["claims"]


def test_authorization_code_and_silent_renewal(entra: Served) -> None:
    """The whole login with PKCE, state and nonce; then another target from the refresh token without the
    user.
    """
    app = client(entra)
    flow = app.initiate_auth_code_flow([SCOPE_A], redirect_uri=CALLBACK, login_hint="ada")
    page = requests.get(flow["auth_uri"], timeout=10)
    assert page.status_code == 200
    assert "Ada Lovelace" in page.text
    url = urllib.parse.urlsplit(flow["auth_uri"])
    form = {**dict(urllib.parse.parse_qsl(url.query)), "username": "ada"}
    # MSAL asks for response_mode=form_post or query; the answer to either is taken from where it is.
    sent = requests.post(flow["auth_uri"].partition("?")[0], data=form, allow_redirects=False, timeout=10)
    answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(sent.headers["Location"]).query))
    result = app.acquire_token_by_auth_code_flow(flow, answer)
    assert "error" not in result, result
    assert result["id_token_claims"]["name"] == "Ada Lovelace"
    (account,) = app.get_accounts()
    assert account["username"] == "ada@trygdeetaten.no"
    silent = app.acquire_token_silent([SCOPE_B], account)
    assert silent is not None
    assert unverified_claims(silent["access_token"])["aud"] == entra.client_id("dev-gcp:team-b:app-b")


def public(entra: Served) -> msal.PublicClientApplication:
    return msal.PublicClientApplication(
        entra.client_id(APP_A), authority=entra.authority, instance_discovery=False
    )


def test_device_code(entra: Served) -> None:
    """Pending until the user has confirmed; then tokens, and others without the user."""
    app = public(entra)
    flow = app.initiate_device_flow([SCOPE_A])
    assert flow["user_code"] in flow["message"], flow
    pending = app.acquire_token_by_device_flow(flow, exit_condition=lambda _: True)
    assert pending["error"] == "authorization_pending"
    entra.enter_device_code(flow["user_code"])
    result = app.acquire_token_by_device_flow(flow)
    assert "error" not in result, result
    assert result["id_token_claims"]["preferred_username"] == "ada@trygdeetaten.no"
    (account,) = app.get_accounts()
    silent = app.acquire_token_silent([SCOPE_B], account)
    assert silent is not None
    assert unverified_claims(silent["access_token"])["aud"] == entra.client_id("dev-gcp:team-b:app-b")


def test_a_declined_device_code(entra: Served) -> None:
    """MSAL stops polling."""
    app = public(entra)
    flow = app.initiate_device_flow([SCOPE_A])
    entra.enter_device_code(flow["user_code"], "cancel")
    assert app.acquire_token_by_device_flow(flow)["error"] == "authorization_declined"


def test_a_claims_challenge_is_answered(entra: Served) -> None:
    """MSAL merges the challenge with the client's capabilities and gets a new token past its cache."""
    app = client(entra, client_capabilities=["cp1"])
    token = entra.user_token("ada")
    first = unverified_claims(app.acquire_token_on_behalf_of(token, [SCOPE_B])["access_token"])
    assert (first.get("acrs"), first["xms_cc"]) == (None, ["cp1"])
    challenge = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    again = app.acquire_token_on_behalf_of(token, [SCOPE_B], claims_challenge=challenge)
    claims = unverified_claims(again["access_token"])
    assert (claims["acrs"], claims["xms_cc"]) == (["c1"], ["cp1"])


def test_throttling(entra: Served) -> None:
    """MSAL honours Retry-After: the next attempt does not reach the provider."""
    app = client(entra)
    entra.local.faults.add("throttle", value=30)
    first = app.acquire_token_for_client([SCOPE_B])
    assert first["error_codes"] == [90055]
    entra.local.faults.clear()
    assert "error" in app.acquire_token_for_client([SCOPE_B])
