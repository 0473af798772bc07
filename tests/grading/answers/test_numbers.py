"""Numbers in running text: signs of every width, separators, fractions; and what is none of these."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from bontune.grading.answers.numbers import last_number, numbers_in, tidy


@pytest.mark.parametrize("dash", "-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d")
def test_a_dash_is_a_sign_where_it_parts_nothing(dash: str) -> None:
    for text in (
        f"It is {dash}5 degrees",
        f"{dash}5",
        f"x={dash}5",
        f"({dash}5)",
        f"{dash}$5",
        f"{dash}€5",
        f"x = {dash} 5",
    ):
        assert last_number(text) == -5, text
    for text in (
        f"3{dash}5",
        f"10 {dash} 5",
        f"(3){dash}5",
        f"x{dash}5",
        f"pages 3 {dash} 5",
        f"List:\n{dash} 5",
        f"50%{dash}5",
    ):
        assert last_number(text) == 5, text
    assert last_number(f"{dash}1/2") == last_number(rf"{dash}\frac{{1}}{{2}}") == Fraction(-1, 2)


@pytest.mark.parametrize("dash", "\u2014\u2015\ufe58")
def test_a_long_dash_is_punctuation(dash: str) -> None:
    assert last_number(f"It is {dash}5") == last_number(f"It is {dash} 5") == 5


@pytest.mark.parametrize("space", " \u00a0\u2009\u202f\u2007\u2005\u3000")
def test_spaces_part_thousands(space: str) -> None:
    assert last_number(f"That is 1{space}000.") == 1000
    assert last_number(f"{space}12{space}345{space}678.5") == Fraction(24691357, 2)
    assert last_number(f"-1{space}000 of 2") == 2
    assert last_number(f"5{space}10{space}000") == 10_000
    assert last_number(f"1{space}00") == 0
    assert last_number(f"1{space}0000") == 0
    assert last_number(f"1234{space}567") == 567
    assert last_number("1\n000") == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/2", Fraction(1, 2)),
        ("so 3/4.", Fraction(3, 4)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"\dfrac{-1}{2}", Fraction(-1, 2)),
        (r"\tfrac12", Fraction(1, 2)),
        (r"\frac{ 10 }{ 4 }", Fraction(5, 2)),
        ("1 1/2", Fraction(3, 2)),
        (r"1\frac{1}{2}", Fraction(3, 2)),
        ("2½", Fraction(5, 2)),
        ("½", Fraction(1, 2)),
        ("1 3/2", Fraction(3, 2)),
        # a calculation, a date, a ratio of what are no numbers: the last number, as in any text
        ("84/2", 2),
        (r"\frac{84}{2}", 2),
        ("5/0", 0),
        ("1/2/2024", 2024),
        ("x/2", 2),
        (r"\frac{x}{2}", 2),
        ("4.5/2", 2),
        ("1'000", 1000),
        (r"1\,234", 1234),
        ("1{,}234", 1234),
        ("12\u200b3", 123),
        ("\uff14\uff12", 42),
        ("-£1,234.50", Fraction(-2469, 2)),
        ("€5", 5),
    ],
)
def test_values(text: str, value: Fraction | int) -> None:
    assert last_number(text) == value


def test_numbers_in_order() -> None:
    found = list(numbers_in(tidy("3–5 of 1 000, or 1/2, 84/2, 1e3")))
    assert [number.value for number in found] == [3, 5, 1000, Fraction(1, 2), 2, 1000]
    assert [number.is_decimal for number in found] == [True, True, True, False, False, False]


def test_hostile_texts_take_no_time() -> None:
    for piece in ("-", "$", "1 ", "111 ", "1 1/", "1/", "\\frac{1}", "\\frac{" + " " * 1000, "9", "½", "'", "1'111"):
        start = time.perf_counter()
        last_number(piece * (400_000 // len(piece)))
        assert time.perf_counter() - start < 5.0, piece  # 0.6 s on an idle core at most
