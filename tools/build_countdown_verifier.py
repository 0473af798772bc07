"""Train the verifier of the Countdown task: ``python tools/build_countdown_verifier OUT``.

First a Llama of about 160,000 parameters over whole numbers and single signs learns to calculate: after every part of
an expression that is one itself, how much is missing to the target. Then the package's own commands do the rest:
``bontune sample`` draws completions of ``countdown-tiny`` on training problems, and ``bontune verify fit`` turns the
calculator into a verifier. From outcomes alone a model of this size learns next to nothing in this time.

Validation and test problems (of task seed 0) never appear. The result is a plain Hugging Face folder.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from countdown_problems import MAX_TARGET, demonstrations, held_out_keys
from tiny_llama import END, NO_LOSS, PAD, UNKNOWN

from bontune.tasks.countdown import ExpressionError, evaluate, format_prompt

if TYPE_CHECKING:
    from torch import Tensor

SIGNS = "+-*(),:="
NOTHING_MISSING = 50
"""The number that stands for a value equal to the target; 51 says that 1 is missing, 49 that it is 1 too much."""
SHARE_RIGHT, SHARE_NEAR, NEAR = 0.25, 0.6, 15
"""Of the targets that are the expression's value, and that are at most so far from it; the rest is anywhere."""
PARTS = re.compile(r"[0-9]+|[^0-9]")


def build_tokenizer() -> Any:
    """One token a number of 0 to 99, one a sign; no beginning token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    tokens = [PAD, END, UNKNOWN, *SIGNS, *map(str, range(MAX_TARGET + 1))]
    words = Tokenizer(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN))
    words.pre_tokenizer = Split(Regex(PARTS.pattern), behavior="isolated")
    words.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=64,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: Any, seed: int) -> Any:
    """A fresh Llama: 3 layers, width 64, 4 heads. Seeds torch's global generator."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=180,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        use_cache=False,
        dtype="float32",
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train_calculator(model: Any, tokenizer: Any, *, steps: int, batch_size: int, lr: float, seed: int) -> None:
    """AdamW on the cross-entropy of what is missing; constant rate after a warm-up, linear decay over the last 40 %."""
    import torch
    from torch.nn.functional import cross_entropy

    examples = exercises(tokenizer, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    start = time.monotonic()
    for step in range(steps):
        ids_BT, labels_BT = _padded(list(islice(examples, batch_size)), tokenizer.pad_token_id)
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 50, 1.0, max(0.02, (1 - step / steps) / 0.4))
        # Padding is on the right here, where causal attention cannot see it: no attention mask is needed.
        logits_BTV = model(input_ids=ids_BT).logits
        loss = cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=NO_LOSS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - start:6.1f} s", flush=True)
    model.eval()


def exercises(tokenizer: Any, seed: int = 0) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids and labels without end: random prompts and expressions over their numbers, right or not.

    The label of a token is what is missing to the target after it, where what stands there is an expression.

    >>> tokenizer = build_tokenizer()
    >>> ids, labels = next(exercises(tokenizer))
    >>> tokenizer.decode(ids)
    '3,9,12,1:12=12+1+9+3'
    >>> [tokenizer.decode([label]) for label in labels if label != NO_LOSS]
    ['50', '49', '40', '37']
    """
    rng, targets = Random(f"calculator {seed}"), Random(f"targets {seed}")
    vocabulary = tokenizer.get_vocab()
    unknown, held_out = vocabulary[UNKNOWN], held_out_keys()
    for prompt, expression in demonstrations(rng, exclude=held_out):
        value = _value(expression)
        assert value is not None, "a demonstration is an expression"
        kind = targets.random()
        if kind < SHARE_RIGHT:
            target = value
        elif kind < SHARE_RIGHT + SHARE_NEAR:
            target = min(max(value - NEAR + int(targets.random() * (2 * NEAR + 1)), 1), MAX_TARGET)
        else:
            target = 1 + int(targets.random() * MAX_TARGET)
        numbers = [int(number) for number in prompt.partition(":")[0].split(",")]
        if (tuple(sorted(numbers)), target) in held_out:
            continue
        ids = list(tokenizer(format_prompt(numbers, target))["input_ids"])
        labels = [NO_LOSS] * len(ids)
        text = ""
        for part in PARTS.findall(expression):
            text += part
            value = _value(text) if part.isdigit() or part == ")" else None
            ids.append(vocabulary[part])
            labels.append(NO_LOSS if value is None else vocabulary.get(str(target - value + NOTHING_MISSING), unknown))
        yield ids, labels


def _value(text: str) -> int | None:
    """Of an expression; None of anything else, such as one whose parenthesis is still open."""
    try:
        return evaluate(text).value
    except ExpressionError:
        return None


def _padded(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both (rows, longest)."""
    import torch

    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    return ids_BT, torch.tensor([labels + [NO_LOSS] * (longest - len(labels)) for _, labels in rows])


def run_command(folder: Path, *arguments: object) -> None:
    """Run a command of this package in a folder, on one thread of the CPU."""
    print("$ bontune", *arguments, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-m", "bontune", *map(str, arguments)], cwd=folder, check=True, env=environment)


def main(arguments: list[str] | None = None) -> None:
    """Build the calculator, draw the pool, fit the verifier."""
    parser = argparse.ArgumentParser(description="Train the verifier of the Countdown task.")
    parser.add_argument("out", type=Path, help="folder to write the verifier to")
    parser.add_argument("--steps", type=int, default=2400, help="steps of the calculator (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=128, help="exercises a step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak rate of the calculator (default: %(default)s)")
    parser.add_argument("--problems", type=int, default=1500, help="training problems (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=64, help="completions of each (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=1, help="of the fit (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder to keep calculator and pool in, for another fit")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        build(options, options.work or Path(name))
    print(f"saved to {options.out}")


def build(options: argparse.Namespace, work: Path) -> None:
    """The three steps; calculator and pool are taken from ``work`` if they are there."""
    if not (work / "calculator").exists():
        import torch

        torch.set_num_threads(1)  # sums in a fixed order: the same model from the same seed on the same machine
        tokenizer = build_tokenizer()
        model = build_model(tokenizer, options.seed)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
        train_calculator(
            model, tokenizer, steps=options.steps, batch_size=options.batch_size, lr=options.lr, seed=options.seed
        )
        model.save_pretrained(work / "calculator")
        tokenizer.save_pretrained(work / "calculator")
    if not (work / "pool.parquet").exists():
        run_command(
            work,
            "sample",
            "countdown-tiny",
            "countdown",
            "--split",
            "train",
            "--limit",
            options.problems,
            "--samples",
            options.samples,
            "--seed",
            options.seed,
            "--out",
            "pool.parquet",
        )
    shutil.rmtree(work / "verifier", ignore_errors=True)
    run_command(
        work,
        "verify",
        "fit",
        "pool.parquet",
        "--model",
        "calculator",
        "--out",
        "verifier",
        "--evaluations",
        "4",
        "--epochs",
        options.epochs,
        "--batch-size",
        "256",
        "--lr",
        "1e-3",
        "--seed",
        options.seed,
    )
    shutil.copytree(work / "verifier", options.out, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
