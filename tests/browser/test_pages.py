"""Login, refusals, console, minting, faults: clicked and read in Chromium with scripts switched off."""

from __future__ import annotations

import urllib.parse

import pytest
from playwright.async_api import Page, expect

from support.local_entra import Caller

from .conftest import Application, fits, picture

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP_A, APP_B = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b"
CALLBACK = "http://localhost:3001/oauth2/callback"


def login_url(entra: Caller, redirect_uri: str, **changes: str) -> str:
    parameters = entra.login_parameters(APP_A, redirect_uri=redirect_uri, **changes)
    return f"{entra.base_url}{entra.authorize_path(APP_A)}?{urllib.parse.urlencode(parameters)}"


async def test_a_login_by_clicking(entra: Caller, application: Application, page: Page, width: str) -> None:
    """Choose a user, arrive at the application with a code that works; the second time without a click."""
    await page.goto(login_url(entra, application.url, scope=f"openid {entra.scope(APP_B)}"))
    await fits(page)
    await picture(page, "login", width)
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page).to_have_title("application")
    tokens = await entra.redeem(APP_A, application.arrived[-1]["code"], redirect_uri=application.url)
    assert tokens.claims["aud"] == entra.client_id(APP_B)
    await page.goto(login_url(entra, application.url))
    await expect(page).to_have_title("application")
    assert len(application.arrived) == 2


async def test_a_login_by_keyboard(entra: Caller, application: Application, page: Page) -> None:
    """Type the name and press Enter."""
    await page.goto(login_url(entra, application.url))
    await page.get_by_label("User name, NAV ident or object ID").fill("ada")
    await page.keyboard.press("Enter")
    await expect(page).to_have_title("application")
    assert application.arrived[-1]["code"]


async def test_a_wrong_name_is_said(entra: Caller, application: Application, page: Page, width: str) -> None:
    """The message is attached to the field, also for screen readers."""
    await page.goto(login_url(entra, application.url))
    field = page.get_by_label("User name, NAV ident or object ID")
    await field.fill("nobody")
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("There is no user 'nobody'")
    await expect(page.get_by_label("User name, NAV ident or object ID")).to_have_attribute(
        "aria-invalid", "true"
    )
    await picture(page, "login-wrong", width)


async def test_a_refusal_explains_itself(
    entra: Caller, application: Application, page: Page, width: str
) -> None:
    """A user outside the group sees why; the log shows it too, one click away; signing in as another user
    works."""
    await page.goto(login_url(entra, application.url, scope=f"openid {entra.scope(APP_B)}"))
    await page.get_by_role("button", name="Ola Nordmann").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign-in refused")
    await expect(page.get_by_role("alert")).to_contain_text("AADSTS50105")
    await expect(page.get_by_role("main")).to_contain_text("'team-b'")
    await fits(page)
    await picture(page, "refusal", width)
    await page.get_by_role("link", name="Sign in as another user").click()
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page).to_have_title("application")
    await page.goto(entra.base_url + "/log")
    await page.get_by_role("link", name="#1").click()
    await expect(page.get_by_role("main")).to_contain_text("What to change")
    await fits(page)
    await picture(page, "log-entry", width)


async def test_a_wrong_redirect_uri_explains_itself(entra: Caller, page: Page, width: str) -> None:
    """What was sent and what is registered, side by side."""
    await page.goto(login_url(entra, "http://localhost:9999/callback"))
    await expect(page.get_by_role("alert")).to_contain_text("does not match the redirect URIs")
    await expect(page.get_by_role("main")).to_contain_text(CALLBACK)
    await fits(page)
    await picture(page, "redirect-uri", width)


async def test_form_post_without_scripts(entra: Caller, application: Application, page: Page) -> None:
    """A button carries the answer to the application."""
    await page.goto(login_url(entra, application.url, response_mode="form_post"))
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.get_by_role("button", name="Continue").click()
    await expect(page).to_have_title("application")
    assert application.arrived[-1]["code"]


async def test_minting(entra: Caller, page: Page, width: str) -> None:
    """Consumer, target and user give the token, decoded, and the command; a refusal shows what to change."""
    await page.goto(entra.base_url + "/mint")
    await page.get_by_label("Consumer (the calling application)").fill(APP_A)
    await page.get_by_label("Target (the API being called)").fill(APP_B)
    await page.get_by_label("User").fill("ada")
    await page.get_by_role("button", name="Get the token").click()
    await expect(page.get_by_role("status")).to_have_text("✓ granted")
    await expect(page.get_by_role("row", name="scp")).to_contain_text("defaultaccess cases.read")
    await expect(page.get_by_role("region", name="Command: curl")).to_contain_text("curl -s")
    await fits(page)
    await picture(page, "minted", width)
    await page.get_by_label("User").fill("ola")
    await page.get_by_role("button", name="Get the token").click()
    await expect(page.get_by_role("status")).to_contain_text("AADSTS50105")
    await fits(page)
    await picture(page, "mint-refused", width)


async def test_planning_a_fault(entra: Caller, page: Page, width: str) -> None:
    """A fault planned with the form takes effect, and a button removes it."""
    await page.goto(entra.base_url + "/faults")
    await page.get_by_label("Kind of fault").select_option("throttle")
    await page.get_by_label("Value").fill("7")
    await page.get_by_role("button", name="Add fault").click()
    assert (await entra.m2m(APP_A, APP_B)).headers["Retry-After"] == "7"
    await picture(page, "fault-planned", width)
    await page.get_by_role("button", name="Remove the fault throttle").click()
    assert (await entra.m2m(APP_A, APP_B)).status == 200


async def test_the_keyboard_reaches_everything(entra: Caller, page: Page) -> None:
    """The first stop is the link to the content; then the navigation, in order; each stop is visible."""
    await page.goto(entra.base_url + "/")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    await expect(skip).to_be_focused()
    box = await skip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    for name in ("entra_fast Local Entra ID", "Applications", "Access map", "Users and groups"):
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name=name)).to_be_focused()
    await expect(page.get_by_role("navigation").get_by_role("link", name="Applications")).to_have_attribute(
        "aria-current", "page"
    )


async def test_the_access_map_leads_to_the_rule(entra: Caller, page: Page, width: str) -> None:
    """An application by its box, a rule by its arrow and by the table; the page of a rule shows its line."""
    await page.goto(entra.base_url + "/map")
    await page.locator("svg").get_by_role("link", name=APP_B, exact=True).click()
    await expect(page.locator("svg a.node")).to_have_count(4)
    edge = page.locator("svg a.edge", has_text=f"{APP_A} → {APP_B}")
    await edge.locator("path").last.dispatch_event("click")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Inbound rule 1 of {APP_B}")
    await expect(page.locator("li.here")).to_contain_text("- application: app-a")
    await page.go_back()
    await page.get_by_role("row", name=APP_B).get_by_role("link", name="app-b.yaml:39").click()
    await expect(page.locator("li.here")).to_contain_text("- application: app-a")
    await picture(page, "rule", width)


async def test_tables_break_no_words(entra: Caller, page: Page, width: str) -> None:
    """In the log and in the list of users, each name is on one line of a desk."""
    await entra.m2m("dev-gcp:team-c:app-nobody", APP_B)
    entra.local.mint("dev-gcp:nais:azure-token-generator", APP_B, "ada")
    if width == "phone":
        return  # there, each row is a list, and a name may need two lines
    for path in ("/log", "/users"):
        await page.goto(entra.base_url + path)
        broken = """cells => cells.filter(cell => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            return range.getClientRects().length > 1;
        }).map(cell => cell.textContent)"""
        assert await page.locator("td.name, td .badge").evaluate_all(broken) == []
        assert await page.locator(".scroll").first.evaluate("e => e.scrollWidth <= e.clientWidth")


async def test_the_log_can_be_filtered(entra: Caller, page: Page) -> None:
    """By application, outcome and code, with a form."""
    await entra.m2m(APP_A, APP_B)
    await entra.m2m(APP_B, APP_A)
    await page.goto(entra.base_url + "/log")
    await page.get_by_label("Outcome").select_option("refused")
    await page.get_by_label("AADSTS code").fill("501051")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_label("Consumer or target contains").fill("nobody")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("main")).to_contain_text("No request matches.")
