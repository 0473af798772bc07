"""MATH: problems of mathematics contests (Hendrycks et al., 2021, arXiv 2103.03874), tested on MATH-500.

The split is that of Lightman et al. (2023, arXiv 2305.20050): 12,000 problems to train on and 500 to test on. The
task also reads two data sets that are only for evaluation: Functional MATH (Srivastava et al., 2024, arXiv
2402.19450) and MathOdyssey (Fang et al., 2024, arXiv 2406.18321); ``heldout`` says how.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

import bontune.tasks.partition as partition
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem, content_ids
from bontune.base.signals import Poll
from bontune.grading.answers.math_answer import compare_pairs, math_equal, normal_answer
from bontune.grading.answers.notation import last_box
from bontune.grading.verdict import Grade, Judgement, Verdict
from bontune.tasks.base import AnswerKeys
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.columns import column, level_of
from bontune.tasks.fewshot import MATH_EXAMPLES, MATH_WORDING, offered
from bontune.tasks.heldout import HeldOutSet, choice_in, held_out_set, is_choice
from bontune.tasks.options import Format, ThoughtTags, checked
from bontune.tasks.reading import Data, Source, SourceTable

PAIRS_AT_A_TIME = 1024
"""Answers that are compared between two looks at whether to stop."""
NUM_VALIDATION = 500
"""Rows of the train file that make the validation split."""

WITHOUT_ANSWER = frozenset({"train/number_theory/7115.json", "train/number_theory/7117.json"})
"""Rows of MATH whose solutions end in an empty box; they are left out."""

_COLUMNS = ("problem", "answer")
_TABLES = {
    "train": SourceTable(
        files=("math_train_12000", "math_train", "train"),
        columns=_COLUMNS,
        hub_split="train",
        repository="nlile/hendrycks-MATH-benchmark",
    ),
    "test": SourceTable(
        files=("math_test_500", "math_test", "MATH-500", "test"),
        columns=_COLUMNS,
        hub_split="test",
        repository="HuggingFaceH4/MATH-500",
    ),
}


class Math(Benchmark):
    """Contest mathematics, tested on MATH-500; the answer stands in a box.

    Splits: ``test`` (500), ``validation`` (500, always the same ones of the train file) and ``train`` (the other
    11,498; two more have no answer). The answer of a completion is what its last ``\\boxed{}`` holds, compared by
    value: :mod:`bontune.grading.answers.math_answer` says how.

    Functional MATH varies the numbers of MATH's problems. Its splits are ``test`` (all 1,745), ``unseen_seeds`` (181
    that vary a problem of MATH-500) and ``seen_seeds`` (1,564 that vary one of the train file, which a model may have
    been trained on). The last two need the column ``seed_in_math_500``, which the original folder lacks.

    MathOdyssey has the splits ``test`` (all 387), ``open`` (244), ``choice`` (128, the answer is a letter) and
    ``yes_no`` (15): guessing alone solves a share of the last two. There, without a box, the last sentence "the answer
    is …" counts. Its licence prohibits training on it.

    Args:
        data: a folder with ``math_train_12000.jsonl`` and ``math_test_500.jsonl`` (or ``train``, ``test``; ``.json``
            and ``.gz`` too), one such file, or ``{"train": FILE, "test": FILE}``. Or Functional MATH: its folder of one
            JSON file a problem, or a file of their rows; or the file of MathOdyssey. None: the Hugging Face hub
            (nlile/hendrycks-MATH-benchmark to train, HuggingFaceH4/MATH-500 to test).
        hub: another repository on the hub with the same columns.
        shots: worked examples before the question, 0 to 4.
        format: ``auto``: a text to continue, and a conversation for models with a chat template; ``base``: the text
            only; ``chat``: the conversation, also as text where a model has no template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.
    """

    _held_out: HeldOutSet | None = None

    @checked
    def __init__(
        self,
        *,
        data: Data = None,
        hub: str | None = None,
        shots: Annotated[int, Field(ge=0, le=len(MATH_EXAMPLES))] = 0,
        format: Format = "auto",
        thoughts: ThoughtTags = "auto",
    ) -> None:
        self._format = format
        self._examples = MATH_EXAMPLES[:shots]
        self._held_out = held_out_set(data) if hub is None else None
        if self._held_out is None:
            self._source = Source("math", _TABLES, data, hub)
            tables = {"train": ("train", "validation"), "test": ("test",)}
            splits = tuple(split for table in self._source.tables for split in tables[table])
        else:
            splits = self._held_out.splits
        super().__init__(
            name="math", splits=splits, thoughts=thoughts, stop=() if self._format == "chat" else MATH_WORDING.stop
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split; every answer is compared with itself, so that none is beyond the grader."""
        if self._held_out is not None:
            placed = self._held_out.rows(split)
        else:
            placed = self._source.rows("test" if split == "test" else "train")
        rows = [
            (place, row, usual_id)
            for (place, row), usual_id in zip(placed, content_ids(row for _, row in placed), strict=True)
            if row.get("answer") or row.get("unique_id") not in WITHOUT_ANSWER
        ]
        if self._held_out is not None:
            return [self._problem(*row) for row in rows]
        chosen = partition.choose_rows(split, [str(row["problem"]) for _, row, _ in rows], NUM_VALIDATION)
        return [self._problem(*rows[index]) for index in chosen]

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        """Reward 1 for an answer that equals the reference, else 0; equal answers are compared once."""
        boxes = [
            [self._answer_of(problem, answer) for answer in row] for problem, row in zip(problems, answers, strict=True)
        ]
        asked = [
            (problem.reference, box)
            for problem, row in zip(problems, boxes, strict=True)
            for box in row
            if box is not None
        ]
        pairs = list(dict.fromkeys(asked))
        grades: dict[tuple[str, str], Grade] = {}
        for start in range(0, len(pairs), PAIRS_AT_A_TIME):
            if poll is not None:
                poll()
            part = pairs[start : start + PAIRS_AT_A_TIME]
            grades |= {pair: _graded(pair[1], found) for pair, found in zip(part, compare_pairs(part), strict=True)}
        return [
            [_NO_BOX if box is None else grades[problem.reference, box] for box in row]
            for problem, row in zip(problems, boxes, strict=True)
        ]

    def _answer_of(self, problem: Problem, completion: str) -> str | None:
        if self._held_out is not None and is_choice(problem.reference):
            return choice_in(completion, problem.reference)
        return last_box(completion)

    def reference_completion(self, problem: Problem) -> str:
        """The row's solution where it holds a box, else the boxed reference."""
        solution = problem.row.get("solution")
        if isinstance(solution, str) and "\\boxed" in solution:
            return solution
        return f"\\boxed{{{problem.reference}}}"

    def demonstration(self, problem: Problem) -> str:
        """The same, parted from the prompt as the worked examples are."""
        return f" {self.reference_completion(problem)}"

    @staticmethod
    def answer_keys(options: Mapping[str, Any]) -> AnswerKeys:
        """The normal form of an answer: what only sympy could tell is no hit, and units are not looked at."""
        return AnswerKeys(answer=str, reference=normal_answer)

    def _problem(self, place: str, row: dict[str, Any], usual_id: str) -> Problem:
        question, answer = (column(row, wanted, place).strip() for wanted in _COLUMNS)
        if not answer or not math_equal(answer, f"\\boxed{{{answer}}}"):
            raise BontuneError(
                f"{place}: the answer {answer!r} cannot be compared, it is empty or its braces do not match; correct "
                "or remove the row."
            )
        text, messages = offered(
            MATH_WORDING.text(question, self._examples), MATH_WORDING.messages(question, self._examples), self._format
        )
        return Problem(
            id=column(row, "unique_id", place) if row.get("unique_id") is not None else usual_id,
            prompt=text,
            messages=messages,
            reference=answer,
            level=level_of(row),
            row=row,
        )


_NO_BOX = Grade(reward=0.0, verdict=Verdict.FAILED, reason="it has no \\boxed{…} that is closed")


def _graded(answer: str, judgement: Judgement) -> Grade:
    if judgement.verdict is Verdict.GRADER_ERROR:
        return Grade(reward=math.nan, verdict=judgement.verdict, reason=judgement.reason)
    return Grade(
        reward=float(judgement.passed),
        verdict=judgement.verdict,
        answer=normal_answer(answer) or None,
        reason=judgement.reason,
    )
