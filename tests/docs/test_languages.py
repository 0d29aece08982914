"""The guides for other languages show what `make clients` runs."""

from __future__ import annotations

import pytest

from support.pages_that_run import ROOT, blocks

CLIENTS = ROOT / "tests/clients"
PAGES = {"java.md": "java", "node.md": "node", "go.md": "go"}


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_the_page_is_run(page: str) -> None:
    """Each line of a block is one of a program in tests/clients, each setting an argument of it."""
    folder = CLIENTS / PAGES[page]
    sources = [path.read_text() for path in folder.rglob("*") if path.suffix in (".java", ".mjs", ".go")]
    lines = {line.strip() for text in sources for line in text.splitlines()}
    settings = (CLIENTS / f"test_{PAGES[page]}.py").read_text()
    shown = [block for block in blocks(ROOT / "docs/guides/languages" / page) if block.language != "sh"]
    assert shown
    for block in shown:
        for line in filter(None, map(str.strip, block.text.splitlines())):
            if block.language == "properties":
                assert f"--{line.partition('=')[0]}=" in settings, f"{block.place}: {line}"
            else:
                assert line in lines, f"{block.place}: {line}"
