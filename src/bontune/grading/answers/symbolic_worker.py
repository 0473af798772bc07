"""Decide in a worker process what exact arithmetic leaves open: with sympy, or with math-verify for LaTeX.

It runs only in the workers of ``bontune.grading.workers``: it may take forever. It imports nothing of this package.
Expressions come as the trees of ``bontune.grading.answers.values``, so no text that a model wrote reaches sympy's
parser, which is ``eval``. Decimals come as fractions: no floating-point comparison can take 1.414214 for √2.
"""

from __future__ import annotations

import logging
from functools import reduce
from operator import add, mul, pow, truediv
from typing import Any

import sympy  # type: ignore[import-untyped]

_OTHER_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "abs": "Abs", "ceil": "ceiling"}
"""Functions that sympy calls by other names than ``values.Tree`` does."""
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
    """Whether the difference is not 0 at one rational point, with more digits than the caller's floats had."""
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
        function = getattr(sympy, _OTHER_NAMES.get(parts[0], parts[0]))
        return function(_built(parts[1], is_positive))
    if kind == "root":
        base, degree = _built(parts[0], is_positive), int(parts[1])
        return sympy.real_root(base, degree) if degree > 2 and base.is_real else sympy.root(base, degree)
    values = [_built(part, is_positive) for part in parts]
    if kind in ("add", "mul"):
        return reduce(add if kind == "add" else mul, values)
    if kind == "log":
        return sympy.log(values[1]) / sympy.log(values[0])
    functions: dict[str, Any] = {"div": truediv, "pow": pow, "binom": sympy.binomial, "fact": sympy.factorial}
    return functions[kind](*values)


def _latex_equal(gold: str, answer: str) -> bool:
    """Ask math-verify about notation that our grammar does not know; both must read as one exact expression each."""
    import math_verify  # type: ignore[import-untyped]

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)
    expressions = []
    for text in (gold, answer):
        results = math_verify.parse(
            f"${text}$", [math_verify.LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None
        )
        if len(results) != 1 or not isinstance(results[0], sympy.Expr) or results[0].atoms(sympy.Float):
            return False
        expressions.append(results[0])
    a, b = expressions
    if a == b:
        return True
    if _is_surely_nonzero(a - b):
        return False
    return bool(math_verify.verify(a, b, float_rounding=15, timeout_seconds=None))
