"""The protocol of verifiers, and the verifiers without a model: the reward, a vote, and the user's function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from bontune.base.problems import Problem
from bontune.grading.verdict import Grade

Texts: TypeAlias = Sequence[Sequence[str]]
"""P lists of M completions."""
Grades: TypeAlias = Sequence[Sequence[Grade]]
"""P lists of the grades of M completions."""


@runtime_checkable
class Verifier(Protocol):
    """A scorer of completions; the highest score wins, ties are broken uniformly."""

    name: str
    """Name in pools and reports."""

    def score(self, problems: Sequence[Problem], completions: Texts, grades: Grades) -> list[list[float]]:
        """Score P × M completions.

        Args:
            problems: P problems.
            completions: P lists of M texts.
            grades: their grades, for verifiers that use the reward (``oracle``) or the answers (``majority``).
        """
        ...


class Oracle:
    """The reward itself, r = R. Best-of-N under it is pass@N."""

    name = "oracle"

    def score(self, problems: Sequence[Problem], completions: Texts, grades: Grades) -> list[list[float]]:
        """Return each completion's reward as its score."""
        return [[grade.reward for grade in row] for row in grades]


class Majority:
    """The number of the prompt's samples with the same answer; a sample without an answer scores −1.

    A vote depends on the other samples, so that the gradient under it is exact only with the votes held fixed.
    """

    name = "majority"

    def score(self, problems: Sequence[Problem], completions: Texts, grades: Grades) -> list[list[float]]:
        """Return how many of the prompt's samples have the same answer as each completion."""
        from bontune.objectives.votes import numbered  # imports torch, which the table of verifiers does not need

        scores = []
        for row in grades:
            ids = numbered([grade.answer for grade in row])
            votes = Counter(ids)
            scores.append([-1.0 if number < 0 else float(votes[number]) for number in ids])
        return scores


class FunctionVerifier:
    """The user's function (problem, completion) -> float."""

    def __init__(self, function: Callable[[Problem, str], float], name: str = "python") -> None:
        """
        Args:
            function: takes the :class:`Problem` and the completion's text and returns a score; higher is better.
            name: name in pools and reports.
        """
        self.function = function
        self.name = name

    def score(self, problems: Sequence[Problem], completions: Texts, grades: Grades) -> list[list[float]]:
        """Call the function on each completion."""
        return [
            [float(self.function(problem, text)) for text in texts]
            for problem, texts in zip(problems, completions, strict=True)
        ]
