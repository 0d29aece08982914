"""The site: its navigation, its links, and the pages that are written from the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.tools import check_site, prepare, reference
from support.pages_that_run import ROOT

NAV = prepare.pages(prepare.configuration()["nav"])


def test_every_page_is_in_the_navigation() -> None:
    """Once, and every entry is a page."""
    pages = {prepare.origin(page) for page in NAV}
    assert sorted(set(NAV)) == sorted(NAV)
    assert [page for page in pages if not page.is_file()] == []
    assert set((ROOT / "docs").rglob("*.md")) <= pages


def test_the_pages_that_follow_from_the_code_are_up_to_date() -> None:
    """After a change, `make docs-reference` writes them again."""
    made = reference.files()
    stale = [path.name for path, text in made.items() if not path.is_file() or path.read_text() != text]
    assert stale == []
    assert set((ROOT / "docs" / "reference" / "python").glob("*.md")) <= set(made)


def test_links_become_links_of_the_site() -> None:
    """To pages that stand elsewhere, and to copies of files; blocks of code stay as they are."""
    site = prepare.Site()
    files = {str(name): content.decode(errors="replace") for name, content in site.files().items()}
    assert "](../../SECURITY.md)" not in files["explanation/decisions/README.md"]
    assert "](../SECURITY.md)" in files["explanation/index.md"]
    assert "](../files/deploy/monitoring/alerts.yaml)" in files["guides/kubernetes.md"]
    assert "files/deploy/monitoring/alerts.yaml" in files
    blocks = re.findall(
        r"^```.*?^```$", (ROOT / "docs/guides/tokens.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert all(block in files["guides/tokens.md"] for block in blocks)


def test_a_dead_link_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the page and the link."""
    page = ROOT / "docs" / "index.md"
    with pytest.raises(SystemExit, match=r"docs/index\.md: dead link: no-such-page\.md"):
        prepare.Site().link(page, "no-such-page.md")


def test_links_lead_to_the_repository_once_it_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCS_REPOSITORY_URL names it."""
    monkeypatch.setattr(prepare, "REPOSITORY_URL", "https://git.example/entra_fast")
    page = ROOT / "docs" / "guides" / "kubernetes.md"
    link = prepare.Site().link(page, "../../deploy/monitoring/alerts.yaml")
    assert link == "https://git.example/entra_fast/blob/main/deploy/monitoring/alerts.yaml"


def test_pictures_load_nothing_and_are_small() -> None:
    """Drawings without scripts, fonts and addresses of others; all pictures together below 600 KB."""
    pictures = [path for path in (ROOT / "docs" / "pictures").iterdir() if path.is_file()]
    for path in pictures:
        if path.suffix == ".svg":
            text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert not re.search(r"https?:|<script|@import|url\((?!#)", text), path.name
    assert sum(path.stat().st_size for path in pictures) < 600_000


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<img src="https://badge.example/x.svg">',
        '<pre class="mermaid"><code>flowchart</code></pre>',
    ],
)
def test_a_page_that_loads_something_from_elsewhere_stops_the_build(html: str) -> None:
    """Scripts, styles, pictures, and diagrams that a script of others would draw."""
    assert len(check_site.problems(html)) == 1
    assert check_site.problems('<a href="https://elsewhere.example">a link</a><img src="../x.svg">') == []
