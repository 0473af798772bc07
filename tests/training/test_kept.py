"""Contract of ``eval.keep``:

1. ``best/METRIC`` holds exactly the weights of the step that was best by the metric, of equal ones the earliest, and
   the summary says which;
2. so it does after a kill (-9) before any rename and a resume;
3. names that are not evaluated are refused before anything is written; without the key recipes have the fingerprints
   they had before there was one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny
from bontune import Recipe, Trainer, task_from_rows
from bontune.base.errors import BontuneError
from bontune.base.settings import apply_overrides
from bontune.training.evaluation import BestSteps
from training import run_driver
from training.run_driver import metrics

KEEP = ["pass@1", "best@4"]


def recipe(run: Path, **evaluation: Any) -> Recipe:
    section = {"every": 1, "samples": 8, "k": [1, 4], "keep": KEEP} | evaluation
    return Recipe.from_dict(
        {
            "objective": {"name": "rloo", "n": 1},
            "sampling": {"samples": 8, "max_new_tokens": 2},
            "training": {
                "steps": 8,
                "prompts_per_step": 4,
                "lr": 0.02,
                "warmup": 0,
                "first_step_kl": None,
                "decay": "constant",
                "checkpoint_every": 1,
                "keep_checkpoints": 99,
                "device": "cpu",
            },
            "kl": {"start": 0.01, "end": 0.01},
            "eval": section,
            "run": str(run),
        }
    )


def best_rows(run: Path, name: str) -> tuple[int, float]:
    """Of the evaluations that the run wrote down: the first of the highest."""
    rows = [row for row in metrics(run) if row["kind"] == "eval"]
    values = {row["step"]: row["metrics"][name] for row in rows}
    step = min(values, key=lambda step: (-values[step], step))
    return step, values[step]


# ---- 1 ----


def test_the_weights_of_the_best_step_are_kept(tmp_path: Path) -> None:
    """The reward turns round after some evaluations, so that the last step is not the best one."""
    calls = 0

    def grade(row: dict[str, Any], text: str) -> bool:
        nonlocal calls
        calls += 1
        is_low = text[:1] in tuple("abcdefgh")
        return is_low if calls < 400 else not is_low

    rows = [{"prompt": f"{letter}="} for letter in "abcdefghijkl"]
    task = task_from_rows(rows, grade, hold_out=0.25)
    start = tiny.model(sharp=2.0)
    initial = {name: p.detach().clone() for name, p in start.named_parameters()}
    trainer = Trainer(recipe(tmp_path), task=task, model=start, tokenizer=tiny.tokenizer(), is_quiet=True)
    summary = trainer.train()
    assert set(summary["kept"]) == set(KEEP)
    assert json.loads((tmp_path / "summary.json").read_text())["kept"] == summary["kept"]
    for name in KEEP:
        step, value = best_rows(tmp_path, name)
        assert summary["kept"][name] == {"step": step, "value": value}
        path = tmp_path / "checkpoints" / f"step_{step:06d}" / "policy.safetensors"
        wanted = load_file(path) if step else initial
        found = load_file(tmp_path / "best" / name / "model.safetensors")
        assert set(found) == set(wanted)
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    last = load_file(tmp_path / "model" / "model.safetensors")
    kept = [load_file(tmp_path / "best" / name / "model.safetensors") for name in KEEP]
    assert any(not torch.equal(weights[key], last[key]) for weights in kept for key in last)
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == sorted(KEEP)


def test_of_equal_ones_the_earliest_and_graded_rewards(tmp_path: Path) -> None:
    best = BestSteps(recipe(tmp_path, keep=["pass@4", "best@1"]))
    assert best.note(0, {"pass@4": 0.5, "best@1": 0.2}) == ["pass@4", "best@1"]
    assert best.note(1, {"max@4": 0.5, "best@1": 0.3}) == ["best@1"]  # rewards that are not 0 or 1 have max@k
    best.restore(json.loads(json.dumps(best.state())))
    assert best.note(2, {"max@4": 0.6, "best@1": 0.3}) == ["pass@4"]
    assert best.kept == {"pass@4": {"step": 2, "value": 0.6}, "best@1": {"step": 1, "value": 0.3}}
    assert best.own == {"step": 1, "metric": "best@1", "value": 0.3}
    best.restore({"best": {}})  # a checkpoint from before there was such a key
    assert best.note(3, {"pass@4": 0.0, "best@1": 0.0}) == ["pass@4", "best@1"]


# ---- 2 ----

SIX = (
    "training.steps=6",
    "training.checkpoint_every=3",
    "eval.every=2",
    "eval.keep=[pass@1,pass@2]",
    "training.lr=3e-3",
    "training.first_step_kl=null",
)


def kept(run: Path) -> dict[str, Any]:
    """Which steps, and all files of their models."""
    files = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.glob("best/pass@*/**/*")
        if path.is_file()
    }
    return {"summary": json.loads((run / "summary.json").read_text())["kept"], "files": files}


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with run_driver.driver(tmp_path_factory.mktemp("driver")) as started:
        yield started


@pytest.fixture(scope="module")
def undisturbed(driver: run_driver.Driver, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    result = driver.train(run, *SIX)
    assert result.code == 0, result.output
    for name in ("pass@1", "pass@2"):
        step, value = best_rows(run, name)
        assert kept(run)["summary"][name] == {"step": step, "value": value}
    return kept(run)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_killed_before_a_rename(driver: run_driver.Driver, undisturbed: dict[str, Any], tmp_path: Path, n: int) -> None:
    """The recipe's is the first; then come both models of step 0, those of better steps, and checkpoints."""
    run = tmp_path / "run"
    assert driver.train(run, *SIX, kill_at=n, kill_in=["replace"]).code == -9
    result = driver.train(run, *SIX)
    assert result.code == 0, result.output
    assert kept(run) == undisturbed


# ---- 3 ----


@pytest.mark.parametrize(
    ("evaluation", "phrase"),
    [
        ({"keep": ["pass@2"]}, "eval.keep names 'pass@2', which is not evaluated; there are pass@1, pass@4, best@1"),
        ({"keep": ["reward"]}, "eval.keep names 'reward'"),
        ({"every": 0}, "eval.keep needs evaluations during training: set eval.every"),
    ],
)
def test_refusals(tmp_path: Path, evaluation: dict[str, Any], phrase: str) -> None:
    task = task_from_rows([{"prompt": f"{letter}="} for letter in "abcd"], lambda row, text: True, hold_out=0.5)
    settings = recipe(tmp_path / "run", **evaluation)
    with pytest.raises(BontuneError) as refused:
        Trainer(settings, task=task, model=tiny.model(), tokenizer=tiny.tokenizer(), is_quiet=True)
    assert phrase in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_fingerprints_are_as_before(tmp_path: Path) -> None:
    settings = recipe(tmp_path, keep=[])
    tree = settings.model_dump(mode="json")
    del tree["run"], tree["eval"]["keep"], tree["eval"]["solved_at"], tree["sampling"]["token_budget"]
    for key in ("checkpoint_every", "keep_checkpoints", "track", "token_budget", "shard", "first_step_kl"):
        del tree["training"][key]
    del (
        tree["engine"],
        tree["verifier"]["refit"],
        tree["verifier"]["end"],
    )  # keys that came later, at what was done before there were any
    for key in ("updates_per_batch", "minibatches", "clip", "clip_range", "importance", "importance_cap", "refill"):
        del tree["training"][key]
    tree["training"]["value_lr"] = 1e-5  # its default before ``auto``; without a value head it decides nothing
    assert settings.fingerprint() == hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
    others = {recipe(tmp_path, keep=keep).fingerprint() for keep in ([], ["pass@1"], ["pass@4"])}
    assert len(others) == 3
    changed = {settings.fingerprint()}
    overrides = ("engine.name=vllm", "training.updates_per_batch=2", "training.clip=token", "training.refill={}")
    for override in (*overrides, "verifier.refit={}"):
        changed.add(Recipe.from_dict(apply_overrides(settings.model_dump(), [override])).fingerprint())
    assert len(changed) == 6
    in_parts = Recipe.from_dict(apply_overrides(settings.model_dump(), ["training.shard=true"]))
    assert in_parts.fingerprint() == settings.fingerprint(), "it rounds otherwise, and is the same run"
