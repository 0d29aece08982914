"""The command: `make mutants-python` (PARTS="token-client validate", ARGS="--again --minutes 10").

What belongs here: what is run, what is kept, and the table at the end.
"""

from __future__ import annotations

import argparse
import atexit
import itertools
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutants.python.mutations import Mutant, mutants_of
from mutants.python.running import PATIENCE, TESTS_SECONDS, Outcome, Runner

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "python" / "entra_fast"
RESULTS = ROOT / "target" / "mutants" / "python"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A part of the package: see parts.toml."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    least: float
    sample: int | None

    @property
    def results(self) -> Path:
        return RESULTS / f"{self.name}.jsonl"

    def known(self) -> dict[str, Outcome]:
        """Outcomes of earlier runs, by the mutants' keys; the last one counts."""
        if not self.results.exists():
            return {}
        rows = [json.loads(line) for line in self.results.read_text().splitlines()]
        return {row["key"]: Outcome(row["outcome"]) for row in rows}


def parts() -> dict[str, Part]:
    """All of parts.toml, in its order."""
    tables: dict[str, dict[str, Any]] = tomllib.loads((HERE / "parts.toml").read_text())
    return {
        name: Part(
            name, tuple(table["modules"]), tuple(table["tests"]), table.get("least", 0), table.get("sample")
        )
        for name, table in tables.items()
    }


def reasons() -> dict[str, str]:
    """Why mutants survive, by their names."""
    rows = tomllib.loads((HERE / "survivors.toml").read_text()).get("survivor", [])
    return {row["mutant"]: row["reason"] for row in rows}


def run(part: Part, options: argparse.Namespace) -> int:
    """Judge the mutants of a part that have no outcome yet, and those that `options` name once more."""
    scratch = RESULTS / f"tmp-{os.getpid()}"  # another run, of another part, must not remove its files
    scratch.mkdir(parents=True)
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(scratch)
    known = part.known()
    once_more = [Outcome.SURVIVED] * options.again + [Outcome.TIMED_OUT] * options.timed_out
    done = {key for key, outcome in known.items() if outcome not in once_more}
    by_module = [mutants_of(PACKAGE, module, part.sample)[0] for module in options.module or part.modules]
    # In turns, so that a run that ends early has judged some of each module.
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_module))
    todo = [mutant for mutant in turns if mutant is not None and mutant.key not in done]
    print(f"==> {part.name}: {len(todo)} mutants", flush=True)
    if not todo:
        return 0
    count = 0
    with part.results.open("a") as file:

        def judged(mutant: Mutant, outcome: Outcome, seconds: float) -> None:
            nonlocal count
            count += 1
            row = {"key": mutant.key, "outcome": outcome, "seconds": round(seconds, 2)}
            file.write(json.dumps(row) + "\n")
            file.flush()
            if outcome not in (Outcome.KILLED, Outcome.TIMED_OUT):
                print(f"{outcome}: {mutant.name}", flush=True)
            if count % 50 == 0:
                print(f"    {count} of {len(todo)}", flush=True)

        runner = Runner(
            PACKAGE,
            part.modules,
            todo,
            judged,
            minutes=options.minutes,
            seconds=options.seconds,
            patience=options.patience,
            directory=scratch,
        )
        arguments = ["-q", "-s", "--no-header", "-p", "no:cacheprovider", "--tb=native"]
        arguments += [f"tests/{test}" for test in options.tests or part.tests]
        return pytest.main(arguments, plugins=[runner])


def report(chosen: list[Part]) -> bool:
    """Print the table. Returns whether each part has what it must reach, and a reason for what survives."""
    good = True
    explained = reasons()
    print("| module | mutants | run | killed | timed out | survived | score |\n|---|---|---|---|---|---|---|")
    unexplained = []
    for part in chosen:
        known = part.known()
        total: Counter[Outcome] = Counter()
        for module in part.modules:
            mutants, existing = mutants_of(PACKAGE, module, part.sample)
            counts = Counter(known[mutant.key] for mutant in mutants if mutant.key in known)
            total.update(counts)
            print(f"| `{module}` | {existing} | {_figures(counts)} |")
            if part.least:
                unexplained += [
                    mutant.name
                    for mutant in mutants
                    if known.get(mutant.key) is Outcome.SURVIVED and mutant.name not in explained
                ]
        print(f"| {part.name} | | {_figures(total)} |")
        if part.least and total and _score(total) < part.least:
            print(f"{part.name}: {part.least} % must be killed")
            good = False
    for name in unexplained:
        print(f"no test fails, and survivors.toml has no reason: {name}")
    return good and not unexplained


def _score(counts: Counter[Outcome]) -> float:
    killed = counts[Outcome.KILLED] + counts[Outcome.TIMED_OUT]
    return 100 * killed / (killed + counts[Outcome.SURVIVED]) if killed else 0.0


def _figures(counts: Counter[Outcome]) -> str:
    columns = [counts[outcome] for outcome in (Outcome.KILLED, Outcome.TIMED_OUT, Outcome.SURVIVED)]
    return " | ".join(str(figure) for figure in (sum(columns), *columns, f"{_score(counts):.1f} %"))


def main() -> int:
    """Each part has a process of its own, because pytest collects once in a process."""
    known = parts()
    parser = argparse.ArgumentParser(prog="make mutants-python", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *known], help="all of them by default")
    parser.add_argument(
        "--minutes", type=float, default=60, help="for each part; what is left runs the next time"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=TESTS_SECONDS,
        help="of tests for each mutant; more for functions that every test calls",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds that a test may take beyond ten times its own; more on a busy machine",
    )
    parser.add_argument("--again", action="store_true", help="judge those that have survived once more")
    parser.add_argument("--timed-out", action="store_true", help="judge those that have timed out once more")
    parser.add_argument("--report", action="store_true", help="print the table only")
    parser.add_argument("--module", action="append", default=[], help="of a part, this module only")
    parser.add_argument(
        "--tests", action="append", default=[], help="instead of the part's: a path below tests"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = [known[name] for name in options.parts or known]
    if options.here:
        return run(chosen[0], options)
    for part in [] if options.report else chosen:
        command = [
            sys.executable,
            "-m",
            "mutants.python",
            part.name,
            "--here",
            f"--minutes={options.minutes}",
            f"--seconds={options.seconds}",
            f"--patience={options.patience}",
        ]
        command += ["--again"] * options.again + ["--timed-out"] * options.timed_out
        command += [f"--module={module}" for module in options.module]
        command += [f"--tests={test}" for test in options.tests]
        subprocess.run(command, check=False, cwd=ROOT)
    return 0 if report(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
