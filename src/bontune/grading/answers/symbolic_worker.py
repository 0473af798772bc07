"""Decides in a worker process what exact arithmetic leaves open, with sympy; for LaTeX of its own, with math-verify.

Runs only in the workers of ``bontune.grading.workers``: it may take forever. It imports nothing else of this package.
Expressions come as the trees of ``bontune.grading.answers.values``, so no text that a model wrote reaches sympy's
parser, which is ``eval``. Decimals come as fractions: no floating-point comparison can take 1.414214 for √2.
"""

from __future__ import annotations

import logging
from functools import reduce
from operator import add, mul
from typing import Any

import sympy  # type: ignore[import-untyped]

_FUNCTIONS = {
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "cot": sympy.cot,
    "sec": sympy.sec,
    "csc": sympy.csc,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "ln": sympy.log,
    "abs": sympy.Abs,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
}
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}
_DIGITS = 30
_SIGN_MATTERS = ("abs", "floor", "ceil")


def decide(job: dict[str, Any]) -> bool:
    """Whether all ``pairs`` of trees are equal, or the two ``latex`` texts are.

    False means different or not shown to be equal.
    """
    if "latex" in job:
        return _latex_equal(*job["latex"])
    return all(_equal(a, b) for a, b in job["pairs"])


def _equal(a: list[Any], b: list[Any]) -> bool:
    is_positive = None if _uses(a, _SIGN_MATTERS) or _uses(b, _SIGN_MATTERS) else True
    difference = _built(a, is_positive) - _built(b, is_positive)
    if difference == 0:
        return True
    if _is_surely_nonzero(difference):
        return False
    return bool(sympy.simplify(difference) == 0 or difference.equals(0))


def _uses(tree: list[Any], names: tuple[str, ...]) -> bool:
    if tree[0] == "fn" and tree[1] in names:
        return True
    return any(_uses(part, names) for part in tree[1:] if isinstance(part, list))


def _is_surely_nonzero(difference: sympy.Expr) -> bool:
    """Evaluate at one rational point, with more digits than the caller's floats had."""
    letters = sorted(difference.free_symbols, key=str)
    point = {letter: sympy.Rational(7 + 4 * i, 5 + 3 * i) for i, letter in enumerate(letters)}
    value = difference.subs(point).evalf(_DIGITS)
    return bool(value.is_number and value.is_finite and abs(value) > sympy.Float(10) ** (10 - _DIGITS))


def _built(tree: list[Any], is_positive: bool | None) -> Any:
    kind, *parts = tree
    if kind == "num":
        return sympy.Rational(parts[0])
    if kind == "var":
        return sympy.Symbol(parts[0], positive=True) if is_positive else sympy.Symbol(parts[0], real=True)
    if kind == "const":
        return _CONSTANTS[parts[0]]
    if kind == "fn":
        return _FUNCTIONS[parts[0]](_built(parts[1], is_positive))
    if kind == "root":
        base, degree = _built(parts[0], is_positive), int(parts[1])
        return sympy.real_root(base, degree) if degree > 2 and base.is_real else sympy.root(base, degree)
    values = [_built(part, is_positive) for part in parts]
    if kind in ("add", "mul"):
        return reduce(add if kind == "add" else mul, values)
    if kind == "log":
        return sympy.log(values[1]) / sympy.log(values[0])
    two: dict[str, Any] = {"div": lambda x, y: x / y, "pow": lambda x, y: x**y, "binom": sympy.binomial}
    return two[kind](*values) if kind in two else sympy.factorial(values[0])


def _latex_equal(gold: str, answer: str) -> bool:
    """math-verify on notation that our grammar does not know; both must read as one exact expression each."""
    import math_verify  # type: ignore[import-untyped]

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
    read = []
    for text in (gold, answer):
        found = math_verify.parse(
            f"${text}$", [math_verify.LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )
        if len(found) != 1 or not isinstance(found[0], sympy.Expr) or found[0].atoms(sympy.Float):
            return False
        read.append(found[0])
    if read[0] == read[1]:
        return True
    if _is_surely_nonzero(read[0] - read[1]):
        return False
    return bool(math_verify.verify(read[0], read[1], float_rounding=15, timeout_seconds=None))
