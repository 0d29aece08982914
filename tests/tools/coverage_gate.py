"""The gate of `make coverage`: prints what the tests reach per part, and fails if a part falls short.

What belongs here: reading coverage.py's JSON report, and comparing it with `[tool.entra_fast.coverage]` of
pyproject.toml. Lines and branches count together, as in coverage.py's own percentage.

CI passes a tolerance, in percentage points: some branches depend on the order in which processes run, and a
busy machine must not fail the build for one of them. What is not covered is printed all the same.
"""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "python/entra_fast/"


@dataclass
class Part:
    """A part of the package: the modules that fit its patterns, and what they must reach.

    Attributes:
        least: percent of lines and branches that must be covered.
        missing: one line of text for each module with uncovered lines or branches.
    """

    name: str
    least: float
    patterns: list[str]
    lines: int = 0
    covered_lines: int = 0
    branches: int = 0
    covered_branches: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def reached(self) -> float:
        """Percent of lines and branches, rounded down to two digits: 100 means all of them."""
        total = self.lines + self.branches
        return (self.covered_lines + self.covered_branches) * 10_000 // total / 100 if total else 100.0

    def add(self, module: str, report: dict[str, Any]) -> None:
        """Count a module's entry of the report."""
        summary = report["summary"]
        self.lines += summary["num_statements"]
        self.covered_lines += summary["covered_lines"]
        self.branches += summary["num_branches"]
        self.covered_branches += summary["covered_branches"]
        lines = [str(line) for line in report["missing_lines"]]
        branches = [f"{start}->{end}" for start, end in report["missing_branches"]]
        if lines or branches:
            self.missing.append(f"{module}: {', '.join(lines + branches)}")


def parts_of(pyproject: str) -> list[Part]:
    """The parts that pyproject.toml names, in its order."""
    table = tomllib.loads(pyproject)["tool"]["entra_fast"]["coverage"]
    return [Part(name, part["least"], part["modules"]) for name, part in table.items()]


def sort_into(parts: list[Part], files: dict[str, Any]) -> list[str]:
    """Count each file of the report in the first part that it fits; returns the modules that fit none."""
    homeless = []
    for path, report in sorted(files.items()):
        module = path.replace("\\", "/").partition(PACKAGE)[2]
        if not module and "/tmp" in path:  # made by a test
            continue
        part = next((part for part in parts if any(fnmatch(module, one) for one in part.patterns)), None)
        if part is None:
            homeless.append(module or path)
        else:
            part.add(module, report)
    return homeless


def table(parts: list[Part]) -> str:
    """The figures as a Markdown table, as docs/contributing/testing.md shows them."""
    rows = ["| part | lines | branches | covered | required |", "|---|---|---|---|---|"]
    rows += [
        f"| {part.name} | {part.covered_lines}/{part.lines} | {part.covered_branches}/{part.branches} "
        f"| {part.reached:.2f} % | {part.least:g} % |"
        for part in parts
    ]
    return "\n".join(rows)


def main(report: str, tolerance: float = 0.0) -> int:
    """Print the table and what is missing; returns the exit status.

    Args:
        report: path of the JSON report.
        tolerance: percentage points that a part may fall short of its requirement.
    """
    parts = parts_of((ROOT / "pyproject.toml").read_text())
    homeless = sort_into(parts, json.loads(Path(report).read_text())["files"])
    print(table(parts))
    short = [part for part in parts if part.reached < part.least]
    failed = [part for part in short if part.reached < part.least - tolerance]
    for part in short:
        print(f"\n{part.name}: {part.reached:.2f} % is less than {part.least:g} %. Not covered:")
        print("\n".join(f"  {line}" for line in part.missing))
    for module in homeless:
        print(f"\n{module} belongs to no part: add it to [tool.entra_fast.coverage] in pyproject.toml")
    return 1 if failed or homeless else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
