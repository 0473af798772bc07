"""Contract of frozen lower layers that are computed once:

1. loss, KL and the gradient of every adapter equal those of a run that computes all layers, whether the states come
   from the draw or are computed in the update, and whether the prompt is shared or not;
2. the lower layers run only where no states were recorded, and then once for policy and anchor;
3. a model whose layers share more than hidden states is computed in whole.
"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

import families
import tiny
from bontune.engines.contract import Samples, SamplingOptions
from bontune.engines.transformers import TransformersEngine
from bontune.models.adapters import add_lora, decoder_layers
from bontune.training.advantages import sequence_logprobs
from bontune.training.anchor import Anchor
from bontune.training.forward import CausalLM
from bontune.training.rollouts import join
from bontune.training.update import Updater
from training.test_trainer import recipe, rows_of, trainer
from training.test_update import PROMPTS, M, advantages, assert_same_gradient, perturb

LAYERS = {"num_hidden_layers": 4}


def adapted(family: str, first: int = 2) -> Any:
    return add_lora(
        tiny.model(family, sharp=4.0, **LAYERS), r=4, alpha=8, targets="all-linear", layers=[first, 3]
    ).eval()


def drawn(model: Any, layer: int | None, num_samples: int = M) -> Samples:
    engine = TransformersEngine(model, tiny.tokenizer(), token_budget=200)
    options = SamplingOptions(num_samples=num_samples, max_new_tokens=10)
    with engine.keeping_states(layer):
        return engine.draw(PROMPTS, options, [(i,) for i in range(3)])


def updater_of(lm: CausalLM, token_budget: int) -> Updater:
    optimizer = torch.optim.AdamW([p for p in lm.model.parameters() if p.requires_grad], lr=1e-3)
    return Updater(
        lm,
        optimizer,
        Anchor(lm.model, 0.1),
        Accelerator(cpu=True),
        temperature=0.9,
        token_budget=token_budget,
        kl_share=0.5,
        max_grad_norm=1.0,
    )


def runs_of(model: Any, number: int) -> list[int]:
    """A list that grows with each pass of a layer's own code."""
    runs: list[int] = []
    own = decoder_layers(model)[1][number].mlp
    own.register_forward_hook(lambda *_: runs.append(number))
    return runs


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_loss_kl_and_gradient_are_those_of_all_layers(
    family: str, first: int, share_prompt: bool, is_recorded: bool
) -> None:
    model = adapted(family, first)
    samples = drawn(model, first)
    assert samples.states is not None
    budget = 97
    whole = updater_of(CausalLM(model, pad=0, share_prompt=share_prompt), budget)
    parted = updater_of(CausalLM(model, pad=0, share_prompt=share_prompt, first_trained=first), budget)
    assert parted.lm.lower is not None
    perturb(model)
    without = dataclasses.replace(samples, states=None)
    wanted = whole.accumulate(without, advantages(), kl_coef=0.3, num_prompts=3)
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    below, above = runs_of(model, 0), runs_of(model, first)
    sums = parted.accumulate(samples if is_recorded else without, advantages(), kl_coef=0.3, num_prompts=3)
    assert sums.policy == pytest.approx(wanted.policy, rel=1e-5, abs=1e-6)
    assert sums.kl == pytest.approx(wanted.kl, rel=1e-4)
    assert sums.kl > 0.001
    assert_same_gradient(model, gradient)
    assert bool(below) != is_recorded
    assert len(below) < len(above) + (not share_prompt), "once for policy and anchor, and once for the prompts alone"


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_log_probabilities_are_those_of_all_layers(family: str, share_prompt: bool, is_recorded: bool) -> None:
    model = adapted(family)
    samples = drawn(model, 2 if is_recorded else None)
    assert (samples.states is not None) == is_recorded
    rows = torch.tensor([0, 3, 7, 17])
    options: dict[str, Any] = {"temperature": 1.0, "token_budget": 60}
    parted = sequence_logprobs(
        CausalLM(model, pad=0, share_prompt=share_prompt, first_trained=2), samples, rows, **options
    )
    whole = dataclasses.replace(samples, states=None)
    plain = sequence_logprobs(CausalLM(model, pad=0, share_prompt=share_prompt), whole, rows, **options)
    torch.testing.assert_close(parted, plain, rtol=1e-5, atol=1e-4)


def test_recording_changes_no_sample_and_states_follow_their_samples() -> None:
    model = adapted("gemma2")
    plain, kept, more = drawn(model, None), drawn(model, 2), drawn(model, 2, num_samples=2)
    assert torch.equal(plain.tokens_BT, kept.tokens_BT)
    assert torch.equal(plain.logprobs_BT, kept.logprobs_BT)
    assert plain.states is None
    both = join([kept, more], pad=0)
    assert both.states is not None
    lm = CausalLM(model, pad=0, first_trained=2)
    for samples in (kept, both, kept.of_prompts([2, 0])):
        rows = torch.arange(len(samples.lengths_B))
        options: dict[str, Any] = {"temperature": 1.0, "token_budget": 1000}
        computed = sequence_logprobs(lm, dataclasses.replace(samples, states=None), rows, **options)
        torch.testing.assert_close(sequence_logprobs(lm, samples, rows, **options), computed, rtol=1e-5, atol=1e-4)
    assert join([kept, plain], pad=0).states is None


@pytest.mark.parametrize("num_shared", [0, 2])
def test_layers_that_share_keys_and_values_are_computed_in_whole(
    num_shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"layer_types": ["sliding_attention", "full_attention"] * 2, "hidden_size_per_layer_input": 8}
    shape = families.FAMILIES["gemma4"]["text_config"] | LAYERS | kinds | {"num_kv_shared_layers": num_shared}
    monkeypatch.setitem(families.FAMILIES, "gemma4", families.FAMILIES["gemma4"] | {"text_config": shape})
    model = add_lora(families.build("gemma4"), r=2, alpha=4, targets="all-linear", layers=[3]).eval()
    assert (CausalLM(model, pad=0, first_trained=3).lower is None) == (num_shared > 0)
    assert all("forward" not in vars(layer) for layer in decoder_layers(model)[1]), "the layers are as they were"


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"name": "bond", "n": 4}},
        {"training": {"updates_per_batch": 2, "minibatches": 2}, "objective": {"name": "rloo", "n": 1}},
        {"training": {"refill": {"up_to": 2.0}, "gradient_checkpointing": True}},
    ],
    ids=["bon_rl", "ratios", "several updates", "refill and checkpointing"],
)
def test_a_run_is_the_one_that_computes_all_layers(
    sections: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("parted", "whole"):
        lora = {"lora": {"r": 4, "layers": 2}, "first_step_kl": 50.0, "steps": 3, "token_budget": 60}
        training = lora | sections.get("training", {})
        settings = recipe(tmp_path / name, **(sections | {"training": training, "eval": {"every": 2, "problems": 2}}))
        run = trainer(settings, model=tiny.model("llama", sharp=2.0, num_hidden_layers=3))
        run.train()
        assert (run.lm.lower is not None) == (name == "parted")
        found.append(rows_of(tmp_path / name))
        monkeypatch.setattr(CausalLM, "_part_at", lambda *_: None)
    for parted, whole in zip(*found, strict=True):
        assert parted.keys() == whole.keys()
        for key in ("loss", "kl", "grad_norm", "entropy", "reward", "first_step_kl"):
            assert parted.get(key, 0.0) == pytest.approx(whole.get(key, 0.0), rel=1e-3, abs=1e-6), key
    assert found[0][-1]["kl"] > 0
