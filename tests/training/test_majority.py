"""Training for a majority vote: the grader's answers are what is voted on, and what is trained for is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import BontuneError, RunStopped
from bontune.grading.verdict import Grade, Verdict
from bontune.objectives import majority_vote
from bontune.training.log import Stages


def recipe(run: Path, **sections: Any) -> Recipe:
    tree: dict[str, Any] = {
        "model": "countdown-tiny",
        "task": {"name": "countdown"},
        "objective": {"name": "majority_vote", "n": {1: 0.5, 5: 0.5}},
        "sampling": {"samples": 8},
        "training": {"steps": 2, "prompts_per_step": 4, "device": "cpu"},
        "eval": {"every": 2, "problems": 6, "samples": 8, "k": [1, 4], "keep": ["majority@4"]},
    }
    return Recipe.from_dict({"run": str(run)} | tree | sections)


def test_a_step_is_weighed_by_the_graders_answers(tmp_path: Path) -> None:
    run = Trainer(recipe(tmp_path / "run"), is_quiet=True)
    with run.running() as signals:
        graded, advantages_PM = run.draw(1, run.draws(1), stages=Stages(), signals=signals)
    answers = graded.answers()
    assert any(answer is not None for row in answers for answer in row)
    expected = majority_vote(graded.rewards_PM, answers, {1: 0.5, 5: 0.5})
    assert bool(expected.ne(0).any())
    torch.testing.assert_close(advantages_PM, expected)


def test_the_vote_is_measured_and_kept(tmp_path: Path) -> None:
    summary = Trainer(recipe(tmp_path / "run"), is_quiet=True).train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    measured = [row["metrics"] for row in rows if row["kind"] == "eval"]
    assert summary["best"]["metric"] == "0.5·majority@1 + 0.5·majority@4"
    best = max(0.5 * row["majority@1"] + 0.5 * row["majority@4"] for row in measured)
    assert summary["best"]["value"] == pytest.approx(best)
    assert summary["kept"]["majority@4"]["value"] == pytest.approx(max(row["majority@4"] for row in measured))
    assert (tmp_path / "run" / "best" / "majority@4" / "config.json").is_file()


def test_a_vote_is_kept_only_where_it_is_measured(tmp_path: Path) -> None:
    with pytest.raises(BontuneError, match=r"eval\.keep names 'majority@4', which is not evaluated"):
        Trainer(recipe(tmp_path / "run", objective={"name": "bon_rl", "n": 4}), is_quiet=True)


def test_a_grader_that_reads_no_answer_is_a_sentence(tmp_path: Path) -> None:
    rows = [{"prompt": f"{letter}="} for letter in "abcdefgh"]
    unread = Grade(reward=0.0, verdict=Verdict.FAILED)
    task = task_from_rows(rows, lambda row, text: unread, hold_out=0.0)
    settings = recipe(tmp_path / "run", eval={"every": 0})
    run = Trainer(settings, task=task, model=tiny.model(sharp=2.0), tokenizer=tiny.tokenizer(), is_quiet=True)
    with pytest.raises(
        RunStopped, match="no sample of the first step has an answer, and the objective needs the grader"
    ):
        run.train()
