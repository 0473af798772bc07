"""HumanEval: complete a Python function from its docstring (Chen et al., 2021, arXiv 2107.03374), and HumanEval+.

HumanEval+ (Liu et al., 2023, arXiv 2305.01210) has the same problems with about 80 times as many tests.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

import bontune.tasks.partition as partition
from bontune.base.errors import BontuneError
from bontune.base.problems import Message, Problem
from bontune.tasks.code import ProgramBenchmark, joined, strict
from bontune.tasks.columns import column
from bontune.tasks.fewshot import offered
from bontune.tasks.options import Format, MemoryLimit, ThoughtTags, TimeLimit, checked
from bontune.tasks.reading import Data, Source, SourceTable

STOP = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```")
"""Ends of a function's body."""
REQUEST = (
    "Complete this Python function. Answer with the whole function, and the imports that it needs, in one ```python "
    "block.\n\n"
)

_COLUMNS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
_TABLES = {
    "base": SourceTable(files=("humaneval", "HumanEval"), columns=_COLUMNS, repository="openai/openai_humaneval"),
    "plus": SourceTable(
        files=("humaneval_plus_originfmt", "HumanEvalPlus-OriginFmt"),
        columns=_COLUMNS,
        repository="evalplus/humanevalplus",
    ),
}
_BROKEN_TEST = "assert _poly(*candidate(*inp), inp) <= 0.0001"
_MENDED_TEST = "assert abs(_poly(*inp, candidate(*map(list, inp)))) <= 0.0001"
"""HumanEval/32 of HumanEval+ 0.1.10 unpacks the number that the candidate returns, so that its reference fails, too.
The candidate gets a copy: the zero of a polynomial that it has emptied would be anything."""


class HumanEval(ProgramBenchmark):
    """Python functions to complete from their docstrings, graded by tests in a sandbox.

    Splits: ``test``, all 164; with ``train_share`` a part of them is ``train`` and the rest ``test``.

    A completion goes on from the prompt (its first line is indented), or holds the function anew: of fenced blocks the
    last that defines it counts. Two programs count as the same if they differ in comments, docstrings and layout only.

    Args:
        data: the file ``humaneval.jsonl`` or ``humaneval_plus_originfmt.jsonl`` (``.json`` and ``.gz`` too), or a
            folder that holds it. None: the Hugging Face hub (openai/openai_humaneval, evalplus/humanevalplus).
        hub: another repository on the hub with the same columns.
        variant: ``base``, or ``plus`` for the many tests of HumanEval+.
        train_share: share of the problems that goes to ``train``, always the same ones for the same share.
        format: ``auto``: a text to continue, and a conversation for models with a chat template; ``base``: the text
            only; ``chat``: the conversation, also as text where a model has no template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.
        timeout_s: seconds that a program has for its tests; None: 5, and 60 for ``plus``.
        memory_mb: memory that it has; None: 1024, and 4096 for ``plus``.
        check_references: run every reference solution when a split is read, and refuse a split where one fails.
    """

    @checked
    def __init__(
        self,
        *,
        data: Data = None,
        hub: str | None = None,
        variant: Literal["base", "plus"] = "base",
        train_share: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        format: Format = "auto",
        thoughts: ThoughtTags = "auto",
        timeout_s: TimeLimit | None = None,
        memory_mb: MemoryLimit | None = None,
        check_references: bool = False,
    ) -> None:
        self._train_share = train_share
        self._table = variant
        self._source = Source("humaneval", {variant: _TABLES[variant]}, data, hub)
        super().__init__(
            name="humaneval" if variant == "base" else "humaneval+",
            splits=("train", "test") if train_share else ("test",),
            stop=STOP,
            format=format,
            thoughts=thoughts,
            timeout_s=(60.0 if variant == "plus" else 5.0) if timeout_s is None else timeout_s,
            memory_mb=(4096 if variant == "plus" else 1024) if memory_mb is None else memory_mb,
            check_references=check_references,
        )

    def load(self, split: str) -> list[Problem]:
        """Read the problems of a split from the task's data."""
        rows = self._source.rows(self._table)
        train = partition.held_out([str(row["task_id"]) for _, row in rows], round(self._train_share * len(rows)))
        return [
            self._problem(place, row)
            for index, (place, row) in enumerate(rows)
            if (index in train) == (split == "train")
        ]

    def source(self, problem: Problem, program: str) -> str:
        """The prompt, and the program after it."""
        return joined(problem.row["prompt"], program)

    def _problem(self, place: str, row: dict[str, Any]) -> Problem:
        texts = {name: column(row, name, place) for name in _COLUMNS}
        if "plus_input" in row and self._table == "plus":
            raise BontuneError(
                f"{place}: these rows hold the added inputs of HumanEval+, but not as tests; give the file in the "
                "original format (humaneval_plus_originfmt.jsonl, HumanEvalPlus-OriginFmt.jsonl.gz)."
            )
        if "def check(" not in texts["test"]:
            raise BontuneError(f"{place}: the test does not define check(candidate); correct or remove the row.")
        shaped = {**row, "test": strict(texts["test"]).replace(_BROKEN_TEST, _MENDED_TEST), "helpers": texts["prompt"]}
        messages: tuple[Message, ...] = (
            {"role": "user", "content": f"{REQUEST}```python\n{texts['prompt'].strip()}\n```"},
        )
        text, messages = offered(texts["prompt"], messages, self._format)
        return Problem(
            id=texts["task_id"], prompt=text, messages=messages, reference=texts["canonical_solution"], row=shaped
        )
