"""`make mutants-python`: which changes it makes, and that each gets into a running process."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from mutants.python import __main__ as command
from mutants.python import applying, mutations

CODE = '''
import asyncio
from enum import Enum
from functools import lru_cache
from typing import Protocol, TypeVar

__slots__ = ("a",)
T = TypeVar("T", bound=int)
LIMIT = 3
BOUND = 4096
CODES = {"code": "what it means"}

class Shape(Protocol):
    def area(self) -> int: ...

class Color(Enum):
    RED = 1

def over(n: int = 1) -> bool:
    """True if 1 > 2."""
    if n > LIMIT:
        print("more than the limit")
    return n > LIMIT

@lru_cache
def twice(n: int) -> int:
    return n * 2

class Line(asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.seen = data

class Box:
    size: int = 5

    @property
    def big(self) -> bool:
        return self.size > 4

    def never(self) -> int:  # pragma: no cover - an example
        return 1
'''


@pytest.fixture
def package(tmp_path: Path) -> Iterator[types.ModuleType]:
    """A module that has been imported, in a directory that stands for the package."""
    (tmp_path / "sample.py").write_text(CODE)
    module = types.ModuleType("entra_fast.sample")
    module.__file__ = str(tmp_path / "sample.py")
    exec(compile(CODE, module.__file__, "exec"), module.__dict__)
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def mutants(module: types.ModuleType) -> list[mutations.Mutant]:
    found, count = mutations.mutants_of(Path(str(module.__file__)).parent, "sample.py")
    assert len(found) == count
    return found


def test_every_change_compiles_and_has_a_name_of_its_own(package: types.ModuleType) -> None:
    """The name is what survivors.toml explains."""
    found = mutants(package)
    assert len({mutant.name for mutant in found}) == len(found)
    for mutant in found:
        compile(mutant.source, "sample.py", "exec")


def test_what_protects_nobody_is_left_out(package: types.ModuleType) -> None:
    """Docstrings, wording, types, protocols, enumerations, large bounds, and what no test reaches."""
    assert {mutant.place for mutant in mutants(package)} == {
        "LIMIT",
        "BOUND",
        "over",
        "twice",
        "Box",
        "Box.big",
        "Line.data_received",
    }
    changes = {mutant.change for mutant in mutants(package)}
    assert "`LIMIT = 3` becomes `LIMIT = 4`" in changes
    assert "`BOUND = 4096` becomes `BOUND = 4097`" not in changes
    assert '`print("more than the limit")` becomes `pass`' in changes
    assert not any("XX" in change or "True if" in change for change in changes)


@pytest.mark.parametrize(
    ("change", "expression", "value"),
    [
        ("`LIMIT = 3` becomes `LIMIT = 4`", "over(4)", False),
        ("`return n > LIMIT` becomes `return n >= LIMIT`", "over(3)", True),
        (
            "`def over(n: int = 1) -> bool:` becomes `def over(n: int = 2) -> bool:`",
            "over.__defaults__",
            (2,),
        ),
        ("`return n * 2` becomes `return n * 3`", "twice(7)", 21),
        ("`return self.size > 4` becomes `return self.size > 5`", "Box().big", False),
        ("`size: int = 5` becomes `size: int = 6`", "Box().size", 6),
    ],
    ids=["constant", "function", "default", "decorated", "property", "attribute"],
)
def test_a_change_gets_into_a_module_that_is_imported(
    package: types.ModuleType, change: str, expression: str, value: object
) -> None:
    """Also for those that imported its names before."""
    assert eval(expression, package.__dict__) != value
    imported_before = dict(package.__dict__)
    (mutant,) = [mutant for mutant in mutants(package) if mutant.change == change]
    applying.apply(mutant)
    assert eval(expression, {**imported_before, "LIMIT": package.LIMIT}) == value


def test_a_sample_is_always_the_same(package: types.ModuleType) -> None:
    """On every machine, so that figures can be compared."""
    directory = Path(str(package.__file__)).parent
    first, second = (mutations.mutants_of(directory, "sample.py", 5) for _ in range(2))
    assert first == second
    assert (len(first[0]), first[1]) == (5, len(mutants(package)))


def test_parts_name_modules_and_tests_that_exist() -> None:
    """A renamed module or test is renamed in parts.toml, too; no module has two parts."""
    modules = [module for part in command.parts().values() for module in part.modules]
    assert len(set(modules)) == len(modules)
    assert [module for module in modules if not (command.PACKAGE / module).exists()] == []
    tests = {test for part in command.parts().values() for test in part.tests}
    assert [test for test in sorted(tests) if not (command.ROOT / "tests" / test).exists()] == []


def test_what_survives_is_still_there() -> None:
    """A reason for a mutant that no longer exists is a leftover."""
    explained = command.reasons()
    existing = {
        mutant.name
        for module in {name.partition(": ")[0] for name in explained}
        for mutant in mutations.mutants_of(command.PACKAGE, module)[0]
    }
    assert [name for name in explained if name not in existing] == []
