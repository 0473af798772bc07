"""GSM8K: word problems of grade-school arithmetic whose answers are numbers (Cobbe et al., 2021, arXiv 2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

from pydantic import Field

import bontune.tasks.partition as partition
from bontune.base.errors import BontuneError
from bontune.base.problems import Problem, content_ids
from bontune.base.signals import Poll
from bontune.base.thoughts import answer_behind
from bontune.grading.answers.notation import last_box, numbers_in, plain
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks.base import OPEN_THOUGHT, grade_each
from bontune.tasks.benchmark import Benchmark
from bontune.tasks.columns import column
from bontune.tasks.fewshot import GSM8K_EXAMPLES, GSM8K_WORDING, offered
from bontune.tasks.options import Format, ThoughtTags, checked
from bontune.tasks.reading import Data, Source, Table

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
_MARKER = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z])|####"
    r"|(?<![A-Za-z])answer[*_`]*(?:\s+(?P<verb>is|equals)\b|\s*[:=])[*_`]*[ \t]*[:=]?"
    r"|^[#*_ \t]*(?:(?:the|my)\s+)?(?:final\s+)?answer[*_]*(?=[ \t]*\n)",
    re.IGNORECASE | re.MULTILINE,
)
_TURN_END = re.compile(
    r"<[|\uff5c][^<>|\uff5c\s]{1,60}[|\uff5c]>|</?(?:s|eos|bos|pad|end|answer|end_of_turn|im_end)>|\[/?(?:EOS|INST)\]",
    re.IGNORECASE,
)
"""Matches special tokens that are left in a text."""
_BESIDE_THE_POINT = re.compile(
    r"[*_\s]*(?:an?\s+)?(?:(?:very|quite|indeed|also|therefore|thus|clearly|both|mathematically)\s+)*"
    r"(?:reasonable|correct|right|verified|confirmed|consistent|plausible|sensible|obvious|clear|valid|realistic"
    r"|expected|logical|accurate|sound|supported|checked|given|positive|unique|whole|even|odd|divisible|good|true|fine"
    r"|found|obtained|based|derived|calculated|computed|in\s+line|in\s+agreement)\b",
    re.IGNORECASE,
)
"""Matches the beginning of a sentence that says something of an answer and does not state it."""
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_REASON = re.compile(r",?\s+(?:because|since)\b", re.IGNORECASE)
_BULLET = re.compile(r"\s*\n\s*[-*\u2022\u2023\u25aa\u25cf\u2013]\s+")
_SIGN_APART = re.compile(r"\A\s*-\s+(?=[\\0-9.$])")
_WORDS = re.compile(
    r"[A-Za-z\s,:;'\"$%*()=._`\u20ac\u00a3\u20b9\u00a5\u00b0\u2103\u2109\u2014\u2015\u2192\u2022\u27a1]*"
)
_CHECK_MARKS = "\u2705\u2713\u2714\u2611\U0001f389\U0001f44d\U0001f642\U0001f60a"
_AFTER = re.compile(rf"(?:{_WORDS.pattern[:-1]}|[{_CHECK_MARKS}]|-(?![A-Za-z0-9])(?!\s+[A-Za-z]{{1,2}}(?![A-Za-z])))*")
"""Matches what may follow a number: words, check marks, and a dash that takes nothing from it."""
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
        format: Format = "auto",
        thoughts: ThoughtTags = "auto",
    ) -> None:
        self._format = format
        self._examples = GSM8K_EXAMPLES[:shots]
        self._source = Source("gsm8k", _TABLES, data, hub)
        splits = {"train": ("train", "validation"), "test": ("test",)}
        super().__init__(
            name="gsm8k",
            splits=[split for table in self._source.tables for split in splits[table]],
            thoughts=thoughts,
            stop=() if self._format == "chat" else GSM8K_WORDING.stop,
        )

    def load(self, split: str) -> list[Problem]:
        """Read a split; every row is checked to end in ``#### number``."""
        table = "test" if split == "test" else "train"
        rows = self._source.rows(table)
        chosen = partition.choose(split, [str(row["question"]) for _, row in rows], NUM_VALIDATION)
        ids = content_ids(row for _, row in rows)
        return [self._problem(*rows[index], ids[index]) for index in chosen]

    def _grade(
        self, problems: Sequence[Problem], answers: Sequence[Sequence[str]], poll: Poll | None
    ) -> list[list[Grade]]:
        return grade_each(problems, answers, _graded, poll)

    @staticmethod
    def grade_one(problem: Problem, completion: str) -> Grade:
        """The grade of one completion."""
        answer = answer_behind(completion)
        return OPEN_THOUGHT if answer is None else _graded(problem, answer)

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


def _graded(problem: Problem, text: str) -> Grade:
    found = final_number(text)
    if found is None:
        return Grade(reward=0.0, verdict=Verdict.FAILED, reason="it states no single number as its answer")
    answer = str(found)
    if found == Fraction(problem.reference):
        return Grade(reward=1.0, verdict=Verdict.PASSED, answer=answer)
    return Grade(reward=0.0, verdict=Verdict.FAILED, answer=answer, reason=f"{answer}, not {problem.reference}")


def final_number(text: str) -> Fraction | None:
    """The number that a text states last as its answer; None if it states none, or several at once.

    Example:
        >>> final_number("So 3 + 4 = 7. The answer is $1,200."), final_number("#### 42 or 17")
        (Fraction(1200, 1), None)
    """
    text = plain(text)
    end, fallback = len(text), None
    for marker in reversed(list(_MARKER.finditer(text))):
        rest = text[marker.end() : min(end, marker.end() + MAX_STATEMENT_LENGTH + 1)]
        end = marker.start()
        if marker[0].startswith("\\"):
            box = last_box(text[marker.start() : marker.end() + MAX_STATEMENT_LENGTH + 1])
            return None if box is None else single_number(box)
        statement = _statement(rest)
        if any(character.isdigit() for character in statement):
            if not (marker["verb"] and _BESIDE_THE_POINT.match(statement)):
                return single_number(statement)
            fallback = (
                single_number(statement) if fallback is None else fallback
            )  # "the answer is right: 42", where nothing else is said
        elif marker[0].startswith("#"):
            return None
    return fallback  # None: "the answer is a whole number" states none


def _statement(rest: str) -> str:
    """What follows a marker, up to the end of the sentence or to its reasons."""
    rest = _TURN_END.sub(" ", rest)
    if _BULLET.match(rest):
        rest = _BULLET.sub("", rest, count=1)
        if _BULLET.search(rest):
            return rest  # a list: several numbers are no answer
    rest = rest.lstrip()
    return _REASON.split(_SENTENCE_END.split(rest, maxsplit=1)[0], maxsplit=1)[0]


def single_number(text: str) -> Fraction | None:
    """The value of a text that holds one number and nothing else but words, a currency and punctuation.

    Example:
        >>> single_number("$1,234.50 in all"), single_number("3 + 4"), single_number("2 million")
        (Fraction(2469, 2), None, None)
    """
    if len(text) > MAX_STATEMENT_LENGTH:
        return None
    text = _TURN_END.sub(" ", plain(text))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _SIGN_APART.sub("-", text.strip().rstrip("."))
    numbers = list(numbers_in(text))
    if len(numbers) != 1 or not numbers[0].is_decimal or _SCALE.search(text):
        return None
    (number,) = numbers
    is_alone = _WORDS.fullmatch(text[: number.start]) and _AFTER.fullmatch(text[number.end :])
    return number.value if is_alone else None
