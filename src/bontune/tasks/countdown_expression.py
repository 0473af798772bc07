"""Evaluate an arithmetic expression that a model wrote: ``+``, ``-``, ``*``, parentheses, exact integers.

The text is hostile until shown otherwise, so it is never handed to ``eval``: one pass with two stacks (Dijkstra's
shunting-yard), no recursion, and limits on length, nesting and digits checked before the work they bound.

    expression := operand (("+" | "-" | "*") operand)*        "*" binds tighter, equal operators group to the left
    operand    := number | "(" expression ")"
    number     := "0" | [1-9][0-9]*                           ASCII digits, no sign, no leading zero

Nothing else is allowed: no white space, no unary sign, no other script's digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_DIGITS = frozenset("0123456789")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


class ExpressionError(ValueError):
    """The text is no expression of the grammar, or exceeds a limit; the message is one phrase for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a text may cost. A value has at most ``max_length`` digits, as products add their factors' lengths."""

    max_length: int = 100
    """Characters in the whole text."""
    max_depth: int = 25
    """Parentheses open at once."""
    max_digits: int = 6
    """Digits of one number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """An expression's value and what it is made of."""

    value: int
    """Exact value of the expression."""
    numbers: tuple[int, ...]
    """The numbers written, in order of appearance."""
    normal_form: str
    """The same for texts that differ only in order and grouping of terms and factors: ``2+(3+1)`` gives ``1+2+3``.

    Itself an expression with the same value and numbers. Cancelling and distributing are not applied, so two
    different ways to reach a value stay two.
    """


@dataclass(frozen=True, slots=True)
class _Part:
    """A sub-expression, kept as the sum and as the product it can be merged into."""

    value: int
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    factors: tuple[str, ...]


DEFAULT_LIMITS = Limits()


def evaluate(text: str, limits: Limits = DEFAULT_LIMITS) -> Evaluation:
    """Evaluate ``text`` exactly.

    Args:
        text: what the model wrote, any string.
        limits: bounds on length, nesting and digits.

    Returns:
        The value, the numbers used and the normal form.

    Raises:
        ExpressionError: the text is empty, malformed or over a limit.

    Example:
        >>> evaluate("(7-2)*9+3").value
        48
        >>> evaluate("3+9*(7-2)").normal_form == evaluate("(7-2)*9+3").normal_form
        True
        >>> evaluate("3--2")
        Traceback (most recent call last):
        bontune.tasks.countdown_expression.ExpressionError: expected a number or '(' at character 3, found '-'
    """
    operands: list[_Part] = []
    operators: list[str] = []
    numbers: list[int] = []
    depth = 0
    operand_expected = True
    for position, token in _tokens(text, limits):
        if operand_expected != (token == "(" or token[0] in _DIGITS):
            wanted = "a number or '('" if operand_expected else "an operator or ')'"
            raise ExpressionError(f"expected {wanted} at character {position}, found {token!r}")
        if token == "(":
            depth += 1
            if depth > limits.max_depth:
                raise ExpressionError(f"more than {limits.max_depth} nested parentheses")
            operators.append(token)
        elif token == ")":
            if depth == 0:
                raise ExpressionError(f"')' at character {position} closes nothing")
            depth -= 1
            _reduce(operands, operators, 0)
            operators.pop()
        elif token in _PRECEDENCE:
            _reduce(operands, operators, _PRECEDENCE[token])
            operators.append(token)
            operand_expected = True
        else:
            numbers.append(int(token))
            operands.append(_Part(int(token), (token,), (), (token,)))
            operand_expected = False
    if operand_expected:
        raise ExpressionError("it ends where a number or '(' is expected" if text else "it is empty")
    if depth:
        raise ExpressionError(f"{depth} unclosed '('")
    _reduce(operands, operators, 0)
    (whole,) = operands
    return Evaluation(value=whole.value, numbers=tuple(numbers), normal_form=_render_sum(whole.plus, whole.minus))


def _tokens(text: str, limits: Limits) -> Iterator[tuple[int, str]]:
    """Yield numbers, operators and parentheses with the position (from 1) of their first character."""
    if len(text) > limits.max_length:
        raise ExpressionError(f"{len(text)} characters, more than {limits.max_length}")
    start = 0
    while start < len(text):
        end = start + 1
        if text[start] in _DIGITS:
            while end < len(text) and text[end] in _DIGITS:
                end += 1
            if end - start > limits.max_digits:
                raise ExpressionError(f"a number of {end - start} digits, more than {limits.max_digits}")
            if text[start] == "0" and end - start > 1:
                raise ExpressionError(f"a leading zero at character {start + 1}")
        elif text[start] not in _PRECEDENCE and text[start] not in "()":
            raise ExpressionError(f"character {start + 1} is {text[start]!a}, not one of 0123456789+-*()")
        yield start + 1, text[start:end]
        start = end


def _reduce(operands: list[_Part], operators: list[str], precedence: int) -> None:
    """Apply the pending operators that bind at least as tightly as ``precedence``, back to the last ``(``."""
    while operators and operators[-1] != "(" and _PRECEDENCE[operators[-1]] >= precedence:
        right = operands.pop()
        operands.append(_combine(operators.pop(), operands.pop(), right))


def _combine(operator: str, left: _Part, right: _Part) -> _Part:
    if operator == "*":
        factors = left.factors + right.factors
        return _Part(left.value * right.value, ("*".join(_ordered(factors)),), (), factors)
    if operator == "+":
        value, plus, minus = left.value + right.value, left.plus + right.plus, left.minus + right.minus
    else:
        value, plus, minus = left.value - right.value, left.plus + right.minus, left.minus + right.plus
    return _Part(value, plus, minus, (f"({_render_sum(plus, minus)})",))


def _render_sum(plus: tuple[str, ...], minus: tuple[str, ...]) -> str:
    return "+".join(_ordered(plus)) + "".join("-" + term for term in _ordered(minus))


def _ordered(texts: tuple[str, ...]) -> list[str]:
    return sorted(texts, key=lambda text: (len(text), text))
