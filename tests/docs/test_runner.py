"""The tests of pages can fail: a wrong block of each kind is found, with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.pages_that_run import Runner, World, matches

FENCE = "```"


@pytest.mark.parametrize(
    ("language", "text", "said"),
    [
        ("python", "assert 1 == 2", r"page\.md"),
        ("python", "import asyncio\nawait asyncio.sleep(0)\nunknown_name", "unknown_name"),
        ("sh", "false\ntrue", r"page\.md:3: exit status 1"),
        ("sh", "make no-such-target", "exit status 2"),
        ("sh", "pip install 'entra-fast[nosuch]'", "no such extra"),
        ("sh", "entra-fast tokn", "exit status 2"),
        ("sh", "curl -sf http://127.0.0.1:7164/api/v1/nothing", "exit status 22"),
        ("console", "$ echo one\ntwo", "printed:\none"),
        ("console", "$ echo one; echo two\none", "printed:\none\ntwo"),
        ("json", '{"a": 1,}', "property name"),
        ("yaml", "apiVersion: nais.io/v1alpha1\nkind: Application\nspec: {iamge: x}", "iamge"),
        ("yaml", "components: [../entra_fast/deploy/kubernetes/nothing]", "nothing"),
    ],
)
def test_a_wrong_block_fails(language: str, text: str, said: str, world: World, tmp_path: Path) -> None:
    """Each kind of block, with what is wrong."""
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{FENCE}{language}\n{text}\n{FENCE}\n")
    runner = Runner(world)
    try:
        with pytest.raises(Exception, match=r".*") as caught:
            runner.run(page)
    finally:
        runner.close()
    assert re.search(said, f"{caught.value}\n{caught.traceback[-1].path}")


def test_a_marked_block_does_not_run(world: World, tmp_path: Path) -> None:
    """Only the one right below the comment."""
    page = tmp_path / "page.md"
    blocks = [
        f"<!-- not run: it would fail -->\n{FENCE}sh\nfalse\n{FENCE}",
        f"{FENCE}python\nname = 1\n{FENCE}",
    ]
    page.write_text("\n\n".join(blocks) + "\n")
    runner = Runner(world)
    runner.run(page)
    runner.close()
    assert runner.ran == [6]
    assert runner.names["name"] == 1


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ('{"a":...,"b":12}', '{"a":"x","b":7}', True),
        ("one\n...\ntwo", "one\nand\nmore\ntwo", True),
        ("one\n...", "one", True),
        ("one", "one\ntwo", False),
        ("one ...", "two and", False),
    ],
)
def test_what_is_shown_may_leave_out(shown: str, printed: str, expected: bool) -> None:
    """`...` within a line, or for lines; digits stand for any digits."""
    assert matches(shown, printed) is expected
