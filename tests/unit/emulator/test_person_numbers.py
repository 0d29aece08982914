"""Identity numbers of persons: synthetic ones are made and accepted, real ones are refused."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entra_fast.emulator.providers.idporten.persons import PERSONS
from entra_fast.emulator.providers.person_numbers import InvalidNumber, parse_person_number, person_number

DATES = st.dates(datetime.date(1900, 1, 1), datetime.date(2039, 12, 31))


def weighted(digits: str, *weights: int) -> int:
    """The sum that Skatteetaten's check digits bring to a multiple of 11."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True)) % 11


@given(DATES, st.booleans(), st.integers(0, 100))
def test_made_numbers_are_right(born: datetime.date, d_number: bool, place: int) -> None:
    """Both check digits are right, the month is of the synthetic series, and the number reads back."""
    number = person_number(born, d_number=d_number, place=place)
    assert weighted(number[:10], 3, 7, 6, 1, 8, 9, 4, 5, 2, 1) == 0
    assert weighted(number, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1) == 0
    assert int(number[2:4]) == born.month + 80
    read = parse_person_number(number)
    assert (read.number, read.born, read.d_number) == (number, born, d_number)


def test_numbers_that_are_known() -> None:
    """Numbers of Tenor and TestID are what the first numbers of their dates are."""
    assert person_number(datetime.date(1985, 5, 17)) == "17858549949"
    assert person_number(datetime.date(2002, 1, 1)) == "01810299939"
    assert person_number(datetime.date(1990, 1, 1), d_number=True) == "41819049910"


def test_numbers_of_one_day_differ() -> None:
    """As many as there are, then none."""
    numbers = {person_number(datetime.date(1985, 5, 17), place=place) for place in range(400)}
    assert len(numbers) == 400
    with pytest.raises(ValueError, match="not that many"):
        person_number(datetime.date(1985, 5, 17), place=500)
    with pytest.raises(ValueError, match="before 1900"):
        person_number(datetime.date(1899, 1, 1))


@pytest.mark.parametrize("added", [0, 1, 2, 3, 4])
def test_first_check_digits_from_2032_on(added: int) -> None:
    """The first check digit may be up to 3 higher; the second one is made for it."""
    digits = "178585499"
    first = (-weighted(digits, 3, 7, 6, 1, 8, 9, 4, 5, 2) + added) % 11
    second = -weighted(f"{digits}{first}", 5, 4, 3, 2, 7, 6, 5, 4, 3, 2) % 11
    assert max(first, second) < 10
    number = f"{digits}{first}{second}"
    if added <= 3:
        assert parse_person_number(number).number == number
    else:
        with pytest.raises(InvalidNumber, match="check the others"):
            parse_person_number(number)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "malformed"),
        ("1785854994", "malformed"),
        ("178585499499", "malformed"),
        ("1785854994x", "malformed"),
        ("1785854994\u0669", "malformed"),  # a digit, but not one of these
        ("17858549940", "check_digits"),
        ("17858549959", "check_digits"),
        ("71858549949", "check_digits"),  # a D-number's day
        ("32858549949", "birth_date"),
        ("17930549949", "birth_date"),
        ("17708549949", "birth_date"),  # +65: NAV's validator rejects that series
        ("30828549949", "birth_date"),
        ("17858575049", "check_digits"),  # born in 1885
        ("17058532270", "check_digits"),
    ],
)
def test_wrong_numbers(text: str, problem: str) -> None:
    """Each mistake has its name, and no sentence repeats the number."""
    with pytest.raises(InvalidNumber) as caught:
        parse_person_number(text)
    assert caught.value.problem == problem
    assert not text or text not in str(caught.value)


@given(DATES.filter(lambda born: born.year < 2000), st.integers(0, 499), st.booleans())
def test_numbers_that_could_be_real_are_refused(born: datetime.date, individual: int, d_number: bool) -> None:
    """A right number without a synthetic month is refused as real."""
    digits = f"{born.day + 40 * d_number:02}{born.month:02}{born.year % 100:02}{individual:03}"
    first = -weighted(digits, 3, 7, 6, 1, 8, 9, 4, 5, 2) % 11
    second = -weighted(f"{digits}{first}", 5, 4, 3, 2, 7, 6, 5, 4, 3, 2) % 11 if first < 10 else 10
    if second < 10:
        with pytest.raises(InvalidNumber, match="real person") as caught:
            parse_person_number(f"{digits}{first}{second}")
        assert caught.value.problem == "real"


def test_spaces_and_the_older_series() -> None:
    """Numbers are written with spaces, too; NAV's older test data added 40 to the month."""
    assert parse_person_number(" 178585 49949 ").number == "17858549949"
    digits = "174585499"
    first = -weighted(digits, 3, 7, 6, 1, 8, 9, 4, 5, 2) % 11
    second = -weighted(f"{digits}{first}", 5, 4, 3, 2, 7, 6, 5, 4, 3, 2) % 11
    assert parse_person_number(f"{digits}{first}{second}").born == datetime.date(1985, 5, 17)


def test_the_persons_of_the_login_page() -> None:
    """They are always the same, differ, and some have D-numbers."""
    for person in PERSONS:
        read = parse_person_number(person.pid)
        assert (read.born, read.d_number) == (person.born, person.d_number)
    assert len({person.pid for person in PERSONS}) == len(PERSONS)
    assert any(person.d_number for person in PERSONS)
    assert PERSONS[0].pid == "17858549949"
