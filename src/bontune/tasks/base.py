"""What a task is: problems, and how to grade what a model writes for one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from bontune.base.grades import Grade
from bontune.base.problems import Problem


@runtime_checkable
class Task(Protocol):
    """Problems and their grader. Implementations: ``countdown``, ``jsonl`` and your own."""

    name: str
    """Written into pools and reports."""
    stop: tuple[str, ...]
    """Strings that end a continued text (they are cut off); empty if the model's end token does."""
    splits: tuple[str, ...]
    """The splits there are, e.g. ``("train", "validation", "test")``."""

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, always in the same order.

        Raises:
            BontuneError: no such split, or its data is missing, empty or malformed.
        """
        ...

    def grade(self, problem: Problem, completions: Sequence[str]) -> list[Grade]:
        """Grade the completions of one problem, one grade each, in order.

        Must not raise for anything a model may write. A grader that cannot do its work returns
        :attr:`Verdict.GRADER_ERROR` with a reward of NaN.
        """
        ...


@runtime_checkable
class GradesTogether(Protocol):
    """A task whose grades of many problems have work in common."""

    def prepare_grades(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Callable[[], None] | None = None
    ) -> None:
        """Do that work at once, so that :meth:`Task.grade` of each problem, called next, finds it done.

        Args:
            problems: P of them.
            completions: those of each.
            poll: called between pieces of work; what it raises ends them.
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
