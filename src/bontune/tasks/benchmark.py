"""What tasks of known data sets share: splits that are read when asked for, and references that must pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.thoughts import Setting, Thoughts, thoughts_of
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import grade_answers
from bontune.tasks.columns import require_distinct_ids


class Benchmark(ABC):
    """A task of a known data set. Its files are found when it is made; a split is read when it is first asked for.

    Args:
        name: written into pools and reports.
        splits: that there are.
        stop: strings that end a continued text.
        thoughts: what marks thoughts; see :func:`bontune.base.thoughts.thoughts_of`.
        check_references: grade each problem's own reference when a split is read, and refuse a split where one fails.
    """

    stop_is_for_texts = True
    """Whether the stop strings part a text's examples, and mean nothing in a conversation."""

    def __init__(
        self,
        *,
        name: str,
        splits: Sequence[str],
        stop: Sequence[str],
        thoughts: Setting,
        check_references: bool = False,
    ) -> None:
        self.name = name
        self.splits: tuple[str, ...] = tuple(splits)
        self.stop: tuple[str, ...] = tuple(stop)
        self.thoughts = thoughts_of(thoughts)
        self._check_references = check_references
        self._read: dict[str, tuple[Problem, ...]] = {}

    thoughts: Thoughts | None = thoughts_of("auto")
    """Finds the answer of a completion; None: completions are graded as they are."""

    @abstractmethod
    def load(self, split: str) -> list[Problem]:
        """Read a split that there is; :meth:`problems` does so once."""

    @abstractmethod
    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        """Grade completions without their thoughts."""

    @abstractmethod
    def reference_completion(self, problem: Problem) -> str:
        """A completion that must pass: the data set's own solution."""

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Reward 1 for a right answer behind the thoughts, else 0; see :meth:`bontune.tasks.base.Task.grade`."""
        return grade_answers(
            self.thoughts, problems, completions, lambda these, answers: self._grade(these, answers, poll)
        )

    def demonstration(self, problem: Problem) -> str:
        """The same as it follows the prompt's text; see :class:`bontune.tasks.base.HasDemonstrations`."""
        return self.reference_completion(problem)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in the order of the data.

        Raises:
            BontuneError: no such split; its data cannot be read or are malformed; or references are checked and fail.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise BontuneError(
                f"Task {self.name} has no split {split!r}{did_you_mean(split, self.splits)}; these data have {known}."
            )
        if split not in self._read:
            problems = self.load(split)
            require_distinct_ids(problems, f"Task {self.name}, split {split}")
            if self._check_references:
                self._require_references(problems)
            self._read[split] = tuple(problems)
        return list(self._read[split])

    def failures(self, problems: Sequence[Problem]) -> list[tuple[Problem, Grade]]:
        """The problems whose own reference does not pass, with its grade."""
        grades = self.grade(problems, [[self.reference_completion(problem)] for problem in problems])
        return [(p, grade) for p, (grade,) in zip(problems, grades, strict=True) if grade.verdict is not Verdict.PASSED]

    def _require_references(self, problems: Sequence[Problem]) -> None:
        failures = self.failures(problems)
        if failures:
            named = "; ".join(
                f"{problem.id} ({grade.verdict.value}: {grade.reason})" for problem, grade in failures[:5]
            )
            raise BontuneError(
                f"Task {self.name}: {len(failures)} of {len(problems)} references do not pass their own tests: {named}"
                f"{'; …' if len(failures) > 5 else ''}; correct or remove these rows, or allow more time or memory."
            )
