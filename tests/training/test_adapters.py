"""Contract of runs with adapters:

1. keeping models changes nothing about the run, and each kept metric has the adapter of its own step;
2. whatever a run writes can be trained on, in full or with adapters, and sampled from, from any folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file

import tiny
from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError
from bontune.engines.opening import open_engine
from bontune.models import load_model
from training.run_driver import metrics


def recipe(run: Path, model: Path | str, *, targets: Any = None, keep: tuple[str, ...] = (), steps: int = 4) -> Recipe:
    return Recipe.from_dict(
        {
            "model": str(model),
            "objective": {"name": "rloo", "n": 1},
            "sampling": {"samples": 4, "max_new_tokens": 4},
            "training": {
                "steps": steps,
                "prompts_per_step": 4,
                "lr": 0.05,
                "warmup": 0,
                "first_step_kl": None,
                "decay": "constant",
                "checkpoint_every": 1,
                "device": "cpu",
                "lora": None if targets is None else {"r": 4, "targets": targets},
            },
            "kl": {"start": 0.01, "end": 0.01},
            "eval": {"every": 1, "samples": 4, "k": [1, 4], "problems": 20, "keep": list(keep)},
            "run": str(run),
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny.model(sharp=2.0).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_keeping_changes_nothing_and_each_metric_has_its_own_adapter(tmp_path: Path) -> None:
    plain, keeping = tmp_path / "plain", tmp_path / "keeping"
    Trainer(recipe(plain, "countdown-tiny", targets=["q_proj", "v_proj"], steps=8), is_quiet=True).train()
    kept = ("pass@1", "pass@4")
    summary = Trainer(
        recipe(keeping, "countdown-tiny", targets=["q_proj", "v_proj"], keep=kept, steps=8), is_quiet=True
    ).train()
    losses = [[row["loss"] for row in metrics(run) if row["kind"] == "step"] for run in (plain, keeping)]
    assert losses[0] == losses[1]
    assert same(weights(plain / "model"), weights(keeping / "model"))
    assert (keeping / "adapter" / "adapter_config.json").is_file()
    steps = {name: summary["kept"][name]["step"] for name in kept}
    for name in kept:
        folder = keeping / "best" / name
        merged, _ = load_model(folder / "adapter")
        written, _ = load_model(folder)
        for (key, ours), theirs in zip(merged.state_dict().items(), written.state_dict().values(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6), key
    adapters = [load_file(keeping / "best" / name / "adapter" / "adapter_model.safetensors") for name in kept]
    assert (len(set(steps.values())) == 1) == same(*adapters)
    assert not list(keeping.rglob(".tmp-*"))


def test_a_stopped_run_with_adapters_goes_on_bitwise(base: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    keep = ("pass@1", "pass@4")
    Trainer(recipe(whole, base, targets="all-linear", keep=keep), is_quiet=True).train()
    first = Trainer(recipe(parts, base, targets="all-linear", keep=keep), is_quiet=True)
    step = first.record

    def stop_at_two(*arguments: Any) -> None:
        step(*arguments)
        if first.step == 2:
            raise KeyboardInterrupt

    first.record = stop_at_two  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.train()
    Trainer(recipe(parts, base, targets="all-linear", keep=keep), is_quiet=True).train()
    assert same(weights(whole / "model"), weights(parts / "model"))


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens", "q_proj"]], ids=str)
def test_a_run_on_a_tied_layer_writes_what_it_trained(base: Path, tmp_path: Path, targets: list[str]) -> None:
    trainer = Trainer(recipe(tmp_path / "run", base, targets=targets), is_quiet=True)
    trainer.train()
    ids = torch.arange(3, 40).unsqueeze(0)
    written, _ = load_model(tmp_path / "run" / "model")
    with torch.no_grad():
        trained, found = trainer.model(input_ids=ids).logits, written(input_ids=ids).logits
        before = load_model(base)[0](input_ids=ids).logits
    assert torch.allclose(found, trained, atol=1e-4)
    assert (trained - before).abs().max() > 0.01, "it has learned something"


@pytest.mark.parametrize("what", ["run", "run/model", "run/adapter", "run/best/pass@1", "run/best/pass@1/adapter"])
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_what_a_run_writes_is_a_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, targets: str | None
) -> None:
    monkeypatch.chdir(tmp_path)  # the base model is given by a relative path, and all is read from elsewhere
    Trainer(recipe(Path("run"), "base", targets=["q_proj"], keep=("pass@1",), steps=2), is_quiet=True).train()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    engine = open_engine(f"../{what}")
    trainer = Trainer(recipe(Path("second"), f"../{what}", targets=targets, steps=2), is_quiet=True)
    trainer.train()
    assert sum(p.numel() for p in trainer.optimizer.param_groups[0]["params"]) > 100
    first, second = (load_model(folder)[0].state_dict() for folder in (f"../{what}", "second"))
    assert first.keys() == second.keys()
    assert not same(first, second), "the second run has trained"
    assert first.keys() == engine.model.state_dict().keys()
    if targets is not None:
        (changed,) = {key for key in ("q_proj",) if any(key in name for name in first)}
        assert any(not torch.equal(first[name], second[name]) for name in first if changed in name)


def test_a_frozen_model_is_refused(base: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(base)
    model.requires_grad_(False)
    with pytest.raises(BontuneError, match="No parameter of the model is trained"):
        Trainer(recipe(tmp_path / "run", base), model=model, tokenizer=tokenizer, is_quiet=True)
    assert not (tmp_path / "run").exists()


def test_an_adapter_on_an_adapter_names_a_base_that_peft_reads(base: Path, tmp_path: Path) -> None:
    """peft takes no adapter for a base model: the merged one lies in the run's folder."""
    Trainer(recipe(tmp_path / "first", base, targets=["q_proj"], steps=2), is_quiet=True).train()
    second = recipe(tmp_path / "second", tmp_path / "first" / "adapter", targets=["v_proj"], keep=("pass@1",), steps=2)
    trainer = Trainer(second, is_quiet=True)
    trainer.train()
    ids = torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        wanted = trainer.model(input_ids=ids).logits
        for name in ("adapter", "best/pass@1/adapter"):
            folder = tmp_path / "second" / name
            theirs = AutoPeftModelForCausalLM.from_pretrained(str(folder))(input_ids=ids).logits
            torch.testing.assert_close(theirs, load_model(folder)[0](input_ids=ids).logits, atol=1e-5, rtol=1e-5)
        theirs = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "second" / "adapter"))(input_ids=ids).logits
    torch.testing.assert_close(theirs, wanted, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "first" / "base").exists(), "a base that is a model is named, not written again"
