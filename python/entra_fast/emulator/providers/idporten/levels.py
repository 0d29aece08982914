"""Levels of assurance (`acr`): how they are written, ordered and requested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.providers.idporten.errors import IdPortenError

STRENGTHS: Final = ("low", "substantial", "high")
NATIONAL: Final = "idporten"
EIDAS: Final = "eidas"
ACR_VALUES: Final = tuple(
    f"{family}-loa-{strength}" for family in (NATIONAL, EIDAS) for strength in STRENGTHS
)
EARLIER: Final = {"Level3": "idporten-loa-substantial", "Level4": "idporten-loa-high"}
"""How levels were written before 2023, and still are in manifests."""


def current_spelling(level: str) -> str:
    """A level as ID-porten writes it, from how a manifest may write it."""
    return EARLIER.get(level, level)


@dataclass(frozen=True, slots=True)
class RequestedLevels:
    """What a login must reach at least.

    Attributes:
        floors: by kind of login (`idporten`, `eidas`) the place in STRENGTHS; kinds that were not requested
            are not allowed.
    """

    floors: Mapping[str, int]

    @classmethod
    def parse(cls, acr_values: str, default: str) -> RequestedLevels:
        """From the parameter `acr_values` (OpenID Connect Core 1.0, section 3.1.2.1): any of these will do.

        Args:
            default: the level to use where there is none.

        Raises:
            IdPortenError: a value is unknown.
        """
        floors: dict[str, int] = {}
        for value in acr_values.split() or [default]:
            if value not in ACR_VALUES:
                hint = (
                    f": write {EARLIER[value]}" if value in EARLIER else f"; expected {', '.join(ACR_VALUES)}"
                )
                raise IdPortenError("invalid_request", f"acr_values has an unknown level{hint}")
            family, _, strength = value.partition("-loa-")
            floors[family] = min(STRENGTHS.index(strength), floors.get(family, len(STRENGTHS)))
        return cls(floors)

    def allowed(self, family: str) -> tuple[str, ...]:
        """The levels of a kind of login that will do, the lowest first."""
        if family not in self.floors:
            return ()
        return tuple(f"{family}-loa-{strength}" for strength in STRENGTHS[self.floors[family] :])

    def allow(self, acr: str) -> bool:
        """Whether a login of this level will do."""
        return acr in self.allowed(acr.partition("-loa-")[0])
