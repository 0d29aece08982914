"""What the script of the pages adds: copying, a live log, rules that stand out, a form that sends itself."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from support.local_entra import Caller

from .conftest import Application

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP_A, APP_B = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"


@pytest_asyncio.fixture(loop_scope="session")
async def scripted(browser: Browser, entra: Caller) -> AsyncIterator[Page]:
    """A page with scripts and a clipboard; errors fail the test."""
    context = await browser.new_context()
    await context.grant_permissions(["clipboard-read", "clipboard-write"], origin=entra.base_url)
    page = await context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    await context.close()
    assert [text for text in problems if "Failed to load resource" not in text] == []  # an icon of a test


async def test_a_token_is_copied(entra: Caller, scripted: Page) -> None:
    """Token and commands have a button each; what is copied is the text, and a screen reader is told."""
    await scripted.goto(f"{entra.base_url}/mint?consumer={APP_A}")
    await scripted.get_by_label("Target (the API being called)").fill(APP_B)
    await scripted.get_by_role("button", name="Get the token").click()
    token = await scripted.get_by_role("region", name="Token", exact=True).inner_text()
    await scripted.get_by_role("button", name="Copy: Token").click()
    await expect(scripted.get_by_text("Token copied")).to_have_attribute("role", "status")
    assert await scripted.evaluate("navigator.clipboard.readText()") == token
    for tool in ("curl", "HTTPie", "Python"):
        await expect(scripted.get_by_label(f"Copy: Call: {tool}")).to_have_count(1)
        await expect(scripted.get_by_label(f"Copy: Command: {tool}")).to_have_count(1)


async def test_the_log_is_live(entra: Caller, scripted: Page) -> None:
    """A request appears without reloading, and the filter stays in effect."""
    await scripted.goto(f"{entra.base_url}/log?outcome=refused&live=1")
    await expect(scripted.get_by_role("main")).to_contain_text("No request matches.")
    await entra.m2m(APP_A, APP_B)
    await entra.m2m(APP_B, APP_A)
    await expect(scripted.locator("#entries tbody tr")).to_have_count(1)
    await expect(scripted.locator("#entries")).to_contain_text("AADSTS501051")
    await scripted.get_by_role("link", name="Stop updating").click()
    await expect(scripted.locator("[data-live]")).to_have_count(0)


async def test_rules_of_an_application_stand_out(entra: Caller, scripted: Page) -> None:
    """Under the pointer and with the keyboard."""
    await scripted.goto(f"{entra.base_url}/map")
    box = scripted.locator("svg").get_by_role("link", name=APP_B, exact=True)
    await box.hover()
    await expect(scripted.locator("svg.chosen a.edge.near")).to_have_count(3)
    await scripted.get_by_role("heading", level=1).hover()
    await expect(scripted.locator("svg.chosen")).to_have_count(0)
    await box.focus()
    await expect(scripted.locator("svg.chosen a.edge.near")).to_have_count(3)


async def test_form_post_submits_itself(entra: Caller, application: Application, scripted: Page) -> None:
    """The response of `response_mode=form_post` reaches the application without a click."""
    parameters = entra.login_parameters(APP_A, redirect_uri=application.url, response_mode="form_post")
    path = f"{entra.authorize_path(APP_A)}?{urllib.parse.urlencode(parameters)}"
    await scripted.goto(entra.base_url + path)
    await scripted.get_by_role("button", name="Ada Lovelace").click()
    await expect(scripted).to_have_title("application")
    assert application.arrived[-1]["code"]
