"""Prints the path of one CPython for each version from 3.11 on that this machine has, for wheel.sh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DESCRIBE = (
    "import sys, sysconfig; print(sys.implementation.name, '%d.%d' % sys.version_info[:2],"
    " sysconfig.get_config_var('Py_GIL_DISABLED') or 0, sys.executable)"
)


def candidates(version: str) -> list[list[str]]:
    """Commands that may run this version: on PATH, of pyenv, of CI runners for Windows, this one."""
    pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")
    runner = Path(os.environ.get("RUNNER_TOOL_CACHE", ".")).glob(f"Python/{version}.*/*/python.exe")
    paths = [str(path) for path in (*sorted(pyenv), *sorted(runner))]
    return [[f"python{version}"], *([path] for path in paths), ["py", f"-{version}"], [sys.executable]]


def found(version: str) -> str | None:
    """The path of a CPython of this version with the GIL, or None."""
    for command in candidates(version):
        if shutil.which(command[0]) is None:
            continue
        asked = subprocess.run(  # noqa: S603 - interpreters are run, by the purpose of this file
            [*command, "-c", DESCRIBE], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0 and asked.stdout.startswith(f"cpython {version} 0 "):
            return asked.stdout.strip().split(" ", 3)[3]
    return None


if __name__ == "__main__":
    wanted = sys.argv[1:] or [f"3.{minor}" for minor in range(11, 20)]
    for path in filter(None, map(found, wanted)):
        sys.stdout.buffer.write(f"{path}\n".encode())  # no carriage return for bash on Windows
