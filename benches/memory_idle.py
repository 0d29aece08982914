"""Where the memory of an idle sidecar goes: PYTHONPATH=tests python -m benches.memory_idle

A fresh interpreter imports one part after another and notes its resident memory; what a part takes is the
difference, without what was there before. The last row is a real sidecar that has its keys and has answered
nothing. Private memory counts against a container's limit. Pages of files (programs and libraries) are shared
by all containers of a node that have the same image, and the kernel gives them up under pressure.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import uvloop

from benches.memory import status_kib
from support.process import served
from support.provider import Provider
from support.sidecars import eventually

TURNS = 5
PARTS = (
    ("CPython", "pass"),
    ("asyncio and TLS of the standard library", "import asyncio, ssl"),
    ("uvloop", "import uvloop"),
    ("the native core", "import entra_fast._native"),
    (
        "aiohttp, and what it needs",
        "import entra_fast.sidecar.process.aiohttp_import as own; own.import_aiohttp(); import aiohttp.web",
    ),
    ("the command line", "import entra_fast.cli.main as line; line._parser('serve')"),
    ("the sidecar", "import entra_fast.sidecar.process.single"),
)
REPORT = """
import gc
def resident():
    gc.collect()
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(*(fields[name].split()[0] for name in ("RssAnon", "RssFile")))
"""


def imports() -> list[tuple[int, int]]:
    """Private memory and pages of files after each part: KiB."""
    program = REPORT + "".join(f"{code}\nresident()\n" for _, code in PARTS)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return [(int(private), int(files)) for private, files in map(str.split, done.stdout.splitlines())]


async def running() -> tuple[int, int]:
    """The same of a sidecar that waits for requests."""
    provider = Provider()
    await provider.start()
    async with served() as serve:
        process = await serve(provider.environment(PROBE_BIND_ADDRESS="127.0.0.1:0"))
        await process.listening()

        async def ready() -> bool:
            return process.logged('"ready"') == 1

        await eventually(ready)
        pid = process.process.pid
        figures = status_kib("RssAnon", pid), status_kib("RssFile", pid)
    await provider.stop()
    return figures


def main() -> None:
    imports()  # writes byte code
    turns = [[*imports(), uvloop.run(running())] for _ in range(TURNS)]
    names = [name for name, _ in PARTS] + ["serving: caches, connections, keys"]
    print(f"CPython {sys.version.split()[0]}, MiB\n")
    print("| part | private | in all | files | in all |")
    print("|---|---|---|---|---|")
    before = [0.0, 0.0]
    for number, name in enumerate(names):
        now = [statistics.median(turn[number][kind] / 1024 for turn in turns) for kind in (0, 1)]
        cells = [f"{now[kind] - before[kind]:.1f} | {now[kind]:.1f}" for kind in (0, 1)]
        print(f"| {name} | {' | '.join(cells)} |")
        before = now


if __name__ == "__main__":
    main()
