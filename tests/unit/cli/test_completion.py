"""`entra-fast completion`: scripts that real shells accept and complete with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from entra_fast.cli.main import main


@pytest.fixture
def bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash, as a file."""
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "entra-fast"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    return script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["int"], {"introspect"}),
        (["serve", "--wor"], {"--workers"}),
        (["env", "--format", "j"], {"json"}),
        (["bench", "exch"], {"exchange"}),
        (["exchange", "--provider", "to"], {"tokenx"}),
        (["explain", "--provider", "mask"], {"maskinporten"}),
    ],
)
def test_bash_completes_commands_options_and_choices(
    bash: Path, typed: list[str], expected: set[str]
) -> None:
    """By calling the completion function of a real bash, as Tab does."""
    words = " ".join(["entra-fast", *typed])
    said = subprocess.run(
        ["bash", "-c", f'source "{bash}"; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; '
         'COMP_LINE="${COMP_WORDS[*]}"; _shtab_entra_fast; printf "%s\\n" "${COMPREPLY[@]}"'],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )  # fmt: skip
    assert {word.strip() for word in said.stdout.split()} == expected


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their scripts name each command, and are accepted where the shell is installed."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in ("doctor", "token-generator", "bench"))
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


def test_a_shell_that_is_not_known_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    """Words that are none of several are refused with a suggestion: commands, choices, kinds."""
    for typed, near in ((["completion", "fsh"], "fish"), (["sevre"], "serve"), (["bench", "tokn"], "token")):
        with pytest.raises(SystemExit) as stopped:
            main(typed)
        assert stopped.value.code == 2
        assert f"did you mean '{near}'?" in capsys.readouterr().err
