"""Graders for a user's own data: two built in, and any Python function, guarded.

A function of the user's takes (row, completion) and returns a number, a bool or a ``Grade``. Whatever else it does
(raise, return NaN or None) is the grader's failure and no statement about the completion: ``Verdict.GRADER_ERROR``,
reward NaN.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from typing import Any, TypeAlias

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.text import cell_text
from bontune.base.thoughts import answer_behind
from bontune.base.user_code import load_function, what_was_raised
from bontune.grading.answers.numbers import last_number
from bontune.grading.verdict import Grade, Verdict

Grader: TypeAlias = Callable[[Problem, str], Grade]
UserGrader: TypeAlias = Callable[[dict[str, Any], str], float | bool | Grade]

MAX_REASON_LENGTH = 300


def grade_exact(problem: Problem, completion: str) -> Grade:
    """Passed if completion and reference are the same text, up to white space."""
    wanted, found = " ".join(problem.reference.split()), " ".join(completion.split())
    return _compared(found or None, is_equal=found == wanted, missing="empty", wanted=wanted)


def grade_last_number(problem: Problem, completion: str) -> Grade:
    """Passed if the last number of the completion equals the last of the reference, as ``#### 42`` in GSM8K."""
    wanted, found = last_number(problem.reference), last_number(completion)
    if wanted is None:
        return _grader_error("the reference holds no number")
    answer = None if found is None else str(found)
    return _compared(answer, is_equal=found == wanted, missing="no number", wanted=str(wanted))


def guarded(function: UserGrader) -> Grader:
    """Make a grader that never raises out of a user's function.

    A bool is passed or failed with reward 1 or 0. A number is the reward; above 0 it counts as passed. Either way the
    completion itself, up to white space and without thoughts, is the answer by which samples are counted as equal. A
    function that knows better returns a ``Grade``.
    """

    def grade(problem: Problem, completion: str) -> Grade:
        try:
            return _to_grade(function(_copied(problem.row), completion), completion)
        except (Exception, SystemExit) as error:  # the user's code: it may fail in any way, and sys.exit() is one
            return _grader_error(what_was_raised(error))

    return grade


def _copied(row: dict[str, Any]) -> dict[str, Any]:
    """The row for one call of a user's function, which may change it and has it again for the next completion."""
    try:
        return copy.deepcopy(row)
    except Exception:  # a row from Python may hold what cannot be copied, such as a lock or an open file
        return dict(row)


def load_user_grader(spec: str) -> UserGrader:
    """Import ``module:function`` or ``path/to/file.py:function``.

    Raises:
        BontuneError: no such module, file or function, or importing it fails.
    """
    source, _, attribute = spec.rpartition(":")
    if not source or not attribute:
        hint = did_you_mean(spec, ["exact", "last_number"])
        raise BontuneError(
            f"no grader {spec!r}{hint}; there are exact, last_number, and your own: module:function or file.py:function"
        )
    return load_function(spec, what="grader")


def _to_grade(result: Any, completion: str) -> Grade:
    """A user function's result as a grade; raises TypeError or ValueError for one that is none."""
    if isinstance(result, Grade):
        if result.verdict is Verdict.GRADER_ERROR:
            return result
        if not math.isfinite(result.reward):
            raise ValueError(f"the grader returned a Grade with reward {result.reward}")
        return replace(result, reward=float(result.reward), answer=cell_text(result.answer) or result.answer)
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError("the grader is an async function; write it as a plain one")
    plain = result.item() if hasattr(result, "item") else result  # NumPy and torch scalars
    if not isinstance(plain, (Real, Decimal)):
        raise TypeError(f"the grader returned {result!r}, not a finite number, a bool or a Grade")
    reward = float(plain)
    if not math.isfinite(reward):
        raise ValueError(f"the grader returned {reward}, not a finite number")
    return Grade(
        reward=reward,
        verdict=Verdict.PASSED if reward > 0 else Verdict.FAILED,
        answer=" ".join((answer_behind(completion) or "").split()) or None,
        reason="" if reward > 0 else f"reward {reward:g}",
    )


def _compared(answer: str | None, *, is_equal: bool, missing: str, wanted: str) -> Grade:
    if is_equal:
        return Grade(reward=1.0, verdict=Verdict.PASSED, answer=answer)
    reason = missing if answer is None else f"{_shortened(answer)}, not {_shortened(wanted)}"
    return Grade(reward=0.0, verdict=Verdict.FAILED, answer=answer, reason=reason)


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _grader_error(reason: str) -> Grade:
    return Grade(reward=math.nan, verdict=Verdict.GRADER_ERROR, reason=_shortened(reason, MAX_REASON_LENGTH))
