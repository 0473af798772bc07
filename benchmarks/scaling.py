"""What a step costs as samples, prompts, completions and the vocabulary grow, beside the arithmetic it must do.

    python benchmarks/scaling.py --out benchmarks/results/scaling.json

A Qwen2 of 4 layers (4.2 million parameters without embeddings, random weights), one prompt a step, every sample
weighted, the KL on all samples, float32, one pinned core, each point in a process of its own. Seconds are the process's
own. "GFLOP" is what the matrix products of a step need at least: prompt once, each token of each sample, in sampling
(forward), update (forward, backward) and reference (forward), with the output layer where a token is predicted, and
attention.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import vs_trl

HIDDEN, INNER, LAYERS, HEADS = 256, 1024, 4, 4
USUAL = {"samples": 32, "prompt": 256, "new": 32, "vocabulary": 8192}
GRID = {
    "samples": [4, 8, 16, 32, 64, 128, 256],
    "prompt": [64, 128, 256, 512, 1024, 2048],
    "new": [8, 16, 32, 64, 128, 256],
    "vocabulary": [8192, 32_768, 131_072, 262_144],
}


def main() -> None:
    """Measure every point of the grid, and print a table for each axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=GRID, default=list(GRID), help="default: all")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a point, after one (default: %(default)s)")
    parser.add_argument("--core", type=int, default=0, help="the core that everything runs on")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(json.loads(given.worker))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in given.axes:
        found[axis] = []
        for value in GRID[axis]:
            point = USUAL | {axis: value}
            done = subprocess.run(
                [sys.executable, __file__, "--worker", json.dumps(point | {"steps": given.steps, "core": given.core})],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"},
            )
            found[axis].append(point | json.loads(done.stdout.splitlines()[-1]))
            print(f"{axis} = {value}: {found[axis][-1]['seconds']:.2f} s/step", file=sys.stderr)
        print(table(axis, found[axis]), flush=True)
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def worker(point: dict[str, Any]) -> None:
    """One point; prints its result as the last line."""
    os.sched_setaffinity(0, {point["core"]})
    import torch

    torch.set_num_threads(1)
    case = vs_trl.Case(
        title="",
        model="scaling",
        num_prompts=1,
        num_samples=point["samples"],
        max_new_tokens=point["new"],
        longest_prompt=point["prompt"],
        objective="rloo",
        reward="graded",
    )
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), point["vocabulary"])
        arguments = {"warmup": 1, "steps": point["steps"], "micro_batches": 1}
        run = vs_trl.run_bontune(case, folder, arguments, 1.0)
    print(json.dumps({"seconds": statistics.median(run["cpu_seconds"]), "mib": run["step_mib"], "gflop": gflop(point)}))


def make_model(folder: Path, vocabulary: int) -> None:
    """Write the model, with the tokenizer of whole words."""
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    with tempfile.TemporaryDirectory() as other:
        vs_trl.build_large(Path(other))
        PreTrainedTokenizerFast.from_pretrained(other, padding_side="left").save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def gflop(point: dict[str, Any]) -> float:
    """The matrix products of a step, in 1e9 operations."""
    body = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)
    tokens = point["samples"] * point["new"]
    times = 1 + 3 + 1  # sampling; the update forward and twice that backward; the reference
    seen = tokens * (point["prompt"] + point["new"] / 2) + point["prompt"] ** 2 / 2  # pairs that attend
    attention = 2 * LAYERS * HIDDEN * seen
    return 2 * times * (body * (tokens + point["prompt"]) + HIDDEN * point["vocabulary"] * tokens + attention) / 1e9


def table(axis: str, rows: list[dict[str, Any]]) -> str:
    """Seconds, memory and arithmetic of an axis, each also over its value at the first point."""
    lines = [f"| {axis} | s/step | × | GFLOP | × | GFLOP/s | step memory, MiB |", "|---:|" + "---:|" * 6]
    first = rows[0]
    for row in rows:
        lines.append(
            f"| {row[axis]} | {row['seconds']:.2f} | {row['seconds'] / first['seconds']:.1f} | {row['gflop']:.1f} | "
            f"{row['gflop'] / first['gflop']:.1f} | {row['gflop'] / row['seconds']:.0f} | {row['mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
