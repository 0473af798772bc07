r"""From a completion to the text of its answer: string work in linear time, safe on any input.

Characters and notation without a meaning of their own are taken away first: dashes, spaces and signs of another width,
LaTeX's spacing and sizes. Notation beside LaTeX's that models write into boxes (``sqrt(3)``, ``2**(1/4)``, ``1e6``,
``¾``) is put into LaTeX where the text has no LaTeX command, since there ``pi`` is a product of two letters.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from unicodedata import normalize

DASHES = "\u2010\u2011\u2012\u2013\u2212\u02d7\u2796\ufe63\uff0d"
"""Characters that stand for a minus sign; an em dash is punctuation and no sign."""
INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064"
    "\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
)
"""Characters of no width, such as marks of direction and invisible operators."""
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
"""Spaces of other widths, or at which no line breaks."""

_KEYBOARD: dict[int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if not chr(code - 0xFEE0).isalpha()},  # full width
    0x3001: ",",
    0x3002: ".",
    **{ord(dash): "-" for dash in DASHES},
    **{ord(space): " " for space in SPACES},
    **dict.fromkeys(map(ord, INVISIBLE), ""),
}


def plain(text: str) -> str:
    """The text in the keyboard's characters, as far as signs, spaces and digits of another width go.

    Example:
        >>> plain("\\u22125\\u00a0000\\uff05"), plain("\\uff14\\uff12"), plain("4\\u200b2")
        ('-5 000%', '42', '42')
    """
    return text if text.isascii() else text.translate(_KEYBOARD)


_SCIENTIFIC = re.compile(r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))[eE]([+-]?)([0-9]{1,4})")
_ROOT = re.compile(r"(?<![A-Za-z])(sqrt|cbrt)\s*(?=\()")
_FUNCTION = re.compile(r"(?<![A-Za-z])(arcsin|arccos|arctan|sin|cos|tan|log|ln|exp)\s*(?=\()")
_PI = re.compile(r"(?<![A-Za-z])pi(?![A-Za-z])")
_OPERATORS = (("**", "^"), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "))
_SPACED_THOUSANDS = re.compile(r"(?<![0-9.,A-Za-z}])([0-9]{1,3})((?: [0-9]{3})+)(?![0-9]|\.[0-9]| ?/| ?\\[dt]?frac)")
FRACTIONS = {sign: Fraction(normalize("NFKD", sign).replace("\u2044", "/")) for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}


def _as_latex(text: str) -> str:
    r"""Put an answer into LaTeX.

    Example:
        >>> _as_latex("(3*sqrt(5))/7"), _as_latex("2**(1/4)"), _as_latex("1e-6")
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


def _without_spaced_thousands(text: str) -> str:
    """``10 000`` → ``10000``, outside of brackets, where a space may part two elements.

    Example:
        >>> [_without_spaced_thousands(text) for text in ("10 000", "1 234/567", "10 00")]
        ['10000', '1 234/567', '10 00']
    """
    if any(bracket in text for bracket in "([{"):
        return text
    return _SPACED_THOUSANDS.sub(lambda match: match[1] + match[2].replace(" ", ""), text)


_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""Matches a brace, or a character behind a backslash, which is none."""
_UNIT_OF_INPUT = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\{}$]", re.DOTALL)

_FINAL_ANSWER = re.compile(r"\bfinal answer is\s*:?\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau upsilon"
    " phi chi psi omega"
)
_SIGNS: dict[int, str] = _KEYBOARD | str.maketrans(
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
        **{sign: rf"\frac{{{part.numerator}}}{{{part.denominator}}}" for sign, part in FRACTIONS.items()},
    }
)
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_LOWERED = re.compile("[\u2080-\u2089]+")
_ON_THE_LINE = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089",
    "0123456789+-0123456789",
)

RANGE_DASH = "\u2013"
"""The dash of a range such as ``5–7``. Elsewhere it is read as a minus sign; here the answer is no value."""
_RANGE = re.compile(r"[\s$\\]*[0-9][0-9.,]*\s*[\u2012\u2013]\s*[0-9][0-9.,]*[\s$%\\]*(?:\s[A-Za-z. ]+)?")
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
    end = _group_end(text, start)
    return None if end is None else text[start + 1 : end - 1].strip()


def _group_end(text: str, start: int) -> int | None:
    """Position behind the brace that closes the group which begins at ``start``; None if the group is not closed."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0 and match[0] == "}":
            return match.end()
    return None


def has_box(text: str) -> bool:
    r"""Whether a ``\boxed`` or ``\fbox`` occurs, closed or not."""
    return _BOX.search(text) is not None


def extract_statement(text: str) -> str | None:
    r"""The statement behind the last "final answer is" of a text, up to the end of its sentence; None without one.

    Example:
        >>> extract_statement("The final answer is $2$. I hope so."), extract_statement("28")
        ('$2$', None)
    """
    stated = deque(_FINAL_ANSWER.finditer(text), maxlen=1)
    if not stated:
        return None
    return _SENTENCE_END.split(text[stated[0].end() :], maxsplit=1)[0].strip()


def clean(answer: str) -> str:
    r"""Take away notation that has no meaning: dollar signs around an answer, spacing, sizes, kinds of fraction.

    Two answers with the same clean text are equal.

    Args:
        answer: a bare answer or one between dollar signs.

    Example:
        >>> clean(r"$\left( \dfrac{1}{2} ,\, 3 \right)$"), clean(r"10{,}000"), clean("12 .")
        ('(\\frac{1}{2},3)', '10000', '12')
    """
    text = answer if answer.isascii() else _in_ascii(answer)
    text = _THOUSANDS.sub(lambda match: _SEPARATORS.sub("", match.group()), text)
    text = _PHANTOM.sub("", _as_latex(text)).replace(r"\!", "")
    text = _MODULUS.sub(lambda match: rf"\pmod{{{match[1] or match[2]}}}", _WRAPPERS.sub("", _LOOKS.sub("", text)))
    text = _COLORS.sub("", _FONTS.sub("", _ROW_SPACING.sub(r"\\\\", text)))
    text = _SPACES.sub(lambda match: match[1] or " ", _SIZES.sub("", text))
    text = _DELIMITERS.sub(lambda match: _DELIMITER[match[1]], _FRACTIONS.sub(lambda _: r"\frac", text))
    text = _ARRAYS.sub(_as_matrix, _without_infixes(_unwrapped(_SPACE_RUNS.sub(" ", text).strip())))
    text = _without_spaced_thousands(text)
    return _OPENING_SPACE.sub("", _IDLE_SPACE.sub("", text))


def _in_ascii(text: str) -> str:
    text = _UNICODE_ROOT.sub(r"\\sqrt{\1}", text)
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_ON_THE_LINE)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_ON_THE_LINE)}}}", text)
    if _RANGE.fullmatch(text):
        return RANGE_DASH.join(part.translate(_SIGNS) for part in re.split("[\u2012\u2013]", text))
    return text.translate(_SIGNS)


def _as_matrix(match: re.Match[str]) -> str:
    """Write an array, or a matrix without brackets of its own, between brackets as a ``pmatrix``."""
    if (match[1], match[3]) not in (("(", ")"), ("[", "]")):
        return match[0]
    return rf"\begin{{pmatrix}}{match[2]}\end{{pmatrix}}"


def _without_infixes(text: str) -> str:
    r"""Write TeX's ``{1 \over 2}`` as ``{\frac{1}{2}}``, and ``{5 \choose 2}`` likewise."""
    for _ in range(_MAX_INFIXES):
        infix = _INFIX.search(text)
        if infix is None:
            break
        start, end = _group_around(text, infix.start(), infix.end())
        top, bottom = text[start : infix.start()].strip(), text[infix.end() : end].strip()
        text = f"{text[:start]}{_INFIXES[infix[1]]}{{{top}}}{{{bottom}}}{text[end:]}"
    return text


def _group_around(text: str, left: int, right: int) -> tuple[int, int]:
    """Start and end of the group of braces around a part of a text; those of the whole text if there is none."""
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
    """The text without a final full stop and without the signs of math mode around the whole."""
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
        if text.startswith("{") and _group_end(text, 0) == len(text):
            text = text[1:-1]
        if text == before:
            return text
