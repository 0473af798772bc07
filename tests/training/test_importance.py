"""Samples of another policy:

1. weights are what the proximal objective's and the truncated ratio's definitions say, by autograd and by hand;
2. the update with them has the gradient of the objective on the whole sequences, for each model family;
3. where policy and engine agree all ratios are 1, and the update is the plain one;
4. by enumeration: the ratio on a sample's own advantage makes plain RL's gradient exact under another policy, and takes
   a small part of the bias of the Best-of-N gradient, whose other samples are still the other policy's;
5. several updates per batch take every prompt equally often; what cannot work is refused in a sentence; the ratio's
   numbers are in the metrics.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from bontune import Recipe, Trainer
from bontune.base.errors import BontuneError, RunStopped
from bontune.config import load_recipe
from bontune.engines.transformers import TransformersEngine
from bontune.models import load_model
from bontune.objectives import bon_rl
from bontune.training.batches import prompts_of_updates, ratio_options
from bontune.training.importance import RatioOptions, RatioSums, weigh_by_ratio
from training.test_update import M, advantages, assert_same_gradient, perturb, set_up

LENGTHS = torch.tensor([3, 1, 4])
OPTIONS = {
    "token_clip": RatioOptions(importance="token_clip", cap=1.1),
    "sequence_truncate": RatioOptions(importance="sequence_truncate", cap=1.2),
    "clip token": RatioOptions(clip="token", clip_range=0.15),
    "clip sequence": RatioOptions(clip="sequence", clip_range=0.2),
}


def surrogate(now: torch.Tensor, drawn: torch.Tensor, advantage: torch.Tensor, options: RatioOptions) -> torch.Tensor:
    """The objective of one sequence whose gradient is wanted; ``advantage`` is a number."""
    log_ratio = now - drawn
    ratio = log_ratio.sum().exp() if options.are_of_sequences else log_ratio.exp()
    if options.importance != "none":
        return (ratio.detach().clamp(max=options.cap) * advantage * (now.sum() if ratio.ndim == 0 else now)).sum()
    near = ratio.clamp(1 - options.clip_range, 1 + options.clip_range)
    return torch.minimum(ratio * advantage, near * advantage).sum()


@pytest.mark.parametrize("name", OPTIONS)
def test_weights_are_the_objectives_slopes(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    now = torch.randn(8, generator=generator, dtype=torch.float64) - 2
    drawn = now + 0.3 * torch.randn(8, generator=generator, dtype=torch.float64)
    advantage = torch.tensor([1.5, -0.5, -2.0], dtype=torch.float64)
    leaf = now.clone().requires_grad_()
    parts = zip(leaf.split(LENGTHS.tolist()), drawn.split(LENGTHS.tolist()), advantage, strict=True)
    torch.stack([surrogate(a, b, c, OPTIONS[name]) for a, b, c in parts]).sum().backward()
    weights, sums = weigh_by_ratio(advantage.repeat_interleave(LENGTHS), now, drawn, LENGTHS, OPTIONS[name])
    torch.testing.assert_close(weights, leaf.grad)
    assert sums.truncated > 0, "the case holds a ratio beyond its bound"


def test_numbers_are_their_definitions() -> None:
    now, drawn = torch.tensor([-1.0, -2.0, -0.5, -1.0]), torch.tensor([-1.1, -1.9, -0.9, -1.2])
    _, sums = weigh_by_ratio(torch.ones(4), now, drawn, torch.tensor([2, 2]), RatioOptions(clip="token"))
    rho = torch.tensor([0.0, 0.6]).double().exp()
    token = (now - drawn).double()
    assert sums.numbers() == pytest.approx(
        {
            "ratio": rho.mean().item(),
            "effective_samples": (rho.sum() ** 2 / (2 * rho.square().sum())).item(),
            "truncated": 2 / 4,  # e^0.4 and e^0.2 lie above 1.2
            "engine_kl": (token.exp() - 1 - token).sum().item() / 2,
        },
        rel=1e-6,
    )
    assert RatioSums.of(sums.values()) == sums


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_gradient_is_that_of_the_whole_sequences(family: str, name: str) -> None:
    model, samples, updater, _ = set_up(family, token_budget=90)
    updater.ratios, updater.measures_ratios = OPTIONS[name], True
    perturb(model, scale=0.05)
    a = advantages()
    model.zero_grad(set_to_none=True)
    loss = torch.zeros(())
    for b, (tokens, length) in enumerate(zip(samples.tokens_BT, samples.lengths_B.tolist(), strict=True)):
        prompt = samples.prompts[b // M]
        ids = torch.tensor([prompt + tokens[:length].tolist()])
        logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float() / 0.9
        now = logits.log_softmax(-1).gather(-1, tokens[:length, None]).squeeze(-1)
        loss = loss - surrogate(now, samples.logprobs_BT[b, :length], a.flatten()[b], OPTIONS[name]) / (3 * M)
    loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    sums = updater.accumulate(samples, a, kl_coef=0.0, num_prompts=3)
    assert_same_gradient(model, expected, 1e-4)
    assert sums.ratios.samples == 3 * M
    assert sums.ratios.truncated > 0


def test_where_engine_and_policy_agree_all_ratios_are_one() -> None:
    model, samples, updater, _ = set_up("qwen2")
    updater.accumulate(samples, advantages(), kl_coef=0.0, num_prompts=3)
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for options in OPTIONS.values():
        updater.ratios, updater.measures_ratios = options, True
        model.zero_grad(set_to_none=True)
        numbers = updater.accumulate(samples, advantages(), kl_coef=0.0, num_prompts=3).ratios.numbers()
        assert_same_gradient(model, plain)
        assert numbers == pytest.approx({"ratio": 1, "effective_samples": 1, "truncated": 0, "engine_kl": 0}, abs=1e-5)


def test_a_ratio_that_is_not_finite_stops_the_update() -> None:
    model, samples, updater, _ = set_up("qwen2")
    updater.ratios, updater.measures_ratios = OPTIONS["token_clip"], True
    samples.logprobs_BT[0, 0] = -2000.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(RunStopped, match="no finite ratio"):
        updater.step(samples, advantages(), kl_coef=0.0, num_prompts=3)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


# ---- bias ----

REWARDS = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
SCORES = torch.tensor([0.2, 0.2, 0.9, 0.6], dtype=torch.float64)  # a tie, and a wrong answer that is preferred
N, POOL = 3, 5


def biases(distance: float, n: int = N) -> dict[str, float]:
    """Largest error of the expected gradient under μ by treatment, over the exact gradient's largest entry."""
    mu = torch.tensor([0.3, -0.4, 0.1, 0.0], dtype=torch.float64)
    moved = mu + distance * torch.tensor([0.5, -1.0, -0.3, 0.8], dtype=torch.float64)
    pools = torch.tensor(list(itertools.product(range(4), repeat=POOL)))
    log_mu, log_pi = mu.log_softmax(0), moved.log_softmax(0)
    a = bon_rl(REWARDS[pools], SCORES[pools], n, baseline="loo")
    score_function = torch.eye(4, dtype=torch.float64)[pools] - log_pi.exp()

    def expected(weights: torch.Tensor, log_p: torch.Tensor) -> torch.Tensor:
        return torch.einsum("b,bm,bmk->k", log_p[pools].sum(-1).exp(), a * weights, score_function) / POOL

    exact = expected(torch.ones_like(a), log_pi)
    log_ratio = (log_pi - log_mu)[pools]
    found = {"none": torch.ones_like(a)}
    for name, options in {
        "first order": RatioOptions(importance="token_clip", cap=1e9),
        "cap 1.2": RatioOptions(importance="token_clip", cap=1.2),
    }.items():
        ones = torch.ones(pools.numel(), dtype=torch.float64)
        flat = weigh_by_ratio(ones, log_ratio.flatten(), 0 * ones, ones.long(), options)[0]
        found[name] = flat.view(pools.shape)
    return {
        name: float((expected(weights, log_mu) - exact).abs().max() / exact.abs().max())
        for name, weights in found.items()
    }


def test_the_bias_with_and_without_weights() -> None:
    plain_rl = biases(0.4, n=1)
    assert plain_rl["none"] > 0.05
    assert plain_rl["first order"] < 1e-12, "leave-one-out baselines cost nothing under another policy either"
    rows = {distance: biases(distance) for distance in (0.4, 0.2, 0.1, 0.05)}
    for distance, row in rows.items():
        print(distance, {name: f"{value:.1%}" for name, value in row.items()})
        assert row["first order"] < row["none"]
        assert row["cap 1.2"] < row["none"]
    for name in ("none", "first order"):
        assert rows[0.05][name] == pytest.approx(rows[0.1][name] / 2, rel=0.2), "of first order in the distance"


# ---- recipes and runs ----


def recipe(tmp_path: Path, *overrides: str) -> Recipe:
    return load_recipe(
        "countdown",
        [
            "training.steps=3",
            "training.prompts_per_step=4",
            "sampling.samples=18",
            "eval.every=0",
            "training.device=cpu",
            f"run={tmp_path / 'run'}",
            *overrides,
        ],
    )


def test_each_pass_takes_every_prompt_once(tmp_path: Path) -> None:
    settings = recipe(tmp_path, "training.updates_per_batch=6", "training.minibatches=2")
    updates = prompts_of_updates(settings, 8, 5, 0)
    assert [len(update) for update in updates] == [4] * 6
    passes = [updates[i] + updates[i + 1] for i in (0, 2, 4)]
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert updates[0] != updates[2], "each pass has an order of its own"
    assert updates == prompts_of_updates(settings, 8, 5, 0) != prompts_of_updates(settings, 8, 6, 0)
    assert prompts_of_updates(recipe(tmp_path, "training.updates_per_batch=2"), 3, 1, 0) == [[0, 1, 2]] * 2


@pytest.mark.parametrize(
    ("overrides", "phrase"),
    [
        (["training.updates_per_batch=2", "objective.draw=winner"], "take draw=all"),
        (["training.importance=token_clip", "objective={name: sft, n: 1}"], "imitates given answers"),
        (["training.importance=token_clip", "training.clip=token"], "not both"),
        (["training.minibatches=4", "training.updates_per_batch=2"], "would use only 2"),
        (["training.minibatches=3", "training.updates_per_batch=3"], "does not split evenly"),
        (["engine.gpu_memory=0.5"], "gpu_memory is for name=vllm"),
        (["training.importance_cap=0.5", "training.importance=token_clip"], "at least 1"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(tmp_path: Path, overrides: list[str], phrase: str) -> None:
    with pytest.raises(BontuneError, match=rf"^[^\n]*{phrase}[^\n]*\.$"):
        Trainer(recipe(tmp_path, *overrides), is_quiet=True)
    assert not (tmp_path / "run").exists()


def test_auto_clips_where_samples_are_used_again(tmp_path: Path) -> None:
    assert not ratio_options(recipe(tmp_path)).are_used
    assert ratio_options(recipe(tmp_path, "training.updates_per_batch=2")) == RatioOptions(clip="token")
    both = ["training.updates_per_batch=2", "training.importance=sequence_truncate", "training.importance_cap=3"]
    assert ratio_options(recipe(tmp_path, *both)) == RatioOptions(importance="sequence_truncate", cap=3)


def rows_of(settings: Recipe, **given: Any) -> list[dict[str, Any]]:
    Trainer(settings, is_quiet=True, **given).train()
    lines = (Path(settings.run) / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "step"]


def test_metrics_have_the_ratios_where_they_are_used_alone(tmp_path: Path) -> None:
    plain = rows_of(recipe(tmp_path / "a"))
    assert not {"ratio", "engine_kl", "truncated"} & plain[0].keys()
    weighed = rows_of(recipe(tmp_path / "b", "training.importance=sequence_truncate"))
    for before, row in zip(plain, weighed, strict=True):
        assert row["ratio"] == pytest.approx(1, abs=1e-4)
        assert row["reward"] == before["reward"], "own engine, one update: nothing changes but rounding"
    reused = rows_of(recipe(tmp_path / "c", "training.updates_per_batch=4", "training.minibatches=2"))
    assert reused[-1]["engine_kl"] > 1e-5, "the policy moves away from the one that drew"


@pytest.mark.parametrize("name", ["rloo", "sft", "bon_sft", "vbon"])
def test_another_engines_ratios_are_measured_where_all_sequences_are_its_own(tmp_path: Path, name: str) -> None:
    """Demonstrations were drawn by nobody, and the anchor's samples by the anchor: they have no ratio to an engine."""
    model, tokenizer = load_model("countdown-tiny")
    engine = TransformersEngine(model, tokenizer)
    engine.limits = replace(engine.limits, has_seeds=False)
    settings = recipe(tmp_path, f"objective={{name: {name}, n: {1 if name in ('rloo', 'sft') else 4}}}")
    rows = rows_of(settings, model=model, tokenizer=tokenizer, engine=engine)
    assert all(("ratio" in row) == (name == "rloo") for row in rows)


def test_every_update_is_taken_and_a_step_that_has_begun_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped run saves whole steps: after its first update a step cannot be interrupted any more."""
    trainer = Trainer(recipe(tmp_path, "training.updates_per_batch=4", "training.minibatches=2"), is_quiet=True)
    plain_step, can_stop, sizes = trainer.updater.step, [], []

    def step(samples: Any, *given: Any, poll: Any, num_prompts: int, **more: Any) -> Any:
        can_stop.append(poll is not None)
        sizes.append((len(samples.prompts), num_prompts))
        return plain_step(samples, *given, poll=poll, num_prompts=num_prompts, **more)

    monkeypatch.setattr(trainer.updater, "step", step)
    trainer.train()
    assert can_stop == [True, False, False, False] * 3
    assert sizes == [(2, 2)] * 12, "each update is a mean over its own prompts"
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {12}
