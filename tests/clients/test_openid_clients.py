"""OpenID Connect libraries: Authlib logs in, PyJWT and joserfc verify."""

from __future__ import annotations

import json
import time
import urllib.parse

import joserfc.errors
import joserfc.jwk
import joserfc.jwt
import jwt
import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from authlib.oidc.core import HybridIDToken

from entra_fast._native import unverified_claims
from support.idporten import APP as IDPORTEN_APP
from support.idporten import CALLBACK as IDPORTEN_CALLBACK
from support.idporten import PID
from support.pages import Form

from .conftest import APP_A, APP_B, CALLBACK, HYBRID, SCOPE_B, Served


def discovery(entra: Served) -> dict[str, str]:
    document: dict[str, str] = requests.get(
        f"{entra.issuer}/.well-known/openid-configuration", timeout=10
    ).json()
    return document


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
def test_authlib_logs_in(entra: Served, method: str) -> None:
    """Discovery, login with PKCE, tokens, userinfo with a login for no application, refresh."""
    endpoints = discovery(entra)
    session = OAuth2Session(
        entra.client_id(APP_A),
        entra.secret(APP_A),
        scope="openid profile email offline_access",
        redirect_uri=CALLBACK,
        code_challenge_method="S256",
        token_endpoint_auth_method=method,
    )
    verifier = "a" * 48
    url, state = session.create_authorization_url(
        endpoints["authorization_endpoint"], code_verifier=verifier, nonce="n-1"
    )
    form = {**dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)), "username": "kari"}
    answer = requests.post(endpoints["authorization_endpoint"], data=form, allow_redirects=False, timeout=10)
    token = session.fetch_token(
        endpoints["token_endpoint"],
        authorization_response=answer.headers["Location"],
        code_verifier=verifier,
        state=state,
    )
    keys = joserfc.jwk.KeySet.import_key_set(requests.get(endpoints["jwks_uri"], timeout=10).json())
    claims = joserfc.jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["nonce"], claims["aud"], claims["iss"]) == ("n-1", entra.client_id(APP_A), entra.issuer)
    assert session.get(endpoints["userinfo_endpoint"]).json()["email"] == "kari@trygdeetaten.no"
    fresh = session.refresh_token(endpoints["token_endpoint"])
    assert fresh["access_token"] != token["access_token"]


def test_authlib_verifies_a_hybrid_response(entra: Served) -> None:
    """`code id_token`: Authlib checks `c_hash` and the nonce of the ID token in the fragment, and redeems the
    code.
    """
    endpoints = discovery(entra)
    assert "code id_token" in endpoints["response_types_supported"]
    session = OAuth2Session(
        entra.client_id(HYBRID), entra.secret(HYBRID), scope="openid profile", redirect_uri=CALLBACK
    )
    url, state = session.create_authorization_url(
        endpoints["authorization_endpoint"], response_type="code id_token", nonce="n-1"
    )
    form = {**dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)), "username": "kari"}
    answer = requests.post(endpoints["authorization_endpoint"], data=form, allow_redirects=False, timeout=10)
    location = urllib.parse.urlsplit(answer.headers["Location"])
    parts = dict(urllib.parse.parse_qsl(location.fragment))
    assert parts["state"] == state
    keys = joserfc.jwk.KeySet.import_key_set(requests.get(endpoints["jwks_uri"], timeout=10).json())
    token = joserfc.jwt.decode(parts["id_token"], keys, algorithms=["RS256"])
    expected = {"iss": {"value": entra.issuer}, "aud": {"value": entra.client_id(HYBRID)}}
    parameters = {"nonce": "n-1", "client_id": entra.client_id(HYBRID), "code": parts["code"]}
    HybridIDToken(token.claims, token.header, expected, parameters).validate()
    wrong = HybridIDToken(token.claims, token.header, expected, parameters | {"code": "another"})
    with pytest.raises(joserfc.errors.InvalidClaimError):
        wrong.validate()
    answered = f"{CALLBACK}?{location.fragment}"
    tokens = session.fetch_token(endpoints["token_endpoint"], authorization_response=answered, state=state)
    assert "c_hash" not in unverified_claims(tokens["id_token"])


def test_authlib_with_a_private_key(entra: Served) -> None:
    """private_key_jwt with the key that NAIS would inject."""
    from authlib.oauth2.rfc7523 import PrivateKeyJWT

    environment = entra.running.environment(APP_A)
    endpoint = environment["AZURE_OPENID_CONFIG_TOKEN_ENDPOINT"]
    key = joserfc.jwk.RSAKey.import_key(json.loads(environment["AZURE_APP_JWK"]))
    session = OAuth2Session(
        entra.client_id(APP_A),
        key,
        token_endpoint_auth_method=PrivateKeyJWT(endpoint, headers={"kid": key.kid}),
    )
    token = session.fetch_token(endpoint, grant_type="client_credentials", scope=SCOPE_B)
    assert unverified_claims(token["access_token"])["azpacr"] == "2"


@pytest.mark.parametrize("path", ["tenant", "common"])
def test_pyjwt_verifies(entra: Served, path: str) -> None:
    """PyJWT's key-set client finds the key in the tenant's and in the shared key set; planned rotation
    included.
    """
    base = entra.authority if path == "tenant" else f"{entra.base_url}/common"
    client = jwt.PyJWKClient(f"{base}/discovery/v2.0/keys")
    for _ in range(2):
        _, token = entra.local.mint(APP_A, APP_B)
        assert token is not None
        key = client.get_signing_key_from_jwt(token)
        claims = jwt.decode(
            token, key.key, algorithms=["RS256"], audience=entra.client_id(APP_B), issuer=entra.issuer
        )
        assert claims["azp_name"] == APP_A
        entra.local.rotate_keys()


def test_the_login_scope_of_wonderwall(entra: Served) -> None:
    """NAIS's login proxy asks for `openid offline_access <client id>/.default` and expects `sid` in the
    id token.
    """
    scope = f"openid offline_access {entra.client_id(APP_A)}/.default"
    session = OAuth2Session(entra.client_id(APP_A), entra.secret(APP_A), scope=scope, redirect_uri=CALLBACK)
    endpoints = discovery(entra)
    url, _ = session.create_authorization_url(endpoints["authorization_endpoint"], response_mode="query")
    form = {**dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)), "username": "ada"}
    answer = requests.post(endpoints["authorization_endpoint"], data=form, allow_redirects=False, timeout=10)
    token = session.fetch_token(
        endpoints["token_endpoint"], authorization_response=answer.headers["Location"]
    )
    claims = unverified_claims(token["id_token"])
    assert claims["sid"]
    assert unverified_claims(token["access_token"])["aud"] == entra.client_id(APP_A)


def test_authlib_logs_in_at_idporten(entra: Served) -> None:
    """Discovery, login with PKCE, private_key_jwt, userinfo and refresh; joserfc verifies the ID token."""
    environment = entra.local.providers.idporten.login_proxy_environment(IDPORTEN_APP)
    endpoints = requests.get(environment["IDPORTEN_WELL_KNOWN_URL"], timeout=10).json()
    session = OAuth2Session(
        environment["IDPORTEN_CLIENT_ID"],
        json.loads(environment["IDPORTEN_CLIENT_JWK"]),
        scope="openid profile",
        redirect_uri=IDPORTEN_CALLBACK,
        code_challenge_method="S256",
        token_endpoint_auth_method="private_key_jwt",
    )
    headers = {"kid": json.loads(environment["IDPORTEN_CLIENT_JWK"])["kid"]}

    def authenticate() -> None:
        # Without this Authlib's assertions live for an hour, and ID-porten accepts two minutes. Authlib keeps
        # other claims in the same dict, `jti` among them.
        short = {"exp": int(time.time()) + 60}
        session.register_client_auth_method(
            PrivateKeyJWT(endpoints["token_endpoint"], claims=short, headers=headers)
        )

    authenticate()
    verifier = "a" * 48
    url, state = session.create_authorization_url(
        endpoints["authorization_endpoint"],
        code_verifier=verifier,
        nonce="n-1",
        acr_values="idporten-loa-substantial",
        resource=environment["IDPORTEN_AUDIENCE"],
    )
    browser = requests.Session()
    page = browser.get(url, timeout=10)
    form = {**Form(page.text).hidden, "level": "idporten-loa-high", "pid": PID}
    answer = browser.post(f"{entra.base_url}/idporten/login", data=form, allow_redirects=False, timeout=10)
    token = session.fetch_token(
        endpoints["token_endpoint"],
        authorization_response=answer.headers["Location"],
        code_verifier=verifier,
        state=state,
    )
    keys = joserfc.jwk.KeySet.import_key_set(requests.get(endpoints["jwks_uri"], timeout=10).json())
    claims = joserfc.jwt.decode(token["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["nonce"], claims["pid"], claims["acr"]) == ("n-1", PID, "idporten-loa-high")
    assert session.get(endpoints["userinfo_endpoint"]).json()["pid"] == PID
    authenticate()
    fresh = session.refresh_token(endpoints["token_endpoint"])
    assert unverified_claims(fresh["access_token"])["aud"] == environment["IDPORTEN_AUDIENCE"]
