"""Conversations as texts, by a model's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.problems import Message

LONGEST_REASON = 300
_MARK = "bontune{}turn"
"""Content of a turn for testing whether a template writes turns of its role at all."""
_PARTS = "'type': 'text'"
"""Part of the text that results if a template prints content in parts instead of joining it."""


def has_chat_template(tokenizer: Any) -> bool:
    """Return whether the tokenizer has a chat template."""
    return getattr(tokenizer, "chat_template", None) is not None


def holds_date(tokenizer: Any) -> bool:
    """Return whether the chat template writes the current date, so that prompts change from day to day."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None))


def render_conversation(tokenizer: Any, messages: Sequence[Message], *, asks: bool) -> str:
    """Return the text of a conversation as the model reads it, special tokens of the chat template included.

    Some templates take a turn's content as a list of parts and silently omit a text. The form that a template takes is
    tested with turns of the same roles.

    Args:
        tokenizer: the model's tokenizer.
        messages: the conversation.
        asks: whether the model's answer shall follow; otherwise the conversation is complete.

    Raises:
        BontuneError: there is no template, or it refuses the conversation, fails on it, or omits a turn.
    """
    if not has_chat_template(tokenizer):
        raise BontuneError("The model has no chat template and takes no conversations: give the prompt as a text.")
    roles = tuple(str(message.get("role")) for message in messages)
    template = str(tokenizer.chat_template)
    takes_parts = all(isinstance(m.get("content"), str) for m in messages) and _takes_parts(tokenizer, template, roles)
    return _apply(tokenizer, [_in_parts(m) if takes_parts else dict(m) for m in messages], asks=asks)


@lru_cache(maxsize=64)
def _takes_parts(tokenizer: Any, template: str, roles: tuple[str, ...]) -> bool:
    """Return whether the template takes a turn's content in parts.

    Raises:
        BontuneError: the template omits a user's or a system's turn in either form.
    """
    turns: list[Message] = [{"role": role, "content": _MARK.format(i)} for i, role in enumerate(roles)]
    asked = [i for i, role in enumerate(roles) if role in ("user", "system")]
    lost, why = _lost(tokenizer, turns, asked)
    if not lost:
        return False
    lost_in_parts, _ = _lost(tokenizer, [_in_parts(turn) for turn in turns], asked)
    if not lost_in_parts:
        return True
    if why is not None:
        return False  # it fails on the real conversation as well, with a reason
    raise BontuneError(
        f"The model's chat template leaves out the turn of role {roles[lost[0]]!r}: give the conversation without it, "
        "or the problem as a text (format=base)."
    )


def _lost(tokenizer: Any, turns: Sequence[Mapping[str, Any]], asked: Sequence[int]) -> tuple[list[int], str | None]:
    """Return the turns that the template omits, and the reason if it fails."""
    try:
        text = _apply(tokenizer, turns, asks=True)
    except BontuneError as error:
        return list(asked) or [0], str(error)
    return [i for i in asked if _MARK.format(i) not in text or _PARTS in text], None


def _in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _apply(tokenizer: Any, turns: Sequence[Mapping[str, Any]], *, asks: bool) -> str:
    try:
        text = tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False, add_generation_prompt=asks)
    except Exception as error:  # a template is a program, which may fail in any way
        reason = str(error).strip().partition("\n")[0].rstrip(".")[:LONGEST_REASON] or type(error).__name__
        raise BontuneError(
            f"The model's chat template refuses the conversation: {reason}; change its turns, or give the problem as "
            "a text (format=base)."
        ) from error
    if not isinstance(text, str):
        raise BontuneError(f"The model's chat template returns a {type(text).__name__} instead of a text.")
    return text
