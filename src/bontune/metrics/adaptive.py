"""Best-of-N that stops drawing as soon as the verifier is content."""

from __future__ import annotations

import torch

from bontune.metrics.arrays import Kind, Values, like
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import as_rewards, as_scores
from bontune.objectives.subsets import subset_ratios, tie_groups


def adaptive_best_of_n(
    rewards: Kind, scores: Values, n: int, stop_at: float, *, round_size: int = 1
) -> tuple[Kind, Kind]:
    """Expected reward and number of draws where drawing ends with the first round that holds a score ≥ ``stop_at``.

    Samples are drawn in rounds of ``round_size``, N of them at most, and the highest score of all that were drawn wins,
    uniformly among ties. With h samples that score ``stop_at`` or more, the first t draws hold none of them with
    probability S(t) = C(M−h, t) / C(M, t), so that

        draws  = Σ_r b_r S(t_r)
        reward = Σ_r S(t_r) · (best of the b_r next, where it scores ≥ stop_at) + (best of N, where it scores less)

    over rounds r of b_r draws after t_r. Both are the exact means over all orders in which the M samples may be drawn,
    hence unbiased for every N ≤ M.

    Args:
        rewards: (..., M), finite.
        scores: (..., M), any real dtype.
        n: N, the most that is drawn, 1 ≤ N ≤ M.
        stop_at: the score that ends the drawing; ∞ makes this best-of-N.
        round_size: draws per round, 1 or more; the last round may have fewer.

    Returns:
        Reward and draws, (...,) float64 each, of the kind of ``rewards``.

    Raises:
        ValueError: NaN, infinite rewards, unequal shapes, no sample axis, N outside 1..M, or a round without draws.

    References:
        The rule: Kalayci et al., Optimal Stopping vs Best-of-N for Inference Time Optimization, arXiv 2510.01394. Its
        exact value from a pool: docs/estimators.md.

    >>> reward, draws = adaptive_best_of_n([1, 0, 0, 0], [0.9, 0.5, 0.2, 0.1], n=2, stop_at=0.9)
    >>> float(reward), float(draws)  # the right one ends it: in three of four orders a second draw is needed
    (0.5, 1.75)
    """
    rewards_PM = as_rewards(rewards)
    scores_PM = as_scores(scores, rewards_PM)
    m = rewards_PM.shape[-1]
    check_budget(n, m)
    if round_size < 1 or stop_at != stop_at:
        raise ValueError(f"A round has 1 draw at least and stop_at is a number, got {round_size} and {stop_at}.")
    groups = tie_groups(rewards_PM, scores_PM)
    misses_P1 = (scores_PM < stop_at).sum(-1, keepdim=True)
    is_hit = torch.arange(m, device=rewards_PM.device) >= misses_P1
    share = groups.mean / groups.num_tied

    reward, draws = torch.zeros_like(share), torch.zeros_like(misses_P1[..., 0], dtype=torch.float64)
    for start in range(0, n, round_size):
        size = min(round_size, n - start)
        none_so_far = subset_ratios(m, start).to(share.device)[misses_P1]
        # Of the M − start samples left, all that were drawn lay below every hit.
        paid = subset_ratios(m - start, size).to(share.device)
        wins = paid[(groups.upto - start).clamp(min=0)] - paid[(groups.below - start).clamp(min=0)]
        reward = reward + torch.where(is_hit, none_so_far * wins * share, 0.0)
        draws = draws + size * none_so_far[..., 0]
    paid = subset_ratios(m, n).to(share.device)
    reward = torch.where(is_hit, reward, (paid[groups.upto] - paid[groups.below]) * share)
    return like(rewards, reward.sum(-1)), like(rewards, draws)
