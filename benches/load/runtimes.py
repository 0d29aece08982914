"""Which interpreter and which uvloop to run: the same short load on each, in turns.

    python -m benches.load.runtimes [--turns 5] NAME=PYTHON[,PYTHONPATH] ...

Each PYTHON has the package and its dependencies installed; PYTHONPATH puts another uvloop in front. The first
one is what the others are compared with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from benches.load.processes import ROOT

FIGURES = ("sidecar_cpu", "slow_path_cpu", "bare_cpu", "idle_mb", "start_ms")


def measure() -> None:
    """What one turn does, within the interpreter in question."""
    from benches.load import report  # noqa: PLC0415
    from benches.load.__main__ import Bench  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory), runs=1, seconds=1)
        bench.runtime()
        bench.start()
    runs = bench.results.runs["introspect_seen/others"]
    figures = {f"{name}_cpu": report.middle(each).cpu for name, each in runs.items()}
    figures["idle_mb"] = bench.results.idle_bytes[0] / 1e6
    figures["start_ms"] = min(bench.results.start_seconds) * 1e3
    print(json.dumps(figures))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.load.runtimes")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("runtimes", nargs="+", metavar="NAME=PYTHON[,PYTHONPATH]")
    arguments = parser.parse_args()
    measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(arguments.turns):
        for runtime in arguments.runtimes:
            name, _, where = runtime.partition("=")
            python, _, path = where.partition(",")
            environ = {**os.environ, "PYTHONPATH": f"{path}:{ROOT}" if path else str(ROOT)}
            done = subprocess.run(
                [python, "-c", "from benches.load.runtimes import measure; measure()"],
                cwd=ROOT,
                env=environ,
                check=True,
                capture_output=True,
                text=True,
            )
            for figure, value in json.loads(done.stdout.splitlines()[-1]).items():
                measured[name][figure].append(value)
    first = next(iter(measured))
    print(f"{'':24}" + "".join(f"{figure:>20}" for figure in FIGURES))
    for name, figures in measured.items():
        cells = []
        for figure in FIGURES:
            ratio = statistics.median(
                theirs / ours for ours, theirs in zip(figures[figure], measured[first][figure], strict=True)
            )
            cells.append(f"{statistics.median(figures[figure]):10.1f} ({ratio:5.2f}x)  ")
        print(f"{name:24}" + "".join(f"{cell:>20}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
