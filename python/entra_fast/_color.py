"""Colour: whether a stream gets any, and the few styles in use.

What belongs here: the decision and the escape sequences, for commands and for log lines. Nothing is ever
said by colour alone: each style goes with a word or a mark that says the same. Text is made printable before
it is painted, never after.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Literal, TextIO, get_args

When = Literal["auto", "always", "never"]
WHEN: Final[tuple[When, ...]] = get_args(When)

Style = Literal["good", "warning", "bad", "heading", "aside"]
_CODES: Final[dict[Style, str]] = {"good": "32", "warning": "33", "bad": "31;1", "heading": "1", "aside": "2"}

_given: When = "auto"


def choose(when: When) -> None:
    """What --color says, for the rest of the process."""
    global _given  # noqa: PLW0603 - one command line per process
    _given = when


def is_wanted(stream: TextIO, environ: Mapping[str, str] | None = None) -> bool:
    """Whether a stream gets colour: --color decides, then NO_COLOR, FORCE_COLOR and CLICOLOR, then whether it
    is a terminal. As https://no-color.org asks, an empty NO_COLOR counts as absent."""
    environ = os.environ if environ is None else environ
    if _given != "auto":
        return _given == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if environ.get("CLICOLOR") == "0" or environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def painted(text: str, style: Style, stream: TextIO) -> str:
    """The text in a style, or as it is if the stream gets no colour."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if is_wanted(stream) else text
