"""The local Microsoft Graph over real sockets, with tokens that the local Entra ID has issued."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from entra_fast._native import unverified_claims
from entra_fast.emulator import User
from entra_fast.emulator.graph.conditions import parse_filter, parse_search
from entra_fast.emulator.graph.errors import GraphError
from entra_fast.emulator.graph.resources import USER
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served

from .conftest import CALLBACK

URL = "https://graph.microsoft.com"
CASE_WORKERS = "00000000-0000-4000-8000-0000000000c1"
TEAM = "00000000-0000-4000-8000-0000000000c2"
EVENTUAL = {"ConsistencyLevel": "eventual"}
DIRECTORY = f"""
tenant: trygdeetaten.no
groups:
  - {{name: everyone, id: 00000000-0000-4000-8000-0000000000a1, allUsers: true}}
  - {{name: Case Workers, id: {CASE_WORKERS}}}
  - {{name: team-b, id: {TEAM}}}
users:
  - name: Ada King Lovelace
    username: ada@trygdeetaten.no
    navIdent: A100001
    groups: [Case Workers, team-b]
  - {{name: Kari Nordmann, username: kari@trygdeetaten.no, mail: kari.n@nav.no, groups: [Case Workers]}}
  - {{name: Ola O'Hara, username: ola@trygdeetaten.no, mail: ""}}
---
tenant: nav.no
users:
  - {{name: Grace Hopper, username: grace@nav.no}}
"""


def application(name: str, **annotations: str) -> str:
    written = {f"entra-fast/graph-{kind}": value for kind, value in annotations.items()}
    return manifest(name, all_users=True, replyURLs=[CALLBACK], annotations=written)


EVERY_SCOPE = "User.Read.All Group.Read.All Directory.Read.All"
MANIFESTS = [
    application("app", scopes=EVERY_SCOPE),
    *(
        application(f"daemon-{place}", **({"roles": roles} if roles else {}))
        for place, roles in enumerate(
            [
                "",
                "User.Read.All",
                "GroupMember.Read.All",
                "User.Read.All Group.Read.All",
                "Directory.Read.All",
            ]
        )
    ),
    manifest("abroad", tenant="nav.no", all_users=True, replyURLs=[CALLBACK]),
]


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    """A provider with three users, three groups and a second tenant."""
    async with served(local_entra(MANIFESTS, DIRECTORY, clock=clock)) as caller:
        yield caller


async def user_token(entra: Caller, scope: str, user: str = "ada", app: str = "app") -> str:
    login = await entra.user_token(app, user)
    return str((await entra.obo(app, app, login, scope=scope)).json["access_token"])


async def app_token(entra: Caller, daemon: int) -> str:
    answer = await entra.m2m(f"daemon-{daemon}", f"daemon-{daemon}", scope=f"{URL}/.default")
    return str(answer.json["access_token"])


async def get(
    entra: Caller, token: str, path: str, headers: Mapping[str, str] | None = None, **query: str
) -> Answer:
    """`select="id"` stands for `$select=id`."""
    parameters = {f"${name}": value for name, value in query.items()}
    sent = {"Authorization": f"Bearer {token}", **(headers or {})}
    address = path if path.startswith("http") else f"/v1.0/{path}"
    return await entra.request("GET", address, params=parameters, headers=sent)


async def post(entra: Caller, token: str, path: str, body: Any) -> Answer:
    headers = {"Authorization": f"Bearer {token}"}
    return await entra.request("POST", f"/v1.0/{path}", headers=headers, json=body)


def refused(answer: Answer, status: int, code: str, message: str = "") -> None:
    """Graph's error, with the ids that are also in the header."""
    assert answer.status == status, answer.text
    error = answer.json["error"]
    assert (error["code"], set(error)) == (code, {"code", "message", "innerError"})
    assert message in error["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", error["innerError"]["date"])
    for name in ("request-id", "client-request-id"):
        assert uuid.UUID(error["innerError"][name]) == uuid.UUID(answer.headers[name])


def names(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    return [item["displayName"] for item in answer.json["value"]]


# Resources


async def test_me(entra: Caller) -> None:
    """Graph's eleven properties, nulls too; `$select` has others, in any case, and the context says so."""
    token = await user_token(entra, "User.Read")
    answer = await get(entra, token, "me")
    assert answer.json == {
        "@odata.context": f"{entra.base_url}/v1.0/$metadata#users/$entity",
        "businessPhones": [],
        "displayName": "Ada King Lovelace",
        "givenName": "Ada King",
        "jobTitle": None,
        "mail": "ada@trygdeetaten.no",
        "mobilePhone": None,
        "officeLocation": None,
        "preferredLanguage": None,
        "surname": "Lovelace",
        "userPrincipalName": "ada@trygdeetaten.no",
        "id": unverified_claims(token)["oid"],
    }
    assert answer.headers["Content-Type"].startswith("application/json")
    selected = await get(entra, token, "me", select="onPremisesSamAccountName, ID,accountEnabled")
    assert selected.json == {
        "@odata.context": f"{entra.base_url}/v1.0/$metadata#users(onPremisesSamAccountName,id,accountEnabled)"
        "/$entity",
        "onPremisesSamAccountName": "A100001",
        "id": answer.json["id"],
        "accountEnabled": True,
    }


async def test_users(entra: Caller) -> None:
    """All of the tenant and none of another; one by object id or user name, in any case."""
    token = await user_token(entra, "User.ReadBasic.All")
    everyone = await get(entra, token, "users")
    assert names(everyone) == ["Ada King Lovelace", "Kari Nordmann", "Ola O'Hara"]
    assert everyone.json["@odata.context"] == f"{entra.base_url}/v1.0/$metadata#users"
    assert [item["mail"] for item in everyone.json["value"]] == ["ada@trygdeetaten.no", "kari.n@nav.no", None]
    kari = everyone.json["value"][1]
    for name in (kari["id"], kari["id"].upper(), "Kari@trygdeetaten.no"):
        found = await get(entra, token, f"users/{name}")
        assert found.json["displayName"] == "Kari Nordmann"
    for name in ("nobody@trygdeetaten.no", "grace@nav.no", str(uuid.uuid4())):
        refused(
            await get(entra, token, f"users/{name}"), 404, "Request_ResourceNotFound", f"Resource '{name}'"
        )


async def test_groups(entra: Caller) -> None:
    """All groups, one group, and its members with their types."""
    token = await user_token(entra, "GroupMember.Read.All")
    assert names(await get(entra, token, "groups")) == ["everyone", "Case Workers", "team-b"]
    one = (await get(entra, token, f"groups/{TEAM}")).json
    assert (one["displayName"], one["securityEnabled"], one["groupTypes"]) == ("team-b", True, [])
    members = await get(entra, token, f"groups/{CASE_WORKERS}/members")
    assert names(members) == ["Ada King Lovelace", "Kari Nordmann"]
    assert members.json["@odata.context"].endswith("$metadata#directoryObjects")
    assert {item["@odata.type"] for item in members.json["value"]} == {"#microsoft.graph.user"}
    cast = await get(
        entra, token, f"groups/{CASE_WORKERS}/members/microsoft.graph.user", select="displayName"
    )
    assert cast.json["value"] == [{"displayName": "Ada King Lovelace"}, {"displayName": "Kari Nordmann"}]
    refused(await get(entra, token, f"groups/{uuid.uuid4()}/members"), 404, "Request_ResourceNotFound")


@pytest.mark.parametrize("path", ["memberOf", "transitiveMemberOf", "memberof"])
async def test_memberships(entra: Caller, path: str) -> None:
    """Mixed lists state types; a cast, in the spelling of Graph or of its SDK, does not."""
    token = await user_token(entra, "User.Read GroupMember.Read.All")
    mine = await get(entra, token, f"me/{path}")
    assert names(mine) == ["everyone", "Case Workers", "team-b"]
    assert mine.json["@odata.context"] == f"{entra.base_url}/v1.0/$metadata#directoryObjects"
    assert mine.json["value"][2]["@odata.type"] == "#microsoft.graph.group"
    for cast in ("microsoft.graph.group", "graph.group"):
        answer = await get(entra, token, f"me/{path}/{cast}", select="id,displayName")
        assert answer.json["@odata.context"].endswith("$metadata#groups(id,displayName)")
        assert answer.json["value"][2] == {"id": TEAM, "displayName": "team-b"}
    assert names(await get(entra, token, f"users/kari@trygdeetaten.no/{path}")) == [
        "everyone",
        "Case Workers",
    ]


async def test_memberships_without_a_permission_for_groups(entra: Caller) -> None:
    """Types and ids only: everything else is null, and cannot be found out by a filter."""
    token = await user_token(entra, "User.Read")
    answer = await get(entra, token, "me/memberOf")
    assert [item["id"] for item in answer.json["value"]][1:] == [CASE_WORKERS, TEAM]
    for item in answer.json["value"]:
        shown = {name for name, value in item.items() if value is not None}
        assert shown == {"@odata.type", "id"}
    guess = await get(entra, token, "me/memberOf", filter="displayName eq 'team-b'")
    refused(guess, 403, "Authorization_RequestDenied")


async def test_actions(entra: Caller) -> None:
    """getMemberObjects, getMemberGroups, checkMemberGroups, and what they do not take."""
    token = await user_token(entra, "User.Read User.Read.All GroupMember.Read.All")
    for action in ("getMemberObjects", "getMemberGroups", "microsoft.graph.getMemberObjects"):
        answer = await post(entra, token, f"me/{action}", {"securityEnabledOnly": True})
        assert answer.json["@odata.context"].endswith("$metadata#Collection(Edm.String)")
        assert answer.json["value"][1:] == [CASE_WORKERS, TEAM]
    check = "users/kari@trygdeetaten.no/checkMemberGroups"
    found = await post(entra, token, check, {"groupIds": [TEAM, CASE_WORKERS, str(uuid.uuid4())]})
    assert found.json["value"] == [CASE_WORKERS]
    for path, body in [
        (check, {"groupIds": [TEAM] * 21}),
        (check, {}),
        (check, {"groupIds": [1]}),
        ("me/getMemberObjects", {"securityEnabledOnly": "yes"}),
        ("me/getMemberObjects", {"other": True}),
    ]:
        refused(await post(entra, token, path, body), 400, "Request_BadRequest")
    refused(await post(entra, token, "me/getMemberObjects", [1]), 400, "BadRequest")


# Query options


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("displayName eq 'kari nordmann'", ["Kari Nordmann"]),
        ("startswith(displayName,'ada')", ["Ada King Lovelace"]),
        ("startsWith( displayName , 'K' ) and mail eq 'kari.n@nav.no'", ["Kari Nordmann"]),
        ("startswith(displayName,'a') and mail eq 'kari.n@nav.no'", []),
        ("displayName eq 'Ola O''Hara'", ["Ola O'Hara"]),
        ("mail eq null", ["Ola O'Hara"]),
        ("accountEnabled eq false", []),
        ("mail in ('ada@trygdeetaten.no', 'kari.n@nav.no')", ["Ada King Lovelace", "Kari Nordmann"]),
        (
            "startswith(surname,'L') or (startswith(surname,'N') and accountEnabled eq true)",
            ["Ada King Lovelace", "Kari Nordmann"],
        ),
        ("displayName eq 'and' or surname eq ') or ('", []),
    ],
)  # fmt: skip
async def test_filters(entra: Caller, condition: str, found: list[str]) -> None:
    """`eq`, `in`, `startswith`, `and`, `or`, brackets, quotes in text; case does not matter."""
    token = await app_token(entra, 1)
    assert names(await get(entra, token, "users", filter=condition)) == found


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("displayName ne 'x'", "Request_UnsupportedQuery"),
        ("endswith(mail,'x')", "Request_UnsupportedQuery"),
        ("not startswith(mail,'x')", "Request_UnsupportedQuery"),
        ("unknown eq 'x'", "Request_UnsupportedQuery"),
        ("startswith(mail,null)", "Request_UnsupportedQuery"),
        ("displayName eq", "BadRequest"),
        ("displayName eq x", "BadRequest"),
        ("displayName eq 'x", "BadRequest"),
        ("displayName eq 'x' and", "BadRequest"),
        ("(displayName eq 'x'", "BadRequest"),
        ("displayName eq 'x')", "BadRequest"),
        ("displayName in ()", "BadRequest"),
        ("", "BadRequest"),
        ("(" * 500 + "mail eq null" + ")" * 500, "Request_BadRequest"),
        (" or ".join(["mail eq null"] * 51), "Request_BadRequest"),
        ("x" * 2049, "Request_BadRequest"),
    ],
)
async def test_filters_that_are_refused(entra: Caller, condition: str, code: str) -> None:
    """Unsupported, malformed, unbounded: 400 in Graph's form, never a list that ignores the filter."""
    refused(await get(entra, await app_token(entra, 1), "users", filter=condition), 400, code)


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ('"displayName:love"', ["Ada King Lovelace"]),
        ('"displayName:king ada"', ["Ada King Lovelace"]),
        ('"displayName:velace"', []),
        ('"mail:kari"', ["Kari Nordmann"]),
        ('"mail:nav.no"', []),
        ('"displayName:ada" OR "displayName:ola"', ["Ada King Lovelace", "Ola O'Hara"]),
        ('"displayName:ada" AND "mail:kari"', []),
        ('"displayName:ola" OR "displayName:ada" AND "mail:kari"', ["Ola O'Hara"]),
    ],
)
async def test_search(entra: Caller, search: str, found: list[str]) -> None:
    """Beginnings of words in names and of addresses; only with the header."""
    token = await app_token(entra, 1)
    assert names(await get(entra, token, "users", EVENTUAL, search=search)) == found
    plain = await get(entra, token, "users", search=search)
    refused(plain, 400, "Request_UnsupportedQuery", "ConsistencyLevel: eventual")


@pytest.mark.parametrize(
    "search", ["displayName:ada", '"ada"', '"jobTitle:x"', '"displayName:"', '"displayName:a" AND', '"mail:a']
)
async def test_searches_that_are_refused(entra: Caller, search: str) -> None:
    """Without quotes, property or value."""
    answer = await get(entra, await app_token(entra, 1), "users", EVENTUAL, search=search)
    assert answer.status == 400
    assert answer.json["error"]["code"] in ("Request_BadRequest", "Request_UnsupportedQuery")


async def test_count(entra: Caller) -> None:
    """Of all pages, with the header; without it, the option is ignored and the path refused."""
    token = await app_token(entra, 1)
    counted = await get(entra, token, "users", EVENTUAL, count="true", top="1")
    assert (counted.json["@odata.count"], len(counted.json["value"])) == (3, 1)
    assert "@odata.count" not in (await get(entra, token, "users", count="true")).json
    number = await get(entra, token, "users/$count", EVENTUAL, filter="startswith(displayName,'a')")
    assert (number.text, number.headers["Content-Type"]) == ("1", "text/plain; charset=utf-8")
    refused(await get(entra, token, "users/$count"), 400, "Request_BadRequest", "$count is not currently")
    refused(await get(entra, token, "users", count="yes"), 400, "Request_BadRequest")
    mine = await user_token(entra, "User.Read GroupMember.Read.All")
    for path in ("me/memberOf/$count", "me/transitiveMemberOf/microsoft.graph.group/$count"):
        assert (await get(entra, mine, path, EVENTUAL)).text == "3"


async def test_pages(entra: Caller) -> None:
    """`@odata.nextLink` is absolute, keeps the options, and leads through everything once."""
    token = await app_token(entra, 1)
    query: dict[str, Any] = {
        "top": "1",
        "select": "displayName",
        "filter": "startswith(mail,'a') or startswith(mail,'k')",
    }
    first = await get(entra, token, "users", **query)
    link = first.json["@odata.nextLink"]
    assert link.startswith(f"{entra.base_url}/v1.0/users?")
    assert "$skiptoken=" in link
    kept = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(link).query))
    assert {f"${name}": value for name, value in query.items()}.items() <= kept.items()
    second = await entra.request("GET", link, headers={"Authorization": f"Bearer {token}"})
    assert names(first) + names(second) == ["Ada King Lovelace", "Kari Nordmann"]
    assert "@odata.nextLink" not in second.json
    for wrong in ("x", "!!!", "eA"):
        refused(await get(entra, token, "users", skiptoken=wrong), 400, "Directory_ExpiredPageToken")


@pytest.mark.parametrize("top", ["0", "1000", "-1", "x", "", "9" * 50, "٣"])
async def test_page_sizes_are_bounded(entra: Caller, top: str) -> None:
    """1 to 999."""
    refused(await get(entra, await app_token(entra, 1), "users", top=top), 400, "Request_BadRequest", "$top")


async def test_a_large_directory() -> None:
    """10,000 users: 100 in a page unless more are asked for, and no page takes long."""
    users = "\n".join(f"  - {{name: User {place}, username: u{place}@t.no}}" for place in range(10_000))
    directory = f"tenant: t.no\nusers:\n{users}"
    async with served(local_entra([application("daemon-0", roles="User.Read.All")], directory)) as entra:
        token = await app_token(entra, 0)
        assert len((await get(entra, token, "users")).json["value"]) == 100
        start = time.monotonic()
        found: list[str] = []
        answer = await get(entra, token, "users", top="999")
        found += names(answer)
        while link := answer.json.get("@odata.nextLink"):
            answer = await entra.request("GET", link, headers={"Authorization": f"Bearer {token}"})
            found += names(answer)
        assert found == [f"User {place}" for place in range(10_000)]
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("option", ["$orderby", "$expand", "$skip", "$format", "$apply", "select", "x"])
async def test_other_options_are_refused(entra: Caller, option: str) -> None:
    """Rather than ignored."""
    headers = {"Authorization": f"Bearer {await app_token(entra, 1)}"}
    answer = await entra.request("GET", "/v1.0/users", params={option: "displayName"}, headers=headers)
    refused(answer, 400, "Request_UnsupportedQuery", f"'{option}'")


async def test_options_where_they_do_not_belong(entra: Caller) -> None:
    """One resource takes `$select` only; unknown properties and repeated options are refused."""
    token = await user_token(entra, "User.Read")
    refused(await get(entra, token, "me", filter="mail eq null"), 400, "Request_UnsupportedQuery")
    refused(await get(entra, token, "me", select="id,shoeSize"), 400, "BadRequest", "'shoeSize' on type")
    refused(await get(entra, token, "me", select="id,,mail"), 400, "BadRequest")
    headers = {"Authorization": f"Bearer {token}"}
    twice = await entra.request("GET", "/v1.0/me?$select=id&$select=mail", headers=headers)
    refused(twice, 400, "Request_BadRequest", "more than once")


@pytest.mark.parametrize(
    "path",
    ["", "x", "me/messages", "me/memberOf/x", "users/a/b/c", "groups/x/owners", "me/getMemberObjects/x"],
)
async def test_unknown_paths(entra: Caller, path: str) -> None:
    """400, as Graph has it."""
    token = await user_token(entra, "User.Read")
    refused(await get(entra, token, path), 400, "BadRequest", "Resource not found for the segment")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "users"),
        ("DELETE", "me"),
        ("PATCH", "groups/x"),
        ("GET", "me/getMemberObjects"),
        ("PUT", "me"),
    ],
)
async def test_it_is_read_only(entra: Caller, method: str, path: str) -> None:
    """Other methods are refused before any permission is looked at."""
    headers = {"Authorization": f"Bearer {await user_token(entra, 'User.Read')}"}
    answer = await entra.request(method, f"/v1.0/{path}", headers=headers, json={})
    refused(answer, 405, "Request_BadRequest", "method is not allowed")


# Tokens and permissions


async def test_tokens_are_verified(entra: Caller, clock: Clock) -> None:
    """Missing, malformed, forged, for another audience, an ID token, expired: 401, and the log says why."""
    good = await user_token(entra, "User.Read")
    code = "InvalidAuthenticationToken"
    refused(await entra.request("GET", "/v1.0/me"), 401, code, "Access token is empty.")
    basic = {"Authorization": "Basic eDp4"}
    refused(await entra.request("GET", "/v1.0/me", headers=basic), 401, code, "Access token is empty.")
    refused(await get(entra, "x", "me"), 401, code, "CompactToken parsing failed")
    refused(await get(entra, good[:-20] + "A" * 20, "me"), 401, code, "Access token validation failure.")
    login = (await entra.login("app", "ada")).json
    for other in (login["access_token"], login["id_token"]):
        answer = await get(entra, other, "me")
        refused(answer, 401, code, "Access token validation failure. Invalid audience.")
    assert 'client_id="00000003-0000-0000-c000-000000000000"' in answer.headers["WWW-Authenticate"]
    entry = entra.local.journal.entries()[0]
    assert (entry.grant, entry.granted, entry.target) == ("Microsoft Graph", False, "GET /v1.0/me")
    assert entry.reasons[-1].text == "token has the wrong audience"
    assert "scope=User.Read" in entry.reasons[-1].remedy
    clock.now += 5401
    refused(await get(entra, good, "me"), 401, code, "Lifetime validation failed")


@pytest.mark.parametrize("scope", ["User.Read", f"{URL}/User.Read", f"{URL}//User.Read", "local/User.Read"])
async def test_every_audience_of_graph_is_accepted(entra: Caller, scope: str) -> None:
    """The client id, the address with and without a slash, and this Graph's own."""
    token = await user_token(entra, scope.replace("local", entra.base_url))
    assert (await get(entra, token, "me")).status == 200


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("User.Read", "me memberOf getMemberObjects"),
        ("User.ReadBasic.All", "users users/other"),
        ("User.Read.All", "me users users/other getMemberObjects other/getMemberObjects"),
        ("GroupMember.Read.All", "memberOf other/memberOf groups members"),
        ("Group.Read.All", "memberOf other/memberOf groups members"),
        (
            "Directory.Read.All",
            "me users users/other memberOf other/memberOf groups members getMemberObjects "
            "other/getMemberObjects checkMemberGroups",
        ),
        (
            "User.ReadBasic.All GroupMember.Read.All",
            "users users/other memberOf other/memberOf groups members checkMemberGroups",
        ),
    ],
)
async def test_delegated_permissions(entra: Caller, scope: str, allowed: str) -> None:
    """Graph's table: each path answers with a sufficient permission only."""
    token = await user_token(entra, scope)
    assert await reachable(entra, token) == set(allowed.split())


@pytest.mark.parametrize(
    ("daemon", "allowed"),
    [
        (0, ""),
        (1, "users users/other other/memberOf other/getMemberObjects"),
        (2, "other/memberOf groups members"),
        (3, "users users/other other/memberOf groups members other/getMemberObjects checkMemberGroups"),
        (4, "users users/other other/memberOf groups members other/getMemberObjects checkMemberGroups"),
    ],
)
async def test_application_permissions(entra: Caller, daemon: int, allowed: str) -> None:
    """An application's own token is judged by its roles, and has no `me`."""
    token = await app_token(entra, daemon)
    assert await reachable(entra, token) == set(allowed.split())
    refused(await get(entra, token, "me"), 400, "BadRequest", "/me request is only valid with delegated")
    if not daemon:
        entry = entra.local.journal.entries()[1]
        assert entry.reasons[-1].check == "permission"
        assert "entra-fast/graph-roles of dev-gcp:team:daemon-0" in entry.reasons[-1].remedy


async def reachable(entra: Caller, token: str) -> set[str]:
    """Which requests a token's permissions suffice for."""
    other = "users/kari@trygdeetaten.no"
    body = {"groupIds": [TEAM]}
    answers = {
        "me": await get(entra, token, "me"),
        "users": await get(entra, token, "users"),
        "users/other": await get(entra, token, other),
        "memberOf": await get(entra, token, "me/memberOf"),
        "other/memberOf": await get(entra, token, f"{other}/memberOf"),
        "groups": await get(entra, token, "groups"),
        "members": await get(entra, token, f"groups/{TEAM}/members"),
        "getMemberObjects": await post(entra, token, "me/getMemberObjects", {"securityEnabledOnly": False}),
        "other/getMemberObjects": await post(entra, token, f"{other}/getMemberObjects", {}),
        "checkMemberGroups": await post(entra, token, f"{other}/checkMemberGroups", body),
    }
    for answer in answers.values():
        if answer.status == 403:
            refused(answer, 403, "Authorization_RequestDenied", "Insufficient privileges")
        elif answer.status != 200:
            assert "/me request" in answer.text
    return {name for name, answer in answers.items() if answer.status == 200}


async def test_tenants_are_isolated(entra: Caller) -> None:
    """A token of one tenant sees nothing of another (policy 7)."""
    token = await user_token(entra, "User.ReadBasic.All", "grace", "abroad")
    assert names(await get(entra, token, "users")) == ["Grace Hopper"]
    refused(await get(entra, token, "users/ada@trygdeetaten.no"), 404, "Request_ResourceNotFound")


async def test_a_removed_user(entra: Caller) -> None:
    """The token outlives the user, but finds nobody."""
    token = await user_token(entra, "User.Read")
    entra.local.registry = local_entra(MANIFESTS, DIRECTORY.replace("ada@", "other@")).registry
    refused(await get(entra, token, "me"), 404, "Request_ResourceNotFound")


async def test_the_journal_explains(entra: Caller) -> None:
    """Who called what, with the permission that sufficed; the log's pages show it."""
    await get(entra, await user_token(entra, "User.Read"), "me/memberOf")
    entry = entra.local.journal.entries()[0]
    assert (entry.granted, entry.client, entry.user) == (True, "dev-gcp:team:app", "ada@trygdeetaten.no")
    assert entry.target == "GET /v1.0/me/memberOf"
    assert [reason.text for reason in entry.reasons] == [
        "a token for Microsoft Graph, issued to dev-gcp:team:app on behalf of ada@trygdeetaten.no",
        "the token has User.Read",
    ]
    await get(entra, "x", "me")
    page = (await entra.request("GET", "/log", headers={"Accept": "text/html"})).text
    assert "GET /v1.0/me/memberOf" in page
    assert "✗ refused" in page


async def test_pages_of_other_origins_may_ask(entra: Caller) -> None:
    """A single-page application calls Graph from its own origin: the token is what counts."""
    origin = {"Origin": "https://spa.example", "Sec-Fetch-Site": "cross-site"}
    preflight = await entra.request(
        "OPTIONS", "/v1.0/me", headers={**origin, "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status == 204
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    token = await user_token(entra, "User.Read")
    answer = await entra.request(
        "POST",
        "/v1.0/me/getMemberObjects",
        headers={**origin, "Authorization": f"Bearer {token}"},
        json={"securityEnabledOnly": False},
    )
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")


async def test_groups_overage_is_resolved() -> None:
    """The token points to this Graph, which answers with all groups; the ID token points there, too."""
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(201)]
    groups = "\n".join(f"  - {{name: g{number}, id: {value}}}" for number, value in enumerate(ids))
    members = json.dumps([f"g{number}" for number in range(201)])
    directory = (
        f"tenant: t.no\ngroups:\n{groups}\nusers:\n  - {{name: U, username: u@t.no, groups: {members}}}"
    )
    app = manifest("app", groups=ids, replyURLs=[CALLBACK])
    async with served(local_entra([app], directory)) as entra:
        tokens = await entra.login("app", "u")
        for claims in (tokens.claims, unverified_claims(tokens.json["id_token"])):
            assert "groups" not in claims
            (source,) = claims["_claim_names"].values()
            endpoint = claims["_claim_sources"][source]["endpoint"]
            assert endpoint == f"{entra.base_url}/v1.0/users/{claims['oid']}/getMemberObjects"
        graph = await entra.obo("app", "app", tokens.json["access_token"], scope="User.Read")
        answer = await entra.request(
            "POST",
            endpoint,
            headers={"Authorization": f"Bearer {graph.json['access_token']}"},
            json={"securityEnabledOnly": False},
        )
        assert sorted(answer.json["value"]) == ids


async def test_post_quantum_signatures() -> None:
    """Graph accepts tokens of the algorithm that the provider signs with."""
    local = local_entra(MANIFESTS, DIRECTORY, signing_algorithm="ML-DSA-44")
    async with served(local) as entra:
        assert (await get(entra, await user_token(entra, "User.Read"), "me")).status == 200


async def test_planned_faults(entra: Caller) -> None:
    """Throttling has Graph's form; other faults are those of every endpoint; afterwards all is well."""
    token = await user_token(entra, "User.Read")
    for fault in ({"kind": "throttle", "value": 7}, {"kind": "status", "value": 503}):
        planned = await entra.request(
            "POST", "/admin/api/faults", json={**fault, "endpoint": "graph", "count": 1}
        )
        assert planned.status == 201, planned.text
        if fault["kind"] == "throttle":
            answer = await get(entra, token, "me")
            refused(answer, 429, "TooManyRequests", "Too many requests.")
            assert answer.headers["Retry-After"] == "7"
    assert (await get(entra, token, "me")).status == 503
    assert (await get(entra, token, "me")).status == 200


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "mail",
                "displayName",
                "businessPhones",
                "accountEnabled",
                "eq",
                "in",
                "and",
                "or",
                "not",
                "(",
                ")",
            ]
        )
        | st.sampled_from(["startswith(", "startswith(mail,'a')", "mail eq null", ",", "'a'", "null", "true"])
        | st.text(max_size=5),
        max_size=12,
    )
)
def test_any_filter_is_a_condition_or_refused(words: list[str]) -> None:
    """Nothing that is sent as a filter or a search is an internal error."""
    user = User("id", "Ada", "ada@t.no", None, ())
    for parse, text in ((parse_filter, " ".join(words)), (parse_search, '"' + '" AND "'.join(words) + '"')):
        try:
            condition = parse(USER, text)
        except GraphError:
            continue
        assert condition(user) in (True, False)
