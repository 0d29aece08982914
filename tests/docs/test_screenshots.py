"""The pictures of pages show the pages that exist."""

from __future__ import annotations

import json
import re

import pytest

from docs.tools import prepare, screenshots
from entra_fast.cli.dev_system import LocalSystem
from support.background import ThreadLoop
from support.pages_that_run import ROOT

COMMITTED = json.loads(screenshots.LANDMARKS.read_text())


@pytest.fixture(scope="module")
def now(servers: ThreadLoop, system: LocalSystem) -> dict[str, list[str]]:
    """The landmarks of the pages as they are now."""
    return servers.run(screenshots.landmarks(system))


@pytest.mark.parametrize("picture", COMMITTED)
def test_a_picture_shows_the_page_as_it_is(now: dict[str, list[str]], picture: str) -> None:
    """Titles, headings, buttons and columns are those at the time of the picture: else `make screenshots`."""
    assert len(COMMITTED[picture]) > 2
    assert now[picture] == COMMITTED[picture], "take the pictures again: make screenshots"


def test_every_page_has_its_picture(now: dict[str, list[str]]) -> None:
    """And every picture is shown somewhere."""
    assert set(now) == set(COMMITTED)
    files = {path.name for path in screenshots.PICTURES.iterdir() if path.suffix in (".svg", ".webp", ".png")}
    assert {f"{name}.webp" for name in COMMITTED} <= files
    pages = [prepare.origin(page) for page in prepare.pages(prepare.configuration()["nav"])]
    text = "\n".join(page.read_text() for page in [*pages, ROOT / "zensical.toml"])
    shown = set(re.findall(r"pictures/([\w-]+\.\w+)", text))
    assert files == shown
