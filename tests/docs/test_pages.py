"""Every block of every page of the documentation is run, or says in the page why it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.tools import prepare
from support.pages_that_run import (
    LANGUAGES,
    ROOT,
    SHOWN,
    Block,
    Runner,
    World,
    blocks,
    command_lines,
    refused_by_the_parser,
)

PAGES = sorted(
    {*(prepare.origin(page) for page in prepare.pages(prepare.configuration()["nav"])), ROOT / "README.md"}
)

# Pages with tests of their own, which run these languages.
ELSEWHERE = {
    "docs/tutorial.md": (("python", "sh", "console", "yaml", "html"), "tests/browser/test_tutorial.py"),
    "docs/guides/frameworks.md": (("python",), "tests/integrations/test_guides.py"),
    "docs/guides/tokens.md": (("python",), "tests/unit/test_docs_tokens.py"),
    "docs/guides/languages/java.md": (("java", "properties"), "tests/docs/test_languages.py"),
    "docs/guides/languages/node.md": (("js",), "tests/docs/test_languages.py"),
    "docs/guides/languages/go.md": (("go",), "tests/docs/test_languages.py"),
    "docs/guides/testing-your-service.md": (("python", "ini"), "tests/unit/test_docs_tokens.py"),
}


def name(page: Path) -> str:
    """A page as the tables here name it."""
    return page.relative_to(ROOT).as_posix()


def to_run(page: Path) -> list[Block]:
    """The blocks that this module has to run."""
    languages, _ = ELSEWHERE.get(name(page), ((), ""))
    return [
        block for block in blocks(page) if block.reason is None and block.language not in (*languages, *SHOWN)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=name)
def test_every_block_of_the_page_runs(page: Path, world: World) -> None:
    """From top to bottom, as a reader would: no block fails, and the output is what the page shows."""
    languages, _ = ELSEWHERE.get(name(page), ((), ""))
    runner = Runner(world)
    try:
        runner.run(page, only=lambda language: language not in languages)
    finally:
        runner.close()
    assert len(runner.ran) == len(to_run(page)), "a block was not found by the parser"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_names_its_language(page: Path) -> None:
    """One that the tests know: a block without it would not be run."""
    unknown = [block.place for block in blocks(page) if block.language not in LANGUAGES]
    assert unknown == []


def test_tests_of_their_own_exist() -> None:
    """A page that is tested elsewhere is named there."""
    for page, (_, test) in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(), page


def test_what_is_not_run_has_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """The list is printed, and pinned: a page cannot quietly stop being tested."""
    marked = [block for page in PAGES for block in blocks(page) if block.reason is not None]
    with capsys.disabled():
        print(f"\n{len(marked)} blocks of the documentation are not run:")
        for block in marked:
            print(f"  {block.place}: {block.reason}")
    assert all(len(block.reason or "") > 10 for block in marked)
    assert len(marked) <= 16


def test_commands_that_are_only_shown_are_accepted() -> None:
    """An `entra-fast` command in a block that cannot run, or in the examples of the command line."""
    shown = [
        (block, arguments)
        for page in PAGES
        for block in blocks(page)
        if block.reason is not None or block.language == "text"
        for arguments in command_lines(block)
    ]
    assert len(shown) > 10
    refused = {
        f"{block.place}: {' '.join(arguments)}": problem
        for block, arguments in shown
        if (problem := refused_by_the_parser(arguments)) is not None and arguments[0] != "COMMAND"
    }
    assert refused == {}
