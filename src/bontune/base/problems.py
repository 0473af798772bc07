"""A problem: the text or conversation that a model gets, and what its grader needs; with ids and hashes of content."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from pathlib import PurePath
from typing import Any, TypeAlias
from uuid import UUID

Message: TypeAlias = Mapping[str, str]
"""One turn of a conversation: ``{"role": "user", "content": "…"}``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One prompt with what is needed to grade its completions."""

    id: str
    """Unique in its task; seeds, pools and paired comparisons identify the problem by it."""
    prompt: str
    """The text that a model continues."""
    reference: str
    """The right answer, or what the grader needs to check one."""
    messages: tuple[Message, ...] = ()
    """The prompt as a conversation, for models with a chat template; empty: there is only the text."""
    level: int | None = None
    """Difficulty, 1 the easiest; None if the task has none."""
    row: dict[str, Any] = field(default_factory=dict)
    """The original row, for graders that need more than the reference."""


_WITH_TEXT = (Decimal, Fraction, complex, datetime, date, time, timedelta, Enum, PurePath, UUID, range)
"""Types whose text is their whole content; a subclass stands before its base class (datetime is a date)."""


def content_ids(rows: Iterable[Any]) -> list[str]:
    """Return an id for each row that follows from its content, so that it stays when other rows are added or removed.

    Equal rows are numbered in order.

    Example:
        >>> content_ids([{"a": 1}, {"a": 2}, {"a": 1}])
        ['f9d86028c6e0', 'e5a9d5b0300e', 'f9d86028c6e0-2']
    """
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        name = _digest(row)[:12]
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def contents_digest(problems: Sequence[Problem]) -> str:
    """Hash the whole content of problems; a restart notices by it that its data have changed."""
    return _digest([[p.id, p.prompt, p.reference, p.messages, p.level, p.row] for p in problems])[:16]


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True)
    return sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Convert a value to JSON; other types become their name and their text, or their name alone if they have none."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        items = value.tolist()
        return [type(value).__name__, str(value)] if type(items) is type(value) else _plain(items)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", value.hex()]
    if isinstance(value, (set, frozenset)):
        return ["set", sorted(json.dumps(_plain(item), sort_keys=True) for item in value)]
    for kind in _WITH_TEXT:
        if isinstance(value, kind):
            return [kind.__name__, str(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, {item.name: _plain(getattr(value, item.name)) for item in fields(value)}]
    return type(value).__name__
