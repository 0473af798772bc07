"""Checks of the options that several tasks share: recipes and the command line can hold anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.suggest import did_you_mean

FORMATS = ("auto", "base", "chat")
"""Of prompts. ``auto`` offers the text to continue and the conversation, ``base`` the text only; ``chat`` has the
conversation, and its words as the text too, for models tuned to follow instructions that have no chat template."""


def require_choice(task: str, name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` if it is one of the choices.

    Raises:
        BontuneError: it is none; the nearest is named.

    Example:
        >>> require_choice("math", "format", "chat", FORMATS)
        'chat'
    """
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise BontuneError(
            f"task {task}: {name} must be {', '.join(choices[:-1])} or {choices[-1]}, not {value!r}{hint}"
        )
    return value


def require_count(task: str, name: str, value: Any, low: int, high: int) -> int:
    """``value`` if it is a whole number from ``low`` to ``high``.

    Raises:
        BontuneError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BontuneError(f"task {task}: {name} must be a whole number from {low} to {high}, not {value!r}")
    return value


def require_flag(task: str, name: str, value: Any) -> bool:
    """``value`` if it is true or false.

    Raises:
        BontuneError: it is not.
    """
    if not isinstance(value, bool):
        raise BontuneError(f"task {task}: {name} must be true or false, not {value!r}")
    return value


def require_positive(task: str, name: str, value: Any, *, highest: float) -> float:
    """``value`` if it is a number above 0 and at most ``highest``.

    Raises:
        BontuneError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= highest:
        raise BontuneError(f"task {task}: {name} must be a number above 0 and at most {highest:g}, not {value!r}")
    return value
