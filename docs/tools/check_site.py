"""Checks that the built site loads nothing from elsewhere: `make docs`.

What belongs here: what a browser would load by itself when a page is opened. Links that a reader follows may
lead anywhere.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

SITE = Path(__file__).resolve().parents[2] / "target" / "site"
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
ONLY_NAMED = frozenset({"canonical", "alternate", "next", "prev", "edit"})
"""Relations of `<link>` that load nothing."""
FROM_ELSEWHERE = frozenset({"mermaid", "arithmatex", "glightbox", "pyodide"})
"""Classes for which the theme's script loads another one from a public server."""


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") in ONLY_NAMED:
            return
        address = given.get(LOADED.get(tag, ""), "")
        if re.match(r"(?:\w+:)?//", address):
            self.found.append(f"<{tag}> loads {address}")
        if strange := FROM_ELSEWHERE & set(given.get("class", "").split()):
            self.found.append(f'class="{min(strange)}" loads a script of others')


def problems(html: str) -> list[str]:
    """What a page would load from elsewhere."""
    parser = _Loads()
    parser.feed(html)
    return parser.found


def main() -> int:
    """Prints each problem with its page."""
    pages = sorted(SITE.rglob("*.html"))
    found = [f"{page.relative_to(SITE)}: {what}" for page in pages for what in problems(page.read_text())]
    found += [
        f"{style.relative_to(SITE)}: {url}"
        for style in SITE.rglob("*.css")
        for url in re.findall(r"(?:@import|url\()\s*['\"]?((?:https?:)?//[^'\")]+)", style.read_text())
    ]
    print("\n".join(found) or f"{len(pages)} pages load nothing from elsewhere")
    return 1 if found or len(pages) < 10 else 0


if __name__ == "__main__":
    sys.exit(main())
