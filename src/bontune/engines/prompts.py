"""What a model is asked: a text to continue, or a conversation where the model has a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from bontune.base.problems import Message, Problem


class TakesChat(Protocol):
    """What is asked here of an engine."""

    def takes_chat(self) -> bool:
        """Whether it takes conversations."""
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


def stop_of(stop: tuple[str, ...], problems: Sequence[Problem], uses_chat: bool) -> tuple[str, ...]:
    """Strings that end a completion: the task's where a text is continued, none in a conversation."""
    return () if uses_chat and all(problem.messages for problem in problems) else stop


def has_chat_template(tokenizer: Any) -> bool:
    """Whether the tokenizer can put a conversation into the model's own format."""
    return getattr(tokenizer, "chat_template", None) is not None


def as_text(prompt: Prompt, tokenizer: Any) -> str:
    """The text that the model sees, special tokens of the chat template included.

    Raises:
        jinja2.TemplateError: the template refuses the conversation.
    """
    if isinstance(prompt, str):
        return prompt
    text: str = tokenizer.apply_chat_template(
        [dict(message) for message in prompt], tokenize=False, add_generation_prompt=True
    )
    return text


def texts_of(engine: TakesChat, prompts: Sequence[Prompt]) -> list[str]:
    """The texts that the model goes on from; "" for a conversation that a server puts into the model's format."""
    tokenizer = getattr(engine, "tokenizer", None)
    return [
        as_text(prompt, tokenizer) if isinstance(prompt, str) or tokenizer is not None else "" for prompt in prompts
    ]
