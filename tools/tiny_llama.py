"""What the scripts share that build the embedded base models: a tiny Llama, and its training on demonstrations."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
NO_LOSS = -100


def build_llama(tokenizer: Any, seed: int, *, context: int, max_new_tokens: int, width: int = 64) -> Any:
    """A fresh Llama: 3 layers, heads of 16. Seeds torch's global generator."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 45 // 16,
        num_hidden_layers=3,
        num_attention_heads=width // 16,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        dtype="float32",
        **special,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=max_new_tokens, **special
    )
    return model


def encode(tokenizer: Any, examples: Iterable[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Token ids of prompts and completions, the end token behind each completion."""
    prompts, completions = zip(*examples, strict=True)
    prompt_ids = tokenizer(list(prompts))["input_ids"]
    completion_ids = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(completions))["input_ids"]]
    return list(zip(prompt_ids, completion_ids, strict=True))


def as_batch(rows: Sequence[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both (batch, longest of the batch); labels mask the prompt and the padding."""
    import torch

    longest = max(len(p) + len(c) for p, c in rows)
    ids_BT = torch.full((len(rows), longest), pad)
    labels_BT = torch.full((len(rows), longest), NO_LOSS)
    for row, (p, c) in enumerate(rows):
        ids_BT[row, : len(p) + len(c)] = torch.tensor(p + c)
        labels_BT[row, len(p) : len(p) + len(c)] = torch.tensor(c)
    return ids_BT, labels_BT


def fit(model: Any, batches: Iterable[tuple[Tensor, Tensor]], *, steps: int, lr: float) -> None:
    """AdamW on the mean cross-entropy of the completion and its end token; cosine decay after 50 steps of warm-up."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.01)
    model.train()
    start = time.monotonic()
    for step, (ids_BT, labels_BT) in enumerate(batches):
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


def build_command(
    arguments: list[str] | None,
    *,
    task: str,
    steps: int,
    batch_size: int,
    lr: float,
    build_tokenizer: Callable[[], Any],
    build_model: Callable[..., Any],
    train: Callable[..., None],
) -> None:
    """The command line of a build script: build, train and save.

    Args:
        arguments: of the command line; None: of this process.
        task: what the model is for.
        steps, batch_size, lr: defaults.
        build_tokenizer, build_model, train: the parts; see ``build_countdown``.
    """
    parser = argparse.ArgumentParser(description=f"Train the tiny base model of the {task} task.")
    parser.add_argument("out", type=Path, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=steps, help="training steps (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help="demonstrations a step (default: %(default)s)"
    )
    parser.add_argument("--lr", type=float, default=lr, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and demonstrations (default: %(default)s)")
    options = parser.parse_args(arguments)

    import torch

    torch.set_num_threads(1)  # sums in a fixed order: the same model from the same seed on the same machine
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, options.seed, options.width)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, tokenizer, steps=options.steps, batch_size=options.batch_size, lr=options.lr, seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    print(f"saved to {options.out}")
