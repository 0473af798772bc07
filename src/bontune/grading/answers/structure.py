r"""What kind of answer a text is: a value, words, a list, a point, an interval, a matrix or an equation.

This module reads only; ``compare`` says which answers are equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bontune.grading.answers import values as exact
from bontune.grading.answers.expression import DEGREE, FUNCTIONS, Token, Unreadable, read_expression, tokens_of
from bontune.grading.answers.units import canonical_unit
from bontune.grading.answers.values import Tree, Value, exact_value, letters_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """An answer, or a part of one, that is a single value."""

    tree: Tree
    """Tree of the expression as written."""
    value: Value = field(compare=False)
    """Exact value of the expression, by which scalars are compared."""
    unit: str | None = None
    """Canonical name of the unit that followed, ``$`` and ``%`` included."""
    is_unit_known: bool = True
    """False for words that are no unit of the list."""
    word: str | None = None
    """The letters, if it is nothing but letters: ``AB`` may be a product or a word."""

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        return self.value.key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """An answer in words. ±∞, ∅ and numerals of another base are words, too: they are compared by name."""

    text: str

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Several answers in one."""

    kind: str
    """list (any order; sets too), union (any order), tuple (open intervals too), interval or matrix."""
    items: tuple[Answer, ...]
    """The answers in order; those of a matrix row by row."""
    shape: str = ""
    """Brackets of a tuple or interval, columns of a matrix."""

    def key(self) -> str:
        """Normal form, equal for equal answers."""
        keys = [item.key() for item in self.items]
        if self.kind in ("list", "union"):
            return (", " if self.kind == "list" else " u ").join(sorted(keys))
        if self.kind == "matrix":
            return f"matrix{self.shape}[{', '.join(keys)}]"
        return f"{self.shape[0]}{', '.join(keys)}{self.shape[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A value and its name, as in ``x = 5``."""

    name: str
    value: Answer

    def key(self) -> str:
        """Normal form: the value's."""
        return self.value.key()


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """An equation or inequality that does not name a value: left − right, compared with 0."""

    operator: str
    """``=``, ``<``, ``<=`` or ``!=``."""
    difference: Value = field(compare=False)

    def key(self) -> str:
        """Normal form; equations that differ by a constant factor keep different ones."""
        return f"{self.difference.key()}{self.operator}0"


Answer: TypeAlias = Scalar | Words | Collection | Named | Relation


MAX_ELEMENTS = 100

_SPELLINGS = {
    "=": "=",
    "<": r"< \lt",
    ">": r"> \gt",
    "<=": r"\le \leq \leqq \leqslant",
    ">=": r"\ge \geq \geqq \geqslant",
    "!=": r"\ne \neq",
    "in": r"\in",
}
_RELATIONS = {spelling: operator for operator, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_MIRRORED = {">": "<", ">=": "<="}
_OPENING = frozenset(("(", "[", "{", r"\{", r"\langle", r"\begin", r"\lbrace"))
_CLOSING = frozenset((")", "]", "}", r"\}", r"\rangle", r"\end", r"\rbrace"))
_BASED = re.compile(r"(-?)(?:\(|\\text\{)?([0-9A-Z]*[0-9][0-9A-Z]*)[)}]?_\{?([0-9]{1,2})\}?")
_NAME = re.compile(
    r"(?:m?\\angle|\\triangle|\\overline)?\{?[A-Z]{1,4}\}?|[A-Za-z](?:_(?:\w|\{\w+\}))?'*(?:\([a-z](?:,[a-z])*\))?"
    r"|\\[a-z]+|\([a-z](?:,[a-z])+\)"
)
_REALS = Collection(kind="tuple", items=(Words(text="-oo"), Words(text="oo")), shape="()")
"""The open interval from −∞ to ∞."""
_REAL_LINE = (r"\mathbb{R}", r"\mathbbR", r"\Bbb{R}", r"\BbbR", r"\R", r"\Reals", r"\reals", "all real numbers")
_PHRASE = re.compile(
    r"(?:yes|no|none|not|never|neither|undefined|infinitely|all|cannot|does not)(?: [a-z]+)*", re.IGNORECASE
)
"""Bare words that deny or affirm; others may be products of letters."""
_GROUPED = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2}(?:,[0-9]{3})+)(?![0-9,])")


def read_answer(cleaned: str) -> Answer:
    """Read an answer that went through ``notation.clean``.

    Raises:
        Unreadable: the text is no answer of a known kind, has no value or is too large to compute.
    """
    try:
        based = _BASED.fullmatch(cleaned)
        if based and int(based[3]) != 10:
            return Words(text=f"{based[1]}{based[2]}_{based[3]}")
        if based:
            cleaned = based[1] + based[2]
        if _PHRASE.fullmatch(cleaned):
            return _words(cleaned)
        return _read(tokens_of(_without_separators(cleaned)))
    except (exact.TooLarge, exact.Undefined) as error:
        raise Unreadable(str(error)) from None


def _words(text: str) -> Answer:
    words = " ".join(text.casefold().split())
    return _REALS if words in _REAL_LINE else Words(text=words)


def _without_separators(text: str) -> str:
    """``1,234`` → ``1234`` outside of brackets; in ``(1,234)`` the comma separates two numbers."""
    if not re.search(r"[0-9],[0-9]{3}", text):
        return text
    depth, position, out = 0, 0, []
    for match in _GROUPED.finditer(text):
        between = text[position : match.start()]
        depth += sum(between.count(c) for c in "([") + between.count(r"\{")
        depth -= sum(between.count(c) for c in ")]") + between.count(r"\}")
        out += [between, match.group() if depth else match.group().replace(",", "")]
        position = match.end()
    return "".join(out) + text[position:]


def _read(tokens: list[Token]) -> Answer:
    elements = _split(tokens, lambda t: t.text in (",", ";") or (t.kind == "text" and t.text in ("and", "or")))
    if len(elements) > 1:
        return _list_of(_without_joints(elements))
    if tokens and tokens[0].text in (r"\{", r"\lbrace"):
        whole = _infinity(tokens) or _bracketed(tokens)
        if whole:
            return whole
    if any(t.text in (r"\pm", r"\mp") for t in tokens):
        return _list_of([tokens])
    parts = _split(tokens, lambda t: t.text == r"\cup")
    if len(parts) > 1 and not _is_relation(parts[0]):
        return Collection(kind="union", items=tuple(_read(part) for part in parts))
    if _is_relation(tokens):
        return _relation(tokens)
    if tokens and all(t.kind == "text" for t in tokens):
        return _words(" ".join(t.text for t in tokens).rstrip("."))
    if "".join(t.text for t in tokens) in _REAL_LINE:
        return _REALS
    return _infinity(tokens) or _bracketed(tokens) or _matrix(tokens) or _scalar(tokens)


def _without_joints(elements: list[list[Token]]) -> list[list[Token]]:
    """The elements without the empty one of ``a, b, and c``, which stands before the last."""
    if len(elements) > 2 and not elements[-2]:
        elements = [*elements[:-2], elements[-1]]
    if not all(elements):
        raise Unreadable("an empty element")
    return elements


def _split(tokens: list[Token], is_separator: Callable[[Token], bool]) -> list[list[Token]]:
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.text in _OPENING and token.kind != "text":
            depth += 1
        elif token.text in _CLOSING and token.kind != "text":
            depth -= 1
        if depth < 0:
            raise Unreadable(f"{token.text!r} closes nothing")
        if depth == 0 and is_separator(token):
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise Unreadable("an unclosed bracket")
    if len(parts) > MAX_ELEMENTS:
        raise Unreadable(f"more than {MAX_ELEMENTS} elements")
    return parts


def _list_of(elements: list[list[Token]]) -> Answer:
    """A list in any order. One name for all (``x = 1, x = 2`` and ``x = 1, 2``) is a name of the list."""
    items = [_read(variant) for element in elements for variant in _signs_of(element)]
    if len(items) == 1:
        return items[0]
    names = {item.name for item in items if isinstance(item, Named)}
    is_first_only = len(items) > 1 and isinstance(items[0], Named) and not any(isinstance(i, Named) for i in items[1:])
    if len(names) == 1 and (is_first_only or all(isinstance(item, Named) for item in items)):
        values = tuple(item.value if isinstance(item, Named) else item for item in items)
        return Named(name=names.pop(), value=Collection(kind="list", items=values))
    return Collection(kind="list", items=tuple(items))


def _signs_of(tokens: list[Token]) -> list[list[Token]]:
    """The variants of an element: one with + and one with − in the place of ±; ∓ takes the other sign."""
    num_signs = sum(t.text == r"\pm" for t in tokens)
    if num_signs == 0 and not any(t.text == r"\mp" for t in tokens):
        return [tokens]
    if num_signs != 1:
        raise Unreadable("more than one ±")
    signs = {r"\pm": "+-", r"\mp": "-+"}
    return [
        [Token("symbol", signs[t.text][i]) if t.text in signs and t.kind == "command" else t for t in tokens]
        for i in range(2)
    ]


def _is_relation(tokens: list[Token]) -> bool:
    return any(t.kind != "text" and t.text in _RELATIONS for t in tokens)


def _relation(tokens: list[Token]) -> Answer:
    operators = [_RELATIONS[t.text] for t in tokens if t.kind != "text" and t.text in _RELATIONS]
    sides = _split(tokens, lambda t: t.kind != "text" and t.text in _RELATIONS)
    if len(sides) != len(operators) + 1 or any(not side for side in sides):
        raise Unreadable("a relation with an empty or bracketed side")
    name = _name(sides[0])
    if operators == ["in"] and name:
        return Named(name=name, value=_read(sides[1]))
    if set(operators) != {"="}:
        return _inequality(sides, operators)
    last_name = _name(sides[-1])
    if name and len(sides) == 2 and not (last_name and sides[1][0].text != "e"):
        return Named(name=name, value=_read(sides[1]))
    if name and len(sides) > 2:
        return Named(name=name, value=_one_value(sides[1:]))
    if last_name and len(sides) == 2 and not name:
        return _equation_or_name(last_name, sides)
    return _equation(sides)


def _equation_or_name(name: str, sides: list[list[Token]]) -> Answer:
    """``5 = x`` is a name for 5; ``2x = y`` stays an equation unless the left is free of the letter."""
    left = _read(sides[0])
    if isinstance(left, Scalar) and name not in letters_of(left.tree):
        return Named(name=name, value=left)
    return _equation(sides)


def _name(side: list[Token]) -> str | None:
    if side and all(t.kind == "text" for t in side):
        return " ".join(t.text for t in side).casefold()
    text = "".join(t.text for t in side)
    if any(t.kind == "text" for t in side) or text in (r"\infty", r"\pi", "e", "i"):
        return None
    return text if _NAME.fullmatch(text) else None


def _one_value(sides: list[list[Token]]) -> Answer:
    """The value of a chain such as ``2 + 3 = 5``, whose sides must all be equal."""
    answers = [_read(side) for side in sides]
    first = answers[-1]
    if not isinstance(first, Scalar):
        raise Unreadable("a chain of equalities between what are no values")
    for other in answers[:-1]:
        if not isinstance(other, Scalar) or not exact.same(first.value, other.value):
            raise Unreadable("a chain of equalities that does not hold")
    return first


def _equation(sides: list[list[Token]]) -> Answer:
    trees = [_scalar(side) for side in sides]
    if not any(letters_of(side.tree) for side in trees):
        return _one_value(sides)
    if len(sides) > 2:
        raise Unreadable("a chain of equations")
    difference = exact.difference(trees[0].value, trees[1].value)
    if difference.rational == 0:
        return trees[-1]  # an identity has one value, as a chain of equal numbers has
    return Relation(operator="=", difference=difference)


def _inequality(sides: list[list[Token]], operators: list[str]) -> Answer:
    if any(operator in ("=", "in") for operator in operators):
        raise Unreadable("a chain of different relations")
    answers = [_endpoint(side) for side in sides]
    if all(operator.startswith(">") for operator in operators):
        answers, operators = answers[::-1], [_MIRRORED[operator] for operator in operators[::-1]]
    if not all(operator.startswith("<") for operator in operators) and len(operators) > 1:
        raise Unreadable("a chain of different relations")
    interval = None
    if operators != ["!="]:
        interval = _interval_of(answers, operators) or _solved(answers, operators)
    if interval:
        return interval
    scalars = [answer for answer in answers if isinstance(answer, Scalar)]
    if len(answers) > 2 or len(scalars) < 2:
        raise Unreadable("a chain of inequalities that is no interval")
    return Relation(operator=operators[0], difference=exact.difference(scalars[0].value, scalars[1].value))


def _interval_of(sides: Sequence[Scalar | Words], operators: list[str]) -> Collection | None:
    """``a < x <= b`` and ``x < b`` as intervals: one letter alone, numbers at the ends."""
    middles = [i for i, side in enumerate(sides) if isinstance(side, Scalar) and side.tree[0] == "var"]
    if len(middles) != 1 or len(sides) > 3 or (len(sides) == 3 and middles != [1]):
        return None
    if any(isinstance(side, Scalar) and letters_of(side.tree) for i, side in enumerate(sides) if i != middles[0]):
        return None
    low: Answer = Words(text="-oo")
    high: Answer = Words(text="oo")
    shape = ["(", ")"]
    if middles[0] > 0:
        low, shape[0] = sides[middles[0] - 1], "(" if operators[middles[0] - 1] == "<" else "["
    if middles[0] < len(sides) - 1:
        high, shape[1] = sides[middles[0] + 1], ")" if operators[middles[0]] == "<" else "]"
    brackets = "".join(shape)
    kind = "tuple" if brackets == "()" else "interval"  # an open interval is written like a point
    return Collection(kind=kind, items=(low, high), shape=brackets)


def _solved(sides: Sequence[Scalar | Words], operators: list[str]) -> Collection | None:
    """The interval of an inequality that is linear in one letter: ``-x > -1``, ``1 < 2x + 3 < 5``."""
    trees = [side.tree for side in sides if isinstance(side, Scalar)]
    sides_alone = exact.isolated(trees, operators) if len(trees) == len(sides) else None
    if sides_alone is None:
        return None
    trees, operators = sides_alone
    return _interval_of([Scalar(tree=tree, value=exact_value(tree)) for tree in trees], operators)


def _endpoint(side: list[Token]) -> Scalar | Words:
    return _infinity(side) or _scalar(side)


def _infinity(tokens: list[Token]) -> Words | None:
    text = "".join(t.text for t in tokens)
    if text in (r"\infty", r"+\infty", r"-\infty"):
        return Words(text="-oo" if text.startswith("-") else "oo")
    return Words(text="{}") if text in (r"\emptyset", r"\varnothing", r"\{\}") else None


def _bracketed(tokens: list[Token]) -> Answer | None:
    if len(tokens) < 3 or tokens[0].text not in ("(", "[", r"\{", r"\langle", r"\lbrace"):
        return None
    opening, closing = tokens[0].text, tokens[-1].text
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.text in _OPENING) - (token.text in _CLOSING) if token.kind != "text" else 0
        if depth == 0 and i < len(tokens) - 1:
            return None  # the first bracket closes before the end: (x+1)(x-1)
    rows = _split(tokens[1:-1], lambda t: t.text == ";") if opening + closing == "[]" else []
    if len(rows) > 1:
        cells = [_split(row, lambda t: t.text == ",") for row in rows]
        if len(cells[0]) > 1:
            return _matrix_of(cells, [])
    parts = _split(tokens[1:-1], lambda t: t.text in (",", ";"))
    if opening in (r"\{", r"\lbrace"):
        if closing not in (r"\}", r"\rbrace"):
            raise Unreadable("brackets that do not match")
        return _list_of(_without_joints(parts))
    if len(parts) < 2:
        return None
    if opening == r"\langle":
        opening, closing = "(", ")" if closing == r"\rangle" else ""
    if opening + closing not in ("()", "(]", "[)", "[]"):
        raise Unreadable("brackets that do not match")
    is_interval = len(parts) == 2 and opening + closing != "()"
    if opening + closing != "()" and not is_interval:
        raise Unreadable("square brackets around other than two values")
    items = tuple(_read(part) for part in parts)
    return Collection(kind="interval" if is_interval else "tuple", items=items, shape=opening + closing)


def _matrix(tokens: list[Token]) -> Answer | None:
    starts = [i for i, t in enumerate(tokens) if t.text == r"\begin" and t.kind == "command"]
    if not starts:
        return None
    texts = [t.text for t in tokens]
    start = starts[0]
    stop = texts.index("}", start)
    name = "".join(texts[start + 2 : stop])
    if len(starts) > 1 or name not in ("pmatrix", "bmatrix", "Bmatrix", "matrix"):
        raise Unreadable("an environment that is no single matrix")
    end = texts.index(r"\end") if r"\end" in texts else 0
    if end < stop or texts[end + 1 :] != ["{", *texts[start + 2 : stop], "}"]:
        raise Unreadable("something after a matrix")
    rows = _split(tokens[stop + 1 : end], lambda t: t.text == r"\\")
    if not rows[-1]:
        rows.pop()
    cells = [_split(row, lambda t: t.text == "&") for row in rows]
    return _matrix_of(cells, tokens[:start])


def _matrix_of(cells: list[list[list[Token]]], factor: list[Token]) -> Collection:
    """A matrix of rows of cells, each multiplied by what stands before the matrix."""
    if len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MAX_ELEMENTS:
        raise Unreadable("a matrix with rows of different length, or too large")
    sign = [Token("number", "1")] if [t.text for t in factor] == ["-"] else []
    scaled = [_scaled(cell, [*factor, *sign]) for row in cells for cell in row]
    return Collection(kind="matrix", items=tuple(scaled), shape=str(len(cells[0])))


def _scaled(cell: list[Token], factor: list[Token]) -> Scalar:
    if not factor:
        return _scalar(cell)
    tree = ("mul", read_expression(factor), read_expression(cell))
    return Scalar(tree=tree, value=exact_value(tree))


def _scalar(tokens: list[Token]) -> Scalar:
    body, unit, is_known = _without_unit(tokens)
    if not body:
        raise Unreadable("no value")
    tree = read_expression(body)
    word = "".join(t.text for t in body) if len(body) > 1 and all(t.kind == "letter" for t in body) else None
    return Scalar(tree=tree, value=exact_value(tree), unit=unit, is_unit_known=is_known, word=word)


def _without_unit(tokens: list[Token]) -> tuple[list[Token], str | None, bool]:
    """The value's tokens, its unit if one follows (or a dollar sign comes first), and whether the unit is known."""
    sign = tokens[:1] if tokens and tokens[0].text in ("-", "+") else []
    rest = tokens[len(sign) :]
    if rest and rest[0].text in (r"\$", "$"):
        return _checked_body([*sign, *rest[1:]]), "dollar", True
    if not tokens:
        return tokens, None, True
    # An exponent belongs to the unit where words stand before it: "5 cm^2", but not "x^2".
    texts = [t.text if t.kind != "text" else "" for t in tokens]
    exponent = ""
    end = len(tokens)
    for pattern in (["^", "2"], ["^", "3"], ["^", "{", "2", "}"], ["^", "{", "3", "}"]):
        if texts[-len(pattern) :] == pattern and end > len(pattern) and tokens[-len(pattern) - 1].kind == "text":
            exponent, end = "^" + pattern[-1 if len(pattern) == 2 else -2], end - len(pattern)
            break
    # All words at the end are the unit: "miles per hour".
    last = tokens[end - 1]
    if last.kind == "text":
        start = end - 1
        while start > 0 and tokens[start - 1].kind == "text":
            start -= 1
        unit, is_known = canonical_unit(" ".join(t.text for t in tokens[start:end]) + exponent)
        return _checked_body(tokens[:start]), unit, is_known
    if last.text in (r"\%", "%"):
        return _checked_body(tokens[:-1]), "percent", True
    if last.text in (r"\$", "$"):
        return _checked_body(tokens[:-1]), "dollar", True
    # Degrees are a unit, but not in a sine, nor where another degree shows that they are a factor.
    if (
        last.text == DEGREE
        and sum(t.text == DEGREE for t in tokens) == 1
        and not any(t.kind == "command" and t.text[1:] in FUNCTIONS for t in tokens)
    ):
        return tokens[:-1], "degree", True
    return tokens, None, True


def _checked_body(tokens: list[Token]) -> list[Token]:
    """The tokens of a value that had a unit, without the dot of ``5\\cdot\\text{cm}``."""
    return tokens[:-1] if tokens and tokens[-1].text in (r"\cdot", r"\times") else tokens
