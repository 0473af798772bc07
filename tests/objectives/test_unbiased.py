"""Estimators that are documented as unbiased, in exact expectation.

For a softmax policy over six outcomes, all 6^M ordered pools are enumerated with their probabilities. The expectation
of (1/M) Σ_i A_i ∇log π(y_i) equals central finite differences of the stated objective to 1e-8:

1. reinforce, rloo: E[R].
2. bon_rl with loo, loo1 and none, r ≠ R with ties: E[R] of the Best-of-N policy, itself enumerated over all 6^N draws.
3. pkpo: E[max of N rewards], and 1 − q^N for 0/1 rewards.
4. maxrl: the truncation Σ_{k≤M} −q^k/k, 0/1 rewards.
5. inference_loo: E[f] of M samples, for the maximum and for a majority vote.
6. bon_rlb (exact sign) and bon_rlbp with p_fail = q: 1 − q^N, for M below and above N, with and without baseline.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bontune.objectives import bon_rl, bon_rlb, bon_rlbp, inference_loo, maxrl, pkpo, reinforce, rloo
from oracles import (
    BINARY,
    GRADED,
    LOGITS,
    NOISY,
    UNTIED,
    World,
    assert_equal_to,
    assert_gradient,
    best_of_n_objective,
    expected_gradient,
    finite_difference,
    tuples,
)

UNCLIPPED = (0.0, 1.0)
CASES = [
    (m, n, baseline)
    for m, n in [(2, 2), (3, 2), (4, 2), (4, 3), (5, 2), (5, 4), (5, 5), (3, 1)]
    for baseline, is_defined in (("loo", m > n), ("loo1", n > 1), ("none", True))
    if is_defined
]


@pytest.mark.parametrize("m", [1, 2, 3, 4])
@pytest.mark.parametrize("world", [GRADED, BINARY])
def test_reinforce_and_rloo(world: World, m: int) -> None:
    true = finite_difference(lambda policy: (policy * world.rewards).sum(), world.logits)
    assert_gradient(expected_gradient(lambda pools: reinforce(world.rewards[pools]), world.policy, m), true)
    if m >= 2:
        assert_gradient(expected_gradient(lambda pools: rloo(world.rewards[pools]), world.policy, m), true)


@pytest.mark.parametrize("world", [GRADED, UNTIED, NOISY, BINARY], ids=["graded", "untied", "noisy", "binary"])
@pytest.mark.parametrize(("m", "n", "baseline"), CASES)
def test_bon_rl(world: World, m: int, n: int, baseline: str) -> None:
    true = finite_difference(best_of_n_objective(world.rewards, world.scores, n), world.logits)
    estimate = expected_gradient(
        lambda pools: bon_rl(world.rewards[pools], world.scores[pools], n, baseline), world.policy, m
    )
    assert_gradient(estimate, true)


@pytest.mark.parametrize("baseline", ["loo", "loo1", "none"])
def test_bon_rl_with_six_samples(baseline: str) -> None:
    true = finite_difference(best_of_n_objective(GRADED.rewards, GRADED.scores, 3), GRADED.logits)
    estimate = expected_gradient(
        lambda pools: bon_rl(GRADED.rewards[pools], GRADED.scores[pools], 3, baseline), GRADED.policy, 6
    )
    assert_gradient(estimate, true)


@pytest.mark.parametrize("logit", [-40.0, -12.0, 12.0])
def test_bon_rl_where_almost_all_or_almost_none_fail(logit: float) -> None:
    """At q ≈ 1 (4e-18, 6e-6 correct) and q ≈ 0 nothing is clipped or divided by."""
    world = World(
        torch.tensor([logit, 0.0, 0.0], dtype=torch.float64),
        torch.eye(3, dtype=torch.float64)[0],
        torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64),
    )
    true = finite_difference(best_of_n_objective(world.rewards, world.scores, 3), world.logits)
    for baseline in ("loo", "loo1", "none"):
        estimate = expected_gradient(
            lambda pools, baseline=baseline: bon_rl(world.rewards[pools], world.scores[pools], 3, baseline),
            world.policy,
            5,
        )
        assert_equal_to(estimate, true)


@pytest.mark.parametrize("world", [GRADED, BINARY], ids=["graded", "binary"])
@pytest.mark.parametrize("baseline", ["loo", "loo1", "none"])
@pytest.mark.parametrize(("m", "n"), [(3, 2), (4, 3), (5, 2), (5, 4)])
def test_pkpo(world: World, baseline: str, m: int, n: int) -> None:
    draws = tuples(6, n)
    highest = world.rewards[draws].amax(-1)
    true = finite_difference(lambda policy: (policy[draws].prod(-1) * highest).sum(), world.logits)
    estimate = expected_gradient(lambda pools: pkpo(world.rewards[pools], n, baseline), world.policy, m)
    assert_gradient(estimate, true)
    if world is BINARY:
        assert_gradient(estimate, finite_difference(lambda policy: 1 - fails(policy) ** n, world.logits))


def fails(policy: Tensor) -> Tensor:
    return (policy * (BINARY.rewards == 0)).sum()


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_maxrl_optimises_the_truncated_log(m: int) -> None:
    true = finite_difference(lambda policy: -sum(fails(policy) ** k / k for k in range(1, m)), BINARY.logits)
    assert_gradient(expected_gradient(lambda pools: maxrl(BINARY.rewards[pools]), BINARY.policy, m), true)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
@pytest.mark.parametrize("world", [GRADED, BINARY], ids=["graded", "binary"])
def test_inference_loo_of_the_maximum(world: World, m: int) -> None:
    draws = tuples(6, m)
    highest = world.rewards[draws].amax(-1)
    true = finite_difference(lambda policy: (policy[draws].prod(-1) * highest).sum(), world.logits)
    assert_gradient(expected_gradient(lambda pools: inference_loo(world.rewards[pools]), world.policy, m), true)


def majority_reward(answers: Tensor) -> Tensor:
    """Outcomes write answers 0, 0, 1, 1, 2, 3 and answer 1 is right: its share among the most frequent answers."""
    votes = torch.stack([(answers == answer).sum(-1) for answer in range(4)], dim=-1)
    is_top = (votes == votes.amax(-1, keepdim=True)).to(torch.float64)
    return is_top[..., 1] / is_top.sum(-1)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_inference_loo_of_a_majority_vote(m: int) -> None:
    answers = torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    draws = tuples(6, m)
    worth = majority_reward(answers[draws])
    true = finite_difference(lambda policy: (policy[draws].prod(-1) * worth).sum(), logits)
    estimate = expected_gradient(lambda pools: inference_loo(answers[pools], majority_reward), logits.softmax(-1), m)
    assert_gradient(estimate, true)


@pytest.mark.parametrize("m", [1, 2, 4, 5])
@pytest.mark.parametrize("n", [1, 2, 4, 32])
@pytest.mark.parametrize("baseline", ["loo", "none"])
def test_closed_forms_with_the_true_failure_rate(m: int, n: int, baseline: str) -> None:
    q = fails(BINARY.policy)
    given = {"p_fail": q, "baseline": baseline, "clip": UNCLIPPED}
    true = finite_difference(lambda policy: 1 - fails(policy) ** n, BINARY.logits)
    for objective in (bon_rlb, bon_rlbp):
        if baseline == "loo" and m == 1:
            with pytest.raises(ValueError, match="1 samples per prompt, needs at least 2"):
                objective(BINARY.rewards[:1], n, **given)
            continue
        estimate = expected_gradient(
            lambda pools, objective=objective: objective(BINARY.rewards[pools], n, **given), BINARY.policy, m
        )
        assert_equal_to(estimate, true)


@pytest.mark.parametrize("p_fail", [None, 0.3])
def test_with_a_baseline_both_closed_forms_are_one(p_fail: float | None) -> None:
    """N p^{N−1} (R_i − mean of the others' R): the constant that the exact sign puts on every sample is gone."""
    rewards = BINARY.rewards[tuples(6, 4)]
    p = (1 - rewards.mean(-1, keepdim=True)).clamp(0.01, 0.99) if p_fail is None else p_fail
    expected = 5 * p**4 * rloo(rewards)
    for objective in (bon_rlb, bon_rlbp):
        assert_equal_to(objective(rewards, 5, p_fail), expected, atol=1e-12)


def test_the_true_failure_rate_as_a_number_is_not_rounded() -> None:
    """A Python float is a double: p_fail=0.9 is the same rate as a float64 tensor of 0.9."""
    for objective in (bon_rlb, bon_rlbp):
        as_tensor = objective([[1, 0]], 32, p_fail=torch.tensor([0.9], dtype=torch.float64))
        for given in (0.9, [0.9]):
            assert_equal_to(objective([[1, 0]], 32, p_fail=given), as_tensor, atol=1e-12)


def test_enumerated_binary_objective_is_one_minus_q_to_the_n() -> None:
    """The two oracles of this file agree with each other."""
    for n in (1, 2, 5):
        objective = best_of_n_objective(BINARY.rewards, BINARY.scores, n)
        assert objective(BINARY.policy).item() == pytest.approx(1 - BINARY.p_fail**n, abs=1e-14)
