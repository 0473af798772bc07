"""Exact values of closed forms: rational functions of letters, π, e, i and roots of rational numbers.

A value is a quotient of two sums of monomials with rational coefficients. Primes may have exponents between 0 and 1
(``\\sqrt{12}`` is 2·3^(1/2)); such monomials are linearly independent over the rationals (Besicovitch 1940), so
two values over them are equal exactly if they cross-multiply to the same sum. What has no such form (sin 1, nested
roots) enters as an opaque atom named by its own normal form: then sameness proves equality, difference proves nothing.

Letters stand for positive numbers where a root is taken: √(x²) = x.
Work is bounded by a budget, so a hostile expression ends in ``TooLarge`` after a fraction of a second on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from typing import Any, TypeAlias

MAX_DIGITS = 10_000
"""Digits of any number on the way."""
MAX_BITS = int(MAX_DIGITS * math.log2(10))
MAX_TERMS = 400
MAX_POWER_OF_SUM = 64
BUDGET = 15_000
"""Work one expression may cost, in products of small coefficients (up to 70 µs each)."""
MAX_ATOM_LENGTH = 200
PRIME_BOUND = 2_000
"""Radicands are divided by primes up to here; what is left above the square of it may be no prime."""

Tree: TypeAlias = tuple[Any, ...]
"""An expression as nested tuples: ``("num", "1/2")``, ``("var", "x")``, ``("const", "pi")``, ``("add", a, b, …)``,
``("mul", a, b, …)``, ``("div", a, b)``, ``("pow", a, b)``, ``("root", a, k)``, ``("fn", name, a)``,
``("log", base, a)``, ``("fact", a)``, ``("binom", a, b)``. JSON can carry it."""
_Generator: TypeAlias = tuple[str, str]
_Monomial: TypeAlias = tuple[tuple[_Generator, Fraction], ...]
_Sum: TypeAlias = dict[_Monomial, Fraction]

ONE: _Sum = {(): Fraction(1)}
_I: _Generator = ("const", "i")


class TooLarge(ValueError):
    """The value, or the way to it, exceeds a limit."""


class Undefined(ValueError):
    """The expression has no value: 0/0, 1/0, arithmetic with infinity."""


@dataclass(frozen=True, slots=True)
class Value:
    """A quotient of two sums."""

    numerator: _Sum
    denominator: _Sum

    @property
    def is_canonical(self) -> bool:
        """Whether a different form means a different value: no opaque atoms, and not both π and e."""
        generators = {g for s in (self.numerator, self.denominator) for monomial in s for g, _ in monomial}
        if any(kind in ("atom", "number") for kind, _ in generators):
            return False
        return not {("const", "pi"), ("const", "e")} <= generators

    @property
    def rational(self) -> Fraction | None:
        """The value as a fraction, None if it is no rational number."""
        if self.denominator != ONE or any(self.numerator.keys() - {()}):
            return None
        return self.numerator.get((), Fraction(0))

    def key(self) -> str:
        """A text that equal values mostly share; always so where the denominator has one term."""
        lead = self.denominator[min(self.denominator)]
        top = _render({m: c / lead for m, c in self.numerator.items()})
        bottom = _render({m: c / lead for m, c in self.denominator.items()})
        return top if bottom == "1" else f"({top})/({bottom})"


def exact_value(tree: Tree) -> Value:
    """Compute the exact value of an expression.

    Raises:
        TooLarge: a number, a sum or the work exceeds its limit.
        Undefined: there is no value.

    Example:
        >>> exact_value(("div", ("num", "1"), ("root", ("num", "8"), 2))).key()
        '1/4*2^(1/2)'
    """
    value = _Arithmetic().value(tree)
    coefficients = (c for s in (value.numerator, value.denominator) for c in s.values())
    if sum(c.numerator.bit_length() + c.denominator.bit_length() for c in coefficients) > 10 * MAX_BITS:
        raise TooLarge(f"coefficients of more than {10 * MAX_DIGITS} digits together")
    return value


def same(a: Value, b: Value) -> bool:
    """Whether the two forms are one value; exact in both directions if both are canonical."""
    work = _Arithmetic()
    return work.product(a.numerator, b.denominator) == work.product(b.numerator, a.denominator)


def proportional(a: Value, b: Value) -> Fraction | None:
    """The constant k ≠ 0 with a = k·b, None if there is none or both are zero."""
    work = _Arithmetic()
    left, right = work.product(a.numerator, b.denominator), work.product(b.numerator, a.denominator)
    if not left or left.keys() != right.keys():
        return None
    ratios = {left[m] / right[m] for m in left}
    return ratios.pop() if len(ratios) == 1 else None


def difference(a: Value, b: Value) -> Value:
    """Subtract b from a."""
    return _Arithmetic().added(a, _negated(b))


def _negated(value: Value) -> Value:
    return Value({m: -c for m, c in value.numerator.items()}, value.denominator)


class _Arithmetic:
    """Arithmetic of sums and quotients on a budget: what one expression may cost."""

    def __init__(self) -> None:
        self.budget = BUDGET

    def spend(self, *numbers: Fraction) -> None:
        bits = max(max(n.numerator.bit_length(), n.denominator.bit_length()) for n in numbers)
        if bits > MAX_BITS:
            raise TooLarge(f"a number of more than {MAX_DIGITS} digits")
        self.budget -= 1 + (bits // 128) ** 2 // 8  # gcd of two long integers is quadratic
        if self.budget < 0:
            raise TooLarge("too much work")

    def value(self, tree: Tree) -> Value:
        method: Callable[..., Value] = getattr(self, f"_{tree[0]}")
        return method(*tree[1:])

    def _num(self, text: str) -> Value:
        return _constant(Fraction(text))

    def _var(self, name: str) -> Value:
        return Value({((("var", name), Fraction(1)),): Fraction(1)}, ONE)

    def _const(self, name: str) -> Value:
        if name == "inf":
            raise Undefined("arithmetic with infinity")
        return Value({((("const", name), Fraction(1)),): Fraction(1)}, ONE)

    def _add(self, *terms: Tree) -> Value:
        total = self.value(terms[0])
        for term in terms[1:]:
            total = self.added(total, self.value(term))
        return total

    def _mul(self, *factors: Tree) -> Value:
        total = self.value(factors[0])
        for factor in factors[1:]:
            other = self.value(factor)
            total = self.multiplied(total, other.numerator, other.denominator)
        return total

    def _div(self, a: Tree, b: Tree) -> Value:
        top, bottom = self.value(a), self.value(b)
        return self.multiplied(top, bottom.denominator, bottom.numerator)

    def _pow(self, a: Tree, b: Tree) -> Value:
        base, exponent = self.value(a), self.value(b)
        power = exponent.rational
        if power is None:
            return self._atom("pow", base, exponent)
        if base.rational == 0 and power <= 0:
            raise Undefined("zero to a power that is not positive")
        if power.denominator == 1:
            return self._integer_power(base, power.numerator)
        is_negative = base.rational is not None and base.rational < 0
        raised = None if is_negative else self._rooted(base, power)
        return raised or self._atom("pow", base, exponent)

    def _root(self, a: Tree, k: int) -> Value:
        base = self.value(a)
        is_negative = base.rational is not None and base.rational < 0
        rooted = None
        if not (is_negative and k > 2 and k % 2 == 0):
            rooted = self._rooted(_negated(base) if is_negative else base, Fraction(1, k))
        if rooted is None:
            return self._atom(f"root{k}", base)
        if not is_negative:
            return rooted
        sign: _Sum = {((_I, Fraction(1)),): Fraction(1)} if k == 2 else {(): Fraction(-1)}
        return self.quotient(self.product(rooted.numerator, sign), rooted.denominator)

    def _fn(self, name: str, a: Tree) -> Value:
        inner = self.value(a)
        number = inner.rational
        if number is not None and name in ("abs", "floor", "ceil"):
            whole = math.floor(number) if name == "floor" else math.ceil(number)
            return _constant(abs(number) if name == "abs" else Fraction(whole))
        return self._atom(name, inner)

    def _log(self, base: Tree, a: Tree) -> Value:
        return self._atom("log", self.value(base), self.value(a))

    def _fact(self, a: Tree) -> Value:
        number = self.value(a).rational
        if number is None or number.denominator != 1 or number < 0:
            raise Undefined("a factorial of what is no natural number")
        if number > 3_000:  # 3000! has 9,131 digits
            raise TooLarge("a factorial beyond 3000!")
        return self._checked(Fraction(math.factorial(number.numerator)))

    def _binom(self, a: Tree, b: Tree) -> Value:
        n, k = self.value(a).rational, self.value(b).rational
        if n is None or k is None or n.denominator != 1 or k.denominator != 1 or n < 0 or k < 0:
            raise Undefined("a binomial coefficient of what are no natural numbers")
        if min(k, n - k) > 3_000 or n > 10**9:
            raise TooLarge("a binomial coefficient beyond the limits")
        return self._checked(Fraction(math.comb(n.numerator, k.numerator)))

    def _checked(self, number: Fraction) -> Value:
        self.spend(number)
        return _constant(number)

    def _atom(self, name: str, *arguments: Value) -> Value:
        text = f"{name}({';'.join(argument.key() for argument in arguments)})"
        if len(text) > MAX_ATOM_LENGTH:  # powers of sums of atoms within atoms would grow without bound
            text = f"{name}({sha256(text.encode()).hexdigest()})"
        return Value({((("atom", text), Fraction(1)),): Fraction(1)}, ONE)

    def multiplied(self, value: Value, top: _Sum, bottom: _Sum) -> Value:
        return self.quotient(self.product(value.numerator, top), self.product(value.denominator, bottom))

    def added(self, a: Value, b: Value) -> Value:
        if a.denominator == b.denominator:
            return self.quotient(self.sum(a.numerator, b.numerator), a.denominator)
        top = self.sum(self.product(a.numerator, b.denominator), self.product(b.numerator, a.denominator))
        return self.quotient(top, self.product(a.denominator, b.denominator))

    def sum(self, a: _Sum, b: _Sum) -> _Sum:
        total = dict(a)
        for monomial, coefficient in b.items():
            new = total.get(monomial, Fraction(0)) + coefficient
            self.spend(new)
            if new:
                total[monomial] = new
            else:
                del total[monomial]
        if len(total) > MAX_TERMS:
            raise TooLarge(f"a sum of more than {MAX_TERMS} terms")
        return total

    def product(self, a: _Sum, b: _Sum) -> _Sum:
        if a == ONE:
            return b
        if b == ONE:
            return a
        # Each pair of monomials is paid for before it is multiplied, so that the budget bounds the time.
        total: _Sum = {}
        for monomial_a, coefficient_a in a.items():
            for monomial_b, coefficient_b in b.items():
                self.spend(coefficient_a, coefficient_b)
                monomial, factor = _joined(monomial_a, monomial_b)
                new = total.get(monomial, Fraction(0)) + coefficient_a * coefficient_b * factor
                if new:
                    self.spend(new)
                    total[monomial] = new
                else:
                    total.pop(monomial, None)
            if len(total) > MAX_TERMS:
                raise TooLarge(f"a sum of more than {MAX_TERMS} terms")
        return total

    def quotient(self, top: _Sum, bottom: _Sum) -> Value:
        if not bottom:
            raise Undefined("division by zero")
        if not top:
            return _constant(Fraction(0))
        if bottom == ONE or len(bottom) > 1:
            return Value(top, bottom)
        ((monomial, coefficient),) = bottom.items()  # one term divides into every other: 1/√2 is √2/2
        inverse, factor = _joined(tuple((g, -e) for g, e in monomial), ())
        return Value(self.product(top, {inverse: factor / coefficient}), ONE)

    def _integer_power(self, base: Value, power: int) -> Value:
        top, bottom = (base.numerator, base.denominator) if power >= 0 else (base.denominator, base.numerator)
        if power < 0 and not bottom:
            raise Undefined("division by zero")
        return self.quotient(self._sum_power(top, abs(power)), self._sum_power(bottom, abs(power)))

    def _sum_power(self, base: _Sum, power: int) -> _Sum:
        if not base or base == ONE:
            return base if power else ONE
        if len(base) == 1:
            ((monomial, coefficient),) = base.items()
            bits = max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length()) - 1
            primes = sum(e * int(g[1]).bit_length() for g, e in monomial if g[0] in ("prime", "number"))
            if (bits + primes) * power > MAX_BITS or power.bit_length() > 64:
                raise TooLarge(f"a power of more than {MAX_DIGITS} digits")
            raised, factor = _joined(tuple((g, e * power) for g, e in monomial), ())
            return {raised: coefficient**power * factor}
        if power > MAX_POWER_OF_SUM:
            raise TooLarge(f"a sum to a power above {MAX_POWER_OF_SUM}")
        total = ONE
        for _ in range(power):
            total = self.product(total, base)
        return total

    def _rooted(self, base: Value, power: Fraction) -> Value | None:
        """Compute base^power for a base of one term with a positive coefficient; None for any other base."""
        if not base.numerator:
            return base
        if len(base.numerator) > 1 or len(base.denominator) > 1 or abs(power) > 10**6:
            return None
        ((monomial, coefficient),) = base.numerator.items()
        if coefficient < 0 or any(g == _I for g, _ in monomial) or base.denominator != ONE:
            return None
        raised: dict[_Generator, Fraction] = {g: e * power for g, e in monomial}
        for number, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
            for generator, exponent in self._factors(number):
                raised[generator] = raised.get(generator, Fraction(0)) + exponent * sign * power
        bits = sum(abs(e) * int(g[1]).bit_length() for g, e in raised.items() if g[0] in ("prime", "number"))
        if bits > MAX_BITS:
            raise TooLarge(f"a power of more than {MAX_DIGITS} digits")
        whole, factor = _joined(tuple(sorted(raised.items())), ())
        return Value({whole: factor}, ONE)

    def _factors(self, number: int) -> list[tuple[_Generator, int]]:
        """Prime factors below the bound, and the rest as one more, called a number unless it is surely prime."""
        factors: list[tuple[_Generator, int]] = []
        if number.bit_length() > 512:
            raise TooLarge("a root of a long number")
        divisor = 2
        while divisor <= PRIME_BOUND and divisor * divisor <= number:
            count = 0
            while number % divisor == 0:
                number //= divisor
                count += 1
            if count:
                factors.append((("prime", str(divisor)), count))
            divisor += 1 if divisor == 2 else 2
        if number > 1:
            base, power = _as_power(number)
            factors.append((("prime" if base <= PRIME_BOUND**2 else "number", str(base)), power))
        return factors


def _as_power(number: int) -> tuple[int, int]:
    """Write a number without small factors as a base and the highest exponent up to 8."""
    for power in range(8, 1, -1):
        low, high = 1, 1 << (number.bit_length() // power + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**power <= number else (low, middle - 1)
        if low**power == number:
            return low, power
    return number, 1


def _constant(number: Fraction) -> Value:
    return Value({(): number} if number else {}, ONE)


def _joined(a: _Monomial, b: _Monomial) -> tuple[_Monomial, Fraction]:
    """The product of two monomials in normal form and the rational factor that came out of it."""
    if not a and not b:
        return (), Fraction(1)
    exponents: dict[_Generator, Fraction] = dict(a)
    for generator, exponent in b:
        exponents[generator] = exponents.get(generator, Fraction(0)) + exponent
    factor = Fraction(1)
    for generator, exponent in list(exponents.items()):
        if generator == _I:
            turns = int(exponent) % 4
            factor *= -1 if turns >= 2 else 1
            exponents[generator] = Fraction(turns % 2)
        elif generator[0] in ("prime", "number"):
            whole = math.floor(exponent)
            factor *= Fraction(int(generator[1])) ** whole
            exponents[generator] = exponent - whole
    return tuple(sorted((g, e) for g, e in exponents.items() if e)), factor


def _render(terms: _Sum) -> str:
    if not terms:
        return "0"
    texts = []
    for monomial, coefficient in sorted(terms.items()):
        factors = [name if e == 1 else f"{name}^({e})" for (_, name), e in monomial]
        if coefficient != 1 or not factors:
            factors.insert(0, _render_fraction(coefficient))
        texts.append("*".join(factors))
    return "+".join(texts)


def _render_fraction(number: Fraction) -> str:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) < 4_000:
        return str(number)
    return f"{number.numerator:#x}/{number.denominator:#x}"  # Python refuses to write more than 4,300 decimal digits


def isolated(trees: Sequence[Tree], operators: Sequence[str]) -> tuple[list[Tree], list[str]] | None:
    """Bring the one letter of an inequality to a side of its own: ``-x < 1`` becomes ``-1 < x``.

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
    with_letter = [i for i, tree in enumerate(sides) if letters_of(tree)]
    if len(with_letter) != 1 or (len(sides) == 3 and with_letter != [1]):
        return None
    middle = sides[with_letter[0]]
    slope = _slope(middle, name)
    if slope is None:
        return None
    rest = _with_number(middle, name, "0")
    sides = [
        ("var", name) if i == with_letter[0] else _times(("add", tree, _times(rest, Fraction(-1))), 1 / slope)
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
    value = exact_value(tree)
    letter = (("var", name), Fraction(1))
    others = [monomial for monomial in value.numerator if monomial != (letter,)]
    is_linear = value.denominator == ONE and all(
        kind in ("const", "prime", "number") for monomial in others for (kind, _), _ in monomial
    )
    return value.numerator.get((letter,)) if is_linear else None


def _with_number(tree: Tree, name: str, number: str) -> Tree:
    """An expression with a number in place of a letter."""
    if tree == ("var", name):
        return ("num", number)
    return tuple(_with_number(part, name, number) if isinstance(part, tuple) else part for part in tree)
