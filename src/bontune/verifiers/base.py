"""What a verifier is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

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
