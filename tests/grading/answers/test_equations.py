"""Chains of equations: a table of hand-made ones, and Python's own arithmetic as an oracle."""

from __future__ import annotations

import ast
import itertools
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from bontune.grading.answers.equations import MAX_EQUATIONS, chain_of, grade_equations, numbers_of, way_of
from bontune.grading.verdict import Verdict

TABLE = [
    tuple(part.strip(" ") for part in line.split("|"))
    for line in (Path(__file__).parent / "equation_chains.txt").read_text(encoding="utf-8").splitlines()[1:]
]


def test_the_table_is_large_and_has_both() -> None:
    assert len(TABLE) >= 200
    assert min(sum(row[0] == verdict for row in TABLE) for verdict in ("passed", "failed")) >= 70
    assert len({row[1:] for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("verdict", "problem", "reference", "chain"), TABLE)
def test_a_hand_made_chain(verdict: str, problem: str, reference: str, chain: str) -> None:
    grade = grade_equations(problem, Fraction(reference), chain.replace("⏎", "\n"))
    assert (grade.verdict.value, grade.reward) == (verdict, float(verdict == "passed")), grade.reason
    assert bool(grade.reason) == (verdict == "failed")


def test_a_way_passes_where_its_chain_does() -> None:
    """Every chain of the table for every problem of the table, without a look at the problem while it is read."""
    problems = sorted({row[1:3] for row in TABLE})
    supplied = [(problem, Fraction(reference), numbers_of(problem)) for problem, reference in problems]
    for chain in {row[3].replace("⏎", "\n") for row in TABLE}:
        way = way_of(chain)
        for problem, reference, numbers in supplied:
            is_passed = way is not None and way.result == reference and way.operands <= numbers
            assert is_passed == (grade_equations(problem, reference, chain).verdict == Verdict.PASSED), (chain, problem)


def test_reasons_name_the_line() -> None:
    problem = "There are 3 boxes of 4 pens."

    def reason(chain: str) -> str:
        return grade_equations(problem, Fraction(12), chain).reason

    assert reason("3 * 4 = 13") == "the equation in line 1 is false"
    assert reason("3 + 4 = 7\n5 * 2 = 10") == "5 stands neither in the problem nor in an earlier line"
    assert reason("3 + 4 = 7\nso 12") == "line 2 is no equation of numbers"
    assert reason("3 + 4 = 7") == "7, not 12"
    assert reason("3 * 4 = 12\n12 = 12") == "the last equation computes nothing"
    assert reason("3 * 4 = 12\n#### 13") == "the number behind #### is not the last result"
    assert reason("  \n ") == "it holds no equation"


@pytest.mark.parametrize(
    "chain",
    [
        "3 * 4 = 12\n" * 10_000,
        "<<3*4=12>>" * 10_000,
        "(" * 100_000 + "3" + ")" * 100_000 + " * 4 = 12",
        "3" + " * 4" * 100_000 + " = 12",
        "9" * 100_000 + " * 4 = 12",
        "3 * 4 = " + "1" * 100_000,
        "-" * 100_000 + "3 * 4 = 12",
        "=" * 100_000,
    ],
)
def test_what_is_too_long_fails(chain: str) -> None:
    grade = grade_equations("There are 3 boxes of 4 pens.", Fraction(12), chain)
    assert grade.verdict is Verdict.FAILED
    assert grade.reason


def test_as_many_equations_as_are_allowed_pass() -> None:
    problem = "There are 3 boxes of 4 pens."
    assert grade_equations(problem, Fraction(12), "3 * 4 = 12\n" * MAX_EQUATIONS).reward == 1
    longer = grade_equations(problem, Fraction(12), "3 * 4 = 12\n" * (MAX_EQUATIONS + 1))
    assert longer.reason == f"it has more than {MAX_EQUATIONS} equations"


def value_of(tree: ast.expr) -> Fraction:
    """Python's own reading of arithmetic, in exact numbers."""
    if isinstance(tree, ast.Constant):
        return Fraction(str(tree.value))
    if isinstance(tree, ast.UnaryOp):
        return -value_of(tree.operand)
    assert isinstance(tree, ast.BinOp)
    left, right = value_of(tree.left), value_of(tree.right)
    signs = {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}
    return signs[type(tree.op)] if type(tree.op) in signs else left / right


def arithmetic(draw: random.Random, depth: int) -> str:
    if depth == 0 or draw.random() < 0.2:
        return draw.choice(["2", "3", "4", "0.5", "10", "7.25"])
    left, right = arithmetic(draw, depth - 1), arithmetic(draw, depth - 1)
    text = f"{left}{draw.choice([' ', ''])}{draw.choice('+-*/')} {right}"
    return f"({text})" if draw.random() < 0.5 else f"-{text}" if draw.random() < 0.1 else text


def test_arithmetic_is_pythons() -> None:
    draw = random.Random(0)
    problem = "The numbers are 2, 3, 4, 0.5, 10 and 7.25."
    seen = 0
    for _ in itertools.repeat(None, 3000):
        text = arithmetic(draw, 3)
        try:
            value = value_of(ast.parse(text, mode="eval").body)
        except ZeroDivisionError:
            assert "false" in grade_equations(problem, Fraction(1), f"{text} = 1").reason
            continue
        if value.denominator == 1 and re.search(r"[-+*/]", text.lstrip("-")) and len(text) < 150:
            seen += 1
            assert grade_equations(problem, value, f"{text} = {value}").reward == 1, text
            assert grade_equations(problem, value + 1, f"{text} = {value + 1}").reward == 0, text
    assert seen > 300


def test_a_chain_is_written_one_operation_a_line_and_passes() -> None:
    draw = random.Random(1)
    problem = "The numbers are 2, 3, 4, 10 and 12."
    for _ in itertools.repeat(None, 300):
        a, b, c, d = (draw.choice(["2.0", "3.0", "4.0", "10.0", "12.0"]) for _ in range(4))
        text = f"( ( {a} {draw.choice('+*')} {b} ) {draw.choice('+-*')} ( {c} {draw.choice('+*')} {d} ) )"
        chain = chain_of(text)
        assert chain is not None
        assert chain.count("\n") == 2
        assert grade_equations(problem, value_of(ast.parse(text.strip(), mode="eval").body), chain).reward == 1
    assert chain_of("8.0") is chain_of("8 apples") is chain_of("1 / 0") is chain_of("") is None


def test_numbers_come_from_digits_words_and_units() -> None:
    assert numbers_of("no number at all") == set()
    assert {25, 20, 5} <= numbers_of("Twenty-five of them")
    assert {7, 2} <= numbers_of("two weeks")
    assert 7 not in numbers_of("two boxes")
    assert Fraction(1, 5) in numbers_of("20% off")
    assert Fraction(1, 5) not in numbers_of("20 off")
    assert 12 not in numbers_of("3 boxes of 4 pens")
