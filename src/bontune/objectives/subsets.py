"""Best-of-N over subsets of one pool of samples: the exact value and each sample's credit.

Everything that is "exact" in this package comes from the two U-statistics of this module. M i.i.d. samples of one
prompt are grouped by verifier score; of the C(M, N) subsets of size N, the Best-of-N rule picks from each the sample
with the highest score, uniformly among ties. Sums over subsets collapse to sums over tie groups.

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
    """L_v: how many samples score strictly below this one's group."""
    upto: Tensor
    """L_v + m_v: how many score below or in this one's group."""
    mean: Tensor
    """R̄_v: mean reward of this one's group."""

    @property
    def num_tied(self) -> Tensor:
        """m_v, the size of this one's group."""
        return self.upto - self.below

    def mean_of_others(self) -> Tensor:
        """R̄_{v∖i}: mean reward of the rest of this one's group, 0 where it stands alone; exact for equal rewards."""
        others = (self.num_tied - 1).clamp(min=1)
        rest = self.mean + (self.mean - self.rewards) / others
        return torch.where(self.num_tied > 1, rest, 0.0)

    def sum_at_least(self, values: Tensor) -> Tensor:
        """Σ_i v_i 1{r_i ≥ r_j} for values of sorted places: all from the start of j's tie group upwards."""
        running = values.cumsum(-1)
        return running[..., -1:] - running.gather(-1, self.below) + values.gather(-1, self.below)

    def unsort(self, values: Tensor) -> Tensor:
        """Put values of sorted places back to their samples."""
        return torch.empty_like(values).scatter_(-1, self.order, values)


def tie_groups(rewards: Tensor, scores: Tensor) -> TieGroups:
    """Sort by score and find the tie groups.

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
    # The first place of the *next* group, found from the right; the last group ends at M.
    is_last = torch.ones_like(is_first)
    is_last[..., :-1] = is_first[..., 1:]
    ends = torch.where(is_last, place + 1, m)
    upto = torch.cummin(ends.flip(-1), dim=-1).values.flip(-1)
    rewards = rewards.gather(-1, order)
    # Group means around the group's first reward: exact when all rewards of a group are equal, which is what makes
    # the credit of ties exactly zero instead of 1e-17.
    anchor = rewards.gather(-1, below)
    sums = torch.zeros_like(rewards).scatter_add_(-1, below, rewards - anchor).gather(-1, below)
    return TieGroups(order=order, rewards=rewards, below=below, upto=upto, mean=anchor + sums / (upto - below))


def _sum_over_groups(groups: TieGroups, weight: Tensor) -> Tensor:
    """Σ_v weight_v R̄_v as a running sum over sorted places: each place carries its group's term / m_v."""
    return (weight * groups.mean / groups.num_tied).cumsum(-1)


def best_of_n_value(rewards: Tensor, scores: Tensor, n: int) -> Tensor:
    """Unbiased Best-of-N reward from a pool of M ≥ N samples (docs/estimators.md; max@k when scores are the rewards).

        Ĵ_N = Σ_v [C(L_v+m_v, N) − C(L_v, N)] / C(M, N) · R̄_v

    It is the mean over all N-subsets of the winner's reward, hence unbiased for E_{π_bon}[R] for every N ≤ M.

    Args:
        rewards: (..., M) float64.
        scores: (..., M) of any real dtype.
        n: N, 1 ≤ N ≤ M.

    Returns:
        (...,) float64.
    """
    return value_of_groups(tie_groups(rewards, scores), n)


def value_of_groups(groups: TieGroups, n: int) -> Tensor:
    """:func:`best_of_n_value` on samples that are already grouped (every k of one pool costs one sort)."""
    ratios = subset_ratios(groups.rewards.shape[-1], n).to(groups.rewards.device)
    weight = ratios[groups.upto] - ratios[groups.below]
    return (weight * groups.mean / groups.num_tied).sum(-1)


def best_of_n_credit(groups: TieGroups, n: int) -> Tensor:
    """W_i: the winner's reward summed over the N-subsets that contain sample i, over C(M, N); see docs/estimators.md.

        W_i = 1/C(M,N) · { P R_i + (C(L_a+m_a−1, N−1) − P) R̄_{a∖i}
                           + Σ_{v>a} [C(L_v+m_v−1, N−1) − C(L_v−1, N−1)] R̄_v },   P = [C(L_a+m_a,N) − C(L_a,N)]/m_a

    Returns:
        (..., M) in the order of ``groups``; Σ_i W_i = N·Ĵ_N.
    """
    m = groups.rewards.shape[-1]
    ratios, ratios_with_i = _ratios(groups, m, n)
    pick_i = (ratios[groups.upto] - ratios[groups.below]) / groups.num_tied
    rest = ratios_with_i[groups.upto - 1]
    above = rest - ratios_with_i[(groups.below - 1).clamp(min=0)]
    running = _sum_over_groups(groups, above)
    total_above = running[..., -1:] - running.gather(-1, groups.upto - 1)
    return pick_i * groups.rewards + (rest - pick_i) * groups.mean_of_others() + total_above


def best_of_n_gain(groups: TieGroups, n: int) -> Tensor:
    """What sample i adds: mean over (N−1)-subsets S of the others of reward(winner of S ∪ i) − reward(winner of S).

    Times N/M this is W_i − (N/M)·Ĵ_{N−1}(all but i), the LOO-1 advantage in sum form, but written without the
    difference of two large numbers: subsets in which i changes nothing contribute exactly 0.

        1/C(M−1,N−1) · { C(L_a,N−1) R_i − Σ_{v<a} [C(L_v+m_v,N−1) − C(L_v,N−1)] R̄_v + (P − C(L_a,N−1))(R_i − R̄_{a∖i}) }

    Returns:
        (..., M) in the order of ``groups``, N ≥ 2.
    """
    m = groups.rewards.shape[-1]
    ratios, ratios_with_i = _ratios(groups, m, n)
    beats = ratios_with_i[groups.below]  # all of S below i
    pick_i = (ratios[groups.upto] - ratios[groups.below]) / groups.num_tied
    # Subsets that reach into i's tie group; a sample that stands alone has none, whatever the rounding says.
    ties = torch.where(groups.num_tied > 1, pick_i - beats, 0.0)
    running = _sum_over_groups(groups, ratios_with_i[groups.upto.clamp(max=m - 1)] - beats)
    displaced = torch.where(groups.below > 0, running.gather(-1, (groups.below - 1).clamp(min=0)), 0.0)
    gain = beats * groups.rewards - displaced + ties * (groups.rewards - groups.mean_of_others())
    return gain * (m / n)


def best_of_n_value_without(groups: TieGroups, n: int) -> Tensor:
    """Ĵ_N(all but i) for every i: the Best-of-N value of the pool without sample i.

    Returns:
        (..., M) in the order of ``groups``; needs M ≥ N + 1.
    """
    m = groups.rewards.shape[-1]
    ratios = subset_ratios(m - 1, n).to(groups.rewards.device)
    lower = _sum_over_groups(groups, ratios[groups.upto.clamp(max=m - 1)] - ratios[groups.below])
    lower = torch.where(groups.below > 0, lower.gather(-1, (groups.below - 1).clamp(min=0)), 0.0)
    own = (ratios[groups.upto - 1] - ratios[groups.below]) * groups.mean_of_others()
    upper = _sum_over_groups(groups, ratios[groups.upto - 1] - ratios[(groups.below - 1).clamp(min=0)])
    upper = upper[..., -1:] - upper.gather(-1, groups.upto - 1)
    return lower + own + upper


def _ratios(groups: TieGroups, m: int, n: int) -> tuple[Tensor, Tensor]:
    """C(j, N)/C(M, N) and C(j, N−1)/C(M, N), j ≤ M and j ≤ M − 1."""
    device = groups.rewards.device
    return subset_ratios(m, n).to(device), subset_ratios(m - 1, n - 1).to(device) * (n / m)
