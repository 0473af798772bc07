"""The expression parser against Python's own grammar, and against texts that mean harm."""

from __future__ import annotations

import ast
import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bontune.tasks.countdown import Expression, ExpressionError, ExpressionLimits, evaluate

ALPHABET = "0123456789+-*()"


def oracle(text: str) -> int | None:
    """What Python's grammar makes of a text of ours; None where ours is narrower (leading zeros, long numbers)."""
    if re.fullmatch(f"[{re.escape(ALPHABET)}]+", text, re.ASCII) is None or re.search(r"\b0[0-9]|[0-9]{7}", text):
        return None
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return None

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
        raise LookupError(type(node).__name__)

    try:
        return value(tree.body)
    except LookupError:
        return None


def value_or_none(text: str) -> int | None:
    try:
        return evaluate(text).value
    except ExpressionError:
        return None


@given(st.text(alphabet=ALPHABET, max_size=14))
def test_agrees_with_pythons_grammar_on_any_text_of_its_alphabet(text: str) -> None:
    assert value_or_none(text) == oracle(text)


def test_agrees_with_pythons_grammar_on_every_short_text() -> None:
    texts = [""]
    for _ in range(5):
        texts = [text + character for text in texts for character in "03+-*()"]
        for text in texts:
            assert value_or_none(text) == oracle(text), text


def random_tree(rng: random.Random, num_leaves: int) -> str:
    if num_leaves == 1:
        return str(rng.randrange(100))
    split = rng.randrange(1, num_leaves)
    text = random_tree(rng, split) + rng.choice("+-*") + random_tree(rng, num_leaves - split)
    return f"({text})" if rng.random() < 0.6 else text


def test_agrees_with_pythons_grammar_on_random_expressions() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = random_tree(rng, rng.randrange(1, 9))
        found = evaluate(text)
        assert found.value == oracle(text), text
        assert list(found.numbers) == [int(digits) for digits in re.findall("[0-9]+", text)]


def test_normal_form_has_the_same_value_and_numbers_and_is_its_own_normal_form() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        found = evaluate(random_tree(rng, rng.randrange(1, 7)))
        again = evaluate(found.normal_form)
        assert (again.value, sorted(again.numbers)) == (found.value, sorted(found.numbers))
        assert again.normal_form == found.normal_form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2+(3+1)", "1+2+3"),
        ("2*(3*1)", "3*1*2"),
        ("9-(4-2)", "2+9-4"),
        ("9-4-2", "9-(2+4)"),
        ("(7-2)*9+3", "3+9*(7-2)"),
        ("((5))", "5"),
        ("(1+2)*(3+4)", "(4+3)*(2+1)"),
        ("10+9", "9+10"),
    ],
)
def test_order_and_grouping_do_not_matter_to_the_normal_form(one: str, other: str) -> None:
    assert evaluate(one).normal_form == evaluate(other).normal_form


@pytest.mark.parametrize(("one", "other"), [("2*2", "2+2"), ("3*(1+2)", "3*1+2*3"), ("5-5+1", "1*1"), ("4-1", "1+2")])
def test_different_ways_to_a_value_stay_different(one: str, other: str) -> None:
    assert evaluate(one).normal_form != evaluate(other).normal_form


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "empty"),
        ("   ", "not one of"),
        ("1 + 2", "not one of"),
        ("1+2\n", "not one of"),
        ("2**9", "expected a number"),
        ("8//2", "not one of"),
        ("8/2", "not one of"),
        ("-3+5", "expected a number"),
        ("+3", "expected a number"),
        ("3--2", "expected a number"),
        ("(3", "unclosed"),
        ("3)", "closes nothing"),
        (")(", "expected a number"),
        ("()", "expected a number"),
        ("2(3)", "expected an operator"),
        ("(2)3", "expected an operator"),
        ("3+", "ends where"),
        ("007", "leading zero"),
        ("00", "leading zero"),
        ("1_0", "not one of"),
        ("0x10", "not one of"),
        ("1e3", "not one of"),
        ("1.5", "not one of"),
        ("\u0663+\u0664", "not one of"),  # Arabic-Indic digits
        ("²", "not one of"),
        ("\uff13+\uff14", "not one of"),  # full-width digits
        ("3\u22122", "not one of"),  # the minus sign
        ("3×2", "not one of"),
        ("1\x00", "not one of"),
        ("\ud800", "not one of"),
        ("__import__('os').system('true')", "not one of"),
        ("1" * 7, "digits"),
    ],
)
def test_refuses_with_a_phrase_that_says_why(text: str, phrase: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(phrase)):
        evaluate(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10**5,
        "(" * 50_000 + "1" + ")" * 50_000,
        "9" * 10**6,
        "9*" * 10**6 + "9",
        "-" * 10**5,
        "1+" * 10**5,
        "\u0663" * 10**5,
    ],
    ids=["open", "nested", "digits", "product", "minus", "sum", "unicode"],
)
def test_hostile_lengths_are_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        evaluate(text)
    assert time.perf_counter() - start < 0.1


def test_wide_limits_need_no_recursion() -> None:
    depth = 20_000
    wide = ExpressionLimits(max_length=10**6, max_depth=depth, max_digits=10)
    assert evaluate("(" * depth + "7" + ")" * depth, wide).value == 7
    with pytest.raises(ExpressionError, match="nested"):
        evaluate("(" * (depth + 1) + "7" + ")" * (depth + 1), wide)


def test_limits_are_inclusive() -> None:
    limits = ExpressionLimits(max_length=5, max_depth=1, max_digits=3)
    assert evaluate("(123)", limits) == Expression(value=123, numbers=(123,), normal_form="123")
    for text in ("(123)+", "((1))", "1234"):
        with pytest.raises(ExpressionError):
            evaluate(text, limits)


def test_values_are_exact() -> None:
    assert evaluate("*".join(["999999"] * 14)).value == 999999**14
