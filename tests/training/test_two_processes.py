"""Two processes that share the prompts of a step train as one does: same metrics, same weights, to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiny

pytestmark = pytest.mark.slow
ONE = ["-m", "bontune"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "bontune"]
"""Not `accelerate launch --cpu --num_processes 2`: without MPI that starts a single process, and says nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    tiny.model(sharp=2.0).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    rows = [{"prompt": letter * (1 + i % 3) + "="} for i, letter in enumerate("abcdefghijklmnop")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text("def low(row, text):\n    return text[:1].islower()\n")
    return folder


def launch(folder: Path, how: list[str], run: str, **sections: Any) -> subprocess.CompletedProcess[str]:
    tree = {
        "model": "model",
        "run": run,
        "task": {"name": "jsonl", "data": "rows.jsonl", "grader": "mine.py:low", "hold_out": 0.25},
        "objective": {"n": 4},
        "sampling": {"samples": 8, "max_new_tokens": 4},
        "training": {
            "steps": 6,
            "prompts_per_step": 4,
            "lr": 0.01,
            "warmup": 0,
            "checkpoint_every": 3,
            "device": "cpu",
        },
        "eval": {"every": 3, "k": [1, 4], "samples": 8},
    }
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    (folder / f"{run}.yaml").write_text(yaml.safe_dump(tree))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *how, "train", f"{run}.yaml"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def flat(row: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, (int, float)) and k != "tokens_per_s"} | row.get(
        "metrics", {}
    )


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"name": "bon_rlbp", "p_fail": "running"}},
        {"objective": {"name": "bon_rlb", "p_fail": "value_head"}, "training": {"value_lr": 0.01}},
        {"training": {"lora": {"r": 4}}},
        {"objective": {"name": "bon_rl", "draw": "winner"}},
        {"training": {"device": "auto"}},
        {
            "objective": {"name": "bon_rlb", "p_fail": "running", "n": 2},
            "sampling": {"samples": 2},
            "training": {"refill": {"up_to": 2.75}},
        },
    ],
    ids=["bon_rl", "running p_fail", "value head", "lora", "winners", "auto", "refill"],
)
def test_two_processes_are_one(folder: Path, sections: dict[str, Any], request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id.replace(" ", "-")
    runs = []
    for how, label in ((ONE, "one"), (TWO, "two")):
        done = launch(folder, how, f"{name}-{label}", **sections)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("holds the model") == 1
        runs.append(folder / f"{name}-{label}")
    rows_of_one, rows_of_two = map(metrics, runs)
    assert len(rows_of_one) == len(rows_of_two) == 6 + 3
    for one, two in zip(rows_of_one, rows_of_two, strict=True):
        assert (one["kind"], one["step"]) == (two["kind"], two["step"])
        assert flat(two) == pytest.approx(flat(one), rel=1e-4, abs=1e-4)
    one_weights, two_weights = (load_file(run / "model" / "model.safetensors") for run in runs)
    start = load_file(folder / "model" / "model.safetensors")
    assert any(not torch.equal(tensor, start[key]) for key, tensor in one_weights.items()), "it trained"
    for key, tensor in one_weights.items():
        torch.testing.assert_close(two_weights[key], tensor, rtol=0, atol=1e-4)
    assert (runs[0] / "summary.json").read_text() == (runs[1] / "summary.json").read_text()


def test_prompts_that_cannot_be_shared_out_evenly_are_refused(folder: Path) -> None:
    done = launch(folder, TWO, "odd", training={"prompts_per_step": 3})
    assert done.returncode != 0
    assert "error: training.prompts_per_step = 3 must be a multiple of the 2 processes." in done.stderr
    assert not (folder / "odd").exists()
