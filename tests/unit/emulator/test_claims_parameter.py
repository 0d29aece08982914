"""The `claims` parameter: a claims challenge that a client passes on is answered, in every flow."""

from __future__ import annotations

import json
from typing import Any

import pytest

from entra_fast._native import unverified_claims
from support.local_entra import Caller

C1 = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
CAPABLE = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
BOTH = '{"access_token":{"acrs":{"essential":true,"values":["c1","c2"]},"xms_cc":{"values":["cp1"]}}}'


def honored(claims: dict[str, Any]) -> tuple[Any, Any]:
    return claims.get("acrs"), claims.get("xms_cc")


async def test_at_the_token_endpoint(entra: Caller) -> None:
    """In each grant; without the parameter there is nothing."""
    assert honored((await entra.m2m("app-a", "app-b")).claims) == (None, None)
    assert honored((await entra.m2m("app-a", "app-b", claims=CAPABLE)).claims) == (None, ["cp1"])
    token = await entra.user_token("app-a", "ada")
    assert honored((await entra.obo("app-a", "app-b", token, claims=C1)).claims) == (["c1"], None)
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    answer = await entra.redeem("app-a", code, claims=BOTH)
    assert honored(answer.claims) == (["c1", "c2"], ["cp1"])
    form = {"grant_type": "refresh_token", "refresh_token": answer.json["refresh_token"]}
    form |= entra.credentials("app-a")
    assert honored((await entra.token({**form, "claims": C1})).claims) == (["c1"], None)
    assert honored((await entra.token(form)).claims) == (None, None)


async def test_at_the_authorization_endpoint(entra: Caller) -> None:
    """What the login was for holds for its tokens, and adds to what each request asks for."""
    code = (await entra.sign_in("app-a", "ada", claims=C1)).location["code"]
    answer = await entra.redeem("app-a", code, claims=CAPABLE)
    assert honored(answer.claims) == (["c1"], ["cp1"])
    form = {"grant_type": "refresh_token", "refresh_token": answer.json["refresh_token"]}
    form |= entra.credentials("app-a")
    assert honored((await entra.token(form)).claims) == (["c1"], None)


async def test_the_whole_challenge(entra: Caller) -> None:
    """A refusal has `claims`; passed on by an interactive login, they are accepted."""
    entra.local.faults.add("aadsts", value=50076, count=1)
    refused = await entra.m2m("app-a", "app-b")
    assert (refused.code, refused.json["suberror"]) == (50076, "basic_action")
    challenge = refused.json["claims"]
    code = (await entra.sign_in("app-a", "ada", claims=challenge)).location["code"]
    assert (await entra.redeem("app-a", code)).status == 200


@pytest.mark.parametrize(
    "claims",
    [
        "{",
        "[]",
        '"c1"',
        "null",
        '{"access_token":[]}',
        '{"access_token":{"acrs":"c1"}}',
        '{"access_token":{"acrs":{"essential":"yes","value":"c1"}}}',
        '{"access_token":{"acrs":{"value":1}}}',
        '{"access_token":{"acrs":{"value":"c1 c2"}}}',
        '{"access_token":{"acrs":{"values":"c1"}}}',
        json.dumps({"access_token": {"acrs": {"values": [f"c{number}" for number in range(26)]}}}),
        '{"access_token":{"acrs":{"value":"' + "c" * 8192 + '"}}}',
        "[" * 4000,
    ],
)
async def test_malformed_claims(entra: Caller, claims: str) -> None:
    """AADSTS9002313 at both endpoints, and nothing of it is repeated."""
    answer = await entra.m2m("app-a", "app-b", claims=claims)
    assert (answer.status, answer.code, answer.json["error"]) == (400, 9002313, "invalid_request")
    assert "'claims'" in answer.json["error_description"]
    if len(claims) > 2000:
        return  # too long for a URL
    parameters = entra.login_parameters("app-a", claims=claims)
    login = await entra.request("GET", entra.authorize_path("app-a"), params=parameters)
    assert login.location["error"] == "invalid_request"


@pytest.mark.parametrize(
    "claims",
    [
        "{}",
        '{"userinfo":{"email":null}}',
        '{"access_token":null,"id_token":{"acr":{"values":["urn:x y"]}}}',
        '{"access_token":{"nbf":{"essential":true,"value":"1604106651"},"polids":{"values":["x"]}}}',
        '{"unknown":[1]}',
        "",
    ],
)
async def test_other_claims_are_ignored(entra: Caller, claims: str) -> None:
    """They are valid, and Entra ID takes them as well."""
    assert honored((await entra.m2m("app-a", "app-b", claims=claims)).claims) == (None, None)


async def test_claims_of_the_id_token(entra: Caller) -> None:
    """`auth_time`, `login_hint` and authentication contexts come on request."""
    wanted = '{"id_token":{"auth_time":{"essential":true},"login_hint":null,"acrs":{"value":"c2"}}}'
    tokens = (await entra.login("app-a", "ada", claims=wanted)).json
    claims = unverified_claims(tokens["id_token"])
    assert claims["auth_time"] == int(entra.local.now())
    assert claims["login_hint"].startswith("O.")
    assert claims["acrs"] == ["c2"]
    usual = unverified_claims((await entra.login("app-a", "ada")).json["id_token"])
    assert not {"auth_time", "login_hint"} & set(usual)
