"""`entra-fast serve` and `token-generator`: options and settings, and signals before they serve."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from entra_fast._settings.load import Settings
from entra_fast.cli.main import main
from support.process import inherited


@pytest.mark.parametrize("command", ["serve", "token-generator"])
def test_a_server_without_settings_names_the_first_one(command: str, tmp_path: Any) -> None:
    """One line on standard error, status 2, nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from entra_fast.cli.main import main; sys.exit(main())", command,
         "--settings", str(tmp_path)],
        env={**inherited(), "PYTHONPATH": os.pathsep.join(sys.path), "AZURE_ENABLED": "true"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "AZURE_APP_CLIENT_ID" in done.stderr


def test_a_token_generator_says_once_which_address_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line with the address, the reason, and what to do."""
    monkeypatch.setenv("AZURE_APP_CLIENT_ID", "me")
    monkeypatch.setenv("AZURE_APP_CLIENT_SECRET", "secret")
    monkeypatch.setenv("AZURE_APP_WELL_KNOWN_URL", "http://127.0.0.1:9/.well-known/openid-configuration")
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert main(["token-generator", "--settings", str(tmp_path), "--bind", address]) == 2
    assert capsys.readouterr().err == (
        f"entra-fast: cannot listen on {address} (Address already in use); "
        "choose another address with --bind or BIND_ADDRESS\n"
    )


@pytest.mark.parametrize("command", ["serve", "token-generator"])
def test_settings_must_be_a_directory(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path that is none is named in one line; status 2."""
    missing = tmp_path / "missing"
    assert main([command, "--settings", str(missing)]) == 2
    assert capsys.readouterr().err == f"entra-fast: --settings: '{missing}' is not a directory\n"


@pytest.mark.parametrize("fast_path_option", ["--no-fast-path", "--no-fast-lane"])
def test_the_options_of_serve_take_precedence_over_the_environment(
    fast_path_option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--bind, --probe-bind, --no-fast-path, and a directory with settings."""
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 0

    monkeypatch.setattr("entra_fast.sidecar.process.single.run", run)
    monkeypatch.setenv("BIND_ADDRESS", "127.0.0.1:1")
    for name, value in {
        "AZURE_APP_CLIENT_ID": "me",
        "AZURE_APP_TENANT_ID": "tenant",
        "AZURE_APP_CLIENT_SECRET": "s",
    }.items():
        monkeypatch.delenv(name, raising=False)
        (tmp_path / name).write_text(value)
    options = ["--bind", "127.0.0.1:2", "--probe-bind", "127.0.0.1:3", fast_path_option]
    assert main(["serve", *options, "--settings", str(tmp_path)]) == 0
    assert main(["serve", "--settings", str(tmp_path)]) == 0
    given, default = (settings.server for settings in seen)
    assert (given.port, given.probe_port, given.fast_path) == (2, 3, False)
    assert (default.port, default.probe_host, default.fast_path) == (1, None, True)
    assert seen[0].providers
    assert seen[0].providers[0].client_id == "me"


EARLY = """
import os, signal, sys, time
from entra_fast.sidecar.process import single
from entra_fast.cli.main import main
def run(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
single.run = run
sys.exit(main(["serve", "--settings", "/"]))
"""


def test_sigterm_before_the_sidecar_serves_ends_it_at_once() -> None:
    """To PID 1, an unhandled SIGTERM means nothing, so there is a handler while modules load and settings are
    read. No request is open yet."""
    ended = subprocess.run(
        [sys.executable, "-c", EARLY],
        env={**os.environ, "AZURE_ENABLED": "false"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
