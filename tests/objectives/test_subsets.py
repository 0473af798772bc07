"""The estimator against brute force over subsets.

1. Ĵ_N equals the average over all N-subsets, winner uniform among ties, on every ordered tuple of M ≤ 6 samples from
   six outcomes, tied scores with different rewards included.
2. The advantages of bon_rl (loo, loo1, none) are M·W_i minus N·Ĵ of the rest, on every ordered tuple of M ≤ 5 and every
   unordered one of M = 6 and 7.
3. Σ_i A_i = 0 for loo in every pool.
4. Ĵ_N is unbiased: its expectation over pools is the Best-of-N value of the policy, for every N ≤ M.
5. C(j, N)/C(M, N) are the true ratios, and bad arguments are refused.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from bontune.objectives import bon_rl
from bontune.objectives.subsets import best_of_n_value, subset_ratios
from oracles import (
    GRADED,
    NOISY,
    UNTIED,
    ExactPool,
    World,
    assert_equal_to,
    best_of_n_objective,
    multisets,
    subset_advantages,
    subset_credit,
    subset_value,
    tuples,
)

WORLDS = pytest.mark.parametrize("world", [GRADED, UNTIED, NOISY], ids=["graded", "untied", "noisy"])
M_AND_N = [(m, n) for m in range(1, 8) for n in range(1, m + 1)]


def pools_of(world: World, m: int, ordered: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    pools = tuples(len(world.logits), m) if ordered else multisets(len(world.logits), m)[0]
    return world.rewards[pools], world.scores[pools]


@WORLDS
@pytest.mark.parametrize(("m", "n"), [(m, n) for m, n in M_AND_N if m <= 6])
def test_value_equals_brute_force(world: World, m: int, n: int) -> None:
    rewards, scores = pools_of(world, m)
    assert_equal_to(best_of_n_value(rewards, scores, n), subset_value(rewards, scores, n), atol=1e-13)


@WORLDS
@pytest.mark.parametrize("baseline", ["loo", "loo1", "none"])
@pytest.mark.parametrize(("m", "n"), M_AND_N)
def test_advantages_equal_brute_force(world: World, m: int, n: int, baseline: str) -> None:
    if (baseline == "loo" and n == m) or (baseline == "loo1" and n == 1):
        with pytest.raises(ValueError, match=str(n)):
            bon_rl([0.0] * m, [0.0] * m, n, baseline)
        return
    rewards, scores = pools_of(world, m, ordered=m <= 5)
    advantages = bon_rl(rewards, scores, n, baseline)
    assert_equal_to(advantages, subset_advantages(rewards, scores, n, baseline), atol=1e-12)
    if baseline == "loo":
        assert_equal_to(advantages.sum(-1), torch.zeros(len(rewards)), atol=1e-12)


@WORLDS
@pytest.mark.parametrize(("m", "n"), [(4, 1), (4, 2), (4, 4), (5, 3)])
def test_value_is_unbiased(world: World, m: int, n: int) -> None:
    pools = tuples(len(world.logits), m)
    value = best_of_n_value(world.rewards[pools], world.scores[pools], n)
    expected = best_of_n_objective(world.rewards, world.scores, n)(world.policy)
    assert_equal_to((world.policy[pools].prod(-1) * value).sum(), expected, atol=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_integer_oracle_agrees_with_brute_force(n: int) -> None:
    """The Fractions that the large pools are compared with are themselves right."""
    rewards, scores = [0.25, 1.0, 0.0, -0.5, 0.75, 0.125], [0, 1, 1, 2, 2, 2]
    exact = ExactPool(rewards, scores)
    as_tensors = torch.tensor(rewards, dtype=torch.float64), torch.tensor(scores)
    assert float(exact.value(n)) == pytest.approx(subset_value(*as_tensors, n).item(), abs=1e-14)
    for i in range(6):
        assert float(exact.credit(n, i)) == pytest.approx(subset_credit(*as_tensors, n)[i].item(), abs=1e-14)
        for baseline in ("loo", "loo1"):
            if n + (baseline == "loo") <= 6 and n >= 1 + (baseline == "loo1"):
                by_subsets = subset_advantages(*as_tensors, n, baseline)[i].item()
                assert float(exact.advantage(n, i, baseline)) == pytest.approx(by_subsets, abs=1e-13)


@pytest.mark.parametrize(("m", "n"), [(1, 0), (1, 1), (6, 0), (6, 3), (40, 7), (500, 250), (4096, 4095), (4096, 64)])
def test_ratios_are_the_true_binomial_ratios(m: int, n: int) -> None:
    ratios = subset_ratios(m, n)
    assert ratios.shape == (m + 1,)
    whole = math.comb(m, n)
    for j in sorted({0, n - 1, n, n + 1, m // 2, m - 2, m - 1, m} & set(range(m + 1))):
        expected = float(Fraction(math.comb(j, n), whole))
        assert ratios[j].item() == pytest.approx(expected, rel=m * 1e-15, abs=1e-300)


@pytest.mark.parametrize(("m", "n", "size"), [(3, 4, None), (3, -1, None), (3, 2, 4)])
def test_impossible_ratios_are_refused(m: int, n: int, size: int | None) -> None:
    with pytest.raises(ValueError, match=f"n={n}, m={m}"):
        subset_ratios(m, n, size)
