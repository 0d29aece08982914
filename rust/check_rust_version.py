"""Compares the Rust version that Cargo.toml promises with what each dependency says it needs.

    python3 rust/check_rust_version.py

Cargo itself notices a mismatch only when a build uses exactly the promised version. Run by `make check-rust`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def version(text: str) -> tuple[int, ...]:
    """`1.90` and `1.90.0` are the same."""
    numbers = [int(part) for part in text.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers)))


def problems(metadata: dict[str, Any]) -> list[str]:
    """A sentence for each dependency that needs a newer Rust than the workspace promises."""
    own = set(metadata["workspace_members"])
    promised = {package["rust_version"] for package in metadata["packages"] if package["id"] in own}
    if len(promised) != 1 or None in promised:
        return [
            f"the crates of the workspace must promise one rust-version, not {sorted(map(str, promised))}"
        ]
    promise = promised.pop()
    return [
        f"{package['name']} {package['version']} needs Rust {package['rust_version']}, "
        f"but Cargo.toml promises {promise}: raise rust-version there"
        for package in metadata["packages"]
        if package["rust_version"] and version(package["rust_version"]) > version(promise)
    ]


def main() -> int:
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
    found = problems(json.loads(output))
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
