"""The pages in a real browser: Debian's Chromium through Playwright, at the width of a phone and of a
desk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from entra_fast.emulator import LocalEntraId
from support.local_entra import EXAMPLES, Caller, served, signing_keys

SCREENSHOTS = "ENTRA_FAST_SCREENSHOTS"
"""The variable that names a folder for screenshots."""
WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium; skipped where it is not installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        # As root, Chromium's own sandbox cannot work; the pages are ours.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def entra() -> AsyncIterator[Caller]:
    """A provider with the example manifests."""
    local = LocalEntraId.from_files([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml")
    local.keyring.restore(signing_keys())
    async with served(local) as caller:
        yield caller


class Application:
    """The application that a login returns to; it records what arrives."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived: list[dict[str, str]] = []

    async def receive(self, request: web.Request) -> web.Response:
        fields = request.query if request.method == "GET" else await request.post()
        self.arrived.append({name: str(value) for name, value in fields.items()})
        return web.Response(text="<title>application</title>back", content_type="text/html")


@pytest_asyncio.fixture(loop_scope="session")
async def application(entra: Caller) -> AsyncIterator[Application]:
    """The application app-a, on a port of its own and registered with the provider."""
    application = Application()
    app = web.Application()
    app.router.add_route("*", "/oauth2/callback", application.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    application.url = f"http://127.0.0.1:{runner.addresses[0][1]}/oauth2/callback"
    entra.local.add_reply_url("dev-gcp:team-a:app-a", application.url)
    yield application
    await runner.cleanup()


@pytest.fixture(params=list(WIDTHS))
def width(request: pytest.FixtureRequest) -> str:
    """Phone or desktop."""
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, width: str) -> AsyncIterator[Page]:
    """A page without scripts: everything must work without them. Errors on the console fail the test."""
    size: ViewportSize = {"width": WIDTHS[width][0], "height": WIDTHS[width][1]}
    scheme: Literal["dark", "light"] = "dark" if width == "phone" else "light"
    context = await browser.new_context(viewport=size, java_script_enabled=False, color_scheme=scheme)
    page = await context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    yield page
    await context.close()
    # A refusal is a page with status 400 or 403, which Chromium reports as an error of its own.
    assert [text for text in problems if "Failed to load resource" not in text] == []


async def picture(page: Page, name: str, width: str) -> None:
    """Keep a screenshot where ENTRA_FAST_SCREENSHOTS says."""
    folder = os.environ.get(SCREENSHOTS)
    if folder:
        await page.screenshot(path=str(Path(folder) / f"{name}-{width}.png"), full_page=True)


async def fits(page: Page) -> None:
    """Nothing overflows to the right."""
    client = await page.context.new_cdp_session(page)
    metrics = await client.send("Page.getLayoutMetrics")
    assert metrics["cssContentSize"]["width"] <= metrics["cssLayoutViewport"]["clientWidth"], page.url
