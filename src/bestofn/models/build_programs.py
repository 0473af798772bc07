"""Train the tiny base model of the programs task: ``python -m bestofn.models.build_programs OUT``.

A Llama of about 164,000 parameters over pieces of Python, trained on functions that fit random examples; they come from
the task's grammar, with other weights. That makes a base model that is good but unsure: it rarely finds the hidden
function at the first attempt and often within some dozens, which is what fine-tuning for Best-of-N needs. Validation
and test behaviours (of task seed 0) never appear. The result is a plain Hugging Face folder.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from bestofn.tasks.programs import demonstrations, held_out_behaviours
from bestofn.tasks.programs_grammar import DEMONSTRATION

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = "0123456789"
PIECES = (
    *(f",{digit}" for digit in DIGITS), *DIGITS,
    "cut", "sort", "unique", "reverse", "change", "keep", "pairs", "join", "measure", "combine", " ",
    ":f([", "f([", "])=", ";", "f(x)=",
    " for v in ", " if ", " for a,b in zip(x,",
    "sorted(", "set(", "sum(", "max(", "min(", "len(", "abs(", "[::-1]",
    "x", "v", "a", "b", *"[](),:+-*%<>=!",
)  # fmt: skip
PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
MAX_COMPLETION_TOKENS = 32
"""Longest demonstration (24 tokens) and the end token, with room for more."""
CONTEXT = 128
NO_LOSS = -100
FIRST_SHARE = 0.1
"""Share of the steps, the first ones, that see programs of one operation only."""
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


def build_model(tokenizer: Any, seed: int) -> Any:
    """A fresh Llama: 3 layers, width 64, 4 heads. Seeds torch's global generator."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=180,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        dtype="float32",
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=MAX_COMPLETION_TOKENS, **special
    )
    return model


def train(model: Any, tokenizer: Any, *, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """AdamW on the mean cross-entropy of the completion and its end token; cosine decay after 50 steps of warm-up."""
    import torch

    rng, held_out = Random(f"demonstrations {seed}"), held_out_behaviours()
    first = demonstrations(rng, held_out, replace(DEMONSTRATION, operations={1: 1}))
    num_first = int(FIRST_SHARE * steps) // WINDOW * WINDOW * batch_size
    examples = chain(islice(first, num_first), demonstrations(rng, held_out))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    model.train()
    start = time.monotonic()
    for step, (ids_BT, labels_BT) in enumerate(_batches(examples, tokenizer, steps, batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        # Padding is on the right here, where causal attention cannot see it: no attention mask is needed.
        loss = model(input_ids=ids_BT, labels=labels_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - start:6.1f} s", flush=True)
    model.eval()


def _batches(
    examples: Iterator[tuple[str, str]], tokenizer: Any, steps: int, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and labels, both (batch, longest of the batch); labels mask the prompt and the padding.

    Batches are cut from windows of demonstrations sorted by length, which halves the padding, in random order.
    """
    import torch

    order = Random("order of batches")
    for first in range(0, steps, WINDOW):
        prompts, completions = zip(*islice(examples, WINDOW * batch_size), strict=True)
        prompt_ids = tokenizer(list(prompts))["input_ids"]
        completion_ids = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(completions))["input_ids"]]
        rows = sorted(zip(prompt_ids, completion_ids, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        for _ in range(min(WINDOW, steps - first)):
            batch = batches.pop(int(order.random() * len(batches)))
            longest = max(len(p) + len(c) for p, c in batch)
            ids_BT = torch.full((batch_size, longest), tokenizer.pad_token_id)
            labels_BT = torch.full((batch_size, longest), NO_LOSS)
            for row, (p, c) in enumerate(batch):
                ids_BT[row, : len(p) + len(c)] = torch.tensor(p + c)
                labels_BT[row, len(p) : len(p) + len(c)] = torch.tensor(c)
            yield ids_BT, labels_BT


def main(arguments: list[str] | None = None) -> None:
    """Build, train and save."""
    parser = argparse.ArgumentParser(description="Train the tiny base model of the programs task.")
    parser.add_argument("out", type=Path, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=2400, help="training steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="demonstrations a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and demonstrations (default: %(default)s)")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)  # sums in a fixed order: the same model from the same seed on the same machine
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, options.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, tokenizer, steps=options.steps, batch_size=options.batch_size, lr=options.lr, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"saved to {options.out}")


if __name__ == "__main__":
    main()
