"""Train the tiny base model of the Countdown task: ``python tools/build_countdown OUT``.

A Llama of about 156,000 parameters over single characters, trained on correct answers to random prompts whose operators
are distributed otherwise than the task's. That makes a base model that is good but unsure: it rarely solves a problem
at the first attempt and often within some dozens, which is what fine-tuning for Best-of-N needs. Validation and test
problems (of task seed 0) never appear. The result is a plain Hugging Face folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any

from countdown_problems import demonstrations, held_out_keys
from tiny_llama import END, PAD, UNKNOWN, as_batch, build_command, build_llama, encode, fit

if TYPE_CHECKING:
    from torch import Tensor

CHARACTERS = "0123456789+-*(),:="
MAX_COMPLETION_TOKENS = 24
"""Longest demonstration (15 characters) and the end token, with room for redundant parentheses."""


def build_tokenizer() -> Any:
    """One token a character, decoded without spaces; no beginning token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *CHARACTERS])}
    characters = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    characters.pre_tokenizer = Split(Regex(r"[\s\S]"), behavior="isolated")
    characters.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=characters,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Any, seed: int, width: int = 64) -> Any:
    """A fresh Llama; see :func:`tiny_llama.build_llama`."""
    return build_llama(tokenizer, seed, context=64, max_new_tokens=MAX_COMPLETION_TOKENS, width=width)


def train(model: Any, tokenizer: Any, *, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """On demonstrations; see :func:`tiny_llama.fit`."""
    examples = demonstrations(Random(f"demonstrations {seed}"), exclude=held_out_keys())
    fit(model, _batches(examples, tokenizer, steps, batch_size), steps=steps, lr=lr)


def _batches(
    examples: Iterator[tuple[str, str]], tokenizer: Any, steps: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(steps):
        yield as_batch(encode(tokenizer, islice(examples, batch_size)), tokenizer.pad_token_id)


def main(arguments: list[str] | None = None) -> None:
    """Build, train and save."""
    build_command(
        arguments,
        task="Countdown",
        steps=700,
        batch_size=256,
        lr=2e-3,
        build_tokenizer=build_tokenizer,
        build_model=build_model,
        train=train,
    )


if __name__ == "__main__":
    main()
