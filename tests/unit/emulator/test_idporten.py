"""The local ID-porten over HTTP: discovery, registration, logins, tokens, sessions, signing out."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio

from entra_fast._native import unverified_claims
from entra_fast.emulator import SourceError
from entra_fast.emulator.protocol.private_key import PrivateKey
from entra_fast.errors import ConfigurationError
from support.idporten import (
    APP,
    CALLBACK,
    HIGH,
    INGRESS,
    LOW,
    PID,
    SUBSTANTIAL,
    Browser,
    RelyingParty,
    frames,
    idporten_manifest,
    idporten_served,
    query_of,
)
from support.keys import Key
from support.local_entra import Answer, Clock, local_entra
from support.pages import Form

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOCAL_CALLBACK = "http://localhost:3000/oauth2/callback"
PUBLIC = "dev-gcp:team:public"
OTHER = "dev-gcp:team:other"
MANIFESTS = (
    idporten_manifest(),
    idporten_manifest(
        "other",
        idporten={"enabled": True, "sidecar": {"enabled": True, "level": "Level3", "locale": "nn"}},
        annotations={
            "entra-fast/idporten-redirect-uris": LOCAL_CALLBACK,
            "entra-fast/organization-number": "310000027",
        },
    ),
    idporten_manifest(
        "public",
        annotations={
            "entra-fast/idporten-public-client": "true",
            "entra-fast/idporten-redirect-uris": "http://localhost:5173/",
        },
    ),
)


class World:
    """A provider whose clock the test moves."""

    def __init__(self, browser: Browser, clock: Clock) -> None:
        self.browser = browser
        self.clock = clock


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served_once() -> AsyncIterator[World]:
    clock = Clock()
    async with idporten_served(*MANIFESTS, clock=clock) as browser:
        yield World(browser, clock)


@pytest_asyncio.fixture(loop_scope="session")
async def world(served_once: World) -> World:
    """Without sessions of other tests."""
    served_once.browser.caller.local.reset()
    served_once.browser.caller.session.cookie_jar.clear()
    return served_once


@pytest_asyncio.fixture(loop_scope="session")
async def browser(world: World) -> Browser:
    return world.browser


@pytest_asyncio.fixture(loop_scope="session")
async def party(browser: Browser) -> RelyingParty:
    return await RelyingParty.start(browser)


def refused(answer: Answer, error: str, text: str) -> None:
    """A refusal of token endpoint or PAR: its shape is that of recorded answers."""
    assert answer.status == 400, answer.text
    assert answer.json.keys() == {"error", "error_description"}
    assert answer.json["error"] == error, answer.text
    sentence, correlation = re.fullmatch(
        r"(.*)\. \(correlation id: ([0-9a-f-]{36})\)", answer.json["error_description"]
    ).groups()  # type: ignore[union-attr]
    assert text in sentence, sentence
    uuid.UUID(correlation)


# Documents


async def test_discovery(browser: Browser) -> None:
    """The members of test.idporten.no; the issuer has no slash at the end; also where RFC 8414 puts it."""
    issuer = browser.issuer
    answers = [
        await browser.request("GET", path, headers={"Origin": "https://anywhere.example"})
        for path in (
            "/idporten/.well-known/openid-configuration",
            "/idporten/.well-known/oauth-authorization-server",
            "/.well-known/openid-configuration/idporten",
            "/.well-known/oauth-authorization-server/idporten",
        )
    ]
    document = answers[0].json
    assert all(answer.json == document for answer in answers)
    assert answers[0].headers["Access-Control-Allow-Origin"] == "*"
    assert document["issuer"] == issuer
    endpoints = {
        "authorization_endpoint": "authorize",
        "token_endpoint": "token",
        "pushed_authorization_request_endpoint": "par",
        "userinfo_endpoint": "userinfo",
        "jwks_uri": "jwks.json",
        "end_session_endpoint": "logout",
    }
    assert {name: document[name] for name in endpoints} == {
        name: f"{issuer}/{path}" for name, path in endpoints.items()
    }
    lists = {
        "acr_values": [
            f"{kind}-loa-{level}"
            for kind in ("idporten", "eidas")
            for level in ("low", "substantial", "high")
        ],
        "ui_locales": ["en", "nb", "nn", "se"],
        "response_types": ["code"],
        "response_modes": ["query", "form_post"],
        "grant_types": ["authorization_code", "refresh_token"],
        "code_challenge_methods": ["S256"],
        "subject_types": ["public", "pairwise"],
        "token_endpoint_auth_methods": [
            "client_secret_basic",
            "client_secret_post",
            "none",
            "private_key_jwt",
        ],
        "id_token_signing_alg_values": ["RS256"],
        "token_endpoint_auth_signing_alg_values": ["RS256"],
    }
    assert {name: document[f"{name}_supported"] for name in lists} == lists
    for name in (
        "frontchannel_logout",
        "frontchannel_logout_session",
        "authorization_response_iss_parameter",
    ):
        assert document[f"{name}_supported"] is True
    for name in ("request_parameter", "request_uri_parameter"):
        assert document[f"{name}_supported"] is False
    preflight = await browser.request("OPTIONS", "/idporten/jwks.json")
    assert preflight.status == 204


async def test_keys(browser: Browser) -> None:
    """RSA keys for signatures, with `alg`."""
    answer = await browser.request("GET", "/idporten/jwks.json")
    for key in answer.json["keys"]:
        assert key.keys() == {"kty", "e", "use", "kid", "alg", "n"}
        assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")


# Registration


async def test_environment(browser: Browser) -> None:
    """What NAIS injects into the application, and into its login proxy."""
    provider, issuer = browser.provider, browser.issuer
    assert provider.environment(APP) == {
        "IDPORTEN_ENABLED": "true",
        "IDPORTEN_AUDIENCE": "https://nav.no",
        "IDPORTEN_WELL_KNOWN_URL": f"{issuer}/.well-known/openid-configuration",
        "IDPORTEN_ISSUER": issuer,
        "IDPORTEN_JWKS_URI": f"{issuer}/jwks.json",
    }
    proxy = provider.login_proxy_environment(OTHER)
    assert proxy["IDPORTEN_REDIRECT_URI"] == "https://other.example/oauth2/callback"
    assert proxy["WONDERWALL_OPENID_ACR_VALUES"] == SUBSTANTIAL  # Level3 in the manifest
    assert proxy["WONDERWALL_OPENID_UI_LOCALES"] == "nn"
    assert proxy["WONDERWALL_OPENID_RESOURCE_INDICATOR"] == "https://nav.no"
    assert "WONDERWALL_AUTO_LOGIN" not in proxy
    assert provider.environment("dev-gcp:team:portl") == {"IDPORTEN_ENABLED": "false"}
    assert browser.caller.local.environment(APP)["IDPORTEN_ENABLED"] == "true"
    with pytest.raises(ConfigurationError, match="'dev-gcp:team:portl' that uses ID-porten; did you mean"):
        provider.login_proxy_environment("dev-gcp:team:portl")


async def test_registrations_of_a_manifest() -> None:
    """Ingresses become redirect URIs; autoLogin reaches the proxy; one without ID-porten is no client."""
    sidecar = {"enabled": True, "autoLogin": True, "level": "idporten-loa-high", "locale": "en"}
    ingresses = ["https://a.example/", "https://b.example/path"]
    local = local_entra(
        [
            idporten_manifest(idporten={"enabled": True, "sidecar": sidecar}, ingresses=ingresses),
            idporten_manifest("none", idporten={"enabled": False}),
        ]
    )
    provider = local.providers.idporten
    client = provider.find(APP)
    assert client.redirect_uris == (
        "https://a.example/oauth2/callback",
        "https://b.example/path/oauth2/callback",
    )
    assert client.post_logout_redirect_uris[1] == "https://b.example/path/oauth2/logout/callback"
    assert client.logout_uri(client.redirect_uris[1]) == "https://a.example/oauth2/logout/frontchannel"
    proxy = provider.login_proxy_environment(APP)
    assert proxy["WONDERWALL_AUTO_LOGIN"] == "true"
    assert proxy["WONDERWALL_INGRESS"] == "https://a.example,https://b.example/path"
    with pytest.raises(ConfigurationError, match="dev-gcp:team:none does not use ID-porten"):
        provider.login_proxy_environment("dev-gcp:team:none")
    generator = provider.login_proxy_environment("dev-gcp:nais:tokenx-token-generator")
    assert "IDPORTEN_REDIRECT_URI" not in generator
    assert "WONDERWALL_INGRESS" not in generator


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"idporten": {"enabled": True}}, "spec.idporten: logins at ID-porten go through the login proxy"),
        ({"ingresses": []}, "spec.idporten: ID-porten sends users back to an ingress"),
        ({"idporten": {"sidecar": {"enabled": True}}}, "spec.idporten.enabled: required"),
        (
            {"azure": {"sidecar": {"enabled": True}}},
            "spec.idporten.sidecar: an application has one login proxy",
        ),
        (
            {"idporten": {"enabled": True, "sidecar": {"enabled": True, "level": "Level5"}}},
            "spec.idporten.sidecar.level: expected 'Level3', 'Level4'",
        ),
        (
            {"idporten": {"enabled": True, "sidecar": {"enabled": True, "locale": "no"}}},
            "spec.idporten.sidecar.locale: expected 'nb'",
        ),
    ],
)
async def test_manifests_that_nais_refuses(changes: dict[str, Any], text: str) -> None:
    """They are mistakes with file, line and field."""
    with pytest.raises(SourceError) as caught:
        local_entra([idporten_manifest(**changes)])
    assert text in caught.value.message


async def test_redirect_uris_of_programs(browser: Browser) -> None:
    """A program on a free port is added to its client; what is no redirect URI is refused."""
    uri = "http://127.0.0.1:4711/oauth2/callback"
    browser.provider.add_redirect_uri(APP, uri)
    client = browser.provider.find(APP)
    assert uri in client.redirect_uris
    assert "http://127.0.0.1:4711/oauth2/logout/callback" in client.post_logout_redirect_uris
    with pytest.raises(ConfigurationError, match="is not a redirect URI"):
        browser.provider.add_redirect_uri(APP, "ftp://127.0.0.1/")


# Logins as wonderwall does them


async def test_a_login_of_wonderwall(party: RelyingParty, world: World) -> None:
    """Pushed request, login page, callback with `iss`, ID token with `sid` and the level, access token for
    IDPORTEN_AUDIENCE; the claims are exactly ID-porten's."""
    tokens = await party.logged_in()
    assert tokens.keys() == {"access_token", "id_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 3600, "openid")
    now = int(world.clock.now)
    identity = await party.id_token(tokens)
    assert re.fullmatch(r"[\w-]{43}", identity.pop("sub"))
    assert identity.pop("jti")
    uuid.UUID(identity.pop("sid"))
    assert identity == {
        "iss": party.browser.issuer,
        "aud": party.client_id,
        "exp": now + 120,
        "iat": now,
        "auth_time": now,
        "nonce": party.sent["nonce"],
        "acr": HIGH,
        "amr": ["TestID"],
        "locale": "nb",
        "pid": PID,
    }
    access = await party.verified(tokens["access_token"], "https://nav.no")
    assert re.fullmatch(r"[\w-]{43}", access.pop("sub"))
    assert access.pop("jti")
    assert access == {
        "iss": party.browser.issuer,
        "aud": "https://nav.no",
        "acr": HIGH,
        "client_id": party.client_id,
        "client_amr": "private_key_jwt",
        "consumer": {"authority": "iso6523-actorid-upis", "ID": "0192:310000019"},
        "scope": "openid",
        "pid": PID,
        "iat": now,
        "exp": now + 3600,
    }


async def test_the_session_logs_in_to_other_applications(browser: Browser) -> None:
    """Without another login page; subjects differ between clients, the session does not."""
    first, second = await RelyingParty.start(browser), await RelyingParty.start(browser, OTHER)
    one = await first.id_token(await first.logged_in())
    answer = await second.begin(redirect_uri=LOCAL_CALLBACK)
    assert answer.status == 303
    tokens = await second.redeem(second.callback(answer)["code"])
    assert tokens.claims["consumer"]["ID"] == "0192:310000027"
    two = await second.id_token(tokens.json)
    assert one["sid"] == two["sid"]
    assert one["sub"] != two["sub"]
    assert one["pid"] == two["pid"]


async def test_without_resource_the_audience_is_unspecified(party: RelyingParty) -> None:
    """Then no application accepts the access token."""
    tokens = await party.logged_in(resource=None, scope="openid profile")
    assert unverified_claims(tokens["access_token"])["aud"] == "unspecified"
    assert tokens["scope"] == "openid profile"


async def test_without_pushing(party: RelyingParty) -> None:
    """PAR is not mandatory."""
    page = await party.begin_without_push()
    tokens = await party.redeem(party.callback(await party.browser.log_in(page))["code"])
    await party.id_token(tokens.json)


async def test_form_post(party: RelyingParty) -> None:
    """The response is a form for the redirect URI, with the same members."""
    page = await party.browser.log_in(await party.begin(response_mode="form_post"))
    form = Form(page.text)
    assert form.action == CALLBACK
    assert form.hidden.keys() == {"code", "state", "iss"}
    assert (await party.redeem(form.hidden["code"])).status == 200


async def test_a_login_of_another_person_ends_the_session(party: RelyingParty) -> None:
    """Its refresh tokens too: the browser has one person at a time."""
    tokens = await party.logged_in()
    page = await party.begin(prompt="login")
    answer = await party.browser.log_in(page, person="41819049910", level=HIGH)
    other = await party.id_token((await party.redeem(party.callback(answer)["code"])).json)
    assert other["pid"] == "41819049910"
    assert other["sid"] != unverified_claims(tokens["id_token"])["sid"]
    refused(await party.refresh(tokens["refresh_token"]), "invalid_grant", "revoked")


# Levels


@pytest.mark.parametrize(
    ("acr_values", "offered"),
    [
        (HIGH, [HIGH]),
        (SUBSTANTIAL, [SUBSTANTIAL, HIGH]),
        (LOW, [LOW, SUBSTANTIAL, HIGH]),
        (f"{HIGH} {SUBSTANTIAL}", [SUBSTANTIAL, HIGH]),
        (None, [HIGH]),  # the client's own
    ],
)
async def test_levels_to_choose_from(party: RelyingParty, acr_values: str | None, offered: list[str]) -> None:
    """At least what was asked for; the lowest comes first; another one is refused."""
    page = await party.begin(acr_values=acr_values)
    shown = re.findall(r'<option value="([^"]+)"', page.text) or [Form(page.text).hidden["level"]]
    assert shown == offered
    for level in {LOW, SUBSTANTIAL, HIGH, "eidas-loa-high"} - set(offered):
        wrong = await party.browser.log_in(page, pid=PID, level=level)
        assert wrong.status == 400
        assert "godtar ikke dette nivået" in wrong.text
    answer = await party.browser.log_in(page, pid=PID, level=offered[0])
    tokens = await party.redeem(party.callback(answer)["code"])
    assert (await party.id_token(tokens.json))["acr"] == offered[0]


async def test_a_session_of_a_lower_level_is_stepped_up(party: RelyingParty, world: World) -> None:
    """The login page comes again; the session stays the same one, with a new time of login."""
    low = await party.id_token(await party.logged_in(acr_values=SUBSTANTIAL))
    assert low["acr"] == SUBSTANTIAL
    world.clock.now += 60
    page = await party.begin(acr_values=HIGH)
    assert page.status == 200
    tokens = await party.redeem(party.callback(await party.browser.log_in(page))["code"])
    high = await party.id_token(tokens.json)
    assert (high["acr"], high["sid"]) == (HIGH, low["sid"])
    assert high["auth_time"] == low["auth_time"] + 60
    again = await party.begin(acr_values=SUBSTANTIAL)  # for which a higher level will do
    assert again.status == 303


async def test_eidas_has_no_number(party: RelyingParty) -> None:
    """Offered where the application asks for one of its levels."""
    page = await party.begin(acr_values=f"eidas-loa-substantial {HIGH}")
    answer = await party.browser.log_in(page, eidas="SE/NO/199005172384", eidas_level="eidas-loa-high")
    tokens = await party.redeem(party.callback(answer)["code"])
    for claims in (unverified_claims(tokens.json["access_token"]), await party.id_token(tokens.json)):
        assert claims["acr"] == "eidas-loa-high"
        assert "pid" not in claims
    for fields in (
        {"eidas": "SE/NO/199005172384", "eidas_level": "eidas-loa-low"},
        {"eidas": "unknown", "eidas_level": "eidas-loa-high"},
    ):
        page = await party.begin(acr_values="eidas-loa-substantial", prompt="login")
        wrong = await party.browser.log_in(page, **fields)
        assert wrong.status == 400


async def test_email_has_no_number(party: RelyingParty) -> None:
    """Offered where the application asks for the low level; the ID token has the address."""
    page = await party.begin(acr_values=LOW)
    wrong = await party.browser.log_in(page, email="nobody")
    assert wrong.status == 400
    assert "ikke en e-postadresse" in wrong.text
    answer = await party.browser.log_in(page, email=" Ola@example.com ")
    tokens = (await party.redeem(party.callback(answer)["code"])).json
    claims = await party.id_token(tokens)
    assert (claims["acr"], claims["email"]) == (LOW, "Ola@example.com")
    assert "pid" not in claims
    assert "email" not in unverified_claims(tokens["access_token"])
    page = await party.begin(acr_values=HIGH)
    assert (await party.browser.log_in(page, email="ola@example.com")).status == 400


# The login page


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "has 11 digits"),
        ("1234", "has 11 digits"),
        ("17858549940", "typing error"),
        ("32858549949", "no date of birth"),
        ("17058532185", "could belong to a real person"),
    ],
)
async def test_numbers_that_are_refused(party: RelyingParty, typed: str, said: str) -> None:
    """With a sentence for each mistake; a number that may be a real person's is never accepted."""
    page = await party.begin(ui_locales="en")
    wrong = await party.browser.log_in(page, pid=typed, level=HIGH)
    assert wrong.status == 400
    assert said in wrong.text
    assert 'aria-invalid="true"' in wrong.text


@pytest.mark.parametrize(
    ("locales", "language", "title", "claim"),
    [
        ("en", "en", "Log in", "en"),
        ("nb", "nb", "Logg inn", "nb"),
        ("nn", "nn", "Logg inn", "nn"),
        ("se", "nb", "Logg inn", "se"),
        ("fr en", "en", "Log in", "en"),
        (None, "nb", "Logg inn", "nb"),
    ],
)
async def test_languages(
    party: RelyingParty, locales: str | None, language: str, title: str, claim: str
) -> None:
    """`ui_locales` decides, then the manifest; the page can be had in the other languages."""
    page = await party.begin(ui_locales=locales)
    assert f'<html lang="{language}">' in page.text
    assert f"<h1>{title}</h1>" in page.text
    links = re.findall(r'href="(/idporten/login[^"]+)"', page.text)
    assert len(links) == 3
    tokens = await party.redeem(party.callback(await party.browser.log_in(page))["code"])
    assert (await party.id_token(tokens.json))["locale"] == claim
    page = await party.begin(ui_locales=locales, prompt="login")
    links = re.findall(r'href="(/idporten/login[^"]+)"', page.text)
    english = await party.browser.request("GET", links[0].replace("&amp;", "&"))
    assert '<html lang="en">' in english.text
    locale = Form(english.text).hidden["locale"]
    wrong = await party.browser.log_in(english, pid="1", level=HIGH, locale=locale)
    assert "has 11 digits" in wrong.text
    answer = await party.browser.log_in(english, pid=PID, level=HIGH, locale=locale)
    tokens = await party.redeem(party.callback(answer)["code"])
    assert (await party.id_token(tokens.json))["locale"] == "en"


async def test_the_login_hint_fills_the_field(party: RelyingParty) -> None:
    """A number does; anything else is ignored."""
    assert f'value="{PID}" maxlength' in (await party.begin(login_hint=f"pid:{PID}")).text
    assert 'value="" maxlength' in (await party.begin(login_hint="<b>")).text


async def test_cancelling(party: RelyingParty) -> None:
    """The application is told, and the page is over."""
    page = await party.begin()
    answer = await party.browser.log_in(page, cancel="yes")
    assert party.callback(answer)["error"] == "access_denied"
    over = await party.browser.log_in(page, pid=PID, level=HIGH)
    assert over.status == 400
    assert "no longer open" in over.text


async def test_a_login_page_is_used_once_and_ends(party: RelyingParty, world: World) -> None:
    """After 30 minutes, or once it has been used, it says so."""
    page = await party.begin()
    login = Form(page.text).hidden["login"]
    world.clock.now += 1801
    answer = await party.browser.request("GET", f"/idporten/login?login={login}&language=en")
    assert answer.status == 400
    assert "no longer open" in answer.text


async def test_forms_of_other_sites_are_refused(party: RelyingParty) -> None:
    """No page of another origin can log a browser in."""
    page = await party.begin()
    form = {"login": Form(page.text).hidden["login"], "pid": PID, "level": HIGH}
    answer = await party.browser.request(
        "POST", "/idporten/login", data=form, headers={"Origin": "https://evil.example"}
    )
    assert answer.status == 403
    not_a_form = await party.browser.request("POST", "/idporten/login", json={})
    assert not_a_form.status == 400


# Sessions


async def test_prompts(party: RelyingParty) -> None:
    """`none` never shows a page, `login` and `select_account` always do."""
    assert party.callback(await party.begin(prompt="none"))["error"] == "login_required"
    await party.logged_in()
    assert "code" in party.callback(await party.begin(prompt="none"))
    assert "code" in party.callback(await party.begin(prompt="consent"))
    assert (await party.begin(prompt="login")).status == 200
    assert (await party.begin(prompt="select_account")).status == 200


async def test_a_session_ends_after_30_idle_minutes(party: RelyingParty, world: World) -> None:
    """Each login prolongs it, to 120 minutes in all."""
    await party.logged_in()
    world.clock.now += 1801
    assert (await party.begin()).status == 200
    await party.browser.log_in(await party.begin())
    for _ in range(4):
        world.clock.now += 1750
        assert (await party.begin()).status == 303
    world.clock.now += 201  # 7201 s after the login
    assert (await party.begin()).status == 200


async def test_max_age(party: RelyingParty, world: World) -> None:
    """An older login is not enough."""
    await party.logged_in()
    world.clock.now += 100
    assert (await party.begin(max_age="100")).status == 303
    assert (await party.begin(max_age="99")).status == 200


# Authorization requests that are refused


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"response_type": None}, "invalid_request", "Missing parameter: response_type"),
        ({"response_type": "token"}, "unsupported_response_type", "expected code"),
        ({"scope": None}, "invalid_request", "Missing parameter: scope"),
        ({"scope": "profile"}, "invalid_scope", "openid is required"),
        ({"scope": "openid admin"}, "invalid_scope", "openid and profile only"),
        ({"state": None}, "invalid_request", "Missing parameter: state"),
        ({"nonce": None}, "invalid_request", "Missing parameter: nonce"),
        ({"code_challenge": None}, "invalid_request", "Missing parameter: code_challenge"),
        ({"code_challenge": "short"}, "invalid_request", "Invalid code_challenge"),
        ({"code_challenge_method": None}, "invalid_request", "Missing parameter: code_challenge_method"),
        ({"code_challenge_method": "plain"}, "invalid_request", "expected S256"),
        ({"acr_values": "Level4"}, "invalid_request", "write idporten-loa-high"),
        ({"acr_values": "idporten-loa-huge"}, "invalid_request", "expected idporten-loa-low"),
        ({"prompt": "none login"}, "invalid_request", "none stands alone"),
        ({"prompt": "sometimes"}, "invalid_request", "Invalid prompt"),
        ({"max_age": "soon"}, "invalid_request", "Invalid max_age"),
        ({"resource": "nav"}, "invalid_target", "absolute URI"),
        ({"resource": "https://nav.no#part"}, "invalid_target", "absolute URI"),
        ({"response_mode": "fragment"}, "invalid_request", "expected query or form_post"),
        ({"request": "x"}, "request_not_supported", "Unsupported parameter: request"),
    ],
)
async def test_refusals_that_return(
    party: RelyingParty, changes: dict[str, str | None], error: str, text: str
) -> None:
    """To the redirect URI, with `iss` and what was sent as `state`; PAR answers them itself."""
    answer = await party.begin_without_push(**changes)
    assert answer.status == 303
    assert answer.headers["Location"].startswith(CALLBACK + "?")
    members = answer.location
    assert (members["error"], members["iss"]) == (error, party.browser.issuer)
    assert text in members["error_description"]
    assert re.search(r"\(correlation id: [0-9a-f-]{36}\)$", members["error_description"])
    assert members.get("state") == party.sent.get("state")
    refused(await party.push(**changes), error, text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": None}, "Missing parameter: client_id"),
        ({"client_id": "unknown"}, "Unknown client_id"),
        ({"redirect_uri": None}, "Missing parameter: redirect_uri"),
        ({"redirect_uri": CALLBACK + "/"}, "not registered"),
        ({"redirect_uri": CALLBACK + "?a=b"}, "not registered"),
        ({"redirect_uri": "https://evil.example/"}, "not registered"),
        ({"state": "x" * 4097}, "longer than 4096"),
    ],
)
async def test_refusals_that_stay(party: RelyingParty, changes: dict[str, str | None], text: str) -> None:
    """A page says what is wrong; the browser is sent nowhere."""
    answer = await party.begin_without_push(**{"ui_locales": "en", **changes})
    assert answer.status == 400
    assert text in answer.text
    assert "Location" not in answer.headers
    assert "idporten-redirect-uris" in answer.text or "redirect_uri" not in text


async def test_repeated_parameters(party: RelyingParty) -> None:
    """RFC 6749, section 3.1."""
    query = "&".join(f"{name}=x" for name in ("client_id", "client_id"))
    answer = await party.browser.request("GET", f"/idporten/authorize?{query}")
    assert answer.status == 400
    assert "A parameter is repeated" in answer.text
    answer = await party.browser.request(
        "POST",
        "/idporten/token",
        data="a=b&a=c",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    refused(answer, "invalid_request", "Malformed form")


# Pushed requests


async def test_a_pushed_request_is_used_once(party: RelyingParty, world: World) -> None:
    """By the client that pushed it, within 120 seconds."""
    pushed = await party.push()
    assert pushed.status == 201
    assert pushed.json["expires_in"] == 120
    uri = pushed.json["request_uri"]
    assert uri.startswith("urn:ietf:params:oauth:request_uri:")
    other = (await RelyingParty.start(party.browser, OTHER)).client_id

    async def use(client_id: str) -> Answer:
        query = {"client_id": client_id, "request_uri": uri}
        return await party.browser.request("GET", "/idporten/authorize", params=query)

    assert (await use(other)).status == 400
    assert (await use(party.client_id)).status == 200
    again = await use(party.client_id)
    assert again.status == 400
    assert "invalid_request_uri" in again.text
    uri = (await party.push()).json["request_uri"]
    world.clock.now += 121
    assert (await use(party.client_id)).status == 400


async def test_pushing_needs_the_client_and_its_redirect_uri(party: RelyingParty) -> None:
    """Client authentication as at the token endpoint; what would stay on a page is refused too."""
    answer = await party.browser.request("POST", "/idporten/par", data=party.parameters())
    refused(answer, "invalid_client", "Client authentication failed. No client authentication included")
    refused(await party.push(redirect_uri="https://evil.example/"), "invalid_request", "not registered")
    refused(await party.push(request_uri="urn:x"), "request_uri_not_supported", "request_uri")


# Token endpoint


async def code_of(party: RelyingParty, **changes: str | None) -> str:
    """A code for the relying party."""
    answer = await party.begin(**changes)
    if answer.status == 200:
        answer = await party.browser.log_in(answer)
    return party.callback(answer)["code"]


async def test_methods_of_client_authentication(party: RelyingParty) -> None:
    """By assertion for the issuer or the token endpoint, and by secret in header or form."""
    secret = party.browser.provider.client_secret(APP)
    base = {
        "grant_type": "authorization_code",
        "redirect_uri": CALLBACK,
    }
    basic = base64.b64encode(f"{party.client_id}:{secret}".encode()).decode()
    for method, credential, headers in (
        ("private_key_jwt", party.credential(), {}),
        ("private_key_jwt", party.credential(aud=party.metadata["token_endpoint"]), {}),
        ("client_secret_post", {"client_id": party.client_id, "client_secret": secret}, {}),
        ("client_secret_basic", {}, {"Authorization": f"Basic {basic}"}),
    ):
        form = {**base, "code": await code_of(party), "code_verifier": party.verifier, **credential}
        answer = await party.token(form, headers=headers)
        assert answer.status == 200, answer.text
        assert answer.claims["client_amr"] == method


async def test_refused_assertions(party: RelyingParty) -> None:
    """Each with its reason, as invalid_client with status 400; none repeats the assertion."""
    other, now = PrivateKey.generate(), int(party.browser.caller.local.now())
    other_jwk = {**other.private_jwk(), "kid": party.key.kid}
    for credential, text in (
        ({}, "No client authentication included"),
        ({"client_assertion": "x"}, "Invalid client_assertion_type"),
        ({**party.credential(), "client_assertion": "x"}, "is not a signed JWT"),
        ({**party.credential(), "client_assertion": "x" * 16_385}, "longer than 16384 bytes"),
        ({**party.credential(), "client_id": "other"}, "must be the sub"),
        (party.credential(sub=None), "must be the sub"),
        ({**party.credential(sub="unknown"), "client_id": "unknown"}, "Unknown client"),
        (party.credential(iss="other"), "must be the client_id"),
        (party.credential(aud="https://elsewhere.example"), "Invalid aud of the client assertion"),
        (party.credential(exp=now - 20), "Expired client assertion"),
        (party.credential(iat=now + 30, exp=now + 60), "issued in the future"),
        (party.credential(nbf=now + 30), "not valid yet"),
        (party.credential(exp=now + 200), "more than 120 seconds"),
        (party.credential(jti=None), "jti"),
        (party.credential(key=PrivateKey(other_jwk)), "Invalid signature"),
        (party.credential(header={"alg": "RS256", "kid": "other"}), "Unknown key identifier (kid)"),
    ):
        form = {"client_id": party.client_id, "grant_type": "authorization_code", **credential}
        answer = await party.token(form)
        refused(answer, "invalid_client", text)
        assert (
            credential.get("client_assertion", "-" * 99)[-40:] not in answer.text
            or credential["client_assertion"] == "x"
        )


async def test_an_assertion_is_used_once(party: RelyingParty) -> None:
    """RFC 7523, section 3."""
    credential = party.credential()
    form = {"client_id": party.client_id, "grant_type": "authorization_code", **credential}
    refused(await party.token(form), "invalid_request", "Missing parameter: code")
    refused(await party.token(form), "invalid_client", "was used before")


async def test_refused_secrets(party: RelyingParty) -> None:
    """Wrong ones, malformed headers, and two methods at once."""
    secret = party.browser.provider.client_secret(APP)
    basic = base64.b64encode(f"{party.client_id}:{secret}".encode()).decode()
    wrong = base64.b64encode(f"{party.client_id}:wrong".encode()).decode()
    base = {"grant_type": "authorization_code"}
    for form, header, error, text in (
        (
            {"client_id": party.client_id, "client_secret": "wrong"},
            "",
            "invalid_client",
            "Invalid client secret",
        ),
        ({"client_id": "unknown", "client_secret": "wrong"}, "", "invalid_client", "Unknown client"),
        ({}, f"Basic {wrong}", "invalid_client", "Invalid client secret"),
        ({}, "Basic ?", "invalid_client", "malformed"),
        ({}, "Bearer x", "invalid_client", "of the scheme Basic"),
        ({"client_id": "other"}, f"Basic {basic}", "invalid_request", "name two clients"),
        ({"client_secret": secret}, f"Basic {basic}", "invalid_request", "More than one method"),
        ({}, "", "invalid_client", "No client authentication included"),
    ):
        headers = {"Authorization": header} if header else {}
        refused(await party.token({**base, **form}, headers=headers), error, text)


async def test_public_clients(browser: Browser) -> None:
    """PKCE alone is enough where the manifest says so; pages of the client's origins read the response."""
    party = await RelyingParty.start(browser, PUBLIC)
    redirect_uri = "http://localhost:5173/"
    page = await party.begin_without_push(redirect_uri=redirect_uri)
    code = party.callback(await browser.log_in(page))["code"]
    origin = {"Origin": "http://localhost:5173"}
    form = {
        "grant_type": "authorization_code",
        "client_id": party.client_id,
        "code": code,
        "code_verifier": party.verifier,
        "redirect_uri": redirect_uri,
    }
    answer = await party.token(form, headers=origin)
    assert answer.claims["client_amr"] == "none"
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    preflight = await browser.request("OPTIONS", "/idporten/token", headers=origin)
    assert preflight.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    foreign = await party.token(form, headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert (await browser.request("GET", "/idporten/token")).status == 405
    for path in ("/idporten/jwks.json", "/idporten/.well-known/openid-configuration"):
        assert (await browser.request("PUT", path)).headers["Allow"] == "GET,HEAD,OPTIONS"
    assert (await browser.request("PUT", "/idporten/elsewhere")).status == 404


async def test_refused_codes(party: RelyingParty) -> None:
    """Missing, unknown, of another client, with another redirect URI or verifier; a try uses the code up."""
    for name in ("code", "redirect_uri", "code_verifier"):
        refused(
            await party.redeem(await code_of(party), **{name: None}), "invalid_request", f"parameter: {name}"
        )
    refused(await party.redeem("unknown"), "invalid_grant", "Invalid code")
    refused(
        await party.redeem(await code_of(party), redirect_uri=CALLBACK + "/"), "invalid_grant", "redirect_uri"
    )
    for verifier in ("x" * 43, "short"):
        code = await code_of(party)
        refused(await party.redeem(code, code_verifier=verifier), "invalid_grant", "code_verifier")
        refused(await party.redeem(code), "invalid_grant", "Invalid code")
    code = await code_of(party)
    other = await RelyingParty.start(party.browser, OTHER)
    other.sent, other.verifier = party.sent, party.verifier
    refused(await other.redeem(code), "invalid_grant", "Invalid code")
    refused(
        await party.redeem(await code_of(party), resource="https://other.example"),
        "invalid_target",
        "resource",
    )
    refused(await party.redeem("x", grant_type=None), "invalid_request", "Missing parameter: grant_type")
    refused(await party.redeem("x", grant_type="password"), "unsupported_grant_type", "refresh_token")


async def test_a_code_ends(party: RelyingParty, world: World) -> None:
    """After two minutes."""
    code = await code_of(party)
    world.clock.now += 121
    refused(await party.redeem(code), "invalid_grant", "expired")


async def test_a_code_that_is_used_again_revokes_its_tokens(party: RelyingParty) -> None:
    """RFC 9700, section 4.13. Those of another login stay, even with the same session and state."""
    code = await code_of(party, state="same")
    tokens = (await party.redeem(code)).json
    other = await party.logged_in(state="same")
    refused(await party.redeem(code), "invalid_grant", "used before")
    refused(await party.refresh(tokens["refresh_token"]), "invalid_grant", "revoked")
    assert (await party.refresh(other["refresh_token"])).status == 200


async def test_refresh_tokens(party: RelyingParty, world: World) -> None:
    """Each is used once; they work for two hours after the login; the login's claims stay."""
    tokens = await party.logged_in(scope="openid profile")
    before = await party.id_token(tokens)
    world.clock.now += 3000
    fresh = await party.refresh(tokens["refresh_token"])
    after = await party.id_token(fresh.json)
    assert {name: after[name] for name in ("sub", "sid", "auth_time", "acr", "aud")} == {
        name: before[name] for name in ("sub", "sid", "auth_time", "acr", "aud")
    }
    assert after["iat"] == before["iat"] + 3000
    assert fresh.claims["aud"] == "https://nav.no"
    narrowed = await party.refresh(fresh.json["refresh_token"], scope="openid")
    assert narrowed.json["scope"] == narrowed.claims["scope"] == "openid"
    latest = narrowed.json["refresh_token"]
    refused(await party.refresh(latest, scope="admin"), "invalid_scope", "not grant")
    refused(await party.refresh(latest, resource="https://other.example"), "invalid_target", "resource")
    # Neither has used it up; and its scope is still the login's (RFC 6749, section 6).
    assert (await party.refresh(latest)).json["scope"] == "openid profile"
    refused(await party.refresh(""), "invalid_request", "refresh_token")
    last = (await party.redeem(await code_of(party, prompt="login"))).json["refresh_token"]
    world.clock.now += 7201
    refused(await party.refresh(last), "invalid_grant", "expired")


async def test_a_refresh_token_that_is_used_again_revokes_the_others(party: RelyingParty) -> None:
    """It has leaked (RFC 9700, section 4.14.2)."""
    first = (await party.logged_in())["refresh_token"]
    second = (await party.refresh(first)).json["refresh_token"]
    refused(await party.refresh(first), "invalid_grant", "used before")
    refused(await party.refresh(second), "invalid_grant", "revoked")


async def test_userinfo(party: RelyingParty, world: World) -> None:
    """For access tokens of any audience, and nothing else."""
    tokens = await party.logged_in()

    async def userinfo(header: str) -> Answer:
        return await party.browser.request("GET", "/idporten/userinfo", headers={"Authorization": header})

    answer = await userinfo(f"Bearer {tokens['access_token']}")
    claims = unverified_claims(tokens["access_token"])
    assert answer.json == {"sub": claims["sub"], "pid": PID, "acr": HIGH}
    no_audience = Key.generate().sign(b'{"alg":"RS256"}', b'{"aud":""}')
    for header in ("Basic x", "Bearer x", f"Bearer {tokens['id_token']}", f"Bearer {no_audience}"):
        wrong = await userinfo(header)
        assert wrong.status == 401
        assert wrong.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    world.clock.now += 3700
    assert (await userinfo(f"Bearer {tokens['access_token']}")).status == 401


# Signing out


async def test_signing_out(browser: Browser) -> None:
    """A frame tells each application of the session, also the one that asks; then the browser returns."""
    party, other = await RelyingParty.start(browser), await RelyingParty.start(browser, OTHER)
    tokens = await party.logged_in()
    await other.logged_in(redirect_uri=LOCAL_CALLBACK)
    sid = unverified_claims(tokens["id_token"])["sid"]
    query = {
        "id_token_hint": tokens["id_token"],
        "post_logout_redirect_uri": f"{INGRESS}/oauth2/logout/callback",
        "state": "the state",
    }
    page = await browser.request("GET", "/idporten/logout", params=query)
    assert page.status == 200
    told = frames(page.text)
    assert [url.partition("?")[0] for url in told] == [
        f"{INGRESS}/oauth2/logout/frontchannel",
        "http://localhost:3000/oauth2/logout/frontchannel",
    ]
    assert all(query_of(url) == {"iss": browser.issuer, "sid": sid} for url in told)
    policy = page.headers["Content-Security-Policy"]
    assert policy.endswith(f"; frame-src {INGRESS} http://localhost:3000")
    target = f"{INGRESS}/oauth2/logout/callback?state=the+state"
    assert f'content="0; url={target}"' in page.text
    assert (await party.begin()).status == 200
    refused(await party.refresh(tokens["refresh_token"]), "invalid_grant", "revoked")
    again = await browser.request("GET", "/idporten/logout", params=query)  # no one is logged in
    assert (again.status, again.headers["Location"]) == (303, target)


async def test_signing_out_by_post(party: RelyingParty) -> None:
    """With `client_id` in place of the hint; without the cookie, the form becomes a request that has it."""
    await party.logged_in()
    form = {
        "client_id": party.client_id,
        "post_logout_redirect_uri": f"{INGRESS}/oauth2/logout/callback",
    }
    session = party.browser.caller.session
    cookies = list(session.cookie_jar)
    headers = {"Origin": "https://portal.example"}
    page = await party.browser.request("POST", "/idporten/logout", data=form, headers=headers)
    assert len(frames(page.text)) == 1
    assert cookies
    assert not list(session.cookie_jar)
    without = await party.browser.request("POST", "/idporten/logout", data=form, headers=headers)
    assert without.status == 303
    assert query_of(without.headers["Location"]) == form
    plain = await party.browser.request("POST", "/idporten/logout")
    assert plain.status == 200


async def test_where_signing_out_does_not_lead(party: RelyingParty) -> None:
    """Only to registered addresses of the client that a hint or `client_id` names; else a page says why."""
    tokens = await party.logged_in()
    other = await RelyingParty.start(party.browser, OTHER)
    callback = f"{INGRESS}/oauth2/logout/callback"
    hint, client_id = tokens["id_token"], party.client_id
    for fields, text in (
        ({"post_logout_redirect_uri": callback}, "names no client"),
        ({"post_logout_redirect_uri": callback, "client_id": "unknown"}, "names no client"),
        ({"post_logout_redirect_uri": callback, "id_token_hint": "x"}, "id_token_hint is no ID token"),
        ({"post_logout_redirect_uri": callback, "id_token_hint": hint[:-4] + "AAAA"}, "id_token_hint is no"),
        (
            {"post_logout_redirect_uri": callback, "id_token_hint": hint, "client_id": other.client_id},
            "id_token_hint is no ID token",
        ),
        (
            {"post_logout_redirect_uri": callback, "id_token_hint": tokens["access_token"]},
            "id_token_hint is no ID token",
        ),
        ({"post_logout_redirect_uri": callback + "/", "client_id": client_id}, "is not registered"),
        ({"post_logout_redirect_uri": "https://evil.example", "client_id": client_id}, "is not registered"),
        ({}, "You are logged out"),
    ):
        answer = await party.browser.request("GET", "/idporten/logout", params={**fields, "ui_locales": "en"})
        assert answer.status == 200, fields
        assert text in answer.text, fields
        assert "http-equiv" not in answer.text
    repeated = await party.browser.request("GET", "/idporten/logout?state=a&state=b")
    assert repeated.status == 400


async def test_an_expired_hint_is_accepted(party: RelyingParty, world: World) -> None:
    """RP-Initiated Logout 1.0, section 2."""
    tokens = await party.logged_in()
    world.clock.now += 5000
    query = {
        "id_token_hint": tokens["id_token"],
        "post_logout_redirect_uri": f"{INGRESS}/oauth2/logout/callback",
    }
    answer = await party.browser.request("GET", "/idporten/logout", params=query)
    assert answer.status == 303


# A token without a login, the journal, state


async def test_a_token_without_a_login(browser: Browser) -> None:
    """As from NAV's fakedings: bare, for any number; by query or form."""
    answer = await browser.request("GET", "/idporten/fake", params={"pid": "12345678910"})
    claims = unverified_claims(answer.text)
    assert (claims["pid"], claims["acr"], claims["aud"]) == ("12345678910", HIGH, "unspecified")
    assert claims["iss"] == browser.issuer
    form = {"pid": PID, "acr": "Level3", "client_id": "some client"}
    answer = await browser.request("POST", "/idporten/fake", data=form)
    claims = unverified_claims(answer.text)
    assert (claims["pid"], claims["acr"], claims["client_id"]) == (PID, "Level3", "some client")
    for query, text in (({}, "Missing parameter: pid"), ({"pid": PID, "acr": "Level5"}, "Unknown acr")):
        wrong = await browser.request("GET", "/idporten/fake", params=query)
        assert wrong.status == 400
        assert wrong.text.startswith(text)
    assert (await browser.request("POST", "/idporten/fake", params={"pid": PID})).status == 200


async def test_the_journal(party: RelyingParty) -> None:
    """Logins, tokens and refusals are in the log of all local providers, without any secret."""
    tokens = await party.logged_in()
    await party.redeem("unknown")
    entries = party.browser.caller.local.journal.entries()
    assert [(entry.grant, entry.client, entry.granted) for entry in entries] == [
        ("ID-porten code", APP, False),
        ("ID-porten code", APP, True),
        ("ID-porten login", APP, True),
    ]
    assert entries[1].claims["pid"] == PID
    for path in ("/log", f"/log/{entries[0].number}", f"/log/{entries[1].number}"):
        shown = await party.browser.request("GET", path, headers={"Accept": "text/html"})
        assert shown.status == 200
        assert tokens["access_token"] not in shown.text


async def test_keys_and_credentials_survive_a_restart(tmp_path: Any) -> None:
    """With a state directory: tokens stay valid, and applications keep their keys."""
    manifest = idporten_manifest()
    async with idporten_served(manifest, state_directory=tmp_path) as browser:
        before = browser.provider.login_proxy_environment(APP)["IDPORTEN_CLIENT_JWK"]
        kids = {key["kid"] for key in browser.provider.key_set()["keys"]}
    again = local_entra([manifest], state_directory=tmp_path).providers.idporten
    assert again.login_proxy_environment(APP)["IDPORTEN_CLIENT_JWK"] == before
    assert {key["kid"] for key in again.key_set()["keys"]} == kids


async def goes_on(before: RelyingParty, after: RelyingParty, tokens: dict[str, Any]) -> None:
    """What one provider has issued goes on at another: the browser is still logged in, and what was used
    stays used."""
    after.verifier, after.sent = before.verifier, before.sent
    browser, cookies = after.browser, before.browser.caller.session.cookie_jar
    browser.caller.session.cookie_jar.update_cookies({each.key: each.value for each in cookies})
    fresh = await after.refresh(tokens["refresh"])
    assert fresh.status == 200, fresh.text
    refused(await after.refresh(tokens["refresh"]), "invalid_grant", "used before")
    redeemed = await after.redeem(tokens["code"])
    assert redeemed.status == 200, redeemed.text
    identity = await after.id_token(redeemed.json)
    silent = await after.begin()
    assert silent.status == 303
    known = await after.id_token((await after.redeem(after.callback(silent)["code"])).json)
    assert (known["sid"], known["pid"]) == (identity["sid"], PID)
    refused(await after.redeem(tokens["used code"]), "invalid_grant", "used before")


async def issued(party: RelyingParty) -> dict[str, Any]:
    """A session, a refresh token, a code that was redeemed, and one that was not."""
    used = await code_of(party)
    tokens = (await party.redeem(used)).json
    return {"refresh": tokens["refresh_token"], "used code": used, "code": await code_of(party)}


async def test_logins_move_with_an_exported_state(party: RelyingParty, world: World) -> None:
    """To another provider with the same manifests; no cookie, code or token is in the document, and a reset
    ends them."""
    tokens = await issued(party)
    text = (await party.browser.request("GET", "/admin/api/state?secrets=true")).text
    cookies = [each.value for each in party.browser.caller.session.cookie_jar]
    assert cookies
    for secret in (*tokens.values(), *cookies):
        assert secret not in text
    async with idporten_served(*MANIFESTS, clock=world.clock) as browser:
        assert (await browser.request("PUT", "/admin/api/state", data=text)).status == 200
        other = await RelyingParty.start(browser)
        await goes_on(party, other, tokens)
        browser.caller.local.reset()
        assert (await other.begin()).status == 200  # the login page


async def test_logins_survive_a_restart(tmp_path: Any) -> None:
    """With a state directory; an assertion that was used stays used."""
    clock = Clock()
    async with idporten_served(*MANIFESTS, clock=clock, state_directory=tmp_path) as browser:
        party = await RelyingParty.start(browser)
        tokens = await issued(party)
        assert browser.provider.store.assertion_ids.items()
    async with idporten_served(*MANIFESTS, clock=clock, state_directory=tmp_path) as browser:
        assert len(browser.provider.store.assertion_ids.items()) == 3  # two pushed requests and a code
        await goes_on(party, await RelyingParty.start(browser), tokens)


async def test_a_state_of_an_earlier_release_has_no_logins(tmp_path: Any) -> None:
    """It is read all the same; a damaged one is not."""
    local = local_entra([idporten_manifest()], state_directory=tmp_path)
    local.save()
    file = tmp_path / "local-entra-id.json"
    content = json.loads(file.read_text())
    logins = content.pop("idporten")
    file.write_text(json.dumps(content))
    assert local_entra([idporten_manifest()], state_directory=tmp_path).store.idporten.sessions.items() == []
    file.write_text(json.dumps({**content, "idporten": {**logins, "sessions": [["x", 4e9, {}]]}}))
    with pytest.raises(ConfigurationError, match="is damaged"):
        local_entra([idporten_manifest()], state_directory=tmp_path)


async def test_reloaded_manifests_are_clients_at_once(tmp_path: Any) -> None:
    """Without a restart."""
    from entra_fast.emulator import LocalEntraId

    file = tmp_path / "a.yaml"
    file.write_text(idporten_manifest())
    local = LocalEntraId.from_files([file])
    assert set(local.providers.idporten.clients) == {APP, "dev-gcp:nais:tokenx-token-generator"}
    file.write_text(idporten_manifest("other"))
    local.reload()
    assert set(local.providers.idporten.clients) == {OTHER, "dev-gcp:nais:tokenx-token-generator"}


# Planned faults and the console


async def test_faults(party: RelyingParty) -> None:
    """Of the documents, of the token endpoint's transport, and of access tokens."""
    faults = party.browser.caller.local.faults
    faults.add("status", endpoint="idporten/keys", value=503, count=1)
    faults.add("status", endpoint="idporten/discovery", value=500, count=1)
    paths = ("/idporten/jwks.json", "/idporten/.well-known/openid-configuration")
    for expected in ([503, 500], [200, 200]):
        assert [(await party.browser.request("GET", path)).status for path in paths] == expected
    faults.add("throttle", endpoint="idporten", application=APP, value=7, count=1)
    throttled = await party.redeem(await code_of(party))
    assert (throttled.status, throttled.headers["Retry-After"]) == (429, "7")
    faults.add("wrong_audience", endpoint="idporten", application=APP, count=1)
    assert (await party.redeem(await code_of(party))).claims["aud"].startswith("ffffffff-")
    faults.add("unknown_key", endpoint="idporten", application=APP, count=1)
    secret = party.browser.provider.client_secret(APP)
    basic = base64.b64encode(f"{party.client_id}:{secret}".encode()).decode()
    form = {
        "grant_type": "authorization_code",
        "code": await code_of(party),
        "code_verifier": party.verifier,
        "redirect_uri": CALLBACK,
    }
    answer = await party.token(form, headers={"Authorization": f"Basic {basic}"})
    published = {key["kid"] for key in party.browser.provider.key_set()["keys"]}
    assert jwt.get_unverified_header(answer.json["access_token"])["kid"] not in published


async def test_the_environment_of_login_proxies(party: RelyingParty) -> None:
    """From the admin API, for login proxies that run elsewhere; an application without one is an error."""
    path = f"/admin/api/applications/{APP}/login-proxy"
    answer = await party.browser.request("GET", path)
    assert answer.json == party.browser.provider.login_proxy_environment(APP)
    local = party.browser.caller.local
    generator = next(name for name in local.registry.workloads.by_name if name.startswith("dev-gcp:nais:"))
    assert generator == "dev-gcp:nais:tokenx-token-generator"
    wrong = await party.browser.request("GET", "/admin/api/applications/dev-gcp:team:none/login-proxy")
    assert wrong.status == 400


async def test_other_paths(browser: Browser) -> None:
    """Are none of a tenant's."""
    for path in ("/idporten/oauth2/v2.0/token", "/idporten/nothing"):
        answer = await browser.request("GET", path)
        assert answer.status == 404
        assert "AADSTS" not in answer.text


async def test_the_console_shows_registrations(browser: Browser) -> None:
    """Level and redirect URIs of an application."""
    answer = await browser.request("GET", f"/applications/{OTHER}", headers={"Accept": "text/html"})
    assert answer.status == 200
    assert browser.provider.find(OTHER).client_id in answer.text
    assert LOCAL_CALLBACK in answer.text


async def test_keys_expire(party: RelyingParty, world: World) -> None:
    """A client's key is registered for a year."""
    party.browser.provider.login_proxy_environment(APP)
    world.clock.now += 366 * 86_400
    try:
        form = {"client_id": party.client_id, "grant_type": "refresh_token", **party.credential()}
        refused(await party.token(form), "invalid_client", "Expired key")
    finally:
        world.clock.now -= 366 * 86_400


async def test_no_input_breaks_the_endpoints(party: RelyingParty) -> None:
    """Bytes that are not text, and odd values, are refused and never an internal error."""
    good = "&".join(f"{name}={value}" for name, value in party.parameters().items())
    for query in (
        "client_id=%ff",
        "client_id=%00&redirect_uri=%00",
        f"{good.replace('resource=https://nav.no', 'resource=a:%ff')}",
        good.replace("ui_locales=nb", "ui_locales=%ff"),
        good.replace("acr_values=idporten-loa-high", "acr_values=%ff"),
        "client_id=x&request_uri=%ff",
        "=&&",
    ):
        answer = await party.browser.request("GET", f"/idporten/authorize?{query}")
        assert answer.status in {200, 303, 400}, query
    for path in ("login", "token", "par", "logout", "authorize", "fake"):
        for data, kind in (
            (b"\xff", "application/x-www-form-urlencoded"),
            (b"login=%ff&pid=%ff", "application/x-www-form-urlencoded"),
            (b"{}", "application/json"),
            (b"", "application/x-www-form-urlencoded"),
        ):
            headers = {"Content-Type": kind}
            answer = await party.browser.request("POST", f"/idporten/{path}", data=data, headers=headers)
            assert answer.status in {200, 303, 400, 415}, (path, data)
    for header in ("Basic /w==", "Basic " + base64.b64encode(b"%ff:%ff").decode(), "Bearer \u00ff"):
        answer = await party.token({"grant_type": "refresh_token"}, headers={"Authorization": header})
        refused(answer, "invalid_client", "Client authentication failed")
    answer = await party.browser.request("HEAD", "/idporten/authorize")
    assert answer.status == 405
