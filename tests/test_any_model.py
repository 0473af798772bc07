"""Any model, any data: GSM8K rows and a Gemma 2 that nothing here was made for, by the commands alone."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

import tiny
from bontune.models import load_model
from bontune.pools.read import read_pool
from commands import run_many

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k_train.jsonl.gz"
NUM_ROWS = 40


def bontune(folder: Path, *arguments: str) -> str:
    (done,) = run_many(folder, [[*arguments]])
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: their model, their rows, their Python."""
    if not GSM8K.is_file():
        pytest.skip(f"GSM8K is not in {GSM8K}")
    folder = tmp_path_factory.mktemp("user")
    # Prompts are longer than the sliding window of 6; the vocabulary is characters, of which some are unknown.
    tiny.model("gemma2", sharp=2.0, max_position_embeddings=2048).save_pretrained(folder / "gemma")
    tiny.tokenizer().save_pretrained(folder / "gemma")
    with gzip.open(GSM8K, "rt", encoding="utf-8") as file, open(folder / "gsm8k.jsonl", "w", encoding="utf-8") as out:
        out.writelines(line for _, line in zip(range(NUM_ROWS), file, strict=False))
    (folder / "mine.py").write_text(
        "import re\n\n"
        "def reward(row, completion):\n"
        "    assert row['question'] and row['answer']\n"
        "    return len(re.findall('[a-z]', completion)) / 8\n\n"
        "def judge(problem, completion):\n"
        "    assert problem.prompt.startswith('Q: ')\n"
        "    return -len(completion)\n"
    )
    return folder


def train(folder: Path, run: str, task: str, *more: str) -> list[dict[str, Any]]:
    bontune(
        folder,
        "train",
        "countdown",
        "model=gemma",
        f"run={run}",
        f"task={task}",
        "objective.n=4",
        "eval.k=[1, 4]",
        "sampling.samples=6",
        "sampling.max_new_tokens=8",
        "training.steps=2",
        "training.prompts_per_step=4",
        "training.warmup=0",
        "training.first_step_kl=null",
        "eval.every=2",
        "eval.samples=4",
        "eval.problems=4",
        *more,
    )
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def test_gsm8k_with_last_number(folder: Path) -> None:
    options = ["prompt=question", "template=Q: {prompt} A:", "grader=last_number", "stop=Q:"]
    task = (
        "{name: jsonl, data: gsm8k.jsonl, prompt: question, template: 'Q: {prompt} A:', grader: last_number, "
        "stop: 'Q:'}"
    )
    rows = train(folder, "runs/gsm8k", task)
    assert [(row["kind"], row["step"]) for row in rows] == [("eval", 0), ("step", 1), ("step", 2), ("eval", 2)]
    for row in rows[1:3]:
        assert row["grader_errors"] == 0
        assert all(math.isfinite(row[name]) for name in ("reward", "kl", "loss", "grad_norm", "entropy"))
    model, _ = load_model(folder / "runs" / "gsm8k" / "model")
    assert type(model).__name__ == "Gemma2ForCausalLM"

    said = bontune(
        folder,
        "sample",
        "runs/gsm8k/model",
        "jsonl",
        "data=gsm8k.jsonl",
        *options,
        "--split",
        "test",
        "-n",
        "4",
        "--max-new-tokens",
        "8",
        "-o",
        "pools/gsm8k.parquet",
    )
    assert said == "pools/gsm8k.parquet: 4 problems × 4 samples\n", "a tenth is held out"
    pool = read_pool(folder / "pools" / "gsm8k.parquet")
    assert all(row[0].startswith("Q: ") and row[0].endswith(" A:") for row in pool.columns["prompt"])
    assert all("####" in row[0] for row in pool.columns["reference"])
    assert pool.num_grader_errors == 0
    bontune(folder, "eval", "pools/gsm8k.parquet", "-o", "numbers.json")
    (numbers,) = json.loads((folder / "numbers.json").read_text())["pools"].values()
    assert {"pass@1", "pass@4", "best@4", "majority@4", "distinct"} <= set(numbers["metrics"])


def test_a_reward_and_a_verifier_of_ones_own(folder: Path) -> None:
    task = "{name: jsonl, data: gsm8k.jsonl, prompt: question, template: 'Q: {prompt}', grader: 'mine.py:reward'}"
    rows = train(folder, "runs/mine", task, "verifier={name: python, function: 'mine.py:judge'}")
    steps = [row for row in rows if row["kind"] == "step"]
    assert all(row["reward"] > 0 for row in steps), "some letters among eight characters"
    assert all(row["best_of_n"] < row["pass_at_n"] for row in steps), "the shortest is not the one with most letters"
    assert "max@4" in rows[-1]["metrics"], "graded rewards have no pass@k"
    bontune(
        folder,
        "sample",
        "runs/mine/model",
        "jsonl",
        "data=gsm8k.jsonl",
        "prompt=question",
        "template=Q: {prompt}",
        "grader=mine.py:reward",
        "--verifier",
        "mine.py:judge",
        "--split",
        "all",
        "--limit",
        "3",
        "-n",
        "4",
        "--max-new-tokens",
        "8",
        "-o",
        "pools/mine.jsonl",
    )
    pool = read_pool(folder / "pools" / "mine.jsonl")
    assert pool.scores() == [[-float(len(text)) for text in row] for row in pool.columns["completion"]]
    assert pool.rewards() == [
        [sum(c in "abcdefghijklmnopqrstuvwxyz" for c in text) / 8 for text in row] for row in pool.columns["completion"]
    ]
    assert "max@k" in bontune(folder, "eval", "pools/mine.jsonl")
