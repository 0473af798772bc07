"""Prompts that are conversations: lists of turns with role and content, as TRL and chat servers take them."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from bontune.base.errors import BontuneError, did_you_mean
from bontune.base.problems import Message
from bontune.base.text import cell_text, is_missing, readable

ROLES = ("system", "developer", "user", "assistant", "tool")
"""Roles that a turn may have; the first two in the first turn only."""
_LOOKS_LIKE_TURNS = re.compile(r"""\[\s*\{\s*["'](?:role|content)["']\s*:.*\}\s*\]""", re.DOTALL)
_MAY_HOLD_TURNS = re.compile(r"""\[\s*\{.*["']role["']\s*:.*\}\s*\]""", re.DOTALL)


def turns_in(value: Any, where: str) -> list[Any] | None:
    """The turns of a cell that holds a conversation; None of a cell that holds anything else.

    Args:
        value: a list of objects, or its text as JSON or as Python prints it, which is what a CSV file holds.
        where: the row and the column, for messages.

    Raises:
        BontuneError: a text that begins and ends like a conversation and cannot be read as one.

    Example:
        >>> turns_in('[{"role": "user", "content": "Hi"}]', "row 1"), turns_in("[1]", "row 1")
        ([{'role': 'user', 'content': 'Hi'}], None)
    """
    if isinstance(value, str):
        text = value.strip()
        if not _MAY_HOLD_TURNS.fullmatch(text):
            return None
        value = _parsed(text)
        if value is None and _LOOKS_LIKE_TURNS.fullmatch(text):
            raise BontuneError(f"{where} looks like a conversation, but is no JSON: {text[:60]!r}; write it as JSON.")
    if hasattr(value, "tolist"):  # as pandas keeps the lists of a Parquet file
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in value):
        return None
    return list(value)


def conversation(turns: Sequence[Any], where: str) -> tuple[Message, ...]:
    """The messages of a conversation that a model can go on with.

    Args:
        turns: as :func:`turns_in` finds them. A content may be a list of parts of type ``text``, which are joined.
        where: the row and the column, for messages.

    Raises:
        BontuneError: no turns, an unknown role, a content that is no text, turns out of order, or none to answer.
    """
    if not turns:
        raise BontuneError(f"{where} holds a conversation without a turn; give it one of the user.")
    messages = [_message(turn, f"{where}, turn {number}") for number, turn in enumerate(turns, start=1)]
    for number, message in enumerate(messages[1:], start=2):
        if message["role"] in ("system", "developer"):
            raise BontuneError(f"{where}, turn {number} has the role {message['role']}, which only the first may have.")
    last = messages[-1]
    if last["role"] == "assistant":
        raise BontuneError(
            f"{where} ends with a turn of the assistant, so that nothing is asked: take it off, and put it into the "
            "column completion if it is to be imitated."
        )
    if last["role"] in ("system", "developer"):
        raise BontuneError(f"{where} ends with a turn of the {last['role']}; a turn of the user must follow.")
    if not last["content"].strip():
        raise BontuneError(f"{where}: the last turn is empty; write what is asked, or remove the row.")
    return tuple(messages)


def as_continued(messages: Sequence[Message]) -> str:
    """A conversation as a text to continue, for models without a chat template.

    Example:
        >>> as_continued([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}])
        'Be brief.\\n\\n1+1?'
        >>> hello, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
        >>> as_continued([hello, answer, {"role": "user", "content": "1+1?"}])
        'User: Hi\\n\\nAssistant: Hello\\n\\nUser: 1+1?\\n\\nAssistant:'
    """
    if not any(message["role"] in ("assistant", "tool") for message in messages):
        return "\n\n".join(message["content"] for message in messages)
    return "\n\n".join([*(f"{m['role'].capitalize()}: {m['content']}" for m in messages), "Assistant:"])


def said(value: Any) -> str | None:
    """What a cell lets the model say: its text, or the content of its only turn; None if it is neither.

    Example:
        >>> said([{"role": "assistant", "content": "4"}]), said("4"), said([]), said(None)
        ('4', '4', None, None)
    """
    try:
        turns = turns_in(value, "")
        if turns is None:
            return cell_text(value)
        (message,) = [_message(turn, "") for turn in turns]
    except ValueError:  # other turns, or such as cannot be read
        return None
    return message["content"] if message["role"] == "assistant" else None


def _parsed(text: str) -> Any:
    """The value of a text in JSON, or as Python prints lists and dictionaries; None if it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of "\\d" in a text
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _message(turn: Mapping[str, Any], where: str) -> Message:
    role = turn.get("role")
    if role not in ROLES:
        hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise BontuneError(f"{where} has the role {role!r}{hint}; roles are {', '.join(ROLES)}.")
    if turn.get("tool_calls") is not None and len(turn["tool_calls"]):
        raise BontuneError(
            f"{where} calls tools, which cannot be shown to a model here; write the call as its content."
        )
    return {"role": role, "content": readable(_content(turn.get("content"), where))}


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if is_missing(content):
        raise BontuneError(f"{where} has no content; write its text, or remove the turn.")
    if hasattr(content, "tolist"):
        content = content.tolist()
    if not isinstance(content, (list, tuple)):
        raise BontuneError(f"{where} has a content of type {type(content).__name__}, not a text or a list of parts.")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise BontuneError(f"{where} has a part of type {kind!r}; only parts with a text can be shown to a model.")
        texts.append(part["text"])
    return "".join(texts)
