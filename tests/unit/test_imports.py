"""What imports what: the contracts of pyproject.toml (`lint-imports`), and what an import loads."""

from __future__ import annotations

import graphlib
import os
import subprocess
import sys
from pathlib import Path

import grimp

from entra_fast.emulator.tls import prepare

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
    assert _loaded("entra_fast.sidecar.process.single, entra_fast.generator", unwanted) == "[]"


NO_AUTHORITIES = """
import os, ssl
from entra_fast.sidecar.process.aiohttp_import import import_aiohttp
before = dict(os.environ)
import_aiohttp()
assert dict(os.environ) == before
from aiohttp import connector
from entra_fast._provider.http_rules import trusting_context
print([len(context.get_ca_certs()) for context in (
    connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED, trusting_context(None))])
"""


def test_the_sidecar_reads_the_authorities_of_the_system_only_where_it_uses_them(tmp_path: Path) -> None:
    """aiohttp's own TLS contexts trust nobody in a sidecar, that of its HTTP client trusts the system's
    authorities, and the environment is as it was."""
    authority = prepare(tmp_path).authority
    shown = subprocess.run(
        [sys.executable, "-c", NO_AUTHORITIES],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"SSL_CERT_FILE": str(authority), "SSL_CERT_DIR": "/nonexistent"},
    )
    assert shown.stdout == "[0, 0, 1]\n"
