"""Tasks made of rows: a list of dictionaries and a function that grades."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from numbers import Real
from typing import Any, TypeAlias

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Problem
from bontune.base.signals import Poll
from bontune.base.text import cell_text
from bontune.base.thoughts import Setting, answer_behind, thoughts_of
from bontune.base.user_code import load_function, what_was_raised
from bontune.grading.answers.equations import grade_equations
from bontune.grading.answers.numbers import last_number
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import grade_answers, grade_each
from bontune.tasks.columns import COMPLETION, Columns, Names
from bontune.tasks.conversation import said
from bontune.tasks.reading import rows_in


class RowsTask:
    """A task over problems that are already made; :func:`task_from_rows` and ``Jsonl`` make them.

    Args:
        splits: the problems of each split.
        grader: must not raise; see :func:`bontune.tasks.rows.guarded`.
        name: written into pools and reports.
        stop: strings that end a completion.
        solution: column with a completion that passes.
        code: hash of the grader's file; empty if it has none.
        thoughts: what marks thoughts; see :func:`bontune.base.thoughts.thoughts_of`.
    """

    def __init__(
        self,
        splits: Mapping[str, Sequence[Problem]],
        grader: Grader,
        *,
        name: str,
        stop: str | Iterable[str] = (),
        solution: str = "solution",
        code: str = "",
        thoughts: Setting | None = None,
    ) -> None:
        self.name = name
        self.code = code
        self.thoughts = thoughts_of(thoughts)
        self._solution = solution
        try:
            self.stop: tuple[str, ...] = (stop,) if isinstance(stop, str) else tuple(stop)
        except TypeError:  # recipes can hold anything
            self.stop = ("",)
        if not all(isinstance(text, str) and text for text in self.stop):
            raise BontuneError(f"Task {name}: stop must hold texts that are not empty, not {stop!r}.")
        self.splits: tuple[str, ...] = tuple(splits)
        self._problems = {split: tuple(problems) for split, problems in splits.items()}
        self._grader = grader

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in the order of the data."""
        if split not in self._problems:
            known = ", ".join(self.splits)
            is_whole = split == "test" and self.splits == ("train", "all")
            why = "; nothing is held out of a single prompt, nor with hold_out=0" if is_whole else ""
            raise BontuneError(
                f"Task {self.name} has no split {split!r}{did_you_mean(split, self.splits)}; it has {known}{why}"
            )
        return list(self._problems[split])

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Grade every completion with the grader of the rows."""
        return grade_answers(
            self.thoughts, problems, completions, lambda these, answers: grade_each(these, answers, self._grader, poll)
        )

    def demonstration(self, problem: Problem) -> str:
        """The row's solution; without one its answer, which must then be a completion that passes, or its completion.

        Raises:
            BontuneError: the row has none of them.
        """
        row = problem.row
        text = said(row.get(self._solution)) or problem.reference or said(row.get(COMPLETION))
        if not text:
            raise BontuneError(
                f"Task {self.name}: problem {problem.id} has no demonstration; give its row a column {self._solution}."
            )
        return text


def task_from_rows(
    rows: Any,
    grade: UserGrader,
    name: str = "custom",
    stop: str | Iterable[str] = (),
    *,
    columns: Mapping[str, str] | None = None,
    hold_out: float = 0.1,
    seed: int = 0,
    thoughts: Setting | None = None,
) -> RowsTask:
    """A task from Python objects.

    Args:
        rows: dictionaries with ``prompt`` and, if you like, ``answer``, ``id``, ``level`` and more, in a list, a
            generator, a frame of pandas or polars, a pyarrow table or a data set of ``datasets``; or such rows for each
            split. Rows without splits make ``train``, ``test`` (held out) and ``all``. A prompt is a text or a
            conversation, a list of turns with role and content.
        grade: takes (row, completion), returns the reward (a bool or a finite number; above 0 counts as passed) or a
            ``Grade``. If it raises, the verdict is a grader error and the reward NaN.
        name: written into pools and reports.
        stop: strings that end a completion.
        columns: names of other columns, as in ``{"prompt": "question", "answer": "final"}``; ``solution`` is a
            completion to imitate.
        hold_out: share of the distinct prompts that rows without splits give to ``test``.
        seed: chooses them.
        thoughts: without, ``grade`` gets completions as they are. ``auto``: it gets what stands behind
            ``<think>…</think>`` and its like, and a completion whose thought is not closed fails without it; ``open``
            and pairs of tags: see :func:`bontune.base.thoughts.thoughts_of`.

    Raises:
        BontuneError: no rows, or a row without a prompt or with a value that cannot be used.

    Example:
        >>> rows = [{"prompt": f"{i} + 1 = ", "answer": str(i + 1)} for i in range(20)]
        >>> task = task_from_rows(rows, lambda row, completion: completion.strip() == row["answer"], name="add-one")
        >>> len(task.problems("train")), len(task.problems("test"))
        (18, 2)
        >>> task.grade(task.problems("all")[3:4], [[" 4", "5"]])[0][0].reward
        1.0
    """
    names = Names.of(name, columns)
    if isinstance(rows, Mapping):
        if names.prompt in rows:
            raise BontuneError(
                f"{name}: {', '.join(map(str, rows))} look like columns and not like splits; give a list of "
                "dictionaries, one for each row."
            )
        splits = {split: _problems(part, names, f"{name}, split {split}") for split, part in rows.items()}
    else:
        splits = split_problems(_problems(rows, names, name), hold_out=hold_out, seed=seed)
    return RowsTask(splits, guarded(grade), name=name, stop=stop, solution=names.solution, thoughts=thoughts)


def _problems(rows: Any, names: Names, where: str) -> list[Problem]:
    listed, is_typed = rows_in(rows, where)
    if not listed:
        raise BontuneError(f"{where}: there are no rows.")
    placed: list[tuple[str, dict[str, Any]]] = []
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, Mapping):
            raise BontuneError(f"{where}, row {number}: a {type(row).__name__}, not a dictionary.")
        placed.append((f"{where}, row {number}", dict(row)))
    return Columns(names, is_exact=is_typed, has_lists=False).problems(placed, where)


def split_problems(problems: list[Problem], *, hold_out: float, seed: int) -> dict[str, list[Problem]]:
    """Split into ``train`` and ``test``, with ``all`` for both: a prompt that occurs twice falls on one side.

    The test prompts are those with the smallest hash, so that other rows hardly change where a row goes.
    """
    if isinstance(hold_out, bool) or not isinstance(hold_out, (int, float)) or not 0 <= hold_out < 1:
        raise BontuneError(f"hold_out must be a share of at least 0 and below 1, not {hold_out!r}.")
    prompts = sorted({problem.prompt for problem in problems}, key=lambda p: sha256(f"{seed}\n{p}".encode()).digest())
    num_test = max(1, round(hold_out * len(prompts))) if hold_out > 0 and len(prompts) > 1 else 0
    held_out = set(prompts[:num_test])
    splits = {
        "train": [problem for problem in problems if problem.prompt not in held_out],
        "test": [problem for problem in problems if problem.prompt in held_out],
        "all": problems,
    }
    return {split: part for split, part in splits.items() if part}


Grader: TypeAlias = Callable[[Problem, str], Grade]
UserGrader: TypeAlias = Callable[[dict[str, Any], str], float | bool | Grade]

MAX_REASON_LENGTH = 300


def grade_exact(problem: Problem, completion: str) -> Grade:
    """Passed if completion and reference are the same text, up to white space."""
    wanted, found = words_of(problem.reference), words_of(completion)
    return _compared(found or None, is_equal=found == wanted, missing="empty", wanted=wanted)


def grade_last_number(problem: Problem, completion: str) -> Grade:
    """Passed if the last number of the completion equals the last of the reference, as ``#### 42`` in GSM8K."""
    wanted, found = last_number(problem.reference), last_number(completion)
    if wanted is None:
        return _grader_error("the reference holds no number")
    answer = None if found is None else str(found)
    return _compared(answer, is_equal=found == wanted, missing="no number", wanted=str(wanted))


def grade_way(problem: Problem, completion: str) -> Grade:
    """Grade a chain of equations that leads from the prompt's numbers to the last number of the reference."""
    wanted = last_number(problem.reference)
    if wanted is None:
        return _grader_error("the reference holds no number")
    return grade_equations(problem.prompt, wanted, completion)


def words_of(text: str) -> str:
    """The text with single spaces, which the grader ``exact`` compares."""
    return " ".join(text.split())


def number_of(text: str) -> str | None:
    """The number that the grader ``last_number`` compares, as answers hold it; None: there is none."""
    number = last_number(text)
    return None if number is None else str(number)


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
        hint = did_you_mean(spec, ["exact", "last_number", "equations"])
        raise BontuneError(
            f"No grader {spec!r}{hint}; there are exact, last_number, equations, and your own, "
            "module:function or file.py:function."
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
