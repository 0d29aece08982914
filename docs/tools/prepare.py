"""Copies the pages of the site into one folder, which Zensical builds from: `make docs`.

What belongs here: where a page of the repository stands in the site, and how its links change. A link to a
page of the site leads to that page. A link to another file of the repository leads to the repository where
one is named (`DOCS_REPOSITORY_URL`), and otherwise to a copy of the file in the site. The text of pages is
never changed.

    python docs/tools/prepare.py [--watch]
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "target" / "site-source"
REPOSITORY_URL = os.environ.get("DOCS_REPOSITORY_URL", "").rstrip("/")

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
WATCH_SECONDS = 0.5


def pages(nav: list[Any]) -> list[str]:
    """The pages that a navigation names, in its order."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += pages(value) if isinstance(value, list) else [value]
    return found


def configuration() -> dict[str, Any]:
    """The project table of zensical.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    return project


def origin(page: str) -> Path:
    """The file in the repository that a page of the site is made from."""
    # A README is the first page of its section to Zensical: that of another folder gets the folder's name.
    readme = page.removesuffix(".md") + "/README.md"
    places = (ROOT / "docs" / page, ROOT / page, ROOT / readme)
    return next((place for place in places if place.is_file()), places[0])


class Site:
    """The pages of the site by the files that they are made from, and the other files that they need."""

    def __init__(self) -> None:
        self.pages = {origin(page): PurePosixPath(page) for page in pages(configuration()["nav"])}
        self.copied: dict[Path, PurePosixPath] = {}

    def link(self, file: Path, target: str) -> str | None:
        """What a link of a file becomes; None where there is nothing to link to."""
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path.split("/")[0]:
            return target
        there = Path(os.path.normpath(file.parent / path))
        here = self.pages[file].parent
        if there in self.pages:
            return _relative(self.pages[there], here) + hash_ + anchor
        if not there.exists():
            raise SystemExit(f"{file.relative_to(ROOT)}: dead link: {target}")
        inside = PurePosixPath(there.relative_to(ROOT).as_posix())
        if REPOSITORY_URL and there.suffix not in (".svg", ".png", ".webp"):
            return f"{REPOSITORY_URL}/blob/main/{inside}{hash_}{anchor}"
        if there.is_dir():
            return None
        self.copied[there] = copy = PurePosixPath("files") / inside
        return _relative(copy, here)

    def text(self, file: Path) -> str:
        """A page with the links of the site. Blocks of code stay as they are."""

        def rewrite(match: re.Match[str]) -> str:
            target = self.link(file, match[3])
            return match[2] if target is None else f"{match[1]}[{match[2]}]({target})"

        parts = BLOCK.split(file.read_text())  # prose, block, prose, ...
        return "".join(part if number % 2 else LINK.sub(rewrite, part) for number, part in enumerate(parts))

    def files(self) -> dict[PurePosixPath, bytes]:
        """All files of the site's source."""
        made = {page: self.text(file).encode() for file, page in self.pages.items()}
        for folder in ("pictures", "stylesheets"):
            for file in (ROOT / "docs" / folder).glob("*.*"):
                made[PurePosixPath(file.relative_to(ROOT / "docs").as_posix())] = file.read_bytes()
        for file, copy in self.copied.items():
            made[copy] = file.read_bytes()
        return made


def _relative(target: PurePosixPath, folder: PurePosixPath) -> str:
    return os.path.relpath(target, folder).replace(os.sep, "/")


def write(files: dict[PurePosixPath, bytes]) -> None:
    """Only what has changed, so that a running server builds only that."""
    SOURCE.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = SOURCE / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in SOURCE.rglob("*.*"):
        if path.is_file() and PurePosixPath(path.relative_to(SOURCE).as_posix()) not in files:
            path.unlink()


def main() -> None:
    if "--watch" not in sys.argv:
        shutil.rmtree(SOURCE, ignore_errors=True)
    write(Site().files())
    while "--watch" in sys.argv:
        time.sleep(WATCH_SECONDS)
        try:
            write(Site().files())
        except SystemExit as error:  # a link that is being written
            print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
