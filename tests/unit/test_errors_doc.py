"""docs/reference/errors.md lists every code that can reach a user, and no other."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from entra_fast import _native

ROOT = Path(__file__).parents[2]
SOURCES = [ast.parse(path.read_text(), str(path)) for path in sorted((ROOT / "python").rglob("*.py"))]
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")

Codes = dict[str, set[str]]
"""The exceptions that a code is raised with."""


def error_classes() -> set[str]:
    """EntraFastError and all that derives from it."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in SOURCES
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"EntraFastError"}
    while more := {name for name, of in bases.items() if of & found} - found:
        found |= more
    return found


def constants(node: ast.expr | None) -> Iterator[str]:
    """The codes that an argument can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """(name of what is called, the call)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id, node
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr, node


def raised_in_python() -> Codes:
    """Codes that the package's exceptions are made with, directly or through a function with a `code`."""
    found: Codes = defaultdict(set)
    classes = error_classes()
    helpers: dict[str, tuple[int, str]] = {}
    for tree in SOURCES:
        for name, call in calls(tree):
            if name in classes:
                for code in constants(call.args[0] if call.args else None):
                    found[code].add(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name in classes:
                for name, call in calls(node):
                    if name == "__init__" and call.args:
                        for code in constants(call.args[0]):
                            found[code].add(node.name)
            if isinstance(node, ast.FunctionDef) and "code" in {argument.arg for argument in node.args.args}:
                parameters = [argument.arg for argument in node.args.args if argument.arg != "self"]
                made = [
                    name
                    for name, call in calls(node)
                    if name in classes and call.args and ast.unparse(call.args[0]) == "code"
                ]
                if made:
                    helpers[node.name] = (parameters.index("code"), made[0])
                    for default in node.args.defaults:
                        for code in constants(default):
                            found[code].add(made[0])
    for tree in SOURCES:
        for name, call in calls(tree):
            if name in helpers:
                position, error = helpers[name]
                given = call.args[position] if len(call.args) > position else None
                for keyword in call.keywords:
                    given = keyword.value if keyword.arg == "code" else given
                for code in constants(given):
                    found[code].add(error)
    return found


def tabled() -> set[str]:
    """Codes of the tables `ERROR_CODES`."""
    found = set(_native.ERROR_CODES)
    for tree in SOURCES:
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)):
                continue
            if "ERROR_CODES" in {target.id for target in node.targets if isinstance(target, ast.Name)}:
                found |= {code for key in node.value.keys for code in constants(key)}
    return found


def raised_by_the_native_module() -> Codes:
    """Codes of the table, and those that the sources of the binding and of the core name in addition."""
    found: Codes = defaultdict(set)
    for path in sorted((ROOT / "rust/py/src").glob("*.rs")):
        text = path.read_text()
        for error, code in re.findall(r'(\w+)::new_err\(\(\s*"(\w+)"', text):
            found[code].add(error)
    contract = (ROOT / "rust/core/src/sidecar/contract.rs").read_text()
    for code in re.findall(r'=> "(\w+_invalid)"', contract):
        found[code].add("EntraFastError")
    signing = (ROOT / "rust/core/src/jose/signing_key.rs").read_text()
    for code in re.findall(r'Self::\w+(?:\(_\))? => "(signing_\w+)"', signing):
        found[code].add("ConfigurationError")
    for code in _native.ERROR_CODES:
        found[code].add("KeysUnavailable" if code == "keys_unavailable" else "InvalidToken")
    return found


def documented() -> Codes:
    """Codes of the document, with their exceptions."""
    found: Codes = {}
    for line in (ROOT / "docs/reference/errors.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        code = cells[0].strip("`")
        if line.startswith("| `") and CODE.fullmatch(code):
            assert len(cells) == 4, line
            assert code not in found, f"{code} is documented twice"
            assert all(cells), f"{code} has an empty cell"
            found[code] = set(re.findall(r"`(\w+)`", cells[1]))
    return found


@functools.cache
def raised() -> Codes:
    """All of them."""
    found = raised_in_python()
    for code, errors in raised_by_the_native_module().items():
        found[code] |= errors
    return found


def test_every_code_is_documented() -> None:
    """A code that can be raised has a row in docs/reference/errors.md."""
    missing = (raised().keys() | tabled()) - documented().keys()
    assert not missing, f"not in docs/reference/errors.md: {sorted(missing)}"


def test_no_other_code_is_documented() -> None:
    """A code in docs/reference/errors.md can be raised."""
    stale = documented().keys() - raised().keys() - tabled()
    assert not stale, f"in docs/reference/errors.md, but nothing raises them: {sorted(stale)}"


def test_the_exceptions_are_those_that_carry_the_code() -> None:
    """The document names the exception for each code, or one that it derives from."""
    classes, public = (
        raised(),
        {
            "SourceError": "ConfigurationError",
            "ExtraMissing": "ConfigurationError",
            "_Invalid": "EntraFastError",
            "NotAsked": "ProviderError",
        },
    )
    for code, named in documented().items():
        made = {public.get(error, error) for error in classes.get(code, ())}
        assert made <= named or not made, f"{code}: raised as {sorted(made)}, documented as {sorted(named)}"


def test_the_sentences_of_refusals_are_documented() -> None:
    """What the sidecar's `error` says for a refused token stands in the document, word for word."""
    text = (ROOT / "docs/reference/errors.md").read_text()
    for code, sentence in _native.ERROR_CODES.items():
        assert f"`{sentence.replace('{}', '...')}`" in text, f"{code}: {sentence}"
