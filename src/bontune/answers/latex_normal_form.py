"""From a completion to the answer's text: boxes, final statements, and notation that changes nothing.

Everything here is string work in linear time, safe on any input.
"""

from __future__ import annotations

import re
from collections import deque

from bontune.answers.characters import TABLE
from bontune.answers.plain_notation import FRACTIONS, as_latex, without_spaced_thousands

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
