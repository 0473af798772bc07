"""Sums over all subsets of one pool of samples give the pool's value and the contribution of each sample to it.

Everything "exact" in this package comes from the U-statistics of this module. M i.i.d. samples of one prompt
are grouped by verifier score; a rule such as Best-of-N pays each of the C(M, N) subsets of size N by rank, uniformly
among ties. Sums over subsets collapse to sums over places in the order of scores, and those to sums over tie groups.

Shapes: ``_M`` the samples of one prompt, always the last axis; leading axes are prompts and are vectorised over.
All arithmetic is float64. Costs O(M log M) per prompt: one sort, then prefix sums.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


@functools.lru_cache(maxsize=256)
def subset_ratios(m: int, n: int, size: int | None = None) -> Tensor:
    """C(j, n) / C(m, n) for j = 0..size (default ``m``), as float64 of shape (size + 1,).

    Built from the exact ratio C(j−1, n) / C(j, n) = (j − n) / j downwards from j = max(m, size), so nothing overflows
    (values too small for float64 become 0) and the relative error stays below m units in the last place.

    >>> subset_ratios(4, 2).tolist()  # C(j, 2) / 6
    [0.0, 0.0, 0.16666666666666666, 0.5, 1.0]
    """
    size = m if size is None else size
    if not 0 <= n <= m or size > m:
        raise ValueError(f"subset_ratios needs 0 <= n <= m and size <= m, got n={n}, m={m}, size={size}.")
    j = torch.arange(m, n, -1, dtype=torch.float64)
    ratios = torch.zeros(m + 1, dtype=torch.float64)
    ratios[m] = 1.0
    ratios[n:m] = torch.cumprod((j - n) / j, dim=0).flip(0)
    return ratios[: size + 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class TieGroups:
    """One prompt's samples in ascending order of score, with the tie group of each (all of shape (..., M))."""

    order: Tensor
    """Index of the sample at each sorted place."""
    rewards: Tensor
    """Rewards in sorted order, float64."""
    below: Tensor
    """L_v: number of samples that score strictly below this one's group."""
    upto: Tensor
    """L_v + m_v: number of samples that score below or in this one's group."""
    mean: Tensor
    """R̄_v: mean reward of this one's group."""

    @property
    def num_tied(self) -> Tensor:
        """Number of samples m_v in this one's group."""
        return self.upto - self.below

    def mean_of_others(self) -> Tensor:
        """Return R̄_{v∖i}, the mean reward of the others of i's group; 0 if there are none, exact for equal rewards."""
        others = (self.num_tied - 1).clamp(min=1)
        rest = self.mean + (self.mean - self.rewards) / others
        return torch.where(self.num_tied > 1, rest, 0.0)

    def sum_at_least(self, values: Tensor) -> Tensor:
        """Return Σ_i v_i 1{r_i ≥ r_j} for values in sorted order: the sum from the start of j's tie group upwards."""
        running = values.cumsum(-1)
        return running[..., -1:] - running.gather(-1, self.below) + values.gather(-1, self.below)

    def unsort(self, values: Tensor) -> Tensor:
        """Bring values in sorted order back to the order of the samples."""
        return torch.empty_like(values).scatter_(-1, self.order, values)


def tie_groups(rewards: Tensor, scores: Tensor) -> TieGroups:
    """Sort the samples by score and find the tie groups.

    Args:
        rewards: (..., M) float64.
        scores: (..., M), any real dtype; only its order and its ties matter.
    """
    m = scores.shape[-1]
    sorted_scores, order = torch.sort(scores, dim=-1)
    place = torch.arange(m, device=scores.device)
    is_first = torch.ones_like(sorted_scores, dtype=torch.bool)
    is_first[..., 1:] = sorted_scores[..., 1:] != sorted_scores[..., :-1]
    below = torch.cummax(torch.where(is_first, place, 0), dim=-1).values
    # Each group ends where the next one starts: a minimum from the right. The last group ends at M.
    is_last = torch.ones_like(is_first)
    is_last[..., :-1] = is_first[..., 1:]
    ends = torch.where(is_last, place + 1, m)
    upto = torch.cummin(ends.flip(-1), dim=-1).values.flip(-1)
    rewards = rewards.gather(-1, order)
    # Means are taken around the group's first reward, so that they are exact when all rewards of a group are equal:
    # the credit of such ties is then exactly zero, not 1e-17.
    anchor = rewards.gather(-1, below)
    sums = torch.zeros_like(rewards).scatter_add_(-1, below, rewards - anchor).gather(-1, below)
    return TieGroups(order=order, rewards=rewards, below=below, upto=upto, mean=anchor + sums / (upto - below))


def best_of_n_value(rewards: Tensor, scores: Tensor, n: int) -> Tensor:
    """Return the unbiased Best-of-N reward of a pool of M ≥ N samples (docs/estimators.md); max@k if r = R.

        Ĵ_N = Σ_v [C(L_v+m_v, N) − C(L_v, N)] / C(M, N) · R̄_v

    It is the mean over all N-subsets of the winner's reward, hence unbiased for E_{π_bon}[R] for every N ≤ M.

    Args:
        rewards: (..., M) float64.
        scores: (..., M) of any real dtype.
        n: N, 1 ≤ N ≤ M.

    Returns:
        (...,) float64.
    """
    return value_by_place(tie_groups(rewards, scores), subset_ratios(rewards.shape[-1], n))


def value_by_place(groups: TieGroups, paid: Tensor) -> Tensor:
    """Return the value of a pool in which each place in the order of scores pays a share of the reward at that place.

        V = Σ_v [c(L_v+m_v) − c(L_v)] R̄_v

    Args:
        groups: the pool, (..., M).
        paid: (M + 1,) float64, c(j): the sum that the j lowest places pay; Best-of-N has c(j) = C(j, N)/C(M, N).

    Returns:
        (...,) float64.
    """
    paid = paid.to(groups.rewards.device)
    return _by_place(groups, paid[groups.upto] - paid[groups.below]).sum(-1)


def gain_over_rest(groups: TieGroups, paid: Tensor, paid_without: Tensor) -> Tensor:
    """Return the value of the pool minus its value without sample i, for each i: V(c) − V⁽⁻ⁱ⁾(b).

    The sum goes group by group, so that a group that pays the same with and without i contributes exactly 0. Without i,
    groups below it keep their places, and groups above it move down by one.

    Args:
        groups: the pool, (..., M).
        paid: (M + 1,), c of :func:`value_by_place` for the whole pool.
        paid_without: (M,), b of :func:`value_by_place` for the M − 1 others.

    Returns:
        (..., M) in the order of ``groups``.
    """
    paid, without = paid.to(groups.rewards.device), paid_without.to(groups.rewards.device)
    below, upto = groups.below, groups.upto
    share = paid[upto] - paid[below]
    lower = _by_place(groups, share - (without[upto.clamp(max=len(without) - 1)] - without[below])).cumsum(-1)
    lower = torch.where(below > 0, lower.gather(-1, (below - 1).clamp(min=0)), 0.0)
    own = share * groups.mean - (without[upto - 1] - without[below]) * groups.mean_of_others()
    upper = _by_place(groups, share - (without[upto - 1] - without[(below - 1).clamp(min=0)])).cumsum(-1)
    return lower + own + (upper[..., -1:] - upper.gather(-1, upto - 1))


def _by_place(groups: TieGroups, weight: Tensor) -> Tensor:
    """Return weight_v R̄_v divided evenly among the places of group v: a sum over places is then one over groups."""
    return weight * groups.mean / groups.num_tied
