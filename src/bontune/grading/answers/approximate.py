"""Numbers with an error bound: cheap proof that two expressions differ.

Each value is a complex float and a bound on how far the true value may lie from it. Two expressions differ for certain
if their values lie further apart than the two bounds; nothing is ever proven equal here.
"""

from __future__ import annotations

import cmath
import math
from fractions import Fraction
from functools import reduce
from hashlib import sha256
from typing import TypeAlias

from bontune.grading.answers.values import Tree

_EPSILON = 1e-15
_SAFETY = 16.0
_RECIPROCALS = {"sec": "cos", "csc": "sin", "cot": "tan"}
_OTHER_NAMES = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
"""Functions that cmath calls by other names than ``values.Tree`` does."""
_Number: TypeAlias = tuple[complex, float]
_ONE: _Number = (1 + 0j, 0.0)


class Unknown(ValueError):
    """The expression has no finite value with a finite error bound."""


def surely_different(a: Tree, b: Tree) -> bool:
    """Whether the expressions differ for some value of their letters.

    Letters are tried at positive values only, unless an absolute value or rounding occurs.
    """
    if _is_huge(a) != _is_huge(b):
        other = b if _is_huge(a) else a
        try:
            return abs(_value(other, 0, 1)[0]) < 1e100
        except (ArithmeticError, ValueError):
            return False
    signs = (1, -1) if {"abs", "floor", "ceil"} & (_functions(a) | _functions(b)) else (1,)
    for point in range(2):
        for sign in signs:
            try:
                (x, error_x), (y, error_y) = _value(a, point, sign), _value(b, point, sign)
            except (ArithmeticError, ValueError):
                continue
            if abs(x - y) > 2 * (error_x + error_y):
                return True
    return False


def _is_huge(tree: Tree) -> bool:
    """Whether a power is surely above 1e100: a tower of exponents exceeds floats, and sympy's patience."""
    if tree[0] != "pow":
        return False
    try:
        base, error = _value(tree[1], 0, 1)
        if base.imag != 0 or base.real - error < 1.5:
            return False
        if _is_huge(tree[2]):
            return True
        exponent, error = _value(tree[2], 0, 1)
    except (ArithmeticError, ValueError):
        return False
    return exponent.imag == 0 and exponent.real - error > 1_000


def _functions(tree: Tree) -> set[str]:
    names = {str(tree[1])} if tree[0] == "fn" else set()
    return names.union(*(_functions(part) for part in tree[1:] if isinstance(part, tuple)))


def _value(tree: Tree, point: int, sign: int) -> _Number:
    kind = tree[0]
    if kind == "num":
        number = complex(float(Fraction(tree[1])))
        return number, _rounding(number)
    if kind == "var":
        digest = sha256(f"{point}{tree[1]}".encode()).digest()
        return complex(sign * (0.5 + int.from_bytes(digest[:6], "big") / 2**47)), 0.0
    if kind == "const":
        if tree[1] == "inf":
            raise Unknown
        return 1j if tree[1] == "i" else complex(getattr(math, tree[1])), _EPSILON * 4
    if kind == "root":
        return _root(_value(tree[1], point, sign), int(tree[2]))
    if kind == "fn":
        return _function(str(tree[1]), _value(tree[2], point, sign))
    parts = [_value(part, point, sign) for part in tree[1:]]
    if kind in ("add", "mul"):
        return reduce(_sum if kind == "add" else _product, parts)
    if kind == "div":
        return _quotient(*parts)
    if kind == "pow":
        return _power(*parts)
    if kind == "log":
        return _quotient(_function("ln", parts[1]), _function("ln", parts[0]))
    raise Unknown


def _rounding(value: complex) -> float:
    if not cmath.isfinite(value):
        raise Unknown
    return _EPSILON * abs(value) + 1e-300


def _sum(a: _Number, b: _Number) -> _Number:
    value = a[0] + b[0]
    return value, a[1] + b[1] + _rounding(value)


def _product(a: _Number, b: _Number) -> _Number:
    value = a[0] * b[0]
    return value, abs(a[0]) * b[1] + abs(b[0]) * a[1] + a[1] * b[1] + 4 * _rounding(value)


def _quotient(a: _Number, b: _Number) -> _Number:
    smallest = abs(b[0]) - b[1]
    if smallest <= 0:
        raise Unknown
    value = a[0] / b[0]
    return value, (a[1] + abs(value) * b[1]) / smallest + 4 * _rounding(value)


def _power(a: _Number, b: _Number) -> _Number:
    if b[0].imag == 0 and b[0].real == int(b[0].real) and abs(b[0].real) <= 4096 and b[1] < 1e-11:
        n = int(b[0].real)
        total, square = _ONE, a
        for bit in reversed(bin(abs(n))[2:]):
            if bit == "1":
                total = _product(total, square)
            square = _product(square, square) if abs(square[0]) < 1e100 else square
        if abs(n) > 1 and abs(a[0]) ** abs(n) > 1e100:
            raise Unknown
        return total if n >= 0 else _quotient(_ONE, total)
    if abs(a[0].imag) <= a[1] and a[0].real <= a[1]:
        raise Unknown  # on the cut of the logarithm: conventions differ
    exponent = _product(b, _function("ln", a))
    return _function("exp", exponent)


def _root(a: _Number, k: int) -> _Number:
    if abs(a[0]) <= a[1]:
        raise Unknown
    is_real = abs(a[0].imag) <= a[1]
    if is_real and a[0].real < 0:
        size, error = _root((-a[0], a[1]), k)
        if k == 2:
            return size * 1j, error
        if k % 2:
            return -size, error
        raise Unknown
    value = a[0] ** (1 / k)
    return value, abs(value) * a[1] / (abs(a[0]) - a[1]) + _SAFETY * _rounding(value)


def _function(name: str, a: _Number) -> _Number:
    """Compute f(a); the bound is the larger of |f(a ± error) − f(a)| and the derivative's, with a safety factor."""
    x, error = a
    if name in ("abs", "floor", "ceil"):
        if name == "abs":
            return complex(abs(x)), error + _rounding(x)
        if abs(x.imag) > error or abs(x.real - round(x.real)) <= error + 1e-9:
            raise Unknown
        return complex(math.floor(x.real) if name == "floor" else math.ceil(x.real)), 0.0
    if error > 1e-3 * max(1.0, abs(x)) or abs(x) > 1e6:
        raise Unknown
    if (
        name in ("ln", "arcsin", "arccos")
        and abs(x.imag) <= error
        and (x.real <= error if name == "ln" else abs(x) >= 1)
    ):
        raise Unknown  # on or near a cut
    if name in _RECIPROCALS:
        return _quotient(_ONE, _function(_RECIPROCALS[name], a))
    f = getattr(cmath, _OTHER_NAMES.get(name, name))
    value = f(x)
    step = max(error, 1e-7 * max(1.0, abs(x)))
    slope = max(abs(f(x + step) - value), abs(f(x - step) - value)) / step
    return value, _SAFETY * (slope * error + _EPSILON * (abs(value) + slope * abs(x)))
