"""What a grader says of one completion."""

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
class Grade:
    """The verdict on one completion."""

    reward: float
    """R(x, y); NaN for a grader error, which is no statement about the completion."""
    verdict: Verdict
    """Verdict: how grading ended."""
    answer: str | None = None
    """The answer in normal form, by which samples are counted as equal (majority vote, diversity); None: no answer."""
    reason: str = ""
    """One phrase for people: why it did not pass."""
