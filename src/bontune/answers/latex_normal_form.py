"""From a completion to the answer's text: boxes, final numbers, and notation that changes nothing.

Everything here is string work in linear time, safe on any input.
"""

from __future__ import annotations

import re
from collections import deque

from bontune.answers.plain_notation import FRACTIONS, as_latex, without_spaced_thousands

_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_UNIT_OF_INPUT = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\{}$]", re.DOTALL)

_SPOKEN = re.compile(r"\banswer(?: is\b|:| :)", re.IGNORECASE)
_FINAL_ANSWER = re.compile(r"\bfinal answer is\s*:?\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_IDLE_BEFORE_NUMBER = re.compile(r"[\s$*:\\(]+")
_NUMBER = re.compile(r"([-+]?)((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
_NUMBER_WINDOW = 300

_UNICODE = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": r"\times ",
        "\u00b7": r"\cdot ",
        "\u22c5": r"\cdot ",
        "\u00f7": r"\div ",
        "\u03c0": r"\pi ",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\u222a": r"\cup ",
        "\u2208": r"\in ",
        "\u00b0": r"^\circ ",
        "\u00b1": r"\pm ",
        "\u03b8": r"\theta ",
        "\u03b1": r"\alpha ",
        "\u03b2": r"\beta ",
        "\u221a": r"\sqrt ",
        "\u2205": r"\emptyset ",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        **{sign: rf"\frac{{{top}}}{{{bottom}}}" for sign, (top, bottom) in FRACTIONS.items()},
    }
)

_UNICODE_ROOT = re.compile(r"\u221a([0-9]+)")
_SIZES = re.compile(r"\\(?:left|right|[bB]ig{1,2}[lrm]?|displaystyle|textstyle|limits|nolimits)(?![A-Za-z])\.?")
_LOOKS = re.compile(
    r"\\(?:bf|it|rm|sf|tt|bfseries|itshape|boldmath|tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge"
    r"|Huge)(?![A-Za-z])"
)
_WRAPPERS = re.compile(r"\\(?:boldsymbol|bm|pmb|underline|uline|mathstrut)(?![A-Za-z])\s*")
_MODULUS = re.compile(r"\(?\\(?:pmod|bmod|mod|pod)(?![A-Za-z])\s*(?:\{([^{}]*)\}|([0-9A-Za-z]+))\)?")
_SPACES = re.compile(r"(\\\\)|\\(?:[ ,;:>]|q?quad(?![A-Za-z]))|~")  # a matrix's row break is kept
_FRACTIONS = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_PHANTOM = re.compile(r"\\h?phantom\{[^{}]*\}")
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:(?:\{,\}|,\s*\\!\s*|\\,|,\\ )[0-9]{3})+(?![0-9])")
_SEPARATORS = re.compile(r"\{,\}|,\s*\\!\s*|\\,|,\\ ")
_SPACE_RUNS = re.compile(r"\s+")
_IDLE_SPACE = re.compile(r"(?<![A-Za-z0-9.]) | (?![A-Za-z0-9.\\])")
_OPENING_SPACE = re.compile(r"(?<=[0-9A-Za-z]) (?=\\)")


def extract_answer(text: str) -> str | None:
    r"""The content of the last ``\boxed{…}`` or ``\fbox{…}``.

    Earlier boxes do not count, and a last box that was never closed (a truncated text) leaves no answer. A text
    without a box has none either: ``#### 42`` and "The answer is 42" are for ``extract_final_number``.

    Args:
        text: a completion or a worked solution.

    Returns:
        The content without surrounding white space, possibly empty; None if there is no (closed) last box.

    Example:
        >>> extract_answer(r"First \boxed{1}, no: \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> extract_answer(r"so $\boxed 2$"), extract_answer("#### 42"), extract_answer(r"\boxed{4")
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


def extract_final_number(text: str) -> str | None:
    """The number right after the last ``####`` (GSM8K's marker), else right after the last "answer is" or "answer:".

    What follows the number does not count: "42 or 17" is 42.

    Args:
        text: a completion or a reference solution.

    Returns:
        The number in plain digits, without thousands separators and dollar signs; None if there is no marker, or what
        follows the last one is no number.

    Example:
        >>> extract_final_number("… #### 1,234"), extract_final_number("The answer is -$5.50.")
        ('1234', '-5.50')
    """
    marker = text.rfind("####")
    start = marker + 4
    if marker < 0:
        spoken = deque(_SPOKEN.finditer(text), maxlen=1)
        if not spoken:
            return None
        start = spoken[0].end()
    window = text[start : start + _NUMBER_WINDOW].translate(_UNICODE)
    number = _NUMBER.match(_IDLE_BEFORE_NUMBER.sub("", window[: _first_digit(window)]) + window[_first_digit(window) :])
    return (number[1].replace("+", "") + number[2].replace(",", "")) if number else None


def _first_digit(text: str) -> int:
    return next((i for i, character in enumerate(text) if character in "0123456789."), len(text))


def clean(answer: str) -> str:
    r"""The same answer without notation that has no meaning: dollar signs around it, spacing, sizes, kinds of fraction.

    Two answers with the same clean text are equal.

    Args:
        answer: a bare answer or one between dollar signs.

    Example:
        >>> clean(r"$\left( \dfrac{1}{2} ,\, 3 \right)$"), clean(r"10{,}000"), clean("12 .")
        ('(\\frac{1}{2},3)', '10000', '12')
    """
    text = _UNICODE_ROOT.sub(r"\\sqrt{\1}", answer).translate(_UNICODE)
    text = _THOUSANDS.sub(lambda match: _SEPARATORS.sub("", match.group()), text)
    text = _PHANTOM.sub("", as_latex(text)).replace(r"\!", "")
    text = _MODULUS.sub(lambda match: rf"\pmod{{{match[1] or match[2]}}}", _WRAPPERS.sub("", _LOOKS.sub("", text)))
    text = _SPACES.sub(lambda match: match[1] or " ", _SIZES.sub("", text))
    text = _FRACTIONS.sub(lambda _: r"\frac", text)
    text = without_spaced_thousands(_unwrapped(_SPACE_RUNS.sub(" ", text).strip()))
    return _OPENING_SPACE.sub("", _IDLE_SPACE.sub("", text))


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
