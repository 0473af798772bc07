"""GSM8K: word problems of grade-school arithmetic whose answers are numbers (Cobbe et al., 2021, arXiv 2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

from pydantic import Field

import bontune.tasks.partition as partition
from bontune.answers.math_answer import extract_answer
from bontune.base.errors import BontuneError
from bontune.base.grades import Grade, Verdict
from bontune.base.problems import Problem, content_ids
from bontune.tasks.base import Poll, grade_each
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.columns import column
from bontune.tasks.datafiles import Data, Source, Table
from bontune.tasks.fewshot import GSM8K_EXAMPLES, GSM8K_WORDING, offered
from bontune.tasks.options import Format, checked

NUM_VALIDATION = 500
"""Rows of the train file that make the validation split."""
MAX_STATEMENT_LENGTH = 200
"""Characters of a final answer; what is longer states no single number."""

_COLUMNS = ("question", "answer")
_TABLES = {
    "train": Table(
        files=("gsm8k_train", "train"),
        columns=_COLUMNS,
        repository="openai/gsm8k",
        configuration="main",
        hub_split="train",
    ),
    "test": Table(
        files=("gsm8k_test", "test"),
        columns=_COLUMNS,
        repository="openai/gsm8k",
        configuration="main",
        hub_split="test",
    ),
}
_MARKER = re.compile(r"(?:\\(?:boxed|fbox)(?![A-Za-z])|####|\banswer(?:\s+is\b\s*:?|\s*:))\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_NUMBER = re.compile(
    r"(?P<sign>[-\u2212])?\s?[$\u20ac\u00a3\u20b9\u00a5]?(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_WORDS = re.compile(r"[A-Za-z\s,:;'\"$%*()=.\u20ac\u00a3\u20b9\u00a5\u00b0\u2103\u2109]*")
_SCALE = re.compile(
    r"(?i:\b(?:hundred|thousand|million|billion|trillion|dozen|half|halves|thirds?|quarters?|or|negative|minus)s?\b)"
    r"|[0-9]\s?[kKMB]\b"
)
_LATEX = (
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\{,\}|\\[,!]"), ""),
    (re.compile(r"\\[()\[\]]"), " "),
    # The unit's square and its per: "m²", "km/h". After a digit they would be arithmetic.
    (re.compile(r"(?<=[A-Za-z])(?:\^\{?[23]\}?|[\u00b2\u00b3])(?![0-9])"), ""),
    (re.compile(r"(?<=[A-Za-z])/(?=[A-Za-z])|(?<=[0-9])/(?=[A-Za-z]{3})"), " "),
    (re.compile(r"\\([ $%])"), r"\1"),
    (re.compile(r"(?<=[0-9]),\s+(?=[0-9]{3}(?![0-9]))"), ","),
)


class Gsm8k(Benchmark):
    """Grade-school word problems; the answer is a number.

    Splits: ``test`` (1,319), ``validation`` (500, always the same ones of the train file) and ``train`` (the other
    6,973). The answer of a completion is what it states last: ``\\boxed{42}``, ``#### 42`` or "the answer is 42".
    It must be one number, with or without a unit or a currency, and equal the reference exactly.

    Args:
        data: a folder with ``gsm8k_train.jsonl`` and ``gsm8k_test.jsonl`` (or ``train``, ``test``; ``.json`` and
            ``.gz`` too), one such file, or ``{"train": FILE, "test": FILE}``. None: the Hugging Face hub
            (openai/gsm8k).
        hub: another repository on the hub with the same columns.
        shots: worked examples before the question, 0 to 8.
        format: ``auto``: a text to continue, and a conversation for models with a chat template; ``base``: the text
            only; ``chat``: the conversation, also as text where a model has no template.

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
        format: Format = "auto",
    ) -> None:
        self._format = format
        self._examples = GSM8K_EXAMPLES[:shots]
        self._source = Source("gsm8k", _TABLES, data, hub)
        splits = {"train": ("train", "validation"), "test": ("test",)}
        super().__init__(
            name="gsm8k",
            splits=[split for table in self._source.tables for split in splits[table]],
            stop=() if self._format == "chat" else GSM8K_WORDING.stop,
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split; every row is checked to end in ``#### number``."""
        table = "test" if split == "test" else "train"
        rows = self._source.rows(table)
        chosen = partition.choose(split, [str(row["question"]) for _, row in rows], NUM_VALIDATION)
        ids = content_ids(row for _, row in rows)
        return [self._problem(*rows[index], ids[index]) for index in chosen]

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[Sequence[str]], poll: Poll | None = None
    ) -> list[list[Grade]]:
        """Reward 1 for the right number, else 0."""
        return grade_each(problems, completions, self.grade_one, poll)

    @staticmethod
    def grade_one(problem: Problem, completion: str) -> Grade:
        """The grade of one completion."""
        found = final_number(completion)
        if found is None:
            return Grade(reward=0.0, verdict=Verdict.FAILED, reason="it states no single number as its answer")
        answer = str(found)
        if found == Fraction(problem.reference):
            return Grade(reward=1.0, verdict=Verdict.PASSED, answer=answer)
        return Grade(reward=0.0, verdict=Verdict.FAILED, answer=answer, reason=f"{answer}, not {problem.reference}")

    def reference_completion(self, problem: Problem) -> str:
        """The row's worked answer."""
        return str(problem.row["answer"])

    def demonstration(self, problem: Problem) -> str:
        """The same, parted from the prompt as the worked examples are."""
        return f" {self.reference_completion(problem)}"

    def _problem(self, place: str, row: dict[str, str], name: str) -> Problem:
        question, solution = (column(row, wanted, place).strip() for wanted in _COLUMNS)
        value = single_number(solution.rpartition("####")[2]) if "####" in solution else None
        if value is None:
            raise BontuneError(f"{place}: the answer does not end in #### and a number; correct or remove the row")
        text, messages = offered(
            GSM8K_WORDING.text(question, self._examples), GSM8K_WORDING.messages(question, self._examples), self._format
        )
        return Problem(id=name, prompt=text, messages=messages, reference=str(value), row=row)


def final_number(text: str) -> Fraction | None:
    """The number that a text states last as its answer; None if it states none, or several at once.

    Example:
        >>> final_number("So 3 + 4 = 7. The answer is $1,200."), final_number("#### 42 or 17")
        (Fraction(1200, 1), None)
    """
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() : marker.end() + MAX_STATEMENT_LENGTH + 1]
        if marker[0].startswith("\\"):
            box = extract_answer(marker[0] + rest)
            return None if box is None else single_number(box)
        statement = _SENTENCE_END.split(rest, maxsplit=1)[0]
        if any(character.isdigit() for character in statement):
            return single_number(statement)
        if marker[0].startswith("#"):
            return None
    return None  # "the answer is a whole number" states none


def single_number(text: str) -> Fraction | None:
    """The value of a text that holds one number and nothing else but words, a currency and punctuation.

    Example:
        >>> single_number("$1,234.50 in all"), single_number("3 + 4"), single_number("2 million")
        (Fraction(2469, 2), None, None)
    """
    if len(text) > MAX_STATEMENT_LENGTH:
        return None
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(".")
    numbers = list(_NUMBER.finditer(text))
    if len(numbers) != 1 or _SCALE.search(text):
        return None
    (number,) = numbers
    if not _WORDS.fullmatch(text[: number.start()] + " " + text[number.end() :]):
        return None
    value = Fraction(number["digits"].replace(",", ""))
    return -value if number["sign"] else value
