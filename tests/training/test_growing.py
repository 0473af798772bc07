"""A finished run: it says so, and it can be given more steps, but nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError
from training.run_driver import metrics


def recipe(run: Path, steps: int, **training: Any) -> Recipe:
    return Recipe.from_dict(
        {
            "objective": {"name": "rloo", "n": 1},
            "sampling": {"samples": 4, "max_new_tokens": 4},
            "training": {
                "steps": steps,
                "prompts_per_step": 2,
                "lr": 0.01,
                "warmup": 0,
                "first_step_kl": None,
                "device": "cpu",
            }
            | training,
            "eval": {"every": 0},
            "run": str(run),
        }
    )


def train(settings: Recipe, capsys: pytest.CaptureFixture[str]) -> str:
    Trainer(settings).train()
    return capsys.readouterr().err


def test_a_finished_run_says_so_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    train(recipe(run, 3), capsys)
    before = metrics(run)
    assert "already finished: all 3 steps are done; training.steps=… gives it more" in train(recipe(run, 3), capsys)
    assert metrics(run) == before
    said = train(recipe(run, 6, checkpoint_every=2), capsys)
    assert "finished with 3 steps, going on to 6; schedules are those of 6 steps" in said
    assert "the learning rate goes on at 0.005" in said
    rows = metrics(run)
    assert rows[:3] == before
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3]["lr"] == pytest.approx(0.005)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["steps"] == 6
    assert "already finished: all 6 steps" in train(recipe(run, 6), capsys)


@pytest.mark.parametrize(
    ("steps", "training", "phrase"),
    [
        (2, {}, r"training.steps 2, was 3 \(a finished run may get more steps\)"),
        (6, {"lr": 0.02}, r"training.lr 0.02, was 0.01; training.steps 6, was 3 \(a finished"),
        (3, {"lr": 0.02, "warmup": 1}, r"training.lr 0.02, was 0.01; training.warmup 1, was 0. Put that back"),
    ],
)
def test_nothing_else_may_change(
    tmp_path: Path, steps: int, training: dict[str, Any], phrase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(recipe(tmp_path / "run", 3), capsys)
    with pytest.raises(BontuneError, match=f"was made with other settings: {phrase}"):
        train(recipe(tmp_path / "run", steps, **training), capsys)


def test_an_unfinished_run_cannot_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    run = tmp_path / "run"
    train(recipe(run, 3, checkpoint_every=1), capsys)
    shutil.rmtree(run / "checkpoints" / "step_000003")
    with pytest.raises(BontuneError, match=r"training.steps 6, was 3"):
        train(recipe(run, 6), capsys)
