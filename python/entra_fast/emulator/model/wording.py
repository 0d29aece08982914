"""How values of a YAML document are written in messages about mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

MAX_SHOWN: Final = 60
"""Characters of a wrong value that are shown."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean '...'?` if one of the known names is similar, else nothing."""
    guess = difflib.get_close_matches(name[:100], list(known), 1, cutoff)
    return f"; did you mean {guess[0]!r}?" if guess else ""


def shown(value: object) -> str:
    """A value as an error message shows it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value!r:.{MAX_SHOWN}}"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else "nothing"


def quoted(text: str) -> str:
    """A text in quotes, cut to what an error message can show."""
    return repr(text[:MAX_SHOWN])
