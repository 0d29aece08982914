"""Levels of assurance: how a user signed in, as providers write it in `acr`.

What belongs here: the values that are known, which of them are the same level, and which level is higher.
What must never be here: tokens, and what a service requires (require.py).
"""

from __future__ import annotations

from typing import Final

_LADDERS: Final = (
    # ID-porten, and what TokenX copies from it. The older names still occur.
    (("idporten-loa-low",), ("idporten-loa-substantial", "Level3"), ("idporten-loa-high", "Level4")),
    # Sign-ins from other countries, at ID-porten.
    (("eidas-loa-low",), ("eidas-loa-substantial",), ("eidas-loa-high",)),
    (("low",), ("substantial",), ("high",)),  # Ansattporten
    (("0",), ("1",)),  # Entra ID, v1.0 tokens
)
"""Levels that compare with each other, the lower ones first. Of the names of a level, the first is the one
that providers accept in requests (`acr_values`)."""

_PLACES: Final = {
    name: (ladder, level)
    for ladder, levels in enumerate(_LADDERS)
    for level, names in enumerate(levels)
    for name in names
}

LEVELS: Final = tuple(_PLACES)
"""Every name of a level."""


def reaches(acr: object, least: str) -> bool:
    """Whether a token's `acr` is at least a level. A value that is not known is none.

    Args:
        least: one of `LEVELS`.
    """
    found = _PLACES.get(acr) if isinstance(acr, str) else None
    ladder, level = _PLACES[least]
    return found is not None and found[0] == ladder and found[1] >= level


def higher(one: str, other: str) -> str | None:
    """The higher of two levels; None where they do not compare."""
    (ladder, level), (other_ladder, other_level) = _PLACES[one], _PLACES[other]
    if ladder != other_ladder:
        return None
    return one if level >= other_level else other


def in_requests(level: str) -> str:
    """A level as providers accept it in requests: `idporten-loa-high` for `Level4`. A value that is not known
    stays as it is."""
    if level not in _PLACES:
        return level
    ladder, place = _PLACES[level]
    return _LADDERS[ladder][place][0]
