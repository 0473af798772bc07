"""Countdown: reach a target from four numbers with ``+``, ``-`` and ``*``. Needs no data and no sandbox.

The prompt ``3,7,2,9:48=`` asks for an expression such as ``(7-2)*9+3`` that uses every given number exactly once.
Numbers are 1..13, targets 1..99. A problem is drawn as four numbers and a random expression over them whose value
becomes the target, so each has a solution; problems are distinct by sorted numbers and target, across splits too.

Difficulty is the share of random expressions (operators drawn evenly) that hit the target, found by enumerating all
3,888 equally likely ones: 3.6 % and more is level 1, under 0.7 % is level 5, about a fifth of the problems each.

``hard=True`` is another distribution, to see whether what was learned on the usual problems carries over: expressions
with twice as many products, of which only the two hardest levels are kept, and none of the usual task's problems of
the same seed. Prompts look the same. The shipped model solves 0.013 of the 500 test problems at the first attempt and
0.26 within 32 (usual ones: 0.15 and 0.67). Held out they are from training on the usual problems, not from the
demonstrations to the shipped model, which held 0.38 of the hard test problems (solved within 32: 0.40; the others:
0.18), as they held 0.74 of the usual train problems and none of the usual test problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import thoughts_of
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import AnswerKeys, grade_answers, grade_each
from bontune.tasks.embedded import SPLITS, embedded_file, read_embedded, readable_problems
from bontune.tasks.options import Seed, ThoughtTags, checked
from bontune.tasks.reading import FilePath


class Countdown:
    """The embedded task: 4,000 train, 500 validation and 500 test problems, the same for the same seed everywhere.

    Args:
        seed: 0, the problems that ship. The shipped model has not seen the test and validation problems.
        hard: other, harder problems instead, in as many splits of the same sizes: more products, levels 4 and 5 only,
            and none of the usual problems. For testing what was trained on the usual ones; the shipped model may have
            seen them.
        data: a file of other problems, drawn by ``tools/countdown_problems.py --seed``; None: those that ship.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.

    Example:
        >>> task = Countdown()
        >>> problem = task.problems("test")[0]
        >>> [grade.verdict.value for grade in task.grade([problem], [[problem.reference, "1+1"]])[0]]
        ['passed', 'failed']
    """

    @checked
    def __init__(
        self, *, seed: Seed = 0, hard: bool = False, data: FilePath | None = None, thoughts: ThoughtTags = "auto"
    ) -> None:
        self.name = "countdown"
        self.stop: tuple[str, ...] = ()
        self.splits: tuple[str, ...] = SPLITS
        self.thoughts = thoughts_of(thoughts)
        self._file = embedded_file("countdown", seed, hard, data)

    def problems(self, split: str) -> list[Problem]:
        """The problems of ``train``, ``validation`` or ``test``; ``reference`` is one solution."""
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise BontuneError(
                f"Task countdown has no split {split!r}{did_you_mean(split, self.splits)}; it has {known}."
            )
        return list(_problems_of(self._file)[split])

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Reward 1 for an expression of the given numbers that equals the target, else 0."""
        return grade_answers(
            self.thoughts, problems, completions, lambda these, answers: grade_each(these, answers, _grade_one, poll)
        )

    def demonstration(self, problem: Problem) -> str:
        """The solution that the problem was drawn from."""
        return problem.reference

    @staticmethod
    def answer_keys(options: Mapping[str, Any]) -> AnswerKeys:
        """The numbers of an expression and its value, in which a right answer agrees with the problem's solution."""
        return AnswerKeys(answer=_numbers_and_value, reference=_numbers_and_value)


def format_prompt(numbers: Sequence[int], target: int) -> str:
    """The prompt of a problem.

    Example:
        >>> format_prompt([3, 7, 2, 9], 48)
        '3,7,2,9:48='
    """
    return f"{','.join(map(str, numbers))}:{target}="


@lru_cache(maxsize=4)
def _problems_of(file: Path) -> dict[str, tuple[Problem, ...]]:
    with readable_problems(file):
        splits: dict[str, list[Problem]] = {}
        for row in read_embedded(file):
            numbers, target = row["numbers"], row["target"]
            problem = Problem(
                id=f"{'-'.join(map(str, sorted(numbers)))}={target}",
                prompt=format_prompt(numbers, target),
                reference=row["solution"],
                level=row["level"],
                row={"numbers": numbers, "target": target},
            )
            splits.setdefault(row["split"], []).append(problem)
        return {split: tuple(splits[split]) for split in SPLITS}


def _grade_one(problem: Problem, completion: str) -> Grade:
    try:
        found = evaluate(completion)
    except ExpressionError as error:
        return Grade(reward=0.0, verdict=Verdict.FAILED, reason=f"not an expression: {error}")
    numbers, target = problem.row["numbers"], problem.row["target"]
    reason = ""
    if sorted(found.numbers) != sorted(numbers):
        reason = f"uses {_listed(found.numbers)}, not each of {_listed(numbers)} once"
    elif found.value != target:
        reason = f"equals {found.value}, not {target}"
    return Grade(
        reward=0.0 if reason else 1.0,
        verdict=Verdict.FAILED if reason else Verdict.PASSED,
        answer=found.normal_form,
        reason=reason,
    )


def _numbers_and_value(expression: str) -> tuple[tuple[int, ...], int] | None:
    try:
        found = evaluate(expression)
    except ExpressionError:
        return None
    return tuple(sorted(found.numbers)), found.value


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


_DIGITS = frozenset("0123456789")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2}


class ExpressionError(ValueError):
    """The text is no expression of the grammar, or exceeds a limit; the message is one phrase for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpressionLimits:
    """What a text may cost. A value has at most ``max_length`` digits, as products add their factors' lengths."""

    max_length: int = 100
    """Characters in the whole text."""
    max_depth: int = 25
    """Parentheses open at once."""
    max_digits: int = 6
    """Digits of one number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expression:
    """An expression's value and what it is made of."""

    value: int
    """Exact value of the expression."""
    numbers: tuple[int, ...]
    """The numbers written, in order of appearance."""
    normal_form: str
    """The same for texts that differ only in order and grouping of terms and factors: ``2+(3+1)`` gives ``1+2+3``.

    Itself an expression with the same value and numbers. Cancelling and distributing are not applied, so two
    different ways to reach a value stay two.
    """


@dataclass(frozen=True, slots=True)
class _Part:
    """A sub-expression, kept as the sum and as the product it can be merged into."""

    value: int
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    factors: tuple[str, ...]


DEFAULT_LIMITS = ExpressionLimits()


def evaluate(text: str, limits: ExpressionLimits = DEFAULT_LIMITS) -> Expression:
    """Evaluate ``text`` exactly.

    Args:
        text: what the model wrote, any string.
        limits: bounds on length, nesting and digits.

    Returns:
        The value, the numbers used and the normal form.

    Raises:
        ExpressionError: the text is empty, malformed or over a limit.

    Example:
        >>> evaluate("(7-2)*9+3").value
        48
        >>> evaluate("3+9*(7-2)").normal_form == evaluate("(7-2)*9+3").normal_form
        True
        >>> evaluate("3--2")
        Traceback (most recent call last):
        bontune.tasks.countdown.ExpressionError: expected a number or '(' at character 3, found '-'
    """
    operands: list[_Part] = []
    operators: list[str] = []
    numbers: list[int] = []
    depth = 0
    operand_expected = True
    for position, token in _tokens(text, limits):
        if operand_expected != (token == "(" or token[0] in _DIGITS):
            wanted = "a number or '('" if operand_expected else "an operator or ')'"
            raise ExpressionError(f"expected {wanted} at character {position}, found {token!r}")
        if token == "(":
            depth += 1
            if depth > limits.max_depth:
                raise ExpressionError(f"more than {limits.max_depth} nested parentheses")
            operators.append(token)
        elif token == ")":
            if depth == 0:
                raise ExpressionError(f"')' at character {position} closes nothing")
            depth -= 1
            _reduce(operands, operators, 0)
            operators.pop()
        elif token in _PRECEDENCE:
            _reduce(operands, operators, _PRECEDENCE[token])
            operators.append(token)
            operand_expected = True
        else:
            numbers.append(int(token))
            operands.append(_Part(int(token), (token,), (), (token,)))
            operand_expected = False
    if operand_expected:
        raise ExpressionError("it ends where a number or '(' is expected" if text else "it is empty")
    if depth:
        raise ExpressionError(f"{depth} unclosed '('")
    _reduce(operands, operators, 0)
    (whole,) = operands
    return Expression(value=whole.value, numbers=tuple(numbers), normal_form=_render_sum(whole.plus, whole.minus))


def _tokens(text: str, limits: ExpressionLimits) -> Iterator[tuple[int, str]]:
    """Yield numbers, operators and parentheses with the position (from 1) of their first character."""
    if len(text) > limits.max_length:
        raise ExpressionError(f"{len(text)} characters, more than {limits.max_length}")
    start = 0
    while start < len(text):
        end = start + 1
        if text[start] in _DIGITS:
            while end < len(text) and text[end] in _DIGITS:
                end += 1
            if end - start > limits.max_digits:
                raise ExpressionError(f"a number of {end - start} digits, more than {limits.max_digits}")
            if text[start] == "0" and end - start > 1:
                raise ExpressionError(f"a leading zero at character {start + 1}")
        elif text[start] not in _PRECEDENCE and text[start] not in "()":
            raise ExpressionError(f"character {start + 1} is {text[start]!a}, not one of 0123456789+-*()")
        yield start + 1, text[start:end]
        start = end


def _reduce(operands: list[_Part], operators: list[str], precedence: int) -> None:
    """Apply the pending operators that bind at least as tightly as ``precedence``, back to the last ``(``."""
    while operators and operators[-1] != "(" and _PRECEDENCE[operators[-1]] >= precedence:
        right = operands.pop()
        operands.append(_combine(operators.pop(), operands.pop(), right))


def _combine(operator: str, left: _Part, right: _Part) -> _Part:
    if operator == "*":
        factors = left.factors + right.factors
        return _Part(left.value * right.value, ("*".join(_ordered(factors)),), (), factors)
    if operator == "+":
        value, plus, minus = left.value + right.value, left.plus + right.plus, left.minus + right.minus
    else:
        value, plus, minus = left.value - right.value, left.plus + right.minus, left.minus + right.plus
    return _Part(value, plus, minus, (f"({_render_sum(plus, minus)})",))


def _render_sum(plus: tuple[str, ...], minus: tuple[str, ...]) -> str:
    return "+".join(_ordered(plus)) + "".join("-" + term for term in _ordered(minus))


def _ordered(texts: tuple[str, ...]) -> list[str]:
    return sorted(texts, key=lambda text: (len(text), text))
