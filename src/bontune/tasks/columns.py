"""From rows to problems: which column is what, and the text or the conversation that a model sees."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Message, Problem, content_ids
from bontune.base.text import cell_text, is_inexact, is_missing, python_value, readable
from bontune.grading.answers.numbers import last_number
from bontune.tasks.conversation import as_continued, conversation, said, turns_in
from bontune.tasks.reading import PlacedRow

Row: TypeAlias = Mapping[str, Any]
Needed: TypeAlias = Literal["nothing", "column", "text", "number"]
"""What a grader needs of the answer: nothing, that it is there, a text that is not empty, or a text with a number."""

COMPLETION = "completion"
"""Column in which TRL's rows hold what the model should say."""
_LEVEL = re.compile(r"(?:level\s*)?([0-9]{1,3})", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """The names of the columns that mean something."""

    prompt: str = "prompt"
    """Column with the question, or with a conversation."""
    answer: str | None = "answer"
    """Column with the right answer; None: there is none."""
    id: str = "id"
    """Column by which problems are told apart; rows without it are known by their contents."""
    level: str = "level"
    """Column with the difficulty."""
    solution: str = "solution"
    """Column with a completion that passes."""

    @classmethod
    def of(cls, who: str, columns: Mapping[str, str] | None, **given: str | None) -> Names:
        """The usual names, with others in their place.

        Args:
            who: whose columns they are, for messages.
            columns: meaning → name.
            given: names that were given one by one.

        Raises:
            BontuneError: an unknown meaning, a name that is no text, or two names for one meaning.
        """
        if columns is None:
            columns = {}
        meanings = [field.name for field in fields(cls)]
        if not isinstance(columns, Mapping):
            raise BontuneError(f"{who}: columns must say which column is what, such as {{prompt: question}}.")
        usual = cls()
        for meaning, name in columns.items():
            if meaning not in meanings:
                raise BontuneError(
                    f"{who}: columns has no {meaning!r}{did_you_mean(str(meaning), meanings)}; it takes "
                    f"{', '.join(meanings)}."
                )
            if not isinstance(name, str):
                raise BontuneError(f"{who}: columns.{meaning} must be the name of a column, not {name!r}.")
            if given.get(meaning, getattr(usual, meaning)) != getattr(usual, meaning):
                raise BontuneError(f"{who}: {meaning} and columns.{meaning} are both given; leave one out.")
        named: dict[str, Any] = {**given, **columns}
        return replace(usual, **named)


class Columns:
    """Makes problems of rows.

    Args:
        names: of the columns.
        template: the text that the model sees; of a conversation, the text of its last turn.
        needed: what the grader needs of the answer.
        is_chat: whether texts are also offered as a message of the user.
        is_exact: refuse an answer of which a column of floats has lost digits, also where the grader needs none.
        has_lists: whether an answer that is no text is written as JSON; else it is only in the row.

    Raises:
        BontuneError: the template names no column.
    """

    def __init__(
        self,
        names: Names,
        template: str = "{prompt}",
        *,
        needed: Needed = "nothing",
        is_chat: bool = False,
        is_exact: bool = False,
        has_lists: bool = True,
    ) -> None:
        self._names = names
        self._template = template
        self._needed = needed
        self._is_chat = is_chat
        self._is_exact = is_exact
        self._has_lists = has_lists
        if not any(match[2] for match in _PLACEHOLDER.finditer(template)):
            raise BontuneError(f"The template {template!r} names no column; write {{prompt}} where the question goes.")

    def problems(self, placed: Sequence[PlacedRow], where: str) -> list[Problem]:
        """The problems of some rows.

        Raises:
            BontuneError: no rows, a missing column, a value that is none, conversations beside texts, or an id twice.
        """
        usual_ids = content_ids(row for _, row in placed)
        problems = [
            self._problem(row, place, usual_id) for (place, row), usual_id in zip(placed, usual_ids, strict=True)
        ]
        if not problems:
            raise BontuneError(f"{where} holds no rows.")
        for (place, _), problem in zip(placed, problems, strict=True):
            if bool(problem.messages) != bool(problems[0].messages):
                kinds = ("a conversation", "a text") if problem.messages else ("a text", "a conversation")
                raise BontuneError(
                    f"{place}: column {self._names.prompt!r} holds {kinds[0]}, and {kinds[1]} in the first row; write "
                    "all rows alike."
                )
        require_distinct_ids(problems, where)
        return problems

    def _problem(self, row: dict[str, Any], place: str, usual_id: str) -> Problem:
        text, messages = self._asked(row, place)
        return Problem(
            id=self._id(row, place, usual_id),
            prompt=text,
            reference=self._reference(row, place),
            messages=messages,
            level=level_of(row, self._optional("level", row, place)),
            row=row,
        )

    def _asked(self, row: Row, place: str) -> tuple[str, tuple[Message, ...]]:
        """The text to continue, and the conversation if there is one."""
        name = self._names.prompt
        where = f"{place}: column {name!r}"
        turns = turns_in(row.get(name), where)
        if turns is None:
            question = column(row, name, place)
            if not question.strip() or is_missing(row[name]):
                raise _empty(name, place)
            text = self._rendered(question, row, place)
            return text, ({"role": "user", "content": text},) if self._is_chat else ()
        if _holds_something(row.get("tools")):
            raise BontuneError(
                f"{place}: the column 'tools' holds tools, which cannot be offered to a model here; describe them in "
                "the system's turn, and remove the column."
            )
        *before, last = conversation(turns, where)
        messages = (*before, {**last, "content": self._rendered(last["content"], row, place)})
        return as_continued(messages), messages

    def _rendered(self, question: str, row: Row, place: str) -> str:
        def fill(match: re.Match[str]) -> str:
            if match[1]:
                return f"{{{match[1]}}}"
            if match[2] == "prompt":
                return question
            if match[2] not in row:
                known = ["prompt", *row]
                raise BontuneError(
                    f"{place}: the template names {{{match[2]}}}, no column{did_you_mean(match[2], known)}; there are: "
                    f"{', '.join(known)}; for braces in the text write {{{{{match[2]}}}}}."
                )
            return column(row, match[2], place)

        return _PLACEHOLDER.sub(fill, self._template)

    def _id(self, row: Row, place: str, usual_id: str) -> str:
        """The row's own id; one that is null, NaN or empty is none."""
        name = self._optional("id", row, place)
        if is_missing(row.get(name)) or row[name] in ("", b""):
            return usual_id
        return exact_column(row, name, place)

    def _optional(self, meaning: str, row: Row, place: str) -> str:
        """The name of a column that may be missing, unless it was named."""
        name: str = getattr(self._names, meaning)
        if name != meaning and name not in row:
            raise _no_column(row, name, place)
        return name

    def _reference(self, row: Row, place: str) -> str:
        name = self._names.answer
        if name is None or (self._needed == "nothing" and is_missing(row.get(name))):
            return ""
        if self._needed == "nothing" and cell_text(row[name]) is None:
            return json.dumps(row[name], ensure_ascii=False, default=_text_in_json) if self._has_lists else ""
        if self._needed not in ("text", "number"):
            return (exact_column if self._is_exact else plain_column)(row, name, place)
        if name == "answer" and name not in row and COMPLETION in row:
            name, row = COMPLETION, {COMPLETION: said(row[COMPLETION])}
            if row[name] is None:
                raise BontuneError(f"{place}: column {name!r} holds neither a text nor one turn of the assistant.")
        reference = exact_column(row, name, place)
        if not reference.strip() or is_missing(row[name]):
            raise _empty(name, place)
        if self._needed == "number" and last_number(reference) is None:
            raise BontuneError(f"{place}: column {name!r} holds no number, which the grader compares.")
        return reference


def _text_in_json(value: Any) -> str:
    return cell_text(value) or str(value)


def column(row: Row, name: str, where: str) -> str:
    """The text in a column of a row; a number or a date is written out.

    Raises:
        BontuneError: no such column (the nearest is named), or it holds something else.
    """
    if name not in row:
        raise _no_column(row, name, where)
    value = python_value(row[name])
    text = str(value) if isinstance(value, float) else cell_text(value)
    if text is None:
        raise BontuneError(f"{where}: column {name!r} holds {type(value).__name__}, not text or a number.")
    return readable(text)


def plain_column(row: Row, name: str, where: str) -> str:
    """The same, with a whole number written as one, also where a column of floats holds it."""
    text = column(row, name, where)
    return text if isinstance(row[name], str) else cell_text(row[name]) or text


def exact_column(row: Row, name: str, where: str) -> str:
    """The same, of a column whose values must be told apart.

    Raises:
        BontuneError: as :func:`column`; or a float so large that it stands for several whole numbers.
    """
    text = plain_column(row, name, where)
    if is_inexact(row[name]):
        raise BontuneError(
            f"{where}: column {name!r} holds {text} as a float, which stands for several whole numbers at that size; "
            "write it as a text."
        )
    return text


def level_of(row: Row, name: str = "level") -> int | None:
    """The difficulty in a column, ``3``, ``3.0`` or ``"Level 3"``; None if there is none."""
    found = _LEVEL.fullmatch((cell_text(row.get(name)) or "").strip())
    return int(found[1]) if found else None


def require_distinct_ids(problems: Sequence[Problem], where: str) -> None:
    """Raise :class:`BontuneError` for an id that two problems share."""
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise BontuneError(f"{where}: the id {problem.id!r} occurs twice; make ids distinct or leave them out.")
        seen.add(problem.id)


def _holds_something(value: Any) -> bool:
    """Whether a cell holds a list with an item, or the text of one."""
    if is_missing(value) or (isinstance(value, str) and value.strip() in ("", "[]", "null")):
        return False
    return bool(len(value)) if hasattr(value, "__len__") else True


def _empty(name: str, where: str) -> BontuneError:
    return BontuneError(f"{where}: column {name!r} is empty; fill it in, or remove the row")


def _no_column(row: Row, name: str, where: str) -> BontuneError:
    known = [str(key) for key in row]
    there = ", ".join(known) or "none"
    if len(known) == 1 and (mark := next((mark for mark in ";\t|" if mark in there), None)) is not None:
        return BontuneError(f"{where}: no column {name!r}; the columns are parted by {mark!r}, and a comma is needed.")
    return BontuneError(f"{where}: no column {name!r}{did_you_mean(name, known)}; there are: {there}.")
