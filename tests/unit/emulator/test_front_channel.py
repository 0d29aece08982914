"""What the authorization endpoint returns itself: ID tokens, access tokens, errors, and by which way."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from entra_fast._native import Policy, Validator, unverified_claims
from support.local_entra import Answer, Caller, Clock, local_entra, manifest, served
from support.pages import Form

from .conftest import CALLBACK

GROUPS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(6)]
DIRECTORY = f"""
tenant: t.no
groups: [{", ".join(f"{{name: g{number}, id: {group}}}" for number, group in enumerate(GROUPS))}]
users:
  - {{name: Ada King Lovelace, username: ada@t.no, navIdent: A1, groups: [g0, g1, g2, g3, g4]}}
  - {{name: Many Groups, username: many@t.no, groups: [g0, g1, g2, g3, g4, g5]}}
  - {{name: Stranger, username: stranger@t.no}}
---
tenant: other.no
users: [{{name: Grace Hopper, username: grace@other.no}}]
"""
ID_TOKENS = {"entra-fast/allow-id-token-implicit-flow": "true"}
BOTH = ID_TOKENS | {"entra-fast/allow-implicit-flow": "true"}


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    texts = [
        manifest("app", groups=GROUPS, replyURLs=[CALLBACK], annotations=BOTH),
        manifest("plain", all_users=True, replyURLs=[CALLBACK]),
        manifest("id-only", all_users=True, replyURLs=[CALLBACK], annotations=ID_TOKENS),
        manifest("api", all_users=True, rules=[{"application": "app"}]),
        manifest("closed", groups=GROUPS[:1], rules=[{"application": "plain"}]),
        manifest("abroad", tenant="other.no", all_users=True, replyURLs=["https://abroad.example/cb"]),
    ]
    async with served(local_entra(texts, DIRECTORY, clock=clock)) as caller:
        yield caller


def fragment(answer: Answer) -> dict[str, str]:
    assert answer.status == 303, answer.text
    return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answer.headers["Location"]).fragment))


def half(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:16]).rstrip(b"=").decode()


def verified(entra: Caller, token: str, application: str) -> dict[str, Any]:
    """The claims of an ID token, verified as the application does it."""
    tenant = entra.tenant_id(application)
    policy = Policy(issuers=[f"{entra.base_url}/{tenant}/v2.0"], audiences=[entra.client_id(application)])
    validator = Validator(policy, entra.local.keyring.key_set)
    return dict(validator.validate(token, entra.local.now()))


async def test_an_id_token(entra: Caller) -> None:
    """Alone, in the fragment, with nonce and sid, and neither hash."""
    parts = fragment(await entra.sign_in("app", "ada", response_type="id_token", scope="openid profile"))
    assert set(parts) == {"id_token", "state", "session_state"}
    claims = verified(entra, parts["id_token"], "app")
    assert (claims["nonce"], claims["sid"]) == ("the-nonce", parts["session_state"])
    assert claims["preferred_username"] == "ada@t.no"
    assert not {"c_hash", "at_hash"} & set(claims)


async def test_a_code_with_an_id_token(entra: Caller) -> None:
    """`c_hash` is that of the code, and the code works; the order of the two words does not matter."""
    for kind in ("code id_token", "id_token code"):
        parts = fragment(await entra.sign_in("app", "ada", response_type=kind))
        assert set(parts) == {"code", "id_token", "state", "session_state"}
        claims = verified(entra, parts["id_token"], "app")
        assert claims["c_hash"] == half(parts["code"])
        later = unverified_claims((await entra.redeem("app", parts["code"])).json["id_token"])
        assert later["sub"] == claims["sub"]
        assert "c_hash" not in later
    assert half("abc") == "ungWv48Bz-pBQUDeXa4iIw"


async def test_an_access_token(entra: Caller) -> None:
    """Type, lifetime and scope come with it, and no refresh token; `at_hash` is its own."""
    scope = f"openid offline_access {entra.scope('api')}"
    parts = fragment(await entra.sign_in("app", "ada", response_type="id_token token", scope=scope))
    names = {"access_token", "token_type", "expires_in", "scope", "id_token", "state", "session_state"}
    assert set(parts) == names
    assert parts["token_type"] == "Bearer"
    assert verified(entra, parts["id_token"], "app")["at_hash"] == half(parts["access_token"])
    claims = unverified_claims(parts["access_token"])
    assert (claims["aud"], claims["azpacr"]) == (entra.client_id("api"), "0")
    entry = entra.local.journal.entries()[0]
    assert (entry.grant, entry.claims["aud"]) == ("login", claims["aud"])


async def test_an_access_token_for_userinfo(entra: Caller) -> None:
    """Without a target application."""
    answer = await entra.sign_in("app", "ada", response_type="id_token token", scope="openid email")
    bearer = {"Authorization": f"Bearer {fragment(answer)['access_token']}"}
    assert (await entra.request("GET", "/oidc/userinfo", headers=bearer)).json["email"] == "ada@t.no"


async def test_by_form(entra: Caller) -> None:
    """`form_post` carries the same members, errors included."""
    answer = await entra.sign_in(
        "app", "ada", response_type="code id_token", response_mode="form_post", client_info="1"
    )
    hidden = Form(answer.text).hidden
    assert set(hidden) == {"code", "id_token", "client_info", "state", "session_state"}
    refused = await entra.sign_in("plain", "ada", response_type="id_token", response_mode="form_post")
    assert Form(refused.text).hidden["error"] == "unsupported_response_type"
    assert Form(refused.text).hidden["state"] == "the-state"


async def test_client_info_with_a_code(entra: Caller) -> None:
    """MSAL's account id, on request."""
    answer = await entra.sign_in("plain", "ada", client_info="1")
    text = answer.location["client_info"]
    assert entra.tenant_id("app") in base64.urlsafe_b64decode(text + "==").decode()


@pytest.mark.parametrize(
    ("application", "changes", "error", "code"),
    [
        ("plain", {"response_type": "id_token"}, "unsupported_response_type", 700054),
        ("plain", {"response_type": "code id_token"}, "unsupported_response_type", 700054),
        ("id-only", {"response_type": "id_token token"}, "unsupported_response_type", 700054),
        ("app", {"response_type": "id_token", "scope": "profile"}, "unsupported_response_type", 70005),
        ("app", {"response_type": "id_token", "nonce": None}, "invalid_request", 90014),
        ("app", {"response_type": "id_token", "scope": None}, "invalid_request", 900144),
        ("app", {"response_type": "id_token", "response_mode": "query"}, "unsupported_response_mode", 70007),
        ("app", {"response_type": "id_token", "prompt": "none"}, "login_required", 50058),
        ("app", {"response_type": "id_token", "resource": "https://x"}, "invalid_request", 901002),
        ("app", {"response_type": "id_token", "max_age": "soon"}, "invalid_request", 9002313),
        ("app", {"response_type": "id_token", "scope": "openid Mail.Read"}, "invalid_client", 650053),
        ("app", {"response_type": "id_token", "claims": "{"}, "invalid_request", 9002313),
    ],
)
async def test_errors_go_back_in_the_fragment(
    entra: Caller, application: str, changes: dict[str, str | None], error: str, code: int
) -> None:
    """Where the response would have gone, with the state."""
    parameters = entra.login_parameters(application, **changes)
    answer = await entra.request("GET", entra.authorize_path(application), params=parameters)
    parts = fragment(answer)
    assert parts["error"] == error
    assert parts["error_description"].startswith(f"AADSTS{code}: ")
    assert parts["state"] == "the-state"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, 700038),
        ({"client_id": None}, 900144),
        ({"redirect_uri": None}, 900971),
        ({"redirect_uri": "https://evil.example/"}, 50011),
        ({"response_mode": "smoke"}, 9002313),
    ],
)
async def test_errors_that_stay_on_the_page(entra: Caller, changes: dict[str, str | None], code: int) -> None:
    """Client and redirect URI are not trusted yet."""
    parameters = entra.login_parameters("app", **changes)
    answer = await entra.request("GET", entra.authorize_path("app"), params=parameters)
    assert (answer.status, "Location" in answer.headers) == (400, False)
    assert f"AADSTS{code}" in answer.text


async def test_many_groups_do_not_fit_into_a_url(entra: Caller) -> None:
    """`hasgroups` above five in the front channel; the token endpoint lists them."""
    five = fragment(await entra.sign_in("app", "ada", response_type="id_token"))
    assert len(unverified_claims(five["id_token"])["groups"]) == 5
    six = fragment(await entra.sign_in("app", "many", response_type="code id_token"))
    claims = unverified_claims(six["id_token"])
    assert (claims["hasgroups"], "groups" in claims) == (True, False)
    later = unverified_claims((await entra.redeem("app", six["code"])).json["id_token"])
    assert (len(later["groups"]), "hasgroups" in later) == (6, False)


async def test_scopes_bring_claims(entra: Caller) -> None:
    """Without `profile`, an ID token has no oid and no names."""
    for scope, present in (("openid", False), ("openid profile", True)):
        parts = fragment(await entra.sign_in("app", "ada", response_type="id_token", scope=scope))
        claims = unverified_claims(parts["id_token"])
        assert [name in claims for name in ("oid", "name", "preferred_username")] == [present] * 3
        assert {"sub", "sid", "tid", "ver", "NAVident"} <= set(claims)


async def test_the_older_endpoint(entra: Caller) -> None:
    """`resource` instead of `scope`, and v1.0 ID tokens with the claims of that version."""
    fields = entra.login_parameters("app", scope=None, resource=f"api://{entra.client_id('api')}")
    path = f"/{entra.tenant_id('app')}/oauth2/authorize"
    fields |= {"response_type": "code id_token", "username": "ada"}
    parts = fragment(await entra.request("POST", path, data=fields))
    claims = unverified_claims(parts["id_token"])
    assert claims["iss"] == f"{entra.base_url}/{entra.tenant_id('app')}/"
    assert (claims["ver"], claims["upn"], claims["unique_name"]) == ("1.0", "ada@t.no", "ada@t.no")
    assert (claims["given_name"], claims["family_name"]) == ("Ada King", "Lovelace")
    assert (claims["amr"], claims["ipaddr"]) == (["pwd"], "127.0.0.1")
    assert "preferred_username" not in claims
    form = {"grant_type": "authorization_code", "code": parts["code"], "redirect_uri": CALLBACK}
    form |= {"code_verifier": "v" * 64, **entra.credentials("app")}
    tokens = await entra.request("POST", path.replace("authorize", "token"), data=form)
    assert tokens.claims["aud"] == f"api://{entra.client_id('api')}"
    assert unverified_claims(tokens.json["id_token"])["ver"] == "1.0"
    only = entra.login_parameters("app", scope=None, response_type="token") | {"username": "ada"}
    assert "access_token" in fragment(await entra.request("POST", path, data=only))


async def test_silent_refusals_have_names_of_their_own(entra: Caller) -> None:
    """With `prompt=none` there is no page: interaction_required and consent_required tell the application
    what to do.
    """
    await entra.sign_in("plain", "stranger")

    async def silent(target: str) -> str:
        scope = f"openid {entra.scope(target)}"
        parameters = entra.login_parameters("plain", scope=scope, prompt="none")
        answer = await entra.request("GET", entra.authorize_path("plain"), params=parameters)
        return answer.location["error"]

    assert await silent("closed") == "interaction_required"
    assert await silent("api") == "consent_required"


async def test_a_permission_that_was_not_granted_is_refused_at_the_login(entra: Caller) -> None:
    """AADSTS65001 with the reason, before there is a code."""
    answer = await entra.sign_in("app", "ada", scope="openid api://dev-gcp.team.api/write")
    assert answer.status == 403
    assert "AADSTS65001" in answer.text
    assert "has not granted the scope" in answer.text


async def test_consent(entra: Caller) -> None:
    """The permissions are shown after the sign-in; Accept gives the code, Cancel is AADSTS65004."""
    scope = f"openid email {entra.scope('api')}"
    asked = await entra.sign_in("app", "ada", prompt="consent", scope=scope)
    assert asked.status == 200
    for text in ("Permissions requested", "defaultaccess", "dev-gcp:team:api", "ada@t.no", "email"):
        assert text in asked.text
    form = Form(asked.text)
    cancelled = await entra.request("POST", form.action, data={**form.hidden, "consent": "cancel"})
    assert cancelled.location["error"] == "access_denied"
    assert cancelled.location["error_description"].startswith("AADSTS65004: ")
    assert entra.local.journal.entries()[0].code == 65004
    accepted = await entra.request("POST", form.action, data={**form.hidden, "consent": "accept"})
    assert (await entra.redeem("app", accepted.location["code"])).status == 200
    again = await entra.request("GET", form.action, params=form.hidden)
    assert "Permissions requested" in again.text


async def test_a_domain_hint(entra: Caller) -> None:
    """Chooses the tenant where the path names none; an unknown one changes nothing."""
    parameters = entra.login_parameters("abroad", domain_hint="other.no")
    path = "/common/oauth2/v2.0/authorize"
    page = (await entra.request("GET", path, params=parameters)).text
    assert "Grace Hopper" in page
    unknown = await entra.request("GET", path, params=parameters | {"domain_hint": "nowhere.no"})
    assert "AADSTS700016" in unknown.text
    own = entra.login_parameters("plain", domain_hint="nowhere.no")
    assert "Stranger" in (await entra.request("GET", path, params=own)).text


async def test_a_login_hint_may_be_the_claim(entra: Caller) -> None:
    """`login_hint` of an ID token, which is opaque, suggests its user; another user is asked for again."""
    requested = '{"id_token":{"login_hint":null,"auth_time":{"essential":true}}}'
    answer = await entra.sign_in("app", "ada", response_type="id_token", claims=requested)
    claims = unverified_claims(fragment(answer)["id_token"])
    assert claims["auth_time"] == int(entra.local.now())
    hint = claims["login_hint"]
    assert "ada" not in hint
    path = entra.authorize_path("app")
    same = entra.login_parameters("app", login_hint=hint)
    assert "code" in (await entra.request("GET", path, params=same)).location
    await entra.sign_in("app", "many")
    other = await entra.request("GET", path, params=same)
    assert 'value="ada@t.no"' in other.text
    for damaged in (hint[:-2], "O.", "O." + "A" * 43, "O.ÿ"):
        assert (await entra.request("GET", path, params=same | {"login_hint": damaged})).status == 303


async def test_max_age(entra: Caller, clock: Clock) -> None:
    """An older session does not do; the ID token then says when the user signed in."""
    await entra.sign_in("app", "ada")
    parameters = entra.login_parameters("app", max_age="60", response_type="id_token")
    path = entra.authorize_path("app")
    signed_in = int(clock.now)
    clock.now += 60
    parts = fragment(await entra.request("GET", path, params=parameters))
    assert unverified_claims(parts["id_token"])["auth_time"] == signed_in
    code = await entra.request("GET", path, params=parameters | {"response_type": "code"})
    later = unverified_claims((await entra.redeem("app", code.location["code"])).json["id_token"])
    assert later["auth_time"] == signed_in
    clock.now += 1
    assert (await entra.request("GET", path, params=parameters)).status == 200
    silent = await entra.request("GET", path, params=parameters | {"prompt": "none"})
    assert fragment(silent)["error"] == "login_required"


async def test_loopback_ports_of_native_applications() -> None:
    """Any port, where the manifest says that it is a public client (RFC 8252, section 7.3); same path and
    host. A code is redeemed without a credential, or with the right one.
    """
    text = manifest(
        "cli",
        all_users=True,
        replyURLs=["http://localhost", "https://cli.example/cb"],
        annotations={"entra-fast/allow-public-client": "true"},
    )
    async with served(local_entra([text], DIRECTORY)) as entra:
        uri = "http://localhost:49152"
        answer = await entra.sign_in("cli", "ada", redirect_uri=uri)
        code = answer.location["code"]
        tokens = await entra.redeem("cli", code, redirect_uri=uri, client_secret=None)
        assert tokens.claims["azpacr"] == "0"
        answer = await entra.sign_in("cli", "ada", redirect_uri=uri)
        wrong = await entra.redeem("cli", answer.location["code"], redirect_uri=uri, client_secret="x")
        assert wrong.code == 7000215
        for other in ("http://localhost:1/x", "http://127.0.0.1:1", "https://cli.example:1/cb"):
            assert "AADSTS50011" in (await entra.sign_in("cli", "ada", redirect_uri=other)).text
