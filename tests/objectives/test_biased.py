"""Estimators that are not unbiased: how far off they are, exactly.

1. dr_grpo is rloo's gradient times (M − 1)/M.
2. bon_rlb with the published sign is the true gradient times (1 + q)/(1 − q), for p_fail = q.
3. The plug-in P_fail = wrong/M: factors on the true gradient at q = .9, N = 4, M = 5, each with its derivation.
4. P_fail is clipped to [0.01, 0.99] by default.
5. bon_rl_variational (loo and none) is consistent for E_{π_var}[R]: right to 1e-8 where the pool's frequencies equal
   the policy, and its expectation converges as 1/M.
6. With values b as baseline it is right only for b = E_{π_var}[R]; otherwise off by (E_{π_var}[R] − b) E_{π_var}[h].
7. grpo tends to the gradient of 2 arcsin √s, passk_training to that of (2/N) arcsin √(1 − q^N), and the advantages of
   LOO to N q^{N−1}(R − s).
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bontune.objectives import bon_rl, bon_rl_variational, bon_rlb, bon_rlbp, dr_grpo, grpo, lambda_n, passk_training
from oracles import (
    BINARY,
    GRADED,
    World,
    assert_equal_to,
    assert_gradient,
    expected_gradient,
    finite_difference,
    from_counts,
    gradient_of_pools,
    variational_law,
    world,
)

UNCLIPPED = (0.0, 1.0)
Q9 = world([math.log(0.1), math.log(0.9)], [1.0, 0.0], [1.0, 0.0])
"""One correct and one wrong outcome, q = .9."""


def chance_of_failure(policy: Tensor, rewards: Tensor) -> Tensor:
    return (policy * (rewards == 0)).sum()


@pytest.mark.parametrize("m", [2, 3, 5])
def test_dr_grpo_falls_short_by_one_sample(m: int) -> None:
    true = finite_difference(lambda policy: (policy * GRADED.rewards).sum(), GRADED.logits)
    estimate = expected_gradient(lambda pools: dr_grpo(GRADED.rewards[pools]), GRADED.policy, m)
    assert_gradient(estimate, true * (m - 1) / m)


@pytest.mark.parametrize("baseline", ["loo", "none"])
@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_published_sign_multiplies_the_gradient(n: int, shift: float, baseline: str) -> None:
    binary = World(BINARY.logits + shift * BINARY.rewards, BINARY.rewards, BINARY.scores)
    q = chance_of_failure(binary.policy, binary.rewards)
    true = finite_difference(lambda policy: 1 - chance_of_failure(policy, binary.rewards) ** n, binary.logits)
    estimate = expected_gradient(
        lambda pools: bon_rlb(binary.rewards[pools], n, p_fail=q, sign="published", baseline=baseline, clip=UNCLIPPED),
        binary.policy,
        3,
    )
    assert_gradient(estimate, true * (1 + q) / (1 - q))


def test_published_sign_triples_the_gradient_at_one_half() -> None:
    assert (1 + 0.5) / (1 - 0.5) == 3.0
    assert bon_rlb([1.0, 0.0], n=2, p_fail=0.5, sign="published", baseline="none").tolist() == [2.0, -1.0]


def plugin_factor(objective) -> float:
    """E[estimate] over the true gradient at q = .9, N = 4, M = 5 (all ratios are equal: it is a multiple of ∇s)."""
    true = finite_difference(lambda policy: 1 - policy[1] ** 4, Q9.logits)
    estimate = expected_gradient(lambda pools: objective(Q9.rewards[pools]), Q9.policy, 5)
    factor = (estimate[0] / true[0]).item()
    assert_equal_to(estimate, factor * true, atol=1e-6)
    return factor


def test_plugin_factor_of_bon_rlbp() -> None:
    """Correct samples see p̂ = B/5 with B ~ Bin(4, .9) wrong among the others: E[(B/5)^3] / .9^3 = 0.5515."""
    cubes = sum(math.comb(4, b) * 0.9**b * 0.1 ** (4 - b) * max(b / 5, 0.01) ** 3 for b in range(5))
    assert plugin_factor(lambda rewards: bon_rlbp(rewards, 4, baseline="none")) == pytest.approx(
        cubes / 0.9**3, abs=1e-7
    )
    assert cubes / 0.9**3 == pytest.approx(0.5515, abs=5e-5)


def test_plugin_factor_of_the_centred_weight() -> None:
    """The 0.47 of the estimators' table is N p̂^{N−1} (R − R̄): the limit of LOO with the plug-in for q."""
    factor = plugin_factor(lambda rewards: 4 * (1 - rewards.mean(-1, keepdim=True)) ** 3 * dr_grpo(rewards))
    assert factor == pytest.approx(0.469, abs=5e-4)


def test_plugin_of_bon_rlb_keeps_the_direction() -> None:
    """Groups that are all right or all wrong are skipped: pushing them by the clipped weight gives −84.8."""
    assert plugin_factor(lambda rewards: bon_rlb(rewards, 4, baseline="none")) == pytest.approx(1.686, abs=5e-4)
    for baseline in ("loo", "none"):
        assert bon_rlb([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], 4, baseline=baseline).abs().max() == 0.0


def test_plugin_with_a_baseline() -> None:
    """N p̂^{N−1} times RLOO, the centred weight times M/(M − 1) = 5/4: 0.586 for both closed forms and the published
    sign's own factor (1 + p̂)/(1 − p̂) within the expectation."""
    for objective in (bon_rlb, bon_rlbp):
        assert plugin_factor(lambda rewards, objective=objective: objective(rewards, 4)) == pytest.approx(
            0.586, abs=5e-4
        )


@pytest.mark.parametrize("given", [0.0, 0.005])
def test_failure_rate_is_clipped_from_below(given: float) -> None:
    assert bon_rlbp([1.0], n=3, p_fail=given, baseline="none", clip=(0.01, 0.99)).item() == pytest.approx(3 * 0.01**2)
    torch.testing.assert_close(bon_rlb([1.0, 0.0], 3, p_fail=given), bon_rlb([1.0, 0.0], 3, p_fail=0.01))


@pytest.mark.parametrize("given", [1.0, 0.995])
def test_failure_rate_is_clipped_from_above(given: float) -> None:
    torch.testing.assert_close(bon_rlb([1.0, 0.0], 3, p_fail=given), bon_rlb([1.0, 0.0], 3, p_fail=0.99))
    torch.testing.assert_close(bon_rlbp([1.0, 0.0], 3, p_fail=given), bon_rlbp([1.0, 0.0], 3, p_fail=0.99))


def test_plugin_failure_rate_is_the_share_of_wrong_samples() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    for objective in (bon_rlb, bon_rlbp):
        assert_equal_to(objective(rewards, 3), objective(rewards, 3, p_fail=[0.75, 0.25]), atol=1e-14)
        assert_equal_to(objective(rewards, 3), objective(rewards, 3, p_fail=[[0.75], [0.25]]), atol=1e-14)


# --- the variational objective ------------------------------------------------------------------------------------

COUNTS, REWARDS, SCORES = (3, 1, 4, 2, 2), (0.3, 1.0, 0.0, -0.5, 0.8), (0.0, 1.0, 1.0, 2.0, 2.0)


def variational_objective(scores: Tensor, rewards: Tensor, n: int):
    return lambda policy: (variational_law(policy, scores, lambda_n(n)) * rewards).sum()


@pytest.mark.parametrize("n", [1, 2, 4, 12])
@pytest.mark.parametrize("copies", [1, 50])
def test_variational_is_right_where_frequencies_equal_the_policy(n: int, copies: int) -> None:
    graded, pool = from_counts([count * copies for count in COUNTS], REWARDS, SCORES)
    m = len(pool)
    true = finite_difference(variational_objective(graded.scores, graded.rewards, n), graded.logits)
    for baseline, factor in (("none", 1.0), ("loo", m / (m - 1))):
        advantages = bon_rl_variational(graded.rewards[pool], graded.scores[pool], n, baseline)
        assert_gradient(gradient_of_pools(advantages, pool, graded.policy), factor * true)


@pytest.mark.parametrize("baseline", ["none", "loo"])
def test_expectation_of_variational_converges_as_one_over_m(baseline: str) -> None:
    small = world([0.2, -0.3, 0.1], [0.0, 1.0, 0.4], [0.0, 1.0, 1.0])
    true = finite_difference(variational_objective(small.scores, small.rewards, 4), small.logits)
    errors = {}
    for m in (10, 20, 40, 80):
        estimate = expected_gradient(
            lambda pools: bon_rl_variational(small.rewards[pools], small.scores[pools], 4, baseline),
            small.policy,
            m,
            ordered=False,
        )
        errors[m] = (estimate - true).norm().item() / true.norm().item()
    assert errors[10] > 1e-3, "documented as biased"
    for m in (20, 40):
        assert errors[2 * m] == pytest.approx(errors[m] / 2, rel=0.2)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_value_baseline_is_biased_unless_exact(n: int) -> None:
    """E_{π_var}[h] = ∇log Z with Z = Σ_y π e^{λQ}, because π_var ∝ π e^{λQ} and h = ∇log(π e^{λQ})."""
    graded, pool = from_counts(COUNTS, REWARDS, SCORES)
    objective = variational_objective(graded.scores, graded.rewards, n)
    lam = lambda_n(n)
    at_most = (graded.scores.unsqueeze(-1) >= graded.scores).to(torch.float64)
    drift = finite_difference(
        lambda policy: (policy * (lam * (at_most * policy).sum(-1)).exp()).sum().log(), graded.logits
    )
    true, best = finite_difference(objective, graded.logits), objective(graded.policy).item()
    rewards, scores = graded.rewards[pool], graded.scores[pool]
    for value in (best, best + 0.1, 0.0):
        exact = torch.tensor([value], dtype=torch.float64)
        advantages = bon_rl_variational(rewards.unsqueeze(0), scores.unsqueeze(0), n, baseline=exact).squeeze(0)
        estimate = gradient_of_pools(advantages, pool, graded.policy)
        assert_gradient(estimate, true + (best - value) * drift)
        assert_equal_to(bon_rl_variational(rewards, scores, n, baseline=value), advantages, atol=1e-12)


# --- limits -------------------------------------------------------------------------------------------------------


def binary_limit(copies: int) -> tuple[World, Tensor]:
    return from_counts([2 * copies, copies, 3 * copies], (1.0, 1.0, 0.0), (1.0, 1.0, 0.0))


def test_grpo_tends_to_arcsin() -> None:
    """σ has the divisor M − 1, so the gradient at exact frequencies is short by √((M − 1)/M)."""
    binary, pool = binary_limit(50)
    m = len(pool)
    true = finite_difference(
        lambda policy: 2 * torch.asin((1 - chance_of_failure(policy, binary.rewards)).sqrt()), binary.logits
    )
    estimate = gradient_of_pools(grpo(binary.rewards[pool], epsilon=0.0), pool, binary.policy)
    assert_gradient(estimate, true * math.sqrt((m - 1) / m))


@pytest.mark.parametrize("n", [2, 4])
def test_passk_training_tends_to_arcsin_of_pass_at_n(n: int) -> None:
    binary, pool = binary_limit(1000)
    true = finite_difference(
        lambda policy: 2 / n * torch.asin((1 - chance_of_failure(policy, binary.rewards) ** n).sqrt()), binary.logits
    )
    estimate = gradient_of_pools(passk_training(binary.rewards[pool], n), pool, binary.policy)
    assert_gradient(estimate, true, atol=1e-3 * true.norm().item())


@pytest.mark.parametrize("n", [1, 2, 8])
def test_loo_tends_to_the_centred_weight(n: int) -> None:
    binary, pool = binary_limit(2000)
    rewards = binary.rewards[pool]
    limit = n * 0.5 ** (n - 1) * (rewards - 0.5)
    assert_equal_to(bon_rl(rewards, rewards, n), limit, atol=2e-3)
