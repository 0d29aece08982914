"""What imports what: the contracts of pyproject.toml (`lint-imports`), and what an import loads."""

from __future__ import annotations

import graphlib
import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]


def test_the_import_contracts_hold() -> None:
    """Imports follow `[tool.importlinter]`: direction, independence, no circle between packages."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_imports_itself_through_others() -> None:
    """No circle between modules. Import-linter compares siblings; this includes the `__init__` modules."""
    graph = grimp.build_graph("entra_fast", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1]
    else:
        circle = []
    assert circle == [], " imports ".join(reversed(circle))


def _loaded(imports: str, unwanted: set[str]) -> str:
    """Those of the unwanted modules that a fresh interpreter has loaded after the imports."""
    program = f"import sys, {imports}; print(sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_library_loads_no_server() -> None:
    """`import entra_fast.validate` stays cheap, and works where aiohttp is not installed."""
    unwanted = {
        "aiohttp",
        "uvloop",
        "yaml",
        "pydantic",
        "jinja2",
        "cryptography",
        "prometheus_client",
    }
    assert _loaded("entra_fast.validate", unwanted) == "[]"


def test_the_sidecar_loads_neither_the_emulator_nor_its_extras() -> None:
    """What runs in production loads no part of the local Entra ID, and no package of its own."""
    unwanted = {"entra_fast.emulator", "entra_fast.cli.dev_system", "yaml", "pydantic"}
    assert _loaded("entra_fast.sidecar, entra_fast.generator", unwanted) == "[]"
