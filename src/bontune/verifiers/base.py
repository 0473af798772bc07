"""What a verifier is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.grading.verdict import Grade


@runtime_checkable
class Verifier(Protocol):
    """Scores completions; the highest score wins, ties are broken uniformly."""

    name: str
    """Written into pools and reports."""

    def score(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], grades: Sequence[Sequence[Grade]]
    ) -> list[list[float]]:
        """Scores of P × M completions.

        Args:
            problems: P problems.
            completions: P lists of M texts.
            grades: their grades, for verifiers that are allowed to look (``oracle``) or read answers (``majority``).
        """
        ...


class Oracle:
    """r = R: the reward itself. Best-of-N under it is pass@N."""

    name = "oracle"

    def score(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], grades: Sequence[Sequence[Grade]]
    ) -> list[list[float]]:
        """Return the rewards."""
        return [[grade.reward for grade in row] for row in grades]


class Majority:
    """r = how many of the prompt's samples give the same answer; no answer scores −1.

    A vote depends on the other samples, so the gradient under it is exact only for the votes as they were cast.
    """

    name = "majority"

    def score(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], grades: Sequence[Sequence[Grade]]
    ) -> list[list[float]]:
        """Count the votes."""
        from bontune.objectives.votes import numbered  # with torch, which a table of verifiers can do without

        scores = []
        for row in grades:
            ids = numbered([grade.answer for grade in row])
            votes = Counter(ids)
            scores.append([-1.0 if number < 0 else float(votes[number]) for number in ids])
        return scores


class FunctionVerifier:
    """Your own function (problem, completion) -> float."""

    def __init__(self, function: Callable[[Problem, str], float], name: str = "python") -> None:
        """
        Args:
            function: gets the :class:`Problem` and the completion's text, returns a score; higher is better.
            name: for reports.
        """
        self.function = function
        self.name = name

    def score(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], grades: Sequence[Sequence[Grade]]
    ) -> list[list[float]]:
        """Return what the function says of each completion."""
        return [
            [float(self.function(problem, text)) for text in texts]
            for problem, texts in zip(problems, completions, strict=True)
        ]


def as_verifier(verifier: Verifier | Callable[[Problem, str], float] | tuple[Any, Any]) -> Verifier:
    """A verifier as it is; a function, or a loaded classifier and its tokenizer, made one.

    Args:
        verifier: a verifier; a function (problem, completion) -> float; or a pair (model, tokenizer), which is a
            :class:`bontune.verifiers.RewardModel` of default options.

    Raises:
        BontuneError: it is none of these.
    """
    if isinstance(verifier, Verifier):
        return verifier
    if isinstance(verifier, tuple) and len(verifier) == 2 and hasattr(verifier[0], "config"):
        from bontune.verifiers.reward_model import RewardModel

        return RewardModel(*verifier)
    if hasattr(verifier, "config") and hasattr(verifier, "state_dict"):
        raise BontuneError("A reward model needs its tokenizer: give both as verifier=(model, tokenizer).")
    if not callable(verifier):
        raise BontuneError(
            "A verifier has a method score, or is a function (problem, completion), or a pair (model, tokenizer); got "
            f"{verifier!r}."
        )
    return FunctionVerifier(verifier, name=getattr(verifier, "__name__", "python"))
