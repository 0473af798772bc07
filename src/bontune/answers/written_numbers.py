r"""Numbers as they stand in running text, read exactly: ``-5``, ``1,234.50``, ``1 000``, ``$3``, ``1/2``, ``1e3``.

All graders of numbers read with this. A dash is a sign only where it parts neither numbers nor words: ``10-3`` ends in
3, and ``3–5`` in 5. A fraction is a number if it does not come out even, so that ``84/2`` is a calculation; ``1 1/2``
is a mixed number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from bontune.answers.characters import plain
from bontune.answers.plain_notation import FRACTIONS

MAX_NUMBER_LENGTH = 100
"""Characters of one number; a longer one is no answer."""
CURRENCIES = "$\u20ac\u00a3\u20b9\u00a5"

_SEPARATORS = str.maketrans("", "", ", '\u2019")
_IN_LATEX = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[,!;: ]\s?)(?=[0-9]{3}(?![0-9]))")
_TEX_ARGUMENT = r"\s*(?:\{{\s*(?P<{0}>-?[0-9]{{1,15}})\s*\}}|(?P<{0}_digit>[0-9]))"
_NUMBER = re.compile(
    rf"""
    (?=[-.0-9\\{CURRENCIES}{"".join(FRACTIONS)}])
    # After a digit, a word or a closing bracket a minus subtracts; before a space it may begin a line of a list.
    (?P<sign>(?<![\w.)\]}}%])-|(?<=[=(:\[{{])-[ ]|(?<=[=(:\[{{][ ])-[ ])?
    (?:\\?[{CURRENCIES}][ ]?)?
    (?:
        (?:(?<![0-9.,/])(?P<whole>[0-9]{{1,15}})[ ]?)?
        (?:
            \\[dtc]?frac{_TEX_ARGUMENT.format("top")}{_TEX_ARGUMENT.format("bottom")}
          | (?P<vulgar>[{"".join(FRACTIONS)}])
          | (?(whole)(?<=[ ]))(?<![0-9.,/])(?P<over>[0-9]{{1,15}})/(?P<under>[0-9]{{1,15}})(?![0-9/]|[.,][0-9])
        )
      | (?P<digits>
            (?:(?<![0-9])[0-9]{{1,3}}(?:(?:,[0-9]{{3}})+|(?:[ ][0-9]{{3}})+|(?:['\u2019][0-9]{{3}})+)(?![0-9])|[0-9]+)
            (?:\.[0-9]+)?
          | \.[0-9]+
        )
        (?P<exponent>[eE][+-]?[0-9]{{1,3}}(?![0-9]))?
    )""",
    re.ASCII | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number and where it stands."""

    value: Fraction | None
    """The exact value; None if it is absurdly long."""
    start: int
    """Where it begins in the text, sign and currency included."""
    end: int
    """Where the text goes on."""
    is_decimal: bool
    """Whether digits, separators and a point are all that it has: no fraction, exponent or division."""


def tidy(text: str) -> str:
    """A text whose numbers are written in the keyboard's characters and without LaTeX's separators of thousands."""
    return _IN_LATEX.sub("", plain(text)) if "\\" in text or "{," in text else plain(text)


def numbers_in(text: str) -> Iterator[Number]:
    r"""The numbers of a text that went through :func:`tidy`, in order.

    Example:
        >>> [str(number.value) for number in numbers_in(r"-$5 of 1,200 are \frac{-1}{2} of 1 1/2, or 6/2")]
        ['-5', '1200', '-1/2', '3/2', '2']
    """
    return map(_number, _NUMBER.finditer(text))


def last_number(text: str) -> Fraction | None:
    """The last number written in ``text``, exact; None if there is none or it is absurdly long.

    Knows signs, decimals, fractions, mixed numbers, separators of thousands, currencies and exponents of up to three
    digits.

    Example:
        >>> last_number("That is $1,234.50 in all. #### 1,234.50"), last_number("10-3"), last_number("none")
        (Fraction(2469, 2), Fraction(3, 1), None)
    """
    found = deque(_NUMBER.finditer(tidy(text)), maxlen=1)
    return _number(found[0]).value if found else None


def _number(found: re.Match[str]) -> Number:
    value, is_decimal = _value(found) if len(found[0]) <= MAX_NUMBER_LENGTH else (None, False)
    if value is not None and found["sign"]:
        value = -value
    return Number(value, found.start(), found.end(), is_decimal)


def _value(found: re.Match[str]) -> tuple[Fraction, bool]:
    """The value without its sign, and whether it is a decimal."""
    if found["digits"]:
        value = Fraction(found["digits"].translate(_SEPARATORS) + (found["exponent"] or ""))
        return value, not found["exponent"]
    if found["vulgar"]:
        top, bottom = FRACTIONS[found["vulgar"]]
    else:
        top = int(found["over"] or found["top"] or found["top_digit"])
        bottom = int(found["under"] or found["bottom"] or found["bottom_digit"])
    if bottom == 0 or top % bottom == 0:
        return Fraction(bottom), False  # a division that is left to do: its last number
    part = Fraction(top, bottom)
    return part + int(found["whole"]) if found["whole"] and 0 < part < 1 else part, False
