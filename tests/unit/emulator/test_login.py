"""The authorization endpoint: login page, codes, PKCE, sessions, signing out, and attacks on them."""

from __future__ import annotations

import re
import urllib.parse
from html import unescape

import aiohttp
import pytest

from entra_fast._native import unverified_claims
from support.local_entra import (
    ASSERTION_TYPE,
    CHALLENGE,
    VERIFIER,
    Answer,
    Caller,
    Clock,
    local_entra,
    manifest,
    served,
)
from support.pages import Form

from .conftest import CALLBACK, DIRECTORY


def visible(html: str) -> str:
    """The text of a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)))


async def authorize(entra: Caller, application: str, **changes: str | None) -> Answer:
    parameters = entra.login_parameters(application, **changes)
    return await entra.request("GET", entra.authorize_path(application), params=parameters)


async def test_the_login_page_shows_which_users_are_allowed(entra: Caller) -> None:
    """Users are listed with their groups and with the decision about each, before one is chosen."""
    scope = f"openid {entra.scope('app-b')}"
    page = visible((await authorize(entra, "app-a", scope=scope)).text)
    assert "Ada Lovelace ada@trygdeetaten.no · A100001 everyone, group-b, other" in page
    assert "✓ dev-gcp:team:app-b allows this user" in page
    assert "ola@trygdeetaten.no is a direct member of none of the groups of dev-gcp:team:app-b" in page


async def test_a_login_gives_tokens(entra: Caller) -> None:
    """Code for tokens: id token with nonce and sid, access token for the target, refresh token."""
    answer = await entra.sign_in("app-a", "ada")
    assert answer.status == 303
    assert answer.headers["Location"].startswith(CALLBACK + "?")
    assert answer.location["state"] == "the-state"
    tokens = await entra.redeem("app-a", answer.location["code"])
    body = tokens.json
    assert set(body) == {
        "token_type",
        "expires_in",
        "ext_expires_in",
        "access_token",
        "scope",
        "id_token",
        "refresh_token",
        "refresh_token_expires_in",
    }
    claims = unverified_claims(body["id_token"])
    assert claims["aud"] == entra.client_id("app-a")
    assert claims["nonce"] == "the-nonce"
    assert claims["sid"] == answer.location["session_state"]
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["sub"] == tokens.claims["sub"]
    assert claims["sub"] != claims["oid"] == tokens.claims["oid"]


@pytest.mark.parametrize(
    ("typed", "status"),
    [("ada@trygdeetaten.no", 303), ("ADA", 303), ("A100001", 303), ("nobody", 400), ("", 400)],
)
async def test_ways_to_name_a_user(entra: Caller, typed: str, status: int) -> None:
    """User name, its first part, NAV ident; anything else shows the page again with a message."""
    answer = await entra.sign_in("app-a", typed)
    assert answer.status == status
    if status == 400:
        assert "There is no user" in answer.text


async def test_a_code_works_once(entra: Caller) -> None:
    """The second redemption is AADSTS54005."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    assert (await entra.redeem("app-a", code)).status == 200
    assert (await entra.redeem("app-a", code)).code == 54005


async def test_a_code_expires(entra: Caller, clock: Clock) -> None:
    """After ten minutes it is AADSTS70008, as for a code that never existed."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    clock.now += 601
    assert (await entra.redeem("app-a", code)).code == 70008
    assert (await entra.redeem("app-a", "never-existed")).code == 70008


async def test_a_code_is_for_its_client(entra: Caller) -> None:
    """Another client cannot redeem it, and the attempt leaves it usable for the right one."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    stolen = await entra.redeem("app-a", code, **entra.credentials("app-b"))
    assert stolen.code == 70000
    assert (await entra.redeem("app-a", code)).status == 200


async def test_a_code_is_for_its_redirect_uri(entra: Caller) -> None:
    """RFC 6749, section 4.1.3: the redirect URI is repeated exactly."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    assert (await entra.redeem("app-a", code, redirect_uri=CALLBACK + "/")).code == 500112
    assert (await entra.redeem("app-a", code, redirect_uri=None)).code == 900144
    assert (await entra.redeem("app-a", code)).status == 200


@pytest.mark.parametrize("verifier", [None, "w" * 64, "short", VERIFIER + "="])
async def test_pkce_is_enforced(entra: Caller, verifier: str | None) -> None:
    """A wrong, short or missing code_verifier is AADSTS501481 (RFC 7636)."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    assert (await entra.redeem("app-a", code, code_verifier=verifier)).code == 501481


async def test_pkce_cannot_be_downgraded(entra: Caller) -> None:
    """A verifier for a code that was asked for without challenge is refused (RFC 9700, section 4.8.2)."""
    answer = await entra.sign_in("app-a", "ada", code_challenge=None, code_challenge_method=None)
    code = answer.location["code"]
    assert (await entra.redeem("app-a", code)).code == 501481
    assert (await entra.redeem("app-a", code, code_verifier=None)).status == 200


async def test_plain_challenges(entra: Caller) -> None:
    """`plain`, also when the method is left out, compares the verifier itself."""
    answer = await entra.sign_in("app-a", "ada", code_challenge=VERIFIER, code_challenge_method=None)
    assert (await entra.redeem("app-a", answer.location["code"])).status == 200


async def test_single_page_applications_are_public_clients(entra: Caller) -> None:
    """They need no secret but PKCE with S256, and may be asked from their own origin only."""
    answer = await entra.sign_in("spa", "ada")
    tokens = await entra.redeem("spa", answer.location["code"])
    assert tokens.claims["azpacr"] == "0"
    without = await authorize(entra, "spa", code_challenge=None, code_challenge_method=None)
    assert "AADSTS9002325" in without.location["error_description"]
    path = f"/{entra.tenant_id('spa')}/oauth2/v2.0/token"
    own = await entra.request("OPTIONS", path, headers={"Origin": "http://localhost:3002"})
    assert own.headers["Access-Control-Allow-Origin"] == "http://localhost:3002"
    assert "x-requested-with" in own.headers["Access-Control-Allow-Headers"], "Swagger UI sends it"
    foreign = await entra.request("OPTIONS", path, headers={"Origin": "http://localhost:9999"})
    assert "Access-Control-Allow-Origin" not in foreign.headers


@pytest.mark.parametrize(
    "uri",
    [
        CALLBACK + "/",
        CALLBACK + "?x=1",
        CALLBACK.replace("3001", "3009"),
        CALLBACK.replace("http:", "https:"),
        CALLBACK + "#",
        "http://localhost:3001@evil.example/oauth2/callback",
        "https://evil.example/",
        "//evil.example",
        "javascript:alert(1)",
    ],
)
async def test_redirect_uris_are_exact(entra: Caller, uri: str) -> None:
    """AADSTS50011 on a page, never a redirect (open redirect)."""
    answer = await authorize(entra, "app-a", redirect_uri=uri)
    assert answer.status == 400
    assert "Location" not in answer.headers
    assert "AADSTS50011" in answer.text
    assert CALLBACK in answer.text  # what would have been accepted


async def test_an_unknown_client_is_not_redirected(entra: Caller) -> None:
    """AADSTS700016 on a page."""
    answer = await authorize(entra, "app-a", client_id="nobody")
    assert (answer.status, "Location" in answer.headers) == (400, False)
    assert "nobody" in answer.text


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type", 700054),
        ({"scope": ""}, "invalid_request", 900144),
        ({"scope": "api://dev-gcp.team.unknown/.default"}, "invalid_resource", 500011),
        ({"prompt": "sometimes"}, "invalid_request", 9002313),
        ({"code_challenge": "short"}, "invalid_request", 9002313),
        ({"code_challenge_method": "S512"}, "invalid_request", 9002313),
        ({"code_challenge": None}, "invalid_request", 9002313),
        ({"prompt": "none"}, "login_required", 50058),
    ],
)
async def test_other_errors_go_back(
    entra: Caller, changes: dict[str, str | None], error: str, code: int
) -> None:
    """RFC 6749, section 4.1.2.1: error, description and state, at the redirect URI."""
    answer = await authorize(entra, "app-a", **changes)
    assert answer.status == 303
    assert answer.headers["Location"].startswith(CALLBACK + "?")
    assert answer.location["error"] == error
    assert answer.location["error_description"].startswith(f"AADSTS{code}:")
    assert answer.location["state"] == "the-state"


async def test_the_session_saves_the_second_login(entra: Caller) -> None:
    """Once signed in, the next login needs no click; `prompt` and a `login_hint` for another user ask
    again.
    """
    await entra.sign_in("app-a", "ada")
    assert "code" in (await authorize(entra, "app-a")).location
    assert "code" in (await authorize(entra, "app-a", prompt="none")).location
    assert "code" in (await authorize(entra, "app-a", login_hint="ada")).location
    for changes in ({"prompt": "login"}, {"prompt": "select_account"}, {"login_hint": "ola"}):
        answer = await authorize(entra, "app-a", **changes)
        assert (answer.status, "Sign in" in answer.text) == (200, True)


async def test_a_session_ends(entra: Caller, clock: Clock) -> None:
    """After eight hours the page is shown again."""
    await entra.sign_in("app-a", "ada")
    clock.now += 8 * 3600 + 1
    assert (await authorize(entra, "app-a")).status == 200


async def test_a_session_is_for_one_tenant(entra: Caller) -> None:
    """A session in one tenant does not exist in the other."""
    await entra.sign_in("app-a", "ada")
    assert (await authorize(entra, "abroad", prompt="none")).location["error"] == "login_required"


async def test_the_session_cookie(entra: Caller) -> None:
    """HttpOnly, SameSite=Lax, and not longer than the session."""
    cookie = (await entra.sign_in("app-a", "ada")).headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Max-Age=28800", "Path=/"))


async def test_a_refused_user_sees_why(entra: Caller) -> None:
    """AADSTS50105 on a page that names the group that is missing and the place in the manifest."""
    answer = await entra.sign_in("app-a", "ola", scope=f"openid {entra.scope('app-b')}")
    assert answer.status == 403
    page = visible(answer.text)
    assert "AADSTS50105" in page
    assert "'group-b'" in page
    assert "1.yaml:1" in page
    assert "What to change" in page
    silent = await authorize(entra, "app-a", scope=f"openid {entra.scope('app-b')}", prompt="none")
    assert silent.location["error"] == "interaction_required"


async def test_fragment_and_form_post(entra: Caller) -> None:
    """The other response modes carry the same fields; form_post escapes them and needs no script."""
    fragment = await entra.sign_in("app-a", "ada", response_mode="fragment")
    assert urllib.parse.urlsplit(fragment.headers["Location"]).fragment.startswith("code=")
    posted = await entra.sign_in(
        "app-a", "ada", response_mode="form_post", state='"><script>alert(1)</script>'
    )
    assert posted.status == 200
    assert f'action="{CALLBACK}"' in posted.text
    assert Form(posted.text).hidden["state"] == '"><script>alert(1)</script>'
    assert "alert(1)&lt;/script&gt;" in posted.text
    assert "<script>alert(1)" not in posted.text
    assert "Continue" in posted.text


@pytest.mark.parametrize("field", ["state", "nonce", "login_hint", "redirect_uri", "client_id", "username"])
async def test_nothing_is_injected(entra: Caller, field: str) -> None:
    """HTML in any parameter comes back escaped."""
    attack = '"><script>alert(1)</script>'
    if field == "username":
        answer = await entra.sign_in("app-a", attack)
    else:
        answer = await authorize(entra, "app-a", **{field: attack})
    assert "<script>alert" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_names_from_manifests_and_directory_are_escaped() -> None:
    """A user's name is text, whatever it looks like."""
    directory = """
    tenant: trygdeetaten.no
    groups: [{name: "<b>group</b>", id: 00000000-0000-4000-8000-0000000000a1, allUsers: true}]
    users: [{name: "<img src=x onerror=alert(1)>", username: x@y.no}]
    """
    texts = [manifest("app", all_users=True, replyURLs=[CALLBACK])]
    async with served(local_entra(texts, directory)) as entra:
        page = (await authorize(entra, "app")).text
        assert "<img" not in page
        assert "&lt;img src=x onerror=alert(1)&gt;" in page
        assert "&lt;b&gt;group" in page


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
async def test_foreign_pages_cannot_sign_in(entra: Caller, headers: dict[str, str]) -> None:
    """Login CSRF: a form on another site is refused."""
    fields = {**entra.login_parameters("app-a"), "username": "ada"}
    answer = await entra.request("POST", entra.authorize_path("app-a"), data=fields, headers=headers)
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_foreign_host_names_are_refused(entra: Caller) -> None:
    """DNS rebinding: a page on another name that resolves to this machine gets nothing."""
    answer = await entra.request("GET", "/", headers={"Host": "evil.example"})
    assert answer.status == 403


async def test_signing_out(entra: Caller) -> None:
    """The session ends; the browser returns only to a registered redirect URI."""
    await entra.sign_in("app-a", "ada")
    path = f"/{entra.tenant_id('app-a')}/oauth2/v2.0/logout"
    back = {"post_logout_redirect_uri": CALLBACK, "state": "s", "logout_hint": "ada"}
    answer = await entra.request("GET", path, params=back)
    assert answer.headers["Location"] == f"{CALLBACK}?state=s"
    assert (await authorize(entra, "app-a")).status == 200
    for uri in (
        "https://evil.example/",
        "http://localhost:3001/bye",
        CALLBACK + "/",
        "http://localhost:3001@evil.example/",
        "javascript:alert(1)",
        "//evil.example",
    ):
        answer = await entra.request("GET", path, params={"post_logout_redirect_uri": uri})
        assert (answer.status, "Location" in answer.headers) == (200, False)


async def test_refresh_tokens(entra: Caller, clock: Clock) -> None:
    """They give new tokens for the same or another target, rotate, expire after a day, and belong to their
    client."""
    first = (await entra.login("app-a", "ada")).json
    form = {
        "grant_type": "refresh_token",
        "refresh_token": first["refresh_token"],
        **entra.credentials("app-a"),
    }
    again = await entra.token(form)
    assert again.claims["aud"] == entra.client_id("app-a")
    assert again.json["refresh_token"] != first["refresh_token"]
    assert "nonce" not in unverified_claims(again.json["id_token"])
    other = await entra.token({**form, "scope": entra.scope("app-b")})
    assert other.claims["aud"] == entra.client_id("app-b")
    assert (await entra.token({**form, **entra.credentials("app-c")})).code == 70000
    clock.now += 86401
    assert (await entra.token(form)).code == 70008


async def test_userinfo(entra: Caller) -> None:
    """The token of a login without a target application is valid for userinfo; others are refused with a
    challenge."""
    tokens = (await entra.login("app-a", "ada", scope="openid profile email")).json
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    answer = await entra.request("GET", "/oidc/userinfo", headers=bearer)
    assert answer.json["name"] == "Ada Lovelace"
    assert answer.json["email"] == "ada@trygdeetaten.no"
    wrong = {"Authorization": f"Bearer {await entra.user_token('app-a', 'ada')}"}
    refused = await entra.request("GET", "/oidc/userinfo", headers=wrong)
    assert refused.status == 401
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert (await entra.request("GET", "/oidc/userinfo")).status == 401
    for claim in ("oid", "sub", "tid"):
        forged = entra.local.forge(
            entra.name("app-a"), audience="https://graph.microsoft.com", user="ada", claims={claim: None}
        )
        bearer = {"Authorization": f"Bearer {forged.token}"}
        answer = await entra.request("GET", "/oidc/userinfo", headers=bearer)
        assert answer.status == 401
        assert f"'{claim}'" in answer.json["error_description"]


async def test_a_removed_user_gets_nothing(clock: Clock) -> None:
    """Refresh tokens end with the user, and with the group membership."""
    texts = [manifest("app", groups=["00000000-0000-4000-8000-0000000000b1"], replyURLs=[CALLBACK])]
    local = local_entra(texts, DIRECTORY, clock=clock)
    async with served(local) as entra:
        refresh = (await entra.login("app", "ada")).json["refresh_token"]
        form = {"grant_type": "refresh_token", "refresh_token": refresh, **entra.credentials("app")}
        assert (await entra.token(form)).status == 200
        local.registry = local_entra(
            texts, DIRECTORY.replace("groups: [group-b, other]", "groups: []")
        ).registry
        assert (await entra.token(form)).code == 50105
        local.registry = local_entra(texts, DIRECTORY.replace("ada@", "eve@")).registry
        assert (await entra.token(form)).code == 50034


def test_the_challenge_of_these_tests_is_right() -> None:
    """RFC 7636, appendix B has the same shape: 43 characters, no padding."""
    assert len(CHALLENGE) == 43


async def test_a_replayed_code_withdraws_its_refresh_token(entra: Caller) -> None:
    """The code has leaked: the refresh token that it gave is withdrawn (RFC 6749, section 4.1.2)."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    refresh = (await entra.redeem("app-a", code)).json["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh, **entra.credentials("app-a")}
    assert (await entra.token(form)).status == 200
    assert (await entra.redeem("app-a", code)).code == 54005
    assert (await entra.token(form)).code == 70008


async def test_a_replayed_code_withdraws_every_token_that_descends_from_it(entra: Caller) -> None:
    """Rotated refresh tokens as well, of any generation, and by whomever the code is replayed; those of
    another login stay (RFC 9700, section 4.14.2)."""
    code = (await entra.sign_in("app-a", "ada")).location["code"]
    tokens = [(await entra.redeem("app-a", code)).json["refresh_token"]]
    other = (await entra.login("app-a", "ada")).json["refresh_token"]

    async def refreshed(token: str) -> Answer:
        form = {"grant_type": "refresh_token", "refresh_token": token, **entra.credentials("app-a")}
        return await entra.token(form)

    for _ in range(3):
        tokens.append((await refreshed(tokens[-1])).json["refresh_token"])
    tokens.append((await refreshed(tokens[0])).json["refresh_token"])  # a second branch
    replay = await entra.redeem("app-a", code, **entra.credentials("app-c"))
    assert replay.code == 54005
    assert [(await refreshed(token)).code for token in tokens] == [70008] * 5
    assert (await refreshed(other)).status == 200
    assert (await entra.redeem("app-a", code)).code == 54005


async def test_a_refresh_token_is_agreed_to_at_the_login(entra: Caller) -> None:
    """Neither a code nor a refresh token gives more than the login: `offline_access` cannot be added later
    (RFC 6749, section 6), and a permission needs the target's rule."""
    scope = f"openid {entra.scope('app-a')}"
    code = (await entra.sign_in("app-a", "ada", scope=scope)).location["code"]
    tokens = (await entra.redeem("app-a", code, scope=f"{scope} offline_access")).json
    assert "access_token" in tokens
    assert "refresh_token" not in tokens
    refresh = (await entra.login("app-a", "ada")).json["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh, **entra.credentials("app-a")}
    wider = await entra.token({**form, "scope": "api://dev-gcp.team.app-b/other"})
    assert (wider.code, wider.json["error"]) == (65001, "invalid_grant")
    assert (await entra.token({**form, "scope": entra.scope("app-nobody")})).code == 65001


async def test_a_single_page_application_sends_no_credential(entra: Caller) -> None:
    """AADSTS700025 with a right secret, a wrong one, in a header or as an assertion: a browser has none to
    keep. The code stays usable."""
    code = (await entra.sign_in("spa", "ada")).location["code"]
    own = entra.credentials("spa")
    attempts: list[dict[str, str | None]] = [
        {"client_secret": own["client_secret"]},
        {"client_secret": "wrong"},
        {"client_assertion": entra.assertion("spa")},
        {"client_assertion_type": ASSERTION_TYPE},
    ]
    for changes in attempts:
        answer = await entra.redeem("spa", code, **changes)
        assert (answer.status, answer.code, answer.json["error"]) == (401, 700025, "invalid_client")
    basic = {"Authorization": aiohttp.encode_basic_auth(own["client_id"], own["client_secret"])}
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": "http://localhost:3002/",
        "code_verifier": VERIFIER,
    }
    assert (await entra.token(form, entra.tenant_id("spa"), headers=basic)).code == 700025
    tokens = await entra.redeem("spa", code)
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens.json["refresh_token"]}
    assert (await entra.token({**refresh, **own})).code == 700025
    alone = {**refresh, "client_id": own["client_id"]}
    assert (await entra.token(alone, headers=entra.origin("spa"))).status == 200


async def test_repeated_parameters_are_refused(entra: Caller) -> None:
    """Two redirect URIs, one good and one bad, lead nowhere (RFC 6749, section 3.1)."""
    parameters = [*entra.login_parameters("app-a").items(), ("redirect_uri", "https://evil.example/")]
    answer = await entra.request("GET", entra.authorize_path("app-a"), params=parameters)
    assert (answer.status, "Location" in answer.headers) == (400, False)
    assert "is repeated" in answer.text
