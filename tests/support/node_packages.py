"""The packages from npm that tests of clients for Node.js use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "clients/node"


def install_packages() -> None:
    """Install those of the lock file if it has changed. Skips the test where there is no Node.js, or where
    they cannot be fetched."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node is not installed")
    installed, locked = FOLDER / "node_modules/.package-lock.json", FOLDER / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= locked.stat().st_mtime:
        return
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the packages could not be installed in time")
    if done.returncode != 0:
        pytest.skip("the packages could not be installed: no way to a package registry")
