"""Two processes that share the prompts of a step train as one does: same metrics, same weights, to rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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
    for name, family, is_tied in (("model", "qwen2", False), ("tied", "gemma2", True)):
        tiny.model(family, sharp=2.0, tie_word_embeddings=is_tied).save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    rows = [{"prompt": letter * (1 + i % 3) + "="} for i, letter in enumerate("abcdefghijklmnop")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text("def low(row, text):\n    return text[:1].islower()\n")
    return folder


def launch(
    folder: Path, how: list[str], run: str, *, threads: int = 1, **sections: Any
) -> subprocess.CompletedProcess[str]:
    started = start(folder, how, run, threads=threads, **sections)
    out, err = started.communicate(timeout=250)
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


def start(folder: Path, how: list[str], run: str, *, threads: int = 1, **sections: Any) -> subprocess.Popen[str]:
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
            "first_step_kl": None,
            "checkpoint_every": 3,
            "device": "cpu",
        },
        "eval": {"every": 3, "k": [1, 4], "samples": 8},
    }
    for name, section in sections.items():
        is_whole = not isinstance(section, dict) or "name" in section
        tree[name] = section if is_whole and name != "objective" else tree.get(name, {}) | section
    (folder / f"{run}.yaml").write_text(yaml.safe_dump(tree))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, *how, "train", f"{run}.yaml"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
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
        {"training": {"lora": {"r": 4, "layers": 1}}, "eval": {"keep": ["pass@4"]}},
        {"objective": {"name": "bon_rl", "draw": "winner"}},
        {"training": {"device": "auto"}},
        {
            "objective": {"name": "bon_rlb", "p_fail": "running", "n": 2},
            "sampling": {"samples": 2},
            "training": {"refill": {"up_to": 2.75}},
        },
        {"training": {"token_budget": 40, "importance": "sequence_truncate"}, "eval": {"keep": ["pass@4"]}},
        {
            "model": "countdown-tiny",
            "task": {"name": "countdown"},
            "verifier": {"name": "reward_model", "path": "countdown-verifier", "refit": {"every": 5, "first": 50}},
            "sampling": {"samples": 8, "max_new_tokens": 20},
            "training": {"prompts_per_step": 64, "lr": 3e-4},
        },
        {"model": "tied", "training": {"gradient_checkpointing": True}},
    ],
    ids=[
        "bon_rl",
        "running p_fail",
        "value head",
        "lora",
        "upper layers",
        "winners",
        "auto",
        "refill",
        "in pieces",
        "refit",
        "tied",
    ],
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


LONG = {"training": {"steps": 60, "checkpoint_every": 3}, "eval": {"every": 0}}
"""Long enough to be met while it runs."""


def wait_for_step(run: Path, step: int) -> None:
    for _ in range(600):
        if (run / "metrics.jsonl").is_file() and len(metrics(run)) >= step:
            return
        time.sleep(0.1)
    raise AssertionError("the run does not get on")


def workers(started: subprocess.Popen[str]) -> list[int]:
    """The processes that train, by rank."""
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    return [int(pid) for pid in children]


@pytest.mark.parametrize(
    ("how", "tolerance", "threads"), [(TWO, 0.0, 2), (ONE, 1e-3, 1)], ids=["two again, of two threads", "one"]
)
def test_a_killed_run_goes_on(folder: Path, how: list[str], tolerance: float, threads: int) -> None:
    """On as many processes bitwise; on another number of them up to the rounding of sums."""
    name = f"killed-{len(how)}"
    whole = launch(folder, TWO, f"{name}-whole", threads=threads, **LONG)
    assert whole.returncode == 0, whole.stderr
    started = start(folder, TWO, f"{name}-part", threads=threads, **LONG)
    wait_for_step(folder / f"{name}-part", 8)
    for pid in [*workers(started), started.pid]:
        os.kill(pid, signal.SIGKILL)
    started.communicate(timeout=60)
    again = launch(folder, how, f"{name}-part", threads=threads, **LONG)
    assert again.returncode == 0, again.stderr
    one, other = (load_file(folder / f"{name}-{part}" / "model" / "model.safetensors") for part in ("whole", "part"))
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor, rtol=0, atol=tolerance)
    steps = [row["step"] for row in metrics(folder / f"{name}-part") if row["kind"] == "step"]
    assert steps == list(range(1, 61)), "each step once"


def test_a_process_that_dies_ends_the_others_with_a_sentence(folder: Path) -> None:
    started = start(folder, TWO, "orphan", **LONG)
    wait_for_step(folder / "orphan", 4)
    os.kill(workers(started)[1], signal.SIGKILL)
    _, err = started.communicate(timeout=90)
    assert started.returncode != 0
    assert "error: Another of the 2 processes of this run has ended" in err
    again = launch(folder, TWO, "orphan", **LONG)
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in metrics(folder / "orphan") if row["kind"] == "step"] == list(range(1, 61))


def test_accelerates_own_sharding_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    done = launch(folder, ONE, "fsdp")
    assert done.returncode != 0
    assert "leave that out of accelerate's settings, or train large models inside TRL or verl" in done.stderr
