"""What a grader says about a completion."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(str, Enum):
    """How grading ended. Only the first two are statements about the completion."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    """The completion's program (or its comparison) ran out of time."""
    CRASHED = "crashed"
    """The completion's program took its interpreter down."""
    GRADER_ERROR = "grader_error"
    """The grader itself failed: nothing is known about the completion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A verdict with its reason: what a comparison of answers or a test of a program came to."""

    verdict: Verdict
    """How it ended; a grader error says nothing of the answer or program."""
    reason: str = ""
    """One phrase for people: why it did not pass."""
    answer: str = ""
    """Text that a check in the form of a function returned, if the program passed."""

    @property
    def passed(self) -> bool:
        """Whether the verdict is that it passed."""
        return self.verdict is Verdict.PASSED


@dataclass(frozen=True, kw_only=True, slots=True)
class Grade:
    """The verdict on one completion, with its reward."""

    reward: float
    """R(x, y); NaN for a grader error, which is no statement about the completion."""
    verdict: Verdict
    """How grading ended."""
    answer: str | None = None
    """The answer in normal form, by which samples are counted as equal (majority vote, diversity); None: no answer."""
    reason: str = ""
    """One phrase for people: why it did not pass."""
