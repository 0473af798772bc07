r"""Notation beside LaTeX's that models write into boxes, put into LaTeX: ``sqrt(3)``, ``2**(1/4)``, ``1e6``, ``¾``.

Only a text without any LaTeX command is read so: in LaTeX ``pi`` is a product of two letters.
"""

from __future__ import annotations

import re

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
