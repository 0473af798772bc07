"""SVAMP: word problems of one or two operations (Patel et al., 2021, arXiv 2103.07191)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import bontune.tasks.partition as partition
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem, content_ids
from bontune.base.signals import Poll
from bontune.grading.answers.equations import chain_of, grade_equations
from bontune.grading.answers.numbers import single_number
from bontune.grading.verdict import Grade
from bontune.tasks.base import AnswerKeys, grade_each
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.columns import column, exact_column
from bontune.tasks.fewshot import EQUATIONS_WORDING, GSM8K_WORDING, offered
from bontune.tasks.gsm8k import grade_number
from bontune.tasks.options import ThoughtTags, WordProblemFormat, checked
from bontune.tasks.reading import Data, Source, SourceTable
from bontune.tasks.ways import WayKeys, way_keys

NUM_TEST, NUM_VALIDATION = 300, 100
"""Problems of the splits ``test`` and ``validation``, which the data set does not come with."""

_COLUMNS = ("Body", "Question", "Equation", "Answer")
_TABLES = {"all": SourceTable(files=("svamp", "SVAMP"), columns=_COLUMNS, repository="ChilleD/SVAMP", hub_split="all")}


class Svamp(Benchmark):
    """Word problems of one or two operations, to be solved by equations or by any reasoning.

    Splits, always the same: ``test`` (300), ``validation`` (100) and ``train`` (600; with equations 596, because the
    equations of four do not compute their answers, or compute nothing). With ``format=equations`` a solution is a chain
    of equations, graded line by line by :func:`bontune.grading.answers.equations.grade_equations`; else its final
    number is compared, as in GSM8K.

    Args:
        data: the file ``SVAMP.json``, or a folder with it. None: the Hugging Face hub (ChilleD/SVAMP).
        hub: another repository on the hub with the same columns.
        format: ``equations``: text and conversation ask for equations only; ``auto``: a text to continue, and a
            conversation for models with a chat template; ``base``: the text only; ``chat``: the conversation, also as
            text where a model has no template.
        thoughts: ``auto``: what stands in ``<think>…</think>`` and its like is no answer; ``open``: the same, and every
            completion begins within a thought; an opening and a closing tag, or several such pairs; or ``none``.
    """

    @checked
    def __init__(
        self,
        *,
        data: Data = None,
        hub: str | None = None,
        format: WordProblemFormat = "equations",
        thoughts: ThoughtTags = "auto",
    ) -> None:
        self._format = format
        self._wording = EQUATIONS_WORDING if format == "equations" else GSM8K_WORDING
        self._source = Source("svamp", _TABLES, data, hub)
        super().__init__(
            name="svamp",
            splits=("train", "validation", "test"),
            thoughts=thoughts,
            stop=() if format == "chat" else self._wording.stop,
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split; a row whose equation does not compute its answer is in ``train``, without equations only."""
        rows = self._source.rows("all")
        names = content_ids(row for _, row in rows)
        problems = [self._problem(*placed, name) for placed, name in zip(rows, names, strict=True)]
        sound = [problem for problem in problems if _grade_chain(problem, _chain(problem)).reward]
        others = [problem for problem in problems if problem not in sound and self._format != "equations"]
        test = partition.held_out(list(map(_asked, sound)), min(NUM_TEST, len(rows) * 3 // 10))
        rest = [problem for index, problem in enumerate(sound) if index not in test]
        validation = partition.held_out(list(map(_asked, rest)), min(NUM_VALIDATION, len(rows) // 10))
        if split == "test":
            return [problem for index, problem in enumerate(sound) if index in test]
        chosen = [problem for index, problem in enumerate(rest) if (index in validation) == (split == "validation")]
        return chosen if split == "validation" else chosen + others

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        return grade_each(problems, answers, self._grade_one, poll)

    def _grade_one(self, problem: Problem, text: str) -> Grade:
        return _grade_chain(problem, text) if self._format == "equations" else grade_number(problem, text)

    def reference_completion(self, problem: Problem) -> str:
        """The row's equation as a chain, with the answer behind ``####`` where its number is compared."""
        return _chain(problem) if self._format == "equations" else f"{_chain(problem)}\n#### {problem.reference}"

    def demonstration(self, problem: Problem) -> str:
        """The same, parted from the prompt as the worked examples are."""
        return f" {self.reference_completion(problem)}"

    @staticmethod
    def answer_keys(options: Mapping[str, Any]) -> AnswerKeys | WayKeys:
        """The way to the number, or the number itself, which answers and references hold in lowest terms."""
        if options.get("format", "equations") == "equations":
            return way_keys(options, EQUATIONS_WORDING.question_in)
        return AnswerKeys(answer=str, reference=str)

    def _problem(self, place: str, row: dict[str, Any], name: str) -> Problem:
        column(row, "Equation", place)
        value = single_number(exact_column(row, "Answer", place))
        if value is None:
            raise BontuneError(f"{place}: the column Answer holds no number; correct or remove the row.")
        question = _question(row, place)
        text, messages = offered(self._wording.text(question), self._wording.messages(question), self._format)
        return Problem(id=name, prompt=text, messages=messages, reference=str(value), row=row)


def _question(row: dict[str, Any], place: str) -> str:
    """Return the problem's text; a body without a full stop ends in a clause that the question completes."""
    body, question = (column(row, name, place).strip() for name in ("Body", "Question"))
    return f"{body} {question}" if body[-1:] in ".!?,;" else f"{body}, {question[:1].lower()}{question[1:]}"


def _asked(problem: Problem) -> str:
    """Return the text that a problem is placed in a split by: its prompt for equations, whatever the format is."""
    return EQUATIONS_WORDING.text(_question(problem.row, problem.id))


def _chain(problem: Problem) -> str:
    """Return the row's equation as a chain of equations; its answer where it needs no operation."""
    return chain_of(str(problem.row["Equation"])) or problem.reference


def _grade_chain(problem: Problem, text: str) -> Grade:
    return grade_equations(_question(problem.row, problem.id), Fraction(problem.reference), text)
