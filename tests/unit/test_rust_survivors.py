"""The reasons for surviving mutants of the Rust core keep up with the code."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = tomllib.loads((ROOT / "tests" / "mutants" / "rust" / "survivors.toml").read_text())


@pytest.mark.parametrize("module", SURVIVORS)
def test_each_reason_belongs_to_a_line_of_code_that_exists(module: str) -> None:
    """A change of the line asks again whether the reason holds."""
    code = (ROOT / "rust" / "core" / "src" / f"{module}.rs").read_text().partition("#[cfg(test)]\nmod ")[0]
    lines = {line.strip() for line in code.splitlines()}
    for survivor in SURVIVORS[module]:
        assert survivor["line"] in lines, survivor["mutant"]
        assert survivor["reason"].endswith(".")
