"""A trained verifier inside training: it selects, and a run that is taken up again ends bitwise equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from bontune.config import load_recipe
from bontune.training.trainer import Trainer

SMALL = (
    "training.device=cpu",
    "training.prompts_per_step=4",
    "sampling.samples=8",
    "objective.n=4",
    "training.warmup=1",
    "training.first_step_kl=null",
    "training.steps=4",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=4",
    "eval.problems=4",
    "eval.samples=8",
    "eval.k=[1,4]",
    "eval.every=2",
)


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timing = ("seconds", "tokens_per_s", "time", "at")
    return [{k: v for k, v in row.items() if k not in timing} for row in found]


def test_a_run_with_the_shipped_verifier_resumes_bitwise(tmp_path: Path) -> None:
    whole, again = tmp_path / "whole", tmp_path / "again"
    Trainer(load_recipe("countdown-bon-rl-v", [*SMALL, f"run={whole}"]), is_quiet=True).train()
    shutil.copytree(whole, again)
    for step in (3, 4):
        shutil.rmtree(again / "checkpoints" / f"step_{step:06d}")
    shutil.rmtree(again / "model")
    Trainer(load_recipe(str(again)), is_quiet=True).train()
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, again))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.equal(second[name]), name
    assert rows(whole) == rows(again)
    steps = [row for row in rows(whole) if "best_of_n" in row]
    assert any(row["best_of_n"] < row["pass_at_n"] for row in steps), "the verifier selects, and not as the oracle does"
    evaluation = next(row["metrics"] for row in rows(whole) if "metrics" in row)
    assert evaluation["gap@4"] >= 0
