"""Colour: who gets it, and that nothing is said by colour alone."""

from __future__ import annotations

import io

import pytest

from entra_fast import _color
from entra_fast.cli.main import main
from support.cli import unsigned


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "CLICOLOR": "0"}, False, True),
        ({"CLICOLOR": "0"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_the_environment_decides_before_the_terminal_does(
    environ: dict[str, str], terminal: bool, expected: bool
) -> None:
    """NO_COLOR, FORCE_COLOR, CLICOLOR, then whether it is a terminal."""
    assert _color.is_wanted(Terminal() if terminal else io.StringIO(), environ) is expected


def test_the_option_decides_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--color, before and after the command; without colour the same words are there."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(_color, "_given", "auto")
    token = unsigned({"exp": 1})
    assert main(["inspect", "--color", "always", token]) == 0
    painted = capsys.readouterr().out
    assert main(["--color", "always", "inspect", token]) == 0
    assert capsys.readouterr().out == painted
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR")
    assert main(["inspect", "--color", "never", token]) == 0
    plain = capsys.readouterr().out
    assert "\x1b" in painted
    assert "\x1b" not in plain
    for style in ("\x1b[33m", "\x1b[1m", "\x1b[0m"):
        painted = painted.replace(style, "")
    assert painted == plain


def test_values_of_a_token_cannot_paint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escape sequences in claims are escaped, with colour too."""
    monkeypatch.setattr(_color, "_given", "auto")
    assert main(["inspect", "--color", "always", unsigned({"sub": "\x1b[2Jx"})]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out
