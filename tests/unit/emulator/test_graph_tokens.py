"""Microsoft Graph as a target at the token and authorization endpoints: which permissions are granted."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from entra_fast._native import unverified_claims
from entra_fast.emulator import SourceError
from support.local_entra import Answer, Caller, local_entra, manifest, served

from .conftest import CALLBACK, DIRECTORY

GUID = "00000003-0000-0000-c000-000000000000"
URL = "https://graph.microsoft.com"
LOGIN = "openid profile email"


def annotated(name: str, **annotations: str) -> str:
    """An application whose manifest has Graph's permissions in annotations."""
    written = {f"entra-fast/graph-{kind}": value for kind, value in annotations.items()}
    return manifest(name, all_users=True, replyURLs=[CALLBACK], annotations=written)


MANIFESTS = [
    annotated("app"),
    annotated("reader", scopes="User.Read.All", roles="User.Read.All GroupMember.Read.All"),
    manifest("limited", replyURLs=[CALLBACK]),
]


@pytest_asyncio.fixture
async def entra() -> AsyncIterator[Caller]:
    """A provider with applications that have more and fewer permissions of Graph."""
    async with served(local_entra(MANIFESTS, DIRECTORY)) as caller:
        yield caller


async def on_behalf(entra: Caller, scope: str, application: str = "app") -> Answer:
    return await entra.obo(application, application, await entra.user_token(application, "ada"), scope=scope)


@pytest.mark.parametrize(
    ("scope", "audience", "granted", "answered"),
    [
        ("User.Read", GUID, "User.Read", "User.Read"),
        ("user.read", GUID, "User.Read", "user.read"),
        (
            "User.Read GroupMember.Read.All",
            GUID,
            "User.Read GroupMember.Read.All",
            "User.Read GroupMember.Read.All",
        ),
        (f"{URL}/User.Read", URL, "User.Read", f"{URL}/User.Read"),
        (f"{URL}//User.Read", f"{URL}/", "User.Read", f"{URL}//User.Read"),
        (f"{GUID}/User.ReadBasic.All", GUID, "User.ReadBasic.All", "User.ReadBasic.All"),
        (
            f"{URL}/.default",
            URL,
            "User.Read GroupMember.Read.All",
            f"{URL}/User.Read {URL}/GroupMember.Read.All {URL}/.default",
        ),
        (f"openid {URL}/User.Read", URL, f"User.Read {LOGIN}", f"{URL}/User.Read {LOGIN}"),
    ],
)
async def test_targets(entra: Caller, scope: str, audience: str, granted: str, answered: str) -> None:
    """Bare scopes and Graph's identifiers; `aud` and the answer's `scope` are in the spelling of the request,
    `scp` in Graph's own."""
    answer = await on_behalf(entra, scope)
    claims = answer.claims
    assert claims["aud"] == audience
    assert claims["scp"] == granted
    assert answer.json["scope"] == answered
    assert (claims["ver"], claims["iss"]) == ("1.0", f"{entra.base_url}/{entra.tenant_id('app')}/")
    assert (claims["appid"], claims["idtyp"]) == (entra.client_id("app"), "user")
    assert claims["upn"] == "ada@trygdeetaten.no"


async def test_the_local_address_is_a_target(entra: Caller) -> None:
    """With its port, and without one, as the Graph SDK asks."""
    assert (await on_behalf(entra, f"{entra.base_url}/User.Read")).claims["aud"] == entra.base_url
    assert (await on_behalf(entra, "http://127.0.0.1/.default")).claims["aud"] == "http://127.0.0.1"
    assert (await on_behalf(entra, "http://127.0.0.2/.default")).code == 500011
    assert (await entra.m2m("app", "app", scope=f"{entra.base_url}/.default")).claims["aud"] == entra.base_url


@pytest.mark.parametrize(
    ("scope", "code", "error"),
    [
        ("User.Read.All", 65001, "invalid_grant"),
        ("Directory.Read.All User.Read", 65001, "invalid_grant"),
        ("Mail.Send", 650053, "invalid_client"),
        (f"{URL}/x", 650053, "invalid_client"),
        (f"{URL}/.default {URL}/User.Read", 70011, "invalid_scope"),
        (f"User.Read {URL}x/User.Read", 28000, "invalid_scope"),
        ("User.Read api://dev-gcp.team.app/.default", 28000, "invalid_scope"),
        (".default", 70011, "invalid_scope"),
    ],
)
async def test_refusals(entra: Caller, scope: str, code: int, error: str) -> None:
    """Not granted, unknown, malformed, two resources; the journal says what to change."""
    answer = await on_behalf(entra, scope)
    assert (answer.code, answer.json["error"]) == (code, error)
    entry = entra.local.journal.entries()[0]
    assert (entry.code, entry.reasons[-1].passed) == (code, False)
    if code == 65001:
        assert "entra-fast/graph-scopes" in entry.reasons[-1].remedy
        assert entry.target == "Microsoft Graph"


async def test_annotations_grant_more(entra: Caller) -> None:
    """Delegated permissions and roles come from the manifest."""
    assert (await on_behalf(entra, "User.Read.All", "reader")).claims["scp"] == "User.Read.All"
    everything = await on_behalf(entra, f"{URL}/.default", "reader")
    assert everything.claims["scp"] == "User.Read GroupMember.Read.All User.Read.All"
    own = await entra.m2m("reader", "reader", scope=f"{URL}/.default")
    assert own.claims["roles"] == ["User.Read.All", "GroupMember.Read.All"]
    assert (own.claims["idtyp"], "scp" in own.claims) == ("app", False)
    none = await entra.m2m("app", "app", scope=f"{URL}/.default")
    assert "roles" not in none.claims
    assert "Graph will refuse" in entra.local.journal.entries()[0].reasons[-1].text
    assert (await entra.m2m("app", "app", scope="User.Read")).code == 1002012


def test_an_unknown_permission_in_a_manifest_is_a_mistake() -> None:
    """With the permissions that there are; there are none for writing."""
    with pytest.raises(SourceError, match=r"'User.ReadWrite.All' is none of User.Read, "):
        local_entra([annotated("app", scopes="User.ReadWrite.All")])
    with pytest.raises(SourceError, match=r"'User.Read' is none of User.Read.All, "):
        local_entra([annotated("app", roles="User.Read")])


async def test_login(entra: Caller) -> None:
    """A login asks for Graph, refresh keeps or changes it, and userinfo takes the token."""
    first = await entra.login("app", "ada", scope=f"{LOGIN} offline_access User.Read")
    assert first.claims["scp"] == first.json["scope"] == f"User.Read {LOGIN}"
    assert unverified_claims(first.json["id_token"])["aud"] == entra.client_id("app")
    assert entra.local.journal.entries()[0].target == "Microsoft Graph"
    assert entra.local.journal.entries()[1].target == "Microsoft Graph"
    bearer = {"Authorization": f"Bearer {first.json['access_token']}"}
    assert (await entra.request("GET", "/oidc/userinfo", headers=bearer)).json["name"] == "Ada Lovelace"
    form = {"grant_type": "refresh_token", "refresh_token": first.json["refresh_token"]}
    same = await entra.token({**form, **entra.credentials("app")})
    assert same.claims["scp"] == first.claims["scp"]
    other = await entra.token({**form, **entra.credentials("app"), "scope": "GroupMember.Read.All"})
    assert other.claims["scp"] == f"GroupMember.Read.All {LOGIN}"


async def test_login_refusals(entra: Caller) -> None:
    """An unknown permission, one that is not granted, and a user whom the client does not admit: Graph is no
    way around the client's own policy."""
    unknown = await entra.sign_in("app", "ada", scope="openid Mail.Send", prompt="none")
    assert unknown.location["error"] == "invalid_client"
    assert "AADSTS650053" in unknown.location["error_description"]
    refused = await entra.sign_in("app", "ada", scope="openid User.Read.All")
    assert refused.status == 403
    assert "AADSTS65001" in refused.text
    admitted = await entra.sign_in("limited", "ada", scope="openid User.Read")
    assert "AADSTS50105" in admitted.text


async def test_the_older_endpoint(entra: Caller) -> None:
    """`resource` names Graph as well."""
    form = {"grant_type": "client_credentials", "resource": URL, **entra.credentials("reader")}
    answer = await entra.request("POST", f"/{entra.tenant_id('reader')}/oauth2/token", data=form)
    assert answer.claims["aud"] == answer.json["resource"] == URL


async def test_explain(entra: Caller) -> None:
    """`explain` knows Graph, and what the console mints works there."""
    explanation = entra.local.explain("dev-gcp:team:app", URL, "ada")
    assert explanation.granted
    assert (explanation.target, explanation.user) == ("Microsoft Graph", "ada@trygdeetaten.no")
    assert explanation.claims["scp"] == "User.Read GroupMember.Read.All"
    body = {"consumer": "dev-gcp:team:reader", "target": URL}
    minted = await entra.request("POST", "/admin/api/tokens", json=body)
    headers = {"Authorization": f"Bearer {minted.json['access_token']}"}
    assert (await entra.request("GET", "/v1.0/users", headers=headers)).status == 200
