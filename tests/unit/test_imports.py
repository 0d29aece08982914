"""What imports what: the contracts of pyproject.toml (`lint-imports`), and what an import loads."""

from __future__ import annotations

import graphlib
import os
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from entra_fast import _extras
from entra_fast.emulator.tls import prepare
from support.process import inherited

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


def test_the_library_loads_little() -> None:
    """`import entra_fast.validate` on top of asyncio: its own modules, no extra, and nothing that is slow to
    load. What fetches keys is loaded for the first validator that does."""
    program = (
        "import sys, asyncio; before = set(sys.modules); import entra_fast.validate;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    own = {name for name in done.stdout.split() if name.startswith("entra_fast")}
    assert set(done.stdout.split()) - own <= {
        "__future__",
        "copy",
        "dataclasses",
        "_queue",
        "ipaddress",
        "queue",
        "urllib",
        "urllib.parse",
    }
    assert own == {
        "entra_fast",
        "entra_fast._arguments",
        "entra_fast._assurance",
        "entra_fast._background",
        "entra_fast._clock",
        "entra_fast._environment",
        "entra_fast._issuers",
        "entra_fast._late_imports",
        "entra_fast._native",
        "entra_fast._net",
        "entra_fast._provider",
        "entra_fast._shared_threads",
        "entra_fast._sweeping",
        "entra_fast._provider.http_options",
        "entra_fast._provider.jwks",
        "entra_fast._provider.jwks_schedule",
        "entra_fast._provider.transport",
        "entra_fast._signatures",
        "entra_fast._validation",
        "entra_fast.errors",
        "entra_fast.metrics",
        "entra_fast.require",
        "entra_fast.validate",
    }


def test_a_validator_in_threads_loads_no_extra() -> None:
    """Nor does one on an event loop before it fetches. What the fetching thread needs is loaded before it
    starts: a fork during an import would leave its locks held in the child."""
    extras = {module.partition(".")[0] for modules in _extras.EXTRAS.values() for module in modules.values()}
    make = (
        "from entra_fast.validate import AsyncValidator, Validator;"
        "a, b = (kind('i', 'a', jwks_uri='https://keys.example') for kind in (Validator, AsyncValidator))"
    )
    assert _loaded(f"asyncio; {make}; import sys", extras | {"uvloop"}) == "[]"
    assert _loaded(f"asyncio; {make}; import sys", {"http.client", "encodings.idna"}) == (
        "['encodings.idna', 'http.client']"
    )


FORK_DURING_AN_IMPORT = """
import importlib.machinery, os, signal, sys, threading, time

class Slow:
    def find_spec(self, name, path, target=None):
        if name == "entra_fast._settings.load":
            begun.set()
            forking.wait()
            time.sleep(0.05)  # a fork that does not wait happens now
        return None

def read_settings():
    from entra_fast._environment import described
    try:
        described({}, "tokenx")
    except ConfigurationError:
        pass

from entra_fast.errors import ConfigurationError
import entra_fast.validate
begun, forking = threading.Event(), threading.Event()
sys.meta_path.insert(0, Slow())
importing = threading.Thread(target=read_settings)
importing.start()
begun.wait()
os.register_at_fork(before=forking.set)  # those that were registered last are called first
child = os.fork()
if child == 0:
    signal.alarm(30)  # ends this process if nothing else does
    read_settings()
    os._exit(0)
importing.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_waits_for_imports_in_other_threads() -> None:
    """A module that is loaded late, by a thread that validates, is usable in a child process."""
    program = subprocess.run(
        [sys.executable, "-c", FORK_DURING_AN_IMPORT], capture_output=True, text=True, check=False, timeout=90
    )
    assert (program.stdout, program.stderr) == ("0\n", "")


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


def test_a_sidecar_loads_what_it_needs() -> None:
    """It runs for months: what few starts need stays out of its memory until it is needed."""
    unwanted = {
        "ctypes",
        "difflib",
        "grpc",
        "opentelemetry",
        "redis",
        "entra_fast.cli.bench",
        "entra_fast.cli.doctor",
        "entra_fast.cli.roundtrip",
        "entra_fast.cli.token_tools",
        "entra_fast.emulator",
    }
    imports = "entra_fast.cli.main as line, entra_fast.sidecar.process.single; line._parser('serve')"
    assert _loaded(imports, unwanted) == "[]"


@pytest.mark.parametrize(
    ("environ", "loaded"), [({}, False), ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, True)]
)
def test_the_client_of_redis_loads_no_telemetry(environ: dict[str, str], loaded: bool) -> None:
    """Unless it is sent anyway; what was held back can be imported later."""
    program = (
        "import sys; from entra_fast.sidecar.redis_import import import_redis; import_redis();"
        "print('opentelemetry.sdk.metrics' in sys.modules);"
        "import entra_fast._provider.redis_cache, opentelemetry.sdk.metrics"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited(), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(loaded)
