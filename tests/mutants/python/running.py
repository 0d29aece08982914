"""Running the tests of a part against its mutants.

What belongs here: a plugin for pytest that collects the tests once, notes which functions each of them calls,
and forks for each mutant.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import gc
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutants.python import applying
from mutants.python.mutations import Mutant

PATIENCE = 8.0
"""Seconds that a test may take with a mutant beyond ten times what it takes without one."""
CPU_SECONDS = 60
"""Processor time of a mutant, in case that its tests cannot be interrupted."""
MEMORY = 8 << 30
LONGEST = 100.0
"""Seconds for all tests of a mutant: the limit of a test does not end what hangs while it is torn down."""
TRACING_SECONDS = 1800
"""For all tests of a part without a mutant, and with a note of what they call."""
TESTS_SECONDS = 6.0
"""Of the tests that call a function, so many run as fit into this."""


class Outcome(enum.StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMED_OUT = "timed out"
    SURVIVED = "survived"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Reached:
    """A test without a mutant: the functions that it calls, as (path of the module, name), and its time."""

    functions: frozenset[tuple[str, str]]
    seconds: float


class Runner:
    """Judges mutants, one after the other.

    Args:
        package: the directory of the package.
        modules: all of the part; it is noted which tests call them.
        judged: called with each mutant and its outcome.
        minutes: after that, no further mutant is begun.
        directory: for the files of tests; emptied after each mutant.
    """

    def __init__(
        self,
        package: Path,
        modules: Sequence[str],
        mutants: list[Mutant],
        judged: Callable[[Mutant, Outcome, float], None],
        *,
        minutes: float,
        directory: Path,
    ) -> None:
        self._package = package
        self._mutants = mutants
        self._judged = judged
        self._end = time.monotonic() + minutes * 60
        self._directory = directory
        self._is_child = False
        self._code = b"".join((package / module).read_bytes() for module in modules)
        self._passed: dict[str, Reached] = {}
        self._tracer: _Tracer | None = None
        self._timed_out = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        """In this process, no test runs. Forked ones return None, and pytest runs the tests there."""
        for name in {applying.module_name(mutant.module) for mutant in self._mutants}:
            __import__(name)
        if session.testsfailed:
            raise session.Failed("some tests cannot be collected")
        fresh = [item for item in session.items if not self._is_traced(item)]
        if fresh and self._fork(TRACING_SECONDS) is None:
            self._tracer = _Tracer(self._package)
            session.items[:] = fresh
            return None
        for path in {item.path for item in session.items}:
            self._read_traced(path)
        for item in session.items:
            if item.nodeid not in self._passed:
                print(f"not used, because it does not pass: {item.nodeid}")
        gc.collect()
        gc.freeze()  # a collection in a forked process would copy everything
        for mutant in self._mutants:
            if time.monotonic() > self._end:
                print("the time is over: run it again to continue")
                break
            tests = self._tests_for(mutant, session.items)
            started = time.monotonic()
            outcome = Outcome.SURVIVED
            if tests:
                status = self._fork(min(sum(map(self._allowed, tests)), LONGEST))
                if status is None:
                    self._begin(session, mutant, tests)
                    return None
                outcome = status
            self._judged(mutant, outcome, time.monotonic() - started)
        return True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Notes what a test calls."""
        if self._tracer is None:
            yield
        else:
            with self._tracer.tracing(item):
                yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails or is skipped without a mutant says nothing."""
        self._timed_out |= "from pytest-timeout" in str(report.longrepr)
        if self._tracer is not None and report.outcome != "passed":
            self._tracer.drop(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Nothing of the parent's runs at the end of a forked process."""
        if self._is_child:
            if self._tracer is not None:
                self._tracer.write(self._traced)
            os._exit(0 if exitstatus == pytest.ExitCode.OK else 4 if self._timed_out else 1)

    def _traced(self, test: Path) -> Path:
        """Where it is kept what the tests of a file call, for these modules."""
        digest = hashlib.sha256(self._code + test.read_bytes()).hexdigest()[:12]
        return self._directory.parent / "traced" / f"{test.parent.name}-{test.stem}-{digest}.json"

    def _is_traced(self, item: pytest.Item) -> bool:
        return self._traced(item.path).exists()

    def _read_traced(self, test: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            for nodeid, functions, seconds in json.loads(self._traced(test).read_text()):
                self._passed[nodeid] = Reached(frozenset((path, name) for path, name in functions), seconds)

    def _tests_for(self, mutant: Mutant, items: list[pytest.Item]) -> list[pytest.Item]:
        """Those that call the function, or one that reads the constant or class, or whose file mentions it;
        else all of the module. The file named after the module comes first, then the part's order; in each,
        the fastest test."""
        places = {(mutant.module, mutant.place), *_readers(self._package, mutant.place)}
        exact = [item for item in items if places & self._reached(item) or _mentions(item, mutant.place)]
        chosen = exact or [
            item for item in items if any(path == mutant.module for path, _ in self._reached(item))
        ]
        files = list(dict.fromkeys(item.path for item in items))
        chosen = [item for item in chosen if item.nodeid in self._passed]
        own = f"test_{Path(mutant.module).stem.lstrip('_')}"
        chosen.sort(
            key=lambda item: (
                item.path.stem != own,
                files.index(item.path),
                self._passed[item.nodeid].seconds,
            )
        )
        left = TESTS_SECONDS
        tests: list[pytest.Item] = []
        for item in chosen:
            seconds = self._passed[item.nodeid].seconds
            if not tests or seconds <= left:
                left -= seconds
                tests.append(item)
        return tests

    def _reached(self, item: pytest.Item) -> frozenset[tuple[str, str]]:
        reached = self._passed.get(item.nodeid)
        return frozenset() if reached is None else reached.functions

    def _allowed(self, test: pytest.Item) -> float:
        return PATIENCE + 10 * self._passed[test.nodeid].seconds

    def _begin(self, session: pytest.Session, mutant: Mutant, tests: list[pytest.Item]) -> None:
        """In a forked process: the tests run against the mutant."""
        try:
            applying.apply(mutant)
        except applying.CannotBeApplied:
            os._exit(3)
        except BaseException:
            os._exit(1)  # the module can no longer be imported
        for test in tests:
            test.add_marker(pytest.mark.timeout(self._allowed(test)), append=False)
        session.items[:] = tests
        session.config.option.maxfail = 1

    def _fork(self, allowed: float) -> Outcome | None:
        """None in the new process; in this one the outcome, when the other has ended."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._is_child = True
            os.setsid()
            silence = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(silence, descriptor)
            hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
            limit = CPU_SECONDS if self._passed else TRACING_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
            return None
        status = _wait(pid, allowed)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what its tests have left behind
        for left in self._directory.glob("pytest-*"):
            shutil.rmtree(left, ignore_errors=True)
        return status


def _wait(pid: int, seconds: float) -> Outcome:
    alarm = threading.Timer(seconds, lambda: os.kill(pid, signal.SIGKILL))
    alarm.start()
    _, status = os.waitpid(pid, 0)
    alarm.cancel()
    if os.WIFSIGNALED(status):
        return (
            Outcome.TIMED_OUT if os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU) else Outcome.KILLED
        )
    return {0: Outcome.SURVIVED, 3: Outcome.UNUSABLE, 4: Outcome.TIMED_OUT}.get(
        os.WEXITSTATUS(status), Outcome.KILLED
    )


def _mentions(item: pytest.Item, name: str) -> bool:
    """Whether the file of a test names a constant or class: generated methods leave no trace."""
    return "." not in name and re.search(rf"\b{name}\b", _text(item.path)) is not None


@functools.cache
def _text(path: Path) -> str:
    return path.read_text()


def _readers(package: Path, constant: str) -> Iterator[tuple[str, str]]:
    """The functions of the package that read a constant of a module, as (path of the module, name)."""
    for module in list(sys.modules.values()):
        if (
            module.__name__.startswith("entra_fast")
            and constant in vars(module)
            and (path := module.__file__)
        ):
            text = Path(path).read_text() if path.endswith(".py") else ""
            codes = [compile(text, path, "exec")]
            while codes:
                code = codes.pop()
                codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
                if constant in code.co_names:
                    yield _name(package, code)


def _name(package: Path, code: types.CodeType) -> tuple[str, str]:
    return code.co_filename.removeprefix(f"{package}/"), code.co_qualname.partition(".<locals>")[0]


class _Tracer:
    """Which functions of the package each test calls, in all threads of this process."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._codes: set[types.CodeType] = set()
        self._tests: dict[pytest.Item, tuple[set[types.CodeType], float]] = {}
        self._dropped: set[str] = set()
        threading.setprofile(self._profile)

    def _profile(self, frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._codes.add(frame.f_code)

    @contextlib.contextmanager
    def tracing(self, item: pytest.Item) -> Iterator[None]:
        self._codes = set()
        started = time.monotonic()
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._tests[item] = (self._codes, time.monotonic() - started)

    def drop(self, nodeid: str) -> None:
        self._dropped.add(nodeid)

    def write(self, file_of: Callable[[Path], Path]) -> None:
        """One file for each file of tests."""
        files: dict[Path, list[tuple[str, list[tuple[str, str]], float]]] = {}
        for item, (codes, seconds) in self._tests.items():
            rows = files.setdefault(file_of(item.path), [])
            if item.nodeid not in self._dropped:
                rows.append((item.nodeid, sorted(self._names(codes)), seconds))
        for path, rows in files.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(rows))

    def _names(self, codes: set[types.CodeType]) -> set[tuple[str, str]]:
        return {
            _name(self._package, code)
            for code in codes
            if Path(code.co_filename).is_relative_to(self._package)
        }
