"""What tokens and documents say: Entra's claims, key set and discovery, verified by a validator not
written here.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jwt
import pytest

from entra_fast._native import unverified_header
from entra_fast.errors import ConfigurationError, InvalidToken
from entra_fast.validate import AsyncValidator, Validator
from support.local_entra import Caller, Clock, local_entra, manifest, served, signing_keys

from .conftest import CALLBACK, DIRECTORY, GROUP_B, MANIFESTS

COMMON = {
    "aud",
    "iss",
    "iat",
    "nbf",
    "exp",
    "aio",
    "azp",
    "azp_name",
    "azpacr",
    "oid",
    "rh",
    "sub",
    "tid",
    "uti",
    "ver",
}


async def test_scopes_come_back_as_they_were_spelled(entra: Caller) -> None:
    """In upper or lower case, as MSAL for Go expects; the token has them as the manifest does."""
    token = await entra.user_token("app-a", "ada")
    wanted = "api://dev-gcp.team.app-b/Custom.Scope"
    answer = await entra.obo("app-a", "app-b", token, scope=wanted)
    assert wanted in answer.json["scope"].split()
    assert answer.claims["scp"] == "defaultaccess custom.scope"


async def test_machine_to_machine_claims(entra: Caller, clock: Clock) -> None:
    """Exactly the claims of Entra's application tokens."""
    claims = (await entra.m2m("app-a", "app-b")).claims
    consumer = entra.local.registry.find("dev-gcp:team:app-a")
    assert set(claims) == COMMON | {"idtyp", "roles"}
    assert claims["idtyp"] == "app"
    assert claims["oid"] == claims["sub"] == consumer.object_id
    assert claims["azp"] == consumer.client_id
    assert claims["azpacr"] == "1"
    assert claims["ver"] == "2.0"
    assert claims["iss"] == f"{entra.base_url}/{consumer.tenant_id}/v2.0"
    assert claims["tid"] == consumer.tenant_id
    assert claims["nbf"] == claims["iat"]
    assert 3600 <= claims["exp"] - clock.now <= 5400


async def test_on_behalf_of_claims(entra: Caller) -> None:
    """Exactly the claims of Entra's user tokens; the subject is pairwise."""
    token = await entra.user_token("app-a", "ada")
    claims = (await entra.obo("app-a", "app-b", token)).claims
    assert set(claims) == COMMON | {"groups", "scp", "name", "preferred_username", "NAVident", "sid"}
    assert claims["NAVident"] == "A100001"
    assert claims["sub"] != claims["oid"]
    other = (await entra.obo("app-a", "app-c", token)).claims
    assert other["oid"] == claims["oid"]
    assert other["sub"] != claims["sub"]


async def test_the_answer_says_what_the_token_says(entra: Caller, clock: Clock) -> None:
    """`expires_in` is a number, just below the token's life."""
    answer = await entra.m2m("app-a", "app-b")
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == answer.claims["exp"] - clock.now - 1
    assert answer.json["ext_expires_in"] == answer.json["expires_in"]
    assert set(answer.json) == {"token_type", "expires_in", "ext_expires_in", "access_token"}


async def test_client_info(entra: Caller) -> None:
    """MSAL's `client_info=1` gets user and tenant, base64url."""
    token = await entra.user_token("app-a", "ada")
    answer = await entra.obo(
        "app-a", "app-b", token, client_info="1", scope=f"{entra.scope('app-b')} openid profile"
    )
    info = json.loads(jwt.utils.base64url_decode(answer.json["client_info"]))
    assert info == {"uid": answer.claims["oid"], "utid": answer.claims["tid"]}
    assert "id_token" in answer.json


async def test_groups_overage() -> None:
    """More than 200 assigned groups: a pointer to Microsoft Graph instead of the list."""
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(201)]
    groups = "\n".join(f"  - {{name: g{number}, id: {value}}}" for number, value in enumerate(ids))
    for count in (200, 201):
        members = ", ".join(f"g{number}" for number in range(count))
        directory = (
            f"tenant: t.no\ngroups:\n{groups}\nusers:\n  - {{name: U, username: u@t.no, groups: [{members}]}}"
        )
        async with served(
            local_entra([manifest("app", groups=ids, replyURLs=[CALLBACK])], directory)
        ) as entra:
            claims = (await entra.login("app", "u@t.no")).claims
            assert len(claims.get("groups", [])) == (200 if count == 200 else 0)
            assert ("_claim_names" in claims) == (count == 201)


@pytest.mark.parametrize("algorithm", ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"])
async def test_signing_with_ml_dsa(algorithm: str) -> None:
    """By option, tokens are signed with ML-DSA (RFC 9964): the document names it, the key set has the key
    with its `alg`, and validators, exchanges and userinfo accept it, but nothing that was not told to."""
    async with served(local_entra(MANIFESTS, DIRECTORY, signing_algorithm=algorithm)) as entra:
        root = f"/{entra.tenant_id('app-a')}"
        document = (await entra.request("GET", f"{root}/v2.0/.well-known/openid-configuration")).json
        assert document["id_token_signing_alg_values_supported"] == [algorithm]
        keys = (await entra.request("GET", document["jwks_uri"])).json["keys"]
        answer = await entra.m2m("app-a", "app-b")
        token = answer.json["access_token"]
        header = unverified_header(token)
        (key,) = (key for key in keys if key["kid"] == header["kid"])
        assert (header["alg"], key["kty"], key["alg"]) == (algorithm, "AKP", algorithm)
        assert set(key) == {"kty", "use", "kid", "alg", "pub", "x5t", "x5c", "issuer"}
        # The key that is published beside it is the next one to sign.
        assert [key["kty"] for key in keys].count("AKP") == 2
        audience, jwks_uri = entra.client_id("app-b"), document["jwks_uri"]
        allowing = AsyncValidator(
            document["issuer"], audience, jwks_uri=jwks_uri, algorithms=["RS256", algorithm]
        )
        async with allowing:
            assert (await allowing.validate(token))["azp"] == entra.client_id("app-a")
        with pytest.raises(InvalidToken) as caught:
            Validator(document["issuer"], audience, jwks={"keys": keys}).validate(token)
        assert caught.value.code == "algorithm_not_allowed"
        user = await entra.user_token("app-a", "ada")
        assert (await entra.obo("app-a", "app-b", user)).claims["NAVident"] == "A100001"
        login = await entra.login("app-a", "ada", scope="openid profile")
        bearer = {"Authorization": f"Bearer {login.json['access_token']}"}
        assert (await entra.request("GET", "/oidc/userinfo", headers=bearer)).json["name"] == "Ada Lovelace"


def test_another_algorithm_than_before_keeps_the_older_keys() -> None:
    """Keys that were kept in a state directory stay published; new ones sign, and so does the next one."""
    local = local_entra(MANIFESTS, DIRECTORY, signing_algorithm="ML-DSA-44")
    older = [entry["jwk"]["kid"] for entry in signing_keys()]
    assert [kid for kid, _ in local.keyring.describe()][:2] == older
    assert local.keyring.active.algorithm == "ML-DSA-44"
    local.rotate_keys()
    assert local.keyring.active.algorithm == "ML-DSA-44"
    with pytest.raises(ConfigurationError, match="signing_algorithm must be one of RS256, ML-DSA-44"):
        local_entra(MANIFESTS, DIRECTORY, signing_algorithm="HS256")


async def test_v1_tokens(entra: Caller) -> None:
    """A target that accepts version 1 gets v1.0 tokens: other issuer, `appid`, audience as it was asked
    for, `x5t`.
    """
    answer = await entra.m2m("app-a", "old")
    claims = answer.claims
    assert claims["ver"] == "1.0"
    assert claims["iss"] == f"{entra.base_url}/{entra.tenant_id('old')}/"
    assert claims["appid"] == entra.client_id("app-a")
    assert claims["aud"] == "api://dev-gcp.team.old"
    assert "azp" not in claims
    assert unverified_header(answer.json["access_token"])["x5t"]
    user = (await entra.obo("app-a", "old", await entra.user_token("app-a", "ada"))).claims
    assert user["unique_name"] == user["upn"] == "ada@trygdeetaten.no"


async def test_the_v1_endpoint_takes_a_resource(entra: Caller) -> None:
    """`resource` instead of `scope`, a v1.0 token, and numbers as strings."""
    form = {
        "grant_type": "client_credentials",
        "resource": "api://dev-gcp.team.app-b",
        **entra.credentials("app-a"),
    }
    answer = await entra.request("POST", f"/{entra.tenant_id('app-a')}/oauth2/token", data=form)
    assert answer.claims["ver"] == "1.0"
    assert answer.json["expires_on"] == str(answer.claims["exp"])
    assert answer.json["not_before"] == str(answer.claims["nbf"])
    assert answer.json["resource"] == "api://dev-gcp.team.app-b"
    assert int(answer.json["expires_in"]) > 3000


async def test_discovery(entra: Caller) -> None:
    """Every endpoint in the document is on this provider and answers; the tenant's domain name works as
    its GUID.
    """
    tenant = entra.tenant_id("app-a")
    by_id = await entra.request("GET", f"/{tenant}/v2.0/.well-known/openid-configuration")
    by_name = await entra.request("GET", "/trygdeetaten.no/v2.0/.well-known/openid-configuration")
    assert by_id.json == by_name.json
    assert by_id.json["issuer"] == f"{entra.base_url}/{tenant}/v2.0"
    assert by_id.json["id_token_signing_alg_values_supported"] == ["RS256"]
    assert by_id.headers["Cache-Control"].startswith("max-age=86400")
    for name in (
        "token_endpoint",
        "authorization_endpoint",
        "jwks_uri",
        "end_session_endpoint",
        "userinfo_endpoint",
    ):
        url = by_id.json[name]
        assert url.startswith(entra.base_url)
        assert (await entra.request("GET", url)).status not in (404, 500)
    v1 = await entra.request("GET", f"/{tenant}/.well-known/openid-configuration")
    assert v1.json["issuer"] == f"{entra.base_url}/{tenant}/"
    common = await entra.request("GET", "/common/v2.0/.well-known/openid-configuration")
    assert common.json["issuer"] == f"{entra.base_url}/{{tenantid}}/v2.0"


async def test_the_key_set(entra: Caller) -> None:
    """Entra's members and no `alg`; `kid` is the certificate's thumbprint; several keys; nothing private."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    tenant = entra.tenant_id("app-a")
    keys = (await entra.request("GET", f"/{tenant}/discovery/v2.0/keys")).json["keys"]
    assert len(keys) == 2
    for key in keys:
        assert set(key) == {"kty", "use", "kid", "x5t", "n", "e", "x5c", "issuer"}
        assert key["issuer"] == f"{entra.base_url}/{tenant}/v2.0"
        certificate = x509.load_der_x509_certificate(__import__("base64").b64decode(key["x5c"][0]))
        fingerprint = jwt.utils.base64url_encode(certificate.fingerprint(hashes.SHA1())).decode()
        assert key["kid"] == key["x5t"] == fingerprint
        public: Any = certificate.public_key()
        assert public.public_numbers().n == int.from_bytes(jwt.utils.base64url_decode(key["n"]))
    common = (await entra.request("GET", "/common/discovery/v2.0/keys")).json["keys"]
    assert common[0]["issuer"] == f"{entra.base_url}/{{tenantid}}/v2.0"


async def test_pyjwt_accepts_the_tokens(entra: Caller, clock: Clock) -> None:
    """PyJWT with its key-set client fetches the keys and verifies a token."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    client = jwt.PyJWKClient(f"{entra.base_url}/{entra.tenant_id('app-b')}/discovery/v2.0/keys")
    key = await asyncio.to_thread(client.get_signing_key_from_jwt, token)
    claims = jwt.decode(
        token,
        key.key,
        algorithms=["RS256"],
        audience=entra.client_id("app-b"),
        issuer=f"{entra.base_url}/{entra.tenant_id('app-b')}/v2.0",
        options={
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },  # the clock here is the test's
    )
    assert claims["azp_name"] == "dev-gcp:team:app-a"


async def test_instance_discovery(entra: Caller) -> None:
    """MSAL's question whether an authority is genuine: yes for this one, no for others."""
    tenant = entra.tenant_id("app-a")
    asked = {
        "api-version": "1.1",
        "authorization_endpoint": f"{entra.base_url}/{tenant}/oauth2/v2.0/authorize",
    }
    answer = await entra.request("GET", "/common/discovery/instance", params=asked)
    assert (
        answer.json["tenant_discovery_endpoint"]
        == f"{entra.base_url}/{tenant}/v2.0/.well-known/openid-configuration"
    )
    asked["authorization_endpoint"] = "https://login.example/x/oauth2/v2.0/authorize"
    refused = await entra.request("GET", "/common/discovery/instance", params=asked)
    assert (refused.status, refused.json["error"]) == (400, "invalid_instance")


async def test_the_environment_is_what_nais_injects(entra: Caller) -> None:
    """The documented variables, all of them, and they work."""
    environment = entra.running.environment("dev-gcp:team:app-a")
    assert set(environment) == {
        "AZURE_ENABLED",
        "TOKEN_X_ENABLED",
        "MASKINPORTEN_ENABLED",
        "IDPORTEN_ENABLED",
        "AZURE_APP_CLIENT_ID",
        "AZURE_APP_CLIENT_SECRET",
        "AZURE_APP_JWK",
        "AZURE_APP_PRE_AUTHORIZED_APPS",
        "AZURE_APP_TENANT_ID",
        "AZURE_APP_WELL_KNOWN_URL",
        "AZURE_OPENID_CONFIG_ISSUER",
        "AZURE_OPENID_CONFIG_JWKS_URI",
        "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT",
    }
    document = (await entra.request("GET", environment["AZURE_APP_WELL_KNOWN_URL"])).json
    assert document["issuer"] == environment["AZURE_OPENID_CONFIG_ISSUER"]
    assert document["jwks_uri"] == environment["AZURE_OPENID_CONFIG_JWKS_URI"]
    assert document["token_endpoint"] == environment["AZURE_OPENID_CONFIG_TOKEN_ENDPOINT"]
    key = json.loads(environment["AZURE_APP_JWK"])
    assert {"kty", "kid", "d", "x5t"} <= set(key)


@pytest.mark.parametrize("consumer", ["app-a", "spa"])
async def test_group_ids_are_those_of_the_target(entra: Caller, consumer: str) -> None:
    """`groups` depends on the target, not on the caller: a login to an application has that application's."""
    assert (await entra.login(consumer, "ada")).claims["groups"] != [GROUP_B]


async def test_a_v1_token_can_be_exchanged(clock: Clock) -> None:
    """On behalf of works with the v1.0 token of an application that accepts those."""
    texts = [
        manifest("web", all_users=True, replyURLs=[CALLBACK]),
        manifest(
            "middle",
            all_users=True,
            rules=[{"application": "web"}],
            annotations={"entra-fast/access-token-version": "1"},
        ),
        manifest("back", all_users=True, rules=[{"application": "middle"}]),
    ]
    directory = "tenant: t.no\nusers: [{name: U, username: u@t.no}]"
    async with served(local_entra(texts, directory, clock=clock)) as entra:
        first = await entra.obo("web", "middle", await entra.user_token("web", "u@t.no"))
        assert first.claims["ver"] == "1.0"
        second = await entra.obo("middle", "back", first.json["access_token"])
        assert second.claims["azp_name"] == "dev-gcp:team:middle"
        assert second.claims["oid"] == first.claims["oid"]
