"""Your own data: rows of prompts and answers from a file or a data set on the hub, and a grader."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bontune.answers.written_numbers import last_number
from bontune.base.errors import BontuneError
from bontune.base.functions import code_digest
from bontune.base.problems import Problem, content_ids
from bontune.base.suggest import did_you_mean
from bontune.base.thoughts import answer_behind
from bontune.tasks.graders import Grader, UserGrader, grade_exact, grade_last_number, guarded, load_user_grader
from bontune.tasks.options import ThoughtTags, checked
from bontune.tasks.reading import SUFFIXES, FilePath, PlacedRow, hub_splits, read_rows
from bontune.tasks.rows import Row, RowsTask, column, level_of, require_distinct_ids, split_problems, task_from_rows

__all__ = ["Jsonl", "RowsTask", "read_rows", "task_from_rows"]

_BUILT_IN: dict[str, Grader] = {"exact": grade_exact, "last_number": grade_last_number}
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")


class Jsonl(RowsTask):
    """A task from files of rows.

    Args:
        data: a ``.jsonl``, ``.json`` (a list of objects) or ``.csv`` file, also as ``.gz``, or a ``.parquet`` file; or
            a file for each split, as in ``{"train": "a.jsonl", "test": "b.jsonl"}``; or a data set on the Hugging Face
            hub, ``owner/name`` or ``owner/name:configuration``, with its splits. One file, or a data set with one
            split, makes the splits ``train``, ``test`` (held out) and ``all``.
        prompt: the column with the question.
        answer: the column with the right answer. A grader of your own does without: then it may be missing, or None.
        template: the text that the model sees. ``{prompt}`` stands for the question, ``{name}`` for any column;
            ``{{name}}`` writes ``{name}``, other braces stay.
        grader: ``exact`` (same text up to white space), ``last_number`` (same last number, as in GSM8K), or your
            function of (row, completion): ``module:function``, ``path/to/file.py:function`` or, from Python, the
            function itself. It returns a bool, a finite number (above 0 counts as passed) or a ``Grade``; if it fails,
            the verdict is a grader error.
        test_data: a file for ``test``; then all of ``data`` is ``train`` and nothing is held out.
        hold_out: share of the distinct prompts of a single file that goes to ``test``.
        seed: chooses them.
        limit: use at most so many problems of each split, the first ones.
        stop: strings that end a completion.
        chat: also offer the text as a message of the user, for models with a chat template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``, which
            is the default for a grader of your own, and for ``exact`` where right answers hold such tags.

    Raises:
        BontuneError: a missing, empty or malformed file, a missing column, an unknown grader. All files are read here,
            so that a mistake shows before any model is loaded.
    """

    @checked
    def __init__(
        self,
        *,
        data: FilePath | Mapping[str, FilePath],
        prompt: str = "prompt",
        answer: str | None = "answer",
        template: str = "{prompt}",
        grader: str | UserGrader = "exact",
        test_data: FilePath | None = None,
        hold_out: float = 0.1,
        seed: int = 0,
        limit: Annotated[int, Field(ge=1)] | None = None,
        stop: str | Sequence[str] = (),
        chat: bool = False,
        thoughts: ThoughtTags | None = None,
    ) -> None:
        is_built_in = isinstance(grader, str) and grader in _BUILT_IN
        if is_built_in and answer is None:
            raise BontuneError(f"the grader {grader} needs a column to compare with; set answer to its name")
        is_answer_needed = is_built_in or answer not in ("answer", None)
        columns = _Columns(prompt, answer, template, is_answer_needed, grader == "last_number", chat)
        splits: dict[str, list[Problem]]
        if isinstance(data, Mapping):
            if test_data is not None:
                raise BontuneError("test_data is for a single file; name the test file in data instead")
            splits = {split: columns.of_file(file) for split, file in data.items()}
        elif test_data is not None:
            splits = {"train": columns.of_file(data), "test": columns.of_file(test_data)}
        elif _is_on_hub(data):
            found = hub_splits("task jsonl", str(data))
            splits = {split: columns.problems(rows, f"{data}, {split}") for split, rows in found.items()}
            if len(splits) == 1:
                splits = split_problems(*splits.values(), hold_out=hold_out, seed=seed)
        else:
            splits = split_problems(columns.of_file(data), hold_out=hold_out, seed=seed)
        if thoughts is None and is_built_in:
            references = {problem.reference for part in splits.values() for problem in part}
            thoughts = "none" if grader == "exact" and any(answer_behind(r) != r for r in references) else "auto"
        super().__init__(
            {split: problems[:limit] for split, problems in splits.items()},
            _resolve_grader(grader),
            name="jsonl",
            stop=stop,
            thoughts=thoughts,
            code=code_digest(grader) if isinstance(grader, str) and not is_built_in else "",
        )


class _Columns:
    """Makes problems of rows: which column is what."""

    def __init__(
        self,
        prompt: str,
        answer: str | None,
        template: str,
        is_answer_needed: bool,
        is_number_needed: bool,
        is_chat: bool,
    ) -> None:
        self._prompt = prompt
        self._answer = answer
        self._template = template
        self._is_answer_needed = is_answer_needed
        self._is_number_needed = is_number_needed
        self._is_chat = is_chat
        if not any(match[2] for match in _PLACEHOLDER.finditer(template)):
            raise BontuneError(f"the template {template!r} names no column; write {{prompt}} where the question goes")

    def of_file(self, path: FilePath) -> list[Problem]:
        """The problems of one file."""
        return self.problems(list(read_rows(path)), str(path))

    def problems(self, placed: Sequence[PlacedRow], where: str) -> list[Problem]:
        """The problems of some rows."""
        usual_ids = content_ids(row for _, row in placed)
        problems = [
            self._problem(row, place, usual_id) for (place, row), usual_id in zip(placed, usual_ids, strict=True)
        ]
        if not problems:
            raise BontuneError(f"{where} holds no rows")
        require_distinct_ids(problems, where)
        return problems

    def _problem(self, row: dict[str, Any], place: str, usual_id: str) -> Problem:
        text = self._render(row, place)
        return Problem(
            id=column(row, "id", place) if row.get("id") is not None else usual_id,
            prompt=text,
            reference=self._reference(row, place),
            messages=({"role": "user", "content": text},) if self._is_chat else (),
            level=level_of(row),
            row=row,
        )

    def _render(self, row: Row, place: str) -> str:
        question = column(row, self._prompt, place)

        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return f"{{{match[1]}}}"
            if match[2] == "prompt":
                return question
            if match[2] not in row:
                known = ["prompt", *row]
                raise BontuneError(
                    f"{place}: the template names {{{match[2]}}}, no column{did_you_mean(match[2], known)}; there are: "
                    f"{', '.join(known)}; for braces in the text write {{{{{match[2]}}}}}"
                )
            return column(row, match[2], place)

        return _PLACEHOLDER.sub(fill, self._template)

    def _reference(self, row: Row, place: str) -> str:
        if self._answer is None or (not self._is_answer_needed and row.get(self._answer) is None):
            return ""
        if not self._is_answer_needed and not isinstance(row[self._answer], (str, int, float)):
            return json.dumps(row[self._answer], ensure_ascii=False)
        reference = column(row, self._answer, place)
        if self._is_number_needed and last_number(reference) is None:
            raise BontuneError(
                f"{place}: column {self._answer!r} holds no number, which the grader last_number compares"
            )
        return reference


def _is_on_hub(data: FilePath) -> bool:
    name = str(data)
    is_file = Path(name).expanduser().exists() or name.endswith(SUFFIXES)
    return not is_file and _HUB_NAME.fullmatch(name) is not None and not Path(name).parent.is_dir()


def _resolve_grader(grader: str | UserGrader) -> Grader:
    if not isinstance(grader, str):
        return guarded(grader)
    return _BUILT_IN.get(grader) or guarded(load_user_grader(grader))
