"""The token generator for TokenX, in front of a real local ID-porten and a real local TokenX."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from entra_fast._native import Policy, Validator, unverified_claims
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.errors import ConfigurationError
from entra_fast.generator import RunningGenerator, TokenXGeneratorSettings, start_tokenx_generator
from entra_fast.generator.settings import CALLBACK_PATH
from support.idporten import PID
from support.keys import Key
from support.local_entra import local_entra
from support.pages import Form

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN, CLOSED = "dev-gcp:team:open", "dev-gcp:team:closed"
GENERATOR = "dev-gcp:nais:tokenx-token-generator"
HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SESSION = "entra_fast_tokenx_generator_session"


def manifest(name: str, rules: list[dict[str, str]]) -> str:
    spec = {"image": "image", "tokenx": {"enabled": True}, "accessPolicy": {"inbound": {"rules": rules}}}
    metadata = {"name": name, "namespace": "team"}
    return json.dumps(
        {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    )


class World:
    """Local providers, the token generator in front of them, and its settings."""

    def __init__(self, emulator: RunningEmulator, environment: dict[str, str]) -> None:
        self.emulator = emulator
        self.environment = environment
        self.generator: RunningGenerator

    @property
    def local(self) -> LocalEntraId:
        return self.emulator.local


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    rule = {"application": "tokenx-token-generator", "namespace": "nais"}
    local = local_entra([manifest("open", [rule]), manifest("closed", [])])
    emulator = await local.start("127.0.0.1", 0)
    environment = {
        **local.providers.tokenx_generator_environment(),
        "BIND_ADDRESS": "127.0.0.1:0",
        "TOKEN_GENERATOR_AUDIENCES": f"{OPEN} {CLOSED}",
    }
    world = World(emulator, environment)
    world.generator = await start_tokenx_generator(TokenXGeneratorSettings.from_environment(environment))
    local.providers.idporten.add_redirect_uri(GENERATOR, world.generator.base_url + CALLBACK_PATH)
    yield world
    await world.generator.stop()
    await emulator.stop()


class Browser:
    """A browser that shows every redirect, and keeps cookies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def go(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Mapping[str, str], str]:
        """One request, redirects not followed: (status, headers, body)."""
        async with self.http.request(
            method, urljoin(self.world.generator.base_url, path), allow_redirects=False, **options
        ) as response:
            return response.status, response.headers.copy(), await response.text()

    async def sign_in(self, authorize: str, **fields: str) -> str:
        """At ID-porten, as a person; returns the address of the callback."""
        status, headers, page = await self.go(authorize)
        if status == 303:  # the person is logged in already
            return headers["Location"]
        assert status == 200, page
        levels = re.findall(r'<option value="([^"]+)"', page)
        form = {**Form(page).hidden, "level": levels[0], **(fields or {"pid": PID})}
        status, headers, page = await self.go(urljoin(authorize, "/idporten/login"), "POST", data=form)
        assert status == 303, page
        return headers["Location"]

    async def log_in(self, path: str, **fields: str) -> str:
        """The whole login; returns where it leads."""
        status, headers, _ = await self.go(path)
        assert status == 302
        status, headers, page = await self.go(await self.sign_in(headers["Location"], **fields))
        assert status == 302, page
        return headers["Location"]


@pytest_asyncio.fixture(loop_scope="module")
async def browser(world: World) -> AsyncIterator[Browser]:
    browser = Browser(world)
    yield browser
    await browser.http.close()


def verified(world: World, token: str) -> dict[str, Any]:
    """The claims of a token that the local TokenX has signed."""
    tokenx = world.local.providers.tokenx
    policy = Policy(issuers=[tokenx.issuer], audiences=[OPEN])
    return dict(Validator(policy, tokenx.keys.key_set).validate(token))


# On behalf of a person


async def test_a_token_after_a_login(world: World, browser: Browser) -> None:
    """The login at ID-porten leads back to the route, which answers exactly two members."""
    again = await browser.log_in(f"/api/obo?aud={OPEN}")
    assert again == f"/api/obo?aud={OPEN.replace(':', '%3A')}"
    status, headers, body = await browser.go(again)
    assert status == 200, body
    assert headers["Content-Type"].startswith("application/json")
    answer = json.loads(body)
    assert answer.keys() == {"access_token", "expires_in"}
    assert answer["expires_in"] > 800
    claims = verified(world, answer["access_token"])
    assert claims["pid"] == PID
    assert claims["acr"] == "idporten-loa-substantial"
    assert claims["client_id"] == GENERATOR
    assert claims["idp"] == world.local.providers.idporten.issuer


async def test_another_spelling_of_targets(world: World, browser: Browser) -> None:
    """With dots, as the token generator for Entra ID has it."""
    again = await browser.log_in(f"/api/obo?aud={OPEN.replace(':', '.')}")
    status, _, body = await browser.go(again)
    assert status == 200
    assert unverified_claims(json.loads(body)["access_token"])["aud"] == OPEN


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "missing 'aud' query parameter"),
        ("?aud=", "missing 'aud' query parameter"),
        ("?aud=a&aud=b", "the query parameter 'aud' must be given once"),
        ("?aud=" + "x" * 513, "the query parameter 'aud' is longer than 512 characters"),
    ],
)
async def test_a_missing_target(browser: Browser, query: str, text: str) -> None:
    """A sentence in plain text, before any login; a page for browsers."""
    status, headers, body = await browser.go(f"/api/obo{query}")
    assert status == 400
    assert headers["Content-Type"].startswith("text/plain")
    assert body.startswith(text)
    if not query:
        assert body == text
    status, headers, body = await browser.go(f"/api/obo{query}", headers=HTML)
    assert status == 400
    assert headers["Content-Type"].startswith("text/html")


async def test_a_target_that_does_not_admit_the_generator(browser: Browser) -> None:
    """TokenX's own refusal, with the target and the client in it."""
    again = await browser.log_in(f"/api/obo?aud={CLOSED}")
    status, _, body = await browser.go(again)
    assert status == 400
    assert json.loads(body) == {
        "error": "invalid_request",
        "error_description": f"client '{GENERATOR}' is not authorized to get token with aud={CLOSED}",
    }
    status, _, body = await browser.go("/api/obo?aud=dev-gcp:team:nothing")
    assert status == 400
    assert "token exchange audience dev-gcp:team:nothing is invalid" in body
    status, _, body = await browser.go(again, headers=HTML)
    assert status == 400
    assert "Token request refused" in body


async def test_the_pages(world: World, browser: Browser) -> None:
    """Start page, token page, another user, signing out at ID-porten too."""
    _, _, start = await browser.go("/", headers=HTML)
    assert "TokenX generator" in start
    assert GENERATOR in start
    assert "/api/public/obo" in start
    assert (await browser.go("/?q=nothing"))[2].count("No audience matches") == 1
    again = await browser.log_in(f"/api/obo?aud={OPEN}")
    status, _, shown = await browser.go(again, headers=HTML)
    assert status == 200
    assert "Your token" in shown
    assert f"Signed in as <strong>{PID}</strong>" in shown
    _, headers, _ = await browser.go("/oauth2/login?prompt=select_account&to=obo&aud=" + OPEN)
    assert dict(parse_qsl(urlsplit(headers["Location"]).query))["prompt"] == "select_account"
    again = await browser.log_in(
        "/oauth2/login?prompt=select_account&to=obo&aud=" + OPEN, person="41819049910"
    )
    _, _, body = await browser.go(again)
    assert verified(world, json.loads(body)["access_token"])["pid"] == "41819049910"
    status, headers, _ = await browser.go("/oauth2/logout", "POST")
    assert status == 303
    assert headers["Location"].startswith(world.local.providers.idporten.issuer + "/logout?")
    status, headers, page = await browser.go(headers["Location"])
    assert (status, headers["Location"]) == (303, world.generator.base_url + "/"), page
    status, headers, _ = await browser.go(f"/api/obo?aud={OPEN}")
    assert status == 302


async def test_a_session_ends_when_tokenx_refuses_the_login(world: World, browser: Browser) -> None:
    """As after ID-porten has changed its keys: the next request logs in again."""
    again = await browser.log_in(f"/api/obo?aud={OPEN}")
    for _ in range(2):  # the key before the last one is no longer published
        world.local.providers.rotate("idporten")
    status, _, body = await browser.go(again)
    assert status == 400
    assert "invalid subject_token" in body
    assert (await browser.go(again))[0] == 302


async def test_callbacks_of_others(world: World, browser: Browser) -> None:
    """Without the login's cookie, from another issuer, or with a refusal."""
    status, _, body = await browser.go("/oauth2/callback?state=x&code=y")
    assert status == 400
    assert "no sign-in in progress" in body
    _, headers, _ = await browser.go(f"/api/obo?aud={OPEN}")
    state = dict(parse_qsl(urlsplit(headers["Location"]).query))["state"]
    for issuer in ("", "&iss=https%3A%2F%2Fevil.example"):
        status, _, body = await browser.go(f"/oauth2/callback?state={state}&code=y{issuer}")
        assert status == 400
        assert "comes from another provider" in body
        _, headers, _ = await browser.go(f"/api/obo?aud={OPEN}")
        state = dict(parse_qsl(urlsplit(headers["Location"]).query))["state"]
    callback = await browser.sign_in(headers["Location"], cancel="yes")
    status, _, body = await browser.go(callback)
    assert status == 400
    assert json.loads(body)["error"] == "access_denied"


# Without a login


async def test_a_token_without_a_login(world: World, browser: Browser) -> None:
    """The bare token as text; the number is not checked, the level is high by default."""
    status, headers, body = await browser.go(
        "/api/public/obo", "POST", data={"aud": OPEN, "pid": "12345678910"}
    )
    assert status == 200, body
    assert headers["Content-Type"].startswith("text/plain")
    claims = verified(world, body)
    assert (claims["pid"], claims["acr"]) == ("12345678910", "idporten-loa-high")
    assert claims["client_id"] == GENERATOR
    for acr in ("idporten-loa-substantial", "Level4"):
        _, _, body = await browser.go("/api/public/obo", "POST", data={"aud": OPEN, "pid": PID, "acr": acr})
        assert verified(world, body)["acr"] == acr


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({}, "missing 'aud' form parameter"),
        ({"pid": PID}, "missing 'aud' form parameter"),
        ({"aud": OPEN}, "missing 'pid' form parameter"),
        ({"aud": OPEN, "pid": " "}, "missing 'pid' form parameter"),
    ],
)
async def test_missing_fields(browser: Browser, form: dict[str, str], text: str) -> None:
    """One sentence each, in plain text; the query does not count."""
    status, headers, body = await browser.go(
        "/api/public/obo", "POST", data=form, params={"aud": OPEN, "pid": PID}
    )
    assert (status, body) == (400, text)
    assert headers["Content-Type"].startswith("text/plain")


async def test_wrong_fields(browser: Browser) -> None:
    """A wrong level, a number that is too long, a repeated field, a body that is no form, a refusal."""
    for form, text in (
        (
            {"aud": OPEN, "pid": PID, "acr": "Level5"},
            "invalid 'acr' form parameter, must be one of: idporten",
        ),
        ({"aud": OPEN, "pid": "1" * 201}, "the form parameter 'pid' is longer than 200 characters"),
    ):
        status, _, body = await browser.go("/api/public/obo", "POST", data=form)
        assert status == 400
        assert body.startswith(text)
    status, _, body = await browser.go(
        "/api/public/obo",
        "POST",
        data=f"aud={OPEN}&pid=1&pid=2",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (status, body) == (400, "request body has a field twice")
    status, _, body = await browser.go("/api/public/obo", "POST", json={"aud": OPEN, "pid": PID})
    assert (status, body) == (400, "missing 'aud' form parameter")
    status, _, body = await browser.go("/api/public/obo", "POST", data={"aud": CLOSED, "pid": PID})
    assert status == 400
    assert body.startswith(f"invalid_request: client '{GENERATOR}' is not authorized")
    assert (await browser.go("/api/public/obo"))[0] == 405


async def test_pages_of_other_sites_are_refused(browser: Browser) -> None:
    """As at the token generator for Entra ID."""
    headers = {"Origin": "https://evil.example"}
    status, _, _ = await browser.go(
        "/api/public/obo", "POST", data={"aud": OPEN, "pid": PID}, headers=headers
    )
    assert status == 403


async def test_probes(browser: Browser) -> None:
    """Alive, and ready once both providers are known."""
    assert (await browser.go("/healthz"))[2] == "ok\n"
    assert (await browser.go("/readyz"))[0] == 200


# Providers that fail


class Providers:
    """ID-porten and TokenX that answer what the test says."""

    def __init__(self) -> None:
        self.url = ""
        self.discovery: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.fake = "not a token"
        self.keys: dict[str, Any] | None = None

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{path:.*well-known.*}", self._discovery)
        app.router.add_get("/jwks", self._keys)
        app.router.add_post("/token", self._token)
        app.router.add_post("/fake", self._fake)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.discovery = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        }
        return runner

    async def _discovery(self, _: web.Request) -> web.Response:
        return web.json_response(self.discovery)

    async def _keys(self, _: web.Request) -> web.Response:
        return web.json_response(self.keys, status=503 if self.keys is None else 200)

    async def _token(self, _: web.Request) -> web.Response:
        return web.json_response(self.token)

    async def _fake(self, _: web.Request) -> web.Response:
        return web.Response(text=self.fake)


async def test_providers_that_fail(world: World) -> None:
    """Each failure is a sentence that names the provider; nothing leads to a session."""
    providers = Providers()
    runner = await providers.start()
    well_known = f"{providers.url}/.well-known/openid-configuration"
    environment = {
        **world.environment,
        "IDPORTEN_WELL_KNOWN_URL": well_known,
        "TOKEN_X_WELL_KNOWN_URL": f"{providers.url}/.well-known/oauth-authorization-server",
        "TOKEN_GENERATOR_FAKE_LOGIN_URL": f"{providers.url}/fake",
    }
    other = World(world.emulator, environment)
    complete = providers.discovery
    providers.discovery = {}
    other.generator = await start_tokenx_generator(TokenXGeneratorSettings.from_environment(environment))
    browser = Browser(other)
    try:
        status, _, body = await browser.go("/readyz")
        assert (status, body.partition(":")[0]) == (503, "ID-porten")
        status, headers, _ = await browser.go("/oauth2/logout", "POST")
        assert (status, headers["Location"]) == (303, "/")
        providers.discovery = {**complete, "authorization_endpoint": None}
        assert "authorization_endpoint" in (await browser.go("/readyz"))[2]
        providers.discovery = complete
        assert (await browser.go("/readyz"))[0] == 200
        status, headers, _ = await browser.go("/oauth2/logout", "POST")
        assert (status, headers["Location"]) == (303, "/")  # there is no address for it
        status, _, body = await browser.go("/api/public/obo", "POST", data={"aud": OPEN, "pid": PID})
        assert status == 502
        assert "answered 200 and no token" in body
        published, stray = Key.generate(), Key.generate()
        for key, nonce, text in (
            (None, "", "sent no ID token"),
            (stray, "", "keys of the token issuer are not available"),
            (published, "other", "belongs to another sign-in"),
            (stray, "", "is not valid"),
        ):
            if nonce:  # another generator: this one waits before it asks for the keys again
                providers.keys = {"keys": [json.loads(published.public_jwk())]}
                await other.generator.stop()
                other.generator = await start_tokenx_generator(
                    TokenXGeneratorSettings.from_environment(environment)
                )
            _, headers, _ = await browser.go(f"/api/obo?aud={OPEN}")
            state = dict(parse_qsl(urlsplit(headers["Location"]).query))["state"]
            providers.token = {"access_token": "a", "token_type": "Bearer", "expires_in": 60}
            if key is not None:
                claims = {
                    "iss": providers.url,
                    "aud": environment["IDPORTEN_CLIENT_ID"],
                    "iat": int(time.time()),
                    "exp": int(time.time()) + 60,
                    "nonce": nonce,
                }
                header = {"alg": "RS256", "kid": key.kid}
                providers.token["id_token"] = key.sign(
                    json.dumps(header).encode(), json.dumps(claims).encode()
                )
            status, _, body = await browser.go(
                "/oauth2/callback", params={"state": state, "code": "c", "iss": providers.url}
            )
            assert status in {400, 502}, body
            assert text in body, body
    finally:
        await browser.http.close()
        await other.generator.stop()
        await runner.cleanup()


# Settings


async def test_settings(world: World) -> None:
    """Those of a client of both providers; each that is missing is named."""
    settings = TokenXGeneratorSettings.from_environment(world.environment)
    assert settings.audiences == (OPEN, CLOSED)
    assert settings.tokenx.client_id == GENERATOR
    assert settings.fake_login_url == f"{world.local.providers.idporten.issuer}/fake"
    for name in (
        "TOKEN_X_CLIENT_ID",
        "TOKEN_X_PRIVATE_JWK",
        "IDPORTEN_CLIENT_ID",
        "IDPORTEN_CLIENT_JWK",
        "IDPORTEN_WELL_KNOWN_URL",
    ):
        with pytest.raises(ConfigurationError, match=f"{name} must be set"):
            TokenXGeneratorSettings.from_environment({**world.environment, name: ""})
    for name, value, text in (
        ("TOKEN_X_PRIVATE_JWK", "{}", "TOKEN_X_PRIVATE_JWK"),
        ("IDPORTEN_WELL_KNOWN_URL", "http://idporten.example/", "IDPORTEN_WELL_KNOWN_URL"),
        ("BIND_ADDRESS", "0.0.0.0:8082", "TOKEN_GENERATOR_URL must be set"),
        ("TOKEN_GENERATOR_AUDIENCES", "a " * 2001, "more than 2000 entries"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            TokenXGeneratorSettings.from_environment({**world.environment, name: value})
    assert str(TokenXGeneratorSettings.from_environment(world.environment).server.port) == "0"
    without = {**world.environment, "BIND_ADDRESS": "", "TOKEN_GENERATOR_FAKE_LOGIN_URL": ""}
    settings = TokenXGeneratorSettings.from_environment(without)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8082)
    generator = await start_tokenx_generator(replace(settings, url="http://127.0.0.1:1"), port=0)
    assert generator.base_url == "http://127.0.0.1:1"
    await generator.stop()
    # The endpoints may be named instead of the discovery document.
    other = World(world.emulator, {**world.environment, "TOKEN_X_WELL_KNOWN_URL": ""})
    named = TokenXGeneratorSettings.from_environment(other.environment)
    assert named.tokenx.well_known_url is None
    other.generator = await start_tokenx_generator(named)
    browser = Browser(other)
    try:
        form = {"aud": OPEN, "pid": PID}
        assert (await browser.go("/api/public/obo", "POST", data=form))[0] == 200
    finally:
        await browser.http.close()
        await other.generator.stop()


async def test_a_provider_that_demands_the_admin_token() -> None:
    """Where others can reach it, no token is made without one."""
    admin_token = "a-token-of-the-admin"
    rule = {"application": "tokenx-token-generator", "namespace": "nais"}
    local = local_entra([manifest("open", [rule])])
    emulator = await local.start("127.0.0.1", 0, admin_token=admin_token)
    environment = {
        **local.providers.tokenx_generator_environment(),
        "BIND_ADDRESS": "127.0.0.1:0",
        "TOKEN_GENERATOR_FAKE_LOGIN_TOKEN": admin_token,
    }
    other = World(emulator, environment)
    settings = TokenXGeneratorSettings.from_environment(environment)
    form = {"aud": OPEN, "pid": PID}
    try:
        for token, expected in ((settings.fake_login_token, 200), (None, 502)):
            other.generator = await start_tokenx_generator(replace(settings, fake_login_token=token))
            browser = Browser(other)
            status, _, body = await browser.go("/api/public/obo", "POST", data=form)
            await browser.http.close()
            await other.generator.stop()
            assert status == expected, body
            assert admin_token not in body
    finally:
        await emulator.stop()


async def test_without_tokens_without_a_login(world: World) -> None:
    """The route says which setting it needs, and the start page does not offer it."""
    settings = TokenXGeneratorSettings.from_environment(world.environment)
    other = World(world.emulator, world.environment)
    other.generator = await start_tokenx_generator(replace(settings, fake_login_url=None))
    browser = Browser(other)
    try:
        status, _, body = await browser.go("/api/public/obo", "POST", data={"aud": OPEN, "pid": PID})
        assert status == 404
        assert "TOKEN_GENERATOR_FAKE_LOGIN_URL" in body
        assert "/api/public/obo" not in (await browser.go("/", headers=HTML))[2]
    finally:
        await browser.http.close()
        await other.generator.stop()
