"""Contract of a verifier that learns along:

1. it keeps the prompts that teach a difference, the run's first for good and of the others the newest, and makes no fit
   on few of them;
2. a fit happens when it is due and never ends with a higher loss on held-out problems than it began with; the
   verifier then ranks the policy's samples better than the one it was;
3. the verifier that selects is the one that the run writes; a run that was stopped ends as one that was not, bitwise;
4. verifiers that cannot be fitted and tasks of few problems are refused before anything is written; rewards that it
   cannot learn stop the run.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError, RunStopped
from bontune.base.problems import Problem
from bontune.grading.verdict import Grade, Verdict
from bontune.tasks import load_task
from bontune.training.refit import Refit
from bontune.verifiers import load_verifier
from bontune.verifiers.reward_model import load_reward_model

REWARD_MODEL = {"name": "reward_model", "path": "countdown-verifier-rough"}
ONE_PROCESS = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bontune.training.refit.gather_object", list)


def settings(run: Path, **sections: Any) -> Recipe:
    tree: dict[str, Any] = {
        "model": "countdown-tiny",
        "task": {"name": "countdown"},
        "verifier": REWARD_MODEL | {"refit": {"every": 5, "first": 100, "batch_size": 128}},
        "objective": {"name": "bon_rl", "n": 8},
        "sampling": {"samples": 16},
        "training": {"steps": 10, "prompts_per_step": 48, "device": "cpu", "checkpoint_every": 3},
        "eval": {"every": 0, "samples": 32, "k": [1, 8]},
    }
    return Recipe.from_dict(
        {"run": str(run)}
        | {name: part if isinstance(part, str) else part | sections.get(name, {}) for name, part in tree.items()}
    )


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


PROBLEMS = [Problem(id=str(i), prompt=f"p{i}", reference=None) for i in range(100)]


def batch(*rewards: list[float]) -> Any:
    """A graded batch of problems 0, 1, … with these rewards; NaN: could not be graded."""
    grades = [[Grade(verdict=Verdict.PASSED if r else Verdict.FAILED, reward=float(r)) for r in row] for row in rewards]
    problems = PROBLEMS[: len(rewards)]
    texts = [[f"{i}" for i in range(len(row))] for row in rewards]
    return SimpleNamespace(problems=problems, samples=SimpleNamespace(texts=texts), grades=grades)


def refit_of(run: Path, **keys: Any) -> Refit:
    recipe = settings(run, verifier=REWARD_MODEL | {"refit": {"every": 100} | keys})
    verifier = load_verifier("reward_model", path="countdown-verifier-rough")
    assert recipe.verifier.refit is not None
    return Refit(recipe.verifier.refit, recipe.seed, verifier, PROBLEMS, ONE_PROCESS)


def test_prompts_that_teach_a_difference_are_kept(tmp_path: Path) -> None:
    refit = refit_of(tmp_path, first=2, problems=3, samples=2)
    for step in range(1, 4):
        # The first two samples of each count, and what could not be graded makes no difference.
        refit.learn(step, batch([1, 0, 0], [0, 0, 1], [1, math.nan, 0], [0, 1, 1]))
    assert [row[0] for row in refit.first] == ["0", "3"], "the first"
    assert [row[0] for row in refit.newest] == ["3", "0", "3"], "the newest three of four"
    assert all(len(row[1]) == len(row[2]) == 2 for row in (*refit.first, *refit.newest))


def test_it_learns_when_it_is_due_and_ranks_better(tmp_path: Path) -> None:
    """A verifier whose head has forgotten everything learns from the policy's samples what ranks them."""
    recipe = settings(
        tmp_path / "run",
        verifier={"refit": {"every": 5, "first": 100, "batch_size": 64, "lr": 2e-3, "epochs": 3}},
        training={"steps": 10, "lr": 1e-9},
        eval={"every": 10, "problems": 60},
    )
    verifier = load_reward_model("countdown-verifier", device="cpu")
    torch.nn.init.zeros_(verifier.model.score.weight)
    Trainer(recipe, verifier=verifier, is_quiet=True).train()
    rows = rows_of(tmp_path / "run")
    fits = {row["step"]: row for row in rows if "verifier_loss" in row}
    assert list(fits) == [5, 10]
    for row in fits.values():
        assert row["verifier_loss"] <= row["verifier_loss_before"]
        assert row["seconds"]["refit"] > 0
    before, after = (row["metrics"] for row in rows if row["kind"] == "eval")
    assert before["auc"] == pytest.approx(0.5), "it ranks by chance"
    assert after["auc"] > 0.6
    assert after["best@8"] > before["best@8"]
    assert after["pass@1"] == pytest.approx(before["pass@1"], abs=0.01), "of the same policy"


def test_the_written_verifier_is_the_one_that_selected(tmp_path: Path) -> None:
    run = Trainer(settings(tmp_path / "run", training={"steps": 5}), is_quiet=True)
    run.train()
    problem = load_task("countdown").problems("test")[0]
    texts = [[problem.reference, "1+1", "(2)"]]
    written = load_reward_model(str(tmp_path / "run" / "verifier"), device="cpu").score([problem], texts)
    assert written == run.verifier.score([problem], texts)
    assert written != load_reward_model("countdown-verifier-rough", device="cpu").score([problem], texts)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    Trainer(settings(tmp_path / "whole"), is_quiet=True).train()
    stopped = Trainer(settings(tmp_path / "part"), is_quiet=True)
    stopped.log.step = lambda row: (_ for _ in ()).throw(KeyboardInterrupt) if row["step"] == 7 else None  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    Trainer(settings(tmp_path / "part"), is_quiet=True).train()
    for file in ("model/model.safetensors", "verifier/model.safetensors"):
        whole, part = (load_file(tmp_path / name / file) for name in ("whole", "part"))
        assert all(torch.equal(part[name], tensor) for name, tensor in whole.items()), file


def test_no_fit_on_few_problems_however_often_they_come(tmp_path: Path) -> None:
    """Each fit holds out a tenth of the problems, not of the visits."""
    refit = refit_of(tmp_path, every=1)
    before = {name: tensor.clone() for name, tensor in refit.verifier.model.state_dict().items()}
    for step in range(1, 61):
        refit.learn(step, batch([1, 0], [0, 1]))
    assert len(refit.first) == 120
    assert refit.num_fits == 0
    assert refit.numbers == {}
    assert all(torch.equal(before[name], tensor) for name, tensor in refit.verifier.model.state_dict().items())


@pytest.mark.parametrize("reward", [-1.0, 1.5])
def test_rewards_that_a_verifier_cannot_learn_stop_the_run(tmp_path: Path, reward: float) -> None:
    with pytest.raises(RunStopped, match=f"learns rewards from 0 to 1, and the grader gave {reward:g}"):
        refit_of(tmp_path).learn(1, batch([0, reward]))


def test_too_few_problems_are_refused(tmp_path: Path) -> None:
    section = settings(tmp_path / "run").verifier.refit
    assert section is not None
    verifier = load_verifier("reward_model", path="countdown-verifier-rough")
    with pytest.raises(BontuneError, match="learns from 100 problems or more, and the task has 99"):
        Refit(section, 0, verifier, PROBLEMS[:99], ONE_PROCESS)


@pytest.mark.parametrize("verifier", [{"name": "oracle"}, {"name": "majority"}])
def test_verifiers_that_cannot_be_fitted_are_refused(tmp_path: Path, verifier: dict[str, str]) -> None:
    recipe = settings(tmp_path / "run", verifier={"path": None, "refit": {"every": 2}} | verifier)
    with pytest.raises(
        BontuneError, match=f"continues the fit of a reward model .* and the verifier is {verifier['name']}"
    ):
        Trainer(recipe, is_quiet=True)
    assert not (tmp_path / "run").exists()
