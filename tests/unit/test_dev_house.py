"""The house: imports point downwards only, and the library loads no server."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "entra_fast"

# Lowest first. A module may import what stands on its own line or above; `_native` is below them all.
LAYERS = (
    {"errors"},
    {"config", "metrics"},
    {"http", "oauth", "fetch"},
    {"keys", "credentials", "discovery"},
    {"validate", "tokens", "shared_cache"},
    {"sidecar", "emulator", "generator"},
    {"dev"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names} | {
    "_native": -1,
    "__init__": 0,
    "__main__": 7,
}
SERVERS = {"sidecar", "emulator", "generator"}


def _modules() -> list[tuple[str, Path]]:
    """(top-level name, file) of every module of the package."""
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]


def _imports(path: Path) -> set[str]:
    """Top-level modules of this package that a file imports, anywhere in it but in `if TYPE_CHECKING`."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
        if isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("entra_fast.")
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "entra_fast":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


def test_every_module_has_its_place() -> None:
    """A new module must be put into a layer here, and so into somebody's head."""
    assert {name for name, _ in _modules()} <= set(LEVEL)


@pytest.mark.parametrize(("name", "path"), _modules(), ids=lambda value: getattr(value, "name", value))
def test_imports_point_downwards(name: str, path: Path) -> None:
    """Nothing lower knows what is above it, and the servers do not know each other."""
    for imported in _imports(path) & set(LEVEL):
        assert LEVEL[imported] <= LEVEL[name], f"{path} imports {imported}"
        if name in SERVERS and imported in SERVERS:
            assert imported == name, f"{path} imports {imported}"


def test_the_library_loads_no_server() -> None:
    """`import entra_fast.validate` stays cheap, also where aiohttp is not installed."""
    program = (
        "import sys, entra_fast.validate;"
        "print(sorted({'aiohttp', 'uvloop', 'yaml', 'pydantic', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_sidecar_loads_neither_emulator_nor_its_extras() -> None:
    """What runs in production cannot reach the local Entra ID."""
    program = (
        "import sys, entra_fast.sidecar, entra_fast.generator;"
        "parts = {'entra_fast.emulator', 'entra_fast.cli.dev_system', 'yaml', 'pydantic'};"
        "print(sorted(parts & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
