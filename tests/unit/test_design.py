"""The rules of docs/explanation/architecture.md that no linter checks, read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "entra_fast"
CORE = ROOT / "rust" / "core" / "src"
LAYERS = ("error", "digest", "jose", "cache", "validate", "sidecar")
"""Modules of the core: each may use those before it."""


def python_files() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the package, by its path in it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def strings_outside(*owners: str) -> Iterator[tuple[str, str]]:
    """Every string of the package that is not in one of the owners, with its file."""
    for name, tree in python_files():
        if not name.startswith(owners):
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield name, node.value


def production_code(path: Path) -> str:
    """Rust without its tests and comments."""
    code = path.read_text().partition("#[cfg(test)]\nmod ")[0]
    return re.sub(r"//.*", "", code)


def upward(layer: str, code: str) -> list[str]:
    """The modules of the core that code of a layer uses and must not."""
    used = re.findall(r"\bcrate::(\w+)", code)
    return sorted({name for name in used if name not in LAYERS[: LAYERS.index(layer) + 1]})


@pytest.mark.parametrize("layer", LAYERS)
def test_modules_of_the_core_use_earlier_ones_only(layer: str) -> None:
    """So there is no circle between the parts of the core."""
    files = [CORE / f"{layer}.rs"] if (CORE / f"{layer}.rs").exists() else sorted((CORE / layer).glob("*.rs"))
    assert files
    assert {path.name: wrong for path in files if (wrong := upward(layer, production_code(path)))} == {}


def test_the_core_has_no_other_modules() -> None:
    """A new module belongs in `LAYERS`."""
    declared = re.findall(r"^pub mod (\w+);", (CORE / "lib.rs").read_text(), re.MULTILINE)
    assert sorted(declared) == sorted(LAYERS)


def test_an_upward_use_in_the_core_is_found() -> None:
    """The check above can fail."""
    assert upward("jose", "use crate::error::Error;\nuse crate::validate::policy::Policy;") == ["validate"]


IMPURE = re.compile(
    r"\bstd::(fs|env|process|os)\b|\bstd::net::(Tcp|Udp)|\b(Instant|SystemTime)\b|\be?print(ln)?!|\bpyo3\b"
)


def test_the_core_has_no_io_no_clock_and_no_environment() -> None:
    """Time and randomness are arguments; the core neither reads nor writes anything."""
    found = {
        path.name: match.group()
        for path in CORE.rglob("*.rs")
        if (match := IMPURE.search(production_code(path)))
    }
    assert found == {}
    assert "#![forbid(unsafe_code)]" in (CORE / "lib.rs").read_text()


DECISION = re.compile(r"\bthread::(spawn|scope|Builder)|\bCondvar\b|\bVecDeque\b|\bmatch_indices\b")


def test_the_binding_starts_no_threads_and_queues_nothing() -> None:
    """Rule 3: how work is divided and whose turn it is are decisions of the core or of Python."""
    binding = ROOT / "rust" / "py" / "src"
    found = {
        path.name: match.group()
        for path in binding.glob("*.rs")
        if (match := DECISION.search(path.read_text()))
    }
    assert found == {}


ASSIGNED_BY_BASE = {"sidecar/http/fast_path.py": ["FastPathProtocol"]}
"""aiohttp's constructor assigns attributes that are properties of the subclass and need its fields."""


def fields_before_super(tree: ast.AST) -> Iterator[str]:
    """Classes whose `__init__` sets a field of its own before it calls the one of its base."""
    for kind in ast.walk(tree):
        if not isinstance(kind, ast.ClassDef):
            continue
        for function in kind.body:
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                calls = [
                    n.lineno
                    for n in ast.walk(function)
                    if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"
                ]
                stores = [
                    n.lineno
                    for n in ast.walk(function)
                    if isinstance(n, ast.Attribute)
                    and isinstance(n.ctx, ast.Store)
                    and ast.unparse(n.value) == "self"
                ]
                if calls and stores and min(stores) < min(calls):
                    yield kind.name


def test_no_class_sets_fields_before_the_initializer_of_its_base() -> None:
    """Rule 4: such a class depends on the order in which its base works."""
    found = {name: kinds for name, tree in python_files() if (kinds := list(fields_before_super(tree)))}
    assert found == ASSIGNED_BY_BASE


def test_a_field_before_the_initializer_of_the_base_is_found() -> None:
    """The check above can fail."""
    code = "class A(B):\n    def __init__(self):\n        self.x = 1\n        super().__init__()"
    assert list(fields_before_super(ast.parse(code))) == ["A"]


def test_no_protocol_is_asked_what_it_is() -> None:
    """Rule 4: `isinstance` works on a protocol only where it is marked for that, and none is."""
    assert [name for name, tree in python_files() if "runtime_checkable" in ast.unparse(tree)] == []


def test_a_metric_is_named_in_one_module() -> None:
    """Rule 7: name, labels and description of a metric are one row of _metrics.py, or of metrics.py where the
    library counts it, too."""
    documented = re.findall(
        r"^\| `(entra_fast_\w+)` \|", (ROOT / "docs" / "reference" / "metrics.md").read_text(), re.MULTILINE
    )
    assert documented
    assert [
        (name, text) for name, text in strings_outside("_metrics.py", "metrics.py") if text in documented
    ] == []


def test_a_setting_is_declared_in_one_module() -> None:
    """Rule 7: outside the catalogue, an old name of a setting does not occur, and no setting is read from the
    environment by name."""
    aliases = {
        alias
        for node in ast.walk(ast.parse((PACKAGE / "_settings" / "catalogue.py").read_text()))
        if isinstance(node, ast.keyword) and node.arg == "aliases"
        for alias in ast.literal_eval(node.value)
    }
    assert "ENTRA_FAST_FAST_LANE" in aliases
    assert [(name, text) for name, text in strings_outside("_settings/catalogue.py") if text in aliases] == []
    for name, tree in python_files():
        read = re.findall(r"environ(?:\.get\(|\[)'(ENTRA_FAST_\w+)'", ast.unparse(tree))
        assert read == [], name


def test_the_text_of_an_aadsts_code_stands_in_one_module() -> None:
    """Rule 7: no other module writes a sentence that begins with a code."""
    wrong = [(n, t) for n, t in strings_outside("_aadsts.py") if re.match(r"AADSTS\d+: ", t)]
    assert wrong == []


HAND_WRITTEN = re.compile(r"<(table|tr|td|ul|li|form|svg|p)[ >]|^# (TYPE|HELP) ", re.MULTILINE)


def test_pages_and_metrics_are_written_by_libraries() -> None:
    """Rule 8: HTML comes from Jinja2's templates, the exposition format from prometheus-client."""
    assert [name for name, text in strings_outside() if HAND_WRITTEN.search(text)] == []


PATHS = re.compile(
    r"`((?:rust|python|tests|benches|docs|deploy|examples|entra_fast|requirements|_[a-z]+|sidecar|emulator|generator|cli)"
    r"/[\w./-]*|_?[a-z_]+\.py|[a-z_0-9]+\.rs)`"
)
WRITTEN_BY_RUNS = ("rust/fuzz/corpus", "rust/fuzz/artifacts")
PAGES = (
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/explanation/architecture.md",
    "docs/contributing/testing.md",
    "docs/contributing/fuzzing.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_a_page_names_exist(page: str) -> None:
    """A page that names a file or folder of this repository does not fall behind when it moves."""
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    known = {f"/{file}" for file in tracked} | {
        f"/{parent.as_posix()}" for file in tracked for parent in Path(file).parents
    }
    named = {name.rstrip("/") for name in PATHS.findall((ROOT / page).read_text())}
    named = {name for name in named if not name.startswith(WRITTEN_BY_RUNS)}
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in known)] == []
