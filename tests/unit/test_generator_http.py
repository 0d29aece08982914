"""The token generator over HTTP, in front of a real local Entra ID: login, routes, refusals, caller check."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urljoin, urlsplit

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from entra_fast._native import unverified_claims
from entra_fast._settings.model import ProviderSettings
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.errors import ProviderError
from entra_fast.generator import GeneratorSettings, RunningGenerator, start_generator
from entra_fast.generator import settings as settings_module
from entra_fast.generator.login import Logins
from entra_fast.generator.provider import Provider
from entra_fast.generator.sessions import SessionStore
from support.pages import Form

pytestmark = pytest.mark.asyncio(loop_scope="module")

TARGET, CLOSED = "dev-gcp:team-a:open", "dev-gcp:team-a:closed"
GENERATOR = "dev-gcp:nais:azure-token-generator"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SESSION, LOGIN = "entra_fast_generator_session", "entra_fast_generator_login"


def _manifest(name: str, rules: list[dict[str, str]]) -> str:
    spec = {
        "azure": {"application": {"enabled": True, "allowAllUsers": True}},
        "accessPolicy": {"inbound": {"rules": rules}},
    }
    metadata = {"name": name, "namespace": "team-a", "labels": {"team": "team-a"}}
    return json.dumps(
        {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "metadata": metadata, "spec": spec}
    )


DIRECTORY = """
tenant: trygdeetaten.no
users:
  - {name: "<b>Ada</b>", username: ada@trygdeetaten.no}
"""


class Clock:
    """Time that moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """A provider, a token generator, and a clock for its sessions."""

    emulator: RunningEmulator
    generator: RunningGenerator
    settings: GeneratorSettings
    clock: Clock

    @property
    def url(self) -> str:
        return self.generator.base_url


class Browser:
    """A browser that shows every redirect, and keeps cookies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.answers: list[tuple[int, Mapping[str, str], str]] = []

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def go(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Mapping[str, str], str]:
        """One request, redirects not followed: (status, headers, body)."""
        async with self.http.request(
            method, urljoin(self.world.url, path), allow_redirects=False, **options
        ) as response:
            return response.status, response.headers.copy(), await response.text()

    async def sign_in(self, authorize: str, username: str = "ada@trygdeetaten.no") -> str:
        """At the provider: choose a user; returns the address of the callback."""
        status, _, page = await self.go(authorize)
        assert status == 200, page
        form = Form(page)
        status, headers, page = await self.go(
            urljoin(authorize, form.action), "POST", data={**form.hidden, "username": username}
        )
        assert status in {302, 303}, page
        return headers["Location"]

    async def log_in(self, path: str = "/oauth2/login") -> str:
        """The whole login; returns where it leads."""
        status, headers, _ = await self.go(path)
        assert status == 302
        status, headers, page = await self.go(await self.sign_in(headers["Location"]))
        assert status == 302, page
        return headers["Location"]

    def cookie(self, name: str) -> str | None:
        """The value of a cookie."""
        return next((cookie.value for cookie in self.http.cookie_jar if cookie.key == name), None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("generator")
    manifests = folder / "manifests"
    manifests.mkdir()
    admitted = [{"application": "azure-token-generator", "namespace": "nais"}]
    (manifests / "open.yaml").write_text(_manifest("open", admitted))
    (manifests / "closed.yaml").write_text(_manifest("closed", []))
    (folder / "directory.yaml").write_text(DIRECTORY)
    local = LocalEntraId.from_files([manifests], folder / "directory.yaml")
    emulator = await local.start("127.0.0.1", 0)
    environment = {
        **emulator.environment(GENERATOR),
        "TOKEN_GENERATOR_AUDIENCES": f"{TARGET},{CLOSED}",
        "ENTRA_FAST_ALLOWED_HOSTS": "alias.example",
    }
    settings = GeneratorSettings.from_environment(environment, folder)
    clock = Clock()
    generator = await start_generator(settings, port=0, sessions=SessionStore(clock=clock))
    local.add_reply_url(GENERATOR, f"{generator.base_url}/oauth2/callback")
    yield World(emulator, generator, settings, clock)
    await generator.stop()
    await emulator.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def browser(world: World) -> AsyncIterator[Browser]:
    async with Browser(world) as browser:
        yield browser


# --- the login -----------------------------------------------------------------------------------------


async def test_without_a_login_the_browser_is_sent_to_the_provider(world: World, browser: Browser) -> None:
    """Authorization code with PKCE (S256), state and nonce, and the exact redirect URI."""
    status, headers, _ = await browser.go(f"/api/obo?aud={TARGET}")
    assert status == 302
    location = urlsplit(headers["Location"])
    assert headers["Location"].startswith(f"{world.emulator.base_url}/")
    query = parse_qs(location.query)
    assert all(len(values) == 1 for values in query.values())
    assert query["response_type"] == ["code"]
    assert query["redirect_uri"] == [f"{world.url}/oauth2/callback"]
    assert query["code_challenge_method"] == ["S256"]
    assert {"state", "nonce", "code_challenge", "client_id", "scope"} <= set(query)
    # Entra ID refuses an application that asks for itself by its api:// name (AADSTS90009): client id only.
    assert query["scope"] == [f"openid profile {query['client_id'][0]}/.default"]


async def test_the_cookie_of_a_login_is_hidden_from_scripts_and_other_sites(browser: Browser) -> None:
    """HttpOnly, SameSite=Lax, bounded in time."""
    _, headers, _ = await browser.go(f"/api/obo?aud={TARGET}")
    attributes = {part.strip().lower() for part in headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/", "max-age=600"} <= attributes


async def test_after_the_login_the_browser_gets_what_it_asked_for(browser: Browser) -> None:
    """Back to the same route and audience; then a token on behalf of the user."""
    back = await browser.log_in(f"/api/obo?aud={TARGET}")
    assert back == "/api/obo?aud=dev-gcp%3Ateam-a%3Aopen"
    status, headers, body = await browser.go(back, headers={"Accept": "application/json"})
    assert (status, headers["Content-Type"]) == (200, "application/json")
    answer = json.loads(body)
    assert set(answer) == {"access_token", "expires_in", "token_type"}
    assert answer["token_type"] == "Bearer"
    claims = unverified_claims(answer["access_token"])
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["azp_name"] == GENERATOR


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/plain, */*"])
async def test_programs_get_the_token_as_json(browser: Browser, accept: str | None) -> None:
    """Without a preference for HTML, the response is compact JSON with three members and nothing else."""
    await browser.log_in()
    headers = {} if accept is None else {"Accept": accept}
    for path in (f"/api/obo?aud={TARGET}", f"/api/m2m?aud={TARGET}"):
        status, answered, body = await browser.go(path, headers=headers)
        assert (status, answered["Content-Type"]) == (200, "application/json")
        assert answered["Vary"] == "Accept, Cookie"
        assert re.fullmatch(r'\{"access_token":"[\w.-]+","expires_in":\d+,"token_type":"Bearer"\}', body)


async def test_browsers_get_the_token_as_a_page(browser: Browser) -> None:
    """Token, claims with their meaning, expiry, commands, again, as another user, another audience."""
    await browser.log_in()
    status, headers, page = await browser.go(f"/api/obo?aud={TARGET}", headers=BROWSER)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Cache-Control"] == "no-store"
    found = re.search(r'aria-label="Token">(eyJ[\w-]+\.[\w-]+\.[\w-]+)<', page)
    assert found
    claims = unverified_claims(found[1])
    assert claims["azp_name"] == GENERATOR
    for text in (
        "on behalf of &lt;b&gt;Ada",
        "Expires",
        " UTC, in ",
        "Audience: the application",
        "curl ",
        "requests",
    ):
        assert text in page, text
    query = "aud=dev-gcp%3Ateam-a%3Aopen"
    assert f'href="/api/obo?{query}"' in page
    assert f'href="/oauth2/login?to=obo&amp;{query}&amp;prompt=select_account"' in page
    assert f'href="/?{query}"' in page
    machine = (await browser.go(f"/api/m2m?aud={TARGET}", headers=BROWSER))[2]
    assert "machine-to-machine" in machine
    assert "/api/public/m2m" in machine


async def test_switching_the_user_keeps_the_audience(browser: Browser) -> None:
    """From every page, and back to what was asked for; a wrong audience is refused before the sign-in."""
    back = await browser.log_in(f"/oauth2/login?to=obo&aud={TARGET}&prompt=select_account")
    assert back == "/api/obo?aud=dev-gcp%3Ateam-a%3Aopen"
    assert (
        await browser.log_in(f"/oauth2/login?to=start&aud={TARGET}&prompt=select_account")
        == "/?aud=dev-gcp%3Ateam-a%3Aopen"
    )
    assert await browser.log_in("/oauth2/login?prompt=select_account") == "/"
    refused = (await browser.go(f"/api/obo?aud={CLOSED}", headers=BROWSER))[2]
    assert (
        'href="/oauth2/login?to=obo&amp;aud=dev-gcp%3Ateam-a%3Aclosed&amp;prompt=select_account"' in refused
    )
    assert (await browser.go("/oauth2/login?to=obo&aud=a%20b"))[0] == 400


async def test_the_sign_in_warns_of_users_whom_the_final_target_will_refuse(browser: Browser) -> None:
    """A user who may use the token generator can still be refused by the target of the exchange."""
    _, headers, _ = await browser.go(f"/api/obo?aud={CLOSED}")
    _, _, page = await browser.go(headers["Location"])
    assert CLOSED in page
    assert "is in none of the inbound rules" in page
    _, headers, _ = await browser.go(f"/api/obo?aud={TARGET}")
    _, _, page = await browser.go(headers["Location"])
    assert f"✓ {TARGET} allows this user" in page
    _, headers, _ = await browser.go(f"/api/m2m?aud={CLOSED}")
    assert "entra_fast_target" not in headers["Location"]  # no token on behalf of the user is asked for


async def test_every_request_gets_a_fresh_token(browser: Browser) -> None:
    """Nothing is cached: a changed policy shows at once."""
    await browser.log_in()
    for path, method in (
        (f"/api/obo?aud={TARGET}", "GET"),
        (f"/api/m2m?aud={TARGET}", "GET"),
        (f"/api/public/m2m?aud={TARGET}", "POST"),
    ):
        first, second = await browser.go(path, method), await browser.go(path, method)
        assert first[0] == second[0] == 200
        assert first[2] != second[2]


async def test_the_session_cookie_holds_no_token(browser: Browser) -> None:
    """A random name, HttpOnly and SameSite=Lax; the login's own cookie is gone."""
    _, headers, _ = await browser.go("/oauth2/login")
    _, headers, _ = await browser.go(await browser.sign_in(headers["Location"]))
    cookies = {value.split("=")[0]: value for value in headers.getall("Set-Cookie")}  # type: ignore[attr-defined]
    assert {"httponly", "samesite=lax"} <= {part.strip().lower() for part in cookies[SESSION].split(";")}
    assert "max-age=0" in cookies[LOGIN].lower()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", browser.cookie(SESSION) or "")


async def test_m2m_needs_a_login_and_names_no_user(browser: Browser) -> None:
    """The same answer by client credentials."""
    status, _, _ = await browser.go(f"/api/m2m?aud={TARGET}")
    assert status == 302
    await browser.log_in()
    status, _, body = await browser.go(f"/api/m2m?aud={TARGET}")
    assert status == 200
    assert unverified_claims(json.loads(body)["access_token"])["idtyp"] == "app"


async def test_a_session_ends_with_the_users_token(world: World, browser: Browser) -> None:
    """Then the browser is sent to the login again."""
    await browser.log_in()
    assert (await browser.go(f"/api/obo?aud={TARGET}"))[0] == 200
    world.clock.now += 2 * 3600
    assert (await browser.go(f"/api/obo?aud={TARGET}"))[0] == 302


async def test_logging_out_ends_the_session_on_the_server(browser: Browser) -> None:
    """A copy of the cookie is useless afterwards."""
    await browser.log_in()
    kept = browser.cookie(SESSION)
    assert (await browser.go("/oauth2/logout", "POST"))[0] == 303
    status, _, _ = await browser.go(f"/api/obo?aud={TARGET}", headers={"Cookie": f"{SESSION}={kept}"})
    assert status == 302


async def test_logging_out_ends_the_session_at_the_provider_too(world: World, browser: Browser) -> None:
    """By way of its logout and back to the start page; the next login asks who it is."""
    await browser.log_in()
    _, headers, _ = await browser.go("/oauth2/login")
    assert (await browser.go(headers["Location"]))[0] in {302, 303}  # still signed in there: no prompt
    _, headers, _ = await browser.go("/oauth2/logout", "POST")
    assert headers["Location"].startswith(f"{world.emulator.base_url}/")
    status, headers, _ = await browser.go(headers["Location"])
    assert (status, headers["Location"]) == (303, f"{world.url}/")
    _, headers, _ = await browser.go("/oauth2/login")
    status, _, page = await browser.go(headers["Location"])
    assert status == 200
    assert "Sign in" in page


async def test_a_session_whose_token_the_provider_no_longer_takes_ends(
    world: World, browser: Browser
) -> None:
    """Signed with a key that is gone (AADSTS50013): an error once, then a new login."""
    await browser.log_in()
    local = world.emulator.local
    key = local.keyring.active.kid
    local.rotate_keys()
    local.withdraw_key(str(key))
    status, _, body = await browser.go(f"/api/obo?aud={TARGET}")
    assert (status, json.loads(body)["error"]) == (400, "invalid_grant")
    assert (await browser.go(f"/api/obo?aud={TARGET}"))[0] == 302


async def test_a_login_gets_a_session_of_a_new_name(world: World, browser: Browser) -> None:
    """Session fixation: a cookie that was there before the login is not the one after it."""
    await browser.log_in()
    before = browser.cookie(SESSION)
    status, headers, _ = await browser.go("/oauth2/login?prompt=select_account")
    await browser.go(await browser.sign_in(headers["Location"]))
    assert browser.cookie(SESSION) not in {before, None}
    async with Browser(world) as other:
        status, _, _ = await other.go(f"/api/obo?aud={TARGET}", headers={"Cookie": f"{SESSION}={before}"})
    assert status == 302


# --- attacks on the login --------------------------------------------------------------------------------


async def test_a_callback_from_another_browser_is_refused(world: World, browser: Browser) -> None:
    """Login CSRF: an attacker's code and state sign no one in, with or without a login in progress."""
    async with Browser(world) as attacker:
        _, headers, _ = await attacker.go("/oauth2/login")
        callback = await attacker.sign_in(headers["Location"])
    status, _, body = await browser.go(callback)
    assert (status, json.loads(body)["error"]) == (400, "invalid_request")
    await browser.go("/oauth2/login")
    status, _, _ = await browser.go(callback)
    assert status == 400
    assert browser.cookie(SESSION) is None


async def test_a_code_is_used_once(browser: Browser) -> None:
    """Replaying the callback with the login's own cookie: the provider refuses the code."""
    _, headers, _ = await browser.go("/oauth2/login")
    ticket = browser.cookie(LOGIN)
    callback = await browser.sign_in(headers["Location"])
    assert (await browser.go(callback))[0] == 302
    status, _, body = await browser.go(callback, headers={"Cookie": f"{LOGIN}={ticket}"})
    assert (status, json.loads(body)["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("parameter", ["nonce", "code_challenge"])
async def test_a_code_of_another_request_is_refused(parameter: str, browser: Browser) -> None:
    """Code injection: a code issued for another nonce or another PKCE challenge signs no one in."""
    _, headers, _ = await browser.go("/oauth2/login")
    _, other, _ = await browser.go("/oauth2/login")  # gives a second value that is well-formed
    query = dict(parse_qsl(urlsplit(other["Location"]).query))
    query[parameter] = dict(parse_qsl(urlsplit(headers["Location"]).query))[parameter]
    mixed = urlsplit(other["Location"])._replace(query=urlencode(query)).geturl()
    status, _, body = await browser.go(await browser.sign_in(mixed))
    assert status == 400
    assert json.loads(body)["error"] in {"invalid_request", "invalid_grant"}
    assert browser.cookie(SESSION) is None


async def test_a_refusal_of_the_provider_is_passed_on(browser: Browser) -> None:
    """A callback with an error: its code and its text, escaped; no one is signed in."""
    _, headers, _ = await browser.go("/oauth2/login")
    state = parse_qs(urlsplit(headers["Location"]).query)["state"][0]
    query = urlencode({"error": "access_denied", "error_description": "<script>no</script>", "state": state})
    status, headers, body = await browser.go(f"/oauth2/callback?{query}", headers=BROWSER)
    assert status == 400
    assert headers["Content-Type"].startswith("text/html")
    assert "access_denied" in body
    assert "&lt;script&gt;no" in body
    assert "<script>no" not in body


@pytest.mark.parametrize(
    "path",
    [
        "/oauth2/login?redirect=https://evil.example/&next=//evil.example&returnTo=/\\evil.example",
        "/api/obo?aud=https://evil.example/.default",
        "/api/obo?aud=https://evil.example/%0d%0aLocation:x",
        "//evil.example/%2f..",
    ],
)
async def test_no_redirect_leads_to_a_place_that_the_caller_chose(
    world: World, path: str, browser: Browser
) -> None:
    """Open redirects: after a login only our own routes, otherwise only the provider."""
    async with browser.http.get(world.url + path, allow_redirects=False) as response:
        status, location = response.status, response.headers.get("Location")
    if location is None:
        assert status in {400, 404}
        return
    assert location.startswith(f"{world.emulator.base_url}/")
    _, headers, _ = await browser.go(await browser.sign_in(location))
    assert re.match(r"/(api/obo\?aud=[A-Za-z0-9%._-]+)?$", headers["Location"])


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method"),
    [("/api/obo", "GET"), ("/api/m2m", "GET"), ("/api/public/m2m", "POST"), ("/api/obo?aud=", "GET")],
)
async def test_a_missing_audience_is_400_and_says_so(path: str, method: str, browser: Browser) -> None:
    """Before the user has to log in for nothing."""
    status, headers, body = await browser.go(path, method)
    answer = json.loads(body)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert "'aud' is missing" in answer["error_description"]
    assert headers["Content-Type"].startswith("application/json")


async def test_the_providers_errors_are_passed_on(browser: Browser) -> None:
    """Status, error, description and codes as the provider sent them, on all three routes."""
    await browser.log_in()
    for path, method, code in (
        (f"/api/obo?aud={CLOSED}", "GET", 65001),
        (f"/api/m2m?aud={CLOSED}", "GET", 501051),
        (f"/api/public/m2m?aud={CLOSED}", "POST", 501051),
        ("/api/public/m2m?aud=dev-gcp:team-a:missing", "POST", 500011),
    ):
        status, _, body = await browser.go(path, method)
        answer = json.loads(body)
        assert status == 400
        assert answer["error_description"].startswith(f"AADSTS{code}: ")
        assert answer["error_codes"] == [code]


async def test_a_provider_that_repeats_the_request_reveals_no_secret(world: World) -> None:
    """What was sent as credential, code, verifier or assertion is removed from the provider's errors."""
    sent: list[dict[str, str]] = []

    async def echo(request: web.Request) -> web.Response:
        sent.append({name: str(value) for name, value in (await request.post()).items()})
        text = await request.text() + json.dumps(sent[-1])
        return web.json_response({"error": "invalid_grant", "error_description": text}, status=400)

    app = web.Application()
    app.router.add_post("/token", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    provider = Provider(replace(world.settings.provider, token_endpoint=url), world.settings.outbound)
    login = Logins().begin("start")
    try:
        for request in (
            provider.client_credentials("api://a.b.c/.default"),
            provider.on_behalf_of("api://a.b.c/.default", "canary.subject-token.signature"),
            provider.redeem(login, "canary-code-0123", "http://127.0.0.1/oauth2/callback"),
        ):
            with pytest.raises(ProviderError) as caught:
                await request
            assert "client_id" in caught.value.message
            for name in ("client_secret", "client_assertion", "assertion", "code", "code_verifier"):
                secret = sent[-1].get(name)
                assert secret is None or secret not in caught.value.message
            assert "canary" not in caught.value.message
    finally:
        await provider.aclose()
        await runner.cleanup()
    assert [form["grant_type"].rpartition(":")[2] for form in sent] == [
        "client_credentials",
        "jwt-bearer",
        "authorization_code",
    ]


async def test_a_browser_gets_a_page_that_explains_the_refusal(browser: Browser) -> None:
    """The provider's words, and what to change in which manifest."""
    await browser.log_in()
    status, headers, body = await browser.go(f"/api/m2m?aud={CLOSED}", headers=BROWSER)
    assert status == 400
    assert headers["Content-Type"].startswith("text/html")
    assert "AADSTS501051" in body
    assert "accessPolicy.inbound.rules" in body


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nothing", "GET", 404), ("/api/public/m2m", "GET", 405), ("/api/obo", "HEAD", 405)],
)
async def test_unknown_paths_and_methods(path: str, method: str, status: int, browser: Browser) -> None:
    """In the same shape as other errors."""
    got, headers, body = await browser.go(path, method)
    assert got == status
    assert method == "HEAD" or json.loads(body)["error"] == "invalid_request"
    assert status != 405 or headers["Allow"]


async def test_a_large_body_is_refused(browser: Browser) -> None:
    """An audience is all that a caller has to send."""
    status, _, body = await browser.go("/api/public/m2m", "POST", data={"aud": "x" * 100_000})
    assert (status, json.loads(body)["error"]) == (413, "invalid_request")


async def test_a_provider_that_is_down_is_an_error_and_not_a_crash(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Pages still work, readyz gives the reason, and it recovers without a restart."""
    provider: ProviderSettings = replace(
        world.settings.provider, well_known_url="http://127.0.0.1:9/x/v2.0/.well-known/openid-configuration"
    )
    generator = await start_generator(replace(world.settings, provider=provider), port=0)
    try:
        async with Browser(replace(world, generator=generator)) as browser:
            assert (await browser.go("/"))[0] == 200
            assert (await browser.go("/healthz"))[0] == 200
            status, _, reason = await browser.go("/readyz")
            assert status == 503
            assert "endpoints are not known" in reason
            for path, method in (
                (f"/api/obo?aud={TARGET}", "GET"),
                (f"/api/public/m2m?aud={TARGET}", "POST"),
            ):
                status, _, body = await browser.go(path, method)
                assert (status, json.loads(body)["error"]) == (500, "server_error")
    finally:
        await generator.stop()
    assert "Traceback" not in caplog.text


async def test_an_internal_error_says_nothing_of_what_it_failed_on(
    world: World, browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Canary: neither answer nor log quote an exception that quotes a token; the log says where it was."""

    async def fail(*_: object) -> None:
        raise RuntimeError("canary-token")

    monkeypatch.setattr("entra_fast.generator.provider.Provider.client_credentials", fail)
    status, _, body = await browser.go(f"/api/public/m2m?aud={TARGET}", "POST")
    assert (status, json.loads(body)["error"]) == (500, "server_error")
    assert "RuntimeError in test_generator_http.py" in caplog.text
    assert "canary" not in body + caplog.text


# --- content negotiation ---------------------------------------------------------------------------------


async def test_the_public_route_answers_with_the_bare_token(browser: Browser) -> None:
    """`TOKEN=$(curl ...)`: text/plain, no line end; the audience in the form or in the query."""
    for options in ({"data": {"aud": TARGET}}, {"params": {"aud": "dev-gcp.team-a.open"}}):
        status, headers, body = await browser.go("/api/public/m2m", "POST", **options)
        assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert body == body.strip()
        assert unverified_claims(body)["azp_name"] == GENERATOR


async def test_the_public_route_answers_in_json_on_request(browser: Browser) -> None:
    """`Accept: application/json`."""
    status, headers, body = await browser.go(
        "/api/public/m2m", "POST", data={"aud": TARGET}, headers={"Accept": "application/json"}
    )
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert set(json.loads(body)) == {"access_token", "expires_in", "token_type"}


# --- pages and the caller check ------------------------------------------------------------------------


async def test_the_start_page_lists_audiences_with_links(browser: Browser) -> None:
    """For both kinds of token; and names the signed-in user, escaped."""
    await browser.log_in()
    status, _, page = await browser.go("/", headers=BROWSER)
    assert status == 200
    for route in ("obo", "m2m"):
        assert f'href="/api/{route}?aud=dev-gcp%3Ateam-a%3Aopen"' in page
    assert "&lt;b&gt;Ada&lt;/b&gt;" in page
    assert "<b>Ada" not in page


@pytest.mark.parametrize("path", ["/", "/api/obo", "/nothing", "/oauth2/callback", "/healthz"])
async def test_every_answer_is_guarded(path: str, browser: Browser) -> None:
    """Not stored, not framed, not sniffed, no scripts; also errors."""
    _, headers, _ = await browser.go(path, headers=BROWSER)
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_a_foreign_host_is_refused(host: str, browser: Browser) -> None:
    """DNS rebinding: a page of evil.example that suddenly resolves to this machine reads no token."""
    status, _, body = await browser.go(
        "/api/public/m2m", "POST", data={"aud": TARGET}, headers={"Host": host}
    )
    assert (status, json.loads(body)["error"]) == (403, "access_denied")


@pytest.mark.parametrize("host", ["alias.example", "localhost:1", "127.0.0.1", "[::1]:8081"])
async def test_a_known_host_is_served(host: str, browser: Browser) -> None:
    """Configured names and loopback, whatever the port (port forwarding)."""
    status, _, _ = await browser.go("/api/public/m2m", "POST", data={"aud": TARGET}, headers={"Host": host})
    assert status == 200


async def test_a_page_of_another_origin_cannot_post(world: World, browser: Browser) -> None:
    """Cross-site request forgery, in addition to SameSite; our own pages can."""
    await browser.log_in()
    for origin in ("https://evil.example", "null", world.url + ".evil.example"):
        assert (await browser.go("/oauth2/logout", "POST", headers={"Origin": origin}))[0] == 403
    assert (await browser.go(f"/api/obo?aud={TARGET}"))[0] == 200
    assert (await browser.go("/oauth2/logout", "POST", headers={"Origin": world.url}))[0] == 303


async def test_localhost_is_sent_to_the_name_that_the_login_comes_back_to(
    world: World, browser: Browser
) -> None:
    """Cookies of localhost are not seen by 127.0.0.1: without this the login would fail."""
    port = urlsplit(world.url).port
    status, headers, _ = await browser.go(f"/api/obo?aud={TARGET}", headers={"Host": f"localhost:{port}"})
    assert (status, headers["Location"]) == (302, f"{world.url}/api/obo?aud=dev-gcp%3Ateam-a%3Aopen")


async def test_on_https_cookies_are_secure_and_bound_to_the_host(world: World) -> None:
    """`__Host-` and Secure, and the redirect URI of the public address."""
    settings = replace(world.settings, url="https://tokens.example")
    generator = await start_generator(settings, port=0)
    port = generator._runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession() as http, http.get(
            f"http://127.0.0.1:{port}/api/obo?aud={TARGET}",
            headers={"Host": "tokens.example"},
            allow_redirects=False,
        ) as response:  # fmt: skip
            cookie = response.headers["Set-Cookie"]
            location = response.headers["Location"]
            assert "max-age" in response.headers["Strict-Transport-Security"]
    finally:
        await generator.stop()
    assert cookie.startswith(f"__Host-{LOGIN}=")
    assert "Secure" in cookie
    assert parse_qs(urlsplit(location).query)["redirect_uri"] == ["https://tokens.example/oauth2/callback"]


# --- settings --------------------------------------------------------------------------------------------

ENVIRONMENT = {
    "AZURE_APP_CLIENT_ID": "11111111-1111-4111-8111-111111111111",
    "AZURE_APP_CLIENT_SECRET": "canary-secret",
    "AZURE_APP_TENANT_ID": "22222222-2222-4222-8222-222222222222",
}


async def test_it_runs_against_a_real_tenant_by_configuration(tmp_path: Path) -> None:
    """The variables of any NAIS application are enough."""
    settings = GeneratorSettings.from_environment(ENVIRONMENT, tmp_path)
    assert settings.provider.well_known_url == (
        "https://login.microsoftonline.com/22222222-2222-4222-8222-222222222222/v2.0/.well-known/openid-configuration"
    )
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8081)
    assert "canary-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"AZURE_APP_CLIENT_ID": ""}, "AZURE_APP_CLIENT_ID"),
        (
            {
                "AZURE_ENABLED": "false",
                "IDPORTEN_ENABLED": "true",
                "IDPORTEN_AUDIENCE": "https://app.example",
                "IDPORTEN_WELL_KNOWN_URL": "https://idporten.example/.well-known/openid-configuration",
            },
            "AZURE_APP_CLIENT_ID",
        ),
        ({"AZURE_APP_CLIENT_SECRET": ""}, "AZURE_APP_JWK"),
        ({"BIND_ADDRESS": "0.0.0.0:8080"}, "TOKEN_GENERATOR_URL"),
        ({"TOKEN_GENERATOR_URL": "http://tokens.example"}, "TOKEN_GENERATOR_URL"),
        ({"TOKEN_GENERATOR_URL": "https://tokens.example/path"}, "TOKEN_GENERATOR_URL"),
        ({"TOKEN_GENERATOR_URL": "https://user:pass@tokens.example"}, "TOKEN_GENERATOR_URL"),
        ({"TOKEN_GENERATOR_URL": "javascript:alert(1)"}, "TOKEN_GENERATOR_URL"),
        ({"TOKEN_GENERATOR_AUDIENCES": 'a:b:c, "nonsense"'}, "TOKEN_GENERATOR_AUDIENCES"),
        (
            {
                "AZURE_OPENID_CONFIG_ISSUER": "https://i.example",
                "AZURE_OPENID_CONFIG_JWKS_URI": "https://i.example/k",
                "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT": "https://i.example/t",
            },
            "AZURE_APP_WELL_KNOWN_URL",
        ),
    ],
)
async def test_a_wrong_setting_is_named(changes: dict[str, str], setting: str, tmp_path: Path) -> None:
    """And its value is not repeated."""
    from entra_fast.errors import ConfigurationError

    with pytest.raises(ConfigurationError) as caught:
        GeneratorSettings.from_environment({**ENVIRONMENT, **changes}, tmp_path)
    assert caught.value.setting == setting
    assert setting in caught.value.message
    assert "user:pass" not in caught.value.message


async def test_the_documentation_names_every_route_and_setting(world: World) -> None:
    """docs/guides/token-generator.md does not fall behind."""
    text, source = _documentation_and_settings()
    routes = {
        (route.method, route.resource.canonical)
        for route in world.generator._runner.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert len(routes) == 9
    for method, path in routes:
        assert re.search(rf"`{method} {re.escape(path)}[`?]", text), f"{method} {path}"
    for setting in set(re.findall(r'"(TOKEN_GENERATOR_[A-Z_]+)"', source)):
        assert f"| `{setting}` |" in text


def _documentation_and_settings() -> tuple[str, str]:
    documentation = Path(__file__).resolve().parents[2] / "docs" / "guides" / "token-generator.md"
    return documentation.read_text(), Path(settings_module.__file__).read_text()
