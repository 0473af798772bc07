"""Contract of the plan:

1. it counts parameters, adapters and generations exactly;
2. its memory of weights, gradient, optimizer and anchor is what a run really holds; more tokens or no checkpointing
   never need less;
3. the shipped recipes have plans without a download, also where their data is missing;
4. the command prints all of it, and says what it assumed.
"""

from __future__ import annotations

import pytest
from peft import LoraConfig, get_peft_model

import tiny
from bontune.base.errors import BontuneError
from bontune.base.settings import apply_overrides
from bontune.cli.plan import run_plan, shape_of
from bontune.config import Recipe, load_recipe, read_recipe, shipped_recipes
from bontune.models import load_model
from bontune.training.plan import estimate
from bontune.training.trainer import Trainer


def plan_of(*overrides: str, name: str = "countdown"):
    recipe = load_recipe(name, overrides)
    return estimate(recipe, shape_of(recipe.model), is_gpu=False, prompt_tokens=12, longest_prompt=14)


@pytest.mark.parametrize("model", ["countdown-tiny", "tiny-gemma2"])
def test_parameters_are_counted(model: str) -> None:
    """All but the norms, whose number is (2 to 4)·layers + 1 vectors of the width."""
    real = load_model(model)[0]
    norms = sum(p.numel() for name, p in real.named_parameters() if "norm" in name)
    assert shape_of(model).parameters == sum(p.numel() for p in real.parameters()) - norms


def test_gemmas_size_is_the_published_one() -> None:
    assert shape_of("google/gemma-2-2b-it").parameters == pytest.approx(2_614_341_888, rel=1e-3)
    assert shape_of("google/gemma-2-9b").parameters == pytest.approx(9_241_705_984, rel=1e-3)


def test_adapters_are_counted() -> None:
    model = get_peft_model(
        load_model("tiny-gemma2")[0], LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plan = plan_of("model=tiny-gemma2", "training.lora={r: 3}")
    assert plan.trainable == trained


@pytest.mark.parametrize(
    ("objective", "a_prompt"), [("bon_rl", 6), ("sft", 0), ("bon_sft", 6), ("bon_distillation", 6), ("vbon", 6 + 6)]
)
def test_generations_are_what_a_run_draws(objective: str, a_prompt: int, tmp_path) -> None:
    """None for demonstrations, those of the anchor too."""
    settings = Recipe.from_dict(
        apply_overrides(
            read_recipe("countdown"),
            [
                "training.steps=3",
                "training.prompts_per_step=4",
                "sampling.samples=6",
                "eval.every=0",
                f"objective={{name: {objective}, n: 2}}",
                f"run={tmp_path}",
                "training.device=cpu",
            ],
        )
    )
    drawn = Trainer(settings, is_quiet=True).train()["generations"]
    plan = estimate(settings, shape_of(settings.model), is_gpu=False, prompt_tokens=12)
    assert plan.work.generations == drawn == 3 * 4 * a_prompt
    assert plan.work.eval_generations == 0


def test_held_memory_is_what_a_run_holds(tmp_path) -> None:
    settings = Recipe.from_dict(
        apply_overrides(
            read_recipe("countdown"),
            [
                "training.steps=1",
                "training.prompts_per_step=2",
                "sampling.samples=4",
                "objective.n=2",
                "eval.every=0",
                f"run={tmp_path}",
                "training.device=cpu",
            ],
        )
    )
    run = Trainer(settings, is_quiet=True)
    run.train()
    memory = estimate(settings, shape_of(settings.model), is_gpu=False, prompt_tokens=12).memory

    def held(tensors) -> int:
        return sum(t.numel() * t.element_size() for t in tensors)

    moments = [t for s in run.optimizer.state.values() for t in s.values() if t.numel() > 1]
    assert memory["weights"] == pytest.approx(held(run.model.parameters()), rel=0.01)
    assert memory["gradient"] == pytest.approx(held(p.grad for p in run.model.parameters()), rel=0.01)
    assert memory["AdamW"] == pytest.approx(held(moments), rel=0.01)
    assert memory["anchor"] == pytest.approx(held(run.anchor.tensors.values()), rel=0.01)


def test_memory_moves_the_right_way() -> None:
    def total(*overrides: str) -> float:
        return sum(plan_of(*overrides).memory.values())

    base = total("model=tiny-gemma2")
    assert total("model=tiny-gemma2", "training.token_budget=65536") > base
    assert total("model=tiny-gemma2", "training.gradient_checkpointing=true") < base
    assert total("model=tiny-gemma2", "training.lora={r: 1}") < base
    assert total("model=tiny-gemma2", "training.precision=bf16") < base


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_has_a_plan(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    is_of_a_run = load_recipe(name).model.startswith("runs/")  # which another recipe makes
    run_plan(load_recipe(name, ["model=tiny-gemma2", "training.lora.layers=1"] if is_of_a_run else []))
    printed = " ".join(capsys.readouterr().out.split())
    assert "on a CPU" in printed
    assert "on a GPU (bf16)" in printed
    assert "this machine has" in printed
    assert "samples" in printed
    if name.startswith("gemma2-2b-math"):
        assert "5.12 M" in printed, "2,500 steps × 32 prompts × 64 samples"
        assert "assumed: prompts of 200 tokens" in printed


def test_a_model_that_is_not_there() -> None:
    with pytest.raises(BontuneError, match="no model folder"):
        shape_of("./nowhere")


def test_a_folder_of_the_users(tmp_path) -> None:
    model = tiny.model("llama")
    model.save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)).num_layers == 2


def test_a_model_larger_than_the_machine_is_said_before_it_is_loaded(tmp_path, capsys, monkeypatch) -> None:
    tiny.model("llama").save_pretrained(tmp_path)  # without a tokenizer: loading it would fail
    monkeypatch.setattr("bontune.cli.plan._main_memory", lambda: 1000.0)
    run_plan(load_recipe("own", [f"model={tmp_path}", "training.device=cpu"]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "The model is too large for this machine: weights, gradient, AdamW and anchor alone take" in printed
    assert "train adapters (training.lora={r: 16}) or a smaller model." in printed


def test_the_plan_says_model_parameters_device_problems_n_m_rate_and_steps(capsys) -> None:
    run_plan(load_recipe("countdown", ["training.device=cpu"]))
    printed = " ".join(capsys.readouterr().out.split())
    for said in ("countdown-tiny", "156 k, all trained", "CPU", "4,000", "16, from 32 samples", "0.0006", "200 steps"):
        assert said in printed
