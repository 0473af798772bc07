"""Exact values against mpmath with 60 digits, and error bounds that must never claim too much."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bontune.grading.answers import values as exact
from bontune.grading.answers.approximate import surely_different
from bontune.grading.answers.values import TooLarge, Tree, Undefined, exact_value

NUMBERS = st.integers(-12, 12).map(lambda n: ("num", str(n)))
ROOTS = st.builds(lambda n, k: ("root", ("num", str(n)), k), st.integers(1, 60), st.sampled_from([2, 2, 3]))
LEAVES = st.one_of(NUMBERS, ROOTS, st.just(("const", "pi")), st.just(("const", "i")))
TREES: st.SearchStrategy[Tree] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("add"), inner, inner),
        st.tuples(st.just("mul"), inner, inner),
        st.tuples(st.just("div"), inner, inner),
        st.tuples(st.just("pow"), inner, st.integers(-3, 3).map(lambda n: ("num", str(n)))),
    ),
    max_leaves=8,
)


def numeric(tree: Tree) -> mpmath.mpc:
    """The same expression by another implementation."""
    kind, *parts = tree
    if kind == "num":
        return mpmath.mpc(int(parts[0]))
    if kind == "const":
        return {"pi": mpmath.pi, "i": mpmath.mpc(0, 1)}[parts[0]] + mpmath.mpc(0)
    if kind == "root":
        return mpmath.root(numeric(parts[0]), parts[1])
    a, b = map(numeric, parts)
    return {"add": lambda: a + b, "mul": lambda: a * b, "div": lambda: a / b, "pow": lambda: a ** int(b.real)}[kind]()


@settings(max_examples=400, deadline=None)
@given(TREES, TREES)
def test_sameness_is_decided_as_sixty_digits_do(a: Tree, b: Tree) -> None:
    with mpmath.workdps(60):
        try:
            values = exact_value(a), exact_value(b)
        except Undefined:
            return
        except TooLarge:
            assume(False)
        difference = abs(numeric(a) - numeric(b))
        scale = 1 + abs(numeric(a))
        assert exact.same(*values) == (difference / scale < mpmath.mpf(10) ** -35)
        assert values[0].is_canonical
        if exact.same(*values):
            assert not surely_different(a, b)


@settings(max_examples=300, deadline=None)
@given(TREES, TREES)
def test_rewritten_expressions_are_the_same_and_never_surely_different(a: Tree, b: Tree) -> None:
    minus_b: Tree = ("mul", ("num", "-1"), b)
    pairs: list[tuple[Tree, Tree]] = [
        (("add", a, b, minus_b), a),
        (("mul", ("add", a, b), ("add", a, minus_b)), ("add", ("mul", a, a), ("mul", minus_b, b))),
        (("div", ("mul", a, b), b), a),
    ]
    for left, right in pairs:
        try:
            values = exact_value(left), exact_value(right)
        except (Undefined, TooLarge):
            continue
        assert exact.same(*values)
        assert not surely_different(left, right)


@settings(deadline=None)
@given(st.fractions(min_value=0, max_denominator=10**4, max_value=10**4), st.integers(2, 4))
def test_roots_of_powers_of_fractions_are_the_fractions(value: Fraction, k: int) -> None:
    rooted = exact_value(("root", ("num", str(value**k)), k))
    assert rooted.rational == value


@pytest.mark.parametrize(
    "tree",
    [
        ("pow", ("num", "9"), ("pow", ("num", "9"), ("num", "9"))),
        ("fact", ("num", "100000")),
        ("binom", ("num", "1000000"), ("num", "500000")),
        ("pow", ("add", ("var", "x"), ("num", "1")), ("num", "1000000")),
        ("root", ("num", "7" * 1500), 2),
    ],
)
def test_what_is_too_large_is_not_computed(tree: Tree) -> None:
    with pytest.raises(TooLarge):
        exact_value(tree)


def test_no_value() -> None:
    zero: Tree = ("add", ("root", ("num", "8"), 2), ("mul", ("num", "-2"), ("root", ("num", "2"), 2)))
    for tree in [("div", ("num", "1"), zero), ("pow", zero, ("num", "-1")), ("pow", zero, zero), ("const", "inf")]:
        with pytest.raises(Undefined):
            exact_value(tree)
    assert exact_value(zero).rational == 0


def test_large_primes_under_a_root_are_left_to_others() -> None:
    composite = (10**9 + 7) * (10**9 + 9)
    assert not exact_value(("root", ("num", str(composite)), 2)).is_canonical
    assert exact_value(("root", ("num", str((10**5 + 3) ** 2)), 2)).rational == 10**5 + 3
    assert math.isqrt(composite) ** 2 != composite
