r"""Which answers are equal.

Exact arithmetic decides most pairs; what it cannot decide is left as pairs of expressions. Answers that hold what is
not computed, such as a sum, are equal up to the order of terms and of factors:

    F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}    and    F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k

Nothing else is put right in them: what a sum runs over, its bounds and all that is inside stay as they are written.
"""

from __future__ import annotations

import itertools

from bontune.grading.answers import values as exact
from bontune.grading.answers.approximate import surely_different
from bontune.grading.answers.expression import FUNCTIONS, UNEVALUATED, Token, Unreadable, tokens_of
from bontune.grading.answers.structure import Answer, Collection, Named, Relation, Scalar, Words
from bontune.grading.answers.values import TooLarge, Tree

Pairs = list[tuple[Tree, Tree]]


def can_be_equal(gold: Answer, answer: Answer, undecided: Pairs) -> bool:
    """Whether the answers can be equal.

    Args:
        gold: the right answer; its unit may be any word.
        answer: the one in question.
        undecided: receives the pairs of expressions that must also be equal for the answers to be.

    Returns:
        False if they are certainly different; True if they are equal provided that the undecided pairs are.
    """
    if isinstance(gold, Named) and isinstance(answer, Named):
        return gold.name == answer.name and can_be_equal(gold.value, answer.value, undecided)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relations(_as_relation(gold), _as_relation(answer))
    if isinstance(gold, Named):
        return can_be_equal(gold.value, answer, undecided)
    if isinstance(answer, Named):
        return can_be_equal(gold, answer.value, undecided)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _word(gold) is not None and _word(gold) == _word(answer)
    if isinstance(gold, Scalar) and isinstance(answer, Scalar):
        return _units_agree(gold, answer) and _scalars(gold, answer, undecided)
    if isinstance(gold, Collection) and isinstance(answer, Collection):
        kinds = {gold.kind, answer.kind}
        if gold.shape != answer.shape or len(gold.items) != len(answer.items):
            return False
        if kinds <= {"list", "union"}:  # x < 1 or x > 2 is a list of two intervals and means their union
            return _any_order(gold.items, answer.items, undecided)
        pairs = zip(gold.items, answer.items, strict=True)
        return len(kinds) == 1 and all(can_be_equal(g, a, undecided) for g, a in pairs)
    return False


def _word(answer: Answer) -> str | None:
    if isinstance(answer, Words):
        return answer.text
    return answer.word.casefold() if isinstance(answer, Scalar) and answer.word else None


def _units_agree(gold: Scalar, answer: Scalar) -> bool:
    """Whether the units are equal, or one is missing and the other is known; the gold's own counts as known."""
    if gold.unit == answer.unit or answer.unit is None:
        return True
    return gold.unit is None and answer.is_unit_known


def _scalars(gold: Scalar, answer: Scalar, undecided: Pairs) -> bool:
    if gold.word and answer.word and len(gold.word) > 2:
        return gold.word == answer.word or (gold.word.islower() and sorted(gold.word) == sorted(answer.word))
    try:
        if exact.same(gold.value, answer.value):
            return True
    except TooLarge:
        return False
    if (gold.value.is_canonical and answer.value.is_canonical) or surely_different(gold.tree, answer.tree):
        return False
    undecided.append((gold.tree, answer.tree))
    return True


def _any_order(golds: tuple[Answer, ...], answers: tuple[Answer, ...], undecided: Pairs) -> bool:
    """Whether each gold element has its own equal: one of the same normal form, else the first that can be equal."""
    unmatched = [(answer.key(), answer) for answer in answers]
    keys = {key for key, _ in unmatched}
    for gold_key, gold in sorted(((g.key(), g) for g in golds), key=lambda pair: pair[0] not in keys):
        same = [item for item in unmatched if item[0] == gold_key]
        # The comparison of all with all is quadratic.
        for candidate in same if len(golds) > 30 else [*same, *unmatched]:
            pairs: Pairs = []
            if can_be_equal(gold, candidate[1], pairs):
                undecided += pairs
                unmatched.remove(candidate)
                break
        else:
            return False
    return True


def _as_relation(answer: Answer) -> Relation | None:
    """An equation such as ``y = 2x + 3`` was read as a name and a value; this makes it an equation again."""
    if isinstance(answer, Relation):
        return answer
    if not isinstance(answer, Named) or not isinstance(answer.value, Scalar) or len(answer.name) > 1:
        return None
    try:
        letter = exact.exact_value(("var", answer.name))
        return Relation(operator="=", difference=exact.difference(letter, answer.value.value))
    except TooLarge:
        return None


def _relations(gold: Relation | None, answer: Relation | None) -> bool:
    """Whether the relations are equal up to a constant factor, which must be positive for an inequality."""
    if gold is None or answer is None or gold.operator != answer.operator:
        return False
    try:
        ratio = exact.proportional(gold.difference, answer.difference)
    except TooLarge:
        return False
    return ratio is not None and (ratio > 0 or gold.operator in ("=", "!="))


MAX_DEPTH = 50

_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "|": "|"}
_IGNORED = ("*", r"\cdot", r"\times")
_RELATIONS = ("=", "<", ">", r"\le", r"\leq", r"\ge", r"\geq", r"\ne", r"\neq")


def unordered_form(cleaned: str) -> str | None:
    r"""A form that all orders of an answer's terms and factors share; None if the answer cannot be taken apart.

    Args:
        cleaned: an answer that went through ``notation.clean``.

    Example:
        >>> unordered_form(r"b a+\sum_{k=0}^{n} y x") == unordered_form(r"\sum_{k=0}^{n} x y+a b")
        True
        >>> unordered_form("f(x)g(y)") == unordered_form("f(y)g(x)")
        False
    """
    try:
        tokens = tokens_of(cleaned)
        if any(token.kind == "text" for token in tokens) or _depth(tokens) > MAX_DEPTH:
            return None
        return _sides_in_order(tokens)
    except Unreadable:
        return None


def _depth(tokens: list[Token]) -> int:
    return max(itertools.accumulate((t.text in _CLOSING) - (t.text in _CLOSING.values()) for t in tokens), default=0)


def _sides_in_order(tokens: list[Token]) -> str:
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
    """The terms in order, each with its sign. A sum's own terms end where the next sign comes."""
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
    """The factors in order, up to an operator that takes what follows; what follows a sum's sign is in order, too."""
    for i, atom in enumerate(atoms):
        name = atom.split("_")[0].split("^")[0]
        if name in UNEVALUATED:
            return " ".join([*sorted(atoms[:i]), atom, _product(atoms[i + 1 :]) if atoms[i + 1 :] else ""])
        if name.lstrip("\\") in FUNCTIONS or name in ("/", r"\div", "!", ","):
            return " ".join(atoms)
    return " ".join(sorted(atoms))


def _atom(tokens: list[Token], position: int) -> tuple[str, int]:
    """A factor with its subscript, exponent and arguments, and the position where the next one begins."""
    token = tokens[position]
    text, position = token.text, position + 1
    if text in _CLOSING:
        text, position = _group(tokens, position - 1)
    is_callable = token.kind in ("letter", "command")
    while position < len(tokens):
        following = tokens[position].text
        if following in ("_", "^"):
            argument, position = _argument(tokens, position + 1)
            text += following + argument
        elif following == "!":
            text, position = text + "!", position + 1
        elif (is_callable and following == "(") or (token.kind == "command" and following in "{["):
            inner, position = _group(tokens, position)
            text += inner
        else:
            break
    return text, position


def _argument(tokens: list[Token], position: int) -> tuple[str, int]:
    if position >= len(tokens):
        raise Unreadable("it ends too early")
    if tokens[position].text == "{":
        return _group(tokens, position)
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
            return opening + _sides_in_order(inner) + closing if inner else opening + closing, end + 1
    raise Unreadable("an unclosed bracket")
