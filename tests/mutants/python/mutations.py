"""Which mutants of a module there are.

What belongs here: mutmut's operators and three of ours, and the rules that leave mutants out. What must never
be here: how they are run.

Left out, because a test for it would repeat the code and protect nobody:

- docstrings, annotations, protocols, type variables, imports, decorators, `__slots__`, and code marked
  `no cover`;
- wording: texts with a space in them, in log lines and errors (other tests look for those that are promised),
  and entries and tables of them, which the tests of docs/ compare;
- enumerations, whose values stand for themselves;
- calls without one of the first positional arguments: they fail at once;
- bounds of 100 and more that are constants of a module: tests reach them by name, and one more is as good.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation import mutators

LEFT_OUT = {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag", "Protocol"}
"""Classes with such a base."""
_TYPE_MAKERS = m.OneOf(
    *(m.Name(name) for name in ("TypeVar", "ParamSpec", "NewType", "TypeVarTuple", "cast"))
)

Operator = Callable[[Any], Iterable[cst.CSTNode]]


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        module: its path in the package, such as `_provider/retry.py`.
        place: the function it is in, such as `Retrying.run`, or the name that the module's code assigns.
        change: lines before and after it. With `module`, `place` and `number` it names the mutant.
        number: counts equal changes of a place.
        digest: of the function's code: results are for this code only.
        source: the text of the changed module.
    """

    module: str
    place: str
    change: str
    number: int
    digest: str
    source: str

    @property
    def name(self) -> str:
        again = f" (number {self.number})" if self.number > 1 else ""
        return f"{self.module}: {self.place}: {self.change}{again}"

    @property
    def key(self) -> str:
        return f"{self.name} {self.digest}"


def mutants_of(package: Path, module: str, sample: int | None = None) -> tuple[list[Mutant], int]:
    """The mutants of a module, and how many there are in all. They come in an order that is random, but
    depends on nothing but their names: the first ones are a sample that is the same on every machine.

    Args:
        sample: only so many.
    """
    seen: Counter[tuple[str, str]] = Counter()
    mutants = []
    for change in _Finder.changes((package / module).read_text()):
        seen[change.place, change.lines] += 1
        number = seen[change.place, change.lines]
        mutants.append(Mutant(module, change.place, change.lines, number, change.digest, change.source))
    mutants.sort(key=lambda mutant: hashlib.sha256(mutant.name.encode()).digest())
    return mutants[:sample], len(mutants)


@dataclass(frozen=True)
class _Change:
    place: str
    lines: str
    digest: str
    source: str


class _Finder(cst.CSTVisitor):
    """Visits what may be changed, and tries all operators."""

    METADATA_DEPENDENCIES = (PositionProvider, WhitespaceInclusivePositionProvider)

    def __init__(self, module: cst.Module) -> None:
        super().__init__()
        self._module = module
        self._code = module.code
        self._lines = module.code.splitlines(keepends=True)
        self._within: list[cst.CSTNode] = []
        self._digests: dict[cst.CSTNode | None, str] = {}
        self.found: list[_Change] = []

    @classmethod
    def changes(cls, code: str) -> list[_Change]:
        wrapper = MetadataWrapper(cst.parse_module(code))
        finder = cls(wrapper.module)
        wrapper.visit(finder)
        return finder.found

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self._is_left_out(node):
            return False
        for original, changed in _changed(node):
            lines = self._replaced(original, changed)
            source = "".join(lines)
            if source != self._code:
                self.found.append(
                    _Change(self._place(node), _described(self._lines, lines), self._digest(), source)
                )
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._within.append(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._within and self._within[-1] is original_node:
            self._within.pop()

    def _replaced(self, original: cst.CSTNode, changed: cst.CSTNode) -> list[str]:
        """The lines of the changed module."""
        if isinstance(original, cst.BaseStatement):
            module = cst.ensure_type(self._module.deep_replace(original, changed), cst.Module)
            return module.code.splitlines(keepends=True)
        # The same, but a hundred times as fast.
        place = self.get_metadata(WhitespaceInclusivePositionProvider, original)
        assert isinstance(place, CodeRange)
        first, last = place.start.line - 1, place.end.line - 1
        head = self._lines[first][: place.start.column]
        tail = self._lines[last][place.end.column :]
        text = head + self._module.code_for_node(changed) + tail
        return [*self._lines[:first], *text.splitlines(keepends=True), *self._lines[last + 1 :]]

    def _is_left_out(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.TypeAlias):
            return True
        if isinstance(node, cst.BaseString):
            return _is_wording(node)
        if m.matches(node, m.Call(func=_TYPE_MAKERS)):
            return True
        if isinstance(node, cst.ClassDef):
            return any(_is_left_out_base(base.value) for base in node.bases)
        if isinstance(node, cst.DictElement):
            return isinstance(node.value, cst.BaseString) and _is_wording(node.value)
        if isinstance(node, cst.Assign) and isinstance(node.value, cst.Dict) and not self._within:
            values = [element.value for element in node.value.elements]
            return all(isinstance(value, cst.BaseString) and _is_wording(value) for value in values)
        if m.matches(node, m.Assign(targets=[m.AssignTarget(m.Name("__slots__") | m.Name("__all__"))])):
            return True
        if m.matches(node, m.Assign(value=m.Subscript(value=m.Name()) | m.Call(func=_TYPE_MAKERS))):
            return not self._within
        if isinstance(node, cst.Integer) and not self._within and node.evaluated_value >= 100:
            return True
        if m.matches(node, m.If(test=m.Name("TYPE_CHECKING"))):
            return True
        is_block = isinstance(node, cst.BaseStatement | cst.ExceptHandler | cst.Else | cst.Finally)
        return is_block and "pragma: no cover" in self._first_line(node)

    def _first_line(self, node: cst.CSTNode) -> str:
        return self._lines[self.get_metadata(PositionProvider, node).start.line - 1]

    def _place(self, node: cst.CSTNode) -> str:
        names = []
        for scope in self._within:
            assert isinstance(scope, cst.FunctionDef | cst.ClassDef)
            names.append(scope.name.value)
            if isinstance(scope, cst.FunctionDef):
                return ".".join(names)
        if isinstance(node, cst.FunctionDef):
            return ".".join([*names, node.name.value])
        return ".".join(names) or self._assigned_name(node)

    def _assigned_name(self, node: cst.CSTNode) -> str:
        """Of a change at the level of the module: what the statement around it assigns."""
        line = self.get_metadata(PositionProvider, node).start.line
        for number in range(line, 0, -1):
            if (match := re.match(r"([A-Za-z_]\w*)\s*(?::[^=]*)?=", self._lines[number - 1])) is not None:
                return match[1]
        return "module"

    def _digest(self) -> str:
        scope = self._within[0] if self._within else None
        for outer in self._within:
            if isinstance(outer, cst.FunctionDef):
                scope = outer
                break
        if scope not in self._digests:
            text = self._code if scope is None else cst.Module([]).code_for_node(scope)
            self._digests[scope] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self._digests[scope]


def _changed(node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """What is replaced, and by what."""
    for kind, operator in _OPERATORS:
        if isinstance(node, kind):
            yield from ((node, changed) for changed in operator(node))
    if isinstance(node, cst.If | cst.While):
        yield from ((node.test, changed) for changed in _condition(node.test))


def _string(node: cst.BaseString) -> Iterator[cst.CSTNode]:
    """mutmut's first change of a text; the others differ in case only."""
    yield from list(mutators.operator_string(node))[:1]


def _arguments(node: cst.Call) -> Iterator[cst.CSTNode]:
    """mutmut's changes of arguments, less wording and what fails at once."""
    for index, arg in enumerate(node.args):
        if isinstance(arg.value, cst.BaseString) and _is_wording(arg.value):
            continue
        if arg.star == "" and not m.matches(arg.value, m.Name("None")):
            mutated = arg.with_changes(value=cst.Name("None"))
            yield node.with_changes(args=[*node.args[:index], mutated, *node.args[index + 1 :]])
        is_last = index == len(node.args) - 1
        if len(node.args) > 1 and (arg.keyword is not None or is_last):
            rest = [*node.args[:index], *node.args[index + 1 :]]
            rest[-1] = rest[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
            yield node.with_changes(args=rest)


def _without_statement(node: cst.Expr | cst.Del | cst.Raise) -> Iterator[cst.CSTNode]:
    """Ours: what is called for its effect, deleted or raised is not."""
    if not (isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString)):
        yield cst.Pass()


def _condition(test: cst.BaseExpression) -> Iterator[cst.CSTNode]:
    """Ours: the opposite condition, where mutmut has no change of it."""
    has_one = isinstance(test, cst.Comparison | cst.UnaryOperation | cst.BooleanOperation)
    if not has_one and not m.matches(test, m.Name("True")):
        yield cst.UnaryOperation(
            cst.Not(), test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        )


def _return(node: cst.Return) -> Iterator[cst.CSTNode]:
    """Ours: nothing is returned."""
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"))


_REPLACED = (mutators.operator_arg_removal, mutators.operator_string)
_OPERATORS: list[tuple[type, Operator]] = [
    *((kind, operator) for kind, operator in mutators.mutation_operators if operator not in _REPLACED),
    (cst.BaseString, _string),
    (cst.Call, _arguments),
    (cst.Expr, _without_statement),
    (cst.Del, _without_statement),
    (cst.Raise, _without_statement),
    (cst.Return, _return),
]


def _is_wording(node: cst.BaseString) -> bool:
    if isinstance(node, cst.SimpleString):
        return " " in node.value or node.value.startswith('"""')
    if isinstance(node, cst.FormattedString):
        return any(" " in part.value for part in node.parts if isinstance(part, cst.FormattedStringText))
    assert isinstance(node, cst.ConcatenatedString)
    return any(_is_wording(part) for part in (node.left, node.right))


def _is_left_out_base(base: cst.BaseExpression) -> bool:
    # asyncio.Protocol is no interface: its subclasses are code.
    return _last(base) in LEFT_OUT and not m.matches(base, m.Attribute(value=m.Name("asyncio")))


def _last(name: cst.BaseExpression) -> str:
    name = name.value if isinstance(name, cst.Subscript) else name
    name = name.attr if isinstance(name, cst.Attribute) else name
    return name.value if isinstance(name, cst.Name) else ""


def _described(before: list[str], after: list[str]) -> str:
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    old, new = (
        " ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (before, after)
    )
    return f"`{old}` becomes `{new}`"
