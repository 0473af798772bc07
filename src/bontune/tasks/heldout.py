"""The two other data sets of the paper's evaluation, as rows of MATH: Functional MATH and MathOdyssey.

Both are for evaluation only, and have no split to train on. They are known by their rows, whatever their files are
called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from bontune.base.errors import BontuneError
from bontune.base.text import parse_json
from bontune.grading.answers.math_answer import math_equal
from bontune.grading.answers.notation import has_box, last_box
from bontune.tasks.columns import column
from bontune.tasks.reading import Data, PlacedRow, read_rows

Row: TypeAlias = dict[str, Any]
Splits: TypeAlias = "dict[str, Callable[[Row], bool]]"
"""Name of a split → whether a row is in it. The split ``test`` holds all rows."""

LETTER_REQUEST = "Answer with the letter of the right option."
"""Sentence after a choice's question: the letter is the only right answer that the data set has."""

_RESIDUE = re.compile(r"\\noindent\b|\\(?:begin|end)\{problem\}")
_LINE_ENDS = re.compile(r"(?:\\\\|\s)+$")
_DOLLAR = re.compile(r"(?<!\\)\$")
_ALTERNATIVES = re.compile(r"\s+or\s+")
_CHOICE = re.compile(r"[A-F](?:, [A-F])*")
_YES_NO = re.compile(r"Yes|No")

_STATEMENT = re.compile(r"\b(?:answer|(?:correct|right)\s+(?:option|choice))\s+is\s*:?|\banswer\s*:", re.IGNORECASE)
_FONT = re.compile(r"\\(?:text|textbf|mathbf|mathrm|textrm|textit|mathit|boldsymbol)(?![A-Za-z])|[${}*]")
_LETTERS = re.compile(
    r"(?i:(?:the\s+)?(?:(?:correct|right|final)\s+)?(?:(?:answer|option|choice)(?:\s+is)?\s*:?\s*)*)"
    r"\(?(?P<first>[A-Fa-f])\)?(?P<others>(?:\s*(?:,?\s*(?:and|or)\b|,)\s*\(?[A-Fa-f]\b\)?)*)(?:\s*[.:)].*|,\s.*|\s*)",
    re.DOTALL,
)
_WORD = re.compile(r"(?:the\s+answer\s+is\s*:?\s*)?(yes|no)(?:\s*[.,;:!].*|\s*)", re.DOTALL | re.IGNORECASE)


class HeldOutSet:
    """A data set of contest problems for evaluation, in a file of rows or in a folder with one JSON file a problem.

    Args:
        name: the data set's name, for messages.
        path: the file or the folder.
        splits: what the splits hold.
        as_math: turns a placed row of the data set into a row of MATH with ``problem``, ``answer``, ``unique_id``.
    """

    def __init__(self, name: str, path: Path, splits: Splits, as_math: Callable[[str, Row], Row]) -> None:
        self._name = name
        self._path = path
        self._splits = splits
        self._as_math = as_math

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, ``test`` first."""
        return tuple(self._splits)

    def rows(self, split: str) -> list[PlacedRow]:
        """Return the rows of a split as rows of MATH, each with its place, in the order of the data.

        Raises:
            BontuneError: the data cannot be read, or a row is malformed; or the split has no rows.
        """
        is_chosen = self._splits[split]
        placed = [(place, self._as_math(place, row)) for place, row in _placed(self._path)]
        chosen = [(place, row) for place, row in placed if is_chosen(row)]
        if not chosen:
            raise BontuneError(f"{self._path} ({self._name}) holds no rows of the split {split}.")
        return chosen


def held_out_set(data: Data) -> HeldOutSet | None:
    """Return the held-out set that a file or a folder holds, by its first row; None if it is another data set's.

    A file that cannot be read is none of them: what is wrong with it is said when its split is read.
    """
    path = Path(data).expanduser() if isinstance(data, (str, Path)) and str(data) else None
    try:
        first = next((row for _, row in islice(_placed(path), 1)), None) if path is not None else None
    except BontuneError:
        return None
    if path is None or first is None:
        return None
    if "is_static" in first:
        has_seeds = "seed_in_math_500" in first
        splits = _FUNCTIONAL_SPLITS if has_seeds else {"test": _FUNCTIONAL_SPLITS["test"]}
        return HeldOutSet("Functional MATH", path, splits, partial(_functional_row, has_seeds=has_seeds))
    if _problem_of_odyssey(first) is not None:
        return HeldOutSet("MathOdyssey", path, _ODYSSEY_SPLITS, _odyssey_row)
    return None


def choice_in(completion: str, reference: str) -> str | None:
    r"""Return the answer of a completion to a problem of MathOdyssey whose answer is a letter, yes or no.

    The answer is what the last box holds, or without a box the last sentence "the answer is …". A letter counts as
    such in any case, with brackets, fonts and what follows it (``(b)``, ``\text{B}``, ``B) 12``); so do yes and no.

    Returns:
        ``B``, ``B, F``, ``Yes`` or ``No``; a text that is none of them as it is; None for a box that is not closed,
        or no statement.

    Example:
        >>> choice_in("The answer is (B).", "B"), choice_in(r"\boxed{\text{no}}", "Yes"), choice_in("B or C?", "B")
        ('B', 'No', None)
    """
    if has_box(completion):
        text = last_box(completion)
    else:
        stated = _STATEMENT.split(completion)
        text = stated[-1].partition("\n")[0].strip() if len(stated) > 1 else None
    if text is None:
        return None
    plain = _FONT.sub("", text).strip()
    if _YES_NO.fullmatch(reference):
        word = _WORD.fullmatch(plain)
        return word[1].capitalize() if word else text
    letters = _LETTERS.fullmatch(plain)
    if letters is None or "or" in letters["others"]:
        return text
    return ", ".join(re.findall(r"\b[A-F]\b", f"{letters['first']} {letters['others']}".upper()))


def is_choice(reference: str) -> bool:
    """Whether a reference is the letter of a choice, or several, or yes or no."""
    return bool(_CHOICE.fullmatch(reference) or _YES_NO.fullmatch(reference))


def _placed(path: Path) -> Iterator[PlacedRow]:
    """Yield the rows of a file, or of every JSON file below a folder, each of which holds one object."""
    if not path.is_dir():
        yield from read_rows(path)
        return
    for file in sorted(path.rglob("*.json")):
        row = parse_json(file.read_bytes(), str(file))
        if not isinstance(row, dict):
            raise BontuneError(f"{file} holds a JSON {type(row).__name__}, not one problem; name the file itself.")
        yield str(file), {"unique_id": file.relative_to(path).as_posix(), **row}


# ---- Functional MATH ----


_FUNCTIONAL_SPLITS: Splits = {
    "test": lambda row: True,
    "unseen_seeds": lambda row: row["seed_in_math_500"],
    "seen_seeds": lambda row: not row["seed_in_math_500"],
}


def _functional_row(place: str, row: Row, *, has_seeds: bool) -> Row:
    seed = row.get("seed_in_math_500")
    if has_seeds and not isinstance(seed, bool):
        raise BontuneError(
            f"{place}: the column seed_in_math_500 must say true or false, as in the first row, not {seed!r}."
        )
    if "answer" in row:
        return row
    answer = last_box(column(row, "solution", place))
    if not answer:
        raise BontuneError(f"{place}: the solution has no \\boxed{{…}} with an answer; correct or remove the problem.")
    return {**row, "answer": answer}


# ---- MathOdyssey ----

_ODYSSEY_SPLITS: Splits = {
    "test": lambda row: True,
    "open": lambda row: not is_choice(row["answer"]),
    "choice": lambda row: _CHOICE.fullmatch(row["answer"]) is not None,
    "yes_no": lambda row: _YES_NO.fullmatch(row["answer"]) is not None,
}


def _problem_of_odyssey(row: Row) -> tuple[str, Row] | None:
    """The key and the problem of a row ``{"Problem_1": {"question": …, "answer": …}}``; None if it is another."""
    if len(row) != 1:
        return None
    ((key, problem),) = row.items()
    return (key, problem) if isinstance(problem, dict) and {"question", "answer"} <= problem.keys() else None


def _odyssey_row(place: str, row: Row) -> Row:
    found = _problem_of_odyssey(row)
    if found is None:
        raise BontuneError(
            f'{place}: a row of MathOdyssey is {{"Problem_1": {{"question": …, "answer": …}}}} with its own key; '
            "correct or remove the row."
        )
    key, problem = found
    question, answer = (_without_residue(column(problem, name, place)) for name in ("question", "answer"))
    answer = _without_dollars(answer)
    if _CHOICE.fullmatch(answer):
        question += f"\n\n{LETTER_REQUEST}"
    return {**problem, "problem": question, "answer": answer, "unique_id": key}


def _without_residue(text: str) -> str:
    r"""A text without the ``\noindent``, ``\end{problem}`` and final ``\\`` of the TeX file that it was cut from."""
    return _LINE_ENDS.sub("", _RESIDUE.sub("", text)).strip()


def _without_dollars(answer: str) -> str:
    """An answer as one formula: no dollar signs, words in ``\\text``, no full stop, and one of two equal forms."""
    formula = _DOLLAR.sub("", answer).replace(" and ", "\\text{ and }").strip().rstrip(".").strip()
    forms = _ALTERNATIVES.split(formula)
    return forms[0] if len(forms) > 1 and all(math_equal(forms[0], form) for form in forms) else formula
