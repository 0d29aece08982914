"""Discovery documents as clients of the real Entra ID read them; `email` and `groups` in ID tokens."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from entra_fast._native import unverified_claims
from entra_fast.emulator import SourceError
from support.local_entra import Caller, local_entra, manifest, served

from .conftest import CALLBACK, EVERYONE, GROUP_B


async def document(entra: Caller, path: str = "/trygdeetaten.no/v2.0") -> dict[str, Any]:
    answer = await entra.request("GET", f"{path}/.well-known/openid-configuration")
    assert answer.status == 200
    return dict(answer.json)


async def test_members_that_clients_read(entra: Caller) -> None:
    """Hosts are this provider's own and have no scheme; the region is null for all tenants together."""
    found = await document(entra)
    host = urllib.parse.urlsplit(entra.base_url).netloc
    assert found["msgraph_host"] == found["cloud_graph_host_name"] == found["cloud_instance_name"] == host
    assert found["rbac_url"] == entra.base_url
    assert found["tenant_region_scope"] == "EU"
    assert found["http_logout_supported"] is True
    assert found["request_uri_parameter_supported"] is False
    assert "email" in found["claims_supported"]
    assert (await document(entra, "/common/v2.0"))["tenant_region_scope"] is None


@pytest.mark.parametrize("version", ["/v2.0", ""])
async def test_every_announced_response_type_works(version: str) -> None:
    """And one that is not announced is refused: clients choose from this list."""
    switches = dict.fromkeys(
        ("entra-fast/allow-id-token-implicit-flow", "entra-fast/allow-implicit-flow"), "true"
    )
    app = manifest("app", all_users=True, replyURLs=[CALLBACK], annotations=switches)
    async with served(local_entra([app], "{tenant: t.no, users: [{name: A, username: a@t.no}]}")) as entra:
        announced = (await document(entra, f"/t.no{version}"))["response_types_supported"]
        kinds = ("code", "id_token", "code id_token", "id_token token", "token", "code token", "none", "")
        for kind in (*kinds, *announced):
            fields = {**entra.login_parameters("app", response_type=kind), "username": "a"}
            path = f"/{entra.tenant_id('app')}/oauth2{version}/authorize"
            answer = await entra.request("POST", path, data=fields)
            refused = "unsupported_response_type" in answer.headers["Location"]
            known = {frozenset(one.split()) for one in announced}
            assert refused == (frozenset(kind.split()) not in known), kind


async def test_every_announced_endpoint_answers(entra: Caller) -> None:
    """In both versions; the paths of v1.0 are those of v1.0."""
    for path in ("/trygdeetaten.no/v2.0", "/trygdeetaten.no"):
        found = await document(entra, path)
        for name, url in found.items():
            if name.endswith(("_endpoint", "jwks_uri")):
                assert (await entra.request("GET", url)).status not in (404, 500), name
                own = "/oidc/" not in url and "kerberos" not in url
                assert not own or ("/v2.0/" in url) == path.endswith("v2.0"), name


ADDITIONS = {
    "code_challenge_methods_supported",
    "grant_types_supported",
    "token_endpoint_auth_signing_alg_values_supported",
}


async def test_the_exact_document() -> None:
    """On request, what Entra ID's document does not have is left out, of all tenants' document too."""
    async with served(local_entra([], exact_discovery=True)) as exact, served(local_entra([])) as usual:
        for path in ("/trygdeetaten.no/v2.0", "/common/v2.0", "/trygdeetaten.no"):
            assert set(await document(usual, path)) - set(await document(exact, path)) == ADDITIONS
        claims = (await document(exact))["claims_supported"]
    assert {"c_hash", "at_hash", "auth_time", "email"} <= set(claims)
    assert not {"oid", "groups", "sid"} & set(claims)


async def test_any_page_may_read_the_documents(entra: Caller) -> None:
    """Discovery, keys and instance discovery, with the preflight of clients that send headers of their own,
    and refusals.
    """
    origin = {"Origin": "https://anywhere.example"}
    paths = {
        "/trygdeetaten.no/v2.0/.well-known/openid-configuration": 200,
        "/unknown.example/v2.0/.well-known/openid-configuration": 400,
        "/trygdeetaten.no/discovery/v2.0/keys": 200,
        "/common/discovery/instance?authorization_endpoint=https://elsewhere.example/": 400,
        "/oidc/userinfo": 401,
    }
    for path, status in paths.items():
        answer = await entra.request("GET", path, headers=origin)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, "*"), path
        preflight = await entra.request("OPTIONS", path, headers=origin)
        assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, "*"), path
        assert "x-client-sku" in preflight.headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("name", ["oauth-authorization-server", "openid-configuration"])
@pytest.mark.parametrize("path", ["/trygdeetaten.no/v2.0", "/trygdeetaten.no", "/common/v2.0"])
async def test_authorization_server_metadata(entra: Caller, name: str, path: str) -> None:
    """RFC 8414, section 3: the same document where the well-known part is in front of the issuer's path."""
    wanted = await document(entra, path)
    for address in (f"/.well-known/{name}{path}", f"{path}/.well-known/{name}"):
        answer = await entra.request("GET", address)
        assert answer.status == 200
        assert answer.json == wanted
    assert (await entra.request("GET", f"/.well-known/{name}/unknown.example/v2.0")).code == 90002


DIRECTORY = """
tenant: t.no
users:
  - {name: Default Mail, username: default@t.no}
  - {name: Own Mail, username: own@t.no, mail: own.mail@elsewhere.example}
  - {name: No Mail, username: none@t.no, mail: ""}
"""


@pytest.mark.parametrize(
    ("user", "mail"), [("default", "default@t.no"), ("own", "own.mail@elsewhere.example"), ("none", None)]
)
async def test_email(user: str, mail: str | None) -> None:
    """The claim comes with the scope `email`, from the directory's `mail`, and not without a mailbox."""
    app = manifest("app", all_users=True, replyURLs=[CALLBACK])
    async with served(local_entra([app], DIRECTORY)) as entra:
        tokens = (await entra.login("app", user, scope="openid email")).json
        assert unverified_claims(tokens["id_token"]).get("email") == mail
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await entra.request("GET", "/oidc/userinfo", headers=bearer)).json.get("email") == mail
        without = (await entra.login("app", user, scope="openid profile")).json
        assert "email" not in unverified_claims(without["id_token"])


async def test_groups_of_the_id_token() -> None:
    """The user's groups that the client's own manifest names; an access token has those of its target."""
    own = manifest("client", groups=[GROUP_B], replyURLs=[CALLBACK])
    directory = f"""
tenant: t.no
groups:
  - {{name: everyone, id: {EVERYONE}, allUsers: true}}
  - {{name: b, id: {GROUP_B}}}
users:
  - {{name: Ada, username: ada@t.no, groups: [b]}}
"""
    everyone = manifest("all", all_users=True, rules=[{"application": "client"}])
    async with served(local_entra([own, everyone], directory)) as caller:
        answer = await caller.login("client", "ada", scope=f"openid {caller.scope('all')}")
        assert unverified_claims(answer.json["id_token"])["groups"] == [GROUP_B]
        assert answer.claims["groups"] == [EVERYONE]


def test_a_malformed_mail_is_a_mistake() -> None:
    """With the line, the field and what was expected."""
    text = "tenant: t.no\nusers:\n  - {name: A, username: a@t.no, mail: a}"
    with pytest.raises(SourceError, match=r"directory.yaml:3: users\[0\].mail: 'a' is not of the form name@"):
        local_entra([], text)
