"""Your own data: rows of prompts and answers from a file or a data set on the hub, and a grader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.base.thoughts import answer_behind
from bontune.base.user_code import code_digest
from bontune.tasks.base import AnswerKeys
from bontune.tasks.columns import Columns, Names, Needed
from bontune.tasks.options import ThoughtTags, checked
from bontune.tasks.reading import SUFFIXES, FilePath, hub_splits, read_rows
from bontune.tasks.rows import (
    Grader,
    RowsTask,
    UserGrader,
    grade_exact,
    grade_last_number,
    grade_way,
    guarded,
    load_user_grader,
    number_of,
    split_problems,
    task_from_rows,
    words_of,
)
from bontune.tasks.ways import WayKeys, way_keys

__all__ = ["Jsonl", "RowsTask", "read_rows", "task_from_rows"]

_BUILT_IN: dict[str, Grader] = {"exact": grade_exact, "last_number": grade_last_number, "equations": grade_way}
_KEYS = {"exact": words_of, "last_number": number_of}
"""Key of a reference for each of them; answers are their own keys."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(?::[\w.-]+)?")


class Jsonl(RowsTask):
    """A task from files of rows.

    Args:
        data: a ``.jsonl``, ``.json`` (a list of objects) or ``.csv`` file, also as ``.gz``, or a ``.parquet`` file; or
            a file for each split, as in ``{"train": "a.jsonl", "test": "b.jsonl"}``; or a data set on the Hugging Face
            hub, ``owner/name`` or ``owner/name:configuration``, with its splits. One file, or a data set with one
            split, makes the splits ``train``, ``test`` (held out) and ``all``.
        prompt: the column with the question, or with a conversation: a list of turns with role and content, in CSV its
            text. A model without a chat template is asked the conversation's words.
        answer: the column with the right answer. A grader of your own does without: then it may be missing, or None.
            The others compare with ``completion`` where there is no such column.
        template: the text that the model sees, in a conversation its last turn. ``{prompt}`` stands for the question,
            ``{name}`` for any column; ``{{name}}`` writes ``{name}``, other braces stay.
        grader: ``exact`` (same text up to white space), ``last_number`` (same last number, as in GSM8K), ``equations``
            (a chain of true equations that leads from the prompt's numbers to the answer's, such as ``76 - 25 = 51``;
            see :func:`bontune.grading.answers.equations.grade_equations`), or your function of (row, completion):
            ``module:function``, ``path/to/file.py:function`` or, from Python, the function itself. It returns a bool, a
            finite number (above 0 counts as passed) or a ``Grade``; if it fails, the verdict is a grader error.
        test_data: a file for ``test``; then all of ``data`` is ``train`` and nothing is held out.
        hold_out: share of the distinct prompts of a single file that goes to ``test``.
        seed: chooses them.
        limit: use at most so many problems of each split, the first ones.
        stop: strings that end a completion.
        chat: also offer the text as a message of the user, for models with a chat template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``, which
            is the default for a grader of your own, and for ``exact`` where right answers hold such tags.
        columns: names of further columns, as in ``{"prompt": "question", "answer": "final", "id": "key"}``; ``level``
            is the difficulty, ``solution`` a completion to imitate.

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
        columns: Mapping[str, str] | None = None,
    ) -> None:
        is_built_in = isinstance(grader, str) and grader in _BUILT_IN
        if is_built_in and answer is None:
            raise BontuneError(f"The grader {grader} needs a column to compare with; set answer to its name.")
        names = Names.of("task jsonl", columns, prompt=prompt, answer=answer)
        needed: Needed = "nothing" if names.answer in ("answer", None) else "column"
        if is_built_in:
            needed = "text" if grader == "exact" else "number"
        made = Columns(names, template, needed=needed, is_chat=chat)
        splits: dict[str, list[Problem]]
        if isinstance(data, Mapping):
            if test_data is not None:
                raise BontuneError("test_data is for a single file; name the test file in data instead.")
            splits = {split: _of_file(made, file) for split, file in data.items()}
        elif test_data is not None:
            splits = {"train": _of_file(made, data), "test": _of_file(made, test_data)}
        elif _is_on_hub(data):
            found = hub_splits("task jsonl", str(data))
            splits = {split: made.problems(rows, f"{data}, {split}") for split, rows in found.items()}
            if len(splits) == 1:
                splits = split_problems(*splits.values(), hold_out=hold_out, seed=seed)
        else:
            splits = split_problems(_of_file(made, data), hold_out=hold_out, seed=seed)
        if thoughts is None and is_built_in:
            references = {problem.reference for part in splits.values() for problem in part}
            thoughts = "none" if grader == "exact" and any(answer_behind(r) != r for r in references) else "auto"
        super().__init__(
            {split: problems[:limit] for split, problems in splits.items()},
            _resolve_grader(grader),
            name="jsonl",
            stop=stop,
            thoughts=thoughts,
            solution=names.solution,
            code=code_digest(grader) if isinstance(grader, str) and not is_built_in else "",
        )

    @staticmethod
    def answer_keys(options: Mapping[str, Any]) -> AnswerKeys | WayKeys | None:
        """The words of ``exact``, the number of ``last_number``, the way to it; None for a grader of the user's own."""
        if options.get("grader") == "equations":
            return way_keys(options)
        key = _KEYS.get(str(options.get("grader", "exact")))
        return None if key is None else AnswerKeys(answer=str, reference=key)


def _of_file(columns: Columns, path: FilePath) -> list[Problem]:
    return columns.problems(list(read_rows(path)), str(path))


def _is_on_hub(data: FilePath) -> bool:
    name = str(data)
    is_file = Path(name).expanduser().exists() or name.endswith(SUFFIXES)
    return not is_file and _HUB_NAME.fullmatch(name) is not None and not Path(name).parent.is_dir()


def _resolve_grader(grader: str | UserGrader) -> Grader:
    if not isinstance(grader, str):
        return guarded(grader)
    return _BUILT_IN.get(grader) or guarded(load_user_grader(grader))
