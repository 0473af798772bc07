r"""From a completion to the text of its answer and to the numbers in it: string work in linear time, safe on any input.

Characters and notation without a meaning of their own are taken away first: dashes, spaces and signs of another width,
LaTeX's spacing and sizes. Notation beside LaTeX's that models write into boxes (``sqrt(3)``, ``2**(1/4)``, ``1e6``,
``¾``) is put into LaTeX where the text has no LaTeX command, since there ``pi`` is a product of two letters.

Numbers in running text are read exactly: ``-5``, ``1,234.50``, ``1 000``, ``$3``, ``1/2``, ``1e3``. All graders of
numbers read with this. A dash is a sign only where it parts neither numbers nor words: ``10-3`` ends in 3, and ``3–5``
in 5. A fraction is a number if it does not come out even, so that ``84/2`` is a calculation; ``1 1/2`` is a mixed
number.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

DASHES = "\u2010\u2011\u2012\u2013\u2212\u02d7\u2796\ufe63\uff0d"
"""Characters that stand for a minus sign; an em dash is punctuation and no sign."""
INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
"""Characters of no width, such as marks of direction and invisible operators."""
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""Spaces of other widths, or at which no line breaks."""

_WIDE_SIGNS = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if not chr(code - 0xFEE0).isalnum()}
_WIDE_DIGITS = {code: chr(code - 0xFEE0) for code in range(0xFF10, 0xFF1A)}
TABLE: dict[int, str] = {
    **_WIDE_SIGNS,
    0x3001: ",",
    0x3002: ".",
    **{ord(dash): "-" for dash in DASHES},
    **{ord(space): " " for space in SPACES},
    **dict.fromkeys(map(ord, INVISIBLE), ""),
}
_WITH_DIGITS = TABLE | _WIDE_DIGITS


def plain(text: str) -> str:
    """The text in the keyboard's characters, as far as signs, spaces and digits of another width go.

    Example:
        >>> plain("\\u22125\\u00a0000\\uff05"), plain("\\uff14\\uff12"), plain("4\\u200b2")
        ('-5 000%', '42', '42')
    """
    return text if text.isascii() else text.translate(_WITH_DIGITS)


_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))[eE]([+-]?)([0-9]{1,4})")
_ROOT = re.compile(r"(?<![A-Za-z])(sqrt|cbrt)\s*(?=\()")
_FUNCTION = re.compile(r"(?<![A-Za-z])(arcsin|arccos|arctan|sin|cos|tan|log|ln|exp)\s*(?=\()")
_PI = re.compile(r"(?<![A-Za-z])pi(?![A-Za-z])")
_OPERATORS = (("**", "^"), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "))
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,A-Za-z}])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9]|\.[0-9]| ?/| ?\\[dt]?frac)")
FRACTIONS = {
    "½": (1, 2),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅕": (1, 5),
    "⅖": (2, 5),
    "⅗": (3, 5),
    "⅘": (4, 5),
    "⅙": (1, 6),
    "⅚": (5, 6),
    "⅛": (1, 8),
    "⅜": (3, 8),
    "⅝": (5, 8),
    "⅞": (7, 8),
}


def as_latex(text: str) -> str:
    r"""The same answer in LaTeX.

    Example:
        >>> as_latex("(3*sqrt(5))/7"), as_latex("2**(1/4)"), as_latex("1e-6")
        ('(3*\\sqrt(5))/7', '2^(1/4)', '1*10^{-6}')
    """
    if "\\" in text:
        return text
    scientific = _SCIENTIFIC.fullmatch(text.strip())
    if scientific:
        return f"{scientific[1]}*10^{{{scientific[2].strip('+')}{scientific[3]}}}"
    for plain, latex in _OPERATORS:
        text = text.replace(plain, latex)
    text = _ROOT.sub(lambda match: r"\sqrt" if match[1] == "sqrt" else r"\sqrt[3]", text)
    return _PI.sub(r"\\pi ", _FUNCTION.sub(r"\\\1", text))


def without_spaced_thousands(text: str) -> str:
    """``10 000`` → ``10000``, outside of brackets, where a space may part two elements.

    Example:
        >>> without_spaced_thousands("10 000"), without_spaced_thousands("1 234/567"), without_spaced_thousands("10 00")
        ('10000', '1 234/567', '10 00')
    """
    if any(bracket in text for bracket in "([{"):
        return text
    return _SPACED_THOUSANDS.sub(lambda match: match[1] + match[2].replace(" ", ""), text)


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNIT_OF_INPUT = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\{}$]", re.DOTALL)

_FINAL_ANSWER = re.compile(r"\bfinal answer is\s*:?\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon"
    " phi chi psi omega"
)
_SIGNS: dict[int, str] = TABLE | str.maketrans(
    {
        "\u00d7": r"\times ",
        "\u00b7": r"\cdot ",
        "\u22c5": r"\cdot ",
        "\u2219": r"\cdot ",
        "\u2217": "*",
        "\u00f7": r"\div ",
        "\u2044": "/",
        "\u2215": "/",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2a7d": r"\le ",
        "\u2a7e": r"\ge ",
        "\u2260": r"\ne ",
        "\u222a": r"\cup ",
        "\u2208": r"\in ",
        "\u00b0": r"^\circ ",
        "\u00b1": r"\pm ",
        "\u2213": r"\mp ",
        "\u221a": r"\sqrt ",
        "\u2205": r"\emptyset ",
        "\u211d": r"\mathbb{R} ",
        "\u27e8": r"\langle ",
        "\u27e9": r"\rangle ",
        "\u2032": "'",
        **{chr(0x3B1 + i): rf"\{name} " for i, name in enumerate(_GREEK.split()) if name != "omicron"},
        **{sign: rf"\frac{{{top}}}{{{bottom}}}" for sign, (top, bottom) in FRACTIONS.items()},
    }
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_ON_THE_LINE = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089",
    "0123456789+-0123456789",
)

_UNICODE_ROOT = re.compile(r"\u221a([0-9]+)")
_SIZES = re.compile(
    r"\\(?:left|right|[bB]ig{1,2}[lrm]?|(?:display|text|script|scriptscript)style|limits|nolimits)(?![A-Za-z])\.?"
)
_COLORS = re.compile(r"\\(?:text|page)?color(?:box)?(?![A-Za-z])\s*(?:\[[^\[\]]*\]\s*)?\{[^{}]*\}")
_LOOKS = re.compile(
    r"\\(?:bf|it|rm|sf|tt|bfseries|itshape|boldmath|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge"
    r"|Huge)(?![A-Za-z])"
)
_WRAPPERS = re.compile(r"\\(?:boldsymbol|bm|pmb|underline|uline|mathstrut)(?![A-Za-z])\s*")
_MODULUS = re.compile(r"\(?\\(?:pmod|bmod|mod|pod)(?![A-Za-z])\s*(?:\{([^{}]*)\}|([0-9A-Za-z]+))\)?")
_SPACES = re.compile(r"(\\\\)|\\(?:[ ,;:>]|q?quad(?![A-Za-z]))|~")  # a matrix's row break is kept
_FRACTIONS = re.compile(r"\\(?:[dtcsx]|nice)frac(?![A-Za-z])")
_INFIX = re.compile(r"\\(over|choose)(?![A-Za-z])\s*")
_INFIXES = {"over": r"\frac", "choose": r"\binom"}
_MAX_INFIXES = 20
_PHANTOM = re.compile(r"\\[hv]?phantom\{[^{}]*\}|\\[hv]space\*?\{[^{}]*\}|\\(?:thin|med|thick|en)space(?![A-Za-z])")
_FONTS = re.compile(r"\\(?:math(?:bf|rm|it|sf|normal)|text(?:bf|rm|it|sf|normal)?)\s*(?=\{[^{}]*\\(?!text|[,;:! %$]))")
_DELIMITERS = re.compile(r"\\(lbrack|rbrack|lparen|rparen)(?![A-Za-z])")
_DELIMITER = {"lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")"}
_ARRAYS = re.compile(
    r"([(\[])\s*\\begin\{(?:array\}\s*(?:\[[a-z]\]\s*)?\{[^{}]*|(?:small)?matrix)\}(.*?)\\end\{(?:array|(?:small)?matrix)\}\s*([)\]])",
    re.DOTALL,
)
_ROW_SPACING = re.compile(r"\\\\\s*\[[0-9.]+\s*(?:pt|ex|em|mm|cm)\]")
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:\{,\}|,\s*\\!\s*|\\,|,\\ )[0-9]{3})+(?![0-9])")
_SEPARATORS = re.compile(r"\{,\}|,\s*\\!\s*|\\,|,\\ ")
_SPACE_RUNS = re.compile(r"\s+")
_IDLE_SPACE = re.compile(r"(?<![A-Za-z0-9.]) | (?![A-Za-z0-9.\\])")
_OPENING_SPACE = re.compile(r"(?<=[0-9A-Za-z]) (?=\\)")


def last_box(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` or ``\fbox{…}``.

    Earlier boxes do not count, and a last box that was never closed (a truncated text) leaves no answer. A text
    without a box has none either: ``#### 42`` and "The answer is 42" are for tasks of numbers.

    Args:
        text: a completion or a worked solution.

    Returns:
        The content without surrounding white space, possibly empty; None if there is no (closed) last box.

    Example:
        >>> last_box(r"First \boxed{1}, no: \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> last_box(r"so $\boxed 2$"), last_box("#### 42"), last_box(r"\boxed{4")
        ('2', None, None)
    """
    boxes = deque(_BOX.finditer(text), maxlen=1)
    if not boxes:
        return None
    start = boxes[0].end()
    if text[start : start + 1] != "{":
        bare = _UNIT_OF_INPUT.match(text, start)
        return bare.group() if bare else None
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position].strip()
        position += 1
    return None


def has_box(text: str) -> bool:
    r"""Whether a ``\boxed`` or ``\fbox`` occurs, closed or not."""
    return _BOX.search(text) is not None


def extract_statement(text: str) -> str | None:
    r"""What the last "final answer is" of a text states, up to the end of its sentence; None without one.

    Example:
        >>> extract_statement("The final answer is $2$. I hope so."), extract_statement("28")
        ('$2$', None)
    """
    stated = deque(_FINAL_ANSWER.finditer(text), maxlen=1)
    if not stated:
        return None
    return _SENTENCE_END.split(text[stated[0].end() :], maxsplit=1)[0].strip()


def clean(answer: str) -> str:
    r"""The same answer without notation that has no meaning: dollar signs around it, spacing, sizes, kinds of fraction.

    Two answers with the same clean text are equal.

    Args:
        answer: a bare answer or one between dollar signs.

    Example:
        >>> clean(r"$\left( \dfrac{1}{2} ,\, 3 \right)$"), clean(r"10{,}000"), clean("12 .")
        ('(\\frac{1}{2},3)', '10000', '12')
    """
    text = answer if answer.isascii() else _in_ascii(answer)
    text = _THOUSANDS.sub(lambda match: _SEPARATORS.sub("", match.group()), text)
    text = _PHANTOM.sub("", as_latex(text)).replace(r"\!", "")
    text = _MODULUS.sub(lambda match: rf"\pmod{{{match[1] or match[2]}}}", _WRAPPERS.sub("", _LOOKS.sub("", text)))
    text = _COLORS.sub("", _FONTS.sub("", _ROW_SPACING.sub(r"\\\\", text)))
    text = _SPACES.sub(lambda match: match[1] or " ", _SIZES.sub("", text))
    text = _DELIMITERS.sub(lambda match: _DELIMITER[match[1]], _FRACTIONS.sub(lambda _: r"\frac", text))
    text = _ARRAYS.sub(_as_matrix, _without_infixes(_unwrapped(_SPACE_RUNS.sub(" ", text).strip())))
    text = without_spaced_thousands(text)
    return _OPENING_SPACE.sub("", _IDLE_SPACE.sub("", text))


def _in_ascii(text: str) -> str:
    text = _UNICODE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_ON_THE_LINE)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_ON_THE_LINE)}}}", text)
    return text.translate(_SIGNS)


def _as_matrix(match: re.Match[str]) -> str:
    """A matrix that is written as an array, or without brackets of its own, between brackets."""
    if (match[1], match[3]) not in (("(", ")"), ("[", "]")):
        return match[0]
    return rf"\begin{{pmatrix}}{match[2]}\end{{pmatrix}}"


def _without_infixes(text: str) -> str:
    r"""TeX's ``{1 \over 2}`` as ``{\frac{1}{2}}``, and ``{5 \choose 2}`` likewise."""
    for _ in range(_MAX_INFIXES):
        found = _INFIX.search(text)
        if found is None:
            break
        start, end = _group_around(text, found.start(), found.end())
        top, bottom = text[start : found.start()].strip(), text[found.end() : end].strip()
        text = f"{text[:start]}{_INFIXES[found[1]]}{{{top}}}{{{bottom}}}{text[end:]}"
    return text


def _group_around(text: str, left: int, right: int) -> tuple[int, int]:
    """Where the group of braces begins and ends that a part of a text stands in; the whole text without one."""
    depth, start = 0, left
    while start > 0:
        brace = text[start - 1] if text[start - 2 : start - 1] != "\\" else ""
        depth += (brace == "}") - (brace == "{")
        if depth < 0:
            break
        start -= 1
    depth, end = 0, right
    while end < len(text):
        brace = text[end] if text[end - 1] != "\\" else ""
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            break
        end += 1
    return start, end


def _unwrapped(text: str) -> str:
    """Without a final full stop and the signs of math mode around the whole."""
    while True:
        before = text
        text = text.strip().rstrip(" ")
        if text.endswith((".", ",", ";")) and not text.endswith("\\,"):
            text = text[:-1]
        for opening, closing in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
            inner = text[len(opening) : len(text) - len(closing)]
            is_wrapped = len(text) >= len(opening) + len(closing) and text.startswith(opening)
            if (
                is_wrapped
                and text.endswith(closing)
                and not text.endswith("\\$")
                and "$" not in inner.replace(r"\$", "")
            ):
                text = inner
                break
        if text.startswith("{") and text.endswith("}") and _is_one_group(text):
            text = text[1:-1]
        if text == before:
            return text


def _is_one_group(text: str) -> bool:
    """Whether the brace that opens a text is closed at its end."""
    depth = 0
    for i, character in enumerate(text):
        if character in "{}" and text[i - 1 : i] != "\\":
            depth += 1 if character == "{" else -1
        if depth == 0:
            return i == len(text) - 1
    return False


MAX_NUMBER_LENGTH = 100
"""Characters of one number; a longer one is no answer."""
CURRENCIES = "$\u20ac\u00a3\u20b9\u00a5"

_BETWEEN_DIGITS = str.maketrans("", "", ", '\u2019")
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
        value = Fraction(found["digits"].translate(_BETWEEN_DIGITS) + (found["exponent"] or ""))
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
