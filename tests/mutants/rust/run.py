"""Mutation tests of the Rust core: `make mutants-rust`.

cargo-mutants changes one expression of the core at a time. A mutant is killed when a Rust test fails, and
survives when all pass. What belongs here: running it module by module so that an interrupted run goes on, and
comparing the survivors with `survivors.toml`, where each has its reason.

It works on a copy of the sources in `target/mutants/rust`, with a build of its own: one for all mutants of
a module that fit into one (`one_build`). A module's own tests come first; what they do not kill is tried
with all tests of the core. Results are kept there. A later run repeats what survived if any source has
changed, and everything of a module whose code, tests left out, has changed. A mutant that exceeds its time
or memory is killed too: a test that never ends fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Timer
from typing import NoReturn

from mutants.rust import one_build

ROOT = Path(__file__).resolve().parents[3]
HERE = ROOT / "target" / "mutants" / "rust"
TREE = HERE / "tree"
BUILD = HERE / "build"
TOOLS = ROOT / "target" / "tools"
SURVIVORS = Path(__file__).with_name("survivors.toml")
LIMITED = Path(__file__).with_name("limited.sh")

VERSION = "27.1.0"
"""Of cargo-mutants; other versions make other mutants."""

LEAST = 95.0
"""Percent of the mutants of each module in `HELD` that must be killed."""

MUTANT_SECONDS = 300
"""For one mutant, by the clock; `limited.sh` bounds the CPU time. Only a deadlock needs so long."""

COPIED = ("Cargo.toml", "Cargo.lock", ".cargo/mutants.toml", "rust/core", "rust/py")

CORE = "rust/core/src"
HELD = (
    "validate/verify", "validate/policy", "validate/claims", "validate/validator", "jose/keyset",
    "cache/token_cache", "cache/fingerprint", "cache/s3_fifo", "sidecar/contract", "sidecar/http1",
    "sidecar/providers", "sidecar/fast_path",
)  # fmt: skip
"""Modules that decide about tokens and requests. They come first; the others are measured only."""

SLOW = ("of_many_threads_one_is_to_renew", "threads_never_see_a_value_of_another_key")
"""Tests that are left out at first: they take longer than all others of their module."""

KILLED = ("CaughtMutant", "Timeout")
MISSED = "MissedMutant"
UNVIABLE = "Unviable"
"""Outcomes, as cargo-mutants names them. A mutant that does not compile is unviable, and counts as none."""

SURVIVED = "survived"
"""What was missed by all tests of the core, and not only by those of its module."""


@dataclass(frozen=True)
class Mutant:
    """A change of the code.

    Attributes:
        name: cargo-mutants' own, with the position.
        what: the change and the function, without the position.
        line: the first line that is changed, as it is in the source.
        change: the same for `one_build`.
    """

    name: str
    what: str
    line: str
    change: one_build.Change


@dataclass(frozen=True)
class Module:
    """A file of the core, and what is known about its mutants.

    Attributes:
        name: path below `rust/core/src`, without the suffix.
    """

    name: str

    @property
    def source(self) -> Path:
        return ROOT / CORE / f"{self.name}.rs"

    @property
    def folder(self) -> Path:
        """Where its results are kept."""
        return HERE / "modules" / self.name.replace("/", "-")

    @property
    def own_tests(self) -> list[str]:
        """Arguments of a test program for its own tests; those of its neighbours where it has none."""
        path = self.name if "#[cfg(test)]\nmod " in self.source.read_text() else self.name.rpartition("/")[0]
        return [path.replace("/", "::") + "::", *(f"--skip={test}" for test in SLOW)]

    def fingerprints(self) -> dict[str, str]:
        """Of the code, together with what decides which mutants there are, and of its tests."""
        code, _, tests = self.source.read_text().partition("#[cfg(test)]\nmod ")
        settings = tomllib.loads((ROOT / ".cargo/mutants.toml").read_text())
        texts = {"code": f"{VERSION}\n{settings}\n{code}", "tests": tests}
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}

    def results(self) -> dict[str, str]:
        """Outcomes by name of mutant. Those of other code do not count, nor what other tests have missed."""
        try:
            kept = json.loads((self.folder / "results.json").read_text())
        except FileNotFoundError:
            return {}
        now = self.fingerprints()
        if kept["code"] != now["code"]:
            return {}
        missed = () if kept["tests"] == now["tests"] else (MISSED, SURVIVED)
        return {name: outcome for name, outcome in kept["results"].items() if outcome not in missed}

    def keep(self, results: dict[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.fingerprints() | {"results": results}, indent=1)
        (self.folder / "results.new").write_text(text)
        (self.folder / "results.new").replace(self.folder / "results.json")


class Stopped(Exception):
    """The time for the whole run is over."""


def modules(chosen: list[str]) -> list[Module]:
    """The modules whose names begin with one of those chosen, in that order; all of them without a choice."""
    found = {path.relative_to(ROOT / CORE).with_suffix("").as_posix() for path in (ROOT / CORE).rglob("*.rs")}
    names = [*HELD, *sorted(found - set(HELD))]
    for choice in chosen:
        if not any(name.startswith(choice) for name in names):
            sys.exit(f"mutants: there is no module {choice!r}; one of: {', '.join(names)}")
    wanted = [name for choice in chosen or [""] for name in names if name.startswith(choice)]
    return [Module(name) for name in dict.fromkeys(wanted)]


def environment() -> dict[str, str]:
    """With our own build folder, and limits for the tests."""
    runner = f"CARGO_TARGET_{host().upper().replace('-', '_')}_RUNNER"
    path = f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {
        "PATH": path,
        "CARGO_TARGET_DIR": str(BUILD),
        runner: str(LIMITED),
        "PROPTEST_MAX_SHRINK_ITERS": "0",
    }


@cache
def host() -> str:
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return next(line.removeprefix("host: ") for line in version.splitlines() if line.startswith("host: "))


def install() -> None:
    """cargo-mutants of the right version, in `target/tools`, unless it is there."""
    command = ["cargo", "mutants", "--version"]
    found = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True)
    if found.returncode == 0 and found.stdout.split()[-1] == VERSION:
        return
    place = TOOLS.relative_to(ROOT)
    print(f"mutants: installing cargo-mutants {VERSION} into {place} (once, takes minutes)", flush=True)
    command = [
        "cargo", "install", "--quiet", "--locked", "--version", f"={VERSION}", "--root", str(TOOLS),
        "--target-dir", str(ROOT / "target" / "tools-build"), "cargo-mutants",
    ]  # fmt: skip
    subprocess.run(command, check=True)


def copy_sources() -> str:
    """Bring the copy up to date. Files that are the same are left alone: Cargo need not build them again.

    Returns:
        A digest of all sources.
    """
    wanted = set()
    digest = hashlib.sha256()
    for name in COPIED:
        top = ROOT / name
        for source in [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file()):
            copy = TREE / source.relative_to(ROOT)
            wanted.add(copy)
            content = source.read_bytes()
            digest.update(f"{copy} {len(content)}\n".encode() + content)
            if not copy.exists() or copy.read_bytes() != content:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(content)
    for copy in TREE.rglob("*"):
        if copy.is_file() and copy not in wanted:
            copy.unlink()
    return digest.hexdigest()


def check_unchanged_code(sources: str) -> None:
    """Without a mutant, all tests pass. Asked once for the same sources, of which this is the digest."""
    passed = HERE / "passed"
    if passed.exists() and passed.read_text() == sources:
        return
    print("mutants: building the core and its tests (the first time takes minutes)", flush=True)
    command = [
        "cargo",
        "test",
        "--quiet",
        "--locked",
        "--package",
        "entra-core",
        "--lib",
        "--profile",
        "mutants",
    ]
    done = subprocess.run(command, cwd=TREE, env=environment(), check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nmutants: the tests fail without any mutant")
    # Any change may kill what survived.
    for module in modules([]):
        if results := module.results():
            module.keep(
                {name: MISSED if outcome == SURVIVED else outcome for name, outcome in results.items()}
            )
    passed.write_text(sources)


def cargo_mutants(chosen: list[Module]) -> list[str]:
    files = [option for module in chosen for option in ("--file", f"{CORE}/{module.name}.rs")]
    return ["cargo", "mutants", "--package", "entra-core", *files]


def mutants(chosen: list[Module]) -> dict[str, list[Mutant]]:
    """All of them by module, in the order of the code."""
    command = [*cargo_mutants(chosen), "--list", "--json"]
    done = subprocess.run(command, cwd=TREE, env=environment(), capture_output=True, text=True, check=True)
    sources = {module.name: module.source.read_text() for module in chosen}
    every: dict[str, list[Mutant]] = {module.name: [] for module in chosen}
    for mutant in json.loads(done.stdout or "[]"):
        module = mutant["file"].removeprefix(f"{CORE}/").removesuffix(".rs")
        what = re.sub(r"^[^ ]+:\d+:\d+: ", "", mutant["name"])
        line = sources[module].splitlines()[mutant["span"]["start"]["line"] - 1].strip()
        change = one_build.change(mutant, sources[module])
        every[module].append(Mutant(mutant["name"], what, line, change))
    return every


def sample(listed: list[Mutant], size: int | None) -> list[Mutant]:
    """As many of them at random, always the same ones; a larger sample contains the smaller ones."""
    if size is None:
        return listed

    def place(mutant: Mutant) -> bytes:
        return hashlib.sha256(f"{mutant.what} {mutant.line}".encode()).digest()

    return sorted(listed, key=place)[:size]


def outcomes(folder: Path) -> Iterator[tuple[str, str]]:
    """The mutants that a run of cargo-mutants has tried so far, with their outcomes."""
    try:
        found = json.loads((folder / "mutants.out" / "outcomes.json").read_text())["outcomes"]
    except (FileNotFoundError, json.JSONDecodeError):
        return  # it has not begun, or is writing
    for outcome in found:
        if isinstance(outcome["scenario"], dict):
            yield outcome["scenario"]["Mutant"]["name"], outcome["summary"]


def run_fitting(module: Module, every: list[Mutant], wanted: list[Mutant], deadline: float) -> list[Mutant]:
    """Try those of the wanted ones that fit into one build. What is known is kept.

    Returns:
        The others.

    Raises:
        Stopped: the deadline has come.
    """
    results = module.results()
    fitting = one_build.fitting([mutant.change for mutant in every], module.source.read_text())
    names = {change.name for change in fitting}
    others = [mutant for mutant in wanted if mutant.name not in names]
    left = [
        mutant.name
        for mutant in wanted
        if mutant.name in names and results.get(mutant.name) in {None, MISSED}
    ]
    if not left:
        return others
    print(f"mutants: {module.name}: {len(left)} of {len(every)}, in one build", flush=True)
    file = f"{CORE}/{module.name}.rs"
    try:
        built, numbers, unviable = one_build.build(TREE, file, fitting, environment(), "mutants")
    except one_build.DoesNotBuild as error:
        print(f"{error}\nmutants: {module.name} cannot be built like this: each mutant is built alone")
        return wanted
    results |= dict.fromkeys(unviable, UNVIABLE)
    module.keep(results)
    program = module.folder / "tests"
    shutil.copy2(built, program)
    if outcome(program, 0, []) != MISSED:
        sys.exit(f"mutants: {program} fails without any mutant")
    for tried, name in enumerate(name for name in left if name in numbers):
        if sys.stdout.isatty():
            print(f"\r  {tried} of {len(left)} tried", end="", flush=True)
        if time.monotonic() > deadline:
            raise Stopped
        if results.get(name) is None:
            results[name] = outcome(program, numbers[name], module.own_tests)
        if results[name] == MISSED:
            results[name] = outcome(program, numbers[name], [])
            results[name] = SURVIVED if results[name] == MISSED else results[name]
        module.keep(results)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    return others


def outcome(program: Path, number: int, tests: list[str]) -> str:
    """What some tests of a program say about a mutant in it: all of them where none are named."""
    settings = environment() | {one_build.VARIABLE: str(number)} | few_inputs(tests)
    timed_out = False

    def stop() -> None:
        nonlocal timed_out
        timed_out = True
        process.kill()

    with subprocess.Popen(
        [LIMITED, program, *tests],
        cwd=TREE / "rust/core",
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        timer = Timer(MUTANT_SECONDS, stop)
        timer.start()
        assert process.stdout
        try:
            # One failed test is enough; others may never end.
            failed = any(line.endswith("FAILED\n") for line in process.stdout)
            if not failed:
                process.wait()
        finally:
            process.kill()
            timer.cancel()
    if timed_out:
        return "Timeout"
    return "CaughtMutant" if failed or process.returncode else MISSED


def few_inputs(tests: list[str]) -> dict[str, str]:
    """Generated inputs take most of the time: few of them at first, as many as always for what survives."""
    return {"PROPTEST_CASES": "32"} if tests else {}


def run(module: Module, every: list[Mutant], wanted: list[Mutant], tests: list[str], deadline: float) -> None:
    """Try those that are wanted: with some tests those without a result, with all tests what these missed.

    Raises:
        Stopped: the deadline has come. What is known is kept.
    """
    results = module.results()
    left = {mutant.name for mutant in wanted if results.get(mutant.name) == (None if tests else MISSED)}
    if not left:
        return
    # cargo-mutants takes names to try as regular expressions only; names to leave out it reads from files.
    out = module.folder / "mutants.out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    others = [mutant.name for mutant in every if mutant.name not in left]
    (out / "caught.txt").write_text("".join(f"{name}\n" for name in others))
    command = [
        *cargo_mutants([module]), "--in-place", "--iterate", "--baseline", "skip", "--profile", "mutants",
        "--timeout", str(MUTANT_SECONDS), "--build-timeout", str(MUTANT_SECONDS),
        "--output", str(module.folder), "--cargo-arg=--locked", "--cargo-arg=--lib", "--", "--", *tests,
    ]  # fmt: skip
    settings = environment() | few_inputs(tests)
    title = "its own tests" if tests else "all tests of the core"
    print(f"mutants: {module.name}: {len(left)} of {len(every)}, with {title}", flush=True)
    process = None
    try:
        with (module.folder / "log.txt").open("w") as log:
            process = subprocess.Popen(command, cwd=TREE, env=settings, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(2)
            show_progress(module.folder, len(left))
            if time.monotonic() > deadline:
                raise Stopped
    finally:
        if process and process.poll() is None:
            process.terminate()
            process.wait()
        missed = MISSED if tests else SURVIVED
        found = {name: missed if outcome == MISSED else outcome for name, outcome in outcomes(module.folder)}
        module.keep(results | found)
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    # 2: some were missed; 3: some took too long.
    if process.returncode not in {0, 2, 3}:
        sys.exit(f"{(module.folder / 'log.txt').read_text()}\nmutants: cargo-mutants failed")


def show_progress(folder: Path, count: int) -> None:
    """One line that is written again and again, for a terminal only."""
    if sys.stdout.isatty():
        tried = Counter(outcome for _, outcome in outcomes(folder))
        print(f"\r  {tried.total()} of {count} tried, {tried[MISSED]} not killed", end="", flush=True)


def reasons() -> dict[tuple[str, str, str], str]:
    """Why a mutant survives, by module, change and line of code."""
    entries = tomllib.loads(SURVIVORS.read_text())
    return {
        (module, entry["mutant"], entry["line"]): entry["reason"]
        for module, listed in entries.items()
        for entry in listed
    }


def report(chosen: list[Module], every: dict[str, list[Mutant]], wanted: dict[str, list[Mutant]]) -> bool:
    """Print the table of scores and what is wrong with it; true if nothing is."""
    known = reasons()
    used: set[tuple[str, str, str]] = set()
    wrong: list[str] = []
    print("\n| module | mutants | tried | killed | survived | score |\n|---|---:|---:|---:|---:|---:|")
    for module in (module for module in chosen if every[module.name]):
        results = module.results()
        viable = [mutant for mutant in every[module.name] if results.get(mutant.name) != UNVIABLE]
        killed = sum(results.get(mutant.name) in KILLED for mutant in viable)
        survivors = [mutant for mutant in viable if results.get(mutant.name) == SURVIVED]
        tried = killed + len(survivors)
        score = 100 * killed / tried if tried else 0.0
        print(f"| `{module.name}` | {len(viable)} | {tried} | {killed} | {len(survivors)} | {score:.1f} % |")
        if module.name not in HELD:
            continue
        left = [mutant for mutant in wanted[module.name] if results.get(mutant.name, MISSED) == MISSED]
        if left:
            wrong.append(f"{module.name}: {len(left)} mutants have no result yet: run it again, it goes on")
        if score < LEAST:
            wrong.append(f"{module.name}: at least {LEAST:g} % of the mutants must be killed")
        for mutant in survivors:
            key = (module.name, mutant.what, mutant.line)
            used.add(key)
            if key not in known:
                wrong.append(f"{mutant.name}\n    survives without a reason, at: {mutant.line}")
        if tried == len(viable):
            stale = [key for key in known if key[0] == module.name and key not in used]
            wrong += [f"{module.name}: {what!r} at {line!r} does not survive" for _, what, line in stale]
    if wrong:
        print(f"\nmutants: write tests that kill these, or the reason into {SURVIVORS.relative_to(ROOT)}:")
        print("\n".join(f"  {line}" for line in wrong))
    return not wrong


def interrupt(*_: object) -> NoReturn:
    """Stop, also where the shell lets background jobs ignore Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the mutants of the chosen modules and print the table."""
    parser = argparse.ArgumentParser(prog="make mutants-rust", description="Mutation tests of the Rust core.")
    add = parser.add_argument
    add(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="as in the table, or its beginning: cache, validate/policy",
    )
    add("--minutes", type=float, default=330.0, help="stop then; the next run goes on (default: 330)")
    add("--sample", type=int, metavar="N", help="try N mutants of each module, chosen at random once for all")
    add("--fresh", action="store_true", help="forget the results of earlier runs")
    add("--report", action="store_true", help="run nothing, print what earlier runs have found")
    options = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, interrupt)
    deadline = time.monotonic() + options.minutes * 60
    chosen = modules(options.modules)
    install()
    sources = copy_sources()
    every = mutants(chosen)
    wanted = {name: sample(listed, options.sample) for name, listed in every.items()}
    if options.fresh:
        for module in chosen:
            shutil.rmtree(module.folder, ignore_errors=True)
    try:
        if not options.report:
            check_unchanged_code(sources)
            for module in chosen:
                others = run_fitting(module, every[module.name], wanted[module.name], deadline)
                for tests in (module.own_tests, []):
                    run(module, every[module.name], others, tests, deadline)
    except Stopped:
        print(f"\nmutants: stopped after {options.minutes:g} minutes")
    except KeyboardInterrupt:
        print("\nmutants: interrupted; the next run goes on from here")
    return 0 if report(chosen, every, wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
