"""Train the tiny base model of the programs task: ``python tools/build_programs OUT``.

A Llama of about 162,000 parameters over pieces of Python, trained on functions that fit random examples; they come from
the task's grammar, with other weights, at last with a strong preference for a few common operations. That makes a base
model that is good but unsure: it rarely finds the hidden function at the first attempt, often within some dozens, and
writes too much of what is common. That is what fine-tuning for Best-of-N needs. Validation and test behaviours (of task
seed 0) never appear. The result is a plain Hugging Face folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from random import Random
from typing import TYPE_CHECKING, Any

from programs_grammar import DEMONSTRATION, HABITS
from programs_problems import demonstrations, held_out_behaviours
from tiny_llama import END, PAD, UNKNOWN, as_batch, build_command, build_llama, encode, fit

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = "0123456789"
PIECES = (
    *(f",{digit}" for digit in DIGITS),
    *DIGITS,
    "cut",
    "sort",
    "unique",
    "reverse",
    "keep",
    "pairs",
    "join",
    "measure",
    "combine",
    "add",
    "from",
    "times",
    "rest",
    "limit",
    " ",
    ":f([",
    "f([",
    "])=",
    ";",
    "f(x)=",
    " for v in ",
    " if ",
    " for a,b in zip(x,",
    "sorted(",
    "set(",
    "sum(",
    "max(",
    "min(",
    "len(",
    "abs(",
    "[::-1]",
    "x",
    "v",
    "a",
    "b",
    *"[](),:+-*%<>=!",
)
MAX_COMPLETION_TOKENS = 32
"""Longest demonstration (24 tokens) and the end token, with room for more."""
CONTEXT = 128
FIRST_SHARE = 0.1
"""Share of the steps before the last ones, the first of these, that see programs of one operation only."""
LAST_SHARE = 1 / 19
"""Share of the steps, the last ones, that see a few habits over and over: they shift what the model prefers and leave
what it is able to write, as fine-tuning on one style does."""
WINDOW = 16
"""Batches in which demonstrations are sorted by length."""


def build_tokenizer() -> Any:
    """One token a piece of Python; whatever is no piece is unknown, character by character."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *PIECES])}
    alternatives = "|".join(re.escape(piece) for piece in sorted(PIECES, key=len, reverse=True))
    pieces = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    pieces.pre_tokenizer = Split(Regex(rf"{alternatives}|[\s\S]"), behavior="isolated")
    pieces.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Any, seed: int, width: int = 64) -> Any:
    """A fresh Llama; see :func:`tiny_llama.build_llama`."""
    return build_llama(tokenizer, seed, context=CONTEXT, max_new_tokens=MAX_COMPLETION_TOKENS, width=width)


def train(model: Any, tokenizer: Any, *, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """On demonstrations, then on those of a few habits; see :func:`tiny_llama.fit`."""
    rng, held_out = Random(f"demonstrations {seed}"), held_out_behaviours()
    num_last = round(LAST_SHARE * steps)
    num_before = steps - num_last
    first = demonstrations(rng, held_out, replace(DEMONSTRATION, operations={1: 1}))
    num_first = int(FIRST_SHARE * num_before) // WINDOW * WINDOW * batch_size
    examples = chain(islice(first, num_first), demonstrations(rng, held_out))
    fit(model, _batches(examples, tokenizer, num_before, batch_size), steps=num_before, lr=lr)
    habits = demonstrations(Random(f"habits {seed}"), held_out, HABITS)
    fit(model, _batches(habits, tokenizer, num_last, batch_size), steps=num_last, lr=lr / 3)


def _batches(
    examples: Iterator[tuple[str, str]], tokenizer: Any, steps: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches cut from windows of demonstrations sorted by length, which halves the padding, in random order."""
    order = Random("order of batches")
    for first in range(0, steps, WINDOW):
        rows = sorted(
            encode(tokenizer, islice(examples, WINDOW * batch_size)), key=lambda row: len(row[0]) + len(row[1])
        )
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        for _ in range(min(WINDOW, steps - first)):
            batch = batches.pop(int(order.random() * len(batches)))
            yield as_batch(batch, tokenizer.pad_token_id)


def main(arguments: list[str] | None = None) -> None:
    """Build, train and save."""
    build_command(
        arguments,
        task="programs",
        steps=3800,
        batch_size=128,
        lr=3e-3,
        build_tokenizer=build_tokenizer,
        build_model=build_model,
        train=train,
    )


if __name__ == "__main__":
    main()
