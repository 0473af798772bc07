"""Which answers are equal, as far as exact arithmetic can tell; what it cannot is left as pairs of expressions."""

from __future__ import annotations

from bontune.answers import exact_value
from bontune.answers.approximate import surely_different
from bontune.answers.exact_value import TooLarge, Tree
from bontune.answers.kinds import Answer, Collection, Named, Relation, Scalar, Words

Pairs = list[tuple[Tree, Tree]]


def compare(gold: Answer, answer: Answer, undecided: Pairs) -> bool:
    """Whether the answers can be equal.

    Args:
        gold: the right answer; its unit may be any word.
        answer: the one in question.
        undecided: receives the pairs of expressions that must also be equal for the answers to be.

    Returns:
        False if they are certainly different; True if they are equal provided that the undecided pairs are.
    """
    if isinstance(gold, Named) and isinstance(answer, Named):
        return gold.name == answer.name and compare(gold.value, answer.value, undecided)
    if isinstance(gold, Relation) or isinstance(answer, Relation):
        return _relations(_as_relation(gold), _as_relation(answer))
    if isinstance(gold, Named):
        return compare(gold.value, answer, undecided)
    if isinstance(answer, Named):
        return compare(gold, answer.value, undecided)
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
        return len(kinds) == 1 and all(compare(g, a, undecided) for g, a in zip(gold.items, answer.items, strict=True))
    return False


def _word(answer: Answer) -> str | None:
    if isinstance(answer, Words):
        return answer.text
    return answer.word.casefold() if isinstance(answer, Scalar) and answer.word else None


def _units_agree(gold: Scalar, answer: Scalar) -> bool:
    """Equal units, or one of the two has none and the other's is known; the gold's own counts as known."""
    if gold.unit == answer.unit or answer.unit is None:
        return True
    return gold.unit is None and answer.is_unit_known


def _scalars(gold: Scalar, answer: Scalar, undecided: Pairs) -> bool:
    if gold.word and answer.word and len(gold.word) > 2:
        return gold.word == answer.word or (gold.word.islower() and sorted(gold.word) == sorted(answer.word))
    try:
        if exact_value.same(gold.value, answer.value):
            return True
    except TooLarge:
        return False
    if (gold.value.is_canonical and answer.value.is_canonical) or surely_different(gold.tree, answer.tree):
        return False
    undecided.append((gold.tree, answer.tree))
    return True


def _any_order(golds: tuple[Answer, ...], answers: tuple[Answer, ...], undecided: Pairs) -> bool:
    """Each gold element has its own equal: first by normal form, then the first that is not certainly different."""
    left = [(answer.key(), answer) for answer in answers]
    keys = {key for key, _ in left}
    for gold_key, gold in sorted(((g.key(), g) for g in golds), key=lambda pair: pair[0] not in keys):
        pairs: Pairs = []
        chosen = next((i for i, (key, a) in enumerate(left) if key == gold_key and compare(gold, a, pairs)), None)
        if chosen is None:
            if len(golds) > 30:  # the comparison of all with all is quadratic
                return False
            for i, (_, candidate) in enumerate(left):
                pairs = []
                if compare(gold, candidate, pairs):
                    chosen = i
                    break
        if chosen is None:
            return False
        undecided.extend(pairs)
        del left[chosen]
    return True


def _as_relation(answer: Answer) -> Relation | None:
    """``y = 2x + 3``, read as a name and a value, as the equation that it is too."""
    if isinstance(answer, Relation):
        return answer
    if not isinstance(answer, Named) or not isinstance(answer.value, Scalar) or len(answer.name) > 1:
        return None
    try:
        letter = exact_value.evaluate(("var", answer.name))
        return Relation(operator="=", difference=exact_value.difference(letter, answer.value.value))
    except TooLarge:
        return None


def _relations(gold: Relation | None, answer: Relation | None) -> bool:
    """The same up to a constant factor, which must be positive for an inequality."""
    if gold is None or answer is None or gold.operator != answer.operator:
        return False
    try:
        ratio = exact_value.proportional(gold.difference, answer.difference)
    except TooLarge:
        return False
    return ratio is not None and (ratio > 0 or gold.operator in ("=", "!="))
