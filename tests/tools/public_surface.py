"""Writes down the public Python interface: one line per name, with its signature (`make public-surface`).

What belongs here: the list of public modules, and how a name becomes a line. A module is public if it is in
`PUBLIC`; its names are those in its `__all__`. Everything else is private: it has an underscore in its path,
or belongs to an application, whose interface is its command line and its HTTP contract.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import entra_fast

PUBLIC = (
    "entra_fast",
    "entra_fast.validate",
    "entra_fast.errors",
    "entra_fast.require",
    "entra_fast.challenge",
    "entra_fast.tokens",
    "entra_fast.tokens.aiohttp",
    "entra_fast.tokens.grpc",
    "entra_fast.tokens.httpx",
    "entra_fast.tokens.httpx2",
    "entra_fast.tokens.requests",
    "entra_fast.client",
    "entra_fast.metrics",
    "entra_fast.integrations",
    "entra_fast.integrations.aiohttp",
    "entra_fast.integrations.asgi",
    "entra_fast.integrations.django",
    "entra_fast.integrations.drf",
    "entra_fast.integrations.fastapi",
    "entra_fast.integrations.flask",
    "entra_fast.integrations.grpc",
    "entra_fast.integrations.starlette",
    "entra_fast.testing",
    "entra_fast.emulator",
)

APPLICATIONS = ("entra_fast.__main__", "entra_fast.cli", "entra_fast.sidecar", "entra_fast.generator")
"""Programs. Their modules need no underscore, and can change in any release."""

COMMITTED = Path(__file__).resolve().parents[1] / "unit" / "public_surface.txt"

HEADER = """\
# The public Python interface of entra_fast, compared by tests/unit/test_public_surface.py. Changing it is a
# decision: run `make public-surface`, and add a line to CHANGELOG.md.
"""


STUB = Path(entra_fast.__file__).with_name("_native.pyi")


def surface() -> str:
    """All public names, module by module."""
    described: dict[int, str] = {}
    blocks = [HEADER]
    for name in PUBLIC:
        module = importlib.import_module(name)
        lines = [
            line for public in sorted(module.__all__) for line in describe(name, module, public, described)
        ]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def describe(where: str, holder: Any, name: str, described: dict[int, str]) -> Iterator[str]:
    """The lines of a name: of a class, also those of its public members.

    Args:
        described: objects that already have lines, by identity; they are only named again.
    """
    value = getattr(holder, name)
    path = f"{where}.{name}"
    if id(value) in described and callable(value):
        yield f"{path} = {described[id(value)]}"
        return
    described[id(value)] = path
    if inspect.isclass(value):
        native = value.__module__ == "entra_fast._native"
        if native:
            yield f"class {path}{_bases(value)}"
            yield from _native_members(path, name)
        elif typing.is_typeddict(value):
            yield f"class {path} <TypedDict>"
            yield from _members(path, value)
        else:
            yield f"class {path}{_bases(value)}{_signature(value)}"
            yield from (*_options(path, value), *_members(path, value))
    elif hasattr(value, "__supertype__"):
        yield f"type {path} = {value.__supertype__.__name__}"
    elif inspect.isbuiltin(value):
        stub = next(one for one in _stub().body if isinstance(one, ast.FunctionDef) and one.name == name)
        yield _stub_line(where, stub)
    elif callable(value):
        yield f"def {path}{_signature(value)}"
    else:
        yield f"{path}: {type(value).__name__}"


def _is_public(name: str) -> bool:
    special = {"__aenter__", "__enter__", "__call__", "__getitem__", "__iter__", "__len__", "__contains__"}
    return not name.startswith("_") or name in special


def _bases(kind: type) -> str:
    """The bases that a caller may rely on: all that are not private."""
    names = [base.__name__ for base in kind.__bases__ if base is not object and _is_public(base.__name__)]
    return f" <{', '.join(names)}>" if names else ""


def _options(path: str, kind: type) -> Iterator[str]:
    """The keyword arguments that a constructor takes as a TypedDict (`**options: Unpack[Options]`)."""
    for one in inspect.signature(kind).parameters.values():
        if found := re.fullmatch(r"Unpack\[(\w+)\]", str(one.annotation)):
            options = getattr(sys.modules[kind.__module__], found[1]).__annotations__
            for name, annotation in sorted(options.items()):
                yield f"  {path}(*, {name}: {annotation.__forward_arg__})"


def _members(path: str, kind: type) -> Iterator[str]:
    """What the class or a base class of this package defines or declares."""
    own = [base for base in kind.__mro__ if base.__module__.split(".")[0] == "entra_fast"]
    declared: dict[str, str] = {}
    for base in reversed(own):
        declared |= vars(base).get("__annotations__", {})
    names = {name for base in own for name in vars(base)} | set(declared)
    for name in sorted(filter(_is_public, names)):
        value = inspect.getattr_static(kind, name, None)
        if isinstance(value, property):
            returns = inspect.signature(value.fget).return_annotation if value.fget else "Any"
            yield f"  {path}.{name}: {returns}"
        elif isinstance(value, classmethod | staticmethod):
            yield f"  {type(value).__name__} {path}.{name}{_signature(getattr(kind, name))}"
        elif inspect.isfunction(value):
            prefix = "async def" if inspect.iscoroutinefunction(value) else "def"
            yield f"  {prefix} {path}.{name}{_signature(value)}"
        else:
            yield f"  {path}.{name}: {_Written.of(declared.get(name, type(value).__name__))}"


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    parameters = [
        one.replace(default=_Written.default(one.default), annotation=_Written.of(one.annotation))
        for one in signature.parameters.values()
    ]
    return str(inspect.Signature(parameters, return_annotation=_Written.of(signature.return_annotation)))


class _Written:
    """A default value or an annotation, as it is written in the source."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    @classmethod
    def of(cls, value: Any) -> Any:
        """An annotation: text, as `from __future__ import annotations` leaves it."""
        if value is inspect.Parameter.empty:
            return value
        if isinstance(value, typing.ForwardRef):  # of a NamedTuple
            value = value.__forward_arg__
        return cls(value if isinstance(value, str) else repr(value))

    @classmethod
    def default(cls, value: Any) -> Any:
        if value is inspect.Parameter.empty:
            return value
        if inspect.isroutine(value):
            return cls(f"{value.__module__}.{value.__qualname__}")
        return cls("<factory>" if repr(value).startswith("<") else repr(value))


# --- Native names: their types are in the stub ---


@functools.cache
def _stub() -> ast.Module:
    return ast.parse(STUB.read_text())


def _native_members(path: str, name: str) -> Iterator[str]:
    stub = next(one for one in _stub().body if isinstance(one, ast.ClassDef) and one.name == name)
    functions = [one for one in stub.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    # Each overload has a line.
    lines = [(one.name, _stub_line(path, one)) for one in functions] + [
        (one.target.id, f"{path}.{one.target.id}: {ast.unparse(one.annotation)}")
        for one in stub.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    ]
    yield from (
        f"  {line}"
        for name, line in sorted(lines, key=lambda pair: pair[0])
        if _is_public(name) or name in {"__init__", "__new__"}
    )


def _stub_line(where: str, stub: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    returns = ast.unparse(stub.returns) if stub.returns else "Any"
    if any(isinstance(one, ast.Name) and one.id == "property" for one in stub.decorator_list):
        return f"{where}.{stub.name}: {returns}"
    return f"def {where}.{stub.name}({ast.unparse(stub.args)}) -> {returns}"


if __name__ == "__main__":
    COMMITTED.write_text(surface())
