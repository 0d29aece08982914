"""The token generator in a real browser, without scripts: the round trip, refusals, narrow screens."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from entra_fast.cli.dev_system import LocalSystem, Options, local_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium: install it, or name it in CHROMIUM", allow_module_level=True)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "manifests"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[LocalSystem]:
    async with local_system(Options((str(EXAMPLES),), None, (), "127.0.0.1", 0, 0, 0)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Containers rarely let Chromium make its own sandbox; it sees nothing but our own pages here.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(
    loop_scope="module", params=[("light", 1100), ("dark", 360)], ids=["desktop", "phone"]
)
async def page(request: pytest.FixtureRequest, chromium: Browser) -> AsyncIterator[Page]:
    scheme, width = request.param
    context = await chromium.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, java_script_enabled=False
    )
    yield await context.new_page()
    await context.close()


async def _sign_in(page: Page, name: str) -> None:
    await page.get_by_role("button", name=name).click()
    await page.wait_for_url("**/api/**")


async def test_a_user_gets_a_token_by_clicking(system: LocalSystem, page: Page) -> None:
    """Start page, audience, login, token; then the page names the signed-in user."""
    await page.goto(system.generator.base_url)
    await page.get_by_label("Audience (the API being called)").fill("dev-gcp:team-b:app-b")
    await page.get_by_role("button", name="On behalf of me").click()
    await _sign_in(page, "Ada Lovelace")
    assert set(json.loads(await page.inner_text("body"))) == {"access_token", "expires_in", "token_type"}
    await page.goto(system.generator.base_url)
    assert "Ada Lovelace" in await page.inner_text("header")


async def test_the_keyboard_is_enough(system: LocalSystem, page: Page) -> None:
    """Enter in the field asks for a token on behalf of the user."""
    await page.goto(system.generator.base_url)
    await page.get_by_label("Audience (the API being called)").fill("dev-gcp:team-b:app-b")
    await page.keyboard.press("Enter")
    await _sign_in(page, "Ada Lovelace")
    assert "access_token" in await page.inner_text("body")


async def test_a_refusal_explains_itself_and_another_user_can_be_chosen(
    system: LocalSystem, page: Page
) -> None:
    """Ola is in none of the groups; after signing out, the user is asked for again, and Ada gets a token."""
    base = system.generator.base_url
    await page.goto(f"{base}/api/obo?aud=dev-gcp:team-b:app-b")
    await _sign_in(page, "Ola Nordmann")
    alert = await page.get_by_role("alert").inner_text()
    assert "AADSTS50105" in alert
    assert "claims.groups" in alert
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{base}/")
    await page.get_by_role("link", name="On behalf of me, for dev-gcp:team-b:app-b").click()
    await _sign_in(page, "Ada Lovelace")
    assert "access_token" in await page.inner_text("body")


async def test_localhost_works_as_well(system: LocalSystem, page: Page) -> None:
    """On localhost, the sign-in still returns to the host that has the cookie."""
    base = system.generator.base_url.replace("127.0.0.1", "localhost")
    await page.goto(f"{base}/api/m2m?aud=dev-gcp:team-a:app-a")
    await _sign_in(page, "Ada Lovelace")
    assert "access_token" in await page.inner_text("body")


async def test_nothing_is_wider_than_the_screen(system: LocalSystem, page: Page) -> None:
    """Start page and error page, also on a phone."""
    for path in ("/", "/api/m2m"):
        await page.goto(system.generator.base_url + path)
        size = page.viewport_size
        box = await page.locator("html").bounding_box()
        assert size is not None
        assert box is not None
        assert box["width"] <= size["width"]
        for link in await page.get_by_role("link").all():
            place = await link.bounding_box()
            assert place is not None
            assert place["x"] + place["width"] <= size["width"]
