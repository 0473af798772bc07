"""Inequalities that are linear in one letter, with the letter alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from bontune.answers import exact_value
from bontune.answers.exact_value import Tree


def isolate(trees: Sequence[Tree], operators: Sequence[str]) -> tuple[list[Tree], list[str]] | None:
    """``-x < 1`` as ``-1 < x``, ``3 < 2x + 1 < 5`` as ``1 < x < 2``.

    Args:
        trees: two or three sides.
        operators: ``<`` or ``<=`` between them.

    Returns:
        Sides and operators with the letter alone on one side; None if there is not one letter, on one of the sides, or
        the side is not linear in it with a rational factor.
    """
    letters = {name for tree in trees for name in letters_of(tree)}
    if len(letters) != 1:
        return None
    (name,) = letters
    sides = list(trees)
    if len(sides) == 2:
        sides = [("add", sides[0], _times(sides[1], Fraction(-1))), ("num", "0")]
    holding = [i for i, tree in enumerate(sides) if letters_of(tree)]
    if len(holding) != 1 or (len(sides) == 3 and holding != [1]):
        return None
    middle = sides[holding[0]]
    slope = _slope(middle, name)
    if slope is None:
        return None
    rest = _put(middle, name, "0")
    sides = [
        ("var", name) if i == holding[0] else _times(("add", tree, _times(rest, Fraction(-1))), 1 / slope)
        for i, tree in enumerate(sides)
    ]
    return (sides, list(operators)) if slope > 0 else (sides[::-1], list(operators)[::-1])


def letters_of(tree: Tree) -> frozenset[str]:
    """Names of the letters in an expression."""
    if tree[0] == "var":
        return frozenset((tree[1],))
    return frozenset(name for part in tree[1:] if isinstance(part, tuple) for name in letters_of(part))


def _times(tree: Tree, factor: Fraction) -> Tree:
    return ("mul", ("num", str(factor)), tree)


def _slope(tree: Tree, name: str) -> Fraction | None:
    """The rational factor of a letter in an expression that is linear in it; None if it is not."""
    value = exact_value.evaluate(tree)
    letter = (("var", name), Fraction(1))
    others = [monomial for monomial in value.numerator if monomial != (letter,)]
    is_linear = value.denominator == exact_value.ONE and all(
        kind in ("const", "prime", "number") for monomial in others for (kind, _), _ in monomial
    )
    return value.numerator.get((letter,)) if is_linear else None


def _put(tree: Tree, name: str, number: str) -> Tree:
    """An expression with a number in place of a letter."""
    if tree == ("var", name):
        return ("num", number)
    return tuple(_put(part, name, number) if isinstance(part, tuple) else part for part in tree)
