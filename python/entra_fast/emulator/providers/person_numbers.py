"""Norwegian identity numbers of persons: synthetic numbers, check digits, and refusing real ones.

Synthetic persons have 80 added to the month of birth, as in Tenor (Skatteetaten's test population) and in
ID-porten's TestID. No number that could belong to a person is ever made, or accepted, here.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Final, Literal

_FIRST: Final = (3, 7, 6, 1, 8, 9, 4, 5, 2)
_SECOND: Final = (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
_ADDED_TO_FIRST: Final = (0, 1, 2, 3)
"""Numbers issued from 2032 on may have a first check digit that is 1, 2 or 3 higher (modulo 11)."""
_SERIES: Final = {40: "NAV", 80: "Tenor"}
"""What is added to the month of birth of synthetic persons. NAV's older test data added 40."""
_D_NUMBER: Final = 40  # added to the day, in numbers of persons who are registered temporarily

Problem = Literal["malformed", "birth_date", "check_digits", "real"]


class InvalidNumber(ValueError):
    """A number that is refused. `problem` says why, for programs; the text is a sentence without the
    number."""

    def __init__(self, problem: Problem, text: str) -> None:
        super().__init__(text)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class PersonNumber:
    """A synthetic person's number.

    Attributes:
        number: 11 digits.
        d_number: whether it is a D-number (day of birth + 40).
    """

    number: str
    born: datetime.date
    d_number: bool


def person_number(born: datetime.date, *, d_number: bool = False, place: int = 0) -> str:
    """A synthetic person's number; the same arguments give the same number.

    Args:
        born: from 1900 to 2039.
        d_number: a D-number.
        place: which of the numbers of that day, from 0: a day has about 400.

    Raises:
        ValueError: there is no such number.
    """
    if not 1900 <= born.year <= 2039:
        raise ValueError("numbers say nothing about births before 1900 or after 2039")
    day, month = born.day + (_D_NUMBER if d_number else 0), born.month + 80
    # The three digits after the date tell the century.
    century = 499 if born.year < 2000 else 999
    left = place
    for individual in range(century, century - 500, -1):
        digits = f"{day:02}{month:02}{born.year % 100:02}{individual:03}"
        first = _check_digit(digits, _FIRST)
        second = None if first is None else _check_digit(f"{digits}{first}", _SECOND)
        if second is None:
            continue
        if left == 0:
            return f"{digits}{first}{second}"
        left -= 1
    raise ValueError("there are not that many numbers of one day")


def parse_person_number(text: str) -> PersonNumber:
    """A synthetic person's number; spaces are ignored.

    Raises:
        InvalidNumber: it is malformed, has wrong check digits, or could belong to a real person.
    """
    number = "".join(text.split())
    if not re.fullmatch(r"[0-9]{11}", number):
        raise InvalidNumber("malformed", "a national identity number or D-number has 11 digits")
    day, month, year = int(number[:2]), int(number[2:4]), int(number[4:6])
    d_number = day > _D_NUMBER
    series = next((added for added in _SERIES if 1 <= month - added <= 12), 0)
    try:
        born = datetime.date(
            _century(int(number[6:9]), year) + year, month - series, day - (_D_NUMBER if d_number else 0)
        )
    except ValueError:
        reason = "the first six digits are no date of birth of a synthetic person (day, month + 80, year)"
        raise InvalidNumber("birth_date", reason) from None
    first, second = _weighted(number[:9], _FIRST), _check_digit(number[:10], _SECOND)
    if int(number[9]) not in {(first + added) % 11 for added in _ADDED_TO_FIRST} or str(second) != number[10]:
        raise InvalidNumber("check_digits", "the last two digits, which check the others, are wrong")
    if not series:
        reason = "the number could belong to a real person; use a synthetic one, with 80 added to the month"
        raise InvalidNumber("real", reason)
    return PersonNumber(number, born, d_number)


def _century(individual: int, year: int) -> int:
    """The century of birth, by the three digits after the date."""
    if individual < 500:
        return 1900
    if year < 40:
        return 2000
    return 1900 if individual >= 900 else 1800


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    """Modulo 11; 10 is no digit."""
    return -sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11


def _check_digit(digits: str, weights: tuple[int, ...]) -> int | None:
    """The check digit; None where there is none."""
    check = _weighted(digits, weights)
    return None if check == 10 else check
