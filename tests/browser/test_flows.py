"""Device codes, consent and signing out, clicked and read in Chromium with scripts switched off."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Page, expect

from support.local_entra import Caller, local_entra, manifest, served, signing_keys

from .conftest import fits, picture

pytestmark = pytest.mark.asyncio(loop_scope="session")

DIRECTORY = "{tenant: t.no, users: [{name: Ada Lovelace, username: ada@t.no}]}"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class Applications:
    """Applications on one port: each has a callback and a front-channel logout URL; what ends is recorded."""

    def __init__(self) -> None:
        self.url = ""
        self.ended: list[tuple[str, dict[str, str]]] = []

    async def callback(self, _: web.Request) -> web.Response:
        return web.Response(text="<title>application</title>back", content_type="text/html")

    async def logout(self, request: web.Request) -> web.Response:
        self.ended.append((request.match_info["name"], dict(request.query)))
        return web.Response(text="bye")


@pytest_asyncio.fixture(loop_scope="session")
async def applications() -> AsyncIterator[Applications]:
    """Both applications, `one` and `two`."""
    found = Applications()
    app = web.Application()
    app.router.add_get("/{name}/callback", found.callback)
    app.router.add_get("/{name}/logout", found.logout)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="session")
async def entra(applications: Applications) -> AsyncIterator[Caller]:
    """A provider that knows them."""
    texts = [
        manifest(
            name,
            all_users=True,
            replyURLs=[f"{applications.url}/{name}/callback"],
            annotations={"entra-fast/front-channel-logout-url": f"{applications.url}/{name}/logout"},
        )
        for name in ("one", "two")
    ]
    local = local_entra(texts, DIRECTORY)
    local.keyring.restore(signing_keys())
    async with served(local) as caller:
        yield caller


def login_url(entra: Caller, application: str, **changes: str) -> str:
    parameters = entra.login_parameters(application, **changes)
    return f"{entra.base_url}{entra.authorize_path(application)}?{urllib.parse.urlencode(parameters)}"


async def test_a_device_code(entra: Caller, page: Page, width: str) -> None:
    """Enter the code, correct it, choose the account, confirm; then the device has its tokens."""
    form = {"client_id": entra.client_id("one"), "scope": f"openid {entra.scope('one')}"}
    path = f"/{entra.tenant_id('one')}/oauth2/v2.0/devicecode"
    device = (await entra.request("POST", path, data=form)).json
    await page.goto(device["verification_uri"])
    await page.get_by_label("Code").fill("WRONG")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("Invalid verification code")
    await fits(page)
    await picture(page, "device-code-wrong", width)
    await page.get_by_label("Code").fill(device["user_code"].lower())
    await page.get_by_role("button", name="Next").click()
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Confirm the sign-in")
    await expect(page.get_by_role("main")).to_contain_text(device["user_code"])
    await fits(page)
    await picture(page, "device-code-confirm", width)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Signed in")
    await fits(page)
    await picture(page, "device-code-done", width)
    poll = {**form, "grant_type": GRANT, "device_code": device["device_code"]}
    assert (await entra.token(poll)).claims["name"] == "Ada Lovelace"


async def test_consent(entra: Caller, page: Page, width: str) -> None:
    """The permissions are readable, and Accept leads back to the application."""
    await page.goto(login_url(entra, "one", prompt="consent"))
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Permissions requested")
    await expect(page.get_by_role("listitem").first).to_contain_text("defaultaccess")
    await fits(page)
    await picture(page, "consent", width)
    await page.get_by_role("button", name="Accept").click()
    await expect(page).to_have_title("application")


async def test_signing_out_of_every_application(
    entra: Caller, applications: Applications, page: Page, width: str
) -> None:
    """Pick the account; each application is told in a frame, and the browser returns without a click."""
    await page.goto(login_url(entra, "one"))
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page).to_have_title("application")
    sid = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page.url).query))["session_state"]
    await page.goto(login_url(entra, "two"))
    await expect(page).to_have_title("application")
    back = urllib.parse.urlencode({"post_logout_redirect_uri": f"{applications.url}/two/callback"})
    await page.goto(f"{entra.base_url}/{entra.tenant_id('one')}/oauth2/v2.0/logout?{back}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign out")
    await fits(page)
    await picture(page, "sign-out", width)
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page).to_have_title("application")
    assert sorted(applications.ended) == [("one", {"sid": sid}), ("two", {"sid": sid})]
    await page.goto(login_url(entra, "one"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
