"""Takes the pictures of the pages that the documentation shows: `make screenshots`.

What belongs here: which pages there are, how they look (window, colour scheme), and their landmarks: the
words by which a reader finds the way, which stand in docs/pictures/landmarks.json for the time of the
picture. A test compares them with the pages as they are now, so that a picture cannot show a page that no
longer exists.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import aiohttp

from entra_fast.cli.dev_system import LocalSystem, Options, local_system
from entra_fast.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
LANDMARKS = PICTURES / "landmarks.json"
APP_A, APP_B, NOBODY = "dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "dev-gcp:team-c:app-nobody"

WIDTH, HEIGHT, QUALITY = 1100, 760, 82


def pages(system: LocalSystem) -> dict[str, str]:
    """The address of each page by the name of its picture."""
    entra, generator = system.emulator.base_url, system.generator.base_url
    query = urllib.parse.urlencode({"consumer": APP_A, "target": APP_B, "user": "ola"})
    return {
        "console": f"{entra}/",
        "map": f"{entra}/map",
        "refusal": f"{entra}/explain?{query}",
        "faults": f"{entra}/faults",
        "login": f"{generator}/oauth2/login",
        "generator": f"{generator}/",
    }


class _Words(HTMLParser):
    """The text of headings, buttons, labels and column titles."""

    TAGS = frozenset({"title", "h1", "h2", "h3", "button", "label", "legend", "th"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._drawings = 0  # the titles in a drawing are those of what it shows at the moment

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._drawings += tag == "svg"
        if tag in self.TAGS and not self._open and not self._drawings:
            self._open, self._text = [tag], []

    def handle_endtag(self, tag: str) -> None:
        self._drawings -= tag == "svg"
        if self._open == [tag]:
            text = " ".join("".join(self._text).split())
            self.found.append(f"{tag}: {re.sub(r'[0-9]+', '0', text)}")
            self._open = []

    def handle_data(self, data: str) -> None:
        if self._open:
            self._text.append(data)


def words(html: str) -> list[str]:
    """The landmarks of a page, each once, without figures."""
    parser = _Words()
    parser.feed(html)
    return list(dict.fromkeys(parser.found))


async def landmarks(system: LocalSystem) -> dict[str, list[str]]:
    """The landmarks of all pages as they are now."""
    found = {}
    for name, url in pages(system).items():
        # A session each: no page may depend on what another has set.
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            found[name] = words(await response.text())
    return found


async def take(system: LocalSystem) -> None:
    """Take all pictures."""
    # Both are needed here only.
    from PIL import Image  # noqa: PLC0415
    from playwright.async_api import async_playwright  # noqa: PLC0415

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("make screenshots needs Chromium (Debian: apt install chromium)")
    async with async_playwright() as playwright:
        # As root, Chromium's own sandbox cannot work; the pages are ours.
        arguments = ["--no-sandbox", "--disable-background-networking", "--force-device-scale-factor=1"]
        browser = await playwright.chromium.launch(executable_path=chromium, args=arguments)
        for name, url in pages(system).items():
            context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            page = await context.new_page()
            await page.goto(url)
            image = Image.open(io.BytesIO(await page.screenshot()))
            image.save(PICTURES / f"{name}.webp", quality=QUALITY, method=6)
            await context.close()
        await browser.close()


async def main() -> None:
    """Pictures and landmarks, from one system: with the addresses of the documentation, if they are free."""
    examples = (str(ROOT / "examples" / "manifests"),)
    for options in (Options(examples), Options(examples, emulator_port=0, generator_port=0, sidecar_port=0)):
        try:
            async with local_system(options) as system:
                await take(system)
                LANDMARKS.write_text(json.dumps(await landmarks(system), indent=1, ensure_ascii=False) + "\n")
                return
        except ConfigurationError as error:
            print(f"{error}: the pictures show other ports", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
