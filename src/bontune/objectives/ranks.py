"""Objectives that pay N samples by rank: Best-of-N, the mean of the best m, the tail, several budgets at once.

A linear rank objective pays the reward of the sample that the verifier ranks j-th among N draws with weight α_j:

    J_α = E Σ_j α_j R(y_(j)),     y_(1) the verifier's best, ties broken uniformly

One estimator covers all of them, for any verifier and any reward (the theorem of docs/estimators.md). In a pool of M
samples, a place with l samples below it is ranked j-th in C(M−1−l, j−1) C(l, N−j) of the C(M, N) subsets, so it pays

    w_M(l) = Σ_j α_j C(M−1−l, j−1) C(l, N−j) / C(M, N)

Best-of-N is α = (1), plain RL α = (1/N, …, 1/N). Weights of several objectives are averaged place by place.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.budgets import TOLERANCE, Budgets, as_budgets
from bontune.objectives.inputs import as_advantages, as_rewards, as_scores
from bontune.objectives.subsets import gain_over_rest, subset_ratios, tie_groups

Baseline = Literal["loo", "loo1", "none"]
Alphas = tuple[float, ...]
"""α_1, α_2, …; ranks after the last are not paid."""
Named = Literal["best_of", "top_m", "cvar", "mean"]
BEST: Alphas = (1.0,)


def rank(
    rewards: Any,
    scores: Any = None,
    n: Budgets | None = None,
    weights: Named | Sequence[float] = "best_of",
    *,
    m: int = 4,
    share: float = 0.25,
    baseline: Baseline = "loo",
) -> Tensor:
    """Return the exact gradient of any linear rank objective, from all M samples, ties allowed.

        loo    A_i = M (Ĵ − Ĵ⁽⁻ⁱ⁾), Ĵ⁽⁻ⁱ⁾ the value of the pool without i; Σ_i A_i = 0
        loo1   A_i = M (Ĵ − the same subsets with i ranked last in them and paid nothing)
        none   A_i = M W_i, W_i the part of Ĵ from subsets that contain i

    Args:
        rewards: (..., M), float, int or bool.
        scores: (..., M), by which samples are ranked; only order and ties matter. None: the reward itself, r = R.
        n: N, or weights of several, such as ``{1: 0.5, 16: 0.5}``, that sum to one. Required.
        weights: α: ``best_of`` pays the best of N; ``top_m`` the mean of the best ``m``; ``cvar`` the mean of the worst
            ``share`` of the N (the conditional value at risk, when scores are the rewards); ``mean`` the mean of all
            N; or numbers α_1, α_2, … that sum to one, of which some may be negative.
        m: number of samples that ``top_m`` pays.
        share: share of the N samples that ``cvar`` pays, in (0, 1].
        baseline: see above. ``loo`` needs M ≥ N + 1, the others M ≥ N. ``loo1`` needs weights that do not pay the last
            of the N; among several budgets, the one of N = 1 takes ``loo`` with it.

    Returns:
        (..., M) advantages, mean form, in the rewards' floating dtype (float64 for integers and bools). Unbiased.

    Raises:
        ValueError: no n, too few samples for n and baseline, weights that do not sum to one or pay more ranks than N,
            ``loo1`` with weights that pay the last rank, unequal shapes, NaN, infinite rewards.

    References:
        r = R: arXiv 2606.06096 (OrderGrad). r ≠ R and ties: derived here, docs/estimators.md.

    >>> rank([1.0, 0.0, 1.0, 0.0], [3, 2, 1, 0], n=2, weights="mean").round(decimals=4).tolist()  # RLOO
    [0.6667, -0.6667, 0.6667, -0.6667]
    """
    return advantages_by_rank(rewards, scores, n, lambda budget: alphas_of(weights, budget, m, share), baseline)


def alphas_of(weights: str | Sequence[float], n: int, m: int = 4, share: float = 0.25) -> Alphas:
    """Return α_1 … α_N of :func:`rank`, without the zeros behind the last weight.

    Raises:
        ValueError: an unknown name, numbers that do not sum to one or more than N of them, m or share out of range.

    >>> alphas_of("top_m", 4, m=2), alphas_of("cvar", 4, share=0.375)
    ((0.5, 0.5), (0.0, 0.0, 0.3333333333333333, 0.6666666666666666))
    """
    if not isinstance(weights, str):
        return _own_alphas(weights, n)
    if weights == "best_of":
        return BEST
    if weights == "mean":
        return (1 / n,) * n
    if weights == "top_m":
        if not isinstance(m, int) or not 1 <= m <= n:
            raise ValueError(f"weights=top_m pays the best m of n = {n}: m is a whole number from 1 to {n}, got {m}.")
        return (1 / m,) * m
    if weights == "cvar":
        if not 0 < share <= 1:
            raise ValueError(f"weights=cvar pays the worst share of the samples: share lies in (0, 1], got {share:g}.")
        tail = max(share * n, 1.0)  # fewer than one sample has no mean
        return tuple(min(max(tail - (n - j), 0.0), 1.0) / tail for j in range(1, n + 1))
    raise ValueError(f"weights must be best_of, top_m, cvar, mean or numbers, got {weights!r}.")


def _own_alphas(weights: Sequence[float], n: int) -> Alphas:
    try:
        alphas = tuple(map(float, weights))
    except (TypeError, ValueError):
        raise ValueError(f"weights must be best_of, top_m, cvar, mean or numbers, got {weights!r}.") from None
    if not all(map(math.isfinite, alphas)) or abs(sum(alphas) - 1) > TOLERANCE:
        raise ValueError(f"weights sum to {sum(alphas):g}; those of a rank objective must sum to 1.")
    while alphas[-1] == 0:
        alphas = alphas[:-1]
    if len(alphas) > n:
        raise ValueError(f"weights pay rank {len(alphas)}, but only n = {n} samples are ranked.")
    return alphas


def advantages_by_rank(
    rewards: Any, scores: Any, n: Budgets | None, alphas_of_budget: Callable[[int], Alphas], baseline: Baseline
) -> Tensor:
    """Return the advantages (..., M) of Σ_N p_N J_α(N); see :func:`rank`."""
    as_budgets(n)  # first: a forgotten n would be reported as a wrong shape of the scores
    if baseline not in ("loo", "loo1", "none"):
        raise ValueError(f"baseline must be 'loo', 'loo1' or 'none', got {baseline!r}.")
    samples = as_rewards(rewards)
    ranks = as_scores(rewards if scores is None else scores, samples)
    num_samples = samples.shape[-1]
    budgets = as_budgets(n, num_samples, spare=int(baseline == "loo"))
    if baseline != "none":
        # With either baseline a constant reward changes nothing; subtracting it first makes that exact in floats.
        samples = samples - samples.amin(-1, keepdim=True)
    # c of the whole pool (M + 1,) and b of the pool without a sample (M,), averaged over the budgets.
    paid, without = torch.zeros(num_samples + 1, dtype=torch.float64), torch.zeros(num_samples, dtype=torch.float64)
    for budget, weight in budgets.items():
        alphas = alphas_of_budget(budget)
        own = _baseline_of(budget, alphas, baseline, is_alone=not isinstance(n, Mapping))
        if own == "loo" and budget == num_samples:
            raise ValueError(f"n = {budget} with {baseline} needs {budget + 1} samples per prompt, got {num_samples}.")
        paid = paid + weight * paid_below(num_samples, budget, alphas)
        without = without + weight * _paid_without(num_samples, budget, alphas, own)
    groups = tie_groups(samples, ranks)
    return as_advantages(groups.unsort(num_samples * gain_over_rest(groups, paid, without)), rewards)


def _baseline_of(n: int, alphas: Alphas, baseline: Baseline, *, is_alone: bool) -> Baseline:
    """Return the baseline of one budget: ``loo1`` does not exist for N = 1, which uses ``loo`` beside other budgets."""
    if baseline != "loo1" or len(alphas) < n:
        return baseline
    if n == 1 and not is_alone:
        return "loo"
    if n == 1:
        raise ValueError(
            "The baseline loo1 compares with the best of n − 1 samples: n must be at least 2, got 1; take loo."
        )
    raise ValueError(
        f"The baseline loo1 ranks a sample last among n = {n}, and these weights pay the last: take loo or others."
    )


def _paid_without(num_samples: int, n: int, alphas: Alphas, baseline: Baseline) -> Tensor:
    """Return (M,): the sum that the j lowest of the M − 1 others pay in the value which a baseline compares with."""
    if baseline == "loo1":
        return paid_below(num_samples, n, alphas)[1:]  # i stands below all others, where nothing is paid
    rest = paid_below(num_samples - 1, n, alphas) if n < num_samples else torch.zeros(num_samples, dtype=torch.float64)
    return rest if baseline == "loo" else (1 - n / num_samples) * rest  # none: the pool's subsets without i


@functools.lru_cache(maxsize=256)
def paid_below(num_samples: int, n: int, alphas: Alphas) -> Tensor:
    """Return c(j) = Σ_{l<j} w_M(l), the sum that the j lowest places of a pool pay, as float64 of shape (M + 1,).

    The binomials of Best-of-N come from an exact recursion (:func:`subset_ratios`), all others from logarithms of the
    gamma function, good to about 1e-11 of the largest at M = 4096.

    >>> paid_below(4, 2, (0.5, 0.5)).round(decimals=12).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if alphas == BEST:
        return subset_ratios(num_samples, n)
    below = torch.arange(num_samples, dtype=torch.float64)
    log_subsets = math.lgamma(num_samples + 1) - math.lgamma(n + 1) - math.lgamma(num_samples - n + 1)
    weight = torch.zeros(num_samples, dtype=torch.float64)
    for j, alpha in enumerate(alphas, start=1):
        log_ways = _log_binomial(num_samples - 1 - below, j - 1) + _log_binomial(below, n - j)
        weight += alpha * (log_ways - log_subsets).exp()
    return torch.cat([torch.zeros(1, dtype=torch.float64), weight.cumsum(0)])


def _log_binomial(a: Tensor, k: int) -> Tensor:
    """Return log C(a, k); −∞ where k > a."""
    rest = a - k
    ways = torch.lgamma(a + 1) - math.lgamma(k + 1) - torch.lgamma(rest.clamp(min=0) + 1)
    return torch.where(rest >= 0, ways, -math.inf)
