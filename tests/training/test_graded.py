"""Runs whose rewards are not 0 and 1: what could not be graded, what counts as solved, and gains by one name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bontune import Recipe, Trainer, task_from_rows
from bontune.integrations.verl_reward import compute_score
from bontune.metrics.evaluation import Evaluation
from bontune.report.run_page import run_page
from bontune.training.evaluation import gains_since_first
from training.run_driver import metrics

SECTIONS: dict[str, Any] = {
    "objective": {"name": "bon_rl", "n": 4},
    "sampling": {"samples": 8, "max_new_tokens": 2},
    "training": {"steps": 2, "prompts_per_step": 4, "device": "cpu", "max_grader_errors": 1.0},
    "eval": {"every": 1, "samples": 8, "k": [1, 2, 4, 8]},
}


def lot(text: str) -> int:
    """0, 1 or 2, by what was written."""
    return sum(map(ord, text)) % 3


def trained(folder: Path, grade: Any, **evaluation: Any) -> list[dict[str, Any]]:
    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    task = task_from_rows(rows, grade, hold_out=0.5)
    tree = SECTIONS | {"eval": SECTIONS["eval"] | evaluation, "run": str(folder)}
    Trainer(Recipe.from_dict(tree), task=task, is_quiet=True).train()
    return metrics(folder)


def test_a_run_in_which_all_that_is_graded_is_wrong_has_no_reward_above_it(tmp_path: Path) -> None:
    def grade(row: Any, text: str) -> float:
        if lot(text) == 0:
            raise ValueError("no grade")
        return -1.0

    rows = trained(tmp_path, grade)
    assert any(row["grader_errors"] for row in rows if row["kind"] == "step")
    for row in rows:
        if row["kind"] == "step":
            assert (row["reward"], row["pass_at_n"], row["best_of_n"], row["is_binary"]) == (-1, -1, -1, False)
        else:
            assert {value for name, value in row["metrics"].items() if "@" in name} == {-1}
            assert "pass@1" not in row["metrics"]


def test_rewards_of_minus_one_and_one_have_pass_at_k_and_numbers_on_the_page(tmp_path: Path) -> None:
    rows = trained(tmp_path, lambda row, text: 1.0 if lot(text) else -1.0)
    for row in rows:
        if row["kind"] == "eval":
            found = row["metrics"]
            for k in (1, 2, 4, 8):
                assert found[f"max@{k}"] == pytest.approx(2 * found[f"pass@{k}"] - 1)
    page = run_page(tmp_path)
    assert "pass@4 " in page[page.index('class="lead"') :][:200]
    assert "max@4, reward" in page
    assert "Reward (mean of the batch)" in page


def test_graded_rewards_are_numbers_at_the_n_that_was_trained_for(tmp_path: Path) -> None:
    rows = trained(tmp_path, lambda row, text: lot(text) / 2 + 0.25)
    lead = run_page(tmp_path)
    lead = lead[lead.index('class="lead"') :][:300].partition("</p>")[0]
    assert "max@4 " in lead
    assert "%" not in lead
    assert "points" not in lead
    assert all("pass@4" not in row["metrics"] for row in rows if row["kind"] == "eval")
    solved = trained(tmp_path / "limit", lambda row, text: lot(text) / 2 + 0.25, solved_at=1)
    assert all(0 <= row["metrics"]["pass@4"] <= 1 for row in solved if row["kind"] == "eval")
    assert Recipe.from_dict({}).fingerprint() == Recipe.from_dict({"eval": {"solved_at": None}}).fingerprint()


def test_gains_do_not_vanish_where_rewards_turn_graded(tmp_path: Path) -> None:
    ids, half = [f"p{i}" for i in range(12)], np.resize([0.0, 0.5], 12)
    binary = Evaluation(problem_ids=ids, values={"pass@2": np.zeros(12), "best@2": np.zeros(12)})
    graded = Evaluation(problem_ids=ids, values={"max@2": half, "best@2": half})
    assert gains_since_first(tmp_path, 0, binary) == {}
    gains = gains_since_first(tmp_path, 5, graded)
    assert set(gains) == {"max@2", "best@2"}
    value, low, high = gains["max@2"]
    assert value == 0.25
    assert low < 0.25 < high
    rows = [
        {"kind": "eval", "step": 0, "metrics": binary.means()},
        {"kind": "eval", "step": 5, "metrics": graded.means(), "gains": gains},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = run_page(tmp_path)
    assert "max@2 rose from 0 at step 0 to 0.25 at step 5; more than chance" in page
    assert "pass@2" not in page
    assert "Reward gained since the start" in page or "in reward: max@2" in page


@pytest.mark.parametrize("num_problems", [1, 5, 9, 10])
def test_nothing_is_claimed_of_a_few_problems(tmp_path: Path, num_problems: int) -> None:
    rows = [
        {"kind": "eval", "step": 0, "metrics": {"pass@1": 0.0}, "problems": num_problems},
        {"kind": "eval", "step": 3, "metrics": {"pass@1": 0.9}, "problems": num_problems},
    ]
    rows[1]["gains"] = {"pass@1": [0.9, 0.7, 1.0]}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = run_page(tmp_path)
    assert ("more than chance" in page) == (num_problems >= 10)
    assert ("too few problems" in page) == (num_problems < 10)


def test_a_response_that_could_not_be_graded_scores_as_the_lowest_so_far(tmp_path: Path) -> None:
    (tmp_path / "grader.py").write_text(
        "def grade(row, text):\n"
        "    if text == '?':\n        raise ValueError('no grade')\n"
        "    return 1.0 if text == row['answer'] else -1.0\n"
    )
    (tmp_path / "d.jsonl").write_text('{"id": "a", "prompt": "p", "answer": "4", "split": "train"}\n')
    options = json.dumps({"data": str(tmp_path / "d.jsonl"), "grader": f"{tmp_path / 'grader.py'}:grade"})
    about = {"options": options, "split": "train", "problem_id": "a"}
    scores = [compute_score("bontune/jsonl", text, "", about) for text in ("?", "4", "5", "?")]
    assert [score["score"] for score in scores] == [0.0, 1.0, -1.0, -1.0]
    assert [score["graded"] for score in scores] == [0.0, 1.0, 1.0, 0.0]
