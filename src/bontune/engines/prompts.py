"""What a model is asked: a text to continue, or a conversation where the model has a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Protocol, TypeAlias

from bontune.base.problems import Message, Problem
from bontune.models.chat import has_chat_template as has_chat_template  # engines ask it beside prompts
from bontune.models.chat import render


class TakesChat(Protocol):
    """What is asked here of an engine."""

    def takes_chat(self) -> bool:
        """Whether it takes conversations."""
        ...


class HasStop(Protocol):
    """What is asked here of a task."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a completion."""
        ...


Prompt: TypeAlias = "str | tuple[Message, ...]"
"""A text to continue, or the messages of a conversation that the model answers."""


def as_message(text: str) -> tuple[Message, ...]:
    """The text as a conversation that a user begins."""
    return ({"role": "user", "content": text},)


def asks_chat(engine: TakesChat, problems: Sequence[Problem]) -> bool:
    """Whether conversations are asked as such; a server is asked whether it can only if there is a conversation."""
    return any(problem.messages for problem in problems) and engine.takes_chat()


def prompt_of(problem: Problem, uses_chat: bool) -> Prompt:
    """The problem's conversation for a model that chats, if it has one; else its text."""
    return problem.messages if uses_chat and problem.messages else problem.prompt


def prompts_of(engine: TakesChat, problems: Sequence[Problem]) -> list[Prompt]:
    """What an engine is asked for each of these problems."""
    uses_chat = asks_chat(engine, problems)
    return [prompt_of(problem, uses_chat) for problem in problems]


def stop_of(task: HasStop, problems: Sequence[Problem], uses_chat: bool) -> tuple[str, ...]:
    """Strings that end a completion: the task's own, but in a conversation not those that belong to a text's format.

    A benchmark's examples are parted by "Question:", after which a base model would go on with another one; it says so
    by ``stop_is_for_texts``. A stop string that a user gives holds in a conversation, too.
    """
    is_conversation = uses_chat and all(problem.messages for problem in problems)
    return () if is_conversation and getattr(task, "stop_is_for_texts", False) else task.stop


def as_text(prompt: Prompt, tokenizer: Any) -> str:
    """The text that the model sees, special tokens of the chat template included.

    Raises:
        BontuneError: the template refuses the conversation.
    """
    return prompt if isinstance(prompt, str) else render(tokenizer, prompt, asks=True)


def texts_of(engine: TakesChat, prompts: Sequence[Prompt]) -> list[str]:
    """The texts that the model goes on from; "" for a conversation that a server puts into the model's format."""
    tokenizer = getattr(engine, "tokenizer", None)
    return [
        as_text(prompt, tokenizer) if isinstance(prompt, str) or tokenizer is not None else "" for prompt in prompts
    ]


def digest_as_rendered(engine: TakesChat, problems: Sequence[Problem]) -> str | None:
    """A hash of the conversations as an engine in this process writes them; None where it writes none."""
    prompts = [] if getattr(engine, "tokenizer", None) is None else prompts_of(engine, problems)
    if all(isinstance(prompt, str) for prompt in prompts):
        return None
    total = sha256()
    for text in texts_of(engine, prompts):
        total.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return total.hexdigest()[:16]
