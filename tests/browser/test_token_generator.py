"""The token generator's round trip in Chromium, through the login of the local Entra ID, as `entra-fast
dev` runs both.
"""

from __future__ import annotations

import json
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


@pytest_asyncio.fixture(loop_scope="session")
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


async def test_on_behalf_of_me(system: LocalSystem, page: Page, width: str) -> None:
    """Ask for an audience, choose a user at the login, and get the token for that audience and user."""
    await page.goto(system.generator.base_url + "/")
    await fits(page)
    await picture(page, "generator", width)
    await page.goto(f"{system.generator.base_url}/api/obo?aud={APP_B}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    await page.get_by_role("button", name="Ada Lovelace").click()
    body = page.locator("body")
    await expect(body).to_contain_text("access_token")
    claims = unverified_claims(json.loads(await body.inner_text())["access_token"])
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["azp_name"] == "dev-gcp:nais:azure-token-generator"


async def test_a_user_who_is_not_admitted(system: LocalSystem, page: Page, width: str) -> None:
    """The login to the generator works, the exchange is refused with AADSTS50105, and the console says
    why.
    """
    await page.goto(f"{system.generator.base_url}/api/obo?aud={APP_B}")
    await page.get_by_role("button", name="Ola Nordmann").click()
    await expect(page.locator("body")).to_contain_text("AADSTS50105")
    await picture(page, "generator-refused", width)
    await page.goto(system.emulator.base_url + "/log")
    await page.get_by_role("row", name="AADSTS50105").get_by_role("link").click()
    await expect(page.get_by_role("main")).to_contain_text("What to change")
