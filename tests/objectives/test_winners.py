"""Training on Best-of-N winners only (draw: winner).

1. draw_winners returns, per consecutive group of N, an index of a highest score; ties are uniform and follow the
   generator.
2. bon_rlb (exact) and bon_rlbp on winners are unbiased for 1 − q^N with p_fail = q: all 6^M pools and all tie-breaks
   are enumerated; the published sign is (1 + q)/(1 − q) times that. So with the value baseline as without.
3. bon_rl on winners has the score of the exact Best-of-N law: where the pool's frequencies equal π and the winners'
   equal π_bon, the estimate is G/(G − 1) times the true gradient (leave-one-out baseline), and a single winner is right
   for any b.
4. bon_rl_variational on winners is E_bon[(R − b)(∇log π + λ_N ∇Q)] in the same limit.
5. Losers get 0 from the closed forms; an unused rest of M mod N samples is allowed; batches equal single prompts.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from bontune.objectives import WINNER_OBJECTIVES, draw_winners, lambda_n, winner_advantages
from oracles import (
    BINARY,
    World,
    assert_equal_to,
    assert_gradient,
    best_of_n_objective,
    finite_difference,
    from_counts,
    gradient_of_pools,
    tuples,
)

UNCLIPPED = (0.0, 1.0)
TRUE_RATE = torch.tensor(BINARY.p_fail, dtype=torch.float64)


def expected_winner_gradient(name: str, m: int, n: int, **options: str) -> Tensor:
    """E of the estimate over all ordered pools and all ways to break ties, for BINARY with p_fail = q."""
    pools = tuples(6, m)
    rewards, scores = BINARY.rewards[pools], BINARY.scores[pools]
    num_groups = m // n
    grouped = scores[:, : num_groups * n].reshape(-1, num_groups, n)
    is_best = (grouped == grouped.amax(-1, keepdim=True)).to(torch.float64)
    chance = is_best / is_best.sum(-1, keepdim=True)
    total = torch.zeros(6, dtype=torch.float64)
    for choice in itertools.product(range(n), repeat=num_groups):
        picked = torch.tensor(choice)
        weight = BINARY.policy[pools].prod(-1) * chance[:, torch.arange(num_groups), picked].prod(-1)
        winners = (picked + n * torch.arange(num_groups)).expand(len(pools), -1)
        advantages = winner_advantages(name, rewards, scores, n, winners, p_fail=TRUE_RATE, clip=UNCLIPPED, **options)
        total += (weight.unsqueeze(-1) * gradient_of_pools(advantages, pools, BINARY.policy)).sum(0)
    return total


@pytest.mark.parametrize("baseline", ["loo", "none"])
@pytest.mark.parametrize(("m", "n"), [(2, 2), (4, 2), (5, 2), (3, 3), (4, 4), (2, 1)])
def test_closed_forms_on_winners_are_unbiased(m: int, n: int, baseline: str) -> None:
    q = BINARY.p_fail
    true = finite_difference(best_of_n_objective(BINARY.rewards, BINARY.scores, n), BINARY.logits)
    assert_gradient(expected_winner_gradient("bon_rlbp", m, n, baseline=baseline), true)
    assert_gradient(expected_winner_gradient("bon_rlb", m, n, baseline=baseline), true)
    published = expected_winner_gradient("bon_rlb", m, n, baseline=baseline, sign="published")
    assert_gradient(published, true * (1 + q) / (1 - q))


# --- where all frequencies are exact ------------------------------------------------------------------------------

COUNTS, REWARDS, SCORES = (1, 2, 1, 2), (0.3, 1.0, 0.0, 0.6), (0.0, 1.0, 1.0, 2.0)


def exact_winners(n: int) -> tuple[World, Tensor, Tensor]:
    """A pool of 6 with π = (1, 2, 1, 2)/6 and winners with frequencies π_bon.

    Of 6^N draws a score group wins C_≤^N − C_<^N, and within it an outcome its share of the counts: 1 for outcome 0,
    2/3 and 1/3 of 4^N − 1 for outcomes 1 and 2 (divisible by 3), 6^N − 4^N for outcome 3.
    """
    graded, pool = from_counts(COUNTS, REWARDS, SCORES)
    wins = [1, 2 * (4**n - 1) // 3, (4**n - 1) // 3, 6**n - 4**n]
    assert sum(wins) == 6**n
    first = [0, 1, 3, 4]  # where each outcome stands in the pool
    return graded, pool, torch.repeat_interleave(torch.tensor(first), torch.tensor(wins))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_exact_score_of_the_best_of_n_law(n: int) -> None:
    graded, pool, winners = exact_winners(n)
    rewards, scores = graded.rewards[pool], graded.scores[pool]
    true = finite_difference(best_of_n_objective(graded.rewards, graded.scores, n), graded.logits)
    advantages = winner_advantages("bon_rl", rewards, scores, n, winners)
    num_draws = len(winners)
    assert_gradient(gradient_of_pools(advantages, pool, graded.policy), true * num_draws / (num_draws - 1))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("p_fail", [None, 0.1, 0.8])
def test_a_single_winner_is_right_for_any_baseline(n: int, p_fail: float | None) -> None:
    graded, pool, winners = exact_winners(n)
    num_draws = len(winners)
    rewards, scores = graded.rewards[pool].expand(num_draws, -1), graded.scores[pool].expand(num_draws, -1)
    true = finite_difference(best_of_n_objective(graded.rewards, graded.scores, n), graded.logits)
    advantages = winner_advantages("bon_rl", rewards, scores, n, winners.unsqueeze(-1), p_fail=p_fail)
    estimate = gradient_of_pools(advantages, pool.expand(num_draws, -1), graded.policy).mean(0)
    assert_gradient(estimate, true)


@pytest.mark.parametrize("n", [2, 3])
def test_variational_score_on_winners(n: int) -> None:
    graded, pool, winners = exact_winners(n)
    num_draws = len(winners)
    law = torch.bincount(pool[winners], minlength=4).to(torch.float64) / num_draws
    policy = graded.policy
    score = torch.eye(4, dtype=torch.float64) - policy  # ∇log π(y), one row an outcome
    at_most = (graded.scores.unsqueeze(-1) >= graded.scores).to(torch.float64)
    gain = score + lambda_n(n) * (at_most * policy) @ score
    centred = graded.rewards - (law * graded.rewards).sum()
    expected = (law * centred) @ gain * num_draws / (num_draws - 1)
    advantages = winner_advantages("bon_rl_variational", graded.rewards[pool], graded.scores[pool], n, winners)
    assert_gradient(gradient_of_pools(advantages, pool, policy), expected)


# --- draws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n"), [(6, 1), (6, 2), (7, 3), (5, 5)])
def test_winners_have_the_highest_score_of_their_group(m: int, n: int) -> None:
    scores = torch.randint(0, 3, (4, 5, m), generator=torch.Generator().manual_seed(1))
    winners = draw_winners(scores, n, torch.Generator().manual_seed(2))
    assert winners.shape == (4, 5, m // n)
    assert winners.dtype == torch.int64
    for group in range(m // n):
        members = scores[..., group * n : (group + 1) * n]
        assert bool((winners[..., group] // n == group).all())
        assert bool((scores.gather(-1, winners)[..., group] == members.amax(-1)).all())


def test_ties_are_broken_uniformly() -> None:
    """30,000 draws from 3 tied samples: each share is 1/3 within 5 standard errors (0.0027 each)."""
    scores = torch.tensor([0.0, 1.0, 1.0, 1.0]).expand(30_000, -1)
    winners = draw_winners(scores, 4, torch.Generator().manual_seed(3))
    shares = torch.bincount(winners.flatten(), minlength=4) / 30_000
    assert shares[0] == 0
    assert bool((shares[1:] - 1 / 3).abs().max() < 5 * 0.0028)


def test_the_generator_decides_the_ties() -> None:
    scores = torch.zeros(8, 12)
    first, again = (draw_winners(scores, 4, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, draw_winners(scores, 4, torch.Generator().manual_seed(5)))
    state = torch.random.get_rng_state()
    draw_winners(scores, 4, torch.Generator().manual_seed(4))
    assert torch.equal(state, torch.random.get_rng_state()), "a given generator must leave the global one alone"


@pytest.mark.parametrize("scores", [[float("-inf")] * 3, [float("inf"), 0.0, float("inf")], [True, False, True]])
def test_draws_from_unusual_scores(scores: list[float]) -> None:
    winner = draw_winners(scores, 3, torch.Generator().manual_seed(0)).item()
    assert scores[winner] == max(scores)


@pytest.mark.parametrize("name", ["bon_rlb", "bon_rlbp"])
def test_samples_that_did_not_win_get_nothing(name: str) -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    advantages = winner_advantages(name, rewards, rewards, 2, torch.tensor([0, 3]), p_fail=0.5)
    assert advantages[[1, 2, 4]].tolist() == [0.0, 0.0, 0.0]
    assert advantages[0] > 0


@pytest.mark.parametrize("name", WINNER_OBJECTIVES)
def test_batches_of_winners_equal_single_prompts(name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    rewards = torch.randint(0, 2, (2, 3, 8), generator=generator).double()
    scores = torch.randint(0, 3, (2, 3, 8), generator=generator)
    winners = draw_winners(scores, 2, generator)
    together = winner_advantages(name, rewards, scores, 2, winners)
    for a, b in itertools.product(range(2), range(3)):
        alone = winner_advantages(name, rewards[a, b], scores[a, b], 2, winners[a, b])
        assert_equal_to(together[a, b], alone, atol=1e-12)
