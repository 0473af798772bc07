"""Shipped recipes run; those for Gemma with its architecture at random weights, on real rows where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import Gemma2ForSequenceClassification

from bontune import load_recipe
from bontune.base.errors import BontuneError
from bontune.config import shipped_recipes
from bontune.models import load_model, shipped
from bontune.training.trainer import Trainer
from shared_data import DATA, needs

GEMMA = [name for name in shipped_recipes() if name.startswith("gemma2")]
EMBEDDED = [name for name in shipped_recipes() if load_recipe(name).model in shipped()]
SMALL = [
    "training.steps=2",
    "training.prompts_per_step=2",
    "sampling.samples=6",
    "sampling.max_new_tokens=12",
    "eval.every=2",
    "eval.problems=2",
    "eval.samples=4",
    "eval.k=[1, 4]",
    "objective.n=3",
    "training.device=cpu",
]


def finished_run(name: str, *overrides: str, has_reward: bool = True) -> list[dict[str, object]]:
    recipe = load_recipe(name, [*SMALL, *overrides])
    run = Trainer(recipe, is_quiet=True)
    before = {key: tensor.clone() for key, tensor in run.model.state_dict().items()}
    run.train()
    has_moved = any(not torch.equal(before[key], tensor) for key, tensor in run.model.state_dict().items())
    assert has_moved or not has_reward  # random weights solve no problem of MATH: nothing to learn from
    assert (run.folder / "model" / "config.json").is_file()
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["kind"] for row in rows] == ["eval", "step", "step", "eval"]
    assert all(row["grader_errors"] == 0 for row in rows if row["kind"] == "step")
    return rows


def test_there_are_the_papers() -> None:
    assert {
        "gemma2-2b-math-bon-rl-v",
        "gemma2-2b-math-bon-rl-s",
        "gemma2-2b-math-bon-rlb",
        "gemma2-2b-humaneval-bon-rlbp",
    } < set(GEMMA)


@pytest.mark.parametrize("name", GEMMA)
def test_table_2_is_in_them(name: str) -> None:
    """Chow et al., Table 2; the learning rate of adapters is not the paper's."""
    recipe = load_recipe(name)
    assert (recipe.training.steps, recipe.training.prompts_per_step, recipe.training.warmup) == (2500, 32, 100)
    assert recipe.training.value_lr == 1e-5
    assert (recipe.kl.start, recipe.kl.end, recipe.kl.steps, recipe.kl.delay) == (1.0, 0.075, 2500, 10)
    assert recipe.kl.anchor_ema == 0.01
    assert recipe.sampling.temperature == 1.0
    assert recipe.training.lora is not None or recipe.training.lr == 3e-6


@needs()
@pytest.mark.parametrize("name", GEMMA)
def test_gemmas_recipes_run_on_real_rows(name: str, tmp_path: Path) -> None:
    overrides = ["model=tiny-gemma2", f"task.data={DATA}", f"run={tmp_path / 'run'}"]
    if load_recipe(name).eval.task is not None:
        overrides.append(f"eval.task.data={DATA}")
    if load_recipe(name).verifier.name == "reward_model":
        model, tokenizer = load_model("tiny-gemma2")
        torch.manual_seed(0)
        config = model.config
        config.num_labels = 1
        Gemma2ForSequenceClassification(config).save_pretrained(tmp_path / "verifier")
        tokenizer.save_pretrained(tmp_path / "verifier")
        overrides += [f"verifier.path={tmp_path / 'verifier'}", "objective.reward=verifier"]
    rows = finished_run(name, *overrides, has_reward="objective.reward=verifier" in overrides)
    assert "best@4" in rows[0]["metrics"]  # type: ignore[operator]


def test_own_takes_any_model_and_any_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i} + {i + 1}?", "answer": str(2 * i + 1)} for i in range(20)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"task.data={tmp_path / 'mine.jsonl'}"
    finished_run("own", "model=tiny-gemma2", data, f"run={tmp_path / 'run'}", has_reward=False)
    finished_run("own", "model=tiny-gemma2", data, f"run={tmp_path / 'lora'}", "training.lora={r: 2}", has_reward=False)


def test_own_without_data_says_what_to_give() -> None:
    with pytest.raises(BontuneError, match=r"needs .*data"):
        Trainer(load_recipe("own", ["model=tiny-gemma2"]), is_quiet=True)


@needs()
def test_gsm8k_runs(tmp_path: Path) -> None:
    finished_run("gsm8k", "model=tiny-gemma2", f"task.data={DATA}", f"run={tmp_path / 'run'}", has_reward=False)


@pytest.mark.parametrize("name", ["smollm2-sft", "smollm2-bon", "smollm2-rl"])
def test_word_problems_run_with_adapters_above_and_in_every_size(name: str, tmp_path: Path) -> None:
    rows = [
        {"Body": f"Ann has {i} eggs.", "Question": "How many are left if 2 break?", "Equation": f"( {i}.0 - 2.0 )"}
        for i in range(3, 33)
    ]
    (tmp_path / "svamp.json").write_text(json.dumps([row | {"Answer": i + 1} for i, row in enumerate(rows)]))
    given = ["model=tiny-gemma2", f"task.data={tmp_path / 'svamp.json'}", f"run={tmp_path / 'run'}"]
    small = [override for override in SMALL if name != "smollm2-sft" or not override.startswith("objective.n")]
    run = Trainer(load_recipe(name, [*small, *given, "training.lora.layers=1"]), is_quiet=True)
    assert {key.partition(".layers.")[2][0] for key, p in run.model.named_parameters() if p.requires_grad} == {"1"}
    assert run.train()["steps"] == 2
    for size in ("gpu", "gpus"):
        recipe = load_recipe(name, [f"size={size}", *given])
        assert recipe.training.lora is None
        assert recipe.training.prompts_per_step > load_recipe(name).training.prompts_per_step


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_recipes_run(name: str, tmp_path: Path) -> None:
    finished_run(name, f"run={tmp_path / 'run'}", "training.prompts_per_step=4", "sampling.max_new_tokens=24")
