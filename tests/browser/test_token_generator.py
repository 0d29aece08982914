"""The token generator's round trip in Chromium, through the login of the local Entra ID, as `entra-fast
dev` runs both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from entra_fast._native import unverified_claims
from entra_fast.cli.dev_system import LocalSystem, Options, local_system
from support.local_entra import EXAMPLES

from .conftest import fits, picture

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP_B = "dev-gcp:team-b:app-b"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system() -> AsyncIterator[LocalSystem]:
    """Everything that `entra-fast dev` starts, on free ports."""
    options = Options(
        manifests=(str(EXAMPLES / "manifests"),),
        directory=str(EXAMPLES / "directory.yaml"),
        emulator_port=0,
        generator_port=0,
        sidecar_port=0,
    )
    async with local_system(options) as system:
        yield system


async def token_on(page: Page) -> dict[str, object]:
    """The claims of the token that a page shows."""
    return unverified_claims(await page.get_by_role("region", name="Token", exact=True).inner_text())


async def test_on_behalf_of_me(system: LocalSystem, page: Page, width: str) -> None:
    """Ask for an audience, choose a user at the sign-in, and get a page with the token for that audience and
    user; then every page names the user."""
    await page.goto(system.generator.base_url + "/")
    await fits(page)
    await picture(page, "generator", width)
    await page.get_by_label("Audience (the API being called)").fill(APP_B)
    await page.get_by_role("button", name="On behalf of me").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your token")
    claims = await token_on(page)
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["azp_name"] == "dev-gcp:nais:azure-token-generator"
    await expect(page.get_by_role("region", name="Call: curl")).to_contain_text("Authorization: Bearer eyJ")
    await fits(page)
    await picture(page, "generator-token", width)
    await page.goto(system.generator.base_url)
    await expect(page.get_by_role("banner")).to_contain_text("Ada Lovelace")


async def test_the_keyboard_is_enough(system: LocalSystem, page: Page) -> None:
    """Enter in the field asks for a token on behalf of the user."""
    await page.goto(system.generator.base_url)
    await page.get_by_label("Audience (the API being called)").fill(APP_B)
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your token")


async def test_a_user_who_is_not_admitted(system: LocalSystem, page: Page, width: str) -> None:
    """The sign-in warns of it; the exchange is refused with AADSTS50105, and the console says why. Switching
    the user keeps the audience."""
    await page.goto(f"{system.generator.base_url}/api/obo?aud={APP_B}")
    ola = page.get_by_role("button", name="Ola Nordmann")
    await expect(ola).to_contain_text(f"is a direct member of none of the groups of {APP_B}")
    await picture(page, "generator-sign-in", width)
    await ola.click()
    await expect(page.get_by_role("alert")).to_contain_text("AADSTS50105")
    await expect(page.get_by_role("alert")).to_contain_text("claims.groups")
    await picture(page, "generator-refused", width)
    await page.goto(system.emulator.base_url + "/log")
    await page.get_by_role("row", name="AADSTS50105").get_by_role("link").first.click()
    await expect(page.get_by_role("main")).to_contain_text("What to change")
    await page.goto(f"{system.generator.base_url}/api/obo?aud={APP_B}")
    await page.get_by_role("link", name="Switch user").click()
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your token")
    assert (await token_on(page))["preferred_username"] == "ada@trygdeetaten.no"
    await page.get_by_role("link", name="As another user").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_signing_out_asks_for_the_user_again(system: LocalSystem, page: Page) -> None:
    """Here and at the provider."""
    base = system.generator.base_url
    await page.goto(f"{base}/api/m2m?aud={APP_B}")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url(f"{base}/")
    await page.get_by_role("link", name=f"On behalf of me, for {APP_B}").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


async def test_localhost_works_as_well(system: LocalSystem, page: Page) -> None:
    """On localhost, the sign-in still returns to the host that has the cookie."""
    base = system.generator.base_url.replace("127.0.0.1", "localhost")
    await page.goto(f"{base}/api/m2m?aud=dev-gcp:team-a:app-a")
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your token")
    await expect(page.get_by_role("main")).to_contain_text("machine-to-machine")
