"""What a task is: problems, and how to grade what a model writes for one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import Thoughts
from bontune.grading.verdict import Grade, Verdict

OPEN_THOUGHT = Grade(
    reward=0.0, verdict=Verdict.FAILED, reason="its thought is not closed, so that there is no answer yet"
)
"""Grade of a completion that was cut off before its answer."""


@runtime_checkable
class Task(Protocol):
    """Problems and their grader. Implementations: ``countdown``, ``jsonl`` and your own.

    Attributes that a task may have besides: ``isolation`` (:func:`isolation_of`), ``code`` (:func:`grader_code_of`),
    those of :class:`HasDemonstrations` and :class:`HasThoughts`, ``stop_is_for_texts``, and for the chance level of
    pools a static method ``answer_keys`` of its options (:class:`AnswerKeys`,
    :class:`bontune.tasks.ways.WayKeys`).
    """

    name: str
    """Written into pools and reports."""
    stop: tuple[str, ...]
    """Strings that end a completion (they are cut off); empty if the model's end token does. A task whose strings part
    a text's examples says ``stop_is_for_texts = True``: in a conversation they do not hold."""
    splits: tuple[str, ...]
    """The splits there are, e.g. ``("train", "validation", "test")``."""

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, always in the same order.

        Raises:
            BontuneError: no such split, or its data is missing, empty or malformed.
        """
        ...

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Grade the completions of many problems: one row for each problem, one grade for each completion, in order.

        Must not raise for anything that a model may write. A grader that cannot do its work returns
        :attr:`Verdict.GRADER_ERROR` with a reward of NaN.

        Args:
            problems: P problems.
            completions: the completions of each problem.
            poll: called between pieces of work; what it raises ends the grading.
        """
        ...


@runtime_checkable
class HasDemonstrations(Protocol):
    """A task that knows an expert's answer to each of its problems, for objectives that train on it."""

    def demonstration(self, problem: Problem) -> str:
        """A completion that should pass, as it would follow the prompt's text.

        A single space at its beginning parts it from that text, and is left out in a conversation.

        Raises:
            BontuneError: this problem has none.
        """
        ...


@runtime_checkable
class HasThoughts(Protocol):
    """A task that looks for answers behind thoughts only, such as ``<think>…</think>``.

    Where a prompt ends with an opening tag, the completions that its ``grade`` gets begin with that tag, too.
    """

    thoughts: Thoughts | None
    """Finds the answer of a completion; None: completions are graded as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerKeys:
    """How a task grades, in terms of what a pool holds: a reference accepts the answers that have its key.

    By these keys answers are graded against the references of other problems, without the task's data.
    """

    answer: Callable[[str], Hashable | None]
    """Key of an answer in normal form, as grades hold it; None: no reference accepts it."""
    reference: Callable[[str], Hashable | None]
    """Key of a reference; None: it accepts nothing."""


def isolation_of(task: Task) -> str | None:
    """Name of what isolates the programs that a model wrote, for the record of a run or pool.

    A task that runs such programs says it by an attribute ``isolation``; None: this task has none.

    Raises:
        BontuneError: no isolation is available on this machine.
    """
    isolation: str | None = getattr(task, "isolation", None)
    return isolation


def grader_code_of(task: Task) -> str:
    """Hash of the file of the task's grader, by which a restart notices that it has changed.

    A task whose grader is a file of the user's says it by an attribute ``code``; empty: the grader is in the package.
    """
    code: str = getattr(task, "code", "")
    return code


def grade_answers(
    thoughts: Thoughts | None,
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    grade: Callable[[Sequence[Problem], Sequence[Sequence[str]]], list[list[Grade]]],
) -> list[list[Grade]]:
    """Grade what stands behind the thoughts of completions; one whose thought is not closed fails.

    Args:
        thoughts: finds the answers; None: completions are graded as they are.
        problems: P problems.
        completions: the completions of each problem.
        grade: grades answers, as :meth:`Task.grade` does.
    """
    if thoughts is None:
        return grade(problems, completions)
    answers = [[thoughts.answer(text) for text in row] for row in completions]
    graded = map(iter, grade(problems, [[answer for answer in row if answer is not None] for row in answers]))
    return [
        [OPEN_THOUGHT if answer is None else next(grades) for answer in row]
        for row, grades in zip(answers, graded, strict=True)
    ]


def grade_each(
    problems: Sequence[Problem],
    completions: Sequence[Sequence[str]],
    grade_one: Callable[[Problem, str], Grade],
    poll: Poll | None,
) -> list[list[Grade]]:
    """Grade completion by completion, for graders that have no work in common."""
    rows = []
    for problem, texts in zip(problems, completions, strict=True):
        if poll is not None:
            poll()
        rows.append([grade_one(problem, text) for text in texts])
    return rows
