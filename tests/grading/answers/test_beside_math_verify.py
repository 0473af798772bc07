r"""Answers that math-verify 0.9 misreads as it comes: our grader gives each the right verdict."""

from __future__ import annotations

import pytest

from bontune.grading.answers.math_answer import compare_answers
from bontune.grading.verdict import Verdict

EQUAL = [
    # Mixed numbers in plain text: math-verify reads the whole part alone.
    ("3/2", "1 1/2"),
    (r"\frac{3}{2}", "1 1/2"),
    ("3.5", "3 1/2"),
    (r"2\frac34", "2 3/4"),
    ("-2.5", "-2 1/2"),
    # Repeating decimals: it reads what stands before the bar.
    (r"0.\overline{3}", "1/3"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"1.1\overline{6}", r"\frac{7}{6}"),
    # Dollars: it takes the sign for the end of a formula, and finds no answer.
    ("18", r"\$18.00"),
    ("18", "$18.00"),
    (r"\$18", "18"),
    # U+2212, the minus sign of typeset text: it finds no answer.
    ("-5", "\u22125"),
    ("\u22125", "-5"),
    (r"-\frac{1}{2}", "\u2212\\frac{1}{2}"),
    ("-0.5", "\u22121/2"),
    # A solution without dollar signs, as data sets hold them: it is searched for a plain number.
    (r"2\sqrt{3}", r"\boxed{2\sqrt{3}}"),
    (r"2\sqrt{3}", r"The answer is $\boxed{\sqrt{12}}$."),
    ("6 - 5i", r"\boxed{6-5i}"),
    ("p - q", r"\boxed{p-q}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \pi/2)}"),
    (r"x^5 - x^4 + x^3 - x^2 + x - 1", r"\boxed{x^5-x^4+x^3-x^2+x-1}"),
]

DIFFERENT = [
    # What math-verify accepts for such answers.
    ("1", "1 1/2"),
    ("1 1/2", "1"),
    ("1/2", "1 1/2"),
    (r"0.\overline{3}", "0"),
    ("0", r"0.\overline{3}"),
    (r"2\sqrt{3}", "2"),
    (r"2\sqrt{3}", r"\boxed{2}"),
    ("6 - 5i", r"\boxed{6}"),
    # Signs count, whichever minus they are written with.
    ("5", "\u22125"),
    ("\u22125", "5"),
    (r"\$18.00", r"\$18.01"),
    # It rounds to six digits, except against whole numbers.
    ("1.0", "0.9999999"),
    ("1", "0.9999999"),
    ("0.5", "0.5000001"),
    ("2.5", "2.4999999"),
    ("0.5", "0.50000000000001"),
    ("1/3", "0.3333333"),
    ("0.3333333", "1/3"),
    (r"\sqrt{2}", "1.414214"),
    (r"\pi", "3.141593"),
]


@pytest.mark.parametrize(("gold", "prediction"), EQUAL)
def test_a_right_answer_that_math_verify_misreads_passes(gold: str, prediction: str) -> None:
    comparison = compare_answers(gold, prediction)
    assert comparison.verdict is Verdict.PASSED, comparison.reason


@pytest.mark.parametrize(("gold", "prediction"), DIFFERENT)
def test_a_wrong_answer_that_math_verify_accepts_fails(gold: str, prediction: str) -> None:
    assert compare_answers(gold, prediction).verdict is Verdict.FAILED
