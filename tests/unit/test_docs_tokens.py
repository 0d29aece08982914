"""Every block of docs/guides/tokens.md and docs/guides/testing-your-service.md is executed."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from entra_fast.emulator import LocalEntraId
from support.background import Api, ThreadLoop, started_sidecar
from support.local_entra import EXAMPLES
from support.process import inherited

DOCS = Path(__file__).resolve().parents[2] / "docs" / "guides"
APP = "dev-gcp:team-a:app-a"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def servers() -> Iterator[ThreadLoop]:
    """The loop that servers run on."""
    loop = ThreadLoop()
    yield loop
    loop.close()


@pytest.mark.parametrize("source", ["provider", "sidecar"])
def test_tokens(servers: ThreadLoop, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """One after the other, with the local Entra ID, a sidecar, and an API in the place of `app-b.example`."""
    local = LocalEntraId.from_files([EXAMPLES / "manifests"], EXAMPLES / "directory.yaml")
    api = Api()
    with contextlib.ExitStack() as stack:
        running = servers.run(local.start("127.0.0.1", 0))
        stack.callback(lambda: servers.run(running.stop()))
        servers.run(api.start())
        stack.callback(lambda: servers.run(api.stop()))
        environ = running.environment(APP)
        sidecar = servers.run(started_sidecar(environ))
        stack.callback(lambda: servers.run(sidecar.stop()))
        monkeypatch.setenv("NAIS_TOKEN_INTROSPECTION_ENDPOINT", f"{sidecar.base_url}/api/v1/introspect")
        if source == "sidecar":
            environ = {
                "NAIS_TOKEN_ENDPOINT": f"{sidecar.base_url}/api/v1/token",
                "NAIS_TOKEN_EXCHANGE_ENDPOINT": f"{sidecar.base_url}/api/v1/token/exchange",
            }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        _, subject_token = local.mint(APP, APP, "ada")
        names: dict[str, Any] = {"subject_token": subject_token}
        with asyncio.Runner() as runner:
            for block in blocks("tokens.md", "python"):
                text = block.replace("https://app-b.example", api.origin)
                text = text.replace("<tenant id>", local.registry.default_tenant.id)
                code = compile(text, "tokens.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                result = eval(code, names)
                if inspect.iscoroutine(result):
                    runner.run(result)
        names["channel"].close()
    assert len(api.received) == 5
    assert None not in api.tokens
    assert names["answer"].code == "not_a_jwt"


def test_testing_your_service(tmp_path: Path) -> None:
    """In a project of its own, in which each block is the file that its first line names."""
    os.symlink(EXAMPLES, tmp_path / "nais")
    (tmp_path / "without").mkdir()
    files = {
        re.match(r"# (\S+)\n", block)[1]: block  # type: ignore[index]
        for language in ("python", "ini")
        for block in blocks("testing-your-service.md", language)
    }
    # Its applications are not in the manifests.
    for name in ("cases.py", "test_cases.py"):
        (tmp_path / "without" / name).write_text(files.pop(name))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert len(files) == 6
    plugin = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:entra_fast",
        "-p",
        "entra_fast.testing._pytest_plugin",
    ]

    def run(folder: Path, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=inherited(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "without" / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    assert "9 passed" in run(tmp_path / "without", "-m", "pytest", *plugin)
    assert "12 passed" in run(tmp_path, "-m", "pytest", *plugin, "--ignore=without")
    run(tmp_path, "test_with_unittest.py")


def test_every_fixture_is_documented() -> None:
    """In the table of the page."""
    from entra_fast.testing import _pytest_plugin

    rows = re.findall(r"^\| `(\w+)", (DOCS / "testing-your-service.md").read_text(), re.MULTILINE)
    defined = [name for name in vars(_pytest_plugin) if name.startswith(("entra_", "local_"))]
    assert sorted({*rows}) == sorted(defined)
