"""A prompt is a text to continue, or a conversation for a model with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol, TypeAlias

from bontune.base.problems import Message, Problem
from bontune.models.chat import has_chat_template as has_chat_template  # engines ask it beside prompts
from bontune.models.chat import render_conversation


class TakesChat(Protocol):
    """The part of an engine that this module uses."""

    def takes_chat(self) -> bool:
        """Return whether the engine takes conversations."""
        ...


class HasStop(Protocol):
    """The part of a task that this module uses."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a completion."""
        ...


Prompt: TypeAlias = "str | tuple[Message, ...]"
"""A text to continue, or the messages of a conversation that the model answers."""


def as_message(text: str) -> tuple[Message, ...]:
    """Return a conversation that consists of the text as the user's message."""
    return ({"role": "user", "content": text},)


def asks_chat(engine: TakesChat, problems: Sequence[Problem]) -> bool:
    """Return whether problems are sent as conversations; the engine is asked only if a problem has a conversation."""
    return any(problem.messages for problem in problems) and engine.takes_chat()


def prompt_of(problem: Problem, uses_chat: bool) -> Prompt:
    """Return the problem's conversation, if it has one and the model takes conversations; else its text."""
    return problem.messages if uses_chat and problem.messages else problem.prompt


def prompts_of(engine: TakesChat, problems: Sequence[Problem]) -> list[Prompt]:
    """Return the prompts that an engine gets for these problems."""
    uses_chat = asks_chat(engine, problems)
    return [prompt_of(problem, uses_chat) for problem in problems]


def stop_of(task: HasStop, problems: Sequence[Problem], uses_chat: bool) -> tuple[str, ...]:
    """Return the task's stop strings, without those that belong to the format of a text if prompts are conversations.

    A benchmark separates its examples by "Question:", where a base model would begin another one; such a task sets
    ``stop_is_for_texts``. A stop string that the user sets counts in a conversation, too.
    """
    is_conversation = uses_chat and all(problem.messages for problem in problems)
    return () if is_conversation and getattr(task, "stop_is_for_texts", False) else task.stop


def as_text(prompt: Prompt, tokenizer: Any) -> str:
    """Return the text that the model reads, special tokens of the chat template included.

    Raises:
        BontuneError: the template refuses the conversation.
    """
    return prompt if isinstance(prompt, str) else render_conversation(tokenizer, prompt, asks=True)


def texts_of(engine: TakesChat, prompts: Sequence[Prompt]) -> list[str]:
    """Return the texts that the model continues; "" for a conversation that a server formats."""
    tokenizer = getattr(engine, "tokenizer", None)
    return [
        as_text(prompt, tokenizer) if isinstance(prompt, str) or tokenizer is not None else "" for prompt in prompts
    ]


def digest_as_rendered(engine: TakesChat, problems: Sequence[Problem]) -> str | None:
    """Hash the conversations as an engine in this process formats them; None if it formats none."""
    prompts = [] if getattr(engine, "tokenizer", None) is None else prompts_of(engine, problems)
    if all(isinstance(prompt, str) for prompt in prompts):
        return None
    total = sha256()
    for text in texts_of(engine, prompts):
        total.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()[:16]
