"""Tasks made of rows: a list of dictionaries and a function that grades."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeAlias

from bontune.base.errors import BontuneError
from bontune.base.grades import Grade
from bontune.base.problems import Problem, content_ids
from bontune.base.suggest import did_you_mean
from bontune.base.texts import readable
from bontune.base.thoughts import Setting, thoughts_of
from bontune.tasks.base import Poll, grade_answers, grade_each
from bontune.tasks.graders import Grader, UserGrader, guarded

Row: TypeAlias = Mapping[str, Any]

_LEVEL = re.compile(r"(?:level\s*)?([0-9]{1,3})", re.IGNORECASE)


class RowsTask:
    """A task over problems that are already made; :func:`task_from_rows` and ``Jsonl`` make them.

    Args:
        splits: the problems of each split.
        grader: must not raise; see :func:`bontune.tasks.graders.guarded`.
        name: written into pools and reports.
        stop: strings that end a completion.
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
        code: str = "",
        thoughts: Setting | None = None,
    ) -> None:
        self.name = name
        self.code = code
        self.thoughts = thoughts_of(thoughts)
        try:
            self.stop: tuple[str, ...] = (stop,) if isinstance(stop, str) else tuple(stop)
        except TypeError:  # recipes can hold anything
            self.stop = ("",)
        if not all(isinstance(text, str) and text for text in self.stop):
            raise BontuneError(f"task {name}: stop must hold texts that are not empty, not {stop!r}")
        self.splits: tuple[str, ...] = tuple(splits)
        self._problems = {split: tuple(problems) for split, problems in splits.items()}
        self._grader = grader

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in the order of the data."""
        if split not in self._problems:
            known = ", ".join(self.splits)
            raise BontuneError(
                f"task {self.name} has no split {split!r}{did_you_mean(split, self.splits)}; it has {known}"
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
        """The row's column ``solution``; without one its answer, which must then be a completion that passes.

        Raises:
            BontuneError: the row has neither.
        """
        solution = problem.row.get("solution")
        text = str(solution) if isinstance(solution, (str, int, float)) else problem.reference
        if not text:
            raise BontuneError(
                f"task {self.name}: problem {problem.id} has no demonstration; give its row a column solution"
            )
        return text


def task_from_rows(
    rows: Sequence[Row] | Mapping[str, Sequence[Row]],
    grade: UserGrader,
    name: str = "custom",
    stop: str | Iterable[str] = (),
    *,
    hold_out: float = 0.1,
    seed: int = 0,
    thoughts: Setting | None = None,
) -> RowsTask:
    """A task from Python objects.

    Args:
        rows: dictionaries with ``prompt`` and, if you like, ``answer``, ``id``, ``level`` and more; or such rows for
            each split. Plain rows make the splits ``train``, ``test`` (held out) and ``all``.
        grade: takes (row, completion), returns the reward (a bool or a finite number; above 0 counts as passed) or a
            ``Grade``. If it raises, the verdict is a grader error and the reward NaN.
        name: written into pools and reports.
        stop: strings that end a completion.
        hold_out: share of the distinct prompts that plain rows give to ``test``.
        seed: chooses them.
        thoughts: without, ``grade`` gets completions as they are. ``auto``: it gets what stands behind
            ``<think>…</think>`` and its like, and a completion whose thought is not closed fails without it; ``open``
            and pairs of tags: see :func:`bontune.base.thoughts.thoughts_of`.

    Raises:
        BontuneError: no rows, or a row without a prompt.

    Example:
        >>> rows = [{"prompt": f"{i} + 1 = ", "answer": str(i + 1)} for i in range(20)]
        >>> task = task_from_rows(rows, lambda row, completion: completion.strip() == row["answer"], name="add-one")
        >>> len(task.problems("train")), len(task.problems("test"))
        (18, 2)
        >>> task.grade(task.problems("all")[3:4], [[" 4", "5"]])[0][0].reward
        1.0
    """
    if isinstance(rows, Mapping):
        splits = {split: _problems(part, f"{name}, split {split}") for split, part in rows.items()}
    else:
        splits = split_problems(_problems(rows, name), hold_out=hold_out, seed=seed)
    return RowsTask(splits, guarded(grade), name=name, stop=stop, thoughts=thoughts)


def split_problems(problems: list[Problem], *, hold_out: float, seed: int) -> dict[str, list[Problem]]:
    """Split into ``train`` and ``test``, with ``all`` for both: a prompt that occurs twice falls on one side.

    The test prompts are those with the smallest hash, so that other rows hardly change where a row goes.
    """
    if isinstance(hold_out, bool) or not isinstance(hold_out, (int, float)) or not 0 <= hold_out < 1:
        raise BontuneError(f"hold_out must be a share of at least 0 and below 1, not {hold_out!r}")
    prompts = sorted({problem.prompt for problem in problems}, key=lambda p: sha256(f"{seed}\n{p}".encode()).digest())
    num_test = max(1, round(hold_out * len(prompts))) if hold_out > 0 and len(prompts) > 1 else 0
    held_out = set(prompts[:num_test])
    splits = {
        "train": [problem for problem in problems if problem.prompt not in held_out],
        "test": [problem for problem in problems if problem.prompt in held_out],
        "all": problems,
    }
    return {split: part for split, part in splits.items() if part}


def column(row: Row, name: str, where: str) -> str:
    """The text in a column of a row; a number is written out.

    Raises:
        BontuneError: no such column (the nearest is named), or it holds neither text nor a number.
    """
    if name not in row:
        known = ", ".join(map(str, row)) or "none"
        raise BontuneError(f"{where}: no column {name!r}{did_you_mean(name, row)}; there are: {known}")
    value = row[name]
    if not isinstance(value, (str, int, float)):
        raise BontuneError(f"{where}: column {name!r} holds {type(value).__name__}, not text or a number")
    return readable(str(value))


def level_of(row: Row) -> int | None:
    """The difficulty in the column ``level``, ``3`` or ``"Level 3"``; None if there is none."""
    found = _LEVEL.fullmatch(str(row.get("level", "")).strip())
    return int(found[1]) if found else None


def require_distinct_ids(problems: Sequence[Problem], where: str) -> None:
    """Raise :class:`BontuneError` for an id that two problems share."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise BontuneError(f"{where}: the id {problem.id!r} occurs twice; make ids distinct or leave them out")
        seen.add(problem.id)


def _problems(rows: Sequence[Row], where: str) -> list[Problem]:
    if not rows:
        raise BontuneError(f"{where}: there are no rows")
    problems = []
    for number, (row, usual_id) in enumerate(zip(rows, content_ids(rows), strict=True), start=1):
        place = f"{where}, row {number}"
        if not isinstance(row, Mapping):
            raise BontuneError(f"{place}: a {type(row).__name__}, not a dictionary")
        problems.append(
            Problem(
                id=column(row, "id", place) if "id" in row else usual_id,
                prompt=column(row, "prompt", place),
                reference=column(row, "answer", place) if isinstance(row.get("answer"), (str, int, float)) else "",
                level=level_of(row),
                row=dict(row),
            )
        )
    require_distinct_ids(problems, where)
    return problems
