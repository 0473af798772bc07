"""Metrics of selection: pass@k, max@k, best-of-k under a verifier, the verifier's losses, and an adaptive N."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bontune.metrics.arrays import Kind, Values, as_kind
from bontune.objectives.budgets import check_budget
from bontune.objectives.inputs import as_rewards, as_scores
from bontune.objectives.subsets import best_of_n_value, subset_ratios, tie_groups


def pass_at_k(rewards: Kind, k: int) -> Kind:
    """Probability that at least one of k samples is correct.

        pass@k = 1 − C(M−c, k) / C(M, k),   c = number of correct samples;   unbiased for every k ≤ M

    Args:
        rewards: (..., M), every one 0 or 1.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64; exactly 0 for c = 0 and exactly 1 for c > M − k.

    Raises:
        ValueError: a reward other than 0 and 1 (use :func:`max_at_k`), NaN, no sample axis, k outside 1..M.

    References:
        Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374, eq. 1.

    >>> pass_at_k([[1, 0, 0, 0], [1, 1, 0, 0]], k=2).round(4).tolist()
    [0.5, 0.8333]
    """
    rewards_PM = _binary(rewards, "pass_at_k", "for graded rewards use max_at_k")
    m = rewards_PM.shape[-1]
    ratios = subset_ratios(m, check_budget(k, m, what="k")).to(rewards_PM.device)
    return as_kind(rewards, 1.0 - ratios[m - rewards_PM.sum(-1).long()])


def pass_hat_k(rewards: Kind, k: int) -> Kind:
    """Probability pass^k that all of k samples are correct, a measure of a model's reliability.

        pass^k = C(c, k) / C(M, k),   c = number of correct samples;   unbiased for every k ≤ M

    Args:
        rewards: (..., M), every one 0 or 1.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64; exactly 1 for c = M and exactly 0 for c < k.

    Raises:
        ValueError: as :func:`pass_at_k`.

    References:
        Yao et al., τ-bench, arXiv 2406.12045.

    >>> pass_hat_k([[1, 1, 0, 0], [1, 1, 1, 1]], k=2).round(4).tolist()
    [0.1667, 1.0]
    """
    rewards_PM = _binary(rewards, "pass_hat_k", "give each sample a verdict")
    ratios = subset_ratios(rewards_PM.shape[-1], check_budget(k, rewards_PM.shape[-1], what="k"))
    return as_kind(rewards, ratios.to(rewards_PM.device)[rewards_PM.sum(-1).long()])


def max_at_k(rewards: Kind, k: int) -> Kind:
    """Expected highest reward among k samples: pass@k for graded rewards, and pass@k itself for rewards of 0 or 1.

        max@k = Σ_i C(i−1, k−1) R_(i) / C(M, k),   R_(1) ≤ … ≤ R_(M);   unbiased for every k ≤ M

    Args, Returns, Raises: as :func:`best_of_k`, with the rewards as scores.

    References:
        Walder and Karkhanis, Pass@K Policy Optimization, arXiv 2505.15201.

    >>> round(float(max_at_k([1.0, 2.0, 4.0], k=2)), 4)  # (2 + 4 + 4) / 3
    3.3333
    """
    return best_of_k(rewards, rewards, k)


def best_of_k(rewards: Kind, scores: Values, k: int) -> Kind:
    """Expected reward of the sample the verifier picks out of k: highest score, uniformly among ties.

        Ĵ_k = Σ_v [C(L_v+m_v, k) − C(L_v, k)] / C(M, k) · R̄_v

    over the scores v: L_v samples score below v, m_v score v, with mean reward R̄_v. Unbiased for every k ≤ M.

    Args:
        rewards: (..., M), finite.
        scores: (..., M), any real dtype.
        k: samples drawn, 1 ≤ k ≤ M.

    Returns:
        (...,) float64, of the kind of ``rewards``.

    Raises:
        ValueError: NaN, infinite rewards, unequal shapes, no sample axis, or k outside 1..M.

    References:
        Chow et al., Inference-Aware Fine-Tuning for Best-of-N Sampling in LLMs, arXiv 2412.15287.

    >>> round(float(best_of_k([1, 0, 0], [0.2, 0.9, 0.1], k=2)), 4)  # the correct one wins only against the third
    0.3333
    """
    rewards_PM = as_rewards(rewards)
    scores_PM = as_scores(scores, rewards_PM)
    return as_kind(rewards, best_of_n_value(rewards_PM, scores_PM, check_budget(k, rewards_PM.shape[-1], what="k")))


def oracle_gap(rewards: Kind, scores: Values, k: int) -> Kind:
    """Loss of a verifier against the oracle: max@k − best-of-k, which is pass@k − best-of-k for rewards of 0 or 1.

    Never negative; 0 for a verifier that orders the samples as the rewards do. Args, Returns, Raises: see best_of_k.

    References:
        Brown et al., Large Language Monkeys: Scaling Inference Compute, arXiv 2407.21787.

    >>> float(oracle_gap([1, 0], [0.1, 0.9], k=2))
    1.0
    """
    return (max_at_k(rewards, k) - best_of_k(rewards, scores, k)).clip(min=0.0)  # rounding can leave −1e-17


def drop_at_k(rewards: Kind, scores: Values, k: int) -> Kind:
    """Fall of best-of-k below its peak, the cost of drawing more samples than are best under this verifier.

        drop@k = best-of-j* − best-of-k,   j* = the j in {1, 2, 4, …} ∪ {k}, j ≤ k, with the highest mean over prompts

    Under a perfect verifier best-of-k never drops; under an imperfect one it may, because more samples contain more
    wrong ones that it prefers (over-optimisation). The mean over prompts is max_j best-of-j − best-of-k and never
    negative; one prompt's value may be. The budgets do not depend on those that are reported. Biased up: the peak is
    chosen on the same samples.

    Args, Returns, Raises: see best_of_k; the leading axes are the prompts.

    References:
        Gao, Schulman and Hilton, Scaling Laws for Reward Model Overoptimization, arXiv 2210.10760.

    >>> drop_at_k([[1, 1, 0], [1, 1, 0]], [[0.1, 0.2, 0.9], [0.2, 0.1, 0.9]], k=3).round(4).tolist()  # from 2/3 to 0
    [0.6667, 0.6667]
    """
    at_k = best_of_k(rewards, scores, k)
    peak = at_k
    for budget in (2**i for i in range(check_budget(k, as_rewards(rewards).shape[-1], what="k").bit_length())):
        at_budget = best_of_k(rewards, scores, budget)
        if at_budget.mean() > peak.mean():
            peak = at_budget
    return peak - at_k


def within_prompt_auc(rewards: Kind, scores: Values) -> Kind:
    """AUC of a verifier between correct and wrong samples *of the same prompt*; the prompt's difficulty cancels.

        AUC = P(score of correct > score of wrong) + ½ P(equal scores)

    Args:
        rewards: (..., M), every one 0 or 1.
        scores: (..., M), any real dtype.

    Returns:
        (...,) float64; NaN where, and only where, a prompt has no correct or no wrong sample (use ``np.nanmean``).

    Raises:
        ValueError: a reward other than 0 and 1, NaN in the inputs, unequal shapes, or no sample axis.

    References:
        Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 143(1), 1982.

    >>> within_prompt_auc([[1, 0, 0], [1, 1, 1]], [[0.5, 0.5, 0.1], [0.3, 0.2, 0.1]]).tolist()
    [0.75, nan]
    """
    rewards_PM = _binary(rewards, "within_prompt_auc", "pass correctness, not a graded reward")
    groups = tie_groups(rewards_PM, as_scores(scores, rewards_PM))
    num_correct = groups.rewards.sum(-1)
    num_pairs = num_correct * (rewards_PM.shape[-1] - num_correct)
    rank_sum = (groups.rewards * (groups.below + groups.upto + 1)).sum(-1) / 2  # mid-ranks of the correct samples
    wins = rank_sum - num_correct * (num_correct + 1) / 2
    return as_kind(rewards, torch.where(num_pairs > 0, wins / num_pairs, math.nan))


def _binary(rewards: Any, metric: str, advice: str) -> Tensor:
    rewards_PM = as_rewards(rewards)
    others = rewards_PM[(rewards_PM != 0) & (rewards_PM != 1)]
    if len(others):
        raise ValueError(f"{metric} needs rewards of 0 or 1, got {others[0].item():g}; {advice}.")
    return rewards_PM


def adaptive_best_of_n(
    rewards: Kind, scores: Values, n: int, stop_at: float, *, round_size: int = 1
) -> tuple[Kind, Kind]:
    """Expected reward and number of draws if sampling stops after the first round with a score ≥ ``stop_at``.

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
    return as_kind(rewards, reward.sum(-1)), as_kind(rewards, draws)
