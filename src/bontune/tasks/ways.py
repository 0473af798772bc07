"""How tasks that grade chains of equations compare them with the problems of a pool, for its chance level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from bontune.base.thoughts import thoughts_of
from bontune.grading.answers.equations import Way, numbers_of, way_of
from bontune.grading.answers.numbers import last_number


@dataclass(frozen=True, kw_only=True, slots=True)
class WayKeys:
    """How a task grades chains of equations, in terms of what a pool holds; see :class:`bontune.tasks.base.AnswerKeys`.

    A problem accepts a completion whose way comes to its answer, and whose operands its text supplies.
    """

    way: Callable[[str], Way | None]
    """The way that a completion goes; None: no problem accepts it."""
    numbers: Callable[[str], set[Fraction]]
    """Numbers that a prompt's text supplies."""
    answer: Callable[[str], Fraction | None]
    """The number that a reference states; None: it accepts nothing."""


def way_keys(options: Mapping[str, Any], question_of: Callable[[str], str] = str) -> WayKeys:
    """Return the keys of a task that grades chains of equations.

    Args:
        options: the task's, for its ``thoughts``.
        question_of: finds the question in a prompt's text, whose wording may hold number words of its own.
    """
    tags = thoughts_of(options.get("thoughts") or "auto")

    def way(completion: str) -> Way | None:
        answer = completion if tags is None else tags.answer(completion)
        return None if answer is None else way_of(answer)

    return WayKeys(way=way, numbers=lambda prompt: numbers_of(question_of(prompt)), answer=last_number)
