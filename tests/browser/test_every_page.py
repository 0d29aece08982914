"""Every page in a browser, with its script: on a phone and on a desk, light and dark, with axe-core."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal

import aiohttp
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from axe_playwright_python.base import AxeResults
from playwright.async_api import Browser, Page

from entra_fast.cli.dev_system import LocalSystem, Options, local_system
from support.local_entra import EXAMPLES, Caller
from support.local_providers import workload

from .conftest import SCREENSHOTS, WIDTHS, fits, picture

pytestmark = pytest.mark.asyncio(loop_scope="session")

CITIZENS = "dev-gcp:team:citizens"
APP_A, APP_B, NOBODY = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "dev-gcp:team-c:app-nobody"
MAX_PAGE_BYTES = 200_000
VIEWS: tuple[tuple[str, Literal["light", "dark"]], ...] = (("desktop", "light"), ("phone", "dark"))
"""Colours do not depend on the width, so both widths and both schemes are two views."""
OTHER_VIEWS: tuple[tuple[str, Literal["light", "dark"]], ...] = (("desktop", "dark"), ("phone", "light"))

System = tuple[LocalSystem, Caller]
Open = Callable[[System, Page], Awaitable[Any]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Everything that `entra-fast dev` starts, with requests in the log: granted, refused, of a user."""
    citizens = tmp_path_factory.mktemp("manifests") / "citizens.yaml"
    citizens.write_text(workload("citizens", rules=[{"application": "app-a", "namespace": "team-a"}]))
    options = Options(
        manifests=(str(EXAMPLES / "manifests"), str(citizens)),
        directory=str(EXAMPLES / "directory.yaml"),
        emulator_port=0,
        generator_port=0,
        sidecar_port=0,
    )
    async with local_system(options) as running, aiohttp.ClientSession() as session:
        caller = Caller(running.emulator, session)
        await caller.m2m(APP_A, APP_B)
        await caller.m2m(NOBODY, APP_B)
        running.emulator.local.mint(APP_A, APP_B, "ada")
        running.emulator.local.mint(APP_A, APP_B, "ola")
        yield running, caller


def at(path: str) -> Open:
    """A page of the local Entra ID by its path."""

    async def opened(system: System, page: Page) -> None:
        await page.goto(system[1].base_url + path)

    return opened


def generator(path: str, user: str | None = None) -> Open:
    """A page of the token generator by its path; `user` is chosen at the sign-in."""

    async def opened(system: System, page: Page) -> None:
        await page.goto(system[0].generator.base_url + path)
        if user is not None:
            await page.get_by_role("button", name=user).click()

    return opened


async def minted(system: System, page: Page, user: str = "ada") -> None:
    """A token of the console."""
    await page.goto(system[1].base_url + "/mint")
    await page.get_by_label("Consumer (the calling application)").fill(APP_A)
    await page.get_by_label("Target (the API being called)").fill(APP_B)
    await page.get_by_label("User").fill(user)
    await page.get_by_role("button", name="Get the token").click()


async def mint_refused(system: System, page: Page) -> None:
    """A token that the policies refuse."""
    await minted(system, page, "ola")


async def forged(system: System, page: Page) -> None:
    """A forged token, beside the form that made it."""
    await page.goto(system[1].base_url + "/forge")
    await page.get_by_label("Client", exact=True).fill(APP_A)
    await page.get_by_label("Lifetime in seconds").fill("-60")
    await page.get_by_label("Claims", exact=True).fill('{"roles": ["admin"]}')
    await page.get_by_role("button", name="Forge the token").click()
    await page.get_by_role("heading", name="Header").wait_for()


async def inspected(system: System, page: Page) -> None:
    """A token taken apart, from the page where it was made."""
    await minted(system, page)
    await page.get_by_role("button", name="Inspect this token").click()


async def not_a_token(system: System, page: Page) -> None:
    """Text that is no token."""
    await page.goto(system[1].base_url + "/inspect")
    await page.get_by_label("Token", exact=True).fill("not a token")
    await page.get_by_role("button", name="Inspect").click()


def login(**changes: str) -> Open:
    """The sign-in page of an application."""

    async def opened(system: System, page: Page) -> None:
        caller = system[1]
        parameters = caller.login_parameters(APP_A, **changes)
        await page.goto(
            f"{caller.base_url}{caller.authorize_path(APP_A)}?{urllib.parse.urlencode(parameters)}"
        )

    return opened


async def login_refused(system: System, page: Page) -> None:
    """A user whom the target does not admit."""
    await login(scope=f"openid {system[1].scope(APP_B)}", redirect_uri=CALLBACK)(system, page)
    await page.get_by_role("button", name="Ola Nordmann").click()


async def device_code(system: System, page: Page) -> str:
    """A code that a device shows, and the page where it is entered."""
    caller = system[1]
    form = {"client_id": caller.client_id(APP_A), "scope": f"openid {caller.scope(APP_A)}"}
    path = f"/{caller.tenant_id(APP_A)}/oauth2/v2.0/devicecode"
    answer = (await caller.request("POST", path, data=form)).json
    await page.goto(answer["verification_uri"])
    return str(answer["user_code"])


async def device_confirm(system: System, page: Page) -> None:
    """Whether this device is meant."""
    await page.get_by_label("Code").fill(await device_code(system, page))
    await page.get_by_role("button", name="Next").click()
    await page.get_by_role("button", name="Ada Lovelace").click()


async def device_done(system: System, page: Page) -> None:
    """The device has its tokens."""
    await device_confirm(system, page)
    await page.get_by_role("button", name="Continue").click()


async def consent(system: System, page: Page) -> None:
    """The permissions that an application asks for."""
    await login(redirect_uri=CALLBACK, prompt="consent")(system, page)
    await page.get_by_role("button", name="Ada Lovelace").click()


async def sign_out(system: System, page: Page) -> None:
    """Which account, where the request does not say it."""
    await device_done(system, page)
    await page.goto(f"{system[1].base_url}/{system[1].tenant_id(APP_A)}/oauth2/v2.0/logout")


CALLBACK = "http://localhost:3001/oauth2/callback"
PAGES: dict[str, Open] = {
    "applications": at("/"),
    "applications-none": at("/?q=nothing"),
    "application": at(f"/applications/{APP_B}"),
    "application-of-other-providers": at(f"/applications/{CITIZENS}"),
    "application-unknown": at("/applications/unknown"),
    "map": at("/map"),
    "map-application": at(f"/map?application={APP_B}"),
    "map-namespace": at("/map?namespace=dev-gcp:team-b"),
    "rule": at(f"/applications/{APP_B}/rules/1"),
    "users": at("/users"),
    "log": at("/log"),
    "log-live": at("/log?live=1&outcome=refused"),
    "log-entry": at("/log/1"),
    "log-refusal": at("/log/3"),
    "explain": at(f"/explain?consumer={NOBODY}&target={APP_B}"),
    "explain-tokenx": at(f"/explain?provider=tokenx&consumer={NOBODY}&target={APP_B}"),
    "minted": minted,
    "mint-refused": mint_refused,
    "token": at("/inspect"),
    "token-inspected": inspected,
    "token-invalid": not_a_token,
    "forge": at("/forge"),
    "forged": forged,
    "faults": at("/faults"),
    "endpoints": at("/endpoints"),
    "error": at("/error?code=50105"),
    "error-maskinporten": at("/maskinporten/errors/MP-250"),
    "not-found": at("/nothing"),
    "sign-in": login(redirect_uri=CALLBACK),
    "sign-in-refused": login_refused,
    "sign-in-failed": login(redirect_uri="http://localhost:9/"),
    "device-code": device_code,
    "device-confirm": device_confirm,
    "device-done": device_done,
    "consent": consent,
    "sign-out": sign_out,
    "signed-out": at("/common/oauth2/v2.0/logout"),
    "generator": generator("/"),
    "generator-sign-in": generator(f"/api/obo?aud={APP_B}"),
    "generator-token": generator(f"/api/obo?aud={APP_B}", "Ada Lovelace"),
    "generator-refused": generator(f"/api/obo?aud={APP_B}", "Ola Nordmann"),
    "generator-error": generator("/api/obo"),
}


async def violations(page: Page) -> str:
    """What axe-core finds; empty if nothing. Its script is loaded once."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(Axe().axe_script)
    found = AxeResults(await page.evaluate("axe.run({resultTypes: ['violations']})"))
    return found.generate_report() if found.violations_count else ""


async def show(page: Page, width: str, scheme: Literal["light", "dark"]) -> None:
    """The same page in another view."""
    await page.set_viewport_size({"width": WIDTHS[width][0], "height": WIDTHS[width][1]})
    await page.emulate_media(color_scheme=scheme)


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_is_accessible_and_fits(system: System, browser: Browser, name: str) -> None:
    """No page scrolls sideways, has a violation that axe-core finds, is above 200 KB or logs an error: at 390
    and at 1280 pixels, light and dark.
    """
    context = await browser.new_context()
    try:
        page = await context.new_page()
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await PAGES[name](system, page)
        assert len(await page.content()) < MAX_PAGE_BYTES
        for width, scheme in VIEWS:
            await show(page, width, scheme)
            await fits(page)
            assert await violations(page) == "", (width, scheme)
        if SCREENSHOTS in os.environ:
            for width, scheme in (*VIEWS, *OTHER_VIEWS):
                await show(page, width, scheme)
                await picture(page, f"{name}-{scheme}", width)
        assert [text for text in problems if "Failed to load resource" not in text] == []
    finally:
        await context.close()
