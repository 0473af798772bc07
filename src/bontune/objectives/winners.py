"""Best-of-N draws as in the paper: pick the winner of N samples and train on winners only (``draw: winner``).

The M samples of a prompt are cut into G = M // N disjoint groups of N; the winner of each group is one draw from
π_bon. This keeps the paper's own recipe runnable; :func:`bontune.objectives.bon_rl` uses all M samples instead.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.best_of_n import lambda_n
from bontune.objectives.budgets import check_budget
from bontune.objectives.closed_forms import CLIP
from bontune.objectives.inputs import (
    as_advantages,
    as_binary_rewards,
    as_failure_rate,
    as_rewards,
    as_samples,
    as_scores,
)

WINNER_OBJECTIVES = ("bon_rl", "bon_rl_variational", "bon_rlb", "bon_rlbp")


def draw_winners(scores: Any, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Return the index of the Best-of-N winner in each of the M // N consecutive groups, ties broken uniformly.

    Args:
        scores: (..., M).
        n: N ≤ M; a rest of M mod N samples is not used.
        generator: breaks the ties.

    Returns:
        (..., M // N) int64, indices into the sample axis.

    Raises:
        ValueError: n > M, NaN.
    """
    ranks = as_samples(scores, "scores")
    m = ranks.shape[-1]
    n = check_budget(n, m)
    groups = ranks[..., : m // n * n].reshape(*ranks.shape[:-1], m // n, n)
    is_best = groups == groups.amax(-1, keepdim=True)
    tie_break = torch.rand(groups.shape, generator=generator, dtype=torch.float64).to(groups.device)
    winner = torch.where(is_best, tie_break, -1.0).argmax(-1)
    return winner + torch.arange(m // n, device=ranks.device) * n


def winner_advantages(
    name: str,
    rewards: Any,
    scores: Any = None,
    n: int | None = None,
    winners: Tensor | None = None,
    p_fail: Any = None,
    sign: Literal["exact", "published"] = "exact",
    baseline: Literal["loo", "none"] = "loo",
    clip: tuple[float, float] = CLIP,
) -> Tensor:
    """Advantages of the paper's estimators on G winners y_w ~ π_bon, placed among the M samples.

        bon_rlbp             g = N p^{N−1}(1−p)/(1−p^N) on correct winners, 0 on wrong ones
        bon_rlb              g = N p^{N−1}/(1−p^N) on correct, ± N p/(1−p) on wrong winners
        bon_rl               (R_w − b) ∇log π_bon(y_w), the score of the exact law with p_<, p_≤ from the M samples
        bon_rl_variational   (R_w − b)(∇log π(y_w) + λ_N ∇Q(y_w)), ∇Q from the M samples

    The first two weigh winners only and are unbiased for p = q (``published``: see
    :func:`bontune.objectives.bon_rlb`). With a baseline they are less noisy: the value b(x) = E_π of the weights on
    samples from π, which follows from p, is taken off there, before the law of the winners is divided out. Both become

        N p^N (1−p)/(1−p^N) on correct winners,    −N (1−p) on wrong ones        (``published``: times (1+p)/(1−p))

    The last two also put weight on the samples that the winner beats; b is the mean of the prompt's other winners, or
    1 − p^N if there is only one. They are consistent in M, not unbiased.

    Args:
        name: one of the four, ``WINNER_OBJECTIVES``.
        rewards: (..., M).
        scores: (..., M), by which the winners were picked; None: the reward itself, r = R.
        n, winners: N, and (..., G) indices from :func:`draw_winners`; both are required.
        p_fail: P_fail per prompt; None: the plug-in estimate.
        sign, clip, baseline: as in :func:`bontune.objectives.bon_rlb`; ``loo`` is the value b(x) here.

    Returns:
        (..., M) advantages, mean form over the M samples (a winner's weight is multiplied by M / G).

    Raises:
        ValueError: unknown name, rewards other than 0/1 for the closed forms, and as in the functions above.

    References:
        Chow et al., arXiv 2412.15287, eq. 5–6, Lemma 3, Corollary 4; exact law: Sessa et al., arXiv 2407.14622, Thm 1.
    """
    _check_options(name, sign, baseline)
    is_closed = name in ("bon_rlb", "bon_rlbp")
    samples = as_binary_rewards(rewards, name) if is_closed else as_rewards(rewards)
    m = samples.shape[-1]
    n = check_budget(n, m)
    winners = _checked_winners(winners, samples)
    if is_closed:
        p = as_failure_rate(p_fail, samples, clip)
        has_won, sign_of_wrong = samples.gather(-1, winners) == 1, None if name == "bon_rlbp" else sign
        weight = (_centred_form if baseline == "loo" else _closed_form)(has_won, n, p, sign_of_wrong)
        advantages = _scatter(weight * (m / winners.shape[-1]), winners, m)
    else:
        ranks = as_scores(rewards if scores is None else scores, samples)
        p = as_failure_rate(p_fail, samples, (0.0, 1.0))
        advantages = _score_function(samples, ranks, winners, n, p, is_exact=name == "bon_rl")
    return as_advantages(advantages, rewards)


def _check_options(name: str, sign: str, baseline: str) -> None:
    if name not in WINNER_OBJECTIVES:
        raise ValueError(f"draw: winner is defined for {', '.join(WINNER_OBJECTIVES)}, not for {name!r}.")
    if sign not in ("exact", "published"):
        raise ValueError(f"sign must be 'exact' or 'published', got {sign!r}.")
    if baseline not in ("loo", "none"):
        raise ValueError(f"baseline must be 'loo' or 'none', got {baseline!r}.")


def _checked_winners(winners: Tensor | None, samples: Tensor) -> Tensor:
    if winners is None:
        raise ValueError("winners are missing: give the indices that draw_winners(scores, n) returns.")
    m = samples.shape[-1]
    is_index = ((winners >= 0) & (winners < m)).all()
    if winners.shape[:-1] != samples.shape[:-1] or not bool(is_index) or not winners.numel():
        raise ValueError(
            f"winners must be indices below M = {m}, shape {(*samples.shape[:-1], 'G')}, got {tuple(winners.shape)}."
        )
    return winners


def _closed_form(has_won: Tensor, n: int, p: Tensor, sign: str | None) -> Tensor:
    """g of BoN-RLB for each winner; ``sign`` None: BoN-RLB(P)."""
    if sign is None:
        return torch.where(has_won, n * p ** (n - 1) * (1 - p) / (1 - p**n), 0.0)
    wrong = n * p / (1 - p) * (1 if sign == "exact" else -1)
    return torch.where(has_won, n * p ** (n - 1) / (1 - p**n), wrong)


def _centred_form(has_won: Tensor, n: int, p: Tensor, sign: str | None) -> Tensor:
    """Return (g_π − E_π g_π) π/π_bon for each winner; g_π weighs samples from π: N p^{N−1} (R − s) before division."""
    centred = torch.where(has_won, n * p**n * (1 - p) / (1 - p**n), -n * (1 - p))
    return centred * (1 + p) / (1 - p) if sign == "published" else centred


def _score_function(samples: Tensor, ranks: Tensor, winners: Tensor, n: int, p: Tensor, *, is_exact: bool) -> Tensor:
    """Return REINFORCE on the winners with the score function of the exact or the variational law."""
    m, num_draws = samples.shape[-1], winners.shape[-1]
    won = samples.gather(-1, winners)  # (..., G), rewards of the winners
    value = (won.sum(-1, keepdim=True) - won) / (num_draws - 1) if num_draws > 1 else 1 - p**n
    centred = (won - value) / num_draws
    # Compare every sample with every winner: (..., G, 1) with (..., 1, M).
    winning = ranks.gather(-1, winners).unsqueeze(-1)
    is_at_most = (ranks.unsqueeze(-2) <= winning).to(torch.float64)  # (..., G, M)
    is_below = (ranks.unsqueeze(-2) < winning).to(torch.float64)
    score = _exact_score(is_at_most, is_below, n) if is_exact else lambda_n(n) * is_at_most
    return (centred.unsqueeze(-1) * score).sum(-2) + _scatter(centred * m, winners, m)


def _exact_score(is_at_most: Tensor, is_below: Tensor, n: int) -> Tensor:
    """Return M · coefficients of ∇log π(y_j) in ∇ log[(p_≤^N − p_<^N)/(p_≤ − p_<)]; p_≤, p_< are shares of the pool."""
    upto, below = is_at_most.mean(-1, keepdim=True), is_below.mean(-1, keepdim=True)
    spread = upto**n - below**n
    gap = upto - below  # at least 1/M, because the winner itself is in the pool
    return is_at_most * (n * upto ** (n - 1) / spread - 1 / gap) - is_below * (n * below ** (n - 1) / spread - 1 / gap)


def _scatter(weight: Tensor, winners: Tensor, m: int) -> Tensor:
    return torch.zeros(*weight.shape[:-1], m, dtype=weight.dtype, device=weight.device).scatter_add(-1, winners, weight)
