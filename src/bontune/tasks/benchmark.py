"""What tasks of known data sets share: splits that are read when asked for, and references that must pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from bontune.base.errors import BontuneError
from bontune.base.grades import Grade, Verdict
from bontune.base.problems import Problem
from bontune.base.suggest import did_you_mean
from bontune.tasks.base import Poll
from bontune.tasks.rows import require_distinct_ids


class Benchmark(ABC):
    """A task of a known data set. Its files are found when it is made; a split is read when it is first asked for.

    Args:
        name: written into pools and reports.
        splits: that there are.
        stop: strings that end a continued text.
        check_references: grade each problem's own reference when a split is read, and refuse a split where one fails.
    """

    stop_is_for_texts = True
    """Whether the stop strings part a text's examples, and mean nothing in a conversation."""

    def __init__(
        self, *, name: str, splits: Sequence[str], stop: Sequence[str], check_references: bool = False
    ) -> None:
        self.name = name
        self.splits: tuple[str, ...] = tuple(splits)
        self.stop: tuple[str, ...] = tuple(stop)
        self._check_references = check_references
        self._read: dict[str, tuple[Problem, ...]] = {}

    @abstractmethod
    def load(self, split: str) -> list[Problem]:
        """Read a split that there is; :meth:`problems` does so once."""

    @abstractmethod
    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Grade the completions of many problems; see :meth:`bontune.tasks.base.Task.grade`."""

    @abstractmethod
    def reference_completion(self, problem: Problem) -> str:
        """A completion that must pass: the data set's own solution."""

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
                f"task {self.name} has no split {split!r}{did_you_mean(split, self.splits)}; these data have {known}"
            )
        if split not in self._read:
            problems = self.load(split)
            require_distinct_ids(problems, f"task {self.name}, split {split}")
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
                f"task {self.name}: {len(failures)} of {len(problems)} references do not pass their own tests: {named}"
                f"{'; …' if len(failures) > 5 else ''}; correct or remove these rows, or allow more time or memory"
            )
