"""CPU time of `import entra_fast.validate` on top of asyncio: python -m benches.imports [OUT.json]

What is measured is the difference between two processes, of which one imports the library. They take turns,
and the median of the turns counts: what else runs on the machine disturbs both alike.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

TURNS = 41


def cpu_ms(program: str) -> float:
    """The CPU time of an interpreter that runs a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def main() -> None:
    bare, whole = "import asyncio", "import asyncio, entra_fast.validate"
    cpu_ms(whole)  # writes byte code, and brings the files into memory
    turns = [(cpu_ms(bare), cpu_ms(whole)) for _ in range(TURNS)]
    figures = {
        "bare_ms": round(statistics.median(turn[0] for turn in turns), 2),
        "import_ms": round(statistics.median(turn[1] - turn[0] for turn in turns), 2),
    }
    print(f"import entra_fast.validate: {figures['import_ms']} ms on top of {figures['bare_ms']} ms")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
