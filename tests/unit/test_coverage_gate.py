"""The gate of `make coverage`: how it counts, and that every exception from it has a reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tools import coverage_gate

ROOT = Path(__file__).resolve().parents[2]
PRAGMA = re.compile(r"#\s*pragma:\s*no\s*(?:cover|branch)(?P<reason>.*)", re.IGNORECASE)


def _report(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, Any]:
    return {
        "summary": {
            "covered_lines": lines[0],
            "num_statements": lines[1],
            "covered_branches": branches[0],
            "num_branches": branches[1],
        },
        "missing_lines": list(range(lines[1] - lines[0])),
        "missing_branches": [[7, 8]] * (branches[1] - branches[0]),
    }


PYPROJECT = """
[tool.entra_fast.coverage]
library = { least = 100, modules = ["validate.py"] }
rest = { least = 50, modules = ["_provider/*"] }
"""


def test_a_branch_that_is_not_covered_counts() -> None:
    """All lines of a module are covered, one branch in a thousand is not: that is less than 100 %."""
    library, _ = parts = coverage_gate.parts_of(PYPROJECT)
    assert (
        coverage_gate.sort_into(parts, {"python/entra_fast/validate.py": _report((9_990, 9_990), (9, 10))})
        == []
    )
    assert library.reached == 99.99
    assert library.missing == ["validate.py: 7->8"]


def test_a_module_that_no_part_names_is_reported() -> None:
    """A new module is measured, or the gate fails."""
    parts = coverage_gate.parts_of(PYPROJECT)
    files = {"python/entra_fast/_provider/oauth.py": _report((1, 2), (0, 0)), "python/entra_fast/new.py": {}}
    assert coverage_gate.sort_into(parts, files) == ["new.py"]
    assert parts[1].reached == 50


def test_every_module_belongs_to_a_part() -> None:
    """The patterns of pyproject.toml name every module of the package."""
    parts = coverage_gate.parts_of((ROOT / "pyproject.toml").read_text())
    files = {str(path): _report((1, 1), (0, 0)) for path in (ROOT / "python/entra_fast").rglob("*.py")}
    assert coverage_gate.sort_into(parts, files) == []


def test_every_exception_from_coverage_has_a_reason() -> None:
    """`# pragma: no cover - why`: the reason follows it."""
    without = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "python").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := PRAGMA.search(line)) and not re.fullmatch(r" - \S.{4,}", found["reason"])
    ]
    assert without == []
