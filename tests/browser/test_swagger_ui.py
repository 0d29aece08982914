"""*Authorize* in Swagger UI, clicked in Chromium: a user signs in at the local Entra ID, and an operation
that requires a scope works."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Browser, Page, Route, expect

from entra_fast import Claims, Require
from entra_fast.integrations.fastapi import EntraID
from support.bearer import uvicorn_server
from support.local_entra import Caller, local_entra, manifest, served, signing_keys

pytestmark = pytest.mark.asyncio(loop_scope="session")

API = "dev-gcp:team:api"
DIRECTORY = "{tenant: trygdeetaten.no, users: [{name: Ada Lovelace, username: ada@trygdeetaten.no}]}"


def assets() -> Path:
    """Swagger UI as a package brings it: FastAPI's page loads it from the internet."""
    sidecar = pytest.importorskip("drf_spectacular_sidecar", reason="no package with Swagger UI is installed")
    return Path(sidecar.__file__).parent / "static/drf_spectacular_sidecar/swagger-ui-dist"


@pytest_asyncio.fixture(loop_scope="session")
async def entra() -> AsyncIterator[Caller]:
    """A provider with one application, which is a single-page application for Entra ID."""
    api = manifest("api", all_users=True, singlePageApplication=True)
    local = local_entra([api], DIRECTORY)
    local.keyring.restore(signing_keys())
    async with served(local) as caller:
        yield caller


@pytest.fixture
def service(entra: Caller, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The application, as a developer writes it, with the settings of its environment."""
    for name, value in entra.local.environment(API).items():
        monkeypatch.setenv(name, value)
    guard = EntraID(scopes={"defaultaccess": "Use the API"})
    app = FastAPI(lifespan=guard.lifespan, **guard.swagger())

    async def cases(who: Any) -> Any:
        return {"name": who.name}

    cases.__annotations__ = {"who": Annotated[Claims, guard(Require(user=True, scope="defaultaccess"))]}
    app.get("/cases")(cases)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    entra.local.add_reply_url(API, f"{url}/docs/oauth2-redirect")
    with uvicorn_server(app, port=port):
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def documentation(browser: Browser, service: str) -> AsyncIterator[Page]:
    """The page `/docs`, with Swagger UI from the package."""
    folder = assets()

    async def from_package(route: Route) -> None:
        await route.fulfill(path=folder / Path(route.request.url).name)

    context = await browser.new_context()
    await context.route("https://cdn.jsdelivr.net/**", from_package)
    await context.route("https://fastapi.tiangolo.com/**", lambda route: route.abort())
    page = await context.new_page()
    await page.goto(f"{service}/docs")
    yield page
    await context.close()


async def test_authorize_signs_in_and_the_operation_works(documentation: Page) -> None:
    """Without a sign-in it is 401; *Authorize* opens the provider, and afterwards the user's name comes
    back."""
    page = documentation
    await page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".auth-container", has_text="OAuth2, authorizationCode")
    await expect(dialog).to_contain_text("with PKCE")
    async with page.expect_popup() as opened:
        await dialog.locator("button.authorize").click()
    popup = await opened.value
    async with popup.expect_event("close"):
        await popup.get_by_role("button", name="Ada Lovelace").click()
    await expect(dialog.locator("button", has_text="Logout")).to_be_visible()
    if folder := os.environ.get("ENTRA_FAST_SCREENSHOTS"):
        await page.screenshot(path=str(Path(folder) / "swagger-ui.png"))
    await page.locator(".modal-ux .close-modal").click()
    await page.get_by_role("button", name="GET /cases").first.click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    await expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text(
        "200"
    )
    await expect(page.locator(".live-responses-table")).to_contain_text("Ada Lovelace")


async def test_the_operation_shows_what_it_requires(documentation: Page) -> None:
    """A padlock, and a refusal that the page can show."""
    page = documentation
    await page.get_by_role("button", name="GET /cases").first.click()
    await page.get_by_role("button", name="Try it out").click()
    await page.get_by_role("button", name="Execute").click()
    await expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text(
        "401"
    )
    await expect(page.locator(".live-responses-table")).to_contain_text("Bearer realm=")
