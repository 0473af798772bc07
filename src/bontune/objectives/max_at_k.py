"""Objectives that train for the best of k by the reward itself: PKPO and Pass@k Training."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bontune.objectives.best_of_n import bon_rl
from bontune.objectives.budgets import Budgets, check_budget
from bontune.objectives.inputs import as_advantages, as_binary_rewards
from bontune.objectives.subsets import subset_ratios


def pkpo(rewards: Any, n: Budgets, baseline: Literal["loo1", "loo", "none"] = "loo1") -> Tensor:
    """Pass-at-k policy optimisation: ∇ of E[max of n rewards], exact for any rewards.

    It is :func:`bontune.objectives.bon_rl` with the reward as its own verifier: ``loo1`` is the paper's
    `sloo_minus_one`, ``loo`` its `sloo`, ``none`` its `s`. For 0/1 rewards it optimises 1 − q^N.

    Args:
        rewards: (..., M), M ≥ n (``loo``: M ≥ n + 1).
        n: N (the paper's k), or weights of several; ``loo1`` needs n ≥ 2.
        baseline: ``loo1``, ``loo`` or ``none``; see above.

    Returns:
        (..., M) advantages, mean form. Unbiased.

    Raises:
        ValueError: see :func:`bontune.objectives.bon_rl`.

    References:
        Walder & Karkhanis, "Pass@K Policy Optimization", arXiv 2505.15201.

    >>> pkpo([0.0, 1.0, 0.0, 0.0], n=2).tolist()  # the only correct one, in half of all pairs
    [0.0, 2.0, 0.0, 0.0]
    """
    return bon_rl(rewards, rewards, n, baseline)


def passk_training(rewards: Any, n: int) -> Tensor:
    """Analytic group-relative advantages of pass@n as reward.

        ρ = 1 − C(M−c, n)/C(M, n),  σ = √(ρ(1−ρ))
        A_i = (1−ρ)/σ if correct, (1 − ρ − C(M−c−1, n−1)/C(M−1, n−1))/σ if wrong;  0 where σ = 0

    Optimises (2/N) arcsin √pass@N up to the bias of σ̂ (w(s) = q^{N/2−1}/√(1−q^N)). A·σ·n/(M−n) times M is the LOO
    advantage of :func:`pkpo`.

    Args:
        rewards: (..., M), 0 or 1.
        n: 1 ≤ n ≤ M (at n = M every group has σ = 0).

    Returns:
        (..., M) advantages, mean form.

    Raises:
        ValueError: rewards other than 0 and 1, or n outside 1..M.

    References:
        Chen et al., "Pass@k Training for Adaptively Balancing Exploration and Exploitation of LLMs", arXiv 2508.10751,
        eq. 11–15.
    """
    samples = as_binary_rewards(rewards, "passk_training")
    m = samples.shape[-1]
    n = check_budget(n, m)
    wrong = m - samples.sum(-1, keepdim=True).long()
    all_fail = subset_ratios(m, n).to(samples.device)[wrong]
    others_fail = subset_ratios(m - 1, n - 1).to(samples.device)[(wrong - 1).clamp(min=0)]
    sigma = (all_fail * (1 - all_fail)).clamp(min=0).sqrt()
    advantages = torch.where(samples == 1, all_fail, all_fail - others_fail) / torch.where(sigma > 0, sigma, 1.0)
    return as_advantages(torch.where(sigma > 0, advantages, 0.0), rewards)
