"""Split an answer's LaTeX into tokens: numbers, letters, commands, symbols and words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bontune.answers.units import is_unit

MAX_LENGTH = 2_000
MAX_TOKENS = 1_000

_TOKEN = re.compile(
    r"(?P<space> +)"
    r"|(?P<number>[0-9]+\.(?=\\(?:overline|bar))|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"|\\(?:text(?:bf|rm|it|sf|normal|tt|up|md|sl|sc)?|emph|mbox|mathrm|mathnormal|mathbf|mathit|mathsf|operatorname\*?)\s*\{(?P<text>[^{}\\$]*)\}"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<escaped>\\.)"
    r"|(?P<word>(?<![A-Za-z])[A-Za-z]{2,}(?![A-Za-z]))"
    r"|(?P<letter>[A-Za-z])"
    r"|(?P<symbol>[-+*/^_(){}\[\]|!,;:=<>'%$&.])",
    re.ASCII | re.DOTALL,
)
_PLAIN_WORD = re.compile(r"(?!abcd|wxyz)[A-Za-z][a-z]+|[A-Z]{5,}")
_CHOICE = re.compile(r"\([A-Z]\)\.?|[A-Z]\.?")
_CHOICES = re.compile(r"[A-Za-z]+(?:, ?[A-Za-z]+)+")
_FUNCTION_NAMES = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln exp log lg asin acos atan"
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_UNEVALUATED_NAMES = r"\sum \int \iint \oint \prod \lim \limsup \liminf \max \min \sup \inf \det \gcd \lcm"
UNEVALUATED = frozenset(_UNEVALUATED_NAMES.split())
"""Operators whose result was asked for: an answer that holds one restates its problem."""
DEGREE = r"^\circ"


class Unreadable(ValueError):
    """The text is not in the grammar; the message is one phrase for people."""


class UnknownNotation(Unreadable):
    """A LaTeX command that the grammar does not know, in a text that is otherwise in order so far."""


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of an answer."""

    kind: str
    """number, text, command, letter or symbol."""
    text: str
    """As written; for text the content of ``\\text{…}``; for numbers the digits."""
    has_space: bool = False
    """Whether a space came before."""


def tokens_of(text: str) -> list[Token]:
    """Split a cleaned answer.

    Raises:
        Unreadable: a character outside the grammar (digits of other scripts are), or too long.
    """
    if len(text) > MAX_LENGTH:
        raise Unreadable(f"{len(text)} characters, more than {MAX_LENGTH}")
    tokens: list[Token] = []
    position, has_space = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Unreadable(f"{text[position]!a} is not in the grammar")
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "space":
            has_space = True
            continue
        tokens += _refined(kind, match[kind], has_space)
        has_space = False
    if len(tokens) > MAX_TOKENS:
        raise Unreadable(f"more than {MAX_TOKENS} tokens")
    return _with_degrees(tokens)


def _refined(kind: str, text: str, has_space: bool) -> list[Token]:
    if kind == "word":
        if text in ("and", "or") or is_unit(text) or (len(text) > 3 and _PLAIN_WORD.fullmatch(text)):
            return [Token("text", text, has_space)]
        return [Token("letter", letter, has_space and i == 0) for i, letter in enumerate(text)]
    if kind == "text":
        inner = text.strip()
        if inner in (", and", ", or"):
            return [Token("symbol", ",")]
        if _CHOICE.fullmatch(inner):
            return [Token("letter", inner.strip("()."), has_space)]
        if _CHOICES.fullmatch(inner):
            parts = [_refined("text", part, has_space) for part in inner.split(",")]
            return [token for i, part in enumerate(parts) for token in ([Token("symbol", ",")] * (i > 0) + part)]
        if re.fullmatch(
            r"[-+0-9., ()]*[0-9][-+0-9., ()]*|[A-Za-z]", inner
        ):  # \mathbf{42} and \mathrm{e} are mathematics
            return [Token(t.kind, t.text, t.has_space or i == 0) for i, t in enumerate(tokens_of(inner))]
        if inner in FUNCTIONS:
            return [Token("command", "\\" + inner, has_space)]
        return [Token("text", inner, True)] if inner else []
    if kind == "escaped":
        return [Token("command", text, has_space)]
    return [Token(kind, text, has_space)]


def _with_degrees(tokens: list[Token]) -> list[Token]:
    r"""``^\circ``, ``^{\circ}`` and ``\degree`` as one token."""
    out: list[Token] = []
    i = 0
    while i < len(tokens):
        texts = [t.text for t in tokens[i : i + 4]]
        if texts[:2] == ["^", r"\circ"]:
            width = 2
        elif texts == ["^", "{", r"\circ", "}"]:
            width = 4
        elif texts[:1] == [r"\degree"]:
            width = 1
        else:
            out.append(tokens[i])
            i += 1
            continue
        out.append(Token("symbol", DEGREE))
        i += width
    return out
