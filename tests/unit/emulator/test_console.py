"""The console and the admin API agree with the token endpoint, and show no secrets."""

from __future__ import annotations

import json
import re
from html import unescape

import pytest

from entra_fast._native import unverified_claims
from entra_fast._web.rendering import SCRIPT, STYLE
from support.local_entra import Caller, local_entra, manifest, served

from .conftest import DIRECTORY

A, B = "dev-gcp:team:app-a", "dev-gcp:team:app-b"
PAGES = [
    "/",
    "/map",
    "/inspect",
    f"/applications/{B}",
    "/users",
    "/log",
    "/explain",
    "/mint",
    "/forge",
    "/faults",
    "/endpoints",
]


def text_of(html: str) -> str:
    return re.sub(
        r"\s+",
        " ",
        unescape(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", html, flags=re.DOTALL)),
    )


@pytest.mark.parametrize("path", PAGES)
async def test_pages_have_the_basics(entra: Caller, path: str) -> None:
    """One h1, a title, a language, a main landmark, a label for every field, no script, nothing loaded
    from elsewhere.
    """
    answer = await entra.request("GET", path)
    assert answer.status == 200
    html = answer.text
    assert html.count("<h1>") == 1
    assert '<html lang="en">' in html
    assert '<main id="content">' in html
    assert html.count("<script>") == 1
    assert f"<script>{SCRIPT}</script>" in html
    assert not re.search(r'(src|href)="(https?:)?//(?!127\.0\.0\.1)', html)
    fields = re.findall(r"<(?:input|select|textarea)[^>]*>", html)
    for field in fields:
        if 'type="hidden"' not in field:
            identifier = re.search(r' id="([^"]+)"', field)
            assert identifier, field
            assert f'for="{identifier[1]}"' in html
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "not for production" in html.lower()


async def test_rules_are_shown_with_their_state(entra: Caller) -> None:
    """Resolved, missing, wildcard, with roles, scopes, file and line."""
    page = text_of((await entra.request("GET", f"/applications/{B}")).text)
    assert "dev-gcp:team:app-a ✓ in force custom-role custom.scope 1.yaml:1" in page
    assert "dev-gcp:team:late ✗ no such application in this tenant" in page
    assert "dev-gcp:team:* ✗ ignored: a wildcard allows no one" in page
    assert (await entra.request("GET", "/applications/dev-gcp:team:unknown")).status == 404


async def test_the_log_says_why(entra: Caller) -> None:
    """Each request is there with its checks, the place and what to change; the page can filter and
    refresh.
    """
    await entra.m2m("app-a", "app-b")
    await entra.m2m("app-c", "app-b")
    page = text_of((await entra.request("GET", "/log")).text)
    assert page.index("AADSTS501051") < page.index("✓ granted")
    refusals = text_of((await entra.request("GET", "/log?outcome=refused")).text)
    assert "✓ granted" not in refusals
    live = (await entra.request("GET", "/log?live=1")).text
    assert "data-live=" in live
    assert "http-equiv" not in live
    entry = text_of((await entra.request("GET", "/log/2")).text)
    assert "dev-gcp:team:app-c is in none of the inbound rules of dev-gcp:team:app-b" in entry
    assert "add to spec.accessPolicy.inbound.rules of dev-gcp:team:app-b: - {application: app-c}" in entry
    assert "(1.yaml:1)" in entry
    assert (await entra.request("GET", "/log/99")).status == 404


async def test_the_page_of_an_error_leads_to_the_reason(entra: Caller) -> None:
    """`error_uri` of a refusal leads here: when it happens, no bare placeholders, a link to the log."""
    answer = await entra.m2m("app-c", "app-b")
    uri = answer.json["error_uri"]
    raw = (await entra.request("GET", uri.removeprefix(entra.base_url))).text
    page = text_of(raw)
    assert "AADSTS501051" in page
    assert "the target does not admit the consumer" in page
    assert not set(page) & set("{}`")
    assert 'href="/log?code=501051"' in raw


async def test_the_log_holds_no_secrets(entra: Caller) -> None:
    """No secrets, assertions, codes, refresh tokens or signed tokens: only decoded claims."""
    login = await entra.sign_in("app-a", "ada")
    code = login.location["code"]
    tokens = (await entra.redeem("app-a", code)).json
    await entra.obo("app-a", "app-b", tokens["access_token"])
    await entra.obo("app-c", "app-b", tokens["access_token"])
    await entra.m2m("app-a", "app-b", client_secret="canary-secret")
    await entra.m2m("app-a", "app-b", scope="canary-is-shown-as-scope")
    pages = [
        (await entra.request("GET", path)).text for path in ("/log", *(f"/log/{n}" for n in range(1, 7)))
    ]
    everything = "".join(pages) + (await entra.request("GET", "/admin/api/log")).text
    secret = entra.credentials("app-a")["client_secret"]
    for canary in (
        code,
        tokens["access_token"],
        tokens["refresh_token"],
        tokens["id_token"],
        secret,
        "canary-secret",
    ):
        assert canary not in everything
        assert canary.rpartition(".")[2] not in everything  # not its signature either
    assert "canary-is-shown-as-scope" in everything


@pytest.mark.parametrize(
    ("consumer", "target", "user", "granted"),
    [
        (A, B, "", True),
        (A, B, "ada", True),
        (A, B, "ola", False),
        (B, A, "", False),
        (A, "nonsense", "", False),
    ],
)
async def test_what_is_explained_is_what_happens(
    entra: Caller, consumer: str, target: str, user: str, granted: bool
) -> None:
    """Page, API and function agree with the token endpoint."""
    query = {"consumer": consumer, "target": target, "user": user}
    page = text_of((await entra.request("GET", "/explain", params=query)).text)
    assert ("✓ granted" in page, "✗ refused" in page) == (granted, not granted)
    api = await entra.request("GET", "/admin/api/explain", params=query)
    assert api.json["granted"] is granted
    explanation = entra.local.explain(consumer, target, user or None)
    assert explanation.granted is granted
    assert explanation.lines()[-1].startswith("granted" if granted else "refused: AADSTS")
    if target == B:
        if user:
            answer = await entra.obo("app-a", "app-b", await entra.user_token("app-a", user))
        else:
            answer = await entra.m2m("app-a", "app-b")
        assert (answer.status == 200) is granted
        if granted:
            same = ("aud", "roles", "scp", "groups", "oid", "sub", "azp")
            assert {name: answer.claims.get(name) for name in same} == {
                name: explanation.claims.get(name) for name in same
            }
        else:
            assert answer.code == api.json["error"]["code"]


async def test_minting_by_clicking(entra: Caller) -> None:
    """The token, its claims and the command; a refusal shows why and gives none."""
    form = {"consumer": A, "target": B, "user": ""}
    html = (await entra.request("POST", "/mint", data=form)).text
    token = re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", html)
    assert token
    assert unverified_claims(token[0])["azp_name"] == A
    assert "access_as_application" in html
    assert "curl -s" in html
    refused = await entra.request("POST", "/mint", data={"consumer": B, "target": A, "user": ""})
    assert refused.status == 403
    assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", refused.text)
    unknown = await entra.request("POST", "/mint", data={"consumer": "x", "target": A})
    assert unknown.status == 400
    assert "there is no application" in text_of(unknown.text)


async def test_a_minted_token_for_graph_comes_with_its_command(entra: Caller) -> None:
    """The admin API gets the same token, on behalf of a user or for the application itself."""
    for user in ("", "ada"):
        form = {"consumer": A, "target": "https://graph.microsoft.com", "user": user}
        page = text_of((await entra.request("POST", "/mint", data=form)).text)
        body = re.search(r"/admin/api/tokens -H 'Content-Type: application/json' -d '(\{.*?\})'", page)
        assert body
        answer = await entra.request("POST", "/admin/api/tokens", data=body[1])
        claims = unverified_claims(answer.json["access_token"])
        assert claims["aud"] == "https://graph.microsoft.com"
        assert ("scp" in claims) is bool(user)


async def test_minting_by_the_api(entra: Caller) -> None:
    """On behalf of a user without a login, for scripts; refusals are 403 with the checks."""
    answer = await entra.request(
        "POST", "/admin/api/tokens", json={"consumer": A, "target": B, "user": "ada"}
    )
    assert unverified_claims(answer.json["access_token"])["scp"] == "defaultaccess custom.scope"
    text = {"Accept": "text/plain"}
    bare = await entra.request(
        "POST", "/admin/api/tokens", json={"consumer": A, "target": B, "user": "ada"}, headers=text
    )
    assert unverified_claims(bare.text)["scp"] == "defaultaccess custom.scope"
    assert bare.headers["Cache-Control"] == "no-store"
    refused = await entra.request(
        "POST", "/admin/api/tokens", json={"consumer": A, "target": B, "user": "ola"}, headers=text
    )
    assert (refused.status, refused.json["access_token"], refused.json["error"]["code"]) == (403, None, 50105)


async def test_faults_clock_and_keys_by_clicking(entra: Caller) -> None:
    """The forms do what the API does; a mistake comes back with a message and what was typed."""
    form = {"action": "add", "kind": "status", "endpoint": "token", "value": "503", "count": "1"}
    assert (await entra.request("POST", "/faults", data=form)).status == 303
    assert "1 more request" in text_of((await entra.request("GET", "/faults")).text)
    assert (await entra.m2m("app-a", "app-b")).status == 503
    wrong = await entra.request("POST", "/faults", data={**form, "value": "many"})
    assert wrong.status == 400
    assert "value: 'many' is not a number" in text_of(wrong.text)
    await entra.request("POST", "/faults", data={"action": "clock", "offset": "-60"})
    assert entra.local.clock_offset == -60
    kid = entra.local.keyring.active.kid
    await entra.request("POST", "/endpoints", data={"action": "rotate"})
    assert entra.local.keyring.active.kid != kid
    await entra.request("POST", "/endpoints", data={"action": "withdraw", "kid": str(kid)})
    assert (kid, "withdrawn") in entra.local.keyring.describe()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/faults"),
        ("POST", "/mint"),
        ("POST", "/inspect"),
        ("POST", "/endpoints"),
        ("POST", "/reload"),
        ("POST", "/admin/api/faults"),
        ("DELETE", "/admin/api/faults"),
        ("GET", f"/admin/api/applications/{A}/environment"),
    ],
)
@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
async def test_foreign_pages_change_nothing(
    entra: Caller, method: str, path: str, headers: dict[str, str]
) -> None:
    """A page of another origin in a developer's browser is refused."""
    assert (await entra.request(method, path, headers=headers)).status == 403


async def test_the_environment_by_the_api(entra: Caller) -> None:
    """Another process gets the same variables as this process to run as an application."""
    answer = await entra.request("GET", f"/admin/api/applications/{A}/environment")
    assert answer.json == entra.running.environment(A)
    federated = await entra.request("GET", f"/admin/api/applications/{A}/federated-token")
    claims = unverified_claims(federated.text)
    assert claims["sub"] == "system:serviceaccount:team:app-a"
    issuer = (await entra.request("GET", claims["iss"] + "/.well-known/openid-configuration")).json
    keys = (await entra.request("GET", issuer["jwks_uri"])).json["keys"]
    assert len(keys) == 1
    unknown = await entra.request("GET", "/admin/api/applications/unknown/environment")
    assert (unknown.status, unknown.json["error"]) == (400, "invalid_request")
    listed = (await entra.request("GET", "/admin/api/applications")).json
    assert A in [item["name"] for item in listed]
    assert "client_secret" not in json.dumps(listed)


async def test_names_are_escaped_everywhere() -> None:
    """Users' and groups' names are text on every page."""
    directory = DIRECTORY.replace("Ada Lovelace", "'<script>alert(1)</script>'").replace(
        "name: other", "name: '<b>'"
    )
    directory = directory.replace("other]", "'<b>']")
    async with served(local_entra([manifest("app-b", all_users=True)], directory)) as entra:
        attack = "<script>alert(1)</script>"
        for path in (
            "/users",
            f"/explain?consumer={attack}&target={attack}",
            f"/log/{attack}",
            f"/applications/{attack}",
        ):
            html = (await entra.request("GET", path, headers={"Accept": "text/html"})).text
            assert "<script>alert" not in html
            assert "<b>" not in html


async def test_unknown_paths(entra: Caller) -> None:
    """404 as a page for browsers, as JSON for programs."""
    page = await entra.request("GET", "/nothing", headers={"Accept": "text/html"})
    assert (page.status, page.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert (await entra.request("GET", "/nothing")).json["error"] == "invalid_request"


async def test_the_log_has_requests_that_were_refused_early(entra: Caller) -> None:
    """Unknown tenants, unreadable bodies and planned faults are in the log, too."""
    form = {"grant_type": "client_credentials", "scope": entra.scope("app-b"), **entra.credentials("app-a")}
    await entra.token(form, "unknown.example")
    await entra.request("POST", "/trygdeetaten.no/oauth2/v2.0/token", data="a=1&a=2")
    entra.local.faults.add("status", value=502, count=1)
    await entra.m2m("app-a", "app-b")
    log = (await entra.request("GET", "/admin/api/log")).json
    assert [(item["granted"], item["code"]) for item in log] == [
        (False, None),
        (False, 9002313),
        (False, 90002),
    ]
    assert "502" in log[0]["message"]
    assert "✗ fault" in text_of((await entra.request("GET", "/log")).text)


async def test_compressed_bodies_are_refused(entra: Caller) -> None:
    """A small body that unpacks to a large one is refused before it is unpacked."""
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    answer = await entra.request("POST", "/trygdeetaten.no/oauth2/v2.0/token", data=b"x", headers=headers)
    assert answer.status == 415


async def test_large_bodies_are_refused(entra: Caller) -> None:
    """413 beyond 128 KiB."""
    answer = await entra.request("POST", "/trygdeetaten.no/oauth2/v2.0/token", data={"a": "x" * 140_000})
    assert answer.status == 413


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's ratio of two colours."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
        channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(scheme: int) -> None:
    """Text of any meaning on any background has a ratio of 4.5 (WCAG 2.2, 1.4.3), borders of fields 3
    (1.4.11).
    """
    palette = dict(re.findall(r"--(\w+): (#\w+)", re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[scheme]))
    for background in ("back", "card"):
        for text in ("text", "soft", "accent", "good", "bad", "warn"):
            assert contrast(palette[text], palette[background]) >= 4.5, (text, background)
        assert contrast(palette["field"], palette[background]) >= 3
    for meaning in ("good", "bad", "warn"):
        for text in ("text", meaning):
            assert contrast(palette[text], palette[meaning + "back"]) >= 4.5, (text, meaning)
    assert contrast(palette["text"], palette["code"]) >= 4.5
    assert contrast(palette["accent"], palette["tint"]) >= 4.5
    assert contrast(palette["accenttext"], palette["accent"]) >= 4.5
