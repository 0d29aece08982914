"""The login at the local ID-porten in Chromium: by clicking, at both widths, light and dark, with axe."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from entra_fast.generator import TokenXGeneratorSettings, start_tokenx_generator
from support.idporten import APP, PID, SUBSTANTIAL, RelyingParty, idporten_served
from support.local_entra import local_entra
from support.local_providers import full, workload

from .conftest import SCREENSHOTS, Application, fits, picture
from .test_every_page import OTHER_VIEWS, VIEWS, show, violations

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def party() -> AsyncIterator[tuple[RelyingParty, Application]]:
    """A relying party whose redirect URI is served."""
    application, app = Application(), web.Application()
    app.router.add_route("*", "/oauth2/{rest:.*}", application.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    application.url = f"http://127.0.0.1:{runner.addresses[0][1]}/oauth2/callback"
    async with idporten_served() as browser:
        browser.provider.add_redirect_uri(APP, application.url)
        yield await RelyingParty.start(browser), application
    await runner.cleanup()


async def looks_right(page: Page, name: str) -> None:
    """Nothing overflows, and axe-core finds nothing, on a phone and on a desk, light and dark."""
    for width, scheme in VIEWS:
        await show(page, width, scheme)
        await fits(page)
        assert await violations(page) == "", (name, width, scheme)
    if SCREENSHOTS in os.environ:
        for width, scheme in (*VIEWS, *OTHER_VIEWS):
            await show(page, width, scheme)
            await picture(page, f"idporten-{name}-{scheme}", width)


def url_of(party: RelyingParty, parameters: dict[str, str]) -> str:
    return f"{party.metadata['authorization_endpoint']}?{urllib.parse.urlencode(parameters)}"


async def test_a_login_by_clicking(party: tuple[RelyingParty, Application], browser: Browser) -> None:
    """Choose a language, a level and a person; a wrong number is said beside its field; the application gets
    a code that works; logging out tells it in a frame and returns to it."""
    relying_party, application = party
    context = await browser.new_context()
    try:
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        wanted = relying_party.parameters(
            redirect_uri=application.url, acr_values=f"{SUBSTANTIAL} eidas-loa-high idporten-loa-low"
        )
        await page.goto(url_of(relying_party, wanted))
        await page.get_by_role("link", name="English").click()
        await looks_right(page, "login-en")
        field = page.get_by_label("National identity number or D-number")
        await field.fill("17058532185")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("a real person")
        await expect(field).to_have_attribute("aria-invalid", "true")
        await looks_right(page, "login-wrong")
        await page.get_by_label("Level of assurance").first.select_option("High")
        await page.get_by_role("button", name="Rolig Fjelltopp").click()
        await expect(page).to_have_title("application")
        tokens = (await relying_party.redeem(application.arrived[-1]["code"])).json
        claims = await relying_party.verified(tokens["id_token"], relying_party.client_id)
        assert (claims["pid"], claims["acr"], claims["locale"]) == (PID, "idporten-loa-high", "en")
        after = application.url.replace("/callback", "/logout/callback")
        query = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": after}
        arrived = len(application.arrived)
        await page.goto(f"{relying_party.metadata['end_session_endpoint']}?{urllib.parse.urlencode(query)}")
        await expect(page).to_have_title("application")
        assert {"iss": relying_party.metadata["issuer"], "sid": claims["sid"]} in application.arrived[
            arrived:
        ]
        await page.goto(f"{relying_party.metadata['end_session_endpoint']}?ui_locales=en")
        await looks_right(page, "signed-out")
        wrong = relying_party.parameters(redirect_uri="https://elsewhere.example/", ui_locales="en")
        await page.goto(url_of(relying_party, wrong))
        await expect(page.get_by_role("alert")).to_contain_text("not registered")
        await looks_right(page, "refused")
        high = relying_party.parameters(
            redirect_uri=application.url, response_mode="form_post", ui_locales="en"
        )
        await page.goto(url_of(relying_party, high))
        await looks_right(page, "login-high")
        await page.get_by_label("National identity number or D-number").fill("17858549949")
        await page.get_by_role("button", name="Log in", exact=True).click()
        await expect(page).to_have_title("application")
        assert application.arrived[-1].keys() == {"code", "state", "iss"}
        assert problems == []
    finally:
        await context.close()


async def test_the_token_generator_for_tokenx(browser: Browser) -> None:
    """From its start page through the login at ID-porten to a token, and to a refusal."""
    rule = {"application": "tokenx-token-generator", "namespace": "nais"}
    local = local_entra([workload("api", rules=[rule]), workload("closed")])
    emulator = await local.start("127.0.0.1", 0)
    environment = {
        **local.providers.tokenx_generator_environment(),
        "TOKEN_GENERATOR_AUDIENCES": f"{full('api')} {full('closed')}",
    }
    settings = TokenXGeneratorSettings.from_environment(environment)
    generator = await start_tokenx_generator(settings, port=0)
    local.providers.idporten.add_redirect_uri(
        "dev-gcp:nais:tokenx-token-generator", f"{generator.base_url}/oauth2/callback"
    )
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(generator.base_url)
        await looks_right(page, "generator")
        await page.get_by_label("Audience (the API being called)").fill(full("api"))
        await page.get_by_role("button", name="On behalf of me").click()
        await page.get_by_role("button", name="Fersk Havbris").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Your token")
        await expect(page.get_by_role("row", name="pid")).to_contain_text("41819049910")
        await looks_right(page, "generator-token")
        await page.goto(f"{generator.base_url}/api/obo?aud={full('closed')}")
        await expect(page.get_by_role("alert")).to_contain_text("is not authorized")
    finally:
        await context.close()
        await generator.stop()
        await emulator.stop()
