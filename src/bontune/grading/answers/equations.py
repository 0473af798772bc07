r"""A solution as a chain of equations, such as ``12 / 3 = 4`` and then ``4 + 5 = 9``: not only the answer is graded.

Each equation must be true, each number that it computes with must stand in the problem or be an earlier result, and the
last result is the answer. Equations are read by the parser of this module and never run as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from bontune.grading.answers.notation import plain
from bontune.grading.answers.numbers import MAX_NUMBER_LENGTH, numbers_in, tidy
from bontune.grading.verdict import Grade, Verdict

MAX_EQUATIONS = 64
"""Equations of a chain; a longer one is refused."""
MAX_EQUATION_LENGTH = 200
"""Characters of an equation; a longer one is refused."""
MAX_DIGITS = 15
"""Digits of a number in an equation before and behind the point."""

ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
"""Matches an equation as GSM8K annotates it."""
_PARTS = re.compile(r"[\n;]+")
_FINAL = re.compile(r"####\s*(.*)")
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]{{1,{MAX_DIGITS}}})(?:\.[0-9]{{1,{MAX_DIGITS}}})?"
    rf"|\.[0-9]{{1,{MAX_DIGITS}}})(?![0-9.,]*[0-9])(?P<percent>\s?%)?|(?P<sign>[-+*/()]))"
)
_PRIORITY = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3}
_SIGNS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": " ", "€": " ", "£": " ", "x": "*", "X": "*"}
)

_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = {
    word: 10 * number
    for number, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
}
_UNITS = {word: number for number, word in enumerate(_NAMES.split(" "))}
_OTHERS = """
    once 1, single 1, both 2, couple 2, pair 2, twice 2, double 2, doubled 2, half 2, halves 2, triple 3, tripled 3
    thrice 3, third 3, quarter 4 25, quadruple 4, fourth 4, fifth 5, sixth 6, seventh 7, eighth 8, ninth 9, tenth 10
    dozen 12, hundred 100, thousand 1000, million 1000000, percent 100
    nickel 5 100, dime 10 100, cent 100, dollar 100
    minute 60, hour 60 24, day 7 24, daily 7, week 7 5 2 4 52, weekly 4 52, month 12 30 4, monthly 12, year 12 52 365
    yearly 12, decade 10, century 100
    foot 12 3, feet 12 3, inch 12, yard 3, mile 5280, pound 16, ounce 16, gallon 4 8 16 128, quart 4
    kilometer 1000, km 1000, meter 100 1000, kilogram 1000, kg 1000, liter 1000
"""
_WORDS = {word: (number,) for word, number in (_UNITS | _TENS).items()} | {
    entry.split()[0]: tuple(map(int, entry.split()[1:]))
    for entry in _OTHERS.replace("\n", ",").split(",")
    if entry.strip()
}
"""Numbers that a word stands for: number words, and what is counted in a unit that the problem names."""
_WORD = re.compile(r"[a-z]+")
_OF_A_WHOLE = re.compile(r"%|\b(?:percent|half|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)")


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation whose left side computes what its right side states."""

    operands: tuple[Fraction, ...]
    """Numbers that the left side computes with, without their signs."""
    value: Fraction | None
    """Value of the left side; None if it divides by zero."""
    result: Fraction
    """The number on the right side."""
    places: int
    """Decimal places in which the result is written."""
    has_quotient: bool
    """Whether the left side divides."""

    @property
    def is_true(self) -> bool:
        """Return whether both sides are equal; a quotient may be rounded to at least two decimal places."""
        if self.value is None or self.value == self.result:
            return self.value is not None
        is_rounded = self.has_quotient and self.places >= 2 and self.result != 0
        return is_rounded and abs(self.value - self.result) <= Fraction(1, 2 * 10**self.places)


@dataclass(frozen=True, slots=True)
class Way:
    """A chain of true equations: what it needs of a problem, and what it comes to."""

    result: Fraction
    """The last result, which must be the problem's answer."""
    operands: frozenset[Fraction]
    """Numbers that it computes with and that are no earlier results: they must stand in the problem."""


def way_of(completion: str) -> Way | None:
    """Read a chain without its problem; None if it is the way to no answer, whatever the problem is.

    It passes :func:`grade_equations` for just those problems whose answer is its result, and in whose text its operands
    stand (:func:`numbers_of`).

    Example:
        >>> way = way_of("3 * 4 = 12\\n12 + 5 = 17")
        >>> str(way.result), sorted(map(str, way.operands)), way_of("3 * 4 = 13")
        ('17', ['3', '4', '5'], None)
    """
    texts, final = _split(completion)
    known: set[Fraction] = set()
    operands: set[Fraction] = set()
    equation = None
    for text in texts if len(texts) <= MAX_EQUATIONS else ():
        equation = _read(text)
        if equation is None or not equation.is_true:
            return None
        operands |= {*equation.operands} - known
        known.add(abs(equation.result))
    if equation is None or len(equation.operands) < 2:
        return None
    if final is not None and (_number(final) or [None])[0] != equation.result:
        return None
    return Way(equation.result, frozenset(operands))


def grade_equations(problem: str, reference: Fraction, completion: str) -> Grade:
    """Grade a solution that is a chain of equations.

    Equations stand one in a line, or between ``;``; where a text holds annotations such as ``<<48/2=24>>``, these are
    its equations and the words around them are not read. A last line ``#### 72`` may repeat the answer. ``+``, ``-``,
    ``*`` (also ``×``, ``·``, ``x``), ``/`` (also ``÷``), brackets, decimals, thousands separators and ``20%`` are
    understood. A quotient may be rounded to two or more decimal places. A line may repeat a number, but the last one
    must compute: a chain that only copies has no way.

    Args:
        problem: its text, where the numbers must stem from: digits, number words, and constants of the units that it
            names, such as 7 where there are weeks; 1 and 100 belong to parts of a whole.
        reference: the right answer.
        completion: the solution.

    Returns:
        The grade; its answer is the last result that could be read.

    Example:
        >>> text = "Each of 3 boxes holds 4 pens. Ann adds 5 pens. How many are there?"
        >>> grade_equations(text, Fraction(17), "3 * 4 = 12\\n12 + 5 = 17").verdict.value
        'passed'
        >>> grade_equations(text, Fraction(17), "10 + 7 = 17").reason
        '10 stands neither in the problem nor in an earlier line'
    """
    texts, final = _split(completion)
    if len(texts) > MAX_EQUATIONS:
        return _failed(None, f"it has more than {MAX_EQUATIONS} equations")
    equations = [_read(text) for text in texts]
    answer = next((str(equation.result) for equation in reversed(equations) if equation is not None), None)
    if not equations:
        return _failed(None, "it holds no equation")
    known, does_compute = numbers_of(problem), False
    for number, equation in enumerate(equations, start=1):
        if equation is None:
            return _failed(answer, f"line {number} is no equation of numbers")
        foreign = next((operand for operand in equation.operands if operand not in known), None)
        if foreign is not None:
            return _failed(answer, f"{foreign} stands neither in the problem nor in an earlier line")
        if not equation.is_true:
            return _failed(answer, f"the equation in line {number} is false")
        known.add(abs(equation.result))
        does_compute = len(equation.operands) > 1
    if not does_compute:
        return _failed(answer, "the last equation computes nothing")
    if answer != str(reference):
        return _failed(answer, f"{answer}, not {reference}")
    if final is not None and (_number(final) or [None])[0] != reference:
        return _failed(answer, "the number behind #### is not the last result")
    return Grade(reward=1.0, verdict=Verdict.PASSED, answer=answer)


def numbers_of(problem: str) -> set[Fraction]:
    """Return the numbers that a solution may compute with: those in the problem's text, in digits and in words.

    Example:
        >>> sorted(str(number) for number in numbers_of("Twenty-five eggs: half of a dozen, and 1,200 more"))
        ['1', '1/2', '1/5', '100', '12', '1200', '2', '20', '25', '5']
    """
    text = tidy(problem).lower()
    found = {abs(number.value) for number in numbers_in(text) if number.value is not None}
    fractions = [number for number in found if number.denominator > 1]
    found |= {Fraction(part) for number in fractions for part in number.as_integer_ratio()}
    words = _WORD.findall(text)
    for word, following in pairwise([*words, ""]):
        values = _values_of(word)
        found.update(map(Fraction, values))
        if word in _TENS and 0 < _UNITS.get(following, 0) < 10:
            found.add(Fraction(_TENS[word] + _UNITS[following]))
    if "$" in text or "¢" in text:
        found.add(Fraction(100))
    if _OF_A_WHOLE.search(text) or any(number.denominator > 1 for number in found):
        found |= {Fraction(1), Fraction(100), *(1 / number for number in found if 1 < number <= 10)}
    if "%" in text or "percent" in words:
        found |= {number / 100 for number in found if number >= 1}
    return found


def _values_of(word: str) -> tuple[int, ...]:
    return _WORDS.get(word) or _WORDS.get(word.removesuffix("s")) or _WORDS.get(word.removesuffix("es")) or ()


def _split(completion: str) -> tuple[list[str], str | None]:
    """Return the texts of the equations, one more than allowed at most, and what stands behind ``####`` if any."""
    text = plain(completion)
    final = None
    if (marked := _FINAL.search(text)) is not None:
        text, final = text[: marked.start()], marked[1].strip().rstrip(".")
    annotated = ANNOTATION.finditer(text)
    first = next(annotated, None)
    if first is not None:
        parts: Iterator[str] = (match[1] for match in (first, *annotated))
    else:
        parts = (part for part in _PARTS.split(text) if part.strip())
    return [part for part, _ in zip(parts, range(MAX_EQUATIONS + 1), strict=False)], final


def _read(text: str) -> Equation | None:
    """Read one equation: arithmetic on the left side, a number on the right one; None if it is something else."""
    left, equals, right = text.strip().rstrip(".").partition("=")
    if not equals or len(text) > MAX_EQUATION_LENGTH:
        return None
    result, tokens = _number(right), _tokens(left)
    if result is None or tokens is None:
        return None
    operands = [Fraction(token) for token, _ in tokens if token not in _PRIORITY and token not in "()"]
    try:
        value = _steps(tokens)[0]
    except ZeroDivisionError:
        value = None
    except IndexError:  # an operation or a bracket without its other side
        return None
    return Equation(tuple(operands), value, *result, has_quotient=("/", False) in tokens)


def chain_of(arithmetic: str) -> str | None:
    """Write arithmetic as a chain of equations, one operation a line; None if it is no arithmetic, or has no operation.

    Example:
        >>> print(chain_of("( ( 7.0 + 3.0 ) / 2.0 )"))
        7 + 3 = 10
        10 / 2 = 5
    """
    try:
        steps = _steps(_tokens(arithmetic) or [])[1]
    except (IndexError, ZeroDivisionError):
        return None
    return "\n".join(f"{_written(a)} {sign} {_written(b)} = {_written(c)}" for a, sign, b, c in steps) or None


def _written(number: Fraction) -> str:
    return str(number) if number.denominator == 1 else f"{float(number):.4f}".rstrip("0")


def _number(text: str) -> tuple[Fraction, int] | None:
    """Return the value of a text that is one number, and its decimal places."""
    tokens = _tokens(text)
    if tokens is None or not tokens or len(text) > MAX_NUMBER_LENGTH:
        return None
    sign = -1 if tokens[0][0] == "-" else 1
    if len(tokens) != (1 if sign == 1 else 2) or tokens[-1][0] in _PRIORITY or tokens[-1][0] in "()":
        return None
    digits, is_percent = tokens[-1]
    places = len(digits.partition(".")[2]) + 2 * is_percent
    return sign * Fraction(digits) / (100 if is_percent else 1), places


def _tokens(text: str) -> list[tuple[str, bool]] | None:
    """Return numbers (without separators) and signs, each with whether it is in percent; None if other text occurs."""
    text = text.translate(_SIGNS).rstrip()
    tokens, end = [], 0
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            return None
        tokens.append((match["sign"] or match["number"].replace(",", ""), match["percent"] is not None))
        end = match.end()
    return tokens


def _steps(tokens: list[tuple[str, bool]]) -> tuple[Fraction, list[tuple[Fraction, str, Fraction, Fraction]]]:
    """Compute arithmetic by precedence, with a stack in place of recursion.

    Returns:
        (value, steps): each step is (left, sign, right, its value), in the order of the computation.

    Raises:
        ZeroDivisionError: it divides by zero.
        IndexError: an operation or a bracket lacks its other side.
    """
    values: list[Fraction] = []
    steps: list[tuple[Fraction, str, Fraction, Fraction]] = []
    waiting: list[str] = []

    def reduce(least: int) -> None:
        while waiting and waiting[-1] != "(" and _PRIORITY[waiting[-1]] >= least:
            sign, right = waiting.pop(), values.pop()
            if sign == "negative":
                values.append(-right)
            else:
                left = values.pop()
                values.append(_computed(left, sign, right))
                steps.append((left, sign, right, values[-1]))

    is_value_before = False
    for token, is_percent in tokens:
        if token == "(":
            if is_value_before:
                raise IndexError(token)
            waiting.append(token)
        elif token == ")":
            if not is_value_before:
                raise IndexError(token)
            reduce(0)
            waiting.pop()
        elif token in _PRIORITY and is_value_before:
            reduce(_PRIORITY[token])
            waiting.append(token)
            is_value_before = False
        elif token == "-":
            waiting.append("negative")
        elif token in _PRIORITY or is_value_before:
            raise IndexError(token)
        else:
            values.append(Fraction(token) / (100 if is_percent else 1))
            is_value_before = True
    if not is_value_before:
        raise IndexError
    reduce(0)
    if waiting:  # a bracket that is not closed
        raise IndexError(waiting[-1])
    return values[0], steps


def _computed(left: Fraction, sign: str, right: Fraction) -> Fraction:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    return left * right if sign == "*" else left / right


def _failed(answer: str | None, reason: str) -> Grade:
    return Grade(reward=0.0, verdict=Verdict.FAILED, answer=answer, reason=reason)
