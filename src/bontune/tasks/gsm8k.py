"""GSM8K: word problems of grade-school arithmetic whose answers are numbers (Cobbe et al., 2021, arXiv 2110.14168)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field

import bontune.tasks.partition as partition
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem, content_ids
from bontune.base.signals import Poll
from bontune.base.thoughts import answer_behind
from bontune.grading.answers.equations import ANNOTATION, grade_equations
from bontune.grading.answers.numbers import final_number, single_number
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import OPEN_THOUGHT, AnswerKeys, grade_each
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.columns import column
from bontune.tasks.fewshot import EQUATIONS_WORDING, GSM8K_EXAMPLES, GSM8K_WORDING, offered
from bontune.tasks.options import ThoughtTags, WordProblemFormat, checked
from bontune.tasks.reading import Data, Source, SourceTable
from bontune.tasks.ways import WayKeys, way_keys

NUM_VALIDATION = 500
"""Rows of the train file that make the validation split."""

_COLUMNS = ("question", "answer")
_TABLES = {
    "train": SourceTable(
        files=("gsm8k_train", "train"),
        columns=_COLUMNS,
        repository="openai/gsm8k",
        configuration="main",
        hub_split="train",
    ),
    "test": SourceTable(
        files=("gsm8k_test", "test"),
        columns=_COLUMNS,
        repository="openai/gsm8k",
        configuration="main",
        hub_split="test",
    ),
}


class Gsm8k(Benchmark):
    """Grade-school word problems; the answer is a number.

    Splits: ``test`` (1,319), ``validation`` (500, always the same ones of the train file) and ``train`` (the other
    6,973). The answer of a completion is what it states last: ``\\boxed{42}``, ``#### 42`` or "the answer is 42".
    It must be one number, with or without a unit or a currency, and equal the reference exactly.

    With ``format=equations`` a solution is a chain of equations, graded line by line by
    :func:`bontune.grading.answers.equations.grade_equations`. Rows whose own annotated chains skip a step are left out
    then: ``test`` has 1,006, ``validation`` 367 and ``train`` 5,181.

    Args:
        data: a folder with ``gsm8k_train.jsonl`` and ``gsm8k_test.jsonl`` (or ``train``, ``test``; ``.json`` and
            ``.gz`` too), one such file, or ``{"train": FILE, "test": FILE}``. None: the Hugging Face hub
            (openai/gsm8k).
        hub: another repository on the hub with the same columns.
        shots: worked examples before the question, 0 to 8.
        format: ``auto``: a text to continue, and a conversation for models with a chat template; ``base``: the text
            only; ``chat``: the conversation, also as text where a model has no template; ``equations``: as ``auto``,
            for equations in place of a reasoned answer, without worked examples.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.

    Example:
        >>> from bontune.base.problems import Problem, content_ids
        >>> problem = Problem(id="1", prompt="What is 6 times 7?", reference="42")
        >>> Gsm8k.grade_one(problem, "6 * 7 = 42.\\n#### 42").verdict.value
        'passed'
    """

    @checked
    def __init__(
        self,
        *,
        data: Data = None,
        hub: str | None = None,
        shots: Annotated[int, Field(ge=0, le=len(GSM8K_EXAMPLES))] = 0,
        format: WordProblemFormat = "auto",
        thoughts: ThoughtTags = "auto",
    ) -> None:
        if format == "equations" and shots:
            raise BontuneError("Task gsm8k: format=equations has no worked examples; leave shots out.")
        self._format = format
        self._examples = GSM8K_EXAMPLES[:shots]
        self._source = Source("gsm8k", _TABLES, data, hub)
        splits = {"train": ("train", "validation"), "test": ("test",)}
        super().__init__(
            name="gsm8k",
            splits=[split for table in self._source.tables for split in splits[table]],
            thoughts=thoughts,
            stop=() if format == "chat" else (EQUATIONS_WORDING if format == "equations" else GSM8K_WORDING).stop,
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split; every row is checked to end in ``#### number``, and its chain where equations are asked for."""
        table = "test" if split == "test" else "train"
        rows = self._source.rows(table)
        chosen = partition.choose_rows(split, [str(row["question"]) for _, row in rows], NUM_VALIDATION)
        ids = content_ids(row for _, row in rows)
        problems = [self._problem(*rows[index], ids[index]) for index in chosen]
        if self._format != "equations":
            return problems
        return [problem for problem in problems if self._grade_one(problem, self.reference_completion(problem)).reward]

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        return grade_each(problems, answers, self._grade_one, poll)

    def _grade_one(self, problem: Problem, text: str) -> Grade:
        if self._format != "equations":
            return grade_number(problem, text)
        return grade_equations(str(problem.row["question"]), Fraction(problem.reference), text)

    @staticmethod
    def grade_one(problem: Problem, completion: str) -> Grade:
        """The grade of one completion by its final number."""
        answer = answer_behind(completion)
        return OPEN_THOUGHT if answer is None else grade_number(problem, answer)

    def reference_completion(self, problem: Problem) -> str:
        """The row's worked answer, or the chain of its annotated equations."""
        answer = str(problem.row["answer"])
        return "\n".join(ANNOTATION.findall(answer)) if self._format == "equations" else answer

    def demonstration(self, problem: Problem) -> str:
        """The same, parted from the prompt as the worked examples are."""
        return f" {self.reference_completion(problem)}"

    @staticmethod
    def answer_keys(options: Mapping[str, Any]) -> AnswerKeys | WayKeys:
        """The number itself, which answers and references hold in lowest terms, or the way to it."""
        if options.get("format") == "equations":
            return way_keys(options, EQUATIONS_WORDING.question_in)
        return AnswerKeys(answer=str, reference=str)

    def _problem(self, place: str, row: dict[str, str], name: str) -> Problem:
        question, solution = (column(row, wanted, place).strip() for wanted in _COLUMNS)
        value = single_number(solution.rpartition("####")[2]) if "####" in solution else None
        if value is None:
            raise BontuneError(f"{place}: the answer does not end in #### and a number; correct or remove the row.")
        wording = EQUATIONS_WORDING if self._format == "equations" else GSM8K_WORDING
        text, messages = offered(
            wording.text(question, self._examples), wording.messages(question, self._examples), self._format
        )
        return Problem(id=name, prompt=text, messages=messages, reference=str(value), row=row)


def grade_number(problem: Problem, text: str) -> Grade:
    """Grade a text by the number that it states last as its answer."""
    found = final_number(text)
    if found is None:
        return Grade(reward=0.0, verdict=Verdict.FAILED, reason="it states no single number as its answer")
    answer = str(found)
    if found == Fraction(problem.reference):
        return Grade(reward=1.0, verdict=Verdict.PASSED, answer=answer)
    return Grade(reward=0.0, verdict=Verdict.FAILED, answer=answer, reason=f"{answer}, not {problem.reference}")
