"""CHANGELOG.md belongs to the version that is built."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from entra_fast import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_the_latest_version_of_the_changelog_is_the_one_in_cargo_toml() -> None:
    """The first heading with a version is that of the workspace, from which wheels take theirs."""
    latest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest is not None
    assert latest[1] == tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def test_the_extension_has_the_version_of_cargo_toml() -> None:
    """`entra_fast.__version__` comes from the extension: it is stale if this fails."""
    assert __version__ == tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
