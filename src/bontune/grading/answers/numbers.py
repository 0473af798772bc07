r"""Numbers as they stand in running text, read exactly: ``-5``, ``1,234.50``, ``1 000``, ``$3``, ``1/2``, ``1e3``.

All graders of numbers read with this. A dash is a sign only where it parts neither numbers nor words: ``10-3`` ends in
3, and ``3–5`` in 5. A fraction is a number if it does not come out even, so that ``84/2`` is a calculation; ``1 1/2``
is a mixed number.

``last_number`` takes the last number of a text, whatever stands around it. ``final_number`` is stricter: it takes the
one number that a text states as its answer, in a box, behind ``####`` or behind "the answer is".
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from bontune.grading.answers.notation import FRACTIONS, last_box, plain

MAX_NUMBER_LENGTH = 100
"""Characters of one number; a longer one is no answer."""
_CURRENCIES = "$\u20ac\u00a3\u20b9\u00a5"

_SEPARATORS = str.maketrans("", "", ", '\u2019")
_LATEX_SEPARATOR = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[,!;: ]\s?)(?=[0-9]{3}(?![0-9]))")
_TEX_ARGUMENT = r"\s*(?:\{{\s*(?P<{0}>-?[0-9]{{1,15}})\s*\}}|(?P<{0}_digit>[0-9]))"
_NUMBER = re.compile(
    rf"""
    (?=[-.0-9\\{_CURRENCIES}{"".join(FRACTIONS)}])
    # After a digit, a word or a closing bracket a minus subtracts; before a space it may begin a line of a list.
    (?P<sign>(?<![\w.)\]}}%])-|(?<=[=(:\[{{])-[ ]|(?<=[=(:\[{{][ ])-[ ])?
    (?:\\?[{_CURRENCIES}][ ]?)?
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

MAX_STATEMENT_LENGTH = 200
"""Characters of a final answer; what is longer states no single number."""
_MARKER = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])|####"
    r"|(?<![A-Za-z])answer[*_`]*(?:\s+(?P<verb>is|equals)\b|\s*[:=])[*_`]*[ \t]*[:=]?"
    r"|^[#*_ \t]*(?:(?:the|my)\s+)?(?:final\s+)?answer[*_]*(?=[ \t]*\n)",
    re.IGNORECASE | re.MULTILINE,
)
_TURN_END = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,60}[|\uff5c]>|</?(?:s|eos|bos|pad|end|answer|end_of_turn|im_end)>|\[/?(?:EOS|INST)\]",
    re.IGNORECASE,
)
"""Matches special tokens that are left in a text."""
_BESIDE_THE_POINT = re.compile(
    r"[*_\s]*(?:an?\s+)?(?:(?:very|quite|indeed|also|therefore|thus|clearly|both|mathematically)\s+)*"
    r"(?:reasonable|correct|right|verified|confirmed|consistent|plausible|sensible|obvious|clear|valid|realistic"
    r"|expected|logical|accurate|sound|supported|checked|given|positive|unique|whole|even|odd|divisible|good|true|fine"
    r"|found|obtained|based|derived|calculated|computed|in\s+line|in\s+agreement)\b",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that says something of an answer and does not state it."""
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_REASON = re.compile(r",?\s+(?:because|since)\b", re.IGNORECASE)
_BULLET = re.compile(r"\s*\n\s*[-*\u2022\u2023\u25aa\u25cf\u2013]\s+")
_SIGN_APART = re.compile(r"\A\s*-\s+(?=[\\0-9.$])")
_WORDS = re.compile(
    r"[A-Za-z\s,:;'\"$%*()=._`\u20ac\u00a3\u20b9\u00a5\u00b0\u2103\u2109\u2014\u2015\u2192\u2022\u27a1]*"
)
_CHECK_MARKS = "\u2705\u2713\u2714\u2611\U0001f389\U0001f44d\U0001f642\U0001f60a"
_AFTER = re.compile(rf"(?:{_WORDS.pattern[:-1]}|[{_CHECK_MARKS}]|-(?![A-Za-z0-9])(?!\s+[A-Za-z]{{1,2}}(?![A-Za-z])))*")
"""Matches what may follow a number: words, check marks, and a dash that takes nothing from it."""
_SCALE = re.compile(
    r"(?i:\b(?:hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|or|negative|minus)s?\b)"
    r"|[0-9]\s?[kKMB]\b"
)
_LATEX_REPLACED = (
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\{,\}|\\[,!]"), ""),
    (re.compile(r"\\[()\[\]]"), " "),
    # The unit's square and its per: "m²", "km/h". After a digit they would be arithmetic.
    (re.compile(r"(?<=[A-Za-z])(?:\^\{?[23]\}?|[\u00b2\u00b3])(?![0-9])"), ""),
    (re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])|(?<=[0-9])/(?=[A-Za-z]{3})"), " "),
    (re.compile(r"\\([ $%])"), r"\1"),
    (re.compile(r"(?<=[0-9]),\s+(?=[0-9]{3}(?![0-9]))"), ","),
)


@dataclass(frozen=True, slots=True)
class Number:
    """A number and where it stands."""

    value: Fraction | None
    """The exact value; None if it is absurdly long."""
    start: int
    """Position in the text where the number begins, sign and currency included."""
    end: int
    """Position behind the number."""
    is_decimal: bool
    """Whether the number has digits, separators and a point only: no fraction, exponent or division."""


def tidy(text: str) -> str:
    """Write a text's numbers in the keyboard's characters and without LaTeX's separators of thousands."""
    return _LATEX_SEPARATOR.sub("", plain(text)) if "\\" in text or "{," in text else plain(text)


def numbers_in(text: str) -> Iterator[Number]:
    r"""The numbers of a text that went through :func:`tidy`, in order.

    Example:
        >>> [str(number.value) for number in numbers_in(r"-$5 of 1,200 are \frac{-1}{2} of 1 1/2, or 6/2")]
        ['-5', '1200', '-1/2', '3/2', '2']
    """
    return map(_number, _NUMBER.finditer(text))


def last_number(text: str) -> Fraction | None:
    """The last number written in ``text``, exact; None if there is none or it is absurdly long.

    It knows signs, decimals, fractions, mixed numbers, separators of thousands, currencies and exponents of up to three
    digits.

    Example:
        >>> last_number("That is $1,234.50 in all. #### 1,234.50"), last_number("10-3"), last_number("none")
        (Fraction(2469, 2), Fraction(3, 1), None)
    """
    matches = deque(_NUMBER.finditer(tidy(text)), maxlen=1)
    return _number(matches[0]).value if matches else None


def final_number(text: str) -> Fraction | None:
    """The number that a text states last as its answer; None if it states none, or several at once.

    Example:
        >>> final_number("So 3 + 4 = 7. The answer is $1,200."), final_number("#### 42 or 17")
        (Fraction(1200, 1), None)
    """
    text = plain(text)
    end, fallback = len(text), None
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() : min(end, marker.end() + MAX_STATEMENT_LENGTH + 1)]
        end = marker.start()
        if marker[0].startswith("\\"):
            box = last_box(text[marker.start() : marker.end() + MAX_STATEMENT_LENGTH + 1])
            return None if box is None else single_number(box)
        statement = _statement(rest)
        if any(character.isdigit() for character in statement):
            if not (marker["verb"] and _BESIDE_THE_POINT.match(statement)):
                return single_number(statement)
            if fallback is None:  # "the answer is right: 42", where nothing else is said
                fallback = single_number(statement)
        elif marker[0].startswith("#"):
            return None
    return fallback  # None: "the answer is a whole number" states none


def _statement(rest: str) -> str:
    """The statement behind a marker, up to the end of the sentence or to its reasons."""
    rest = _TURN_END.sub(" ", rest)
    if _BULLET.match(rest):
        rest = _BULLET.sub("", rest, count=1)
        if _BULLET.search(rest):
            return rest  # a list: several numbers are no answer
    rest = rest.lstrip()
    return _REASON.split(_SENTENCE_END.split(rest, maxsplit=1)[0], maxsplit=1)[0]


def single_number(text: str) -> Fraction | None:
    """The value of a text that holds one number and nothing else but words, a currency and punctuation.

    Example:
        >>> single_number("$1,234.50 in all"), single_number("3 + 4"), single_number("2 million")
        (Fraction(2469, 2), None, None)
    """
    if len(text) > MAX_STATEMENT_LENGTH:
        return None
    text = _TURN_END.sub(" ", plain(text))
    for pattern, replacement in _LATEX_REPLACED:
        text = pattern.sub(replacement, text)
    text = _SIGN_APART.sub("-", text.strip().rstrip("."))
    numbers = list(numbers_in(text))
    if len(numbers) != 1 or not numbers[0].is_decimal or _SCALE.search(text):
        return None
    (number,) = numbers
    is_alone = _WORDS.fullmatch(text[: number.start]) and _AFTER.fullmatch(text[number.end :])
    return number.value if is_alone else None


def _number(match: re.Match[str]) -> Number:
    value, is_decimal = _value(match) if len(match[0]) <= MAX_NUMBER_LENGTH else (None, False)
    if value is not None and match["sign"]:
        value = -value
    return Number(value, match.start(), match.end(), is_decimal)


def _value(match: re.Match[str]) -> tuple[Fraction, bool]:
    """The value without its sign, and whether it is a decimal."""
    if match["digits"]:
        value = Fraction(match["digits"].translate(_SEPARATORS) + (match["exponent"] or ""))
        return value, not match["exponent"]
    if match["vulgar"]:
        top, bottom = FRACTIONS[match["vulgar"]].as_integer_ratio()
    else:
        top = int(match["over"] or match["top"] or match["top_digit"])
        bottom = int(match["under"] or match["bottom"] or match["bottom_digit"])
    if bottom == 0 or top % bottom == 0:
        return Fraction(bottom), False  # a division that is left to do: its last number
    part = Fraction(top, bottom)
    return part + int(match["whole"]) if match["whole"] and 0 < part < 1 else part, False
