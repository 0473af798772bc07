"""The same training with two engines: ours and vLLM; their curves in one picture.

    .venv-vllm/bin/python benchmarks/engine_curves.py docs/pictures/engine_curves.png

A small model with random weights (two layers, heads of 32, since vLLM's build for CPUs takes no smaller ones) learns to
write the letter that it is asked for: 20 steps of 8 prompts × 16 samples by RLOO, from the same weights, with two seeds
for each engine. The samples of the two engines differ, since vLLM has random numbers of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.lines import Line2D
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from bontune import Recipe, Trainer, task_from_rows
from bontune.report.figure import Plot, margins, new, styled
from bontune.report.run_figures import PANELS, describe_runs, draw_panel
from bontune.report.style import Look

STYLES = (("transformers", "-"), ("vllm", "--"))
CHARACTERS = "abcdefghijklmnopqrstuvwxyz :"


def main() -> None:
    """Train four times, draw the curves, and print where they end."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for engine in ("transformers", "vllm"):
        for seed in (0, 1):
            with tempfile.TemporaryDirectory() as folder:
                rows[f"{engine}, seed {seed}"] = train(Path(folder), engine, seed)
    draw(rows).save(sys.argv[1])
    for name, steps in rows.items():
        last = steps[-5:]
        reward = sum(row["reward"] for row in last) / 5
        ratio = max((abs(row["ratio"] - 1) for row in steps if "ratio" in row), default=0.0)
        print(f"{name}: reward {steps[0]['reward']:.3f} → {reward:.3f} (last five steps), |ratio − 1| ≤ {ratio:.1e}")


@styled()
def draw(rows: dict[str, list[dict[str, Any]]]) -> Plot:
    """Draw reward and entropy of each run, an engine in a colour and a stroke."""
    look = {name: Look(colour="#c75000" if "transformers" in name else "#0072b2", marker="o") for name in rows}
    figure = new(7.2, 3.0)
    for axes, field in zip(figure.subplots(1, 2, gridspec_kw={"wspace": 0.22}), ("reward", "entropy"), strict=True):
        draw_panel(axes, next(panel for panel in PANELS if panel.field == field), rows, look)
        axes.set_xlabel("training step")
        for line in axes.get_lines():
            line.set_linestyle("--" if look["vllm, seed 0"].colour == line.get_color() else "-")
    handles = [
        Line2D([], [], color=look[f"{engine}, seed 0"].colour, label=engine, linestyle=style)
        for engine, style in STYLES
    ]
    figure.axes[0].legend(handles=handles)
    margins(figure, right=0.15, top=0.36, bottom=0.5)
    return Plot(figure=figure, title="Two engines", description=describe_runs(rows))


def train(folder: Path, engine: str, seed: int) -> list[dict[str, Any]]:
    """One training; its rows in ``metrics.jsonl``."""
    recipe = Recipe.from_dict(
        {
            "objective": {"name": "rloo", "n": 1},
            "engine": {"name": engine},
            "sampling": {"samples": 16, "max_new_tokens": 6},
            "training": {"steps": 20, "prompts_per_step": 8, "lr": 6e-3, "warmup": 2, "device": "cpu"},
            "kl": {"start": 0.0, "end": 0.0},
            "eval": {"every": 0},
            "seed": seed,
            "run": str(folder / "run"),
        }
    )
    rows = [{"id": letter, "prompt": f"say {letter}:", "answer": letter} for letter in "abcdefgh"]
    task = task_from_rows({"train": rows, "test": rows}, lambda row, text: row["answer"] in text, name="letters")
    Trainer(recipe, task=task, model=model(), tokenizer=tokenizer(), is_quiet=True).train()
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "step"]


def model() -> Any:
    """A model with random weights whose distribution is not flat."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(CHARACTERS) + 3,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each character."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


if __name__ == "__main__":
    main()
