"""The task's own answers as tokens; supervised objectives call such an answer y*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.engines.prompts import Prompt, as_text, prompt_of
from bontune.engines.texts import context_of, encode_prompts, encode_text, end_ids
from bontune.models.chat import has_chat_template
from bontune.tasks.base import HasDemonstrations, HasThoughts, Task


def encode_demonstrations(task: Task, problems: Sequence[Problem], model: Any, tokenizer: Any) -> dict[str, list[int]]:
    """Tokens of each problem's demonstration as a continuation of its prompt, closed by the model's end token.

    Args:
        task: has ``demonstration(problem)``; see :class:`bontune.tasks.base.HasDemonstrations`.
        problems: which.
        model, tokenizer: the policy's.

    Returns:
        Token ids by problem id.

    Raises:
        BontuneError: the task has no demonstrations, one is missing, empty or too long for the model's context, or the
            model has no end token.
    """
    if not problems:
        return {}
    if not isinstance(task, HasDemonstrations):
        raise BontuneError(
            f"Task {task.name} has no demonstrations, and this objective trains on them: give the task a method "
            "demonstration(problem) -> str, or choose an objective that trains on samples."
        )
    prompts = [prompt_of(problem, has_chat_template(tokenizer)) for problem in problems]
    encoded = encode_prompts(model, tokenizer, prompts, max_new_tokens=1)
    context = context_of(model) or float("inf")
    ends: dict[bool, int] = {}
    found = {}
    for problem, prompt, prompt_ids in zip(problems, prompts, encoded, strict=True):
        is_text = isinstance(prompt, str)
        if is_text not in ends:
            ends[is_text] = _end_after(prompt, model, tokenizer)
        answer = task.demonstration(problem)
        if not answer.strip():
            raise BontuneError(f"The demonstration of problem {problem.id} is empty: correct or remove the row.")
        if not is_text and answer.startswith(" ") and not answer.startswith("  "):
            answer = answer[1:]  # it parts an answer from the text that it continues; two or more are an indentation
        answer = _closing(task, as_text(prompt, tokenizer), answer) + answer
        tokens = [*_continuation(prompt, prompt_ids, answer, tokenizer), ends[is_text]]
        if len(prompt_ids) + len(tokens) > context:
            raise BontuneError(
                f"The prompt and the demonstration of problem {problem.id} have {len(prompt_ids)} + {len(tokens)} "
                f"tokens, more than the model's context of {context}: shorten or remove the row."
            )
        found[problem.id] = tokens
    return found


def _closing(task: Task, prompt: str, answer: str) -> str:
    """What closes the thought that a prompt opens and an answer leaves open, for graders that look behind thoughts."""
    thoughts = task.thoughts if isinstance(task, HasThoughts) else None
    if thoughts is None or thoughts.answer(thoughts.opened_by(prompt) + answer) is not None:
        return ""
    closing = thoughts.closing_after(prompt)
    return closing and f"{closing}\n\n"


def _continuation(prompt: Prompt, prompt_ids: list[int], answer: str, tokenizer: Any) -> list[int]:
    """Tokens of the answer behind the prompt's tokens, which must stay as they are in sampling."""
    whole = encode_text(tokenizer, as_text(prompt, tokenizer) + answer, prompt)
    if whole[: len(prompt_ids)] == prompt_ids and len(whole) > len(prompt_ids):
        return list(whole[len(prompt_ids) :])
    # The last token of the prompt and the first of the answer have become one.
    return list(tokenizer(answer, add_special_tokens=False)["input_ids"])


def _end_after(prompt: Prompt, model: Any, tokenizer: Any) -> int:
    """The token that ends an answer; in a conversation the one that closes a turn, which need not be the tokenizer's.

    Raises:
        BontuneError: the model and its tokenizer name no end token.
    """
    ends = end_ids(model, tokenizer)
    if not ends:
        raise BontuneError("The model and its tokenizer name no end token: demonstrations cannot be closed.")
    if not isinstance(prompt, str):
        try:
            turns = [as_text(p, tokenizer) for p in (prompt, (*prompt, {"role": "assistant", "content": "x"}))]
        except BontuneError:
            turns = ["", ""]
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in turns)
        closing = next((token for token in after[len(before) :] if token in ends), None)
        if closing is not None:
            return int(closing)
    return int(ends[0] if tokenizer.eos_token_id is None else tokenizer.eos_token_id)
