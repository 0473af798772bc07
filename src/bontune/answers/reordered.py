r"""Answers that hold what is not computed, such as a sum: equal up to the order of terms and of factors.

    F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}    and    F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k

Nothing else is put right: what a sum runs over, its bounds and all that is inside stay as they are written.
"""

from __future__ import annotations

import itertools

from bontune.answers.latex_tokens import FUNCTIONS, UNEVALUATED, Token, Unreadable, tokens_of

MAX_DEPTH = 50

_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|"}
_IGNORED = ("*", r"\cdot", r"\times")
_RELATIONS = ("=", "<", ">", r"\le", r"\leq", r"\ge", r"\geq", r"\ne", r"\neq")


def in_order(cleaned: str) -> str | None:
    r"""A text that reorderings of one answer share; None if the answer cannot be taken apart.

    Args:
        cleaned: went through ``latex_normal_form.clean``.

    Example:
        >>> in_order(r"b a+\sum_{k=0}^{n} y x") == in_order(r"\sum_{k=0}^{n} x y+a b")
        True
        >>> in_order("f(x)g(y)") == in_order("f(y)g(x)"), in_order("a-b") == in_order("b-a")
        (False, False)
    """
    try:
        tokens = tokens_of(cleaned)
        if any(token.kind == "text" for token in tokens) or _depth(tokens) > MAX_DEPTH:
            return None
        return _relations(tokens)
    except Unreadable:
        return None


def _depth(tokens: list[Token]) -> int:
    return max(itertools.accumulate((t.text in _CLOSING) - (t.text in _CLOSING.values()) for t in tokens), default=0)


def _relations(tokens: list[Token]) -> str:
    sides: list[list[Token]] = [[]]
    operators = []
    depth = 0
    for token in tokens:
        depth += (token.text in _CLOSING and token.text != "|") - (token.text in (")", "]", "}", r"\}"))
        if depth == 0 and token.text in _RELATIONS:
            operators.append(token.text)
            sides.append([])
        else:
            sides[-1].append(token)
    texts = [_sum(side) for side in sides]
    return texts[0] + "".join(operator + text for operator, text in zip(operators, texts[1:], strict=True))


def _sum(tokens: list[Token]) -> str:
    """Terms in order, each with its sign. A sum's own terms end where the next sign comes."""
    terms: list[str] = []
    atoms: list[str] = []
    sign = "+"
    position = 0
    while position < len(tokens):
        if tokens[position].text in ("+", "-"):
            if atoms:
                terms.append(sign + _product(atoms))
            elif position:
                raise Unreadable("two signs in a row")
            sign, atoms = tokens[position].text, []
            position += 1
            continue
        atom, position = _atom(tokens, position)
        if atom not in _IGNORED:
            atoms.append(atom)
    if not atoms:
        raise Unreadable("a sign without a term")
    return "".join(sorted([*terms, sign + _product(atoms)]))


def _product(atoms: list[str]) -> str:
    """Factors in order up to an operator that takes what follows; what follows a sum's sign is in order, too."""
    for i, atom in enumerate(atoms):
        name = atom.split("_")[0].split("^")[0]
        if name in UNEVALUATED:
            return " ".join([*sorted(atoms[:i]), atom, _product(atoms[i + 1 :]) if atoms[i + 1 :] else ""])
        if name.lstrip("\\") in FUNCTIONS or name in ("/", r"\div", "!", ","):
            return " ".join(atoms)
    return " ".join(sorted(atoms))


def _atom(tokens: list[Token], position: int) -> tuple[str, int]:
    """A factor with what belongs to it: subscript, exponent, arguments; and where the next one begins."""
    token = tokens[position]
    text, position = token.text, position + 1
    if text in _CLOSING:
        inner, position = _group(tokens, position - 1)
        text = inner
    is_callable = token.kind in ("letter", "command")
    while position < len(tokens):
        following = tokens[position].text
        if following in ("_", "^"):
            argument, position = _argument(tokens, position + 1)
            text += following + argument
        elif following == "!" or (is_callable and following == "(") or (token.kind == "command" and following in "{["):
            if following == "!":
                text, position = text + "!", position + 1
            else:
                inner, position = _group(tokens, position)
                text += inner
        else:
            break
    return text, position


def _argument(tokens: list[Token], position: int) -> tuple[str, int]:
    if position >= len(tokens):
        raise Unreadable("it ends too early")
    if tokens[position].text == "{":
        inner, position = _group(tokens, position)
        return inner, position
    return "{" + tokens[position].text + "}", position + 1


def _group(tokens: list[Token], position: int) -> tuple[str, int]:
    """A bracket with its content, whose terms are in order where it is no list."""
    opening = tokens[position].text
    closing, depth = _CLOSING[opening], 0
    for end in range(position, len(tokens)):
        text = tokens[end].text
        if opening != "|" or end == position:
            depth += text == opening
        if text == closing and end > position:
            depth -= 1
        if depth == 0 and end > position:
            inner = tokens[position + 1 : end]
            return opening + _relations(inner) + closing if inner else opening + closing, end + 1
    raise Unreadable("an unclosed bracket")
