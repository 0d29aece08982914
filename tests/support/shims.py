"""Commands of the documentation that a test must not run as they stand: `python shims.py NAME ARGUMENT...`.

- `make TARGET...` looks the targets up in the Makefile (`make --dry-run`).
- `pip install 'entra-fast[EXTRA]'` looks the extras up in the metadata.
- `entra-fast dev`, `serve`, `emulator` and `token-generator` start on free ports, and are stopped when they
  serve; all other commands run as they are.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FREE_PORTS = {
    "dev": ["--emulator-port", "0", "--generator-port", "0", "--sidecar-port", "0"],
    "emulator": ["--port", "0"],
    "serve": ["--bind", "127.0.0.1:0"],
    "token-generator": ["--bind", "127.0.0.1:0"],
}
SERVES = re.compile(r"Ctrl-C stops|listening|anyone can sign in|http://127\.0\.0\.1:\d+")
PROGRAM = "import sys; from entra_fast.cli.main import main; sys.exit(main())"


def make(arguments: list[str]) -> int:
    path = os.environ["PATH"].partition(os.pathsep)[2]
    program = shutil.which("make", path=path)
    assert program is not None
    targets = [one for one in arguments if not one.startswith("#")]
    return subprocess.run(
        [program, "--directory", str(ROOT), "--dry-run", *targets], stdout=subprocess.DEVNULL, check=False
    ).returncode


def pip(arguments: list[str]) -> int:
    assert arguments[0] == "install", arguments
    extras = set(importlib.metadata.metadata("entra-fast").get_all("Provides-Extra") or [])
    for wanted in arguments[1:]:
        match = re.fullmatch(r"entra-fast(?:\[([\w,]+)\])?", wanted)
        if match is None:
            print(f"not a package of ours: {wanted}")
            return 1
        missing = {*(match[1] or "").split(",")} - extras - {""}
        if missing:
            print(f"no such extra: {missing}")
            return 1
    return 0


def entra_fast(arguments: list[str]) -> int:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    if arguments[0] in ("env", "forge") and "--url" not in arguments:
        command += ["--url", os.environ["LOCAL_ENTRA_ID"]]
    if arguments[0] == "bench":
        command += ["--seconds", "1"]
    if arguments[0] not in FREE_PORTS or {"--help", "--check"} & set(arguments):
        return subprocess.run(command, check=False).returncode
    # Several pages start the same server: once is enough.
    seen = Path(os.environ["SERVERS_SEEN"])
    if shlex.join(arguments) in (seen.read_text().splitlines() if seen.is_file() else []):
        return 0
    process = subprocess.Popen(
        [*command, *FREE_PORTS[arguments[0]]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if SERVES.search(line):
            process.send_signal(signal.SIGTERM)
            process.communicate()
            with seen.open("a") as file:
                file.write(shlex.join(arguments) + "\n")
            return 0
    print("".join(lines))
    return process.wait() or 1


if __name__ == "__main__":
    sys.exit({"make": make, "pip": pip, "entra-fast": entra_fast}[sys.argv[1]](sys.argv[2:]))
