"""Compares two versions of entra_fast side by side, in one run: `make bench-compare BASE=<git ref>`.

    python -m benches.compare --base PYTHON [--new PYTHON]

Each `PYTHON` is an interpreter with one version installed; without `--new` the version under test is that of
the running interpreter. Both sides stay alive and take turns, so that a machine that speeds up or slows down
affects both alike. A ratio says how many times as good the new version is (above 1: faster, or less memory).
It is the median of the ratios within the turns, with a 95 % interval from resampling the turns. A row is
`WORSE` only if the whole interval is below the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benches import tokens as material
from benches.load import wrk
from benches.load.__main__ import Bench, warm_up
from benches.load.processes import SERVER_CORE, Server, start_sidecar, until_ready
from benches.load.traffic import FORM, JSON, Traffic
from benches.resampling import Ratio

LIMIT = 0.97
"""A row may not fall below this share of the base version."""
COUNT = 1000
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
MICRO = (
    *(f"{algorithm} never seen" for algorithm in ALGORITHMS),
    "RS256 never seen, claims as dict",
    "RS256 seen before",
    "RS256 validate_many",
)
LOAD = (
    ("introspect_seen", JSON, 64),
    ("introspect_seen", FORM, 64),
    ("introspect_seen", JSON, 1),
    ("introspect_unseen", JSON, 64),
    ("token", JSON, 64),
    ("token", FORM, 64),
    ("exchange", JSON, 64),
    ("exchange", FORM, 64),
)
SIDES = ("base", "new")
CONCLUSIONS = {True: "not worse", False: "WORSE", None: "undecided: more turns are needed"}

Turns = dict[str, dict[str, list[float]]]
"""Figures by row and side, one per turn; smaller is better."""


class Worker:
    """`compare_worker.py` in the interpreter of one side."""

    def __init__(self, python: str, tokens: Path) -> None:
        worker = Path(__file__).with_name("compare_worker.py")
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), python, str(worker), str(tokens)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def measure(self, row: str) -> float:
        """Microseconds per token."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(row + "\n")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended at {row!r}")
        return float(line)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def micro(pythons: dict[str, str], turns: int, figures: Turns, directory: Path) -> None:
    """Rows of the library: microseconds per token."""
    file = directory / "tokens.json"
    common = {"issuer": material.ISSUER, "audience": material.AUDIENCE}
    made = {algorithm: material.make(algorithm, COUNT) for algorithm in ALGORITHMS}
    file.write_text(json.dumps({name: asdict(tokens) | common for name, tokens in made.items()}))
    workers = {side: Worker(pythons[side], file) for side in SIDES}
    for turn in range(turns):
        for row in MICRO:
            for side in _order(turn):
                figures[row][side].append(workers[side].measure(row))
    for worker in workers.values():
        worker.close()


def start(pythons: dict[str, str], turns: int, figures: Turns, directory: Path) -> None:
    """Rows of a sidecar that has just started: time until it is ready, and idle memory."""
    bench = Bench(directory, runs=turns, seconds=1)
    with bench.provider() as provider:
        environ = bench.environment(provider)
        for turn in range(turns):
            for side in _order(turn):
                started = time.perf_counter()
                with _sidecar(environ, pythons[side]) as sidecar:
                    figures["start to ready, ms"][side].append((time.perf_counter() - started) * 1e3)
                    time.sleep(1)
                    figures["idle memory, MiB"][side].append(sidecar.resident_bytes() / 2**20)


def load(pythons: dict[str, str], turns: int, figures: Turns, directory: Path) -> None:
    """Rows of the sidecar under load: time and CPU time per request."""
    bench = Bench(directory, runs=turns, seconds=1)
    with bench.provider() as provider, contextlib.ExitStack() as stack:
        environ = bench.environment(provider)
        traffic = Traffic(directory, bench.seen, bench.unseen)
        running = {side: stack.enter_context(_sidecar(environ, pythons[side])) for side in SIDES}
        for subject, content_type, connections in LOAD:
            shot = traffic.shot(subject, content_type)
            seen = traffic.shot("introspect_seen", content_type) if shot.once else shot
            name = f"{subject}, {content_type.rpartition('/')[2][-10:]}, {connections}"
            for turn in range(turns):
                for side in _order(turn):
                    with contextlib.ExitStack() as own:
                        # Tokens count as never seen only in a process that has not seen them.
                        server = (
                            own.enter_context(_sidecar(environ, pythons[side]))
                            if shot.once
                            else running[side]
                        )
                        warm_up(server, seen)
                        outcome = wrk.run(server, shot, connections=connections, seconds=1)
                    figures[f"{name}: us"][side].append(1e6 / outcome.per_second)
                    figures[f"{name}: us of CPU"][side].append(outcome.cpu)
            print(f"  {name}", flush=True)


@contextlib.contextmanager
def _sidecar(environ: dict[str, str], python: str) -> Iterator[Server]:
    with start_sidecar(environ, python=python) as server:
        until_ready(server)
        yield server


def _order(turn: int) -> Sequence[str]:
    """Neither side always goes first."""
    return SIDES if turn % 2 else SIDES[::-1]


def compared(figures: Turns) -> list[dict[str, Any]]:
    """A row with its ratio, interval and conclusion for each name."""
    rows = []
    for name, sides in figures.items():
        ratio = Ratio.of(base / new for base, new in zip(sides["base"], sides["new"], strict=True))
        rows.append(
            {
                "row": name,
                "base": round(statistics.median(sides["base"]), 3),
                "new": round(statistics.median(sides["new"]), 3),
                "ratio": round(ratio.median, 3),
                "interval": ratio.interval,
                "conclusion": CONCLUSIONS[ratio.reaches(LIMIT)],
            }
        )
    return rows


def main() -> int:
    """Measure, print the table, write it; exit status 1 if a row is worse."""
    parser = argparse.ArgumentParser(prog="python -m benches.compare")
    parser.add_argument("--base", required=True, help="interpreter with the base version installed")
    parser.add_argument(
        "--new", default=sys.executable, help="interpreter with the version under test (default: this one)"
    )
    parser.add_argument(
        "--turns", type=int, default=15, help="turns of each load row; micro rows take 4 times as many"
    )
    parser.add_argument("--only", choices=("micro", "start", "load"), help="measure only these rows")
    parser.add_argument("--out", type=Path, help="also write the table to this JSON file")
    arguments = parser.parse_args()
    pythons = {"base": arguments.base, "new": arguments.new}
    figures: Turns = defaultdict(lambda: defaultdict(list))
    parts: dict[str, Callable[..., None]] = {"micro": micro, "start": start, "load": load}
    with tempfile.TemporaryDirectory(prefix="entra-fast-compare-") as directory:
        for name, part in parts.items():
            if arguments.only in (None, name):
                print(f"==> {name} rows", flush=True)
                part(pythons, arguments.turns * (4 if name == "micro" else 1), figures, Path(directory))
    rows = compared(figures)
    print(f"\n{'row':52} {'base':>9} {'new':>9} {'ratio':>6}  95 % interval")
    for row in rows:
        low, high = row["interval"]
        print(
            f"{row['row']:52} {row['base']:9.2f} {row['new']:9.2f} {row['ratio']:6.3f}  "
            f"{low:.3f} to {high:.3f}  {row['conclusion']}"
        )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["conclusion"] == "WORSE" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
