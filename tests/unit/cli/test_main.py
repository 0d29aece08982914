"""The `entra-fast` command: help, usage, version, standard streams."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest

from entra_fast.cli.main import main
from support.cli import unsigned
from support.process import inherited

COMMANDS = (
    "dev",
    "serve",
    "doctor",
    "emulator",
    "token-generator",
    "validate",
    "inspect",
    "token",
    "exchange",
    "introspect",
    "roundtrip",
    "explain",
    "env",
    "bench",
    "completion",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`entra-fast COMMAND --help` describes the command, fits a terminal, and ends with status 0."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: entra-fast " + command in shown
    assert "example" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_help_lists_every_command_and_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """`entra-fast --help` is the overview."""
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {command} " in shown or f"\n    {command}\n" in shown for command in COMMANDS)
    assert "exit status:" in shown


def test_the_version_is_that_of_the_native_module(capsys: pytest.CaptureFixture[str]) -> None:
    """Not that of the installed package, which may be another one."""
    from entra_fast import _native

    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"entra-fast {_native.__version__} ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["token"], ["dev", "--emulator-port", "70000"], ["inspect", "--jso"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command, a missing argument, no port number, an abbreviated option."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--port", "3"], "unrecognized arguments: --port 3"),
        (["serve", "--no-fastpath"], "--no-fastpath (did you mean --no-fast-path?)"),
        (["dev", "--sidecarport=1"], "--sidecarport=1 (did you mean --sidecar-port?)"),
    ],
)
def test_an_unknown_option_shows_the_usage_of_its_command(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the option that was probably meant; status 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"usage: entra-fast {arguments[0]} ")
    assert said in error


def test_no_command_shows_the_whole_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`entra-fast` alone lists the commands on standard error; status 2."""
    monkeypatch.setattr(sys, "argv", ["entra-fast"])
    assert main() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "examples:" in captured.err


def test_inspecting_loads_neither_a_web_server_nor_the_emulator() -> None:
    """Each command imports its own part only."""
    program = (
        "import sys; from entra_fast.cli.main import main; main(['inspect', sys.argv[1]]);"
        "heavy = {'aiohttp', 'uvloop', 'yaml', 'pydantic', 'entra_fast.emulator', 'entra_fast.sidecar'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, unsigned({"aud": "x"})],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_is_no_crash() -> None:
    """`entra-fast inspect ... | head -0`: no traceback."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from entra_fast.cli.main import main; sys.exit(main())",
             "inspect", unsigned({"name": "x" * 40_000})],
            stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    finally:
        os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">/dev/full", ">&-", "2>&-"])
def test_streams_that_are_closed_or_full_are_no_crash(closed: str) -> None:
    """No traceback, wherever it would go; and a failed write is not status 0."""
    program = "import sys; from entra_fast.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" inspect {"" if closed == "<&-" else "$2"} {closed}',
         sys.executable, program, unsigned({"name": "x"})],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    assert done.returncode == (2 if closed in {"<&-", ">/dev/full"} else 0)


@pytest.mark.parametrize("module", ["entra_fast", "entra_fast.cli.main"])
def test_the_command_runs_as_a_module(module: str) -> None:
    """`python -m` is the same command, with the same exit status."""
    done = subprocess.run(
        [sys.executable, "-m", module, "inspect", unsigned({"aud": "by-module"})],
        env={**inherited(), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "by-module" in done.stdout


class Interrupted(io.BytesIO):
    """Input during which the user presses Ctrl-C."""

    def read(self, size: int | None = -1, /) -> bytes:
        signal.raise_signal(signal.SIGINT)
        return super().read(size)


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted command says nothing and ends with the status that shells use."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Interrupted()))
    assert main(["inspect"]) == 130
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
