"""The synthetic persons that the login page offers: always the same ones."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Final

from entra_fast.emulator.providers.person_numbers import person_number


@dataclass(frozen=True, slots=True)
class Person:
    """A synthetic person.

    Attributes:
        pid: national identity number or D-number.
    """

    name: str
    pid: str
    born: datetime.date
    d_number: bool = False


@dataclass(frozen=True, slots=True)
class European:
    """A synthetic person of another country.

    Attributes:
        key: identifier as eIDAS writes it: country, receiving country, number.
    """

    name: str
    key: str


def _person(name: str, year: int, month: int, day: int, *, d_number: bool = False) -> Person:
    born = datetime.date(year, month, day)
    return Person(name, person_number(born, d_number=d_number), born, d_number)


PERSONS: Final = (
    _person("Rolig Fjelltopp", 1985, 5, 17),
    _person("Modig Havørn", 1971, 11, 2),
    _person("Kvikk Blåveis", 1996, 2, 29),
    _person("Stolt Granskog", 1948, 8, 23),
    _person("Lun Sommerregn", 2002, 1, 1),
    _person("Ivrig Snøfonn", 2012, 6, 30),
    _person("Fersk Havbris", 1990, 1, 1, d_number=True),
    _person("Blid Østavind", 2001, 9, 14, d_number=True),
)
"""Names as Tenor makes them: an adjective and a noun. Adults, one person under age, and two with
D-numbers."""

EUROPEANS: Final = (
    European("Astrid Lindqvist", "SE/NO/199005172384"),
    European("Jan Kowalski", "PL/NO/85010112345"),
)
