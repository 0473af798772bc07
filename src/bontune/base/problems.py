"""What a model is asked: a problem with its text, its conversation and what grading needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Message: TypeAlias = Mapping[str, str]
"""One turn of a conversation: ``{"role": "user", "content": "…"}``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One prompt with what is needed to grade its completions."""

    id: str
    """Unique in its task; seeds, pools and paired comparisons go by it."""
    prompt: str
    """The text that a model continues."""
    reference: str
    """The right answer, or what the grader needs to check one."""
    messages: tuple[Message, ...] = ()
    """The same as a conversation, for models with a chat template; empty: there is only the text."""
    level: int | None = None
    """Difficulty, 1 the easiest; None if the task has none."""
    row: dict[str, Any] = field(default_factory=dict)
    """The original row, for graders that need more than the reference."""
