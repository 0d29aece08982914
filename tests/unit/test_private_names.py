"""Private parts of aiohttp, uvloop and asyncio are used by the strict protocol and the fast path only,
and only those that their list names."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import entra_fast
from entra_fast._http.internals import PRIVATE_NAMES

PACKAGE = Path(entra_fast.__file__).parent
FOREIGN = ("aiohttp", "asyncio", "uvloop")
ALLOWED = ("entra_fast._http.", "entra_fast.sidecar.http.fast_path")
DOCUMENTED = frozenset({"_asdict", "_exit", "_replace"})
"""Public in spite of the underscore: `os._exit`, and `_asdict` and `_replace` of named tuples."""
OF_OTHERS = {("entra_fast.integrations.drf", "_request")}
"""The same names of other packages: Django REST framework documents `Request._request`."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def names_of(kind: type) -> set[str]:
    """The private names of one class: its attributes, its slots, and what its methods refer to."""
    names = {*vars(kind), *getattr(kind, "__slots__", ())}
    for value in vars(kind).values():
        function = inspect.unwrap(value) if callable(value) else getattr(value, "fget", value)
        names.update(getattr(getattr(function, "__code__", None), "co_names", ()))
    return {name for name in names if is_private(name)}


@functools.cache
def foreign_names() -> frozenset[str]:
    """The private names of every class of the three packages."""
    names: set[str] = set()
    for package in FOREIGN:
        root = importlib.import_module(package)
        for found in pkgutil.iter_modules(root.__path__, f"{package}."):
            if "windows" in found.name or found.name.endswith(("worker", "pytest_plugin", "__main__")):
                continue
            module = importlib.import_module(found.name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                if kind.__module__.partition(".")[0] in FOREIGN:
                    names |= names_of(kind)
    return frozenset(names)


def inherited(module: ModuleType, name: str) -> set[str]:
    """The private names that a class of ours has from bases of the three packages."""
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        return set()
    bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in FOREIGN]
    return {private for base in bases for private in names_of(base)}


def used(
    module: ModuleType, tree: ast.AST, of_bases: frozenset[str] = frozenset()
) -> Iterator[tuple[str, int]]:
    """Each use of a private name of the three packages: the name and its line.

    An attribute of `self`, `cls` or `super()` belongs to the class around it: it counts where a foreign base
    of that class has it. So does a method that overrides one of a base. An attribute of anything else counts
    where any class of the three packages has it; the name of a private attribute of ours must then be another
    one. An import counts where a module or a name of its path is private.
    """
    for node in ast.iter_child_nodes(tree):
        inner = of_bases
        if isinstance(node, ast.ClassDef):
            inner = frozenset(inherited(module, node.name))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in of_bases:
            yield node.name, node.lineno
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            parent = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "super"
            if node.attr in (of_bases if own or parent else foreign_names()):
                yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
        ):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and argument.value in foreign_names():
                    yield str(argument.value), node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            source = getattr(node, "module", None) or ""
            for path in [f"{source}.{alias.name}" if source else alias.name for alias in node.names]:
                package, *parts = path.split(".")
                if package in FOREIGN:
                    yield from ((part, node.lineno) for part in parts if is_private(part))
        yield from used(module, node, inner)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")


def uses_in(name: str) -> set[tuple[str, int]]:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    return set(used(module, ast.parse(Path(module.__file__).read_text())))


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(ALLOWED)])
def test_no_other_module_uses_private_parts_of_aiohttp_uvloop_or_asyncio(name: str) -> None:
    """Elsewhere there is none, so an update of these libraries can break nothing else."""
    assert {used for used, _ in uses_in(name) if (name, used) not in OF_OTHERS} == set()


def test_the_list_is_complete_and_names_nothing_else() -> None:
    """Those modules use exactly the private names that internals.py lists, and so checks at start."""
    found = {private for name in MODULES if name.startswith(ALLOWED) for private, _ in uses_in(name)}
    assert found == {each.name for each in PRIVATE_NAMES}


def test_each_private_name_is_explained() -> None:
    """A reader of the list learns what each name is used for; no name is listed twice for a class."""
    assert all(each.purpose for each in PRIVATE_NAMES)
    assert len({(each.owner, each.name) for each in PRIVATE_NAMES}) == len(PRIVATE_NAMES)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(request): return request._message", {"_message"}),
        ("def f(loop): loop._ready.clear()", {"_ready"}),
        ("def f(server): return getattr(server, '_connections')", {"_connections"}),
        ("class Protocol:\n    def f(self): return self._waiter", set()),
        ("class StrictRunner:\n    async def _make_server(self): return None", {"_make_server"}),
        ("class StrictServer:\n    def f(self): return self._kwargs", {"_kwargs"}),
        ("class StrictServer:\n    def f(self): return super()._make_request", {"_make_request"}),
        ("from asyncio.sslproto import _SSLProtocolTransport", {"_SSLProtocolTransport"}),
        ("import aiohttp._websocket", {"_websocket"}),
        ("from aiohttp._websocket import mask", {"_websocket"}),
        ("from entra_fast._provider import _anything", set()),
        ("def f(thing): return thing.__class__, thing._own_invention", set()),
    ],
)
def test_the_scanner_finds_what_it_should(code: str, expected: set[str]) -> None:
    """Uses through a variable, `getattr`, `self` of a subclass, an override and an import; nothing else."""
    module = importlib.import_module("entra_fast._http.protocol")
    assert {name for name, _ in used(module, ast.parse(code))} == expected
