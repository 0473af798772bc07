"""The format in which a classifier reads a problem and a completion, and its detection from a trainer's files."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bontune.base.errors import BontuneError
from bontune.base.problems import Problem
from bontune.models.chat import render_conversation

ENDS = ("eos", "none")
"""Ends of a text; see :class:`InputFormat`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFormat:
    """The format in which a problem and a completion become one text.

    With a chat template, the text is the conversation (the problem's messages, or its prompt as the user's message)
    with the completion as the assistant's answer; without one, it is prompt, separator and completion.
    """

    separator: str = ""
    """Text between prompt and completion where there is no chat template."""
    use_messages: bool = True
    """Whether to use the problem's conversation if it has one; False for verifiers trained on prompts only."""
    end: str = "none"
    """``eos``: plain text without a chat template, followed by the tokenizer's end token, as TRL's RewardTrainer writes
    texts that are not conversations; ``none``: nothing follows the text."""

    def __post_init__(self) -> None:
        if self.end not in ENDS:
            raise BontuneError(f"The end of a verifier's input must be {' or '.join(ENDS)}, got {self.end!r}.")

    def is_chat(self, tokenizer: Any) -> bool:
        """Return whether the tokenizer's chat template writes the text."""
        return tokenizer.chat_template is not None and self.end != "eos"

    def text(self, problem: Problem, completion: str, tokenizer: Any) -> str:
        """Return the text that the classifier reads.

        Raises:
            BontuneError: the chat template refuses the conversation.
        """
        if not self.is_chat(tokenizer):
            plain = f"{problem.prompt}{self.separator}{completion}"
            has_end = self.end == "none" or completion.endswith(tokenizer.eos_token)
            return plain if has_end else plain + tokenizer.eos_token
        messages = problem.messages if self.use_messages else ()
        turns = [dict(turn) for turn in messages] or [{"role": "user", "content": problem.prompt}]
        try:
            return render_conversation(tokenizer, [*turns, {"role": "assistant", "content": completion}], asks=False)
        except BontuneError as error:
            raise BontuneError(f"The verifier cannot read problem {problem.id}: {error}") from None


def recorded_end(where: str, tokenizer: Any) -> str:
    """Detect the end of the texts that a model was trained on from the files that its trainer left beside it.

    TRL's RewardTrainer writes the end token behind plain texts and not behind conversations. A tokenizer without a
    chat template rules conversations out.

    Warns:
        UserWarning: it was that trainer and the tokenizer has a chat template, so that both are possible.
    """
    if not _is_of_reward_trainer(where):
        return "none"
    if tokenizer.chat_template is None:
        return "eos"
    warnings.warn(
        f"TRL's RewardTrainer trained {where}, and does not record whether on conversations or plain texts; the "
        "tokenizer has a chat template, so conversations are assumed. Set verifier.end=eos (on a command line, #eos "
        "behind the name) if it was plain texts, else verifier.end=none (#none).",
        stacklevel=3,
    )
    return "none"


def is_marked(model: Any) -> bool:
    """Return whether TRL's RewardTrainer has marked a model in memory as its own."""
    return "reward-trainer" in (getattr(model, "model_tags", None) or ())


def _is_of_reward_trainer(where: str) -> bool:
    """Return whether TRL's RewardTrainer, 0.24 or newer, trained a model: the older ones added no end token.

    Its settings are a pickle, whose bytes are searched and never unpickled.
    """
    settings, card = (_contents(where, name) for name in ("training_args.bin", "README.md"))
    if b"trl.trainer.reward_config" in settings:
        return b"eos_token" in settings
    version = re.search(rb"^- TRL: (\d+)\.(\d+)", card, re.MULTILINE)
    is_new = version is not None and (int(version[1]), int(version[2])) >= (0, 24)
    return is_new and re.search(rb"^- reward-trainer\s*$", card, re.MULTILINE) is not None


def _contents(where: str, name: str) -> bytes:
    """Read a small file of a model's folder or of its repository on the hub; empty if there is none."""
    path = file_of(where, name)
    return b"" if path is None or path.stat().st_size > 10**7 else path.read_bytes()


def file_of(where: str, name: str) -> Path | None:
    """Return the path of a file of a model, which is fetched if the model is on the hub; None if there is none."""
    from transformers.utils import cached_file

    if Path(where).is_file():  # a GGUF file, which has nothing beside it
        return None
    path = cached_file(
        where,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if path is None else Path(path)
