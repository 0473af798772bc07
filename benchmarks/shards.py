"""Peak memory of each of two processes that train one model, with a whole policy each and with a policy in parts.

python benchmarks/shards.py --hidden 1024 --layers 12
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from bontune.models import load_model

TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bontune"]


def peaks_of(command: list[str], folder: Path) -> list[int]:
    """Run a command; returns the largest resident memory, in bytes, of each process that it started, least first."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)
    peaks: dict[int, int] = {}
    while started.poll() is None:
        for pid in _children(started.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                peaks[pid] = 1024 * int(found[1])
        time.sleep(0.05)
    if started.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {started.returncode}")
    return sorted(peaks.values())


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def main() -> None:
    """Train by turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=1024, help="width of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=12, help="number of its layers (default: %(default)s)")
    given = parser.parse_args()
    _, tokenizer = load_model("countdown-tiny")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=given.hidden,
        intermediate_size=4 * given.hidden,
        num_hidden_layers=given.layers,
        num_attention_heads=given.hidden // 64,
    )
    model = LlamaForCausalLM(config)
    num_parameters = sum(p.numel() for p in model.parameters())
    print(f"{num_parameters / 1e6:.0f} M parameters\n")
    print("| | GB | bytes per parameter | GB, the one that writes |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        del model
        for way, is_sharded in (("whole", False), ("in parts", True)):
            settings = {
                "model": "model",
                "run": way,
                "objective.n": 2,
                "sampling.samples": 4,
                "training.steps": 3,
                "training.prompts_per_step": 2,
                "training.token_budget": 256,
                "training.shard": str(is_sharded).lower(),
                "training.device": "cpu",
                "eval.every": 0,
            }
            overrides = [f"{key}={value}" for key, value in settings.items()]
            one, writer = peaks_of([*TWO, "train", "countdown", *overrides], folder)
            print(f"| {way} | {one / 1e9:.2f} | {one / num_parameters:.1f} | {writer / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
