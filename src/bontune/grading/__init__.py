"""Graders: from what a model wrote to a verdict.

The names below are imported when they are first used: a grader that is not used costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bontune.grading.answers.math_answer import extract_answer as extract_answer
    from bontune.grading.answers.math_answer import math_equal as math_equal
    from bontune.grading.sandbox.outside.check import Outcome as Outcome
    from bontune.grading.sandbox.outside.check import check_program as check_program

_HOME = {
    "extract_answer": "bontune.grading.answers.math_answer",
    "math_equal": "bontune.grading.answers.math_answer",
    "Outcome": "bontune.grading.sandbox.outside.check",
    "check_program": "bontune.grading.sandbox.outside.check",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'bontune.grading' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
